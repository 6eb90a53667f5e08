"""Why reboots wait: nodes that are held back by the same thing, with its next step. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from agent.plugin.cluster.node_context import AgentPod, Facts
from agent.plugin.cluster.nodes import NodeRow
from agent.plugin.diagnosis import obstacles
from agent.plugin.page.aggregate import Named, named
from agent.plugin.sentences import Hold, understand
from agent.plugin.views.fleet import Overview
from agent.reboot.state import Phase

_KEPT = 40
# How far a reboot is, rather than what holds it back.
_GOES_ON = frozenset(
    {Hold.NOTHING, Hold.OFF, Hold.CORDONED, Hold.DRAINING, Hold.REBOOTING, Hold.VERIFYING, Hold.RELEASING}
)


@dataclass(frozen=True, slots=True)
class Wait:
    """Nodes that wait for one thing. said: what, in words. next: what to type. since: of the longest, 0: unknown."""

    said: str
    next: tuple[str, ...]
    nodes: Named
    since: float


def waits(seen: Overview) -> tuple[tuple[Wait, ...], int]:
    """The most nodes first; and how many nodes wait for things that there was no room for."""
    by_said: dict[str, list[NodeRow]] = {}
    steps: dict[str, tuple[str, ...]] = {}
    left = 0
    holders = {row.name: row for row in _holders(seen)}
    for row in seen.rows:
        if not row.wants_reboot or row.is_down or row.phase is Phase.LOCKED:
            continue
        reason = _reason(row, seen, holders)
        if reason is None:
            continue
        words, step = reason
        if words not in by_said and len(by_said) >= _KEPT:
            left += 1
            continue
        by_said.setdefault(words, []).append(row)
        steps.setdefault(words, step)
    found = [
        Wait(words, steps[words], named(rows), min((row.since for row in rows if row.since), default=0.0))
        for words, rows in by_said.items()
    ]
    return tuple(sorted(found, key=lambda wait: (-wait.nodes.total, wait.since))), left


def _reason(row: NodeRow, seen: Overview, holders: dict[str, NodeRow]) -> tuple[str, tuple[str, ...]] | None:
    said = understand(row.sentence)
    if said.hold in _GOES_ON:
        return None
    around = Facts(
        row, None, "", "", seen.rules, AgentPod(),
        tuple(lock for lock in seen.locks if lock.pool == row.pool or lock.holder_uid == row.uid),
        seen.locks_problem, holders, seen.pause, seen.now, seen.namespace,
    )  # fmt: skip
    reason = obstacles.of(around, said)
    if reason is None:
        return None
    return reason.said, reason.next


def _holders(seen: Overview) -> Iterator[NodeRow]:
    uids = {lock.holder_uid for lock in seen.locks if not lock.is_free}
    return (row for row in seen.rows if row.uid in uids)
