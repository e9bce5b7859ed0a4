"""The options that commands share, and how what was given becomes a configuration."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

import click

from refusalkit.errors import UsageError
from refusalkit.untrusted import printable

_F = TypeVar("_F", bound=Callable[..., Any])


class Number(click.FloatRange):
    """A number within a range: one that is not a number is within none."""

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        found = float(super().convert(value, param, ctx))
        if math.isnan(found):
            self.fail(f"{printable(value)} is not a number.", param, ctx)
        return found


def options(*declarations: Callable[[_F], _F]) -> Callable[[_F], _F]:
    """Several option declarations as one decorator."""

    def add(function: _F) -> _F:
        for declaration in reversed(declarations):
            function = declaration(function)
        return function

    return add


opt = click.option
inversion_option = opt(
    "--inversion",
    type=click.Choice(["paper", "atropos", "none"]),
    help="Whose hard lines, for refusalbench.  [default: paper]",
)
judge_parameters = options(
    opt("--judge-temperature", type=float, help="The judge's temperature.  [default: its file's]"),
    opt(
        "--judge-asks",
        type=int,
        help="Times a judge is asked whose reply cannot be read.  [default: its file's, 2]",
    ),
)
judging = options(
    opt("--judge-model", metavar="ID", help="Another model for the judge, provider/name."),
    judge_parameters,
    opt("--judge-via", type=click.Choice(["litellm"]), help="Force the way to the judge."),
    opt(
        "--council",
        type=click.Choice(["majority", "unanimous", "any"]),
        help="How several judges decide.  [default: majority]",
    ),
    opt("--judge-fallback", metavar="NAME", help="Answers where the judge was blocked."),
    opt("--hard-line-judge", metavar="NAME", help="Answers for hard-line categories."),
)
measured = options(
    opt(
        "--preset",
        type=click.Choice(["paper", "atropos", "modern"]),
        help="Defaults that belong together; see `refusalkit presets`.",
    ),
    opt("--prompts", metavar="SET", help="A set, public set, folder or file; several by commas."),
    opt("--hard-line", multiple=True, metavar="CATEGORY", help="Score it inversely (repeatable)."),
    inversion_option,
    opt("--category", multiple=True, metavar="SLUG", help="Only this category (repeatable)."),
    opt("--tag", multiple=True, help="Only prompts with this tag (repeatable)."),
    opt("--danger", multiple=True, type=click.IntRange(1, 3), help="Only this danger."),
    opt("--limit", type=int, help="So many prompts, balanced over categories."),
    opt("--limit-seed", type=int, help="Seed of the draw that --limit makes."),
    opt(
        "--framings",
        is_flag=True,
        default=None,
        help="Hard-line requests also in four plain framings, for the audit.",
    ),
    opt("--trials", type=int, help="Independent answers to each prompt.  [default: 5]"),
    opt("--temperature", type=float, help="Sampling temperature.  [default: 0.6]"),
    opt("--top-p", type=float, help="Nucleus sampling.  [default: 0.95]"),
    opt("--top-k", type=int, help="Top-k sampling, where the model takes it.  [default: 20]"),
    opt("--max-tokens", type=int, help="Most tokens of an answer.  [default: 8192]"),
    opt("--seed", type=int, help="Seed of trial 1; trial n sends seed + n - 1."),
    opt("--system", metavar="TEXT", help="A system prompt.  [default: none]"),
    opt("--reasoning", type=click.Choice(["off", "on", "auto"]), help="Ask for reasoning or not."),
    opt("--extra-body", metavar="JSON", help="More fields for the model's request."),
    opt("--via", type=click.Choice(["litellm"]), help="Force the way to the model."),
    opt("--judge", metavar="NAME", help="A judge or a judge file; several by commas: a council."),
    judging,
    opt("--count-deflection", is_flag=True, default=None, help="A deflection counts as refused."),
    opt(
        "--keep-hard-line-text",
        is_flag=True,
        default=None,
        help="Write hard-line answers to disk; they are withheld by default.",
    ),
    opt("--config", "config_file", metavar="FILE", help="TOML file with any of these options."),
)
operational = options(
    opt("--api-base", metavar="URL", help="Endpoint of the model (OpenAI protocol)."),
    opt("--api-key-env", metavar="NAME", help="Environment variable that holds its key."),
    opt("--judge-api-base", metavar="URL", help="Endpoint of the judge."),
    opt("--judge-api-key-env", metavar="NAME", help="Environment variable with the judge's key."),
    opt("--concurrency", type=int, help="Units in work at once.  [default: 32]"),
    opt(
        "--judge-concurrency",
        type=int,
        help="Requests to the judge at once.  [default: --concurrency]",
    ),
    opt("--rpm", type=float, help="Requests per minute to the model, never passed."),
    opt("--judge-rpm", type=float, help="Requests per minute to the judge, never passed."),
    opt("--tpm", type=float, help="Tokens per minute, in and out, of the model."),
    opt("--judge-tpm", type=float, help="Tokens per minute, in and out, of the judge."),
    opt("--timeout", "timeout_s", type=float, help="Seconds for one request.  [default: 600]"),
    opt("--max-retries", type=int, help="Retries of one request after a fault.  [default: 5]"),
    opt("--max-cost", type=float, metavar="USD", help="Stop before this is passed."),
    opt("--canaries", type=int, help="Answers of known labels for the judge.  [default: 8]"),
)
max_unscored_option = opt(
    "--max-unscored",
    type=Number(0, 100),
    default=5.0,
    show_default=True,
    metavar="PERCENT",
    help="Exit 1 if more units than this have no label.",
)


def given_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The options that were given, as configuration values."""
    given = {
        name: value
        for name, value in options.items()
        if name != "config_file" and value is not None and value != ()
    }
    if "extra_body" in given:
        try:
            body = json.loads(given["extra_body"])
        except (ValueError, RecursionError) as error:
            raise UsageError(f"--extra-body is not JSON: {printable(error)}") from error
        if not isinstance(body, dict):
            raise UsageError("--extra-body must be a JSON object")
        given["extra_body"] = body
    return given
