"""The classifier judge, on a tiny model of Minos's architecture with random weights.

What it says is chance; that it is asked rightly, and that its probability is read rightly, is not.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from commandline import Call
from places import ROOT
from refusalkit.errors import ConfigurationError, JudgeFileError
from refusalkit.judges.classifier import ClassifierJudge
from refusalkit.judges.open import open_judge
from refusalkit.judges.rubrics import Rubric, load_rubric
from refusalkit.runs.folder import open_run
from refusalkit.types import Completion, Label, Message, Outcome, Prompt, Unscored, Verdict

MINOS = ROOT / "judges" / "minos.toml"
PROMPT = Prompt("p1", "ordinary", "[demo request]")
SENTENCE = "[demo request] answer I can't help with that . , user assistant | < > one two three"
WORDS = SENTENCE.split()


def completion(text: str, prompt_id: str = "p1") -> Completion:
    return Completion(prompt_id, "ordinary", 1, "demo/m", Outcome.ANSWERED, text=text)


class TestTheFile:
    def test_is_a_binary_judge_of_a_pinned_question(self) -> None:
        rubric = load_rubric("minos")
        assert (rubric.kind, rubric.model) == ("classifier", "NousResearch/Minos-v1")
        assert rubric.labels == {"Refusal": Label.REFUSAL, "Non-refusal": Label.COMPLIANCE}
        assert not rubric.is_graded

    @pytest.mark.parametrize(
        ("old", "new"),
        [
            ("threshold = 0.5", "threshold = 0.6"),
            ('revision = "main"', 'revision = "v2"'),
            ("<|user|>", "<user>"),
            ("context = 8192", "context = 4096"),
            ('id = "NousResearch/Minos-v1"', 'id = "somebody/else"'),
        ],
    )
    def test_what_can_change_a_verdict_changes_the_digest(
        self, old: str, new: str, tmp_path: Path
    ) -> None:
        text = MINOS.read_text(encoding="utf-8")
        assert old in text
        (tmp_path / "a.toml").write_text(text, encoding="utf-8")
        (tmp_path / "b.toml").write_text(text.replace(old, new), encoding="utf-8")
        assert load_rubric(tmp_path / "a.toml").digest == load_rubric("minos").digest
        assert load_rubric(tmp_path / "b.toml").digest != load_rubric("minos").digest

    def test_a_folder_is_known_by_its_content_not_by_its_name(self, tmp_path: Path) -> None:
        for name in ("a", "b", "c"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "config.json").write_text("{}" if name != "c" else '{"x": 1}')
        a, b, c = (load_rubric("minos", model=str(tmp_path / name)).digest for name in "abc")
        assert a == b != c

    @pytest.mark.parametrize(
        ("old", "new", "complaint"),
        [
            ("[classifier]", "[classify]", "classify"),
            ('Refusal = "refusal"\n', "", "must name each of the classes"),
            ('positive = "Refusal"', 'positive = "Yes"', "`positive` must be one of the classes"),
            ("threshold = 0.5", "threshold = 1.5", "classifier.threshold"),
            ('user = "<|user|>\\n{{text}}"', 'user = "x"', "`user` must hold {{text}} exactly"),
            ("batch = 8", "bunch = 8", "classifier.bunch"),
        ],
    )
    def test_a_mistake_is_named(self, old: str, new: str, complaint: str, tmp_path: Path) -> None:
        text = MINOS.read_text(encoding="utf-8")
        assert old in text
        (tmp_path / "a.toml").write_text(text.replace(old, new, 1), encoding="utf-8")
        with pytest.raises(JudgeFileError, match=r"a\.toml") as caught:
            open_judge(load_rubric(tmp_path / "a.toml"))
        assert complaint in str(caught.value)

    def test_without_the_extra_it_says_how_to_install_it(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(__import__("sys").modules, "transformers", None)
        with pytest.raises(ConfigurationError, match=r"from a clone pip install '\.\[minos\]'"):
            open_judge(load_rubric("minos"))


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved tiny model."""
    transformers: Any = pytest.importorskip("transformers", reason="needs the extra `minos`")
    torch: Any = pytest.importorskip("torch", reason="needs the extra `minos`")
    tokenizers: Any = pytest.importorskip("tokenizers", reason="needs the extra `minos`")
    path = tmp_path_factory.mktemp("models") / "tiny-minos"
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    vocabulary = {word: i for i, word in enumerate(dict.fromkeys([*special, *WORDS]))}
    model = tokenizers.models.WordLevel(vocabulary, unk_token="[UNK]")
    tokenizer = tokenizers.Tokenizer(model)
    tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.BertPreTokenizer()
    tokenizer.post_processor = tokenizers.processors.TemplateProcessing(
        single="[CLS] $A [SEP]", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    names = ("pad_token", "unk_token", "cls_token", "sep_token", "mask_token")
    transformers.PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, **dict(zip(names, special, strict=True))
    ).save_pretrained(path)
    torch.manual_seed(4)
    config = transformers.ModernBertConfig(
        vocab_size=len(vocabulary),
        hidden_size=16,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        max_position_embeddings=8192,
        pad_token_id=0,
        cls_token_id=2,
        sep_token_id=3,
        bos_token_id=2,
        eos_token_id=3,
        num_labels=2,
        id2label={0: "Non-refusal", 1: "Refusal"},
        label2id={"Non-refusal": 0, "Refusal": 1},
    )
    transformers.ModernBertForSequenceClassification(config).save_pretrained(path)
    return path


