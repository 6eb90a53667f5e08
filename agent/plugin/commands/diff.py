"""`diff NODE`: what a node is against what the policy asks for, a finding at a time, as diff shows files."""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from agent.errors import UsageError
from agent.model import Status
from agent.plugin.cluster import nodes as fleet
from agent.plugin.cluster import policy
from agent.plugin.cluster.nodes import FindingRow, Keep, NodeRow
from agent.plugin.session import NOT_WELL, OK, Command, Session, add_node
from agent.plugin.views import fleet as overview
from agent.plugin.views import table as render
from agent.report.node_status import ComplianceStatus
from agent.terminal import Style, printable

_IS, _SHOULD = "31", "32"
_INDENT = 4


def _configure(parser: argparse.ArgumentParser) -> None:
    add_node(parser)


def _run(options: argparse.Namespace, session: Session) -> int:
    pool = policy.read(session.kube, session.namespace).pool
    row = fleet.row(fleet.get(session.kube, options.node), pool, Keep(findings=True))
    if row.standing is None:
        raise UsageError(f"no agent ever looked at {row.name}: kubectl node-hardening why {row.name}")
    if session.form.is_document:
        session.document(
            {
                "node": row.name,
                "policy": row.policy,
                "status": row.standing.value,
                "differences": [overview.finding_document(one) for one in row.findings],
                "notListed": row.more,
            }
        )
    else:
        session.write("\n".join(_lines(row, session.style)))
    return OK if row.standing is ComplianceStatus.HARDENED else NOT_WELL


def _lines(row: NodeRow, style: Style) -> Iterator[str]:
    if row.standing is ComplianceStatus.HARDENED:
        yield style.paint(f"{row.name} is as the policy {row.policy} asks for.", render.GOOD)
        return
    parts = [
        f"{number} {word}" for number, word in ((row.failing, "differ"), (row.unknown, "cannot be told")) if number
    ]
    told = f": {', '.join(parts)}" if parts else ""
    yield f"--- {row.name}, as its agent found it ({row.standing})"
    yield f"+++ policy {row.policy}{told}"
    for one in row.findings:
        yield ""
        yield style.paint(f"{one.id}  ({one.severity.value})", render.BOLD)
        yield from _sides(one, style)
        if one.remediation:
            lead = " " * _INDENT + style.paint("->", render.FAINT) + " "
            yield from style.wrap(printable(one.remediation), lead=lead, indent=_INDENT + 3)
    if row.more:
        yield ""
        yield f"and {row.more} more, for which the Node has no room: see the agent's log on {row.name}"


def _sides(one: FindingRow, style: Style) -> Iterator[str]:
    is_unknown = one.status is Status.UNKNOWN
    sides = [("?" if is_unknown else "-", one.observed or "(nothing)", render.WARN if is_unknown else _IS)]
    if one.expected:
        sides.append(("+", one.expected, _SHOULD))
    for sign, text, colour in sides:
        for number, line in enumerate(style.wrap(printable(text), indent=_INDENT)):
            yield style.paint(f"  {sign} {line}" if number == 0 else line, colour)


COMMAND = Command("diff", "what a node is against what the policy asks for, finding by finding", _configure, _run)
