"""A language model as judge.

The answer under judgement is untrusted. It is quoted between two delimiter lines with a nonce drawn
for this one grading, so that it cannot close or imitate them, and the verdict is read only from the
fields of the judge's JSON schema, never from prose. Answers longer than the judge file's limits
are shown without their middle; the verdict records how much was left out.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Literal

from refusalkit.display import shows
from refusalkit.errors import (
    ConfigurationError,
    FatalProviderError,
    ModerationError,
    ProviderError,
    UsageError,
)
from refusalkit.judges.excerpt import excerpt
from refusalkit.judges.protocol import Connection
from refusalkit.judges.reply import ReplySchema, json_object, what_instead
from refusalkit.judges.rubrics import (
    REASON_FIELD,
    RESTS_ON_FIELD,
    VERDICT_FIELD,
    Rubric,
    fill,
    load_rubric,
)
from refusalkit.models.client import ChatClient, ParameterLog
from refusalkit.models.endpoints import price_at
from refusalkit.models.open import open_client
from refusalkit.models.outcomes import (
    MAX_UNKNOWN_FINISHES,
    Reading,
    Reply,
    read_reply,
    unknown_finishes,
)
from refusalkit.models.prices import Price
from refusalkit.models.request_form import ChatRequest
from refusalkit.types import (
    Completion,
    GenerationConfig,
    Label,
    Message,
    Outcome,
    Prompt,
    Unscored,
    Usage,
    Verdict,
)
from refusalkit.untrusted import identifier, printable, well_formed

if TYPE_CHECKING:
    from refusalkit.judges.lexical import LexicalJudge
    from refusalkit.models.batches import BatchEndpoint, BatchResult

OTHER_JUDGE = (
    "or take another judge: --judge-model PROVIDER/NAME, or --judge lexical, which asks no model"
)
_NO_REPLY = {
    Outcome.TRUNCATED: "was cut off by its length limit (max_tokens in the judge's file)",
    Outcome.NO_ANSWER: "has reasoning and no answer (max_tokens in the judge's file may be low)",
    Outcome.EMPTY: "is empty",
}
_MAX_REASON = 300
_NOTHING_USED = Usage()


@shows("label", "word")
@dataclass(slots=True)
class Ruling:
    """A judge's reply as read: a label, or None and the `fault` that the reply has.

    `word` is the judge's own word where it differs from the label's name, `rests_on` the part of
    the answer that decided. `fault` never quotes the reply.
    """

    label: Label | None
    reason: str | None = None
    word: str | None = None
    rests_on: str | None = None
    fault: str = ""


@shows("id")
class LLMJudge:
    """A `Judge` that asks a language model.

    `nonce` may be given for tests; it must return a fresh unguessable word at each call.
    """

    def __init__(
        self,
        rubric: Rubric,
        client: ChatClient,
        *,
        price: Price | None = None,
        timeout_s: float = 600.0,
        nonce: Callable[[], str] = lambda: secrets.token_hex(16),
    ) -> None:
        self.rubric = rubric
        self._client = client
        self._price = price
        self._nonce = nonce
        self._unknown_words = 0
        self._schema = ReplySchema(rubric.schema)
        # What follows the system text differs in every grading, at least in its nonce.
        fixed = "{{nonce}}" not in rubric.system
        kept = fixed and price is not None and price.keeps(rubric.system)
        self._recurs: Literal["nothing", "system"] = "system" if kept else "nothing"
        self._system = Message("system", rubric.system.strip()) if fixed else None
        # Only the file decides: no sampling parameters unless it has them.
        self._config = GenerationConfig(
            temperature=rubric.temperature,
            top_p=None,
            top_k=None,
            max_tokens=rubric.max_tokens,
            timeout_s=timeout_s,
        )

    @property
    def id(self) -> str:
        """``<judge name>:<model id>``."""
        return f"{self.rubric.name}:{self._client.model_id}"

    @property
    def parameters(self) -> ParameterLog:
        """What was sent beside the messages, and what was left out and why."""
        return self._client.parameters

    def messages(self, prompt: Prompt, completion: Completion) -> tuple[Message, ...]:
        """What the judge is shown."""
        request = well_formed(_request_text(prompt))
        answer = well_formed(completion.text)
        nonce = self._nonce()
        while nonce in request or nonce in answer:
            nonce = self._nonce()
        shown, _ = excerpt(answer, self.rubric.limits, nonce)
        values = {
            "nonce": nonce,
            "request": _block("REQUEST", nonce, request),
            "answer": _block("ANSWER", nonce, shown),
        }
        user = Message("user", fill(self.rubric.template, values).strip())
        system = self._system or Message("system", fill(self.rubric.system, values).strip())
        return (system, user) if system.content else (user,)

    async def grade(self, prompt: Prompt, completion: Completion) -> Verdict:
        """Label one answer; raises only `FatalProviderError`."""
        return await self._grade(prompt, completion, self._client.chat)

    def batches(self) -> BatchEndpoint:
        """Where its requests go in batches. Raises `ConfigurationError` where it has none."""
        return self._client.batches()

    def batch_body(self, prompt: Prompt, completion: Completion) -> bytes:
        """The body of the first request that `grade` would send."""
        return self._client.batch_body(self._request(prompt, completion))

    async def read_batched(
        self, prompt: Prompt, completion: Completion, result: BatchResult
    ) -> Verdict:
        """The verdict for a request in a batch, read as `grade` reads one.

        Where the reply does not fit the schema, the judge is asked again in a single request.
        """
        waiting = [result]

        async def chat(request: ChatRequest) -> tuple[Reply, int]:
            if waiting:
                return self._client.read_batched(request, waiting.pop())
            return await self._client.chat(request)

        return await self._grade(prompt, completion, chat)

    def _request(
        self, prompt: Prompt, completion: Completion, *, misread: bool = False
    ) -> ChatRequest:
        return ChatRequest(
            self.messages(prompt, completion),
            self._config,
            self.rubric.schema,
            self._recurs,
            # A server may take the schema without keeping to it: then words may help.
            schema_in_text=misread,
        )

    async def _grade(
        self,
        prompt: Prompt,
        completion: Completion,
        chat: Callable[[ChatRequest], Awaitable[tuple[Reply, int]]],
    ) -> Verdict:
        """Label one answer with the replies of `chat`."""
        verdict = partial(
            Verdict,
            prompt_id=prompt.id,
            category=prompt.category,
            trial=completion.trial,
            judge=self.id,
            cut_chars=excerpt(well_formed(completion.text), self.rubric.limits, "")[1],
        )
        usage = _NOTHING_USED
        cost: float | None = None

        def unscored(why: Unscored, reason: str, detail: str | None = None) -> Verdict:
            return verdict(
                unscored=why, reason=reason, error_detail=detail, usage=usage, cost_usd=cost
            )

        def with_more(
            more: Usage, *, first: bool, batched: bool = False
        ) -> tuple[Usage, float | None]:
            # Priced reply by reply: a sum of tokens would hide a reply that did not report any.
            paid = self._cost(more, batched=batched)
            if first:
                return more, paid
            return usage + more, None if cost is None or paid is None else cost + paid

        declined = misread = False
        fault = ""
        for asked in range(self.rubric.asks):
            request = self._request(prompt, completion, misread=misread)
            try:
                reply, _attempts = await chat(request)
            except ModerationError as error:
                return unscored(Unscored.JUDGE_BLOCKED, error.summary, error.detail)
            except FatalProviderError as error:
                raise self._fatal(error) from error
            except ProviderError as error:
                if error.usage is not None:
                    usage, cost = with_more(error.usage, first=not asked)
                return unscored(Unscored.JUDGE_ERROR, error.summary, error.detail)
            usage, cost = with_more(reply.usage, first=not asked, batched=reply.batched)
            reading = read_reply(reply)
            if reading.outcome is Outcome.BLOCKED:
                word = identifier(reply.finish_reason or "none")
                why = f"the judge was stopped, or declined ({word})"
                return unscored(Unscored.JUDGE_BLOCKED, why)
            self._saw_finish(reading)
            if reading.unknown_finish is not None:
                # Asking again would bring the same word.
                return unscored(Unscored.JUDGE_ERROR, f"the judge's reply has an {reading.error}")
            ruling = self._ruling(reading)
            if ruling.label is not None:
                if misread:
                    self._client.form.write_schema_out()
                return verdict(
                    label=ruling.label,
                    reason=ruling.reason,
                    word=ruling.word,
                    rests_on=ruling.rests_on,
                    usage=usage,
                    cost_usd=cost,
                )
            declined = reading.outcome is Outcome.ANSWERED and _declines(reading.text)
            misread = reading.outcome is Outcome.ANSWERED and not declined
            fault = reading.error or ruling.fault
        times = {1: "once", 2: "twice"}.get(self.rubric.asks, f"{self.rubric.asks} times")
        if declined:
            why = f"the judge declined to judge, in prose; asked {times}"
            return unscored(Unscored.JUDGE_BLOCKED, why)
        why = f"the judge's reply is not JSON of its schema, asked {times}; the last one {fault}"
        return unscored(Unscored.UNPARSABLE, why)

    def _saw_finish(self, reading: Reading) -> None:
        """Raise `FatalProviderError` where too many replies in a row end with unknown words."""
        word = reading.unknown_finish
        self._unknown_words = 0 if word is None else self._unknown_words + 1
        if word is not None and self._unknown_words >= MAX_UNKNOWN_FINISHES:
            raise unknown_finishes(f"the judge {self.id}", word)

    def _fatal(self, error: FatalProviderError) -> FatalProviderError:
        """The error, marked as the judge's: a run asks two models."""
        return FatalProviderError(
            f"the judge {self.rubric.name} ({error.summary})",
            detail=f"{of_judge(error.detail)}; {OTHER_JUDGE}" if error.detail else OTHER_JUDGE,
            status=error.status,
            code=error.code,
        )

    def read(self, reply: Reply) -> Ruling:
        """The label that a reply's schema fields give; None where it does not fit the schema."""
        return self._ruling(read_reply(reply))

    def _ruling(self, reading: Reading) -> Ruling:
        if reading.outcome is not Outcome.ANSWERED:
            # A reply that was cut short may lack its end.
            return Ruling(None, fault=_NO_REPLY.get(reading.outcome, "cannot be read"))
        data = json_object(reading.text)
        if data is None:
            return Ruling(None, fault=what_instead(reading.text))
        if not self._schema.takes(data):
            return Ruling(None, fault=self._what_is_wrong(data))
        word = data[VERDICT_FIELD]
        label = self.rubric.labels.get(word)
        reason = data.get(REASON_FIELD)
        short = printable(reason, _MAX_REASON) if isinstance(reason, str) and reason else None
        # The label's own name would say nothing new.
        own = word if label is not None and word != label.value else None
        return Ruling(label, short, own, data.get(RESTS_ON_FIELD))

    def _what_is_wrong(self, data: Mapping[str, Any]) -> str:
        """Why an object does not fit the schema, without quoting it."""
        known = self.rubric.schema.get("properties", {})
        if missing := [name for name in known if name not in data]:
            return f"has no {', '.join(missing)}"
        if data.keys() - known.keys():
            return "has fields that the schema does not have"
        if data.get(VERDICT_FIELD) not in list(self.rubric.labels):
            return f"has a {VERDICT_FIELD} that is not one of its words"
        return "has a value of the wrong kind"

    async def aclose(self) -> None:
        """Close the connection."""
        await self._client.aclose()

    def _cost(self, usage: Usage, *, batched: bool = False) -> float | None:
        return self._price.cost(usage, batched=batched) if self._price else None


