"""Opens a model, or the chat client behind it, by its id."""

from __future__ import annotations

import os
from collections.abc import Sequence

from refusalkit.errors import ConfigurationError, MissingKeyError, UsageError
from refusalkit.models.chat import ChatModel
from refusalkit.models.client import ChatClient
from refusalkit.models.demo import DemoModel
from refusalkit.models.dialects.finish import parse_finish_word
from refusalkit.models.endpoints import own_base, price_at
from refusalkit.models.key_variables import provider_variables
from refusalkit.models.pacing import Pacer
from refusalkit.models.prices import check_retired
from refusalkit.models.protocol import Model
from refusalkit.models.provider_names import meant
from refusalkit.redaction import redact
from refusalkit.types import Via
from refusalkit.untrusted import printable

# Prefixes that name a kind of endpoint and are not part of the model's own name: with an API base,
# the model of `Qwen/Qwen3-8B` and of `hosted_vllm/Qwen/Qwen3-8B` is `Qwen/Qwen3-8B`.
_ENDPOINT_KINDS = frozenset(
    {
        "openai",
        "hosted_vllm",
        "vllm",
        "sglang",
        "ollama",
        "ollama_chat",
        "lm_studio",
        "llamafile",
        "llama_cpp",
        "openai_like",
        "local",
    }
)

# Providers whose key is read here; litellm reads those of all others.
_OWN_BACK_ENDS = frozenset({"openai", "hosted_vllm", "anthropic"})


def open_model(
    model_id: str,
    *,
    api_base: str | None = None,
    api_key_env: str | None = None,
    via: Via | None = None,
    rpm: float | None = None,
    tpm: float | None = None,
    max_retries: int = 5,
    connections: int = 0,
    pacer: Pacer | None = None,
    finish_words: Sequence[str] = (),
    batched: bool = False,
) -> Model:
    """Open a model by its id, ``provider/name``.

    Args:
        model_id: ``demo/...`` answers in process, ``anthropic/...`` goes through the anthropic SDK,
            ``openai/...``, ``hosted_vllm/...`` and any other id with an `api_base` through the
            OpenAI protocol, everything else through litellm.
        api_base: the endpoint's base URL, such as ``http://localhost:8000/v1``; default:
            OPENAI_BASE_URL or ANTHROPIC_BASE_URL where it is set, else the provider's.
        api_key_env: name of the environment variable that holds the key, where it is not the
            provider's usual one.
        via: ``litellm`` forces litellm.
        rpm: the most requests per minute.
        tpm: the most tokens per minute, input and output together.
        max_retries: how often one request is sent again after a fault.
        connections: the most requests at once; 0 for no bound of its own.
        pacer: shared by several models at one endpoint; it takes the place of `rpm`, `tpm` and
            `max_retries`, and bounds the requests of all together.
        finish_words: the meaning of finish words that refusalkit does not know, as
            ``WORD=OUTCOME`` with ``answered``, ``truncated``, ``blocked`` or ``no_answer``.
        batched: whether its requests will go in batches: a provider whose batches speak the OpenAI
            protocol is then asked through that, and not through litellm.

    Raises:
        UsageError: the id is not ``provider/name``, or a finish word is not ``WORD=OUTCOME``.
        ConfigurationError: no key, unknown provider.
        RetiredModelError: the provider no longer serves the model; the text names its successor.

    Examples:
        >>> import refusalkit as rk
        >>> rk.open_model("demo/mixed")
        DemoModel(id='demo/mixed')
    """
    provider, name = _split(model_id, own_endpoint=api_base is not None)
    if provider == "demo":
        return DemoModel(name)
    client = open_client(
        model_id,
        api_base=api_base,
        api_key_env=api_key_env,
        via=via,
        pacer=pacer
        or Pacer(rpm=rpm, tpm=tpm, concurrency=connections or None, max_retries=max_retries),
        connections=connections,
        finish_words=finish_words,
        batched=batched,
    )
    return ChatModel(client, price=price_at(model_id, api_base, via))


def open_client(
    model_id: str,
    *,
    pacer: Pacer,
    api_base: str | None = None,
    api_key_env: str | None = None,
    via: Via | None = None,
    connections: int = 0,
    finish_words: Sequence[str] = (),
    batched: bool = False,
) -> ChatClient:
    """The chat client behind a model id; judges use it too. Arguments and errors: `open_model`."""
    try:
        words = dict(map(parse_finish_word, finish_words))
    except ValueError as error:
        raise UsageError(printable(error, 300)) from None
    client = None
    if batched and via is None and not api_base:
        client = _batched_client(model_id, pacer, api_key_env, connections)
    if client is None:
        client = _new_client(model_id, pacer, api_base, api_key_env, via, connections)
    client.finish_words = words
    return client


