"""The functions a user calls. Each stage is usable alone, and prints nothing.

`benchmark`, `resume` and `grade` have async twins (`benchmark_async` ...) that they wrap; the plain
ones also work inside a running event loop, such as a notebook's.
"""

from __future__ import annotations

from refusalkit.api.calibration import calibrate, calibrate_async, correct
from refusalkit.api.labelling import open_labelling
from refusalkit.api.recorded import (
    answer_texts,
    grade,
    grade_async,
    judge_agreement,
    judge_agreement_async,
)
from refusalkit.api.results import audit, load_run, report, score
from refusalkit.api.runs import benchmark, benchmark_async, resume, resume_async

__all__ = [
    "answer_texts",
    "audit",
    "benchmark",
    "benchmark_async",
    "calibrate",
    "calibrate_async",
    "correct",
    "grade",
    "grade_async",
    "judge_agreement",
    "judge_agreement_async",
    "load_run",
    "open_labelling",
    "report",
    "resume",
    "resume_async",
    "score",
]
