"""`status NODE`: everything that one node shows, most relevant first. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agent.model import Status
from agent.plugin.cluster.node_context import NodeContext
from agent.plugin.diagnosis.advice import command
from agent.plugin.views import fleet, history, table
from agent.reboot.phases import Phase
from agent.terminal import Style

_LABEL = 11


def text(context: NodeContext, style: Style) -> str:
    """As text."""
    return "\n".join(_lines(context, style))


def _lines(context: NodeContext, style: Style) -> Iterator[str]:
    row = context.row
    yield from _hardening(context, style)
    yield from _findings(context, style)
    yield ""
    yield from _reboot(context, style)
    if row.history:
        yield ""
        yield style.paint("Past reboots", table.BOLD)
        yield from history.table([(row.name, one) for one in row.history], style, named=False).rstrip("\n").split("\n")
    if not row.is_well or context.pod.ready is False or row.wants_reboot or row.phase is Phase.UNKNOWN:
        yield ""
        yield f"{style.paint('->', table.FAINT)} {command('why', row.name)}"


def _hardening(context: NodeContext, style: Style) -> Iterator[str]:
    row = context.row
    where = f"{row.name}  ({row.pool}, {fleet.condition(row).text}, kernel {row.kernel or 'unknown'})"
    yield from _field("Node", where, style)
    yield from _field("Agent", _agent(context), style, "" if context.pod.ready is not False else table.WARN)
    word = fleet.hardened(row)
    yield from _field("Status", word.text, style, word.colour)
    if row.silent_since:
        silent = table.since(row.silent_since, context.now)
        text = f"the agent has not reported for {silent}; what follows is its last report"
        yield from _field("", text, style, table.WARN)
    if row.config_problem:
        text = f"rejected, last valid configuration in use: {row.config_problem}"
        yield from _field("Config", text, style, table.WARN)
    held = context.rollout
    if held.phase and held.target != held.revision:
        text = f"changed policy {held.target} is held back: {held.phase}; {command('rollout', 'status')}"
        yield from _field("Policy", text, style, table.WARN)
    for sentence in context.summary.split(". "):
        if sentence:
            yield from _field("", f"{sentence.rstrip('.')}.", style)
    if context.last_change:
        yield from _field("Changed", context.last_change, style)


def _reboot(context: NodeContext, style: Style) -> Iterator[str]:
    row, now = context.row, context.now
    own = context.own_lock
    word = fleet.reboot(row, stuck=own is not None and own.is_stuck(now, context.rules.reboot))
    since = f" for {table.since(row.since, now)}" if row.since and row.wants_reboot else ""
    yield from _field("Reboot", f"{word.text}{since}", style, word.colour)
    if row.is_outdated:
        yield from _field("", "agent too old to report details", style, table.WARN)
    if row.message:
        yield from _field("", row.message, style)
    if row.requested:
        yield from _field("Requested", row.requested, style)
    if row.skip:
        yield from _field("Opted out", row.skip, style, table.WARN)
    for lock in context.locks:
        held = f"for {table.since(lock.acquired, now)}"
        if lock is own:
            yield from _field("Lock", f"holds {lock.name} {held}", style)
        elif not lock.is_free:
            yield from _field("Lock", f"{lock.name} is held by {lock.shown_holder} {held}", style)
    if context.pause.active:
        yield from _field("Paused", context.pause.sentence or "until resumed", style, table.WARN)


def _agent(context: NodeContext) -> str:
    row, pod = context.row, context.pod
    version = f"version {row.version}, policy {row.policy}; " if row.version else ""
    if pod.ready is None:
        return f"{version}pods cannot be listed: {pod.trouble}"
    if not pod.name:
        return f"{version}no pod here"
    return f"{version}pod {pod.name} is ready" if pod.ready else f"{version}pod {pod.name} is not ready: {pod.trouble}"


def _findings(context: NodeContext, style: Style) -> Iterator[str]:
    row = context.row
    if not row.findings:
        return
    yield ""
    yield style.paint("Findings", table.BOLD)
    for one in row.findings:
        word = "UNKNOWN" if one.status is Status.UNKNOWN else one.severity.value.upper()
        lead = "  " + style.paint(f"{word:<8}", fleet.colour_of(one)) + "  "
        expected = f" (expected {one.expected})" if one.expected and one.status is Status.FAIL else ""
        yield from style.wrap(f"{one.label}: {one.observed}{expected}", lead=lead, indent=12)
        if one.remediation:
            yield from table.step(one.remediation, style, indent=12)
    if row.more:
        yield f"  and {row.more} more that did not fit on the Node: see the agent's log"


def _field(name: str, text: str, style: Style, colour: str = "") -> list[str]:
    """A name and its value; the value is painted, and wrapped below itself."""
    lead = style.paint(f"{name:<{_LABEL}}", table.BOLD if name else "")
    lines = Style(style.colour, style.width).wrap(text, lead="", indent=_LABEL)
    painted = [style.paint(line.strip(), colour) for line in lines]
    return [lead + painted[0], *(" " * _LABEL + line for line in painted[1:])]


def document(context: NodeContext) -> dict[str, Any]:
    """For programs."""
    row, pod = context.row, context.pod
    return {
        **fleet.node(row),
        "summary": context.summary,
        "lastChange": context.last_change,
        "agent": {"pod": pod.name, "ready": pod.ready, "trouble": pod.trouble},
        "findings": [fleet.finding_document(one) for one in row.findings],
        "history": [history.document(row.name, one) for one in row.history],
    }
