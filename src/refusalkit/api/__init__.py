"""The functions a user calls. Each stage is usable alone, and prints nothing.

`benchmark`, `resume`, `grade` and `regrade` have async twins (`benchmark_async` ...) that they
wrap; the plain ones also work inside a running event loop, such as a notebook's.
"""

from __future__ import annotations

from refusalkit.api.calibration import calibrate, calibrate_async, correct
from refusalkit.api.estimates import estimate
from refusalkit.api.labelling import open_labelling
from refusalkit.api.probing import probe_judge, probe_judge_async
from refusalkit.api.recorded import (
    answer_texts,
    grade,
    grade_async,
    judge_agreement,
    judge_agreement_async,
)
from refusalkit.api.results import (
    audit,
    audit_plan,
    compare,
    leaderboard,
    load_run,
    report,
    score,
    units,
)
from refusalkit.api.runs import benchmark, benchmark_async, resume, resume_async
from refusalkit.api.several import ModelRun, benchmark_many, benchmark_many_async
from refusalkit.api.succession import bridge, regrade, regrade_async

__all__ = [
    "ModelRun",
    "answer_texts",
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
    "load_run",
    "open_labelling",
    "probe_judge",
    "probe_judge_async",
    "regrade",
    "regrade_async",
    "report",
    "resume",
    "resume_async",
    "score",
    "units",
]