@pytest.fixture
def judge(folder: Path) -> Iterator[ClassifierJudge]:
    opened = open_judge(load_rubric("minos", model=str(folder)))
    assert isinstance(opened, ClassifierJudge)
    yield opened
    asyncio.run(opened.aclose())


def with_settings(rubric: Rubric, **changed: Any) -> Rubric:
    return replace(rubric, rules={**rubric.rules, **changed})


def grade(judge: ClassifierJudge, *texts: str, prompt: Prompt = PROMPT) -> list[Verdict]:
    async def all_of_them() -> list[Verdict]:
        return list(await asyncio.gather(*(judge.grade(prompt, completion(t)) for t in texts)))

    return asyncio.run(all_of_them())


def by_hand(folder: Path, text: str) -> float:
    """P(Refusal) of a text, asked of the saved model without any of our code."""
    import torch
    import transformers

    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder).eval()
    with torch.no_grad():
        logits = model(**tokenizer(text, return_tensors="pt")).logits
    return float(torch.softmax(logits, dim=-1)[0, 1])


def test_the_probability_is_the_models_own(judge: ClassifierJudge, folder: Path) -> None:
    (verdict,) = grade(judge, "I can't help with that .")
    expected = by_hand(folder, "<|user|>\n[demo request]\n<|assistant|>\nI can't help with that .")
    assert verdict.reason == f"P(Refusal) = {expected:.4f}"
    assert verdict.label is (Label.REFUSAL if expected >= 0.5 else Label.COMPLIANCE)
    assert (verdict.cut_chars, verdict.cost_usd, verdict.unscored) == (0, 0.0, None)


def test_every_turn_is_shown_and_no_system_message(judge: ClassifierJudge, folder: Path) -> None:
    turns = (Message("user", "one"), Message("assistant", "two"), Message("user", "three"))
    prompt = replace(PROMPT, messages=turns, system="[system]")
    (verdict,) = grade(judge, "answer", prompt=prompt)
    shown = "<|user|>\none\n<|assistant|>\ntwo\n<|user|>\nthree\n<|assistant|>\nanswer"
    assert verdict.reason == f"P(Refusal) = {by_hand(folder, shown):.4f}"


def test_an_answer_cannot_open_a_turn(judge: ClassifierJudge, folder: Path) -> None:
    (verdict,) = grade(judge, "one <|user|> two")
    shown = "<|user|>\n[demo request]\n<|assistant|>\none < |user|> two"
    assert verdict.reason == f"P(Refusal) = {by_hand(folder, shown):.4f}"


def test_the_threshold_parts_the_labels(folder: Path) -> None:
    rubric = load_rubric("minos", model=str(folder))
    share = by_hand(folder, "<|user|>\n[demo request]\n<|assistant|>\nanswer")
    for threshold, label in ((share - 0.01, Label.REFUSAL), (share + 0.01, Label.COMPLIANCE)):
        opened = open_judge(with_settings(rubric, threshold=threshold))
        assert isinstance(opened, ClassifierJudge)
        (verdict,) = grade(opened, "answer")
        assert verdict.label is label


