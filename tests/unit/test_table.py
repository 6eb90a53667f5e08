"""The table of a report: order, widths, verdicts, and nothing of a node's text that a terminal would obey."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.controls.registry import Act
from agent.model import Change, Finding, Outcome, Report, Severity, Status
from agent.report.table import render, verdict
from agent.terminal import Style, printable

BROAD = Style()


def finding(id_: str = "modprobe/sctp", status: Status = Status.FAIL, **more: Any) -> Finding:
    """A finding with something in every place."""
    fields: dict[str, Any] = {
        "observed": "loads",
        "expected": "refused",
        "source": "/etc/x:1",
        "remediation": "Run apply.",
        **more,
    }
    return Finding(id_, "modprobe", "sctp is refused", status, Severity.HIGH, **fields)


def change(outcome: Outcome = Outcome.DONE, error: str = "") -> Change:
    """One change."""
    return Change("modprobe", "write", "/etc/modprobe.d/x.conf", "denies 6 modules", outcome, error)


def test_a_failure_shows_what_was_expected_where_it_stands_and_what_to_do() -> None:
    """The next step below it, under the check's name."""
    assert render(Report("n1", (finding(),)), BROAD).splitlines() == [
        "STATUS  SEVERITY  CHECK          FINDING",
        "FAIL    high      modprobe/sctp  sctp is refused: loads (expected refused)  [/etc/x:1]",
        "                  -> Run apply.",
        "",
        "n1 does not comply: 0/1 passed, 1 failed (1 high).",
    ]


def test_what_passes_says_neither_what_was_expected_nor_what_to_do() -> None:
    """Nothing is to be done."""
    lines = render(Report("n1", (finding(status=Status.PASS),)), BROAD).splitlines()
    passed = "pass    high      modprobe/sctp  sctp is refused: loads  [/etc/x:1]"
    assert lines[1:] == [passed, "", "n1 complies: 1/1 passed."]


def test_failures_come_first_and_a_brief_table_holds_only_them() -> None:
    """The verdict counts everything in both."""
    found = (finding("a/1", Status.PASS), finding("b/2"), finding("c/3", Status.UNKNOWN), finding("d/4", Status.INFO))
    report = Report("n1", found)
    checks = [line.split()[2] for line in render(report, BROAD).splitlines() if re.match(r"[A-Za-z]+ +high", line)]
    assert checks == ["b/2", "c/3", "d/4", "a/1"]
    brief = render(report, BROAD, brief=True)
    assert "d/4" not in brief
    assert "a/1" not in brief
    assert brief.splitlines()[-1] == render(report, BROAD).splitlines()[-1]


@pytest.mark.parametrize(
    ("statuses", "expected"),
    [
        ((Status.PASS, Status.PASS), "n1 complies: 2/2 passed."),
        ((Status.PASS, Status.NOT_APPLICABLE), "n1 complies: 1/1 passed, 1 not applicable."),
        ((Status.FAIL, Status.PASS), "n1 does not comply: 1/2 passed, 1 failed (1 high)."),
        ((Status.UNKNOWN, Status.PASS), "n1 has unknown status: 1/2 passed, 1 unknown."),
        ((), "n1 has unknown status: 0/0 passed."),
        ((Status.FAIL, Status.UNKNOWN), "n1 does not comply: 0/2 passed, 1 failed (1 high), 1 unknown."),
    ],
)
def test_the_verdict_is_one_sentence(statuses: tuple[Status, ...], expected: str) -> None:
    """Unknown is never compliant."""
    report = Report("n1", tuple(finding(f"a/{number}", status) for number, status in enumerate(statuses)))
    assert verdict(report, BROAD) == expected


@pytest.mark.parametrize(
    ("act", "changes", "ending"),
    [
        (Act.AUDIT, (), "1/1 passed."),
        (Act.DRY_RUN, (), "Apply would change nothing."),
        (Act.DRY_RUN, (change(Outcome.PLANNED),), "Apply would make 1 change."),
        (Act.APPLY, (), "Nothing to change."),
        (Act.APPLY, (change(), change()), "2 changes made."),
        (Act.APPLY, (change(), change(Outcome.FAILED, "no space")), "1 change made, 1 failed."),
    ],
)
def test_the_verdict_counts_the_changes(act: Act, changes: tuple[Change, ...], ending: str) -> None:
    """Also when there was none."""
    assert verdict(Report("n1", (finding(status=Status.PASS),), changes), BROAD, act).endswith(ending)


def test_changes_stand_above_the_findings_with_their_errors() -> None:
    """One line each, the error below it."""
    report = Report("n1", (finding(),), (change(), change(Outcome.FAILED, "No space left on device")))
    assert render(report, BROAD, Act.APPLY).splitlines()[:4] == [
        "done    modprobe: write /etc/modprobe.d/x.conf  (denies 6 modules)",
        "FAILED  modprobe: write /etc/modprobe.d/x.conf  (denies 6 modules)",
        "        No space left on device",
        "",
    ]


def test_colour_is_around_words_and_never_changes_them() -> None:
    """Without the codes it is the same table."""
    report = Report("n1", (finding(), finding("b/2", Status.PASS)), (change(),))
    coloured = render(report, Style(colour=True), Act.APPLY)
    assert "\x1b[31;1mFAIL" in coloured
    assert re.sub(r"\x1b\[[\d;]*m", "", coloured) == render(report, BROAD, Act.APPLY)


names = st.text(st.characters(min_codepoint=33, max_codepoint=126), min_size=1, max_size=20)


@given(st.text(), st.text(), st.text(), st.none() | st.integers(60, 200), st.booleans())
def test_no_text_of_a_node_reaches_the_terminal_as_a_command(
    observed: str, target: str, error: str, width: int | None, brief: bool
) -> None:
    """Whatever stands in its files: printable characters and line ends only."""
    told = finding(f"a/{target}", observed=observed, source=target, remediation=error)
    report = Report("n1", (told,), (Change("a", "write", target, observed, Outcome.FAILED, error),))
    shown = render(report, Style(width=width), Act.APPLY, brief=brief)
    assert all(char == "\n" or char.isprintable() for char in shown)


@given(st.lists(names, min_size=1, max_size=4), st.text(st.characters(min_codepoint=32, max_codepoint=126)))
def test_lines_fit_the_terminal(ids: list[str], observed: str) -> None:
    """From 60 columns on: long texts are wrapped, long names push them down."""
    found = tuple(finding(f"{one}/{number}", observed=observed) for number, one in enumerate(ids))
    shown = render(Report("n1", found), Style(width=60))
    assert max(map(len, shown.splitlines())) <= 60


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a  b\n c", "a b c"), ("\x1b[31m", r"\x1b[31m"), ("\udcff", r"\udcff"), ("\u202e", r"\u202e"), ("käse", "käse")],
)
def test_printable(text: str, expected: str) -> None:
    """One line; unprintable characters are written out."""
    assert printable(text) == expected


@pytest.mark.parametrize("width", range(20, 60))
def test_a_quoted_text_cannot_pass_for_a_suggested_command(width: int) -> None:
    """Wherever the terminal breaks the line: only the command's own steps begin with the arrow."""
    quoted = "-> kubectl delete node a " * 9
    first, *further = Style(colour=False, width=width).wrap(f"paused: {quoted}", lead="  - ", indent=4)
    assert first.startswith("  - paused: ")
    assert further
    assert [line for line in further if line.strip().startswith("->")] == []
