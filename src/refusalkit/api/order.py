"""The order in which a run asks its prompts, and when it may stop."""

from __future__ import annotations

from refusalkit.config.run_config import RunConfig
from refusalkit.engine.plan import Plan, StopRule
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.runs.folder import Run


def plan_of(config: RunConfig, prompts: PromptSet) -> Plan:
    """The order in which a run asks its units."""
    from refusalkit.engine.plan import plan_prompts, plan_trials

    if config.order is None:
        return plan_trials(prompts, config.trials)
    return plan_prompts(prompts, config.trials, config.order)


def stop_rule_of(config: RunConfig, prompts: PromptSet, run: Run | None = None) -> StopRule | None:
    """The rule by which a run may stop early; for a resumed `run` it has seen its records."""
    if config.stop_when is None or config.order is None:
        return None
    from refusalkit.prompts.random_order import in_random_order
    from refusalkit.scoring.stop_rule import LeakRule

    rule = LeakRule(
        in_random_order(prompts, config.order),
        config.trials,
        when=config.stop_when,
        bound_percent=config.bound,
        max_leaks=config.max_leaks or 0,
    )
    if run is not None:
        rule.read(run)
    return rule
