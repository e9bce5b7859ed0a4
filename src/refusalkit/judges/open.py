"""Opens a judge by its name, its file or its rubric."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from pydantic import ValidationError

from refusalkit.errors import JudgeFileError
from refusalkit.judges.protocol import Connection, Judge
from refusalkit.judges.rubrics import Rubric, load_rubric
from refusalkit.models.pacing import Pacer
from refusalkit.models.request_form import RequestForm
from refusalkit.types import Via
from refusalkit.untrusted import printable

Opener = Callable[[Rubric, Connection], Judge]


def load_judge(
    source: str | Path,
    *,
    model: str | None = None,
    temperature: float | None = None,
    asks: int | None = None,
    api_base: str | None = None,
    api_key_env: str | None = None,
    via: Via | None = None,
    rpm: float | None = None,
    tpm: float | None = None,
    max_retries: int = 5,
    timeout_s: float = 600.0,
) -> Judge:
    """A judge by its shipped name or the path of its file.

    Args:
        source: the name or the path.
        model: another model than the file's, ``provider/name``.
        temperature: another temperature than the file's, 0 to 2.
        asks: the most times that it is asked, until its reply can be read: 1 to 5.
        api_base: the endpoint's base URL.
        api_key_env: name of the environment variable that holds the key.
        via: ``litellm`` forces litellm.
        rpm: the most requests per minute.
        tpm: the most tokens per minute, input and output together.
        max_retries: how often one request is sent again after a fault.
        timeout_s: seconds that one request may take.

    Raises:
        JudgeFileError: the file is missing, malformed or contradicts itself.
        UsageError: the model's id is not ``provider/name``.
        ConfigurationError: no key, an unknown provider, or a model that was retired.

    Examples:
        >>> import refusalkit as rk
        >>> rk.load_judge("lexical")
        LexicalJudge(id='lexical...')
    """
    return open_judge(
        load_rubric(source, model=model, temperature=temperature, asks=asks),
        api_base=api_base,
        api_key_env=api_key_env,
        via=via,
        rpm=rpm,
        tpm=tpm,
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
    tpm: float | None = None,
    max_retries: int = 5,
    timeout_s: float = 600.0,
    pacer: Pacer | None = None,
    share_form: Callable[[RequestForm], RequestForm] | None = None,
    finish_words: Sequence[str] = (),
    batched: bool = False,
) -> Judge:
    """The judge that a rubric describes.

    `pacer` is shared by judges that ask one model; it takes the place of `rpm`, `tpm` and
    `max_retries`. `share_form` returns what is known of the form that the endpoint takes.
    `finish_words` are meanings of finish words, and `batched` says that its requests will go in
    batches, as for `open_model`.
    """
    kind = rubric.of_kind
    assert kind.module is not None, "a rubric is read from a file, and such a kind has a module"
    connection = Connection(
        pacer=pacer or Pacer(rpm=rpm, tpm=tpm, max_retries=max_retries),
        api_base=api_base,
        api_key_env=api_key_env,
        via=via,
        timeout_s=timeout_s,
        share_form=share_form,
        finish_words=finish_words,
        batched=batched,
    )
    # Imported here: a judge of rules needs no client, and one with a client no rules.
    opener: Opener = import_module(kind.module).open_rubric
    try:
        return opener(rubric, connection)
    except ValidationError as error:
        raise _file_error(rubric, str(kind.settings), error) from error


def _file_error(rubric: Rubric, table: str, error: ValidationError) -> JudgeFileError:
    """The first mistake in a table of a judge file."""
    first = error.errors(include_url=False)[0]
    field = printable(".".join(str(part) for part in (table, *first["loc"])))
    what = printable(first["msg"].removeprefix("Value error, "))
    return JudgeFileError(f"judge file {printable(rubric.source)}: {field}: {what}")
