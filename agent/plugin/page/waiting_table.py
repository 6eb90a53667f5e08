"""Why reboots wait: nodes that are blocked by the same thing, with its next step. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from agent.plugin.cluster.node_context import AgentPod, NodeContext
from agent.plugin.cluster.nodes import UNDER_WAY, NodeRow
from agent.plugin.diagnosis import obstacles
from agent.plugin.diagnosis.advice import Advice
from agent.plugin.diagnosis.underway import under_way
from agent.plugin.page.aggregate import NodeNames, grouped, names_of
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
    holders = {row.name: row for row in seen.rows if row.uid in {lock.holder_uid for lock in seen.locks if lock.holder}}
    waiting = [row for row in seen.rows if row.wants_reboot and row.phase not in UNDER_WAY]
    advised = [(advice, row) for row in waiting if (advice := _advice(row, seen, holders)) is not None]
    found = [
        _wait(some[0][0], [row for _, row in some]) for some in grouped(advised, lambda pair: pair[0].message).values()
    ]
    found.sort(key=lambda wait: (-wait.nodes.total, wait.since))
    return tuple(found[:_KEPT]), sum(wait.nodes.total for wait in found[_KEPT:])


def _wait(advice: Advice, rows: Sequence[NodeRow]) -> Wait:
    since = min((row.since for row in rows if row.since), default=0.0)
    return Wait(advice.code, advice.message, advice.next, names_of(rows), since)


def _advice(row: NodeRow, seen: Fleet, holders: Mapping[str, NodeRow]) -> Advice | None:
    around = NodeContext(
        row, "", "", seen.rules, AgentPod(),
        tuple(lock for lock in seen.locks if lock.pool == row.pool or lock.holder_uid == row.uid),
        seen.locks_problem, holders, seen.pause, seen.now, seen.namespace,
    )  # fmt: skip
    if row.is_outdated:
        return obstacles.outdated(around)
    return under_way(around) if row.phase is Phase.ROLLED_BACK else obstacles.of(around)
