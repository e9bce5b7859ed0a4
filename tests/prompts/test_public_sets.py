"""The public sets: each reads its sample; each wrong shape or refusal ends in one sentence."""

from __future__ import annotations

import hashlib
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

import places
import refusalkit as rk
from commandline import Call
from places import ROOT
from refusalkit.errors import ConfigurationError, DownloadError, PromptSetError, UsageError
from refusalkit.prompts import fetch
from refusalkit.prompts.public import requested
from refusalkit.prompts.public_facts import FACTS, public_sets
from refusalkit.runs.imported.published_labels import label_sources
from webhost import COMMIT, Host, Page, serving

SAMPLES = places.SAMPLES / "public"
NAMES = sorted({known.name for known in public_sets().values() if known.variant_of is None})
# Every set in `make test-all`; one in four here, and each is read from its sample anyway.
A_FEW = [
    name if number % 4 == 0 else pytest.param(name, marks=pytest.mark.slow)
    for number, name in enumerate(NAMES)
]
# (prompts, categories, hard lines) of the samples.
EXPECTED = {
    "advbench": (2, 1, 0),
    "ailuminate": (3, 3, 2),
    "airbench": (2, 2, 0),
    "aya-redteaming": (2, 2, 0),
    "coconot": (2, 2, 0),
    "coconot-contrast": (2, 2, 0),
    "do-not-answer": (2, 2, 0),
    "falsereject": (2, 2, 0),
    "fortress": (2, 2, 0),
    "harmbench": (2, 2, 0),
    "jailbreakbench": (2, 2, 0),
    "jailbreakbench-benign": (2, 2, 0),
    "k-overrefusal": (3, 3, 2),
    "or-bench-80k": (3, 2, 0),
    "or-bench-hard-1k": (3, 2, 0),
    "or-bench-toxic": (3, 2, 0),
    "phtest": (2, 2, 0),
    "refusalbench": (5, 5, 3),
    "simple-safety-tests": (2, 2, 0),
    "sorry-bench": (2, 2, 0),
    "sosbench": (2, 2, 0),
    "speechmap": (2, 2, 0),
    "strongreject": (2, 2, 0),
    "xstest": (5, 5, 2),
}


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Host]:
    """Hub and GitHub in one, a cache of its own, no token."""
    with serving() as started:
        monkeypatch.setenv("HF_ENDPOINT", started.url)
        monkeypatch.setenv("REFUSALKIT_GITHUB_ENDPOINT", started.url)
        monkeypatch.setenv("REFUSALKIT_CACHE", str(tmp_path / "cache"))
        for name in ("HF_TOKEN", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(name, raising=False)
        yield started


def sample(name: str, folder: Path) -> Path:
    """The set's sample in the format that is published."""
    wanted = Path(public_sets()[name].files[0]).suffix
    found = next(SAMPLES.glob(f"{name}.*"))
    if wanted == found.suffix:
        return found
    assert wanted == ".parquet"
    made = folder / f"{name}.parquet"
    pl.read_ndjson(found).write_parquet(made)
    return made


def url_of(name: str, revision: str | None = None) -> str:
    facts = public_sets()[name]
    at = revision or facts.revision
    if facts.hub:
        return f"/datasets/{facts.hub}/resolve/{at}/{facts.files[0]}"
    return f"/{facts.github}/{at}/{facts.files[0]}"


def one_sentence(error: BaseException) -> str:
    text = str(error)
    assert "\n" not in text
    assert len(text) < 700
    return text


def test_every_set_has_a_sample_and_is_in_the_issue() -> None:
    assert sorted(EXPECTED) == NAMES
    asked = "refusalbench xstest or-bench or-bench-80k or-bench-hard-1k or-bench-toxic sorry-bench "
    asked += "strongreject harmbench do-not-answer coconot jailbreakbench advbench airbench "
    asked += "ailuminate falsereject speechmap fortress phtest simple-safety-tests sosbench "
    asked += "aya-redteaming k-overrefusal sorry-bench-slang airbench-l4 strongreject-small"
    assert set(asked.split()) <= set(public_sets())
    assert FACTS.suffix == ".toml"


@pytest.mark.parametrize("name", NAMES)
def test_each_set_reads_its_sample(name: str, tmp_path: Path) -> None:
    path = sample(name, tmp_path)
    loaded = rk.load_prompts(f"{name}:{path}")
    hard = sum(c.hard_line for c in loaded.categories)
    assert (len(loaded), len(loaded.categories), hard) == EXPECTED[name]
    assert all("placeholder" in p.text or p.text.startswith("[a, b]") for p in loaded.prompts)
    assert len({p.id for p in loaded.prompts}) == len(loaded)
    dataset = loaded.selection["dataset"]
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert dataset["files"] == {path.name: f"sha256:{digest}"}
    assert dataset["revision"] == "local"
    assert rk.load_prompts(str(loaded.source)).digest == loaded.digest


@pytest.mark.parametrize("name", A_FEW)
def test_each_set_is_fetched_once_and_kept_by_commit(
    name: str, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    facts = public_sets()[name]
    body = sample(name, tmp_path).read_bytes()
    if facts.sha256:  # the sample is not the published file
        digest = [hashlib.sha256(body).hexdigest()]
        changed = facts.model_copy(update={"sha256": digest})
        monkeypatch.setattr(
            "refusalkit.prompts.public.public_sets", lambda: {name: changed}, raising=True
        )
    host.pages[url_of(name)] = Page(body, headers={"X-Repo-Commit": COMMIT})
    loaded = rk.load_prompts(name)
    commit = facts.revision if fetch.COMMIT.fullmatch(facts.revision) else COMMIT
    assert loaded.source == f"{name}@{commit}"
    assert loaded.selection["dataset"]["revision"] == commit
    host.pages.clear()
    again = rk.load_prompts(name)
    assert again.digest == loaded.digest
    assert rk.load_prompts(str(loaded.source)).digest == loaded.digest
    assert len(host.asked) == 1
    left = [p for p in (tmp_path / "cache").rglob(".*") if p.is_file()]
    assert left == []


def test_the_docs_list_the_sets_as_they_are() -> None:
    text = (ROOT / "docs" / "public-sets.md").read_text(encoding="utf-8")
    for known in public_sets().values():
        if known.variant_of is not None:
            assert f"`{known.name}`" in text, known.name
            continue
        revision = known.revision[:12] if len(known.revision) == 40 else known.revision
        met = ", ".join(dict.fromkeys(one.date for one in known.met)) or "shape only"
        lines = "all" if known.refuse_all else len(known.hard_lines) or ""
        lines = "3" if known.inversions else lines
        row = (
            f"| `{known.name}` | {known.title} ({known.citation}) | {known.prompts or ''} | "
            f"{'Hub' if known.hub else 'GitHub'}: `{known.repository}` | `{revision}` | "
            f"{known.licence}{', gated' if known.gated else ''} | "
            f"{lines} | {met} |"
        )
        assert text.count(row) == 1, row
    assert text.count("| Hub: ") + text.count("| GitHub: ") == len(NAMES) + len(label_sources())


def test_the_docs_say_what_the_words_of_published_labels_are_taken_for() -> None:
    text = (ROOT / "docs" / "public-sets.md").read_text(encoding="utf-8")
    for source in label_sources().values():
        met = ", ".join(dict.fromkeys(one.date for one in source.met)) or "shape only"
        row = (
            f"| `{source.name}` | {source.title} ({source.citation}) | {source.answers_n or ''} | "
            f"{'Hub' if source.hub else 'GitHub'}: `{source.place.repository}` | "
            f"{source.licence}{', gated' if source.gated else ''} | {source.mapping} | {met} |"
        )
        assert text.count(row) == 1, row


def test_details_of_the_samples(tmp_path: Path) -> None:
    xstest = rk.load_prompts(f"xstest:{SAMPLES / 'xstest.csv'}")
    assert [p.id for p in xstest.prompts] == [f"xstest-{n}" for n in range(1, 6)]
    assert xstest.prompts[0].text == '[placeholder, with a "quoted" word]'
    assert xstest.prompts[1].text == "[placeholder\nof two lines]"
    assert xstest.hard_lines == {"contrast-homonyms", "contrast-privacy"}
    none = rk.load_prompts(f"xstest:{SAMPLES / 'xstest.csv'}", inversion="none")
    assert not none.hard_lines
    harm = rk.load_prompts(f"harmbench:{SAMPLES / 'harmbench.csv'}")
    assert harm.prompts[1].text == "[context\nof two lines]\n\n---\n\n[placeholder 2]"
    assert harm.selection["dataset"]["left_out"] == {"other rows": 1}
    sorry = rk.load_prompts(f"sorry-bench:{SAMPLES / 'sorry-bench.jsonl'}")
    assert [c.title for c in sorry.categories] == [
        "Personal Insulting Words",
        "Dangerous Machinery Operation Advice",
    ]
    assert sorry.selection["dataset"]["left_out"] == {"other rows": 1, "blank": 1}
    repeated = rk.load_prompts(f"or-bench:{SAMPLES / 'or-bench-80k.csv'}")
    assert [p.id for p in repeated.prompts] == ["deception-001", "self-harm-001", "deception-002"]
    bench = rk.load_prompts(f"refusalbench:{SAMPLES / 'refusalbench.jsonl'}")
    assert [p.danger for p in bench.prompts] == [1, 3, 2, None, 3]


def test_inversions_of_refusalbench() -> None:
    source = f"refusalbench:{SAMPLES / 'refusalbench.jsonl'}"
    paper = rk.load_prompts(source)
    assert paper.selection["inversion"] == {"list": "paper"}
    assert paper.hard_lines == {
        "minor-specific-harm",
        "exploitation-trafficking",
        "suicide-and-self-harm-instruction",
    }
    atropos = rk.load_prompts(source, inversion="atropos")
    assert atropos.hard_lines == {
        "exploitation-trafficking",
        "self-harm-and-dangerous-behavior",
        "suicide-and-self-harm-instruction",
    }
    assert paper.digest != atropos.digest
    assert not rk.load_prompts(source, inversion="none").hard_lines
    named = rk.load_prompts(source, hard_lines=["Privacy & Data"])
    assert named.hard_lines == {"privacy-data"}
    assert "inversion" not in named.selection
    chosen = paper.select(limit=3)
    assert chosen.selection["inversion"] == {"list": "paper"}
    assert chosen.selection["dataset"]["set"] == "refusalbench"


def rows(folder: Path, *titles: str) -> str:
    file = folder / "renamed.jsonl"
    lines = [
        {"prompt": f"[placeholder {n}]", "overarching_category": title, "danger": None}
        for n, title in enumerate(titles)
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return f"refusalbench:{file}"


def test_an_inversion_that_matches_nothing_stops(tmp_path: Path) -> None:
    source = rows(tmp_path, "Privacy", "Trade & Commerce")
    with pytest.raises(UsageError, match="matches no category") as stopped:
        rk.load_prompts(source)
    text = one_sentence(stopped.value)
    assert "Privacy; Trade & Commerce" in text
    assert "--hard-line" in text
    assert len(rk.load_prompts(source, inversion="none")) == 2
    assert rk.load_prompts(source, hard_lines=["Privacy"]).hard_lines == {"privacy"}


def test_an_inversion_that_matches_in_part_says_so(tmp_path: Path, call: Call) -> None:
    source = rows(tmp_path, "Privacy", "MINOR SPECIFIC HARM")
    loaded = rk.load_prompts(source)
    assert loaded.hard_lines == {"minor-specific-harm"}
    missing = ["Exploitation & human trafficking", "Suicide/self-harm"]
    assert loaded.selection["inversion"] == {"list": "paper", "not_found": missing}
    done = call("run", "demo/mixed", "--prompts", source, "--trials", 1, "--out", "run")
    assert done.status == 0
    said = " ".join(done.out.split())
    assert "Inverted categories: the paper's (not in the set: Exploitation" in said
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_bytes())
    assert manifest["prompt_set"]["selection"]["inversion"]["not_found"] == missing
    data = json.loads(call("score", "run", "--json").out)
    assert data["prompt_set"]["inversion"]["list"] == "paper"
    resumed = call("resume", "run", "--inversion", "none")
    assert resumed.status == 4
    assert "inversion is" in resumed.err
    assert call("resume", "run").status == 0


def test_inversion_is_part_of_the_configuration(tmp_path: Path, call: Call) -> None:
    source = f"refusalbench:{SAMPLES / 'refusalbench.jsonl'}"
    words = ["run", "demo/mixed", "--prompts", source, "--trials", 1]
    assert call(*words, "--out", "a", "--inversion", "atropos").status == 0
    manifest = json.loads((tmp_path / "a" / "manifest.json").read_bytes())
    assert manifest["config"]["inversion"] == "atropos"
    assert call("resume", "a").status == 0
    assert "the reference environment's" in call("score", "a").out
    report = call("report", "a", "-o", "a.md")
    if report.status == 0:
        assert "reference environment" in (tmp_path / "a.md").read_text(encoding="utf-8")
    refused = call("run", "demo/mixed", "--prompts", "starter", "--inversion", "paper")
    assert refused.status == 2
    assert "is for refusalbench" in refused.err


def test_a_set_without_lists_takes_only_none(tmp_path: Path) -> None:
    source = f"xstest:{SAMPLES / 'xstest.csv'}"
    with pytest.raises(UsageError, match="no inversion list paper; it has: none") as stopped:
        rk.load_prompts(source, inversion="paper")
    one_sentence(stopped.value)


def write(folder: Path, name: str, text: str | bytes) -> Path:
    file = folder / name
    file.write_bytes(text.encode() if isinstance(text, str) else text)
    return file


WRONG = {
    "a missing column": ("x.csv", "id,prompt\n1,[p]\n", "no column type (it has: id, prompt)"),
    "a renamed category": ("x.csv", "id,prompt,type\n1,[p],novel\n", "novel is not a category of"),
    "an empty file": ("x.csv", "", "is empty"),
    "no rows": ("x.csv", "id,prompt,type\n", "holds no prompts"),
    "a web page": ("x.csv", "\n<!DOCTYPE html><html></html>", "is a web page"),
    "broken quotes": ("x.csv", 'id,prompt,type\n1,"[p],homonyms\n', "CSV"),
    "no category": ("x.csv", "id,prompt,type\n1,[p],\n", "the category is empty"),
    "not UTF-8": ("x.csv", b"id,prompt,type\n1,[p\xff],homonyms\n", "CSV"),
    "no parquet": ("x.parquet", "id,prompt,type\n", "cannot be read as PARQUET"),
    "broken JSON": ("x.jsonl", '{"id": 1\n', "is not JSON"),
    "a column that is not there": ("x.jsonl", '{"id": 1, "prompt": "[p]"}\n', "no column type"),
    "a prompt that is not text": ("x.jsonl", '{"id":1,"prompt":7,"type":"homonyms"}\n', "not text"),
    "another kind of file": ("x.txt", "text", "is not a .jsonl"),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_shape_is_one_sentence(case: str, tmp_path: Path) -> None:
    name, text, expected = WRONG[case]
    file = write(tmp_path, name, text)
    with pytest.raises(PromptSetError) as stopped:
        rk.load_prompts(f"xstest:{file}")
    assert expected in one_sentence(stopped.value)


def test_turns_of_another_shape(tmp_path: Path) -> None:
    line = {"category": "1", "turns": ["[a]", "[b]"], "prompt_style": "base"}
    file = write(tmp_path, "q.jsonl", json.dumps(line))
    with pytest.raises(PromptSetError, match="not a list of one user turn"):
        rk.load_prompts(f"sorry-bench:{file}")


def test_a_file_that_is_not_there(tmp_path: Path, call: Call) -> None:
    done = call("prompts", "show", "xstest:nowhere.csv")
    assert done.status == 2
    assert "cannot be read: No such file" in done.err
    for source in ("xstest:", "xstest@"):
        assert call("prompts", "show", source).status == 2
    assert call("prompts", "show", "xstest@a b").status == 2
    assert "xstest" in call("prompts", "show", "no-such-set").err


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_set(status: int, host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    host.pages[url_of("sorry-bench")] = Page(b"Access is restricted", status)
    with pytest.raises(DownloadError, match="set HF_TOKEN to a token") as stopped:
        rk.load_prompts("sorry-bench")
    assert "huggingface.co/datasets/sorry-bench" in one_sentence(stopped.value)
    monkeypatch.setenv("HF_TOKEN", "hf_placeholderplaceholder")
    with pytest.raises(DownloadError, match="the token in HF_TOKEN may not") as stopped:
        rk.load_prompts("sorry-bench")
    assert "placeholder" not in str(stopped.value)
    assert host.asked[-1][1] == "Bearer hf_placeholderplaceholder"
    assert host.asked[0][1] is None


def test_the_token_opens_a_gated_set_and_goes_nowhere_else(
    host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_placeholderplaceholder")
    body = sample("sorry-bench", tmp_path).read_bytes()
    with serving() as storage:
        storage.pages["/file"] = Page(body)
        moved = {"Location": "/renamed", "X-Repo-Commit": COMMIT}
        host.pages[url_of("sorry-bench")] = Page(status=307, headers=moved)
        host.pages["/renamed"] = Page(status=302, headers={"Location": f"{storage.url}/file"})
        loaded = rk.load_prompts("sorry-bench")
        assert storage.asked == [("/file", None)]
    assert [token for _, token in host.asked] == ["Bearer hf_placeholderplaceholder"] * 2
    assert loaded.source == f"sorry-bench@{COMMIT}"
    for file in (tmp_path / "cache").rglob("*"):
        if file.is_file():
            assert b"hf_placeholder" not in file.read_bytes()
    host.asked.clear()
    with pytest.raises(DownloadError):
        rk.load_prompts("xstest")
    assert host.asked == [(url_of("xstest"), None)]


def test_an_invalid_token_is_refused(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_place\nholder")
    with pytest.raises(ConfigurationError, match="HF_TOKEN holds") as stopped:
        rk.load_prompts("sorry-bench")
    assert "hf_place" not in str(stopped.value)
    assert not host.asked


REFUSED = {
    "moved": (Page(status=404), "not there any more"),
    "too often": (Page(status=429), "asked too often"),
    "broken": (Page(status=503), "try again later"),
    "a web page": (Page(b"<!doctype html><title>Log in</title>"), "sent a web page"),
    "empty": (Page(), "is empty"),
    "short": (Page(b"id,prompt\n", length=100), "came short"),
    "too large by its header": (Page(b"x", length=10**12), "is larger than"),
    "too large": (Page(b"x" * 5000), "is larger than"),
    "in a circle": (Page(status=302, headers={"Location": "/circle"}), "HTTP 302"),
    "elsewhere": (Page(status=302, headers={"Location": "file:///etc/hosts"}), "HTTP 302"),
    "in the clear": (
        Page(status=302, headers={"Location": "http://plain.invalid/x"}),
        "a redirect does not lead to https",
    ),
    "slow": (Page(b"x" * 10, drip_s=1.0), "no answer within 0.3 s"),
    "another file": (Page(b"id,prompt,type\n"), "is not the file that refusalkit knows"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_a_server_may_do_is_one_sentence(
    case: str, host: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page, expected = REFUSED[case]
    monkeypatch.setattr(fetch, "MAX_BYTES", 4000)
    monkeypatch.setattr(fetch, "TIMEOUT_S", 0.3)
    host.pages[url_of("xstest")] = page
    host.pages["/circle"] = Page(status=302, headers={"Location": "/circle"})
    with pytest.raises(DownloadError) as stopped:
        rk.load_prompts("xstest")
    text = one_sentence(stopped.value)
    assert expected in text
    assert "xstest:FILE" in text or case == "short"
    # Nothing half-fetched is left, nor taken for the set next time.
    assert [p for p in (tmp_path / "cache").rglob("*") if p.is_file()] == []


def test_no_network(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: Call) -> None:
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("REFUSALKIT_CACHE", str(tmp_path / "cache"))
    done = call("run", "demo/mixed", "--prompts", "refusalbench")
    assert done.status == 4
    assert "cannot be fetched" in done.err
    assert "refusalbench:FILE" in done.err
    assert not (tmp_path / "runs").exists()
    monkeypatch.setenv("HF_ENDPOINT", "not a url")
    assert "HF_ENDPOINT is not a URL" in call("prompts", "show", "refusalbench").err


def test_another_revision_is_another_file(host: Host, tmp_path: Path) -> None:
    body = sample("xstest", tmp_path).read_bytes()
    host.pages[url_of("xstest", "v2")] = Page(body)
    loaded = rk.load_prompts("xstest@v2")
    # GitHub names no commit: the digest stands for it.
    assert str(loaded.source).startswith("xstest@sha256-")
    assert rk.load_prompts(str(loaded.source)).digest == loaded.digest
    assert rk.load_prompts("xstest@v2").source == loaded.source
    assert host.paths == [url_of("xstest", "v2")]


def test_a_changed_copy_in_the_cache_is_fetched_again(host: Host, tmp_path: Path) -> None:
    facts = public_sets()["coconot-contrast"]
    host.pages[url_of("coconot-contrast")] = Page(sample("coconot-contrast", tmp_path).read_bytes())
    place = facts.place("coconot-contrast")
    good = fetch.fetch(place, facts.files[0])
    good.path.write_bytes(b"changed")
    assert fetch.fetch(place, facts.files[0], good.sha256).sha256 == good.sha256
    assert len(host.asked) == 2


def test_a_set_without_a_pinned_digest_stays_what_was_fetched_first(
    host: Host, tmp_path: Path
) -> None:
    body = sample("xstest", tmp_path).read_bytes()
    revision = "1" * 40
    host.pages[url_of("xstest", revision)] = Page(body)
    rk.load_prompts(f"xstest@{revision}")
    files = filter(Path.is_file, (tmp_path / "cache").rglob("*"))
    (kept,) = (path for path in files if path.read_bytes() == body)
    kept.write_bytes(b"changed")
    with pytest.raises(DownloadError, match="is not what was fetched first"):
        rk.load_prompts(f"xstest@{revision}")
    # Nor may the server say something else under the same revision.
    kept.unlink()
    host.pages[url_of("xstest", revision)] = Page(body + b"\n")
    with pytest.raises(DownloadError, match="though its revision 111111111111 is the same"):
        rk.load_prompts(f"xstest@{revision}")
    assert not kept.exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_cache_that_cannot_be_written(host: Host, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir(mode=0o500)
    with pytest.raises(rk.RefusalkitError, match="REFUSALKIT_CACHE"):
        rk.load_prompts("xstest")


def test_a_cache_that_is_a_file(host: Host, tmp_path: Path) -> None:
    (tmp_path / "cache").write_text("")
    with pytest.raises(rk.RefusalkitError, match="REFUSALKIT_CACHE") as stopped:
        rk.load_prompts("xstest")
    one_sentence(stopped.value)


def test_where_the_cache_is(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("REFUSALKIT_CACHE", "here")
    assert fetch.cache_folder() == Path("here")
    monkeypatch.delenv("REFUSALKIT_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert fetch.cache_folder() == tmp_path / "refusalkit"
    monkeypatch.delenv("XDG_CACHE_HOME")
    assert fetch.cache_folder().name == "refusalkit"


def test_what_names_a_public_set() -> None:
    named = requested("or-bench@main")
    assert named is not None
    assert (named.facts.name, named.revision) == ("or-bench-hard-1k", "main")
    file = requested("xstest:a:b@c.csv")
    assert file is not None
    assert file.file == Path("a:b@c.csv")
    for other in ("", "starter", "./xstest", "xstest/a.csv", "xstest.csv", "XSTEST"):
        assert requested(other) is None


class TestLayouts:
    """A set is read in each form that people have of it."""

    OLD = (
        "id_v1,id_v2,type,prompt,focus,note\n"
        "v1-1,v2-1,homonyms,[placeholder 1],word,\n"
        "v1-2,v2-2,contrast_homonyms,[placeholder 2],word,\n"
    )

    def test_xstest_of_2023_has_its_own_file_and_columns(self, host: Host) -> None:
        commit = "a3bb396ddc1939c6f264f17b7cf5b7a5d82833de"
        url = f"/paul-rottger/xstest/{commit}/xstest_v2_prompts.csv"
        host.pages[url] = Page(self.OLD.encode())
        with pytest.raises(DownloadError, match="not the file that refusalkit knows"):
            rk.load_prompts("xstest@a3bb396")  # the placeholders are not what was published
        assert [path for path, _ in host.asked] == [url]

    def test_a_copy_is_read_by_the_columns_it_has(self, tmp_path: Path) -> None:
        old = tmp_path / "xstest_v2_prompts.csv"
        old.write_text(self.OLD)
        loaded = rk.load_prompts(f"xstest:{old}")
        assert [prompt.id for prompt in loaded] == ["v2-1", "v2-2"]
        assert loaded.hard_lines == {"contrast-homonyms"}

    def test_a_copy_without_ids_is_numbered_within_its_categories(self, tmp_path: Path) -> None:
        path = tmp_path / "xstest.parquet"
        columns = {"prompt": ["[placeholder 1]", "[placeholder 2]"], "type": ["homonyms"] * 2}
        pl.DataFrame({**columns, "label": ["safe"] * 2}).write_parquet(path)
        loaded = rk.load_prompts(f"xstest:{path}")
        assert [prompt.id for prompt in loaded] == ["homonyms-001", "homonyms-002"]

    def test_a_revision_in_many_files_is_read_whole_and_in_order(self, host: Host) -> None:
        commit = "976d9fbb0f52bce704dcbef5bd7a2652e65f2a21"
        base = "/datasets/stanford-crfm/air-bench-2024/resolve"
        listed = [{"type": "file", "path": f"category_{n}.csv"} for n in (10, 2, 1)]
        listed.append({"type": "file", "path": "README.md"})
        tree = f"/api/datasets/stanford-crfm/air-bench-2024/tree/{commit}?recursive=true"
        host.pages[tree] = Page(json.dumps(listed).encode())
        for n in (1, 2, 10):
            row = f"l2-name,l3-name,l4-name,prompt\n[two],[three],[four],[placeholder {n}]\n"
            host.pages[f"{base}/{commit}/category_{n}.csv"] = Page(row.encode())
        loaded = rk.load_prompts("airbench@976d9fb")
        assert [prompt.text for prompt in loaded] == [f"[placeholder {n}]" for n in (1, 2, 10)]
        assert [category.title for category in loaded.categories] == ["[two]"]
        assert len(loaded.selection["dataset"]["files"]) == 3
        by_level = rk.load_prompts("airbench-l4@976d9fb")
        assert [category.title for category in by_level.categories] == ["[four]"]
        host.pages.clear()
        assert rk.load_prompts(str(loaded.source)).digest == loaded.digest

    def test_a_branch_of_uploaded_files_is_found_under_its_name(self, host: Host) -> None:
        tree = "/api/datasets/NousResearch/RefusalDataset/tree/main?recursive=true"
        host.pages[tree] = Page(json.dumps([{"type": "file", "path": "prompts.jsonl"}]).encode())
        body = (SAMPLES / "refusalbench.jsonl").read_bytes()
        url = "/datasets/NousResearch/RefusalDataset/resolve/main/prompts.jsonl"
        host.pages[url] = Page(body, headers={"X-Repo-Commit": COMMIT})
        assert len(rk.load_prompts("refusalbench@main")) == 5

    def test_all_files_of_a_branch_are_of_the_commit_of_the_first(self, host: Host) -> None:
        """Whoever publishes it changes it while it is fetched, and afterwards."""
        base = "/datasets/stanford-crfm/air-bench-2024/resolve"
        tree = "/api/datasets/stanford-crfm/air-bench-2024/tree"
        names = [f"category_{n}.csv" for n in (1, 2)]
        listed = json.dumps([{"type": "file", "path": name} for name in names]).encode()
        host.pages[f"{tree}/main?recursive=true"] = Page(listed)
        head = "l2-name,l3-name,l4-name,prompt\n[two],[three],[four],"
        for name in names:
            row = f"{head}[{name} as it was]\n".encode()
            host.pages[f"{base}/{COMMIT}/{name}"] = Page(row)
            later = Page(f"{head}[changed]\n".encode(), headers={"X-Repo-Commit": "f" * 40})
            host.pages[f"{base}/main/{name}"] = later
        as_it_was = host.pages[f"{base}/{COMMIT}/{names[0]}"].body
        host.pages[f"{base}/main/{names[0]}"] = Page(as_it_was, headers={"X-Repo-Commit": COMMIT})
        loaded = rk.load_prompts("airbench@main")
        assert [prompt.text for prompt in loaded] == [f"[{name} as it was]" for name in names]
        # The list of files is asked for again, and is that commit's too.
        host.pages[f"{tree}/main?recursive=true"] = Page(b"[]")
        host.pages[f"{tree}/{COMMIT}?recursive=true"] = Page(listed)
        assert rk.load_prompts("airbench@main").digest == loaded.digest

    def test_an_invalid_list_gives_one_sentence(self, host: Host) -> None:
        tree = "/api/datasets/NousResearch/RefusalDataset/tree/main?recursive=true"
        host.pages[tree] = Page(b'{"error": "no"}')
        with pytest.raises(DownloadError) as stopped:
            rk.load_prompts("refusalbench@main")
        assert "is not a list of files" in one_sentence(stopped.value)

    def test_sorry_bench_of_2024_is_not_read_with_the_titles_of_2025(self, tmp_path: Path) -> None:
        path = tmp_path / "question.jsonl"
        rows = [
            {
                "question_id": n,
                "category": str(n),
                "turns": ["[placeholder]"],
                "prompt_style": "base",
            }
            for n in (1, 45)
        ]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        with pytest.raises(PromptSetError) as stopped:
            rk.load_prompts(f"sorry-bench:{path}")
        assert "45 is not a category of SORRY-Bench 2025/03, which has 44" in str(stopped.value)


class TestVariants:
    def test_each_names_what_differs_from_its_set(self) -> None:
        sets = public_sets()
        variants = {name: known for name, known in sets.items() if known.variant_of}
        assert len(variants) >= 40
        for name, known in variants.items():
            whole = sets[str(known.variant_of)]
            differs = (known.files, known.where, known.columns) != (
                whole.files,
                whole.where,
                whole.columns,
            )
            assert differs, name
            assert known.licence == whole.licence

    def test_a_mutation_of_sorry_bench_goes_by_name(self) -> None:
        loaded = rk.load_prompts(f"sorry-bench-slang:{SAMPLES / 'sorry-bench.jsonl'}")
        assert [prompt.text for prompt in loaded] == ["[placeholder 1, reworded]"]

    def test_the_benign_half_of_fortress_is_not_to_be_refused(self) -> None:
        path = SAMPLES / "fortress.jsonl"
        adversarial = rk.load_prompts(f"fortress:{path}")
        benign = rk.load_prompts(f"fortress-benign:{path}")
        assert [c.title for c in adversarial.categories] == ["[title one]", "[title two]"]
        assert adversarial.selection["dataset"]["refuse_all"] is True
        assert "refuse_all" not in benign.selection["dataset"]
        assert [p.text for p in benign] == ["[placeholder 1, benign]", "[placeholder 2, benign]"]

    def test_a_set_is_read_in_another_language(self, host: Host) -> None:
        body = (SAMPLES / "aya-redteaming.jsonl").read_bytes()
        url = "/datasets/CohereLabs/aya_redteaming/resolve/main/aya_fra.jsonl"
        host.pages[url] = Page(body, headers={"X-Repo-Commit": COMMIT})
        loaded = rk.load_prompts("aya-redteaming", lang="fr")
        assert loaded.name == "aya-redteaming-fr"
        assert {prompt.lang for prompt in loaded} == {"fr"}
        assert [c.title for c in loaded.categories] == ["[harm, one]", "[harm two]"]
        assert rk.load_prompts(str(loaded.source), lang="fr").digest == loaded.digest
        with pytest.raises(UsageError, match="is not published in ja: it has ar, en"):
            rk.load_prompts("aya-redteaming", lang="ja")

    def test_other_sets_keep_their_prompts_in_a_language(self, tmp_path: Path) -> None:
        path = tmp_path / "own.jsonl"
        rows = [("a", "en"), ("b", "pt-BR"), ("c", "pt")]
        path.write_text(
            "".join(
                json.dumps({"id": i, "prompt": f"[{i}]", "category": "c", "lang": lang}) + "\n"
                for i, lang in rows
            )
        )
        assert [p.id for p in rk.load_prompts(path, lang="pt")] == ["b", "c"]
        with pytest.raises(UsageError, match="own has no prompt in de: it has en, pt, pt-BR"):
            rk.load_prompts(path, lang="de")


class TestPartsAndMistakes:
    def test_the_safe_half_of_xstest_is_a_set_of_its_own(self, call: Call, tmp_path: Path) -> None:
        half = tmp_path / "safe.csv"
        half.write_text("id,prompt,type,label,focus,note\n1,[placeholder],homonyms,safe,w,\n")
        loaded = rk.load_prompts(f"xstest:{half}")
        assert not loaded.hard_lines
        said = call("prompts", "validate", f"xstest:{half}")
        assert said.status == 0, said.err
        text = " ".join(said.out.split())
        assert "xstest: this copy has 1 prompts, fewer than the 450 published" in text
        assert "xstest: this copy has none of the set's hard-line categories" in text

    def test_a_list_that_was_asked_for_and_matches_nothing_stops(self, tmp_path: Path) -> None:
        path = tmp_path / "part.jsonl"
        path.write_text('{"prompt": "[placeholder]", "overarching_category": "Other"}\n')
        for inversion in (None, "paper"):
            with pytest.raises(UsageError, match="matches no category"):
                rk.load_prompts(f"refusalbench:{path}", inversion=inversion)

    @pytest.mark.parametrize(
        ("danger", "is_one"),
        [("2", 2), (3, 3), ("High", 3), (None, None), ("", None), ("severe", ""), (0, ""), (4, "")],
    )
    def test_a_danger_is_one_or_a_mistake(
        self, danger: object, is_one: object, tmp_path: Path
    ) -> None:
        path = tmp_path / "x.jsonl"
        row = {"prompt": "[placeholder]", "overarching_category": "Privacy", "danger": danger}
        path.write_text(json.dumps(row) + "\n")
        if is_one != "":
            (prompt,) = rk.load_prompts(f"refusalbench:{path}", inversion="none")
            assert prompt.danger == is_one
            return
        with pytest.raises(PromptSetError) as stopped:
            rk.load_prompts(f"refusalbench:{path}", inversion="none")
        assert "x.jsonl:1: danger:" in one_sentence(stopped.value)

    def test_a_copy_without_the_column_has_no_danger(self, tmp_path: Path) -> None:
        path = tmp_path / "x.csv"
        path.write_text("prompt,overarching_category\n[placeholder],Privacy\n")
        (prompt,) = rk.load_prompts(f"refusalbench:{path}", inversion="none")
        assert prompt.danger is None

    @pytest.mark.parametrize("turns", [None, [], [None], [""]])
    def test_a_row_without_turns_is_left_out_and_counted(
        self, turns: object, tmp_path: Path
    ) -> None:
        path = tmp_path / "x.jsonl"
        rows = [{"category": "1", "turns": t, "prompt_style": "base"} for t in (["[p]"], turns)]
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        loaded = rk.load_prompts(f"sorry-bench:{path}")
        assert len(loaded) == 1
        assert loaded.selection["dataset"]["left_out"] == {"blank": 1}


class TestSetsTogether:
    def test_the_benign_and_the_harmful_of_one_set_are_told_apart(self) -> None:
        both = rk.load_prompts(
            f"jailbreakbench:{SAMPLES / 'jailbreakbench.csv'},"
            f"jailbreakbench-benign:{SAMPLES / 'jailbreakbench-benign.csv'}",
            hard_lines=["jailbreakbench-harassment-discrimination"],
        )
        assert len(both) == 4
        assert both.hard_lines == {"jailbreakbench-harassment-discrimination"}
        assert {c.slug.startswith("jailbreakbench-") for c in both.categories} == {True}
        assert len({prompt.id for prompt in both}) == 4

    def test_nothing_is_renamed_where_nothing_clashes(self) -> None:
        both = rk.load_prompts(
            f"or-bench:{SAMPLES / 'or-bench-hard-1k.csv'},advbench:{SAMPLES / 'advbench.csv'}"
        )
        assert "deception-001" in both
        assert {c.slug for c in both.categories} == {"deception", "self-harm", "harmful-behaviours"}

    def test_the_hard_and_the_toxic_of_or_bench_stand_side_by_side(self, tmp_path: Path) -> None:
        toxic = tmp_path / "or-bench-toxic.csv"
        text = (SAMPLES / "or-bench-toxic.csv").read_text(encoding="utf-8")
        toxic.write_text(text.replace("placeholder", "other placeholder"), encoding="utf-8")
        both = rk.load_prompts(
            f"or-bench:{SAMPLES / 'or-bench-hard-1k.csv'},or-bench-toxic:{toxic}",
            hard_lines=["or-bench-toxic-deception"],
        )
        assert "or-bench-hard-1k/deception-001" in both
        assert "or-bench-toxic/deception-001" in both
        titles = {c.slug: c.title for c in both.categories}
        assert titles["or-bench-toxic-deception"] == "or-bench-toxic: deception"
        assert both.hard_lines == {"or-bench-toxic-deception"}

    def test_a_twin_follows_the_prompt_that_it_names(self, tmp_path: Path) -> None:
        def table(name: str, *rows: dict[str, str]) -> str:
            path = tmp_path / name
            path.write_text("".join(json.dumps({"category": "c", **row}) + "\n" for row in rows))
            return str(path)

        one = table("one.jsonl", {"id": "a", "prompt": "[one]"})
        two = table("two.jsonl", {"id": "a", "prompt": "[two]"})
        twin = table("twin.jsonl", {"id": "t", "prompt": "[safe]", "twin": "a"})
        assert [p.id for p in rk.load_prompts(f"{one},{two}")] == ["one/a", "two/a"]
        again = table("again.jsonl", {"id": "a", "prompt": "[one]"})
        with pytest.raises(PromptSetError, match="id: is in one and in again"):
            rk.load_prompts(f"{one},{again}")
        (_, safe) = rk.load_prompts(f"{one},{twin}")
        assert safe.twin == "a"

    def test_a_translation_follows_the_prompt_that_it_names(self, tmp_path: Path) -> None:
        for name, said in (("one", "[one]"), ("two", "[two]")):
            rows = [
                {"id": "a", "prompt": said, "category": "c"},
                {"id": "b", "prompt": f"{said} de", "lang": "de", "translation_of": "a"},
            ]
            lines = "".join(json.dumps({"category": "c", **row}) + "\n" for row in rows)
            (tmp_path / f"{name}.jsonl").write_text(lines)
        both = rk.load_prompts(f"{tmp_path / 'one.jsonl'},{tmp_path / 'two.jsonl'}")
        assert both["one/b"].translation_of == "one/a"
        assert both["two/b"].translation_of == "two/a"

    def test_two_sets_of_one_name_are_numbered(self, tmp_path: Path) -> None:
        for folder, text in (("x", "[one]"), ("y", "[two]")):
            (tmp_path / folder).mkdir()
            row = {"id": "a", "prompt": text, "category": "c"}
            (tmp_path / folder / "set.jsonl").write_text(json.dumps(row) + "\n")
        both = rk.load_prompts(f"{tmp_path / 'x' / 'set.jsonl'},{tmp_path / 'y' / 'set.jsonl'}")
        assert [prompt.id for prompt in both] == ["set/a", "set-2/a"]


class TestAllToBeRefused:
    @pytest.mark.parametrize(
        "name",
        ["advbench", "harmbench", "strongreject", "sorry-bench", "airbench", "or-bench-toxic"],
    )
    def test_these_sets_say_so(self, name: str) -> None:
        assert public_sets()[name].refuse_all

    def test_a_score_says_what_its_willingness_is(self, call: Call, tmp_path: Path) -> None:
        source = f"advbench:{SAMPLES / 'advbench.csv'}"
        options = ("--trials", 1, "--judge", "lexical", "--out", str(tmp_path / "run"))
        ran = call("run", "demo/cautious", "--prompts", source, *options)
        assert ran.status == 0, ran.err
        said = " ".join(ran.out.split())
        assert "every request of this set should be refused" in said
        assert "willingness is the share of harmful requests that were answered" in said
        options = ("--trials", 1, "--judge", "lexical", "--hard-line", "all")
        said = " ".join(call("run", "demo/cautious", "--prompts", source, *options).out.split())
        assert "Every prompt is on a hard line: willingness is the share that was refused." in said

    def test_the_audit_takes_every_category_as_a_hard_line(
        self, call: Call, tmp_path: Path
    ) -> None:
        source = f"advbench:{SAMPLES / 'advbench.csv'}"
        for model, status in (("demo/cautious", 0), ("demo/open", 1)):
            out = str(tmp_path / model.replace("/", "-"))
            options = ("--trials", 1, "--judge", "lexical", "--out", out)
            assert call("run", model, "--prompts", source, *options).status == 0
            audited = call("audit", out, "--json")
            assert audited.status == status, (model, audited.err)
            found = json.loads(audited.out)
            assert found["overall"]["n_prompts"] == 2

    def test_all_marks_every_category(self) -> None:
        loaded = rk.load_prompts(f"harmbench:{SAMPLES / 'harmbench.csv'}", hard_lines=["all"])
        assert len(loaded.hard_lines) == len(loaded.categories) == 2

    def test_a_set_with_an_ordinary_part_has_nothing_to_audit(
        self, call: Call, tmp_path: Path
    ) -> None:
        source = f"advbench:{SAMPLES / 'advbench.csv'},coconot:{SAMPLES / 'coconot.jsonl'}"
        out = str(tmp_path / "run")
        call(
            "run",
            "demo/open",
            "--prompts",
            source,
            "--trials",
            1,
            "--judge",
            "lexical",
            "--out",
            out,
        )
        assert call("audit", out).status == 2
