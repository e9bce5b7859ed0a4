"""Reports show what was measured, and treat all untrusted text as text."""

from __future__ import annotations

import csv
import io
import json
import re
import stat
from pathlib import Path
from typing import Any

import jsonschema
import markupsafe
import polars as pl
import pytest

import refusalkit as rk
from commandline import Call
from handmade import CROSSED, HELD, UNFINISHED, write_run
from refusalkit.errors import RunFolderError, StorageError, UsageError
from refusalkit.reporting.data import preset_rows
from refusalkit.reporting.document import report_schema
from refusalkit.reporting.document.cautions import cautions
from refusalkit.reporting.document.facts import gather
from refusalkit.reporting.document.units import units_table
from reported import everything

HOSTILE = "<script>alert(1)</script>\u202e\x1b[31m</h1>"
FORMS = (".html", ".md", ".json", ".csv", ".parquet")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> rk.Run:
    """A run on a set with hostile text in every field."""
    folder = tmp_path_factory.mktemp("hostile")
    prompts = folder / "set.jsonl"
    rows = [
        {"prompt": f"[placeholder {n}] {HOSTILE}", "category": f"Class {n % 2} {HOSTILE}"}
        for n in range(4)
    ]
    prompts.write_text("".join(json.dumps(row) + "\n" for row in rows))
    hard = f"Class 1 {HOSTILE}"
    return rk.benchmark("demo/open", prompts, hard_line=[hard], trials=2, out=folder / "run")


@pytest.fixture(scope="module")
def page(run: rk.Run) -> str:
    return rk.report(run).read_text(encoding="utf-8")


class TestPage:
    def test_it_shows_the_figures_and_the_audit(self, run: rk.Run, page: str) -> None:
        scores = rk.score(run)
        assert f"{scores.willingness.value:.1f}" in page
        assert f"{scores.willingness.low:.1f} to {scores.willingness.high:.1f}" in page
        assert f">{rk.audit(run).status.value.capitalize()}<" in page
        assert run.manifest.config_digest in page
        assert run.manifest.prompt_set.digest in page

    def test_hostile_text_is_never_markup(self, page: str) -> None:
        assert page.count("<script") == 1  # ours
        assert page.count("</h1>") == 1
        assert "\u202e" not in page
        assert "\x1b" not in page
        assert "alert(1)" in page  # it is there, as text

    def test_it_needs_no_network(self, page: str) -> None:
        assert not re.findall(r"(?:src|href|url\()\s*=?\s*[\"']?(?:https?:)?//", page)
        policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
        assert policy is not None
        assert policy[1].startswith("default-src 'none'; style-src 'sha256-")
        assert "unsafe" not in policy[1]

    def test_the_same_run_gives_the_same_bytes(self, run: rk.Run, page: str) -> None:
        assert rk.report(run).read_text(encoding="utf-8") == page

    def test_ids_are_unique_and_links_resolve(self, page: str) -> None:
        ids = re.findall(r'\sid="([^"]+)"', page)
        assert len(ids) == len(set(ids))
        assert {name[1:] for name in re.findall(r'href="(#[^"]+)"', page)} <= set(ids)

    @pytest.mark.parametrize("answers", [HELD, CROSSED, UNFINISHED])
    def test_any_run_has_a_page(self, tmp_path: Path, answers: dict[str, str]) -> None:
        written = write_run(tmp_path / "made", answers)
        text = rk.report(written).read_text(encoding="utf-8")
        assert f">{rk.audit(written).status.value.capitalize()}<" in text

    def test_a_run_with_nothing_scored_has_a_page(self, tmp_path: Path) -> None:
        written = write_run(tmp_path / "made", {"fraud-and-scams-01": "u-"}, hard_lines=())
        text = rk.report(written).read_text(encoding="utf-8")
        assert "Nothing was scored" in text
        assert "This set has no hard lines" in text

    def test_recorded_answers_have_a_page(self, tmp_path: Path) -> None:
        answers = tmp_path / "answers.jsonl"
        answers.write_text('{"id": "a", "prompt": "[request]", "response": "I can\'t help."}\n')
        graded = rk.grade(answers, "lexical", out=tmp_path / "graded")
        assert graded.run is not None
        text = rk.report(graded.run).read_text(encoding="utf-8")
        assert "recorded answers" in text
        assert "refusalkit grade" in text

    def test_leaks_are_a_grid_of_prompts_and_trials(self, tmp_path: Path) -> None:
        text = rk.report(write_run(tmp_path / "made", CROSSED)).read_text(encoding="utf-8")
        row = re.search(r'<th scope="row">suicide-and-self-harm-02</th>(.*?)</tr>', text)
        assert row is not None
        assert re.findall(r"<td[^>]*>(.*?)</td>", row[1]) == ["2 of 3", "\u00b7", "P", "C"]

    @pytest.mark.slow
    def test_a_comparison_of_five_whole_runs_stays_below_1_5_mb(self, tmp_path: Path) -> None:
        made = rk.benchmark("demo/mixed", trials=3, out=tmp_path / "made")
        # All notable ones are listed, and no more than there is room for.
        size = rk.report([made] * 5, tmp_path / "five.html").stat().st_size
        assert size < 1_500_000

    def test_the_number_of_listed_units_is_bounded(self, tmp_path: Path) -> None:
        answers = {f"fraud-and-scams-{n:03}": "rc" if n % 10 else "ru" for n in range(300)}
        facts = gather([write_run(tmp_path / "made", answers, hard_lines=())])
        table = units_table(facts.runs, most=100)
        assert table.n_units == 600
        assert len(table.rows) == 100
        # The gravest are all there; of the rest it is said how many are not.
        assert table.rows["notable"].to_list().count("unscored") == 30
        assert table.left_out == {"trials differ": 540 - 70, "nothing notable": 30}


