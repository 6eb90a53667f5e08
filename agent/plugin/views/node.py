"""`status NODE`: everything that one node shows, in the order in which people ask. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agent.model import Status
from agent.plugin.cluster.node_context import Facts
from agent.plugin.views import fleet as overview
from agent.plugin.views import history as reboots
from agent.plugin.views import table as render
from agent.reboot.state import Phase
from agent.terminal import Style, printable

_LABEL = 11


def text(known: Facts, style: Style) -> str:
    """For eyes."""
    return "\n".join(_lines(known, style))


def _lines(known: Facts, style: Style) -> Iterator[str]:
    row = known.row
    yield from _hardening(known, style)
    yield from _findings(known, style)
    yield ""
    yield from _reboot(known, style)
    if row.history:
        yield ""
        yield style.paint("Reboots of the past", render.BOLD)
        yield from reboots.table([(row.name, one) for one in row.history], style, named=False).rstrip("\n").split("\n")
    if not row.is_well or known.pod.ready is False or row.wants_reboot or row.phase is Phase.UNKNOWN:
        yield ""
        yield f"{style.paint('->', render.FAINT)} kubectl node-hardening why {row.name}"


def _hardening(known: Facts, style: Style) -> Iterator[str]:
    row = known.row
    where = f"{row.name}  ({row.pool}, {overview.condition(row).text}, kernel {row.kernel or '?'})"
    yield from _field("Node", where, style)
    yield from _field("Agent", _agent(known), style, "" if known.pod.ready is not False else render.WARN)
    word = overview.hardened(row)
    yield from _field("Hardened", word.text, style, word.colour)
    if row.config_problem:
        yield from _field("Config", f"refused, the last good one goes on: {row.config_problem}", style, render.WARN)
    for sentence in known.summary.split(". "):
        if sentence:
            yield from _field("", f"{sentence.rstrip('.')}.", style)
    if known.last_change:
        yield from _field("Changed", known.last_change, style)


def _reboot(known: Facts, style: Style) -> Iterator[str]:
    row, now = known.row, known.now
    word = overview.reboot(row, stuck=known.own_lock is not None and known.own_lock.is_stuck)
    since = f", wanted for {render.since(row.since, now)}" if row.since and row.wants_reboot else ""
    yield from _field("Reboot", f"{word.text}{since}", style, word.colour)
    if row.sentence:
        yield from _field("", row.sentence, style)
    if row.requested:
        yield from _field("Asked for", row.requested, style)
    if row.skip:
        yield from _field("Opted out", row.skip, style, render.WARN)
    for lock in known.locks:
        held = f"for {render.since(lock.acquired, now)}"
        if lock is known.own_lock:
            yield from _field("Lock", f"it holds {lock.name} {held}", style)
        elif not lock.is_free:
            yield from _field("Lock", f"{lock.name} is held by {lock.holder} {held}", style)
    if known.pause.active:
        yield from _field("Paused", known.pause.sentence, style, render.WARN)


def _agent(known: Facts) -> str:
    row, pod = known.row, known.pod
    said = f"version {row.version}, policy {row.policy}; " if row.version else ""
    if pod.ready is None:
        return f"{said}pods cannot be listed: {pod.trouble}"
    if not pod.name:
        return f"{said}no pod here"
    return f"{said}pod {pod.name} is ready" if pod.ready else f"{said}pod {pod.name} is not ready: {pod.trouble}"


def _findings(known: Facts, style: Style) -> Iterator[str]:
    row = known.row
    if not row.findings:
        return
    yield ""
    yield style.paint("Findings", render.BOLD)
    for one in row.findings:
        word = "UNKNOWN" if one.status is Status.UNKNOWN else one.severity.value.upper()
        lead = "  " + style.paint(f"{word:<8}", overview.colour_of(one)) + "  "
        expected = f" (expected {one.expected})" if one.expected and one.status is Status.FAIL else ""
        yield from style.wrap(printable(f"{one.id}: {one.observed}{expected}"), lead=lead, indent=12)
        if one.remediation:
            yield from style.wrap(
                printable(one.remediation), lead=" " * 12 + style.paint("->", render.FAINT) + " ", indent=15
            )
    if row.more:
        yield f"  and {row.more} more, for which the Node has no room: see the agent's log"


def _field(name: str, text: str, style: Style, colour: str = "") -> list[str]:
    """A name and its value; the value is painted, and wrapped below itself."""
    lead = style.paint(f"{name:<{_LABEL}}", render.BOLD if name else "")
    plain = Style(style.colour, style.width)
    lines = plain.wrap("  ".join(printable(part) for part in text.split("  ")), lead="", indent=_LABEL)
    painted = [style.paint(line.strip(), colour) for line in lines]
    return [lead + painted[0], *(" " * _LABEL + line for line in painted[1:])]


def document(known: Facts) -> dict[str, Any]:
    """For programs."""
    row = known.row
    return {
        **overview.node(row),
        "summary": known.summary,
        "lastChange": known.last_change,
        "agent": {"pod": known.pod.name, "ready": known.pod.ready, "trouble": known.pod.trouble},
        "findings": [overview.finding_document(one) for one in row.findings],
        "history": [reboots.document(row.name, one) for one in row.history],
    }
