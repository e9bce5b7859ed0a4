"""Which settings of a run folder are followed when a command continues the run.

A manifest names where requests go and which variable holds the key. If it has this user's seal
(`refusalkit.runs.seal`), it is followed. In any other manifest only settings that lead to the
model's own provider with that provider's own key are followed. All others must come from the person
who runs the command, or the folder must be trusted as a whole. A variable that is not a provider's
is never taken from such a folder.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from refusalkit.config.run_config import ENDPOINT_FIELDS, RunConfig
from refusalkit.errors import FolderNotTrusted
from refusalkit.models.endpoints import OFFICIAL
from refusalkit.models.key_variables import is_provider_variable, provider_variables
from refusalkit.runs.folder import Run
from refusalkit.runs.manifest import Manifest, Session
from refusalkit.untrusted import is_network_path, printable

# Providers whose usual key is also sent to a custom base URL (`refusalkit.models.open`).
_USUAL_KEY_ANYWHERE = ("openai", "hosted_vllm", "anthropic")
# Back ends that only merge `extra_body` into the request (litellm reads options from it).
_OWN_BACK_ENDS = (*_USUAL_KEY_ANYWHERE, "demo")


def followed_config(
    run: Run, options: Mapping[str, Any], *, trust_folder: bool, asks_model: bool, asks_judge: bool
) -> RunConfig:
    """The configuration with which a run continues, before this command's `options` are applied.

    Raises `FolderNotTrusted` if somebody else's folder names endpoints or keys; the message lists
    them, and the options that set them instead.
    """
    started = run.manifest.run_config
    if run.is_own:
        return started
    asked = _Asked(run, options, trust_folder)
    found: dict[str, str | None] = dict.fromkeys(ENDPOINT_FIELDS)
    if asks_model and not started.model.startswith("demo/"):
        found |= asked.endpoint("", started.model_dump(), (started.model,))
        if started.extra_body and _through_litellm(started, options):
            asked.need("extra_body", "more fields for the request")
    if asks_judge:
        models = judge_models(run.manifest, run.manifest.judge)
        found |= asked.endpoint("judge_", started.model_dump(), models)
    asked.refuse_if_any()
    return started.model_copy(update=found)


def check_sources(run: Run, *, prompts: bool, judge: bool = False, trusted: bool = False) -> None:
    """Raise `FolderNotTrusted` if a stranger's folder names a file on another machine.

    Checks the files that will be opened: with `prompts` those of the prompts or answers, with
    `judge` those of the judge of record.
    """
    if run.is_own or trusted:
        return
    manifest = run.manifest
    entry = manifest.judges[manifest.judge]
    parts = (entry, *(manifest.judges[name] for name in entry.members))
    asked = (*parts, *filter(None, (entry.fallback, entry.hard_line_judge)))
    named: list[str | None] = []
    if prompts:
        named += [manifest.prompt_set.source, manifest.run_config.prompts]
    if judge:
        named += [text for part in asked for text in (part.source, part.name, part.model)]
    for text in filter(None, named):
        if is_network_path(text):
            raise FolderNotTrusted(
                f"{printable(run.path)} was not written by you on this machine, or was changed, "
                f"and it names a file on another one, {printable(text)}, which is not opened: copy "
                "the file here, and name it yourself"
            )


def followed_judge(
    run: Run,
    named: Mapping[str, Any],
    judge: str,
    options: Mapping[str, Any],
    *,
    trust_folder: bool,
) -> Mapping[str, str]:
    """The endpoint at which a run's judge is called again, as an earlier session `named` it.

    Empty if that is its provider's own address. Raises the errors of `followed_config`.
    """
    known = {
        name: named[name] for name in ("judge_api_base", "judge_api_key_env") if named.get(name)
    }
    if run.is_own or not known:
        return known
    asked = _Asked(run, options, trust_folder)
    found = asked.endpoint("judge_", known, judge_models(run.manifest, judge))
    asked.refuse_if_any()
    return {name: value for name, value in found.items() if value is not None}


def adopted(
    manifest: Manifest, config: RunConfig, hard_lines: Collection[str], *, keep: bool
) -> Manifest:
    """Somebody else's manifest, prepared to be sealed as this user's.

    Endpoints are replaced by those of `config`, and removed from earlier sessions. `hard_lines` are
    those of the prompt set and the command; `keep`: the command says to keep their answers.
    """
    endpoints = {name: getattr(config, name) for name in ENDPOINT_FIELDS}
    return with_hard_lines(manifest, hard_lines).model_copy(
        update={
            "config": {**manifest.config, **endpoints},
            "hard_line_text": manifest.hard_line_text if keep else "withheld",
            "sessions": tuple(map(_without_endpoints, manifest.sessions)),
        }
    )


def with_hard_lines(manifest: Manifest, hard_lines: Collection[str]) -> Manifest:
    """The manifest with these categories marked as hard lines, in addition to its own."""
    if manifest.hard_lines >= set(hard_lines):
        return manifest
    entry = manifest.prompt_set
    categories = tuple(
        one.model_copy(update={"hard_line": one.hard_line or one.slug in hard_lines})
        for one in entry.categories
    )
    marked = entry.model_copy(update={"categories": categories})
    return manifest.model_copy(update={"prompt_set": marked})


def judge_models(manifest: Manifest, judge: str) -> tuple[str | None, ...]:
    """The models that a run's judge calls, including those of its members and parts."""
    entry = manifest.judges.get(judge)
    if entry is None:
        return (None,)
    parts = [entry, *(manifest.judges[name] for name in entry.members)]
    models = [part.model for part in (*parts, entry.fallback, entry.hard_line_judge) if part]
    return tuple(dict.fromkeys(models))


