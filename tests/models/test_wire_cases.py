"""Every reply of the case file becomes what it has to, by the real clients over real sockets."""

from __future__ import annotations

import pytest

from wire_cases import WireCase, each_case, keys, play

__all__ = ["keys"]


@pytest.mark.usefixtures("keys")
@each_case("reply", "learn")
def test_a_models_reply_becomes_what_it_says(case: WireCase) -> None:
    assert play(case).wrong is None


@pytest.mark.usefixtures("keys")
@each_case("reply", "learn", file="more.jsonl")
def test_other_vendors_replies_become_what_they_say(case: WireCase) -> None:
    assert play(case).wrong is None


@pytest.mark.usefixtures("keys")
@each_case("reply", "learn", file="third.jsonl")
def test_replies_written_to_be_misread_become_what_they_say(case: WireCase) -> None:
    assert play(case).wrong is None


@pytest.mark.usefixtures("keys")
@each_case("reply", "learn", file="fourth.jsonl")
def test_replies_of_public_reports_become_what_they_say(case: WireCase) -> None:
    assert case.source
    assert play(case).wrong is None


@pytest.mark.usefixtures("keys")
@each_case("reply", "learn", file="fifth.jsonl")
def test_gateways_and_smaller_vendors_replies_become_what_they_say(case: WireCase) -> None:
    assert case.source
    assert play(case).wrong is None


@pytest.mark.usefixtures("keys")
@each_case("reply", "learn", file="sixth.jsonl")
def test_newer_wire_cases_become_the_outcomes_that_they_state(case: WireCase) -> None:
    assert case.source
    assert play(case).wrong is None


@pytest.mark.usefixtures("keys")
@each_case("reply", file="seventh.jsonl")
def test_only_a_filters_reply_is_blocked_whatever_its_wording(case: WireCase) -> None:
    assert case.source
    assert play(case).wrong is None
