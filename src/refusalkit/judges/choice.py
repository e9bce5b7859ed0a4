"""Which judges a configuration names, and the one judge that they form.

A judge is named by its shipped name or the path of its file; several are separated by commas. An
``@`` adds the model to ask instead of the file's own: ``graded@openai/gpt-6-luna``. Paths may
contain ``@`` and commas: a text that names an existing file is one judge, and the first ``@`` after
a shipped name or an existing file is the separator.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, replace
from pathlib import Path

from refusalkit.config.run_config import CouncilRule, RunConfig
from refusalkit.errors import UsageError
from refusalkit.judges.council import Council
from refusalkit.judges.protocol import Judge
from refusalkit.judges.routed import ComposedJudge
from refusalkit.judges.rubrics import Rubric, load_rubric, shipped_judges
from refusalkit.models.endpoints import Pacers
from refusalkit.models.pacing import Pacer
from refusalkit.untrusted import printable

_PACE = ("judge_rpm", "judge_tpm", "judge_concurrency")


@dataclass(frozen=True, slots=True)
class NamedJudge:
    """A judge by its source, and the model to ask where it is not the file's own."""

    source: str
    model: str | None = None


@dataclass(frozen=True, slots=True)
class JudgeChoice:
    """The judges of a run. `rule` is None for a single judge."""

    members: tuple[NamedJudge, ...]
    rule: CouncilRule | None = None
    fallback: NamedJudge | None = None
    hard_line_judge: NamedJudge | None = None


def choose_judge(config: RunConfig) -> JudgeChoice:
    """The judges that a configuration names. Raises `UsageError` where they do not fit together.

    `judge_model` is the model of every judge that has none of its own, except the fallback.
    """
    members = parse_judges(config.judge_name)
    rule = config.council
    if len(members) > 1:
        rule = rule or "majority"
    elif rule is not None:
        raise UsageError(
            f"a council ({rule}) needs several judges: name them with commas, --judge a,b,c"
        )
    model = config.judge_model
    several = rule is not None
    hard_line = _single("hard-line judge", config.hard_line_judge)
    if hard_line is not None:
        hard_line = _with_model(hard_line, model, if_it_asks_one=True)
    return JudgeChoice(
        members=tuple(_with_model(named, model, if_it_asks_one=several) for named in members),
        rule=rule,
        fallback=_single("fallback", config.judge_fallback),
        hard_line_judge=hard_line,
    )


def parse_judges(text: str) -> tuple[NamedJudge, ...]:
    """The judges that a text names: ``NAME``, ``NAME@MODEL``, several with commas."""
    if _is_judge(text):
        return (NamedJudge(text),)
    parts = [part.strip() for part in text.split(",")]
    if not all(parts):
        raise UsageError(f"{printable(text)!r} has an empty name beside a comma: write a,b,c")
    return tuple(map(_parse_one, parts))


def open_choice(
    choice: JudgeChoice,
    config: RunConfig,
    *,
    base: Judge | None = None,
    hard_lines: Collection[str] = (),
    pacers: Pacers | None = None,
) -> Judge:
    """Open what was chosen; `base` takes the place of the members.

    `hard_lines` are the slugs of the set's hard-line categories. Judges that ask the same model
    share its pace, across runs too where these share `pacers`. Raises `JudgeFileError`,
    `UsageError` and what `open_model` raises.
    """
    check_hard_line_judge(choice, hard_lines)
    pacers = Pacers() if pacers is None else pacers
    if base is None:
        opened = [_open(named, config, pacers) for named in choice.members]
        base = opened[0] if choice.rule is None else Council(opened, rule=choice.rule)
    if choice.fallback is None and choice.hard_line_judge is None:
        return base
    return ComposedJudge(
        base,
        fallback=_open(choice.fallback, config, pacers) if choice.fallback else None,
        hard_line_judge=(
            _open(choice.hard_line_judge, config, pacers) if choice.hard_line_judge else None
        ),
        hard_lines=hard_lines,
    )


def check_hard_line_judge(choice: JudgeChoice, hard_lines: Collection[str]) -> None:
    """Raise `UsageError` where there is a judge for hard lines and no hard line."""
    if choice.hard_line_judge is not None and not hard_lines:
        raise UsageError(
            "the prompts have no hard line, so the hard-line judge has nothing to judge: leave it "
            "out, or name the categories with --hard-line"
        )


def _open(named: NamedJudge, config: RunConfig, pacers: Pacers) -> Judge:
    from refusalkit.judges.open import open_judge

    rubric = load_named(named, config)
    fresh = Pacer(
        rpm=config.judge_rpm,
        tpm=config.judge_tpm,
        concurrency=config.judge_concurrency or config.concurrency,
        max_retries=config.max_retries,
        max_wait_s=config.max_wait_s,
    )
    # Only the judge's own options: other bounds follow the model's, which differ between runs.
    limits = {name: getattr(config, name) for name in _PACE}
    endpoint = ("judge", rubric.model, config.judge_api_base, config.judge_api_key_env)
    return open_judge(
        rubric,
        api_base=config.judge_api_base,
        api_key_env=config.judge_api_key_env,
        via=config.judge_via,
        timeout_s=config.timeout_s,
        pacer=pacers.share(endpoint, fresh, limits),
        share_form=lambda form: pacers.share_form(endpoint, form),
        finish_words=config.finish_word,
        batched=config.batch in ("judge", "both"),
    )


def load_named(named: NamedJudge, config: RunConfig) -> Rubric:
    """The rubric of a named judge, with the options of a configuration."""
    rubric = load_rubric(named.source, model=named.model)
    temperature, asks = config.judge_temperature, config.judge_asks
    in_council = len(parse_judges(config.judge_name)) > 1
    if (temperature is None and asks is None) or (in_council and not rubric.asks_model):
        # A member that asks no model has neither option.
        return rubric
    return load_rubric(named.source, model=named.model, temperature=temperature, asks=asks)


def _with_model(named: NamedJudge, model: str | None, *, if_it_asks_one: bool) -> NamedJudge:
    """The judge with `model`, unless it has one of its own."""
    if named.model is not None or model is None:
        return named
    if if_it_asks_one and not load_rubric(named.source).asks_model:
        return named
    return replace(named, model=model)


def _single(what: str, text: str | None) -> NamedJudge | None:
    if text is None:
        return None
    named = parse_judges(text)
    if len(named) > 1:
        raise UsageError(f"the {what} is one judge, not {printable(text)!r}")
    return named[0]


def _parse_one(text: str) -> NamedJudge:
    if _is_judge(text):
        return NamedJudge(text)
    at = [index for index, letter in enumerate(text) if letter == "@"]
    known = [index for index in at if _is_judge(text[:index])]
    if not at:
        return NamedJudge(text)
    cut = (known or at)[0]
    name, model = text[:cut].strip(), text[cut + 1 :].strip()
    if not name or not model:
        raise UsageError(
            f"{printable(text)!r} does not name a judge with its model: write NAME@MODEL"
        )
    return NamedJudge(name, model)


def _is_judge(text: str) -> bool:
    try:
        return text in shipped_judges() or Path(text).is_file()
    except (OSError, ValueError):  # a name that no file system takes
        return False
