"""apparmor_parser's words, captured from 3.0.8, as problems with a file and a line."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.controls.apparmor.parser_errors import STDIN, names, problems, words
from agent.errors import Problem

NOISE = "Cache read/write disabled: interface file missing. (Kernel needs AppArmor 2.4 compatibility patch.)\n"
HERE = f"AppArmor parser error for {STDIN} in profile {STDIN} at line"
TEXT = "profile a {\n  include <abstractions/ours>\n  /x/@{NOPE}/y r,\n}\n# profile a\nprofile a {\n}\n"


@pytest.mark.parametrize(
    ("stderr", "expected"),
    [
        ("", []),
        (NOISE, []),
        (f"{NOISE}{HERE} 4: syntax error, unexpected TOK_CLOSE\n", [(4, "syntax error, unexpected TOK_CLOSE")]),
        ("AppArmor parser error at line 2: Invalid capability fly.\n", [(2, "Invalid capability fly.")]),
        (
            f"AppArmor parser error for {STDIN} in profile /etc/x/abstractions/ours at line 9: syntax error\n",
            [(2, "in /etc/x/abstractions/ours, line 9: syntax error")],
        ),
        (
            f"AppArmor parser error for {STDIN} in profile /elsewhere/other at line 9: syntax error\n",
            [(0, "in /elsewhere/other, line 9: syntax error")],
        ),
        (
            "Found reference to variable NOPE, but is never declared\n",
            [(3, "Found reference to variable NOPE, but is never declared")],
        ),
        (
            "Multiple definitions for profile a exist,bailing out.\n",
            [(6, "Multiple definitions for profile a exist,bailing out.")],
        ),
        (
            "Warning from stdin (stdin line 9): rule\nprofile z: has merged rule\nERROR merging rules for profile z\n",
            [(0, "profile z: has merged rule; ERROR merging rules for profile z")],
        ),
    ],
)
def test_captured_messages(stderr: str, expected: list[tuple[int, str]]) -> None:
    """Each form of message becomes the line and the words that people need; noise becomes nothing."""
    assert problems(stderr, "f", TEXT) == tuple(Problem("f", line, "", said) for line, said in expected)


def test_words_of_a_failed_load() -> None:
    """What stands in a failed change: the reason, without noise and without the program's path."""
    refused = 'Unable to replace "a".  Permission denied; attempted to load a profile while confined?'
    assert words(f"{NOISE}/sbin/apparmor_parser: {refused}\n") == refused


def test_names_one_a_line() -> None:
    """-N's answer, with blanks kept and doubles dropped."""
    assert names("a b\na b//kid\n:ns://x\na b\n") == ("a b", "a b//kid", ":ns://x")


_LINES = st.lists(
    st.sampled_from(["AppArmor parser error", " for ", " in profile ", " at line ", "7", ": ", STDIN, "\n", "Warning "])
    | st.text(max_size=8)
).map("".join)


@given(_LINES | st.text(), st.text())
def test_no_word_breaks_it(stderr: str, text: str) -> None:
    """Whatever the parser says of whatever text: problems of that file, with a message and a possible line."""
    for one in problems(stderr, "f", text):
        assert one.file == "f"
        assert one.message
        assert one.line >= 0
    assert "\n" not in words(stderr)
    assert all(names(stderr))
