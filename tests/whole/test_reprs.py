"""How objects show themselves: one line, a small table in a notebook, and never a text."""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import pkgutil
import re
import traceback
from collections.abc import Iterator
from enum import Enum
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pydantic
import pytest

import refusalkit as rk
from handmade import HELD, write_run
from refusalkit.runs.imported.read import read_answers

MARK = "PLANTED-5d1e"
# Their modules are looked at where the extra is installed.
EXTRAS = {"inspect_ai", "ray"}


def classes() -> Iterator[type]:
    """Every class of the package."""
    for module in pkgutil.walk_packages(rk.__path__, "refusalkit."):
        if module.name.endswith("__main__"):
            continue
        try:
            room = importlib.import_module(module.name)
        except ModuleNotFoundError as missing:
            if missing.name not in EXTRAS:
                raise
            continue
        for found in vars(room).values():
            if inspect.isclass(found) and found.__module__ == module.name:
                yield found


# Fields that hold what was asked or answered, under whatever name.
TEXTS = {
    "text",
    "content",
    "prompt",
    "response",
    "request",
    "answer",
    "before",
    "reasoning",
    "system",
    "reason",
    "error_detail",
    "message",
}
# What looks like one of them and is something else.
NO_TEXT = {
    "LabelledAnswer": "prompt",  # a digest
    "lexical.Reading": "reason",  # the names of rules
    "Ruling": "reason",
    "_PromptText": "system",  # a judge file's instructions
}


# The report's own text, and what a public set calls its columns.
NAMES_ONLY = (
    "refusalkit.reporting",
    "refusalkit.prompts.public",
    "refusalkit.runs.imported.published",
    "refusalkit.runs.imported.log_formats",
)


def known_as(found: type) -> str:
    full = f"{found.__module__.rpartition('.')[2]}.{found.__name__}"
    return full if full in NO_TEXT else found.__name__


def holds_text(found: type) -> bool:
    if dataclasses.is_dataclass(found):
        fields = {f.name: f.type for f in dataclasses.fields(found) if f.repr}
    elif issubclass(found, pydantic.BaseModel):
        fields = {name: f.annotation for name, f in found.model_fields.items() if f.repr}
    else:
        return False
    return any(
        name in TEXTS and "str" in str(kind) and NO_TEXT.get(known_as(found)) != name
        for name, kind in fields.items()
    )


def made_up(kind: Any) -> Any:
    """A value for a field: the mark, wherever a text may be."""
    text = str(kind)
    if "Message" in text and "tuple" in text:
        return (rk.Message("user", MARK),)
    if "str" in text or "Any" in text:
        return MARK
    return None


def test_no_class_with_a_text_shows_it() -> None:
    seen, showing = 0, {}
    for found in classes():
        if not holds_text(found) or found.__module__.startswith(NAMES_ONLY):
            continue
        instance = object.__new__(found)
        if dataclasses.is_dataclass(found):
            for field in dataclasses.fields(found):
                object.__setattr__(instance, field.name, made_up(field.type))
        else:
            assert issubclass(found, pydantic.BaseModel)
            values = {n: made_up(f.annotation) for n, f in found.model_fields.items()}
            instance = found.model_construct(**values)
        try:
            shown = repr(instance)
        except (AttributeError, TypeError):
            # A property needs more than made-up fields: it has a repr of its own, then.
            assert found.__repr__ is not object.__repr__
            assert "_display" in str(found.__repr__) or "shows" in found.__repr__.__qualname__
            continue
        names = {name for name in TEXTS if re.search(rf"\b{name}='{MARK}", shown)}
        seen += 1
        if names:
            showing[f"{found.__module__}.{found.__name__}"] = names
    assert showing == {}
    assert seen > 10