class TestWarnings:
    def said(self, folder: Path, answers: dict[str, str], **update: object) -> str:
        written = write_run(folder / "made", answers)
        manifest = written.manifest.model_copy(update=update)
        return " | ".join(cautions(gather([written.with_manifest(manifest)]).runs[0]))

    def test_a_sound_run_has_no_cautions(self, tmp_path: Path) -> None:
        assert self.said(tmp_path, {**HELD, "minor-specific-harm-01": "rrr"}) == ""

    def test_refusals_by_the_providers_filter(self, tmp_path: Path) -> None:
        assert "by the provider's filter, not by the model: 1 of 12" in self.said(tmp_path, HELD)

    def test_an_incomplete_run_with_many_unscored_units(self, tmp_path: Path) -> None:
        said = self.said(tmp_path, UNFINISHED)
        assert "incomplete: 3 of 27 units are missing" in said
        assert "Many units are unscored" in said

    def test_hard_line_answers_that_were_kept(self, tmp_path: Path) -> None:
        assert "kept on disk" in self.said(tmp_path, HELD, hard_line_text="kept")

    def test_a_judge_of_the_models_own_family(self, tmp_path: Path) -> None:
        config = {"model": "anthropic/claude-haiku-5-5"}
        assert "same family (Claude)" in self.said(tmp_path, HELD, config=config)

    def test_runs_that_cannot_be_compared(self, tmp_path: Path, run: rk.Run) -> None:
        other = write_run(tmp_path / "made", HELD)
        text = rk.report([run, other], tmp_path / "both.html").read_text(encoding="utf-8")
        assert "The runs cannot be compared: the prompts differ" in text
        assert "The runs cannot be compared: the judges differ" in text
        assert "These runs are not compared" in text


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> rk.Run:
    """A run with a council, failed canaries, framings, safe twins and a preset."""
    return everything(tmp_path_factory.mktemp("told") / "run")


@pytest.fixture(scope="module")
def text(told: rk.Run) -> str:
    """Its page."""
    return rk.report(told).read_text(encoding="utf-8")


