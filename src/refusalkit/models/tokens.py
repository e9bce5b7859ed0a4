"""How many tokens a text has, before a provider is asked."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

# tiktoken names the file of an encoding by the SHA-1 of its address; litellm ships this one.
_ENCODING = "o200k_base"
_FILE = "fb374d419588a4632f3f557e76b4b70aebbca790"
# Characters of English per token, where the encoding is missing.
_CHARACTERS = 4.0


@dataclass(frozen=True, slots=True)
class Tokeniser:
    """Counts tokens. `name` says by which encoding, for readers of the figure."""

    name: str
    count: Callable[[str], int]

    def total(self, texts: Iterable[str]) -> int:
        """The tokens of all texts together."""
        return sum(map(self.count, texts))


@cache
def tokeniser() -> Tokeniser:
    """OpenAI's encoding from the file that litellm ships: nothing is fetched.

    Other families' tokenisers differ from it by about a fifth on English text. Without the file
    four characters count as a token, and the name says so.
    """
    folder = _shipped_encodings()
    if folder is None:
        return Tokeniser("4 characters to a token", lambda text: round(len(text) / _CHARACTERS))
    variable = "TIKTOKEN_CACHE_DIR"
    before = os.environ.get(variable)
    # The only way to say where the file is; put back, as the variable is the whole process's.
    os.environ[variable] = str(folder)
    try:
        import tiktoken

        encoding = tiktoken.get_encoding(_ENCODING)
    finally:
        if before is None:
            del os.environ[variable]
        else:
            os.environ[variable] = before
    # A text that spells a control token is text.
    return Tokeniser(_ENCODING, lambda text: len(encoding.encode(text, disallowed_special=())))


def _shipped_encodings() -> Path | None:
    if importlib.util.find_spec("tiktoken") is None:
        return None
    spec = importlib.util.find_spec("litellm")
    if spec is None or spec.origin is None:
        return None
    folder = Path(spec.origin).parent / "litellm_core_utils" / "tokenizers"
    return folder if (folder / _FILE).is_file() else None
