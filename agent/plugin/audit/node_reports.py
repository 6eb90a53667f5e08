"""The nodes' own findings, as their agents left them on the Node objects, as reports of findings again. Pure.

What did not fit on a Node is missing, and counted; a node without an agent is unknown, never a pass.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.model import Finding, Report, Severity, Status, worst_first
from agent.plugin.cluster.nodes import FindingRow, NodeRow
from agent.plugin.views.table import count
from agent.report import benchmark
from agent.text import join_limited

_NAMES_SHOWN = 3


def report_of(row: NodeRow) -> Report:
    """One node's report."""
    found = [_finding(one) for one in (*row.findings, *row.checks)]
    if row.compliance is None:
        found.append(_unknown("no agent ever checked this node", Severity.HIGH))
    elif row.silent_since or row.ready is not True:
        found.append(_unknown("the node or its agent is silent: what it reported is old", Severity.HIGH))
    if row.more:
        found.append(
            _unknown(f"{count(row.more, 'finding')} did not fit on the Node: see its agent's log", Severity.LOW)
        )
    return Report(row.name, tuple(found))


def _finding(row: FindingRow) -> Finding:
    return benchmark.numbered(Finding(
        row.id, row.id.partition("/")[0], row.title or benchmark.title_of(row.id), row.status, row.severity,
        row.observed, row.expected, "Node", row.remediation,
    ))  # fmt: skip


def _unknown(observed: str, severity: Severity) -> Finding:
    return Finding(
        "agent/report", "agent", "The agent's report is complete and current", Status.UNKNOWN, severity, observed,
        "every finding, of this hour", "Node", "kubectl node-hardening status lists the nodes and their agents.",
    )  # fmt: skip


def merged(reports: Sequence[Report]) -> Report:
    """All nodes in one report: a finding for each check and status, with the nodes that have it."""
    # A Node has titles of what did not pass alone; what passed elsewhere takes them from there.
    titles = {
        finding.id: finding.title for report in reports for finding in report.findings
        if finding.title and finding.status in (Status.FAIL, Status.UNKNOWN)
    }  # fmt: skip
    by_result: dict[tuple[str, Status], list[tuple[str, Finding]]] = {}
    for report in reports:
        for finding in report.findings:
            by_result.setdefault((finding.id, finding.status), []).append((report.node, finding))
    findings = [_merged(some, titles.get(some[0][1].id, some[0][1].title), len(reports)) for some in by_result.values()]
    return Report(f"fleet of {count(len(reports), 'node')}", worst_first(findings), is_node=False)


def _merged(some: Sequence[tuple[str, Finding]], title: str, nodes: int) -> Finding:
    first = some[0][1]
    names = join_limited((name for name, _ in some), _NAMES_SHOWN)
    where = f"{len(some):,} of {count(nodes, 'node')}" + (f": {names}" if len(some) < nodes else "")
    observed = join_limited((finding.observed for _, finding in some), 2, 200)
    text = f"{observed} ({where})" if observed else where
    return Finding(
        first.id, first.control, title, first.status, first.severity, text, first.expected, "",
        first.remediation, cis=first.cis, section=first.section,
    )  # fmt: skip
