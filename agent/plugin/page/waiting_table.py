"""Why reboots wait: nodes that are blocked by the same thing, with its next step. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.plugin.cluster.node_context import AgentPod, NodeContext
from agent.plugin.cluster.nodes import UNDER_WAY, NodeRow
from agent.plugin.diagnosis import obstacles
from agent.plugin.diagnosis.advice import Advice
from agent.plugin.diagnosis.underway import under_way
from agent.plugin.page.aggregate import NodeNames, names_of
from agent.plugin.views.fleet import Fleet
from agent.reboot.phases import Phase

_KEPT = 40


@dataclass(frozen=True, slots=True)
class Wait:
    """Nodes that wait for one thing. next: what to type. since: of the longest, 0: unknown."""

    code: str
    message: str
    next: tuple[str, ...]
    nodes: NodeNames
    since: float


def waiting_table(seen: Fleet) -> tuple[tuple[Wait, ...], int]:
    """The most nodes first; and how many nodes wait for things that are left out."""
    by_message: dict[str, tuple[Advice, list[NodeRow]]] = {}
    left = 0
    holders = {row.name: row for row in seen.rows if row.uid in {lock.holder_uid for lock in seen.locks if lock.holder}}
    for row in seen.rows:
        if not row.wants_reboot or row.phase in UNDER_WAY:
            continue
        advice = _advice(row, seen, holders)
        if advice is None:
            continue
        if advice.message not in by_message and len(by_message) >= _KEPT:
            left += 1
            continue
        by_message.setdefault(advice.message, (advice, []))[1].append(row)
    found = [
        Wait(
            one.code, one.message, one.next, names_of(some), min((row.since for row in some if row.since), default=0.0)
        )
        for one, some in by_message.values()
    ]
    return tuple(sorted(found, key=lambda wait: (-wait.nodes.total, wait.since))), left


def _advice(row: NodeRow, seen: Fleet, holders: Mapping[str, NodeRow]) -> Advice | None:
    around = NodeContext(
        row, "", "", seen.rules, AgentPod(),
        tuple(lock for lock in seen.locks if lock.pool == row.pool or lock.holder_uid == row.uid),
        seen.locks_problem, holders, seen.pause, seen.now, seen.namespace,
    )  # fmt: skip
    if row.is_outdated:
        return obstacles.outdated(around)
    return under_way(around) if row.phase is Phase.ROLLED_BACK else obstacles.of(around)
