"""The nodes' own findings, as their agents left them on the Node objects, as reports of findings again. Pure.

What did not fit on a Node is missing, and counted; a node without an agent is unknown, never a pass.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agent.model import Finding, Report, Severity, Status, worst_first
from agent.plugin.audit.titles import title_of
from agent.plugin.cluster.nodes import FindingRow, NodeRow
from agent.plugin.views.table import count
from agent.report import benchmark
from agent.text import join_limited

_NAMES_SHOWN = 3


def report_of(row: NodeRow) -> Report:
    """One node's report."""
    found = [_finding(one, row) for one in (*row.findings, *row.checks)]
    if row.compliance is None:
        found.append(_unknown("no agent ever checked this node", Severity.HIGH))
    elif _is_old(row):
        found.append(_unknown("the node or its agent is silent: what it reported is old", Severity.HIGH))
    if row.more:
        found.append(
            _unknown(f"{count(row.more, 'finding')} did not fit on the Node: see its agent's log", Severity.LOW)
        )
    return Report(row.name, tuple(found))


def _is_old(row: NodeRow) -> bool:
    return bool(row.silent_since) or row.ready is not True


def _finding(one: FindingRow, row: NodeRow) -> Finding:
    status, observed = one.status, one.observed
    if status is Status.PASS:
        by = f"agent {row.version or 'of unknown version'}, policy {row.policy[:8] or 'unknown'}"
        is_current = row.compliance is not None and not _is_old(row)
        status, observed = (
            (Status.PASS, f"verified by {by}")
            if is_current
            else (Status.UNKNOWN, f"passed by {by}, in a report that is too old")
        )
    return benchmark.numbered(Finding(
        one.id, one.id.partition("/")[0], one.title or title_of(one.id), status, one.severity,
        observed, one.expected, "Node", one.remediation,
    ))  # fmt: skip


def _unknown(observed: str, severity: Severity) -> Finding:
    return Finding(
        "agent/report", "agent", "The agent's report is complete and current", Status.UNKNOWN, severity, observed,
        "every finding, of this hour", "Node", "kubectl node-hardening status lists the nodes and their agents.",
    )  # fmt: skip


def merged(reports: Sequence[Report]) -> Report:
    """All nodes in one report: a finding for each check and status, with the nodes that have it."""
    by_result: dict[tuple[str, Status], list[tuple[str, Finding]]] = {}
    for report in reports:
        for finding in report.findings:
            by_result.setdefault((finding.id, finding.status), []).append((report.node, finding))
    findings = [_merged(some, len(reports)) for some in by_result.values()]
    return Report(f"fleet of {count(len(reports), 'node')}", worst_first(findings), is_node=False)


def _merged(some: Sequence[tuple[str, Finding]], nodes: int) -> Finding:
    first = some[0][1]
    names = join_limited((name for name, _ in some), _NAMES_SHOWN)
    where = f"{len(some):,} of {count(nodes, 'node')}" + (f": {names}" if len(some) < nodes else "")
    observed = join_limited((finding.observed for _, finding in some), 2, 200)
    text = f"{observed} ({where})" if observed else where
    return replace(first, observed=text, source="")
