"""Reads keys, and nothing else, from a `.env` file, and only when asked to."""

from __future__ import annotations

import io
import os
from collections.abc import Collection
from pathlib import Path

from refusalkit.errors import ConfigurationError
from refusalkit.files import read_file
from refusalkit.models.key_variables import is_provider_variable
from refusalkit.untrusted import printable

# Bytes of the largest file of keys.
_MAX_ENV = 2**20


def take_keys(file: str | Path, named: Collection[str] = ()) -> tuple[str, ...]:
    """Put the keys of a `.env` file into the environment; those that are set already stay.

    A key is a provider's usual variable (`OPENAI_API_KEY`) or one of those `named`. Returns the
    names of all other variables in the file, which are ignored. Raises `ConfigurationError`.
    """
    from dotenv import dotenv_values

    try:
        text = read_file(Path(file), limit=_MAX_ENV).decode("utf-8-sig")
    except OSError as error:
        raise ConfigurationError(
            f"the file of keys {printable(file)} cannot be read: {error.strerror}"
        ) from error
    except ValueError as error:
        raise ConfigurationError(f"the file of keys {printable(file)} is not UTF-8") from error
    left = []
    for name, value in dotenv_values(stream=io.StringIO(text), interpolate=False).items():
        if not is_provider_variable(name) and name not in named:
            left.append(name)
        elif value and "\0" not in value:
            os.environ.setdefault(name, value)
    return tuple(left)
