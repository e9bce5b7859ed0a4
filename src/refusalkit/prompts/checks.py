"""What a person should look at in a prompt set, beyond its form.

Mistakes make a set wrong: tags that are not ``prefix:value``, a translation of an unknown prompt,
prompts that differ from a published version. Warnings may be intended: near-duplicates, lengths,
balance (of categories, and between tags and danger), cues that a twin lost, languages, twins of
prompts in none of the sets.
"""

from __future__ import annotations

import bisect
import itertools
import re
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from refusalkit.prompts.balance import imbalances
from refusalkit.prompts.combine import wrong_twin
from refusalkit.prompts.cues import CUE, MIN_KEPT, kept_share, lost_cues
from refusalkit.prompts.framings import unknown_framing, wrong_frame
from refusalkit.prompts.load import load_prompts, shipped_sets
from refusalkit.prompts.lock import changes, entry_key, read_lock
from refusalkit.prompts.near import near_duplicates
from refusalkit.prompts.prompt_record import Mistakes
from refusalkit.prompts.prompt_set import PromptSet
from refusalkit.prompts.public import notices
from refusalkit.prompts.set_folder import MANIFEST, places_of_ids
from refusalkit.prompts.summary import Summary, count_words, summarise, words_of
from refusalkit.shipped import LOCK_FILE, prompts_dir
from refusalkit.types import Prompt
from refusalkit.untrusted import printable

MIN_WORDS, MAX_WORDS = 3, 200
_MAX_UNEVEN = 3
_MAX_WARNINGS = 50
_TAG = re.compile(r"[a-z][a-z0-9-]*:[^\s:,;][^:,;]*")
TAGS: Mapping[str, frozenset[str]] = {
    "form": frozenset({"question", "instruction", "fiction", "role", "code"}),
    "pretext": frozenset(
        {"none", "personal", "professional", "research", "journalism"}
        | {"education", "fiction", "curiosity"}
    ),
    "register": frozenset({"casual", "neutral", "formal", "emotional"}),
    "spelling": frozenset({"standard", "sloppy"}),
}
_SURELY_A_SENTENCE = 9
_COMMON_WORDS = """
a about all am an and any are as at be but by can could do does for from get give had has have he
her him his how i if in into is it its just list make me my no not of on one or our out she should
so some tell that the their them there they this to up us was we what when where which who why will
with without would write you your
"""
# A text of `_SURELY_A_SENTENCE` words or more without any of these is hardly English.
_ENGLISH = frozenset(_COMMON_WORDS.split())
_LATIN_SCRIPT = "cs da de en es fi fr hr hu id it nl no pl pt ro sv tr vi"
_LATIN = frozenset(_LATIN_SCRIPT.split(" "))


@dataclass
class Checked:
    """One set after its checks. `duplicates` says how near-duplicates were looked for."""

    prompts: PromptSet
    summary: Summary
    duplicates: str = ""
    mistakes: list[tuple[str, str, str]] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)

    @property
    def shown_warnings(self) -> list[str]:
        """The warnings, cut short where there are very many."""
        shown = self.warnings[:_MAX_WARNINGS]
        more = len(self.warnings) - len(shown)
        return [*shown, f"... and {more} more"] if more else shown

    def raise_if_wrong(self) -> None:
        """Raise `PromptSetError` with all mistakes, if there are any."""
        mistakes = Mistakes()
        for place, name, what in self.mistakes:
            mistakes.add(place, name, what)
        mistakes.raise_if_any(self.prompts.name)


class _Places:
    """Where a set's prompts are, ``file:line``; looked up only once something is wrong."""

    def __init__(self, prompts: PromptSet) -> None:
        self._folder = _folder_of(prompts)
        self._places: dict[str, str] | None = None

    def __getitem__(self, prompt_id: str) -> str:
        if self._places is None:
            self._places = {} if self._folder is None else places_of_ids(self._folder)
        return self._places.get(prompt_id, prompt_id)


def check_sets(sets: Sequence[PromptSet]) -> list[Checked]:
    """Check sets, each by itself and all against each other."""
    checked = [Checked(prompts, summarise(prompts)) for prompts in sets]
    places = [_Places(prompts) for prompts in sets]
    everything: dict[str, Prompt] = {}
    if any(one.summary.n_derived for one in checked):
        everything = {prompt.id: prompt for prompts in sets for prompt in prompts.prompts}
    for one, where in zip(checked, places, strict=True):
        known = everything | _shipped_originals(one.prompts, everything)
        _check_lock(one, where)
        one.warnings += notices(one.prompts.selection, len(one.prompts), has_hard_lines=True)
        _check_tags(one, where)
        _check_twins(one, where, known)
        _check_frames(one, where, known)
        _check_translations(one, where, known)
        _check_texts(one, where)
        _check_balance(one)
    _check_ids(checked)
    _check_duplicates(checked, places)
    return checked


