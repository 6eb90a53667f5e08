"""What would block a reboot of one node now, evaluated with the agents' own blockers before any agent has reported.

`why` reads what an agent reports; a reboot that is only about to be requested has no report yet. Alerts in Prometheus
are for the agent to query. It refuses to say that nothing blocks where something could not be read: that is unknown.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from agent.config.choices import Mode
from agent.config.schema import Prometheus, Reboot
from agent.errors import AgentError, KubeError
from agent.kube import NODES
from agent.plugin.cluster import values
from agent.plugin.cluster.locks import Lock
from agent.plugin.cluster.nodes import PAGE_SIZE, NodeRow
from agent.plugin.cluster.policy import Policy
from agent.plugin.diagnosis.advice import command
from agent.plugin.session import Session
from agent.plugin.views.table import age, since, stamp
from agent.reboot.blockers import BlockerContext, make_blockers
from agent.reboot.kube.views import node_view
from agent.reboot.lock.pools import budget, usable_slots
from agent.reboot.phases import Phase


@dataclass(frozen=True, slots=True)
class SessionClock:
    """The session's time as blockers take it; they only read wall time here."""

    now: Callable[[], float]

    def wall(self) -> float:
        """Epoch seconds."""
        return self.now()

    def monotonic(self) -> float:
        """No elapsed time is measured here."""
        return self.now()


def blocked_by(session: Session, row: NodeRow, policy: Policy, locks: Sequence[Lock]) -> tuple[str, ...]:
    """Everything that is known, a sentence each, the most basic first. Never raises KubeError."""
    return tuple(values.text(one) for one in _all(session, row, policy, locks))


def _all(session: Session, row: NodeRow, policy: Policy, locks: Sequence[Lock]) -> Iterator[str]:
    yield from by_node(row)
    if policy.config is None:
        yield f"unknown: windows, mode and budget: the agents' configuration {policy.problem}"
        return
    reboot = policy.config.reboot
    if reboot.mode is not Mode.ENFORCE:
        yield f"reboot.mode is {reboot.mode.value}: the agents only report what they would do"
    yield from _by_blockers(session, row, reboot)
    yield from by_locks(row, reboot, [lock for lock in locks if lock.pool == row.pool], session.now())
    yield from _by_budget(session, row, reboot, locks)
    if reboot.blockers.prometheus.url:
        yield f"unknown from here: alerts in Prometheus ({reboot.blockers.prometheus.url}), which the agent queries"


def by_node(row: NodeRow) -> Iterator[str]:
    """What the Node itself shows. Pure."""
    if not row.version:
        yield "no agent reports on this node: nothing would happen"
    if row.ready is not True:
        yield f"the node is {'NotReady' if row.ready is False else 'not reporting'}: its agent may not be running"
    if row.skip:
        yield f"opted out on the node: {row.skip} ({command('skip', row.name, '--off')})"
    if row.phase is Phase.ROLLED_BACK:
        yield f"backing off after a failure: {row.message}"
    if row.config_problem:
        yield f"its agent rejected the newest configuration and keeps using an older one: {row.config_problem}"


def by_locks(row: NodeRow, reboot: Reboot, slots: Sequence[Lock], now: float) -> Iterator[str]:
    """Every slot taken, or the pool's minimum gap. slots: of the node's pool. Pure."""
    usable = usable_slots(reboot, row.pool)
    others = [lock for lock in slots if lock.slot < usable and not lock.is_free and lock.holder != row.name]
    if len(others) >= usable:
        for lock in others:
            unlock = f", which went down and did not come back ({command('unlock', lock.name)})"
            stuck = unlock if lock.is_stuck(now, reboot) else ""
            yield f"lock {lock.name} is held by {lock.shown_holder} for {since(lock.acquired, now)}{stuck}"
    gap = reboot.blockers.minimum_gap
    rest = max((lock.last_reboot for lock in slots), default=0.0) + gap - now
    if gap > 0 and rest > 0:
        yield f"minimum gap after the pool's last reboot, until {stamp(now + rest)} (in {age(rest)})"


def _by_blockers(session: Session, row: NodeRow, reboot: Reboot) -> Iterator[str]:
    """Windows, pause, kured, pods: the blockers that the agent itself evaluates, except Prometheus."""
    blockers = dataclasses.replace(reboot.blockers, prometheus=Prometheus())
    policy = dataclasses.replace(reboot, blockers=blockers)
    clock = SessionClock(session.now)
    for blocker in make_blockers(BlockerContext(policy, session.kube, row.name, session.namespace, clock)):
        try:
            verdict = blocker.check()
        except AgentError as error:
            yield f"unknown: {blocker.name}: {error}"
            continue
        if verdict.blocked:
            yield verdict.by


def _by_budget(session: Session, row: NodeRow, reboot: Reboot, locks: Sequence[Lock]) -> Iterator[str]:
    """The pool's unavailability, counted as a node that is about to acquire the lock counts it."""
    holders = [lock.view.holder for lock in locks if lock.pool == row.pool and lock.holder not in ("", row.name)]
    try:
        members = (node_view(found) for found in session.kube.list(NODES, page_size=PAGE_SIZE))
        found = budget(members, row.name, reboot, row.pool, holders)
    except KubeError as error:
        yield f"unknown: how many nodes of the pool are unavailable: {error}"
        return
    if not found.fits:
        yield found.why