class _Asked:
    """Collects the folder's settings that this command has to repeat as options."""

    def __init__(self, run: Run, options: Mapping[str, Any], trust_folder: bool) -> None:
        self._run = run
        self._given = {name for name, value in options.items() if value is not None}
        self._trusted = trust_folder
        self._named: list[str] = []
        self._options: list[str] = []
        # Of these, the ones that --trust-folder takes the place of.
        self._trustable: list[str] = []

    def endpoint(
        self, prefix: str, said: Mapping[str, Any], models: tuple[str | None, ...]
    ) -> dict[str, str | None]:
        """The base URL and the key's variable that are followed, by field."""
        base_field, key_field = f"{prefix}api_base", f"{prefix}api_key_env"
        base, variable = said.get(base_field), said.get(key_field)
        if base is not None and all(_is_official(base, model) for model in models):
            base = None
        whose = "the judge" if prefix else "the model"
        if base is not None:
            base = base if self.need(base_field, f"{printable(base)} for {whose}") else None
        if variable is not None and not self._is_usual(variable, models, base_field):
            may_be_trusted = is_provider_variable(variable)
            what = f"the key in {printable(variable)} for {whose}"
            if not may_be_trusted:
                what += " (a variable that is not a provider's)"
            variable = variable if self.need(key_field, what, trusted=may_be_trusted) else None
        return {base_field: base, key_field: variable}

    def need(self, field: str, what: str, *, trusted: bool = True) -> bool:
        """Whether the folder's value of a field is followed; if not, it is noted for the error."""
        if field in self._given:
            return False
        if self._trusted and trusted:
            return True
        self._named.append(what)
        option = f"--{field.replace('_', '-')}"
        self._options.append(option)
        if trusted:
            self._trustable.append(option)
        return False

    def refuse_if_any(self) -> None:
        """Raise `FolderNotTrusted` if this command has to repeat anything."""
        if not self._named:
            return
        told = f"{printable(self._run.path)} was not written by you on this machine, or was changed"
        always = [option for option in self._options if option not in self._trustable]
        if always and self._trustable:
            how = (
                f"give {_listed(always)} yourself, and with that {_listed(self._trustable)}, or "
                "--trust-folder in place of the latter if you trust who wrote it"
            )
        else:
            how = f"give {_listed(self._options)} yourself"
            if self._trustable:
                how += ", or add --trust-folder if you trust who wrote it"
        raise FolderNotTrusted(f"{told}, and it names {_listed(self._named)}: {how}")

    def _is_usual(self, variable: str, models: tuple[str | None, ...], base_field: str) -> bool:
        """Whether this variable's key would be sent to this address by default."""
        for model in models:
            usual = () if model is None else provider_variables(model)
            if base_field in self._given:
                # To a custom base URL only these providers' usual key is sent by default.
                by_default = (model or "").partition("/")[0] in _USUAL_KEY_ANYWHERE
                usual = usual[:1] if by_default else ()
            if variable not in usual:
                return False
        return True


def _is_official(base: str, model: str | None) -> bool:
    official = OFFICIAL.get((model or "").partition("/")[0])
    return official is not None and base.rstrip("/") == official


def _through_litellm(config: RunConfig, options: Mapping[str, Any]) -> bool:
    """Whether requests go through litellm, which reads some fields as its own options."""
    provider = config.model.partition("/")[0]
    own = provider in _OWN_BACK_ENDS or config.api_base or options.get("api_base")
    return config.via == "litellm" or not own


def _without_endpoints(session: Session) -> Session:
    kept = {name: v for name, v in session.operational.items() if name not in ENDPOINT_FIELDS}
    return session.model_copy(update={"operational": kept})


def _listed(words: list[str]) -> str:
    *first, last = words
    return f"{', '.join(first)} and {last}" if first else last
