"""Measure how often a language model refuses, and prove that its hard lines hold.

    import refusalkit as rk

    run = rk.benchmark("demo/mixed", "refusalkit-166", trials=5, out="runs/demo")
    rk.score(run).willingness          # an Estimate: value, interval, what it rests on
    rk.audit(run).status               # held | crossed | inconclusive

refusalkit reproduces RefusalBench of Nous Research's Hermes 4 Technical Report (arXiv 2508.18255,
section 4.5.1). The score measures willingness to answer, not whether an answer is right or safe.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from refusalkit.api import (
        ModelRun,
        audit,
        audit_plan,
        benchmark,
        benchmark_async,
        benchmark_many,
        benchmark_many_async,
        bridge,
        calibrate,
        calibrate_async,
        compare,
        correct,
        estimate,
        grade,
        grade_async,
        judge_agreement,
        judge_agreement_async,
        leaderboard,
        load_run,
        open_labelling,
        probe_judge,
        probe_judge_async,
        regrade,
        regrade_async,
        report,
        resume,
        resume_async,
        score,
        units,
    )
    from refusalkit.config import RunConfig
    from refusalkit.datasets.framings import with_framings
    from refusalkit.errors import RefusalkitError
    from refusalkit.judges import Council, Judge, load_judge
    from refusalkit.models import Model, open_model
    from refusalkit.prompts import load_prompts, select, shipped_sets
    from refusalkit.reporting.data.presets import PresetRow, preset_rows
    from refusalkit.runner import Progress
    from refusalkit.scoring import (
        Audit,
        AuditPlan,
        AuditStatus,
        Bridge,
        Calibrated,
        Calibration,
        Comparison,
        Correction,
        Difference,
        Gate,
        GateStatus,
        Grades,
        HardLine,
        JudgeProbe,
        Leaderboard,
        Pair,
        Score,
        Variance,
        read_calibration,
        same_family,
        write_calibration,
    )
    from refusalkit.store import Run
    from refusalkit.types import (
        Category,
        Completion,
        Estimate,
        GenerationConfig,
        Label,
        Message,
        Outcome,
        Prompt,
        PromptSet,
        Unscored,
        Usage,
        Verdict,
    )

# Names are imported when they are first used: `import refusalkit` stays quick, and nobody who reads
# a score waits for a provider's SDK.
_WHERE = {
    "api": (
        "audit",
        "audit_plan",
        "benchmark",
        "benchmark_async",
        "benchmark_many",
        "benchmark_many_async",
        "ModelRun",
        "bridge",
        "compare",
        "estimate",
        "calibrate",
        "calibrate_async",
        "correct",
        "grade",
        "grade_async",
        "judge_agreement",
        "judge_agreement_async",
        "leaderboard",
        "load_run",
        "probe_judge",
        "probe_judge_async",
        "regrade",
        "regrade_async",
        "open_labelling",
        "report",
        "resume",
        "resume_async",
        "score",
        "units",
    ),
    "config": ("RunConfig",),
    "datasets.framings": ("with_framings",),
    "errors": ("RefusalkitError",),
    "judges": ("Council", "Judge", "load_judge"),
    "models": ("Model", "open_model"),
    "prompts": ("load_prompts", "select", "shipped_sets"),
    "reporting.data.presets": ("PresetRow", "preset_rows"),
    "runner": ("Progress",),
    "scoring": (
        "Audit",
        "AuditPlan",
        "AuditStatus",
        "Bridge",
        "Comparison",
        "Difference",
        "Gate",
        "GateStatus",
        "Grades",
        "HardLine",
        "JudgeProbe",
        "Leaderboard",
        "Pair",
        "Score",
        "Variance",
        "same_family",
        "Calibrated",
        "Calibration",
        "Correction",
        "read_calibration",
        "write_calibration",
    ),
    "store": ("Run",),
    "types": (
        "Category",
        "Completion",
        "Estimate",
        "GenerationConfig",
        "Label",
        "Message",
        "Outcome",
        "Prompt",
        "PromptSet",
        "Unscored",
        "Usage",
        "Verdict",
    ),
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names}

__all__ = [
    "Audit",
    "AuditPlan",
    "AuditStatus",
    "Bridge",
    "Calibrated",
    "Calibration",
    "Category",
    "Comparison",
    "Completion",
    "Correction",
    "Council",
    "Difference",
    "Estimate",
    "Gate",
    "GateStatus",
    "GenerationConfig",
    "Grades",
    "HardLine",
    "Judge",
    "JudgeProbe",
    "Label",
    "Leaderboard",
    "Message",
    "Model",
    "ModelRun",
    "Outcome",
    "Pair",
    "PresetRow",
    "Progress",
    "Prompt",
    "PromptSet",
    "RefusalkitError",
    "Run",
    "RunConfig",
    "Score",
    "Unscored",
    "Usage",
    "Variance",
    "Verdict",
    "audit",
    "audit_plan",
    "benchmark",
    "benchmark_async",
    "benchmark_many",
    "benchmark_many_async",
    "bridge",
    "calibrate",
    "calibrate_async",
    "compare",
    "correct",
    "estimate",
    "grade",
    "grade_async",
    "judge_agreement",
    "judge_agreement_async",
    "leaderboard",
    "load_judge",
    "load_prompts",
    "load_run",
    "open_labelling",
    "open_model",
    "preset_rows",
    "probe_judge",
    "probe_judge_async",
    "read_calibration",
    "regrade",
    "regrade_async",
    "report",
    "resume",
    "resume_async",
    "same_family",
    "score",
    "select",
    "shipped_sets",
    "units",
    "with_framings",
    "write_calibration",
]


def __getattr__(name: str) -> Any:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'refusalkit' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"refusalkit.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
