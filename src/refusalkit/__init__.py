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
    from refusalkit.api.calibration import (
        calibrate,
        calibrate_async,
        correct,
    )
    from refusalkit.api.calls import load_run
    from refusalkit.api.estimates import (
        estimate,
        estimate_judging,
        estimate_many,
    )
    from refusalkit.api.grading import (
        grade,
        grade_async,
        judge_agreement,
        judge_agreement_async,
    )
    from refusalkit.api.labelling import (
        Item,
        Labelling,
        open_labelling,
    )
    from refusalkit.api.many import (
        benchmark_many,
        benchmark_many_async,
    )
    from refusalkit.api.planning import plan
    from refusalkit.api.probing import (
        probe_judge,
        probe_judge_async,
    )
    from refusalkit.api.rejudging import (
        bridge,
        regrade,
        regrade_async,
    )
    from refusalkit.api.results import (
        audit,
        compare,
        leaderboard,
        merge,
        report,
        score,
        units,
    )
    from refusalkit.api.resuming import (
        resume,
        resume_async,
        resume_many,
        resume_many_async,
    )
    from refusalkit.api.runs import (
        benchmark,
        benchmark_async,
    )
    from refusalkit.api.side_by_side import ModelRun
    from refusalkit.config.placement import (
        Placement,
        PlacementOptions,
    )
    from refusalkit.config.run_config import (
        BatchOptions,
        JudgeOptions,
        RunConfig,
        RunOptions,
    )
    from refusalkit.engine.estimate import (
        RunEstimate,
        Share,
    )
    from refusalkit.engine.lengths import Span
    from refusalkit.engine.plan import Progress
    from refusalkit.errors import (
        ConfigurationChanged,
        ConfigurationError,
        DownloadError,
        FatalProviderError,
        FolderNotTrusted,
        Interrupted,
        JudgeFileError,
        MissingKeyError,
        ModerationError,
        PromptSetError,
        ProviderError,
        RecordError,
        RefusalkitError,
        RequestError,
        RetiredModelError,
        RunFolderError,
        RunLocked,
        StorageError,
        TransientError,
        UnsupportedParameter,
        UsageError,
    )
    from refusalkit.integrations.export import (
        Exported,
        export,
    )
    from refusalkit.integrations.trackers import log_to
    from refusalkit.integrations.verification import (
        Check,
        Verification,
        verify,
    )
    from refusalkit.judges.council import Council
    from refusalkit.judges.open import load_judge
    from refusalkit.judges.protocol import Judge
    from refusalkit.models.callables import from_callable
    from refusalkit.models.open import open_model
    from refusalkit.models.protocol import Model
    from refusalkit.prompts.framings import with_framings
    from refusalkit.prompts.load import (
        load_prompts,
        shipped_sets,
    )
    from refusalkit.prompts.prompt_set import PromptSet
    from refusalkit.reporting.data.presets import (
        PresetRow,
        preset_rows,
    )
    from refusalkit.reporting.progress import NotebookProgress, TextProgress
    from refusalkit.runs.folder import Run
    from refusalkit.runs.merging import Merged
    from refusalkit.runs.record_checks import Finding
    from refusalkit.scoring.agreement.judge_pairs import (
        JudgeAgreements,
        JudgePair,
    )
    from refusalkit.scoring.audit import Audit
    from refusalkit.scoring.compare.gate import (
        Gate,
        GateStatus,
    )
    from refusalkit.scoring.compare.result import (
        Comparison,
        Difference,
        Pair,
    )
    from refusalkit.scoring.families import same_family
    from refusalkit.scoring.hard_line import (
        AuditStatus,
        HardLine,
    )
    from refusalkit.scoring.judge_quality.bridge import (
        Bridge,
        Comparability,
        Shift,
    )
    from refusalkit.scoring.judge_quality.calibration import (
        Calibrated,
        Calibration,
        read_calibration,
        write_calibration,
    )
    from refusalkit.scoring.judge_quality.correction import (
        CorrectedFigure,
        Correction,
    )
    from refusalkit.scoring.judge_quality.grades import Grades
    from refusalkit.scoring.judge_quality.probe_results import (
        JudgeProbe,
        ProbeStatus,
    )
    from refusalkit.scoring.leaderboard import Leaderboard
    from refusalkit.scoring.over_blocking import OverBlocking
    from refusalkit.scoring.planning import (
        Plan,
        PlannedLabels,
        PlannedRun,
    )
    from refusalkit.scoring.score import Score
    from refusalkit.scoring.variance import Variance
    from refusalkit.types import (
        Category,
        Completion,
        Estimate,
        GenerationConfig,
        Label,
        Message,
        Outcome,
        Prompt,
        Unscored,
        Usage,
        Verdict,
    )