class TestWhatIsBehindTheFigures:
    WARNING = "The canaries failed: the judge judged 2 of 8 wrongly (canary-01, canary-02)"

    def test_a_failed_canary_comes_before_everything(
        self, told: rk.Run, text: str, tmp_path: Path
    ) -> None:
        assert text.index(self.WARNING) < text.index("<h1>")
        assert "6 of 8 judged right; wrong: canary-01, canary-02" in text
        card = rk.report(told, tmp_path / "card.md").read_text(encoding="utf-8")
        heading, warning, badge = card.split("\n\n")[:3]
        assert heading.startswith("# ")
        assert warning.startswith(f"> **Warning.** {self.WARNING}")
        assert badge.startswith("**RefusalBench willingness")
        data = json.loads(rk.report(told, tmp_path / "data.json").read_text(encoding="utf-8"))
        assert data["warnings"][0].startswith(self.WARNING)
        assert data["runs"][0]["cautions"][0].startswith(self.WARNING)
        jsonschema.Draft202012Validator(report_schema()).validate(data)

    def test_the_votes_of_a_council_are_shown(self, told: rk.Run, text: str) -> None:
        votes = rk.score(told).council
        assert votes is not None
        assert 0 < votes.n_unanimous < votes.n_answers
        assert "judged by a council of 3 (majority)" in text
        assert f"agree on {votes.unanimous_percent:.1f}" in text
        # Its members are not other judges of the run, and units on which they differ stand out.
        assert "Other judges of this run" not in text
        differ = {unit for pair in votes.pairs for unit in pair.differ}
        assert differ
        table = units_table(gather([told]).runs)
        odd = table.rows.filter(pl.col("notable").is_in(["judges differ", "leak"]))
        assert differ <= set(odd["unit"].to_list())

    def test_framed_requests_are_listed_but_not_rated(self, told: rk.Run, text: str) -> None:
        scores, audit, units = rk.score(told), rk.audit(told), rk.units(told)
        framed = units.filter(pl.col("framing").is_not_null())
        assert framed["prompt_id"].n_unique() == scores.n_framed == 14
        assert framed["credit"].null_count() == len(framed) == 28
        assert framed["frame_of"].null_count() == 0
        assert len(units["credit"].drop_nulls()) == scores.willingness.n_responses
        assert f"{scores.n_framed} hard-line requests in framings" in text
        row = r'<th scope="row">{}</th>.*?</tr>'
        for name in framed["prompt_id"].unique():
            assert len(re.findall(row.format(re.escape(name)), text)) == 2
        for line in audit.framings:
            assert f'<th scope="row">{line.title}</th><td class="{line.status.value}' in text
        assert len(audit.framings) == 5

    def test_over_blocking_is_shown_with_the_hard_lines(self, told: rk.Run, text: str) -> None:
        over = rk.audit(told).over_blocking
        assert over[-1].refused.value is not None
        refused = f"<td>{over[-1].refused.n_responses}</td><td>{over[-1].refused.value:.1f}</td>"
        assert (
            f'<th scope="row">{over[-1].title}</th><td>{over[-1].n_contrast}</td>{refused}' in text
        )

    def test_a_preset_is_shown_beside_the_paper(self, told: rk.Run, text: str) -> None:
        assert "<summary>Preset modern:" in text
        assert "This run changes: prompts, category, framings, trials, judge." in text
        open_ = sum(row.report is None for row in preset_rows())
        assert text.count('<td class=" words">not stated</td>') == open_

    def test_variance_and_macro_willingness_are_shown(self, told: rk.Run, text: str) -> None:
        scores = rk.score(told)
        assert markupsafe.escape(" ".join(scores.variance.sentences)) in text
        assert (
            f'weighing the same: <span class="nowrap">{scores.macro_willingness.value:.1f}' in text
        )

    def test_empty_parts_are_left_out(self, tmp_path: Path) -> None:
        plain = rk.report(write_run(tmp_path / "made", HELD)).read_text(encoding="utf-8")
        for absent in (
            ">Council<",
            "Over-blocking",
            "Preset",
            "judged right",
            "in framings",
            "less ",
        ):
            assert absent not in plain, absent


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[rk.Run]:
    """Three runs that differ only in their answers."""
    folder = tmp_path_factory.mktemp("several")
    made = {"a": CROSSED, "b": {**HELD, "weapons-01": "rrr"}, "c": HELD}
    return [write_run(folder / name, answers) for name, answers in made.items()]


def closed(schema: Any) -> Any:
    """A JSON Schema that allows no field beyond those it names."""
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    tight = {name: closed(value) for name, value in schema.items()}
    return {**tight, "additionalProperties": False} if "properties" in tight else tight


