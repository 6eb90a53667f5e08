"""The report as a table: failures first, the next step below each, a one-line verdict last.

Colour on a terminal only. Text is wrapped at the terminal's width and never cut.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

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
_NODE = {Status.PASS: "complies", Status.FAIL: "does not comply"}
_MARKS = {Outcome.PLANNED: ("would", "36"), Outcome.DONE: ("done", "32"), Outcome.FAILED: ("FAILED", "31;1")}
_FINDING_WIDTH = 40  # with less than that beside the check's id, the text goes below it


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
    """One sentence: whether the node complies, how many checks passed, and what was changed."""
    counts = report.counts
    judged = counts[Status.PASS] + counts[Status.FAIL] + counts[Status.UNKNOWN]
    parts = [f"{counts[Status.PASS]}/{judged} passed"]
    if counts[Status.FAIL]:
        failed = [finding.severity for finding in report.findings if finding.status is Status.FAIL]
        by_severity = (f"{failed.count(severity)} {severity.value}" for severity in Severity if severity in failed)
        parts.append(f"{len(failed)} failed ({', '.join(by_severity)})")
    for status, word in ((Status.UNKNOWN, "unknown"), (Status.NOT_APPLICABLE, "not applicable")):
        parts += [f"{counts[status]} {word}"] if counts[status] else []
    node = f"{printable(report.node)} {_NODE.get(report.status, 'has unknown status')}"
    lines = style.wrap(f"{node}: {', '.join(parts)}.{_changed(report.changes, act)}")
    return "\n".join(style.paint(line, _COLOURS[report.status]) for line in lines)


def _changed(changes: Sequence[Change], act: Act) -> str:
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
    width = max((len(_MARKS[change.outcome][0]) for change in changes), default=0)
    for change in changes:
        word, colour = _MARKS[change.outcome]
        reason = f"  ({change.reason})" if change.reason else ""
        lead = style.paint(f"{word:<{width}}", colour) + "  "
        text = f"{change.control}: {change.action} {change.target}{reason}"
        yield from style.wrap(_one_line(text), lead=lead, indent=width + 2)
        if change.error:
            yield from style.wrap(_one_line(change.error), lead=" " * (width + 2), indent=width + 2)
    if changes:
        yield ""


def _findings(findings: Sequence[Finding], style: Style) -> Iterator[str]:
    if not findings:
        return
    rows = [(_WORDS[found.status], found.severity.value, printable(found.id)) for found in findings]
    head = ("STATUS", "SEVERITY", "CHECK")
    widths = [max(len(row[column]) for row in [head, *rows]) for column in range(3)]
    indent = widths[0] + widths[1] + 4
    beside = style.width is None or style.width - sum(widths) - 6 >= _FINDING_WIDTH
    named = widths[2] if beside else 0
    yield f"{head[0]:<{widths[0]}}  {head[1]:<{widths[1]}}  {head[2]:<{named}}  FINDING"
    for finding, (word, severity, name) in zip(findings, rows, strict=True):
        lead = style.paint(f"{word:<{widths[0]}}", _COLOURS[finding.status]) + f"  {severity:<{widths[1]}}  "
        if beside:
            lead, column = f"{lead}{name:<{named}}  ", sum(widths) + 6
        else:
            yield from style.wrap(name, lead=lead, indent=indent)
            lead, column = " " * (indent + 3), indent + 3
        yield from style.wrap(_one_line(_text(finding)), lead=lead, indent=column)
        if finding.remediation and finding.status in (Status.FAIL, Status.UNKNOWN):
            arrow = " " * indent + style.paint("->", "2") + " "
            yield from style.wrap(_one_line(finding.remediation), lead=arrow, indent=indent + 3)
    yield ""


def _text(finding: Finding) -> str:
    """The title with what was observed and, for a failure, what was expected."""
    numbers = ", ".join(number for number in finding.cis if not finding.id.endswith(f"/{number}"))
    title = f"{finding.title} (CIS {numbers})" if numbers else finding.title
    text = ": ".join(filter(None, (title, finding.observed if printable(finding.observed) else "")))
    if finding.expected and finding.status is Status.FAIL:
        text += f" (expected {finding.expected})"
    return f"{text}  [{finding.source}]" if finding.source else text


def _one_line(text: str) -> str:
    """Printable, with the two blanks before a source or a reason kept."""
    return "  ".join(printable(part) for part in text.split("  "))
