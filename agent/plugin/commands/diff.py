"""`diff NODE`: a node against what the policy requires, a finding at a time, as diff shows files."""

from __future__ import annotations

import argparse
import itertools
from collections.abc import Iterator
from typing import Any

from agent.config.schema import Pool
from agent.errors import UsageError
from agent.model import Status
from agent.plugin.cluster import nodes
from agent.plugin.cluster.nodes import FindingRow, Keep, NodeRow
from agent.plugin.diagnosis.advice import command
from agent.plugin.session import NOT_WELL, OK, Command, Session, add_node
from agent.plugin.views import fleet, table
from agent.report.compliance import ComplianceStatus
from agent.terminal import Style

_IS, _SHOULD = "31", "32"
_INDENT = 4


def _run(options: argparse.Namespace, session: Session) -> int:
    row = nodes.row(nodes.get(session.kube, options.node), Pool(), Keep(findings=True))
    if row.compliance is None:
        raise UsageError(f"no agent ever checked {row.name}: {command('why', row.name)}")
    session.show(lambda: _document(row), lambda: "\n".join(_lines(row, session.style)))
    return OK if row.compliance is ComplianceStatus.HARDENED else NOT_WELL


def _document(row: NodeRow) -> dict[str, Any]:
    differences = [fleet.finding_document(one) for one in row.findings]
    return {
        "node": row.name, "policy": row.policy, "status": row.compliance, "differences": differences,
        "notListed": row.more,
    }  # fmt: skip


def _lines(row: NodeRow, style: Style) -> Iterator[str]:
    if row.compliance is ComplianceStatus.HARDENED:
        yield style.paint(f"{row.name} complies with policy {row.policy}.", table.GOOD)
        return
    parts = [f"{number} {word}" for number, word in ((row.failing, "failed"), (row.unknown, "unknown")) if number]
    yield f"--- {row.name}, as reported by its agent ({row.compliance})"
    yield f"+++ policy {row.policy}" + (f": {', '.join(parts)}" if parts else "")
    for one, after in itertools.zip_longest(row.findings, row.findings[1:]):
        yield ""
        yield style.paint(f"{one.label}  [{one.severity.value}]", table.BOLD)
        yield from _sides(one, style)
        # The same step for several in a row is below the last of them.
        if one.remediation and (after is None or after.remediation != one.remediation):
            yield from table.step(one.remediation, style, indent=_INDENT)
    if row.more:
        yield ""
        yield f"and {row.more} more that did not fit on the Node: see the agent's log on {row.name}"


def _sides(one: FindingRow, style: Style) -> Iterator[str]:
    is_unknown = one.status is Status.UNKNOWN
    sides = [("?" if is_unknown else "-", one.observed or "(nothing)", table.WARN if is_unknown else _IS)]
    if one.expected:
        sides.append(("+", one.expected, _SHOULD))
    for sign, text, colour in sides:
        for number, line in enumerate(style.wrap(text, indent=_INDENT)):
            yield style.paint(f"  {sign} {line}" if number == 0 else line, colour)


COMMAND = Command("diff", "a node against what the policy requires, finding by finding", add_node, _run)
