"""Judges: the `Judge` protocol, the LLM judge, the lexical judge and the classifier."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol, runtime_checkable

from pydantic import ValidationError

from refusalkit.errors import ConfigurationError, JudgeFileError
from refusalkit.models import Pacer, Via, open_client
from refusalkit.models.prices import price_of
from refusalkit.rubrics import Rubric, load_rubric, shipped_judges
from refusalkit.types import Completion, Prompt, Verdict
from refusalkit.untrusted import printable

__all__ = ["Judge", "load_judge", "open_judge"]


@runtime_checkable
class Judge(Protocol):
    """Labels answers. Implement these to put any grader to work.

    `id` names the judge in records: one id, one way of judging.
    """

    @property
    def id(self) -> str: ...

    async def grade(self, prompt: Prompt, completion: Completion) -> Verdict:
        """Label one completion whose outcome is `answered` or `truncated`.

        Failures are verdicts without a label, but for `FatalProviderError`: no request can succeed.
        """
        ...

    async def aclose(self) -> None:
        """Close connections."""
        ...


def load_judge(
    source: str | Path,
    *,
    model: str | None = None,
    api_base: str | None = None,
    api_key_env: str | None = None,
    via: Via | None = None,
    rpm: float | None = None,
    max_retries: int = 5,
    timeout_s: float = 600.0,
) -> Judge:
    """A judge by its shipped name or the path of its file.

    `model` replaces the model that the judge's file names; the other arguments are those of
    `open_model`. Raises `JudgeFileError`, and what `open_model` raises.
    """
    return open_judge(
        load_rubric(source, model=model),
        api_base=api_base,
        api_key_env=api_key_env,
        via=via,
        rpm=rpm,
        max_retries=max_retries,
        timeout_s=timeout_s,
    )


def open_judge(
    rubric: Rubric,
    *,
    api_base: str | None = None,
    api_key_env: str | None = None,
    via: Via | None = None,
    rpm: float | None = None,
    max_retries: int = 5,
    timeout_s: float = 600.0,
) -> Judge:
    """The judge that a rubric describes."""
    # Each kind is imported where it is used: rules need no client, a client no rules.
    if rubric.kind == "lexical":
        from refusalkit.judges.lexical import LexicalJudge, LexicalRules

        try:
            shipped = rubric.source in shipped_judges()
            rules = LexicalRules.model_validate(rubric.rules, context={"trusted": shipped})
        except ValidationError as error:
            raise _file_error(rubric, "rules", error) from error
        return LexicalJudge(rules, id=rubric.name)
    if rubric.kind == "classifier":
        from refusalkit.judges.classifier import ClassifierJudge, ClassifierSettings

        try:
            settings = ClassifierSettings.model_validate(rubric.rules)
        except ValidationError as error:
            raise _file_error(rubric, "classifier", error) from error
        return ClassifierJudge(rubric, settings)
    if via == "litellm" and rubric.model.startswith("anthropic/"):
        # litellm turns the schema into a forced tool call, which is no reply of the schema and
        # which newer Claude models refuse.
        raise ConfigurationError(
            f"{printable(rubric.model)} cannot judge through litellm: leave out --judge-via, it is "
            "reached through the anthropic SDK"
        )
    from refusalkit.judges.llm import LLMJudge

    client = open_client(
        rubric.model,
        api_base=api_base,
        api_key_env=api_key_env,
        via=via,
        pacer=Pacer(rpm=rpm, max_retries=max_retries),
    )
    price = None if api_base else price_of(rubric.model)
    return LLMJudge(rubric, client, price=price, timeout_s=timeout_s)


def _file_error(rubric: Rubric, table: str, error: ValidationError) -> JudgeFileError:
    """The first mistake in a table of a judge file."""
    first = error.errors(include_url=False)[0]
    field = printable(".".join(str(part) for part in (table, *first["loc"])))
    what = printable(first["msg"].removeprefix("Value error, "))
    return JudgeFileError(f"judge file {printable(rubric.source)}: {field}: {what}")
