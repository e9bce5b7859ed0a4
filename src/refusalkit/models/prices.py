"""What a token costs, and which models are no longer served.

Prices are read from the list that litellm ships, without importing litellm; retired models from
``retired.toml``.
"""

from __future__ import annotations

import importlib.util
import json
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime
from functools import cache
from pathlib import Path
from typing import Any

from refusalkit.errors import RetiredModelError
from refusalkit.types import Usage
from refusalkit.untrusted import printable

_LIST = "model_prices_and_context_window_backup.json"
# Shortest text in tokens that a prompt cache takes where the list does not say: OpenAI's minimum.
_CACHED_FROM = 1024


@dataclass(frozen=True, slots=True)
class Price:
    """What a model's tokens cost, and from what length its provider's prompt cache takes a text."""

    input_usd: float
    """USD per input token."""
    output_usd: float
    """USD per output token."""
    cache_read_usd: float | None = None
    """USD per input token read from the prompt cache; None: as other input tokens."""
    cache_write_usd: float | None = None
    """USD per input token written to the prompt cache; None: as other input tokens."""
    cached_from_tokens: int = _CACHED_FROM
    """Tokens of the shortest text that the prompt cache takes."""
    batch_factor: float | None = None
    """The price in a batch as a share of the prices above, 0 to 1; None: not known."""

    def keeps(self, text: str) -> bool:
        """Whether the prompt cache is likely to take a text that comes first in every request.

        Four bytes count as a token, slightly too few for English. Asking to cache a text that the
        provider finds too short costs nothing; not asking would lose the discount.
        """
        return len(text.encode("utf-8", "surrogatepass")) >= 4 * self.cached_from_tokens

    def cost(self, usage: Usage, *, batched: bool = False) -> float | None:
        """USD for one request, alone or in a batch.

        None where the provider did not say how many tokens it took, or its batches have no known
        price.
        """
        if batched:
            alone = self.cost(usage)
            if alone is None or self.batch_factor is None:
                return None
            return alone * self.batch_factor
        if usage.input_tokens is None or usage.output_tokens is None:
            return None
        total = usage.input_tokens * self.input_usd + usage.output_tokens * self.output_usd
        # Together they are at most the input, whatever an endpoint reports.
        written = min(usage.cache_write_tokens or 0, usage.input_tokens)
        read = min(usage.cache_read_tokens or 0, usage.input_tokens - written)
        for tokens, usd in ((written, self.cache_write_usd), (read, self.cache_read_usd)):
            if tokens and usd is not None:
                total += tokens * (usd - self.input_usd)
        return total


def price_of(model_id: str) -> Price | None:
    """The list price of ``provider/name``; None where it is unknown, which is not the same as 0."""
    prices = _prices()
    provider, _, name = model_id.partition("/")
    entry = prices.get(model_id)
    if entry is None and name:
        # Some providers' models are listed without a prefix.
        bare = prices.get(name)
        if isinstance(bare, dict) and bare.get("litellm_provider") == provider:
            entry = bare
    if not isinstance(entry, dict):
        return None
    incoming, outgoing = entry.get("input_cost_per_token"), entry.get("output_cost_per_token")
    if not isinstance(incoming, int | float) or not isinstance(outgoing, int | float):
        return None
    if incoming == 0 and outgoing == 0:
        return None  # in the list, 0 means that the price is not known
    from refusalkit.models.batch_dialects import batch_limits

    return Price(
        float(incoming),
        float(outgoing),
        _usd(entry.get("cache_read_input_token_cost")),
        _usd(entry.get("cache_creation_input_token_cost")),
        int(entry.get("prompt_cache_min_tokens") or _CACHED_FROM),
        None
        if (limits := batch_limits(str(entry.get("litellm_provider")))) is None
        else limits.price_factor,
    )


def listed_provider(name: str) -> str | None:
    """The provider under which the list has a model without a prefix, such as ``gpt-6-luna``."""
    entry = _prices().get(name)
    provider = entry.get("litellm_provider") if isinstance(entry, dict) else None
    return provider if isinstance(provider, str) else None


def _usd(listed: object) -> float | None:
    # In the list, 0 means that the price is not known: taken for "free" it would be too low.
    return float(listed) if isinstance(listed, int | float) and listed else None


@cache
def _prices() -> Mapping[str, Any]:
    spec = importlib.util.find_spec("litellm")
    if spec is None or spec.origin is None:
        return {}
    try:
        data = json.loads((Path(spec.origin).parent / _LIST).read_bytes())
    except (OSError, ValueError):
        return {}
    return data if isinstance(data, dict) else {}


@cache
def _retired() -> Mapping[str, Mapping[str, Any]]:
    text = Path(__file__).with_name("retired.toml").read_text(encoding="utf-8")
    return {row["model"]: row for row in tomllib.loads(text)["model"]}


def check_retired(model_id: str, *, today: date | None = None) -> None:
    """Raise `RetiredModelError`, which names the successor, if the model is no longer served."""
    row = _retired().get(model_id.rpartition("/")[2])
    if row is None or (today or datetime.now(UTC).date()) < row["retired"]:
        return
    provider = "anthropic/" if model_id.startswith("anthropic/") else ""
    raise RetiredModelError(
        f"{printable(model_id)} was retired on {row['retired'].isoformat()}: use "
        f"{provider}{row['successor']}"
    )
