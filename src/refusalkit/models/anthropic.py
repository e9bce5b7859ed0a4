"""Claude through the anthropic SDK: the only way that keeps a refusal's `stop_details`."""

from __future__ import annotations

import json
import os
import re
from typing import TYPE_CHECKING, Any

from refusalkit.errors import ConfigurationError
from refusalkit.models.client import ChatClient, ChatRequest
from refusalkit.models.pacing import Pacer
from refusalkit.outcomes import ApiFailure, Reply, failure_error, parse_retry_after
from refusalkit.types import Usage

if TYPE_CHECKING:
    from anthropic import AsyncAnthropic

_NO_SAMPLING = re.compile(r"^claude-[a-z]+-([5-9]|\d{2})(-|$)")
_THINKING_BUDGET = re.compile(r"^claude-(3-7-|(sonnet|opus|haiku)-4-(0|1|5|\d{8})(-|$))")
_SAMPLING = ("temperature", "top_p", "top_k")


class AnthropicClient(ChatClient):
    """`name` is the model as Anthropic knows it."""

    def __init__(
        self,
        model_id: str,
        name: str,
        *,
        pacer: Pacer,
        api_base: str | None = None,
        api_key: str | None = None,
    ) -> None:
        base = api_base or os.environ.get("ANTHROPIC_BASE_URL")
        super().__init__(model_id, pacer=pacer, api_base=base)
        token = os.environ.get("ANTHROPIC_AUTH_TOKEN")
        if not api_key and not token and not base:
            raise ConfigurationError(f"no API key for {model_id}: set ANTHROPIC_API_KEY")
        self._name = name
        self._base = base
        # An endpoint of one's own may need no key, the SDK insists on one.
        self._api_key = api_key or (None if token else "none")
        self._sdk: AsyncAnthropic | None = None
        self.parameters.drop("seed", "the Anthropic API has no seed")
        if _NO_SAMPLING.match(name):
            for parameter in _SAMPLING:
                self.parameters.drop(parameter, f"{name} takes no sampling parameters")

    def _parameters(self, request: ChatRequest) -> dict[str, Any]:
        config = request.config
        wanted: dict[str, Any] = {"max_tokens": config.max_tokens, **request.sampling}
        if config.reasoning == "on":
            for name in _SAMPLING:
                self.parameters.drop(name, "not taken together with thinking")
            if _THINKING_BUDGET.match(self._name):
                budget = max(1024, config.max_tokens // 2)
                wanted["thinking"] = {"type": "enabled", "budget_tokens": budget}
            else:
                wanted["thinking"] = {"type": "adaptive"}
        elif config.reasoning == "off":
            wanted["thinking"] = {"type": "disabled"}
        if request.schema is not None:
            wanted["output_config"] = {"format": {"type": "json_schema", "schema": request.schema}}
        return self._take(wanted)

    async def _send(self, request: ChatRequest) -> Reply:
        import anthropic

        parameters = self._parameters(request)
        self.parameters.sent = {**parameters, **request.config.extra_body}
        # What the user put into the extra body is wanted as it is: it is never left out.
        sent = frozenset(parameters) - frozenset(request.config.extra_body)
        # As a body rather than as arguments: the SDK has given up those for sampling.
        body = dict(self.parameters.sent)
        if request.system is not None:
            body["system"] = request.system
        turns: Any = request.turns
        try:
            # Typed loosely on purpose: without strict validation the SDK hands on whatever JSON
            # the endpoint sent.
            message: Any = await self._open().messages.create(
                model=self._name,
                max_tokens=request.config.max_tokens,
                messages=turns,
                extra_body=body,
                timeout=request.config.timeout_s,
            )
        except anthropic.APIStatusError as error:
            failure = _status_failure(error)
            raise failure_error(failure, names=self.names, sent=sent) from error
        except anthropic.APITimeoutError as error:
            what = f"no answer within {request.config.timeout_s:g} s"
            failure = ApiFailure(what, timeout=True)
            raise failure_error(failure, names=self.names) from error
        except anthropic.APIResponseValidationError as error:
            failure = ApiFailure("the body is no message", status=200)
            raise failure_error(failure, names=self.names) from error
        except (anthropic.AnthropicError, OSError) as error:
            what = f"connection failed ({type(error).__name__}: {error.__cause__ or error})"
            raise failure_error(ApiFailure(what), names=self.names) from error
        except (json.JSONDecodeError, UnicodeDecodeError) as error:
            failure = ApiFailure("the body is no JSON object", status=200)
            raise failure_error(failure, names=self.names) from error
        if not isinstance(getattr(message, "content", None), list):
            failure = ApiFailure("the body is no message", status=200)
            raise failure_error(failure, names=self.names)
        return _reply(message)

    def _open(self) -> AsyncAnthropic:
        if self._sdk is None:
            import anthropic

            self._sdk = anthropic.AsyncAnthropic(
                api_key=self._api_key,
                base_url=self._base,
                max_retries=0,
                http_client=anthropic.DefaultAioHttpClient(),
            )
        return self._sdk

    async def _close(self) -> None:
        if self._sdk is not None:
            await self._sdk.close()


def _reply(message: Any) -> Reply:
    # Blocks by type, not by place: thinking may stand before, between or alone.
    text = [block.text for block in message.content if block.type == "text"]
    thinking = [block.thinking for block in message.content if block.type == "thinking"]
    redacted = any(block.type == "redacted_thinking" for block in message.content)
    details = message.stop_details
    usage = message.usage
    output_details = getattr(usage, "output_tokens_details", None)
    return Reply(
        text="".join(text),
        finish_reason=message.stop_reason,
        reasoning="\n".join(thinking) or ("[redacted]" if redacted else ""),
        usage=Usage(
            input_tokens=getattr(usage, "input_tokens", None),
            output_tokens=getattr(usage, "output_tokens", None),
            reasoning_tokens=getattr(output_details, "thinking_tokens", None),
        ),
        served_model=message.model,
        request_id=message._request_id or message.id,
        filter_category=details.category if details is not None else None,
    )


def _status_failure(error: Any) -> ApiFailure:
    body = error.body.get("error") if isinstance(error.body, dict) else None
    message = body.get("message") if isinstance(body, dict) else None
    code = body.get("type") if isinstance(body, dict) else None
    return ApiFailure(
        message=message if isinstance(message, str) else "no message",
        status=error.status_code,
        # Its general names say less than the status does.
        code=code if isinstance(code, str) and code != "invalid_request_error" else None,
        retry_after=parse_retry_after(error.response.headers),
    )