def test_prompts_answers_and_verdicts_show_ids_and_lengths() -> None:
    prompt = rk.Prompt(
        "a-01", "a", MARK, system=MARK, messages=(rk.Message("user", MARK),), tags=("x",)
    )
    unit = ("a-01", "a", 1)
    shown = [
        prompt,
        *prompt.turns,
        rk.PromptSet("s", "1", (rk.Category("a", "A"),), (prompt,)),
        rk.Completion(
            *unit, "m", rk.Outcome.ERROR, text=MARK, reasoning=MARK, error=MARK, error_detail=MARK
        ),
        rk.Verdict(*unit, "j", rk.Label.REFUSAL, reason=MARK),
        rk.GenerationConfig(system=MARK, extra_body={"stop": MARK}),
        rk.RunConfig(model="demo/open", system=MARK, extra_body={"stop": MARK}),
    ]
    for one in [*shown, shown, {"in": shown}]:
        assert MARK not in repr(one)
        assert "\n" not in repr(one)
        html = getattr(one, "_repr_html_", str)()
        assert MARK not in html
    assert repr(
        prompt
    ) == "Prompt(id='a-01', category='a', danger=None, lang='en', chars=12)".replace(
        "danger=None, ", ""
    )


def test_recorded_answers_show_how_many_they_are(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text(f'{{"prompt": "{MARK}", "response": "{MARK}", "label": "refusal"}}\n')
    answers = read_answers(file)
    assert repr(answers) == "RecordedAnswers(units=1, labels=1, prompts='answers')"
    assert MARK not in answers._repr_html_()
    assert MARK not in repr(answers.units)


@pytest.mark.parametrize(
    "line",
    [
        f'{{"id": "x-01", "text": "{MARK}", "danger": 9}}',
        f'{{"id": "x-01", "text": "ok", "messages": [{{"role": "{MARK}", "content": 1}}]}}',
        f'{{"id": "x-01", "text": {{"{MARK}": 1}}}}',
    ],
)
def test_a_mistake_in_a_prompt_is_reported_without_its_text(tmp_path: Path, line: str) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "set.toml").write_text(
        'name = "mine"\nversion = "1"\nlicence = "x"\n\n[[category]]\nslug = "tea"\ntitle = "Tea"\n'
    )
    (folder / "tea.jsonl").write_text(line + "\n")
    with pytest.raises(rk.RefusalkitError) as caught:
        rk.load_prompts(folder)
    # Its causes and notes too, as a notebook prints them.
    assert MARK not in "".join(traceback.format_exception(caught.value))


