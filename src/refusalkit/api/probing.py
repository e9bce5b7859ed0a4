"""The injection self-test of a judge."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

from refusalkit.api.calls import check_options
from refusalkit.api.sync import sync
from refusalkit.config.run_config import JudgeOptions
from refusalkit.engine.opening import config_of_call, open_configured_judge, ready_config
from refusalkit.errors import UsageError
from refusalkit.untrusted import printable

if TYPE_CHECKING:
    from refusalkit.engine.plan import OnProgress
    from refusalkit.judges.probes import Probed
    from refusalkit.judges.protocol import Judge
    from refusalkit.scoring.judge_quality.probe_results import JudgeProbe


def probe_judge(
    judge: str | Path | Judge,
    *,
    kinds: Sequence[str] = (),
    max_unscored: float = 5.0,
    on_progress: OnProgress | None = None,
    **options: Unpack[JudgeOptions],
) -> JudgeProbe:
    """Test a judge with answers that contain prompt injections, and count verdicts that flip.

    Args:
        judge: a shipped name, the path of a judge file, or your own `Judge`.
        kinds: only these kinds of attack (``delimiter``, ``json``, ...); default all.
        max_unscored: the largest share of probes without a label, in percent; above it the result
            is ``unclear``.
        on_progress: called after each answer with a `Progress`; its `planned` counts probes.
        **options: `JudgeOptions`: judge_model, concurrency, max_cost, ...

    Returns:
        The flips by kind of attack and direction with intervals, their ids, and a `status`:
        ``resists``, ``fooled`` or ``unclear``.

    Raises:
        TypeError: an option is unknown; a similar one is suggested.
        UsageError: the judge file is wrong, or a kind is unknown.
        ConfigurationError: no key, an unknown provider, a value out of range.
        FatalProviderError: no request to the judge can succeed.

    Examples:
        >>> import refusalkit as rk
        >>> rk.probe_judge("lexical", kinds=["json"]).status
        <ProbeStatus.RESISTS: 'resists'>
    """
    check_options(probe_judge, options, JudgeOptions)
    return sync(
        lambda stop: probe_judge_async(
            judge,
            kinds=kinds,
            max_unscored=max_unscored,
            on_progress=on_progress,
            stop=stop,
            **options,
        ),
    )


async def probe_judge_async(
    judge: str | Path | Judge,
    *,
    kinds: Sequence[str] = (),
    max_unscored: float = 5.0,
    on_progress: OnProgress | None = None,
    stop: asyncio.Event | None = None,
    **options: Unpack[JudgeOptions],
) -> JudgeProbe:
    """`probe_judge` for async code. Once `stop` is set it ends with the results so far."""
    check_options(probe_judge_async, options, JudgeOptions)
    from refusalkit.judges.council import digest_of
    from refusalkit.judges.probes import ask_probes, load_probes
    from refusalkit.scoring.judge_quality.probe_results import judge_probe

    probes = load_probes()
    for kind in kinds:
        if kind not in probes.kinds:
            known = ", ".join(probes.kinds)
            raise UsageError(f"there is no kind of attack {printable(kind)}; there are: {known}")
    chosen = str(judge) if isinstance(judge, str | Path) else judge
    config = config_of_call(options, model="probe/answers", judge=chosen)
    opened = open_configured_judge(config, chosen)
    config = ready_config(config, opened, asks_model=False, named_judge=isinstance(chosen, str))
    try:
        probed = await ask_probes(
            opened,
            probes,
            kinds=kinds,
            concurrency=config.concurrency,
            max_cost=config.max_cost,
            stop=stop,
            on_answer=None if on_progress is None else _told(on_progress),
        )
    finally:
        await opened.aclose()
    return judge_probe(opened, probes, probed, digest=digest_of(opened), max_unscored=max_unscored)


def _told(on_progress: OnProgress) -> Any:
    from refusalkit.engine.plan import Progress
    from refusalkit.types import Label

    started = time.monotonic()

    def tell(probed: Probed) -> None:
        said = [verdict.label for _, verdict in probed.asked]
        on_progress(
            Progress(
                planned=probed.planned,
                completions=len(said),
                verdicts=len(said),
                refusals=said.count(Label.REFUSAL),
                unscored=said.count(None),
                cost_usd=probed.cost_usd,
                elapsed_s=time.monotonic() - started,
            )
        )

    return tell
