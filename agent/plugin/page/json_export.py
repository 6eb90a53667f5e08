"""What is on the page, for programs: `report -o json`. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from agent import __version__
from agent.plugin.page import summary
from agent.plugin.page.aggregate import Snapshot
from agent.plugin.page.output import GENERATOR
from agent.plugin.page.waiting_table import waiting_table
from agent.plugin.views import clusters, fleet, history, table
from agent.plugin.views.clusters import ClusterRow


def export(shot: Snapshot) -> dict[str, object]:
    """The same for programs. Lists of nodes are cut as they are on the page; `total` counts all."""
    found = summary.summarize(shot)
    heading, seen = shot.heading, shot.fleet
    whole = fleet.document(replace(seen, rows=()))
    rows, _ = summary.listed(seen)
    return {
        **_head(shot),
        "context": heading.context or None,
        "kubernetes": heading.server or None,
        "author": heading.author or None,
        "summary": {
            "status": found.tone,
            "headline": found.headline,
            "points": [{"status": one.tone, "message": one.message, "next": one.step} for one in found.points],
            "unknown": found.unknown,
        },
        "counts": {**fleet.counts(seen.rows), "total": len(seen.rows)},
        "reboots": fleet.phases(seen.rows),
        "locks": whole["locks"] if not seen.locks_problem else None,
        "pause": whole["pause"],
        **_lists(shot),
        "cluster": shot.cluster.document() if shot.cluster else None,
        "nodes": [fleet.node(row) for row in rows],
    }


def export_clusters(shot: Snapshot, rows: Sequence[ClusterRow]) -> dict[str, object]:
    """Several clusters; a node in a list of names is CONTEXT/NODE."""
    lists = _lists(shot)
    return {
        **_head(shot),
        "clusters": [clusters.document(row) for row in rows],
        **{key: lists[key] for key in ("findings", "findingsNotListed", "history", "historyTotal", "policies")},
    }


def _head(shot: Snapshot) -> dict[str, Any]:
    heading = shot.heading
    return {
        "generator": f"{GENERATOR} {__version__}", "title": heading.title, "selector": heading.selector,
        "at": table.rfc3339(heading.moment),
    }  # fmt: skip


def _lists(shot: Snapshot) -> dict[str, Any]:
    waits, left = waiting_table(shot.fleet)
    findings = [
        {
            "id": group.id, "title": group.title, "control": group.control,
            "status": group.status, "severity": group.severity,
            "values": [asdict(one) for one in group.values], "otherValues": group.other_values,
            "remediation": group.remediation, "nodes": asdict(group.nodes),
        }
        for group in shot.groups
    ]  # fmt: skip
    checks = [
        {
            "id": group.id, "status": group.status, "nodes": group.nodes.total,
            "reasons": [one.observed for one in group.values if one.observed],
        }
        for group in shot.checks
    ]  # fmt: skip
    waiting = [
        {
            "code": wait.code, "message": wait.message, "next": wait.next, "since": table.rfc3339(wait.since),
            "nodes": asdict(wait.nodes),
        }
        for wait in waits
    ]  # fmt: skip
    return {
        "findings": findings, "findingsNotListed": shot.unlisted,
        "checks": checks,
        "waiting": waiting, "waitingNotListed": left,
        "history": [history.document(name, one) for name, one in shot.past.last], "historyTotal": shot.past.total,
        "policies": [asdict(mix) for mix in shot.mixes],
    }  # fmt: skip