def _shipped_originals(prompts: PromptSet, known: Mapping[str, Prompt]) -> dict[str, Prompt]:
    """The prompts that a shipped set derives from, where another shipped set holds them all."""
    named = {p.twin or p.frame_of or p.translation_of for p in prompts.prompts} - {None, *known}
    names = shipped_sets()
    if named and prompts.source in names:
        for name in names:
            originals = {prompt.id: prompt for prompt in load_prompts(name).prompts}
            if named <= originals.keys():
                return originals
    return {}


def _check_lock(one: Checked, where: _Places) -> None:
    folder = _folder_of(one.prompts)
    if folder is None or folder.parent != prompts_dir():
        return
    entry = read_lock(folder.parent / LOCK_FILE).get(entry_key(one.prompts))
    if entry is None:
        one.warnings.append(f"{LOCK_FILE} has no entry for {printable(entry_key(one.prompts))}")
        return
    for prompt_id, what in changes(one.prompts, entry):
        place = MANIFEST if prompt_id is None else where[prompt_id]
        one.mistakes.append((place, "id" if prompt_id else "version", what))


def _check_tags(one: Checked, where: _Places) -> None:
    # Only set folders follow this scheme of tags: a table from elsewhere has its own.
    if _folder_of(one.prompts) is None:
        return
    used = {prefix for prefix in TAGS if prefix in one.summary.tags}
    lacking: Counter[str] = Counter()
    for prompt in one.prompts.prompts:
        seen: Counter[str] = Counter()
        for tag in prompt.tags:
            if not _TAG.fullmatch(tag):
                what = f"{tag!r} is not of the form prefix:value"
                one.mistakes.append((where[prompt.id], "tags", what))
                continue
            prefix, _, value = tag.partition(":")
            seen[prefix] += 1
            if prefix in TAGS and value not in TAGS[prefix]:
                what = f"{tag!r}: the values of {prefix} are {', '.join(sorted(TAGS[prefix]))}"
                one.mistakes.append((where[prompt.id], "tags", what))
        for prefix in TAGS:
            if seen[prefix] > 1:
                one.mistakes.append((where[prompt.id], "tags", f"has {prefix} more than once"))
            lacking[prefix] += prefix in used and not seen[prefix]
    for prefix, count in lacking.items():
        if count:
            one.warnings.append(f"{count} prompts have no tag {prefix}:...")


def _check_twins(one: Checked, where: _Places, everything: Mapping[str, Prompt]) -> None:
    absent = 0
    for prompt in one.prompts.prompts:
        if prompt.twin is None:
            continue
        twin = everything.get(prompt.twin)
        absent += twin is None
        what = wrong_twin(prompt, twin)
        if what is not None:
            one.mistakes.append((where[prompt.id], "twin", what))
        elif twin is not None and prompt.lang == twin.lang == "en":
            _check_cues(one, where, twin, prompt)
    uncued = sum(not any(map(_is_cue, p.tags)) for p in one.prompts.prompts if p.twin is not None)
    if CUE.removesuffix(":") in one.summary.tags and uncued:
        one.warnings.append(f"{uncued} twins have no tag {CUE}..., which others have")
    if absent:
        one.warnings.append(
            f"the twins of {absent} prompts are in none of the sets named: name their set too"
        )


def _is_cue(tag: str) -> bool:
    return tag.startswith(CUE)


def _check_cues(one: Checked, where: _Places, prompt: Prompt, twin: Prompt) -> None:
    kept, lost = kept_share(prompt, twin), lost_cues(prompt, twin)
    what = None
    if lost:
        what = f"tags: {', '.join(lost)}: not in both this text and that of {prompt.id}"
    elif kept < MIN_KEPT:
        what = (
            f"text: keeps {kept:.0%} of the content words of {prompt.id}, at least "
            f"{MIN_KEPT:.0%} are usual: a twin without its cues tells nothing"
        )
    if what is not None:
        one.warnings.append(f"{printable(where[twin.id])}: {printable(what)}")


def _check_translations(one: Checked, where: _Places, everything: Mapping[str, Prompt]) -> None:
    for prompt in one.prompts.prompts:
        if prompt.translation_of is None:
            continue
        what = wrong_translation(prompt, everything.get(prompt.translation_of))
        if what is not None:
            one.mistakes.append((where[prompt.id], "translation_of", what))