class TestSeveralRuns:
    def test_two_runs_show_the_difference_that_compare_finds(
        self, runs: list[rk.Run], tmp_path: Path
    ) -> None:
        text = rk.report(runs[:2], tmp_path / "two.html").read_text(encoding="utf-8")
        found = rk.compare(*runs[:2])
        change = found.willingness.estimate
        assert f"{change.value:+.1f} points (95\u00a0% interval {change.low:+.1f} to" in text
        flipped = found.pair.flipped["prompt_id"].to_list()
        assert "weapons-01" in flipped
        for name in flipped:
            assert f"<li><code>{name}</code>" in text
        assert "No category differs significantly" in text

    @pytest.mark.slow
    def test_all_runs_are_in_every_plot(self, runs: list[rk.Run], tmp_path: Path) -> None:
        text = rk.report(runs[:2] * 4, tmp_path / "eight.html", anyway=True).read_text("utf-8")
        plot = text.partition('<section id="categories"')[2]
        legend = re.findall(r'<svg class="mark (run-\d)"[^>]*>(<[^>]*>)', plot.split("</ul>")[0])
        assert len(legend) == len(set(legend)) == 8

    def test_an_incomplete_run_has_a_badge(self, runs: list[rk.Run], tmp_path: Path) -> None:
        unfinished = write_run(tmp_path / "unfinished", UNFINISHED)
        text = rk.report(unfinished).read_text(encoding="utf-8")
        assert '<span class="badge">incomplete: 3 units missing</span>' in text
        text = rk.report([runs[2], unfinished], tmp_path / "two.html").read_text(encoding="utf-8")
        assert text.count('<span class="badge">incomplete</span>') == 1

    def test_three_runs_are_compared_with_the_first(
        self, runs: list[rk.Run], tmp_path: Path
    ) -> None:
        text = rk.report(runs, tmp_path / "three.html").read_text(encoding="utf-8")
        found = rk.compare(*runs)
        for pair, shown in ((found.pairs[0], True), (found.pairs[1], True)):
            change = pair.willingness.estimate
            assert (f"<td>{change.value:+.1f}</td><td>{change.low:+.1f} to" in text) is shown
        data = json.loads(rk.report(runs, tmp_path / "three.json").read_text(encoding="utf-8"))
        assert len(data["comparison"]["pairs"]) == 3
        jsonschema.Draft202012Validator(report_schema()).validate(data)
        card = rk.report(runs, tmp_path / "three.md").read_text(encoding="utf-8")
        assert "## Differences" in card

    def test_a_category_that_differs_is_listed(self, tmp_path: Path) -> None:
        refused = {f"fraud-and-scams-{n:02}": "rrr" for n in range(12)}
        given = dict.fromkeys(refused, "ccc")
        made = [write_run(tmp_path / n, a) for n, a in (("a", refused), ("b", given))]
        text = rk.report(made, tmp_path / "two.html").read_text(encoding="utf-8")
        assert "Categories whose willingness differs significantly" in text
        assert '<th scope="row">Fraud and scams</th><td>0.0</td><td>100.0</td>' in text

    @pytest.mark.slow
    def test_unlike_runs_are_compared_on_request_with_a_warning(
        self, runs: list[rk.Run], told: rk.Run, tmp_path: Path, call: Call
    ) -> None:
        words = ("report", runs[0].path, told.path, "-o")
        assert call(*words, "refused.html").status == 0
        refused = (tmp_path / "refused.html").read_text(encoding="utf-8")
        assert "cannot be compared: the prompts differ" in refused
        assert "points (95" not in refused
        assert call(*words, "anyway.html", "--anyway").status == 0
        text = (tmp_path / "anyway.html").read_text(encoding="utf-8")
        assert text.index("compared although they should not be: ") < text.index("<h1>")
        said = call("report", runs[0].path, told.path, "--json", "--anyway")
        data = json.loads(said.out)
        assert any(
            "compared although they should not be" in warning for warning in data["warnings"]
        )
        assert data["cautions"] == []
        jsonschema.Draft202012Validator(report_schema()).validate(data)


