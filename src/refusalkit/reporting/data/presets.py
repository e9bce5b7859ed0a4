"""The presets side by side, with what the Hermes 4 report states and leaves open.

One table for the command line, the docs and the report. Preset values come from
`config.presets.PRESETS`; statements about the report and the reference environment come from
the Hermes 4 Technical Report (arXiv 2508.18255, sections 4.1 and 4.5.1) and
environments/eval_environments/refusalbench_environment.py of NousResearch/atropos, its shipped
configuration, as of July 2026.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from refusalkit.config.presets import PRESETS
from refusalkit.config.resolve import resolve_config
from refusalkit.config.run_config import RunConfig
from refusalkit.display import shows

if TYPE_CHECKING:
    from refusalkit.judges.rubrics import Rubric

NAMES = tuple(PRESETS)


@shows("aspect", "report", "environment")
@dataclass(frozen=True)
class PresetRow:
    """One setting, and how each preset chooses it."""

    aspect: str
    """What the row is about."""
    report: str | None
    """What the Hermes 4 report states; None if it does not say."""
    environment: str
    """What the reference environment does as shipped."""
    presets: dict[str, str]
    """What each preset does here, by name."""

    @property
    def differs(self) -> bool:
        """Whether the presets differ."""
        return len(set(self.presets.values())) > 1


def preset_rows() -> list[PresetRow]:
    """What each preset does, beside what the paper and the reference environment do.

    Returns:
        A row for each aspect, in the order of a run: prompts, model, judge, failures, figures.

    Examples:
        >>> import refusalkit as rk
        >>> len(rk.preset_rows()) > 10
        True
    """
    configs = {name: resolve_config({"model": "any/model", "preset": name}) for name in NAMES}
    from refusalkit.judges.rubrics import load_rubric  # scores do not need it

    rubrics = {
        name: load_rubric(
            config.judge_name,
            model=config.judge_model,
            temperature=config.judge_temperature,
            asks=config.judge_asks,
        )
        for name, config in configs.items()
    }
    return [
        PresetRow(
            fact.aspect,
            fact.report,
            fact.environment,
            {name: fact.here(configs[name], rubrics[name]) for name in NAMES},
        )
        for fact in _FACTS
    ]


def presets_data() -> dict[str, Any]:
    """The rows as JSON values (docs/presets.md).

    `presets` has each preset's description and what it sets (`options`, fields of `RunConfig`);
    `rows` have aspect, report (null: not stated), environment, presets (by name) and differs;
    `not_stated` names the aspects that the report leaves open.
    """
    rows = preset_rows()
    return {
        "schema": 1,
        "presets": {
            name: {"description": DESCRIPTIONS[name], "options": dict(PRESETS[name])}
            for name in NAMES
        },
        "rows": [{**asdict(row), "differs": row.differs} for row in rows],
        "not_stated": [row.aspect for row in rows if row.report is None],
    }


DESCRIPTIONS = {
    "paper": "what the Hermes 4 report states, and nothing more",
    "atropos": "the reference environment as it is shipped, where it can be followed",
    "modern": "four labels, a current judge, all defaults",
}


@dataclass(frozen=True)
class _Fact:
    aspect: str
    report: str | None
    environment: str
    here: Callable[[RunConfig, Rubric], str]


def _same(text: str) -> Callable[[RunConfig, Rubric], str]:
    return lambda config, rubric: text


def _sent(value: object) -> str:
    return "not sent" if value is None else f"{value:g}" if isinstance(value, float) else str(value)


_TRIES = {1: "1 try", 2: "2 tries"}
_INVERSIONS = {None: "the set's own", "atropos": "environment's list"}

_FACTS = (
    _Fact(
        "prompts",
        "166, hand-written, 32 categories",
        "NousResearch/RefusalDataset, 166",
        lambda config, rubric: config.prompts,
    ),
    _Fact(
        "hard lines",
        "minor-specific harm; exploitation and trafficking; suicide/self-harm",
        "Exploitation & Trafficking; Self-harm and Dangerous Behavior; Suicide and Self-Harm "
        "Instruction",
        lambda config, rubric: _INVERSIONS[config.inversion],
    ),
    _Fact(
        "trials",
        "5, averaged",
        "1",
        lambda config, rubric: str(config.trials),
    ),
    _Fact(
        "system prompt",
        None,
        "one general sentence",
        lambda config, rubric: "none" if config.system is None else "one, in our words",
    ),
    _Fact(
        "temperature",
        "0.6",
        "0.6",
        lambda config, rubric: _sent(config.temperature),
    ),
    _Fact(
        "top-p, top-k",
        "0.95, 20",
        "not sent",
        lambda config, rubric: (
            "not sent"
            if config.top_p is None and config.top_k is None
            else f"{_sent(config.top_p)}, {_sent(config.top_k)}"
        ),
    ),
    _Fact(
        "answer's length",
        "context of 32,768 tokens",
        "the model's default",
        lambda config, rubric: f"{config.max_tokens} tokens",
    ),
    _Fact(
        "judge's question",
        "binary: refused or not",
        "binary: declined explicitly or not",
        lambda config, rubric: "graded: four labels" if rubric.is_graded else "binary",
    ),
    _Fact(
        "judge's prompt",
        None,
        "one message, no system prompt, asks for True or False",
        lambda config, rubric: f"{rubric.name} (ours)",
    ),
    _Fact(
        "verdict's form",
        None,
        "text; words in it are counted where it is not True or False",
        _same("JSON of a schema"),
    ),
    _Fact(
        "judge model",
        "claude-sonnet-4-20250514 (retired)",
        "Hermes-3-Llama-3.1-405B; in the class claude-sonnet-4-20250514 (retired)",
        lambda config, rubric: rubric.model.rpartition("/")[2],
    ),
    _Fact(
        "judge temperature",
        None,
        "0.2",
        lambda config, rubric: _sent(rubric.temperature),
    ),
    _Fact(
        "unreadable verdict",
        None,
        "not a refusal",
        lambda config, rubric: f"{_TRIES[rubric.asks]}, unscored",
    ),
    _Fact(
        "judge fails",
        None,
        "keywords decide",
        lambda config, rubric: "unscored (+ figure)" if config.preset == "atropos" else "unscored",
    ),
    _Fact(
        "provider's filter",
        None,
        "asked again, then left out",
        _same("refusal"),
    ),
    _Fact(
        "request fails",
        None,
        "asked again, then left out",
        _same("unscored, counted"),
    ),
    _Fact(
        "short answer",
        None,
        "under 10 characters: asked again, then left out",
        _same("judged"),
    ),
    _Fact(
        "headline",
        "willingness",
        "refusal rate, hard lines not inverted",
        _same("willingness"),
    ),
    _Fact(
        "uncertainty",
        None,
        "spread over runs, if more than one",
        _same("95 % intervals"),
    ),
)
