"""What a judge's endpoint replies gives the right verdict or none, over real sockets."""

from __future__ import annotations

import pytest

from wire_cases import WireCase, each_case, keys, play

__all__ = ["keys"]


@pytest.mark.usefixtures("keys")
@each_case("judge", "jlearn")
def test_a_judges_reply_gives_its_verdict_or_none(case: WireCase) -> None:
    assert play(case).wrong is None


@pytest.mark.usefixtures("keys")
@each_case("judge", "jlearn", file="third.jsonl")
def test_a_reply_written_to_be_misread_gives_its_verdict_or_none(case: WireCase) -> None:
    assert play(case).wrong is None


@pytest.mark.usefixtures("keys")
@each_case("judge", "jlearn", file="fifth.jsonl")
def test_a_smaller_vendors_reply_gives_its_verdict_or_none(case: WireCase) -> None:
    assert play(case).wrong is None


@pytest.mark.usefixtures("keys")
@each_case("judge", "jlearn", file="sixth.jsonl")
def test_each_newer_wire_case_gives_its_verdict_or_none(case: WireCase) -> None:
    assert case.source
    assert play(case).wrong is None
