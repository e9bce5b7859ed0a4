"""The functions a user calls. Each stage is usable alone, and prints nothing.

`benchmark`, `resume` and `grade` have async twins (`benchmark_async` ...) that they wrap; the plain
ones also work inside a running event loop, such as a notebook's.
"""

from __future__ import annotations

from refusalkit.api.recorded import grade, grade_async, judge_agreement, judge_agreement_async
from refusalkit.api.results import audit, load_run, report, score, units
from refusalkit.api.runs import benchmark, benchmark_async, resume, resume_async

__all__ = [
    "audit",
    "benchmark",
    "benchmark_async",
    "grade",
    "grade_async",
    "judge_agreement",
    "judge_agreement_async",
    "load_run",
    "report",
    "resume",
    "resume_async",
    "score",
    "units",
]