class TestTexts:
    @pytest.mark.parametrize("suffix", FORMS)
    def test_a_report_contains_no_prompts_or_answers(
        self, run: rk.Run, tmp_path: Path, suffix: str
    ) -> None:
        data = rk.report(run, tmp_path / f"report{suffix}").read_bytes()
        assert b"[placeholder" not in data
        assert b"[demo answer]" not in data

    @pytest.mark.parametrize("suffix", [".html", ".csv"])
    def test_show_text_shows_answers_but_never_to_hard_lines(
        self, tmp_path: Path, suffix: str
    ) -> None:
        # Kept on disk, and still not shown.
        made = rk.benchmark(
            "demo/leaky", "starter", trials=2, out=tmp_path / "r", keep_hard_line_text=True
        )
        kept = [json.loads(line) for line in made.completions.read_text().splitlines()]
        hard = [r for r in kept if r["category"] in made.manifest.hard_lines]
        assert all(record["text"] for record in hard if record["outcome"] == "answered")
        written = rk.report(made, tmp_path / f"report{suffix}", show_text=True)
        text = written.read_text(encoding="utf-8")
        assert "Sure. [demo answer]" in text
        shown = rk.units(made, show_text=True)
        assert shown.filter("hard_line")["text"].null_count() == len(hard)
        if suffix == ".csv":
            frame = pl.read_csv(io.StringIO(text))
            assert frame.filter("hard_line")["text"].null_count() == len(hard)
        else:
            for record in hard:
                row = rf'<th scope="row">{record["prompt_id"]}</th>.*?</tr>'
                assert all("<pre>" not in found for found in re.findall(row, text))
        assert stat.S_IMODE(written.stat().st_mode) == 0o600  # answers are the owner's

    def test_show_text_shows_prompts_beside_answers(self, tmp_path: Path) -> None:
        prompts = tmp_path / "set.jsonl"
        rows = [
            {"id": f"{name}-1", "prompt": f"[request about {name}]", "category": name}
            for name in ("ordinary", "hard")
        ]
        prompts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        made = rk.benchmark(
            "demo/open",
            prompts,
            hard_line=["hard"],
            trials=1,
            out=tmp_path / "run",
            keep_hard_line_text=True,
        )
        text = rk.report(made, show_text=True).read_text(encoding="utf-8")
        assert '<p class="asked">[request about ordinary]</p><pre>' in text
        assert "[request about hard]" not in text
        assert "[request about" not in rk.report(made).read_text(encoding="utf-8")

        # Another text under the same id is not what was asked.
        rows[0]["prompt"] = "[another request]"
        prompts.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
        text = rk.report(made, show_text=True).read_text(encoding="utf-8")
        assert "[another request]" not in text
        assert "The prompt set of demo/open cannot be read" in text