def open_rubric(rubric: Rubric, connection: Connection) -> LLMJudge:
    """The judge that a rubric describes; errors as `open_client`, worded for the judge."""
    if connection.via == "litellm" and rubric.model.startswith("anthropic/"):
        # litellm turns the schema into a forced tool call: the reply does not fit the schema, and
        # newer Claude models refuse such calls.
        raise ConfigurationError(
            f"{printable(rubric.model)} cannot judge through litellm: leave out --judge-via, it is "
            "reached through the anthropic SDK"
        )
    try:
        client = open_client(
            rubric.model,
            api_base=connection.api_base,
            api_key_env=connection.api_key_env,
            via=connection.via,
            pacer=connection.pacer,
            finish_words=connection.finish_words,
            batched=connection.batched,
        )
    except (ConfigurationError, UsageError) as error:
        # The error has to say which of a run's two models it is about.
        text = of_judge(str(error))
        raise type(error)(f"the judge {rubric.name}: {text}; {OTHER_JUDGE}") from error
    if connection.share_form is not None:
        client.form = connection.share_form(client.form)
    price = price_at(rubric.model, connection.api_base, connection.via)
    return LLMJudge(rubric, client, price=price, timeout_s=connection.timeout_s)


def of_judge(advice: str) -> str:
    """Advice about a model's options, with the judge's options instead."""
    return re.sub(r"(?<!\S)--(api-base|api-key-env)\b", r"--judge-\1", advice)


def _request_text(prompt: Prompt) -> str:
    """The request as a judge reads it: one turn as it is, several with their roles as JSON."""
    if not prompt.messages:
        return prompt.text
    if len(prompt.messages) == 1:
        return prompt.messages[0].content
    turns = [{"role": m.role, "content": m.content} for m in prompt.messages]
    return json.dumps(turns, ensure_ascii=False, indent=1)


def _block(name: str, nonce: str, text: str) -> str:
    return f"BEGIN {name} {nonce}\n{text}\nEND {name} {nonce}"


def _declines(text: str) -> bool:
    """Whether prose in place of a verdict is a refusal, by the rules of the lexical judge.

    It only decides why a unit is unscored, never a label.
    """
    return "{" not in text and _rules().classify(text).label is Label.REFUSAL


@cache
def _rules() -> LexicalJudge:
    # Loaded only where a judge answered with prose.
    from refusalkit.judges.lexical import LexicalJudge
    from refusalkit.judges.lexical_rules import LexicalRules

    return LexicalJudge(LexicalRules.model_validate(load_rubric("lexical").rules))