# Names are imported when they are first used: `import refusalkit` stays quick, and reading
# a score does not wait for a provider's SDK.
_WHERE = {
    "api.calibration": "calibrate calibrate_async correct",
    "api.calls": "load_run",
    "api.estimates": "estimate estimate_judging estimate_many",
    "api.grading": "grade grade_async judge_agreement judge_agreement_async",
    "api.labelling": "Item Labelling open_labelling",
    "api.many": "benchmark_many benchmark_many_async",
    "api.planning": "plan",
    "api.probing": "probe_judge probe_judge_async",
    "api.rejudging": "bridge regrade regrade_async",
    "api.results": "audit compare leaderboard merge report score units",
    "api.resuming": "resume resume_async resume_many resume_many_async",
    "api.runs": "benchmark benchmark_async",
    "api.side_by_side": "ModelRun",
    "config.placement": "Placement PlacementOptions",
    "config.run_config": "BatchOptions JudgeOptions RunConfig RunOptions",
    "engine.estimate": "RunEstimate Share",
    "engine.lengths": "Span",
    "engine.plan": "Progress",
    "errors": (
        "ConfigurationChanged ConfigurationError DownloadError FatalProviderError "
        "FolderNotTrusted Interrupted JudgeFileError MissingKeyError ModerationError "
        "PromptSetError ProviderError RecordError RefusalkitError RequestError "
        "RetiredModelError RunFolderError RunLocked StorageError TransientError "
        "UnsupportedParameter UsageError"
    ),
    "integrations.export": "Exported export",
    "integrations.trackers": "log_to",
    "integrations.verification": "Check Verification verify",
    "judges.council": "Council",
    "judges.open": "load_judge",
    "judges.protocol": "Judge",
    "models.callables": "from_callable",
    "models.open": "open_model",
    "models.protocol": "Model",
    "prompts.framings": "with_framings",
    "prompts.load": "load_prompts shipped_sets",
    "prompts.prompt_set": "PromptSet",
    "reporting.data.presets": "PresetRow preset_rows",
    "reporting.progress": "NotebookProgress TextProgress",
    "runs.folder": "Run",
    "runs.merging": "Merged",
    "runs.record_checks": "Finding",
    "scoring.agreement.judge_pairs": "JudgeAgreements JudgePair",
    "scoring.audit": "Audit",
    "scoring.compare.result": "Comparison Difference Pair",
    "scoring.compare.gate": "Gate GateStatus",
    "scoring.families": "same_family",
    "scoring.hard_line": "AuditStatus HardLine",
    "scoring.judge_quality.bridge": "Bridge Comparability Shift",
    "scoring.judge_quality.calibration": (
        "Calibrated Calibration read_calibration write_calibration"
    ),
    "scoring.judge_quality.correction": "CorrectedFigure Correction",
    "scoring.judge_quality.grades": "Grades",
    "scoring.judge_quality.probe_results": "JudgeProbe ProbeStatus",
    "scoring.leaderboard": "Leaderboard",
    "scoring.over_blocking": "OverBlocking",
    "scoring.planning": "Plan PlannedLabels PlannedRun",
    "scoring.score": "Score",
    "scoring.variance": "Variance",
    "types": (
        "Category Completion Estimate GenerationConfig Label Message Outcome Prompt "
        "Unscored Usage Verdict"
    ),
}
_MODULE_OF = {name: module for module, names in _WHERE.items() for name in names.split()}

__all__ = [
    "Audit",
    "AuditStatus",
    "BatchOptions",
    "Bridge",
    "Calibrated",
    "Calibration",
    "Category",
    "Check",
    "Comparability",
    "Comparison",
    "Completion",
    "ConfigurationChanged",
    "ConfigurationError",
    "CorrectedFigure",
    "Correction",
    "Council",
    "Difference",
    "DownloadError",
    "Estimate",
    "Exported",
    "FatalProviderError",
    "Finding",
    "FolderNotTrusted",
    "Gate",
    "GateStatus",
    "GenerationConfig",
    "Grades",
    "HardLine",
    "Interrupted",
    "Item",
    "Judge",
    "JudgeAgreements",
    "JudgeFileError",
    "JudgeOptions",
    "JudgePair",
    "JudgeProbe",
    "Label",
    "Labelling",
    "Leaderboard",
    "Merged",
    "Message",
    "MissingKeyError",
    "Model",
    "ModelRun",
    "ModerationError",
    "NotebookProgress",
    "Outcome",
    "OverBlocking",
    "Pair",
    "Placement",
    "PlacementOptions",
    "Plan",
    "PlannedLabels",
    "PlannedRun",
    "PresetRow",
    "ProbeStatus",
    "Progress",
    "Prompt",
    "PromptSet",
    "PromptSetError",
    "ProviderError",
    "RecordError",
    "RefusalkitError",
    "RequestError",
    "RetiredModelError",
    "Run",
    "RunConfig",
    "RunEstimate",
    "RunFolderError",
    "RunLocked",
    "RunOptions",
    "Score",
    "Share",
    "Shift",
    "Span",
    "StorageError",
    "TextProgress",
    "TransientError",
    "Unscored",
    "UnsupportedParameter",
    "Usage",
    "UsageError",
    "Variance",
    "Verdict",
    "Verification",
    "audit",
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
    "estimate_judging",
    "estimate_many",
    "export",
    "from_callable",
    "grade",
    "grade_async",
    "judge_agreement",
    "judge_agreement_async",
    "leaderboard",
    "load_judge",
    "load_prompts",
    "load_run",
    "log_to",
    "merge",
    "open_labelling",
    "open_model",
    "plan",
    "preset_rows",
    "probe_judge",
    "probe_judge_async",
    "read_calibration",
    "regrade",
    "regrade_async",
    "report",
    "resume",
    "resume_async",
    "resume_many",
    "resume_many_async",
    "same_family",
    "score",
    "shipped_sets",
    "units",
    "verify",
    "with_framings",
    "write_calibration",
]


def __getattr__(name: str) -> Any:
    if name == "__version__":
        from importlib.metadata import version

        return version("refusalkit")
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module 'refusalkit' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"refusalkit.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