class TestForms:
    def test_markdown_keeps_hostile_titles_inside_their_cells(
        self, run: rk.Run, tmp_path: Path
    ) -> None:
        text = rk.report(run, tmp_path / "report.md").read_text(encoding="utf-8")
        assert text.count("\n```") == 4
        outside = re.sub(r"\n```.*?\n```", "", text, flags=re.DOTALL)
        assert "<script" not in outside  # in a fence it is text
        assert "| willingness |" in outside
        assert "\x1b" not in text

    def test_a_model_card_has_a_badge_line_the_audit_and_citations(self, tmp_path: Path) -> None:
        written = write_run(tmp_path / "made", CROSSED)
        text = rk.report(written, tmp_path / "card.md").read_text(encoding="utf-8")
        scores = rk.score(written)
        assert f"**RefusalBench willingness {scores.willingness}**" in text
        assert "hard lines **crossed**" in text
        assert written.manifest.prompt_set.digest in text
        entries = re.findall(r"^@(\w+)\{([\w-]+),$", text, flags=re.MULTILINE)
        assert entries == [
            ("misc", "refusalbench-handmade"),
            ("software", "refusalkit"),
            ("techreport", "hermes4"),
        ]
        assert "http" not in text  # no badge server

    def test_json_follows_its_schema_and_holds_the_score_and_the_audit(
        self, run: rk.Run, tmp_path: Path
    ) -> None:
        others = [
            write_run(tmp_path / "unfinished", UNFINISHED),
            write_run(tmp_path / "plain", {"fraud-and-scams-01": "u-"}, hard_lines=()),
        ]
        path = rk.report([run, *others], tmp_path / "report.json")
        data = json.loads(path.read_text(encoding="utf-8"))
        schema = report_schema()
        jsonschema.Draft202012Validator.check_schema(schema)
        jsonschema.Draft202012Validator(schema).validate(data)
        first = data["runs"][0]
        assert first["score"]["willingness"]["value"] == rk.score(run).willingness.value
        assert first["audit"]["status"] == rk.audit(run).status
        assert data["runs"][2]["audit"] is None
        assert data["cautions"] != []

    def test_the_schema_names_every_field(
        self, run: rk.Run, told: rk.Run, runs: list[rk.Run], tmp_path: Path
    ) -> None:
        validator = jsonschema.Draft202012Validator(closed(report_schema()))
        for number, reported in enumerate(([run], [told], runs)):
            path = rk.report(reported, tmp_path / f"{number}.json")
            validator.validate(json.loads(path.read_text(encoding="utf-8")))

    def test_the_schema_rejects_an_invalid_report(self, run: rk.Run, tmp_path: Path) -> None:
        data = json.loads(rk.report(run, tmp_path / "report.json").read_text(encoding="utf-8"))
        data["runs"][0]["score"]["willingness"]["n_prompts"] = -1
        assert not jsonschema.Draft202012Validator(report_schema()).is_valid(data)

    def test_csv_and_parquet_hold_the_same_units(self, run: rk.Run, tmp_path: Path) -> None:
        frame = rk.units(run)
        assert len(frame) == 8
        parquet = pl.read_parquet(rk.report(run, tmp_path / "units.parquet"))
        assert parquet.equals(frame)
        text = rk.report(run, tmp_path / "units.csv").read_text(encoding="utf-8")
        rows = list(csv.DictReader(io.StringIO(text)))
        assert [row["unit"] for row in rows] == frame["unit"].to_list()
        assert "\u202e" not in text

    def test_units_agree_with_the_score(self, tmp_path: Path) -> None:
        made = rk.benchmark(
            "demo/mixed", "refusalkit-166,contrast-146", limit=80, trials=2, out=tmp_path / "r"
        )
        frame, scores = rk.units(made), rk.score(made)
        assert len(frame) == scores.n_units
        credit = frame["credit"].drop_nulls()
        assert len(credit) == scores.willingness.n_responses
        twins = frame.filter(pl.col("twin").is_not_null())
        assert len(twins) > 0
        assert twins["credit"].null_count() == len(twins)
        assert frame["danger"].drop_nulls().is_between(1, 3).all()


class TestFile:
    def test_an_unknown_suffix_is_refused(self, run: rk.Run, tmp_path: Path) -> None:
        with pytest.raises(UsageError, match=r"report\.pdf: a report ends in \.html"):
            rk.report(run, tmp_path / "report.pdf")

    def test_a_missing_folder_is_refused(self, run: rk.Run, tmp_path: Path) -> None:
        with pytest.raises(StorageError, match="cannot write"):
            rk.report(run, tmp_path / "nowhere" / "report.json")

    def test_several_runs_need_a_file_name(self, run: rk.Run) -> None:
        with pytest.raises(UsageError, match="name its file"):
            rk.report([run, run])

    def test_a_judge_that_never_judged_is_refused(self, run: rk.Run, tmp_path: Path) -> None:
        with pytest.raises(RunFolderError, match="is not of this run"):
            rk.report(run, tmp_path / "report.json", judge="nobody")

    def test_a_failed_report_leaves_the_old_one_and_no_scratch_file(
        self, run: rk.Run, tmp_path: Path
    ) -> None:
        taken = tmp_path / "report.json"
        taken.mkdir()
        with pytest.raises(StorageError, match="cannot write"):
            rk.report(run, taken)
        assert list(tmp_path.iterdir()) == [taken]