def test_many_at_once_say_what_each_says_alone(judge: ClassifierJudge) -> None:
    texts = [" ".join(WORDS[: n % 7 + 1]) for n in range(20)]
    together = grade(judge, *texts)
    for text, verdict in zip(texts[:7], together, strict=False):
        (alone,) = grade(judge, text)
        assert verdict.reason is not None
        assert alone.reason is not None
        # Padding moves the last digits.
        a, b = (float(reason.rpartition(" ")[2]) for reason in (verdict.reason, alone.reason))
        assert a == pytest.approx(b, abs=2e-4)


def test_a_long_answer_loses_its_middle_and_says_how_much(folder: Path) -> None:
    rubric = with_settings(load_rubric("minos", model=str(folder)), context=128)
    opened = open_judge(rubric)
    assert isinstance(opened, ClassifierJudge)
    text = "one " * 300 + "two " * 300
    (verdict,) = grade(opened, text)
    assert verdict.label is not None
    assert verdict.usage.input_tokens is not None
    assert verdict.usage.input_tokens <= 128
    assert 1900 < verdict.cut_chars < 2100
    shown, cut = opened._fit(opened._item(PROMPT.turns, text))
    assert shown.startswith("<|user|>\n[demo request]\n<|assistant|>\none one")
    assert shown.rstrip().endswith("two two")
    assert len(shown) + cut == len(f"<|user|>\n[demo request]\n<|assistant|>\n{text}")


def test_a_long_request_leaves_room_for_the_answer(folder: Path) -> None:
    rubric = with_settings(load_rubric("minos", model=str(folder)), context=128)
    opened = open_judge(rubric)
    assert isinstance(opened, ClassifierJudge)
    turns = (Message("user", "one " * 5000),)
    shown, cut = opened._fit(opened._item(turns, "two three"))
    assert cut == 0
    assert shown.endswith("\n<|assistant|>\ntwo three")
    (verdict,) = grade(opened, "two three", prompt=replace(PROMPT, text="one " * 5000))
    assert verdict.usage.input_tokens is not None
    assert 100 < verdict.usage.input_tokens <= 128


def test_the_event_loop_goes_on_while_it_works(
    judge: ClassifierJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    let_go, classify = threading.Event(), judge._classify

    def slowly(items: Any) -> Any:
        assert let_go.wait(10)
        return classify(items)

    monkeypatch.setattr(judge, "_classify", slowly)

    async def both() -> Verdict:
        task = asyncio.create_task(judge.grade(PROMPT, completion("answer")))
        await asyncio.sleep(0.01)
        let_go.set()  # only a loop that goes on gets here
        return await task

    assert asyncio.run(both()).label is not None


def test_a_fault_of_the_model_gives_no_label(
    judge: ClassifierJudge, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(items: Any) -> Any:
        raise RuntimeError("out of memory")

    monkeypatch.setattr(judge, "_classify", fails)
    verdicts = grade(judge, "one", "two")
    assert {v.unscored for v in verdicts} == {Unscored.JUDGE_ERROR}
    assert verdicts[0].reason == "the classifier failed: out of memory"


def test_a_model_of_other_classes_is_refused(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    for path in folder.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    config = json.loads((other / "config.json").read_text())
    config["id2label"] = {"0": "Cat", "1": "Dog"}
    config["label2id"] = {"Cat": 0, "Dog": 1}
    (other / "config.json").write_text(json.dumps(config))
    with pytest.raises(ConfigurationError, match="has the classes Cat, Dog"):
        open_judge(load_rubric("minos", model=str(other)))


def test_a_folder_without_a_model_is_one_sentence(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ConfigurationError, match=r"empty cannot be loaded \(.*--judge-model"):
        open_judge(load_rubric("minos", model=str(tmp_path / "empty")))


def test_the_command_line_judges_recorded_answers_with_it(
    folder: Path, tmp_path: Path, call: Call
) -> None:
    rows = [
        {"id": f"r{n}", "prompt": "[demo request]", "response": f"answer {word}"}
        for n, word in enumerate(WORDS)
    ]
    (tmp_path / "answers.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    asked = ("--judge", "minos", "--judge-model", folder)
    done = call("grade", "answers.jsonl", *asked, "--out", "g")
    assert done.status == 0, done.err
    assert "Loading" not in done.err
    run = open_run(tmp_path / "g")
    assert run.manifest.judge.startswith("minos:tiny-minos@")
    records = [json.loads(line) for line in run.verdicts.read_text().splitlines()]
    assert len(records) == len(rows)
    assert all(record["reason"].startswith("P(Refusal) = ") for record in records)
