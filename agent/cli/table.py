"""The report for eyes: failures first, the next step below each, a one-line verdict last.

Colour on a terminal only. It refuses to cut text when nobody's terminal limits the width.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Iterator, Sequence

from agent.controls.registry import Act
from agent.model import Change, Finding, Outcome, Report, Severity, Status, worst_first
from agent.terminal import Style, printable

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
_OBSERVED_WIDTH = 40  # with less than that beside the check's name, the text goes below it
_MINIMUM_WIDTH = 24


def render(report: Report, style: Style, act: Act = Act.AUDIT, *, brief: bool = False) -> str:
    """The whole table as text that ends in a newline. brief: without what passes or does not apply."""
    shown = [
        finding
        for finding in worst_first(report.findings)
        if not brief or finding.status in (Status.FAIL, Status.UNKNOWN)
    ]
    lines = [*_changes(report.changes, style), *_findings(shown, style)]
    return "\n".join([*lines, verdict(report, style, act)]) + "\n"


def verdict(report: Report, style: Style, act: Act = Act.AUDIT) -> str:
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
    said = f"{printable(report.node)} {word}: {', '.join(parts)}.{_made(report.changes, act)}"
    lines = textwrap.wrap(said, max(style.width, _MINIMUM_WIDTH)) if style.width else [said]
    return "\n".join(style.paint(line, _COLOURS[report.status]) for line in lines)


def _made(changes: Sequence[Change], act: Act) -> str:
    failed = sum(1 for change in changes if change.outcome is Outcome.FAILED)
    done = sum(1 for change in changes if change.outcome is Outcome.DONE)
    if act is Act.AUDIT:
        return ""
    if act is Act.DRY_RUN:
        return f" Apply would make {_count(len(changes), 'change')}." if changes else " Apply would change nothing."
    if failed:
        return f" {_count(done, 'change')} made, {failed} failed."
    return f" {_count(done, 'change')} made." if done else " Nothing to change."


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _changes(changes: Sequence[Change], style: Style) -> Iterator[str]:
    marks = {Outcome.PLANNED: ("would", "36"), Outcome.DONE: ("done", "32"), Outcome.FAILED: ("FAILED", "31;1")}
    width = max((len(marks[change.outcome][0]) for change in changes), default=0)
    for change in changes:
        word, colour = marks[change.outcome]
        reason = f"  ({change.reason})" if change.reason else ""
        lead = style.paint(f"{word:<{width}}", colour) + "  "
        text = f"{change.control}: {change.action} {change.target}{reason}"
        yield from _wrapped(lead, width + 2, text, style)
        if change.error:
            yield from _wrapped(" " * (width + 2), width + 2, change.error, style)
    if changes:
        yield ""


def _findings(findings: Sequence[Finding], style: Style) -> Iterator[str]:
    if not findings:
        return
    rows = [(_WORDS[found.status], found.severity.value, printable(found.id)) for found in findings]
    head = ("STATUS", "SEVERITY", "CHECK")
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(3)]
    indent = widths[0] + widths[1] + 4
    beside = style.width is None or style.width - sum(widths) - 6 >= _OBSERVED_WIDTH
    named = widths[2] if beside else 0
    yield f"{head[0]:<{widths[0]}}  {head[1]:<{widths[1]}}  {head[2]:<{named}}  OBSERVED"
    for finding, (word, severity, name) in zip(findings, rows, strict=True):
        label = style.paint(f"{word:<{widths[0]}}", _COLOURS[finding.status])
        lead = f"{label}  {severity:<{widths[1]}}  "
        if beside:
            yield from _wrapped(f"{lead}{name:<{named}}  ", sum(widths) + 6, _observed(finding), style)
        else:
            yield from _wrapped(lead, indent, name, style)
            yield from _wrapped(" " * (indent + 3), indent + 3, _observed(finding), style)
        if finding.remediation and finding.status in (Status.FAIL, Status.UNKNOWN):
            yield from _wrapped(" " * indent + style.paint("->", "2") + " ", indent + 3, finding.remediation, style)
    yield ""


def _observed(finding: Finding) -> str:
    said = printable(finding.observed) or finding.title
    if finding.expected and finding.status is Status.FAIL:
        said += f" (expected {finding.expected})"
    return f"{said}  [{finding.source}]" if finding.source else said


def _wrapped(lead: str, column: int, text: str, style: Style) -> Iterable[str]:
    """The text behind its lead, wrapped at the terminal's width under its own column."""
    if style.width is None:
        return [lead + _in_one_line(text)]
    room = max(style.width - column, _MINIMUM_WIDTH)
    lines = textwrap.wrap(_in_one_line(text), room, break_on_hyphens=False) or [""]
    return [lead + lines[0], *(" " * column + line for line in lines[1:])]


def _in_one_line(text: str) -> str:
    """Printable, with the two blanks before a source or a reason kept."""
    return "  ".join(printable(part) for part in text.split("  "))