def _batched_client(
    model_id: str, pacer: Pacer, api_key_env: str | None, connections: int
) -> ChatClient | None:
    """The client for a provider whose batches speak OpenAI's protocol.

    None where the model is reached in the usual way. Raises `MissingKeyError`.
    """
    from refusalkit.models.batch_dialects import batch_providers
    from refusalkit.models.openai import OpenAIClient

    provider, name = _split(model_id)
    row = batch_providers().get(provider)
    if row is None or row.base is None:
        return None
    check_retired(model_id)
    usual = provider_variables(model_id)
    set_ones = [variable for variable in usual if os.environ.get(variable, "").strip()]
    variable = api_key_env or next(iter((*set_ones, *usual)))
    return OpenAIClient(
        model_id,
        name,
        pacer=pacer,
        api_base=row.base,
        api_key=_key(provider, None, variable),
        connections=connections,
    )


def _new_client(
    model_id: str,
    pacer: Pacer,
    api_base: str | None,
    api_key_env: str | None,
    via: Via | None,
    connections: int,
) -> ChatClient:
    provider, name = _split(model_id, own_endpoint=api_base is not None)
    check_retired(model_id)
    key = _key(provider, api_base, api_key_env)
    if via == "litellm":
        from refusalkit.models.litellm import LiteLLMClient

        return LiteLLMClient(model_id, pacer=pacer, api_base=api_base, api_key=key)
    base = own_base(model_id, api_base)
    if provider == "anthropic":
        from refusalkit.models.anthropic import AnthropicClient

        return AnthropicClient(model_id, name, pacer=pacer, api_base=base, api_key=key)
    if provider in ("openai", "hosted_vllm") or api_base:
        from refusalkit.models.openai import OpenAIClient

        if provider == "hosted_vllm" and not api_base:
            raise ConfigurationError(f"{printable(model_id)} needs --api-base, the server's URL")
        return OpenAIClient(
            model_id,
            served_name(model_id),
            pacer=pacer,
            api_base=base,
            api_key=key,
            connections=connections,
        )
    from refusalkit.models.litellm import LiteLLMClient

    return LiteLLMClient(model_id, pacer=pacer, api_base=api_base, api_key=key)


def named_key(model_id: str, api_key_env: str | None) -> str | None:
    """The key that requests to a model carry, None where there is none.

    Raises `ConfigurationError`.
    """
    return _key(_split(model_id, own_endpoint=True)[0], None, api_key_env)


def served_name(model_id: str) -> str:
    """A model's name at an endpoint of one's own. Raises `UsageError` for what is not an id."""
    provider, name = _split(model_id, own_endpoint=True)
    return name if provider in (*_ENDPOINT_KINDS, "anthropic") else model_id


def _split(model_id: str, *, own_endpoint: bool = False) -> tuple[str, str]:
    provider, slash, name = model_id.partition("/")
    # Without hidden characters: from here on an id may appear in a message as it is.
    plain = model_id == model_id.strip() == printable(model_id, len(model_id) + 1)
    if "://" in model_id:
        # litellm would send the key of some providers there.
        raise UsageError(
            f"the model id {printable(model_id)!r} holds an address: give that as the API base"
        )
    if own_endpoint and plain and model_id and not slash:
        raise UsageError(
            f"the model id {printable(model_id)!r} names no provider: beside --api-base write "
            f"local/{model_id}, or openai/{model_id} to send the OpenAI key"
        )
    if not slash or not provider or not name or not plain:
        near = meant(model_id, ()) if plain and not slash else None
        raise UsageError(
            f"the model id {printable(model_id)!r} is not provider/name: {near}"
            if near
            else f"the model id {printable(model_id)!r} is not provider/name, such as "
            "anthropic/claude-sonnet-5-5 or openai/gpt-6-luna"
        )
    return provider, name


def _key(provider: str, api_base: str | None, api_key_env: str | None) -> str | None:
    if api_key_env:
        key = os.environ.get(api_key_env, "").strip()
        if not key:
            raise MissingKeyError(
                f"the environment variable {redact(api_key_env)} holds no API key: set it"
            )
        return _sendable(key, api_key_env)
    # Another provider's endpoint never gets the OpenAI key: --api-key-env names the one it gets.
    for variable in provider_variables(provider) if provider in _OWN_BACK_ENDS else ():
        if key := os.environ.get(variable, "").strip():
            return _sendable(key, variable)
    return None


def _sendable(key: str, variable: str) -> str:
    """A key that a header can carry. Raises `ConfigurationError`: libraries fail variously."""
    if not key.isascii() or not key.isprintable():
        raise ConfigurationError(
            f"the key in the environment variable {redact(variable)} has a line break or a "
            "character outside ASCII: copy it again"
        )
    return key