def wrong_translation(prompt: Prompt, source: Prompt | None) -> str | None:
    """What is wrong between a translation and the prompt it names, None where nothing is."""
    if source is None:
        return f"{prompt.translation_of!r} is in none of the sets named"
    if source.translation_of is not None:
        return f"{source.id!r} is itself a translation"
    if source.category != prompt.category:
        return f"{source.id!r} is of another category, {source.category}"
    if source.lang == prompt.lang:
        return f"{source.id!r} is in the same language, {source.lang}"
    if source.danger != prompt.danger:
        return f"{source.id!r} has another danger, {source.danger}"
    return None


def _check_frames(one: Checked, where: _Places, everything: Mapping[str, Prompt]) -> None:
    for prompt in one.prompts.prompts:
        if prompt.frame_of is not None:
            what = wrong_frame(prompt, everything.get(prompt.frame_of))
            if what is not None:
                one.mistakes.append((where[prompt.id], "frame_of", what))
        if prompt.unframed and (what := unknown_framing(prompt)) is not None:
            one.mistakes.append((where[prompt.id], "unframed", what))


def _check_texts(one: Checked, where: _Places) -> None:
    for prompt in one.prompts.prompts:
        length = count_words(prompt.text)
        what = None
        if not MIN_WORDS <= length <= MAX_WORDS:
            what = f"text: {length} words; {MIN_WORDS} to {MAX_WORDS} are usual"
        elif not _fits_language(prompt):
            what = f"lang: is {prompt.lang!r}, but the text does not look like it"
        if what is not None:
            one.warnings.append(f"{printable(where[prompt.id])}: {printable(what)}")


def _fits_language(prompt: Prompt) -> bool:
    language = prompt.lang.partition("-")[0].lower()
    if language == "en":
        words = words_of(prompt)
        if len(words) >= _SURELY_A_SENTENCE and _ENGLISH.isdisjoint(words):
            return False
    if language not in _LATIN or prompt.text.isascii():
        return True
    letters = [c for c in prompt.text if c.isalpha()]
    foreign = sum(not c.isascii() and "LATIN" not in unicodedata.name(c, "") for c in letters)
    return 2 * foreign <= len(letters)


def _check_balance(one: Checked) -> None:
    counts = one.summary.categories
    ordinary = [c for c in one.prompts.categories if not c.hard_line and counts[c.slug].n_prompts]
    sizes = [counts[category.slug].n_prompts for category in ordinary]
    if sizes and max(sizes) > _MAX_UNEVEN * min(sizes):
        one.warnings.append(
            f"ordinary categories have from {min(sizes)} to {max(sizes)} prompts: the larger ones "
            "decide the score"
        )
    if not one.summary.danger:
        return
    for found in imbalances(one.prompts.prompts, one.prompts.hard_lines, tuple(TAGS)):
        one.warnings.append(printable(str(found)))
    if len(one.summary.danger) == 1:  # of one danger on purpose: safe twins, hard lines
        return
    for category in ordinary:
        count = counts[category.slug]
        missing = [str(level) for level in (1, 2, 3) if not count.danger[level]]
        if count.n_prompts >= len((1, 2, 3)) and missing:
            one.warnings.append(
                f"{printable(category.slug)}: no prompt of danger {' or '.join(missing)}"
            )


def _check_ids(checked: Sequence[Checked]) -> None:
    if len(checked) < 2:
        return
    holders: dict[str, int] = {}
    shared: Counter[tuple[int, int]] = Counter()
    for index, one in enumerate(checked):
        for prompt in one.prompts.prompts:
            first = holders.setdefault(prompt.id, index)
            if first != index:
                shared[first, index] += 1
    for (first, index), count in shared.items():
        name = printable(checked[first].prompts.name)
        checked[index].warnings.append(
            f"{count} ids are in {name} too: the two cannot be run together"
        )


def _check_duplicates(checked: Sequence[Checked], places: Sequence[_Places]) -> None:
    prompts = tuple(itertools.chain.from_iterable(one.prompts.prompts for one in checked))
    ends = list(itertools.accumulate(len(one.prompts) for one in checked))
    found = near_duplicates(prompts)
    for first, second, ratio in found.pairs:
        other, index = bisect.bisect(ends, first), bisect.bisect(ends, second)
        earlier, later = prompts[first], prompts[second]
        beside = f" of {checked[other].prompts.name}" if other != index else ""
        what = f"text: shares {ratio:.2f} of its words, in order, with {earlier.id}{beside}"
        checked[index].warnings.append(f"{printable(places[index][later.id])}: {printable(what)}")
    for one in checked:
        one.duplicates = f"near-duplicates: {found.how}"


def _folder_of(prompts: PromptSet) -> Path | None:
    """The folder that a set was read from, None for any other kind."""
    if prompts.source is None:
        return None
    shipped = prompts_dir() / prompts.source
    for folder in (shipped, Path(prompts.source)):
        if (folder / MANIFEST).is_file():
            return folder
    return None
