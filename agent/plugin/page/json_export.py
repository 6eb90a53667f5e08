"""What is on the page, for programs: `report -o json`. Pure."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

from agent import __version__
from agent.plugin.page import hardening
from agent.plugin.page.aggregate import Named, Snapshot
from agent.plugin.page.output import GENERATOR
from agent.plugin.page.summary import judge
from agent.plugin.page.waiting_table import waits
from agent.plugin.views import fleet as overview
from agent.plugin.views import history as past
from agent.plugin.views import table as render


def data(shot: Snapshot) -> dict[str, object]:
    """The same for programs. Lists of nodes are cut as they are on the page; `total` counts all."""
    found = judge(shot)
    heading, seen = shot.heading, shot.seen
    whole = overview.document(replace(seen, rows=()))
    rows, _ = hardening.listed(seen)
    return {
        "generator": f"{GENERATOR} {__version__}",
        "title": heading.title,
        "context": heading.context or None,
        "kubernetes": heading.server or None,
        "author": heading.author or None,
        "selector": heading.selector,
        "at": render.rfc3339(heading.moment),
        "verdict": {
            "standing": found.tone.value,
            "headline": found.headline,
            "points": [{"standing": one.tone.value, "said": one.said, "next": one.step} for one in found.points],
            "unknown": list(found.untold),
        },
        "counts": {**overview.counts(seen.rows), "total": len(seen.rows)},
        "reboots": overview.phases(seen.rows),
        "locks": whole["locks"] if not seen.locks_problem else None,
        "pause": whole["pause"],
        **_lists(shot),
        "nodes": [overview.node(row) for row in rows],
    }


def _lists(shot: Snapshot) -> dict[str, Any]:
    """Lists of nodes are cut, `total` counts all."""
    found, left = waits(shot.seen)
    return {
        "findings": [
            {
                "id": group.id,
                "control": group.control,
                "status": group.status.value,
                "severity": group.severity.value,
                "values": [asdict(one) for one in group.values],
                "otherValues": group.other_values,
                "remediation": group.remediation,
                "nodes": _named(group.nodes),
            }
            for group in shot.groups
        ],
        "findingsNotListed": shot.unlisted,
        "waiting": [
            {
                "said": wait.said,
                "next": list(wait.next),
                "since": render.rfc3339(wait.since),
                "nodes": _named(wait.nodes),
            }
            for wait in found
        ],
        "waitingNotListed": left,
        "history": [past.document(name, one) for name, one in shot.past.last],
        "historyTotal": shot.past.total,
        "policies": [{"version": mix.version, "policy": mix.policy, "nodes": _named(mix.nodes)} for mix in shot.mixes],
    }


def _named(some: Named) -> dict[str, Any]:
    return {"total": some.total, "names": list(some.names)}
