"""The report for eyes: failures first, the next step below each, a one-line verdict last.

Colour on a terminal only. It refuses to cut text when nobody's terminal limits the width.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from agent.model import Change, Finding, Outcome, Report, Severity, Status, worst_first

_COLOURS = {
    Status.FAIL: "31;1",
    Status.UNKNOWN: "33;1",
    Status.PASS: "32",
    Status.INFO: "36",
    Status.NOT_APPLICABLE: "2",
}
_WORDS = {
    Status.FAIL: "FAIL",
    Status.UNKNOWN: "UNKNOWN",
    Status.PASS: "pass",
    Status.INFO: "info",
    Status.NOT_APPLICABLE: "n/a",
}
_MINIMUM_WIDTH = 60


@dataclass(frozen=True, slots=True)
class Style:
    """How to write: whether the reader's terminal shows colour, and its width in columns (None: no limit)."""

    colour: bool = False
    width: int | None = None

    def paint(self, text: str, code: str) -> str:
        """The text in a colour, or as it is."""
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and code else text


def render(report: Report, style: Style, *, dry_run: bool = False) -> str:
    """The whole table as text that ends in a newline."""
    lines = [*_changes(report.changes, style), *_findings(worst_first(report.findings), style)]
    return "\n".join([*lines, verdict(report, style, dry_run=dry_run)]) + "\n"


def verdict(report: Report, style: Style, *, dry_run: bool = False) -> str:
    """One sentence: what became of the node, and how much is behind that."""
    counts = report.counts
    looked = sum(counts.values()) - counts[Status.NOT_APPLICABLE]
    worst = [finding for finding in report.findings if finding.status is Status.FAIL]
    by_severity = ", ".join(
        f"{number} {severity.value}"
        for severity in Severity
        if (number := sum(1 for finding in worst if finding.severity is severity))
    )
    parts = []
    if worst:
        parts.append(f"{len(worst)} of {looked} checks fail ({by_severity})")
    if counts[Status.UNKNOWN]:
        parts.append(f"{counts[Status.UNKNOWN]} cannot be told")
    parts.append(f"{counts[Status.PASS]} pass")
    if counts[Status.NOT_APPLICABLE]:
        parts.append(f"{counts[Status.NOT_APPLICABLE]} not applicable")
    word = {Status.PASS: "complies", Status.FAIL: "does not comply"}.get(report.status, "cannot be called compliant")
    made = _made(report.changes, dry_run=dry_run)
    return style.paint(f"{report.node} {word}: {', '.join(parts)}.{made}", _COLOURS[report.status])


def _made(changes: Sequence[Change], *, dry_run: bool) -> str:
    failed = sum(1 for change in changes if change.outcome is Outcome.FAILED)
    done = sum(1 for change in changes if change.outcome is Outcome.DONE)
    if dry_run:
        return f" apply would make {_count(len(changes), 'change')}." if changes else " apply would change nothing."
    if failed:
        return f" {_count(done, 'change')} made, {failed} failed."
    return f" {_count(done, 'change')} made." if done else ""


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _changes(changes: Sequence[Change], style: Style) -> Iterator[str]:
    marks = {Outcome.PLANNED: ("would", "36"), Outcome.DONE: ("done ", "32"), Outcome.FAILED: ("FAILED", "31;1")}
    for change in changes:
        word, colour = marks[change.outcome]
        reason = f"  ({change.reason})" if change.reason else ""
        yield f"{style.paint(word, colour)}  {change.control}: {change.action} {change.target}{reason}"
        if change.error:
            yield f"        {change.error}"
    if changes:
        yield ""


def _findings(findings: Sequence[Finding], style: Style) -> Iterator[str]:
    if not findings:
        return
    rows = [(_WORDS[found.status], found.severity.value, found.id) for found in findings]
    head = ("STATUS", "SEVERITY", "CHECK")
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(3)]
    indent = widths[0] + widths[1] + 4
    yield f"{head[0]:<{widths[0]}}  {head[1]:<{widths[1]}}  {head[2]:<{widths[2]}}  OBSERVED"
    for finding, (word, severity, name) in zip(findings, rows, strict=True):
        label = style.paint(f"{word:<{widths[0]}}", _COLOURS[finding.status])
        lead = f"{label}  {severity:<{widths[1]}}  {name:<{widths[2]}}  "
        yield from _wrapped(lead, sum(widths) + 6, _observed(finding), style)
        if finding.remediation and finding.status in (Status.FAIL, Status.UNKNOWN):
            yield from _wrapped(" " * indent + style.paint("->", "2") + " ", indent + 3, finding.remediation, style)
    yield ""


def _observed(finding: Finding) -> str:
    said = " ".join(finding.observed.split()) or finding.title
    if finding.expected and finding.status is Status.FAIL:
        said += f" (expected {finding.expected})"
    return f"{said}  [{finding.source}]" if finding.source else said


def _wrapped(lead: str, column: int, text: str, style: Style) -> Iterable[str]:
    """The text behind its lead, wrapped at the terminal's width under its own column."""
    if style.width is None:
        return [lead + text]
    room = max(style.width - column, _MINIMUM_WIDTH - column, 24)
    lines = textwrap.wrap(text, room, break_on_hyphens=False) or [""]
    return [lead + lines[0], *(" " * column + line for line in lines[1:])]