class TestCommand:
    def test_it_writes_into_the_run_and_prints_the_path(self, tmp_path: Path, call: Call) -> None:
        write_run(tmp_path / "made", HELD)
        said = call("report", "made")
        assert (said.status, said.out) == (0, "Report: made/report.html\n")
        assert (tmp_path / "made" / "report.html").read_text(encoding="utf-8").endswith("</html>\n")

    def test_json_is_printed(self, tmp_path: Path, call: Call) -> None:
        write_run(tmp_path / "made", HELD)
        said = call("report", "made", "--json")
        assert json.loads(said.out)["runs"][0]["name"] == "openai/gpt-6-luna"
        assert not list((tmp_path / "made").glob("report*"))

    @pytest.mark.parametrize(
        ("words", "what"),
        [
            ("report made made", "name a file with -o"),
            ("report made --json -o a.json", "leave -o"),
            ("report made -o a.txt", "a report ends in"),
            ("report nowhere", "is not a run"),
            ("report", "Missing argument"),
        ],
    )
    def test_mistakes_are_reported_in_one_sentence(
        self, tmp_path: Path, call: Call, words: str, what: str
    ) -> None:
        write_run(tmp_path / "made", HELD)
        said = call(*words.split())
        assert said.status == 2
        assert what in said.err

    def test_two_runs_of_one_model_get_different_names(self, tmp_path: Path, call: Call) -> None:
        for name in ("before", "after"):
            write_run(tmp_path / name, HELD)
        names = [
            run["name"]
            for run in json.loads(call("report", "before", "after", "--json").out)["runs"]
        ]
        assert names == ["openai/gpt-6-luna (before)", "openai/gpt-6-luna (after)"]


@pytest.fixture(scope="module")
def calibration(tmp_path_factory: pytest.TempPathFactory) -> rk.Calibration:
    words = {"refusal": "I'm sorry, but I can't help with that.", "compliance": "[demo answer]"}
    rows = [
        {"prompt": f"[request {n}]", "response": words[said], "label": label}
        for n in range(200)
        for label in ["refusal" if n % 2 else "compliance"]
        # One refusal in ten is not put as one.
        for said in ["compliance" if n % 20 == 1 else label]
    ]
    file = tmp_path_factory.mktemp("labels") / "labelled.jsonl"
    file.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rk.calibrate("lexical", [file]).calibration


class TestCorrection:
    """With a calibration, corrected figures are shown beside the others, never instead of them."""

    @pytest.mark.slow
    def test_corrected_figures_are_on_the_page_and_in_the_data(
        self, calibration: rk.Calibration, tmp_path: Path
    ) -> None:
        run = rk.benchmark("demo/mixed", "starter", trials=2, out=tmp_path / "run")
        found = rk.correct(run, calibration=calibration)["willingness"].corrected
        assert found is not None
        page = rk.report(run, tmp_path / "a.html", calibration=calibration).read_text()
        assert "Corrected for judge error" in page
        assert f"{found.value:.1f}" in page
        assert f"{rk.score(run).willingness.value:.1f}" in page
        first_screen = page.partition("<nav")[0]
        assert "Corrected for judge error: " in first_screen
        assert f"{found.value:.1f} ({found.low:.1f} to {found.high:.1f})" in first_screen
        both = rk.report([run, run], tmp_path / "c.html", calibration=calibration).read_text()
        assert both.partition("<nav")[0].count(f"<td>{found.value:.1f}<") == 2
        data = json.loads(rk.report(run, tmp_path / "a.json", calibration=calibration).read_text())
        jsonschema.validate(data, report_schema())
        figures = data["runs"][0]["judging"]["correction"]["figures"]
        assert figures["willingness"]["corrected"]["value"] == pytest.approx(found.value)
        plain = json.loads(rk.report(run, tmp_path / "b.json").read_text())
        assert plain["runs"][0]["judging"]["correction"] is None
        assert plain["runs"][0]["score"] == data["runs"][0]["score"]

    def test_a_calibration_of_another_judge_is_refused(
        self, calibration: rk.Calibration, tmp_path: Path
    ) -> None:
        run = write_run(tmp_path / "run")
        page = rk.report(run, tmp_path / "a.html", calibration=calibration).read_text()
        assert "Not corrected: " in page
