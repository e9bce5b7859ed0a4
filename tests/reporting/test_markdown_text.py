"""Untrusted text in Markdown: no one is notified, nothing is linked, nothing is markup."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from refusalkit.reporting.data.formats import markdown_text, to_markdown


@pytest.mark.parametrize(
    "text",
    [
        "@maintainer",
        "by @org/team.",
        "see https://evil.example/x?y",
        "www.evil.example",
        "mail me@evil.example",
        "HTTP://EVIL.EXAMPLE",
        "mailto:me",
        "(@name)",
        "`@name`",
    ],
)
def test_mentions_and_bare_addresses_are_code(text: str) -> None:
    shown = markdown_text(text)
    outside = re.sub(r"(?<!`)(`+)(?!`).*?(?<!`)\1(?!`)", "", shown)
    assert not re.search(r"(?i)@\w|://|www\.|mailto:", outside), shown


@pytest.mark.parametrize("text", ["openai/gpt-6-luna", "Privacy & Data", "harm (self), 50 %: a-b"])
def test_ordinary_names_stay_as_they_are(text: str) -> None:
    assert markdown_text(text) == text


@given(st.text(max_size=60))
def test_a_cell_stays_a_cell(text: str) -> None:
    table = to_markdown(["a", "b"], [[text, "end"]])
    assert len(table.splitlines()) == 3
    last = table.splitlines()[-1]
    assert len(re.findall(r"(?<!\\)\|", last)) == 3
