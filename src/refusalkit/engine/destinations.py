"""Says in one sentence where a session sends its requests."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from refusalkit.models.endpoints import OFFICIAL, own_base
from refusalkit.models.key_variables import provider_variables
from refusalkit.runs.judge_entries import rubrics_of
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from refusalkit.config.run_config import RunConfig
    from refusalkit.judges.protocol import Judge
    from refusalkit.models.protocol import Model


def destinations(config: RunConfig, model: Model | None, judge: Judge) -> str | None:
    """The host and the key's variable for the model and for each judge, as one sentence.

    None if nothing is sent: for scripted models, recorded answers and judges that call no model.
    Models and judges that the caller passes as objects are left out.
    """
    from refusalkit.models.chat import ChatModel

    said = []
    if isinstance(model, ChatModel):
        at = _place(config.model, config.api_base, config.api_key_env, config.via)
        said.append(f"prompts go to {at}")
    asked = {rubric.model for rubric in rubrics_of(judge) if rubric.asks_model}
    judges = [
        _place(name, config.judge_api_base, config.judge_api_key_env, config.judge_via)
        for name in sorted(asked)
    ]
    if judges:
        said.append(f"answers to be judged go to {', '.join(judges)}")
    return "; ".join(said) or None


def _place(model_id: str, base: str | None, variable: str | None, via: str | None) -> str:
    provider = model_id.partition("/")[0]
    there = own_base(model_id, base, via) or OFFICIAL.get(provider)
    host = f"{printable(provider)}'s own address" if there is None else _host(there)
    usual = (name for name in provider_variables(model_id) if os.environ.get(name, "").strip())
    # At a custom base URL only these providers' usual key is sent.
    own = base is None or via == "litellm" or provider in (*OFFICIAL, "hosted_vllm")
    named = variable or (next(usual, None) if own else None)
    key = "no key" if named is None else f"key: {printable(named)}"
    return f"{host} ({printable(model_id)}, {key})"


def _host(base: str) -> str:
    parts = urlsplit(base)
    where = printable(parts.netloc.rpartition("@")[2])
    return where if parts.scheme == "https" else f"{parts.scheme}://{where}"