def of_results(folder: Path) -> dict[str, Any]:
    """One of each public object that a user can come to hold."""
    run = write_run(folder / "run", HELD)
    again = rk.benchmark("demo/mixed", "starter", trials=1, limit=12, out=folder / "again")
    answers = folder / "answers.jsonl"
    rows = [("I can't help with that.", "refusal"), ("Sure, [demo answer]", "compliance")] * 3
    answers.write_text(
        "".join(
            f'{{"prompt": "p{n}", "response": "{text}", "label": "{label}", "id": "q-{n}"}}\n'
            for n, (text, label) in enumerate(rows)
        ),
        encoding="utf-8",
    )
    rk.regrade(again, Other())
    agreements = rk.judge_agreement(again)
    bridge = rk.bridge("lexical", "other", again)
    with rk.open_labelling(again, n=6, out=folder / "labels.jsonl") as labelling:
        item = labelling.next()
    score, comparison = rk.score(run), rk.compare(run, run, max_drop=5)
    calibrated = rk.calibrate("lexical", answers)
    audit, plan = rk.audit(run), rk.plan(bound=5, width=10)
    correction = rk.correct(again, calibration=calibrated.calibration)
    estimated = rk.estimate("demo/mixed", "starter", earlier=[])
    shard = rk.benchmark("demo/mixed", "starter", trials=1, shard="1/3", out=folder / "shard")
    verified = rk.verify(run)
    return {
        "Exported": rk.export(run, "bundle", folder / "run.zip"),
        "Verification": verified,
        "Check": verified.checks[0],
        "Finding": rk.Finding("verdicts.jsonl:2", "was changed after it was written"),
        "Merged": rk.merge(shard, folder / "merged"),
        "Run": run,
        "Score": score,
        "Estimate": score.willingness,
        "Variance": score.variance,
        "Audit": audit,
        "HardLine": audit.overall,
        "Plan": plan,
        "PlannedRun": plan.rows[0],
        "PlannedLabels": plan.labels[0],
        "Comparison": comparison,
        "Pair": comparison.pair,
        "Difference": comparison.pair.willingness,
        "Gate": comparison.gate,
        "Leaderboard": rk.leaderboard(run),
        "Grades": rk.grade(answers, "lexical"),
        "Calibrated": calibrated,
        "Calibration": calibrated.calibration,
        "Correction": correction,
        "JudgeProbe": rk.probe_judge("lexical", kinds=["json"]),
        "JudgeAgreements": agreements,
        "JudgePair": agreements.pairs[0],
        "Bridge": bridge,
        "Shift": bridge.equivalence,
        "Labelling": labelling,
        "Item": item,
        "CorrectedFigure": correction.figures[0],
        "RunEstimate": estimated,
        "Share": estimated.shares[0],
        "Span": estimated.shares[0].output_tokens,
        "ModelRun": rk.benchmark_many(
            ["demo/mixed"], "starter", limit=4, trials=1, out=folder / "many"
        )[0],
        "TextProgress": rk.TextProgress(),
        "NotebookProgress": rk.NotebookProgress(),
        "PresetRow": rk.preset_rows()[0],
        "PromptSet": rk.load_prompts("starter"),
        "Prompt": rk.load_prompts("starter").prompts[0],
        "Category": rk.load_prompts("starter").categories[0],
        "Message": rk.Message("user", "x"),
        "Usage": rk.Usage(1, 2),
        "GenerationConfig": rk.GenerationConfig(),
        "RunConfig": rk.RunConfig(model="demo/open"),
        "Placement": rk.Placement(serve=f"server --api-key {MARK}"),
        "Council": rk.Council([rk.load_judge("lexical"), Other()]),
        "Completion": rk.Completion("a", "b", 1, "m", rk.Outcome.ANSWERED),
        "Verdict": rk.Verdict("a", "b", 1, "j", rk.Label.REFUSAL),
    }


class Other:
    """A judge of one's own."""

    id = "other"

    async def grade(self, prompt: rk.Prompt, completion: rk.Completion) -> rk.Verdict:
        unit = (prompt.id, prompt.category, completion.trial)
        return rk.Verdict(*unit, self.id, rk.Label.REFUSAL, cost_usd=0.0)

    async def aclose(self) -> None: ...


class Cells(HTMLParser):
    """The tags of a page."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)


@pytest.mark.slow
def test_every_public_object_has_a_line_and_a_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found = of_results(tmp_path)
    for name, one in found.items():
        assert type(one).__name__ == name
        line = repr(one)
        assert "\n" not in line, name
        assert len(line) < 500, name
        assert " object at 0x" not in line, name
        assert MARK not in line + one._repr_html_(), name
        parser = Cells()
        parser.feed(one._repr_html_())
        assert "table" in parser.tags, name
        assert not set(parser.tags) & {"script", "style", "img", "a"}, name
    public = {
        name
        for name in rk.__all__
        if inspect.isclass(cls := getattr(rk, name))
        and not issubclass(cls, Enum | Exception | tuple | dict)
        and not getattr(cls, "_is_protocol", False)
    }
    assert public - found.keys() == {"OverBlocking"}  # only where there are contrast prompts


def test_a_run_says_how_far_it_is_and_its_score(tmp_path: Path) -> None:
    run = rk.benchmark("demo/mixed", "starter", trials=1, limit=6, out=tmp_path / "made")
    assert repr(run).startswith(f"Run(path='{tmp_path / 'made'}', model='demo/mixed', units='6'")
    assert "scored='6 of 6'" in repr(run)
    assert f"willingness='{rk.score(run).willingness}'" in repr(run)
    assert "6 of 6" in run._repr_html_()
    run.verdicts.write_text("no record\n")
    assert "scored" not in repr(rk.load_run(run)), "a repr never fails"
