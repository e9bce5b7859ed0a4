"""How well judges/lexical.toml tells languages apart, on the Universal Declaration of Human Rights.

    python scripts/measure_languages.py FOLDER [--words 12]

FOLDER holds the declaration's translations as `udhr_<code>.xml` (the UDHR in Unicode project). Of
each paragraph a stretch of so many words is read; Chinese and Japanese words count as two
characters. The declaration refuses nothing, so a label other than compliance is wrong.
"""

from __future__ import annotations

import argparse
import random
import tomllib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

from refusalkit.judges.lexical import LexicalJudge, LexicalRules, Reading
from refusalkit.types import Label

FILE = Path(__file__).resolve().parents[1] / "judges" / "lexical.toml"
READ = {
    "eng": "en",
    "spa": "es",
    "fra": "fr",
    "deu_1996": "de",
    "por_BR": "pt",
    "por_PT": "pt",
    "cmn_hans": "zh",
    "cmn_hant": "zh",
    "jpn": "ja",
    "arb": "ar",
    "hin": "hi",
    "rus": "ru",
}
TABLED = (
    *("ita", "nld", "cat", "glg", "ron_2006", "swe", "dan", "nob", "nno", "fin", "pol", "ces"),
    *("slk", "hun", "tur", "vie", "ind", "hrv", "slv", "swh", "tgl", "afr", "eus", "epo", "lat"),
    *("ukr", "bel", "bul", "srp_cyrl", "mkd", "kaz", "khk", "pes_1", "urd", "mar", "nep", "yue"),
    "kor",
)
UNSPACED = ("cmn", "jpn", "yue")


def stretches(path: Path, words: int) -> Iterator[str]:
    """A stretch of each paragraph that is long enough, drawn the same way each time."""
    draw = random.Random(path.stem)
    unspaced = path.stem.removeprefix("udhr_").startswith(UNSPACED)
    for element in ElementTree.parse(path).iter():
        if element.tag.endswith("para") and element.text and element.text.strip():
            text = " ".join(element.text.split())
            parts = list(text) if unspaced else text.split()
            n = 2 * words if unspaced else words
            if len(parts) >= n:
                start = draw.randrange(len(parts) - n + 1)
                yield ("" if unspaced else " ").join(parts[start : start + n])


def line(name: str, readings: list[Reading], language: str | None) -> tuple[int, int, int]:
    """Print and count: unscored, read as another language, other than compliance."""
    unscored = sum(r.label is None for r in readings)
    wrong = sum(r.label is not None and r.language not in (language, None) for r in readings)
    holding = sum(r.label not in (None, Label.COMPLIANCE) for r in readings)
    taken = Counter(r.language for r in readings if r.label is not None and r.language != language)
    print(
        f"{name:10} n={len(readings):4} unscored {unscored:3} held back {holding:3} {dict(taken)}"
    )
    return unscored, wrong, holding


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--words", type=int, default=12)
    options = parser.parse_args()
    raw = tomllib.loads(FILE.read_text(encoding="utf-8"))["rules"]
    judge = LexicalJudge(LexicalRules.model_validate(raw, context={"trusted": True}))
    for title, names in (("read", tuple(READ)), ("with a table, and not read", TABLED)):
        print(f"\n{title}:")
        total = [0, 0, 0, 0]
        for name in names:
            path = options.folder / f"udhr_{name}.xml"
            readings = [judge.classify(text) for text in stretches(path, options.words)]
            counts = line(name, readings, READ.get(name))
            total = [a + b for a, b in zip(total, (len(readings), *counts), strict=True)]
        n, unscored, wrong, holding = total
        print(
            f"all: {n} stretches, {unscored} unscored, {wrong} read as another language, ", end=""
        )
        print(f"{holding} labelled other than compliance")


if __name__ == "__main__":
    main()
