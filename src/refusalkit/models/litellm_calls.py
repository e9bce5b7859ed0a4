"""One request through litellm, without the work around it that is not needed here.

litellm takes seconds to import, so it is imported when the first client is opened. During the
import the environment tells it to use the price list and headers that it ships; otherwise it would
fetch them from the network. A host program that imports litellm later gets the same module: with
these lists, and without the advertisements that litellm prints with errors (`suppress_debug_info`).
Where the host program imported it before, neither is touched. Its cache of clients holds none of
ours (`litellm_session`).
"""

from __future__ import annotations

import gc
import os
import sys
from datetime import datetime
from functools import cache
from typing import Any

# Providers whose requests litellm prepares without waiting for anything (a key, a URL, JSON). For
# others it may fetch a token first, or block while it sends the request.
PREPARED_AT_ONCE = frozenset(
    {
        "anthropic",
        "cerebras",
        "cohere",
        "deepinfra",
        "deepseek",
        "fireworks_ai",
        "gemini",
        "groq",
        "hosted_vllm",
        "mistral",
        "moonshot",
        "nvidia_nim",
        "openai",
        "openrouter",
        "perplexity",
        "sambanova",
        "together_ai",
        "xai",
    }
)

# The environment while litellm is imported: it uses the lists that it ships instead of newer ones,
# and does not read a `.env` file, which may be a stranger's and name other addresses.
_IMPORTED_WITH = {
    "LITELLM_LOCAL_MODEL_COST_MAP": "True",
    "LITELLM_LOCAL_ANTHROPIC_BETA_HEADERS": "True",
    "LITELLM_MODE": "PRODUCTION",
}


def load_litellm() -> Any:
    """The litellm module, imported so that it stays off the network and off the terminal."""
    if "litellm" not in sys.modules:
        # An import leaves no garbage, and collecting it at Python's default rate takes a sixth of
        # the time. The command line uses these thresholds throughout.
        thresholds = gc.get_threshold()
        gc.set_threshold(200_000, 20, 20)
        before = {name: os.environ.get(name) for name in _IMPORTED_WITH}
        for name, value in _IMPORTED_WITH.items():
            os.environ.setdefault(name, value)
        try:
            import litellm
            from litellm.anthropic_beta_headers_manager import get_unsupported_headers

            # Reads the headers now rather than with the first request that needs them.
            get_unsupported_headers("anthropic")
        finally:
            gc.set_threshold(*thresholds)
            # Put back: the variables belong to the whole process and its children.
            for name, earlier in before.items():
                if earlier is None:
                    del os.environ[name]

        # It prints advertisements with every error. Where the host program imported litellm
        # itself, what it prints is the host's choice.
        litellm.suppress_debug_info = True
    return sys.modules["litellm"]


async def complete(provider: str, /, **call: Any) -> Any:
    """The result of litellm's `acompletion`.

    Raises litellm's own exceptions, and those of other libraries that it lets through.
    """
    litellm = load_litellm()
    call["litellm_logging_obj"] = _unkept_log()(
        model=call["model"],
        messages=call["messages"],
        stream=False,
        call_type="acompletion",
        start_time=datetime.now(),  # noqa: DTZ005 - litellm subtracts times without a zone from it
        litellm_call_id="",
        function_id="",
    )
    if provider not in PREPARED_AT_ONCE:
        # Not from a cache that the host program may have set: each trial needs its own answer.
        return await litellm.acompletion(**{**call, "caching": False})
    # `acompletion` calls this in threads, which hold each other up: requests would leave, and
    # answers arrive, in bursts.
    try:
        return await litellm.completion(acompletion=True, **call)
    except Exception as error:
        # As `acompletion` does; most are raised in there.
        named = litellm.exception_type(
            model=call["model"], original_exception=error, custom_llm_provider=provider
        )
        if named is error:
            raise
        raise named from error


@cache
def _unkept_log() -> Any:
    """A class that litellm can log to and that keeps and reports nothing.

    litellm would compute a price three times and call the host's callbacks with every request.
    Prices are computed here, and answers are nobody else's concern. A method that a version of
    litellm lacks is simply never called.
    """
    from litellm.litellm_core_utils.litellm_logging import Logging

    class UnkeptLog(Logging):  # type: ignore[misc]
        def pre_call(self, *_: Any, **__: Any) -> None: ...

        def post_call(self, *_: Any, **__: Any) -> None: ...

        def response_cost_calculator(self, *_: Any, **__: Any) -> None: ...

        def claim_async_success_log(self) -> bool:
            return False

        def handle_sync_success_callbacks_for_async_calls(self, *_: Any, **__: Any) -> None: ...

        def success_handler(self, *_: Any, **__: Any) -> None: ...

        async def async_success_handler(self, *_: Any, **__: Any) -> None: ...

        def failure_handler(self, *_: Any, **__: Any) -> None: ...

        async def async_failure_handler(self, *_: Any, **__: Any) -> None: ...

    return UnkeptLog
