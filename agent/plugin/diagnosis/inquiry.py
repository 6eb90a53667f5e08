"""What would hold a reboot of one node back now, asked with the agents' own rooms, before any agent has said a word.

`why` reads what an agent says; a reboot that is only about to be asked for has nobody to say it yet. Alerts in
Prometheus are for the agent to ask. It refuses to say that nothing stands in the way where something could not be
looked at: that is told as unknown.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from agent.config.schema import Mode, Prometheus, Reboot
from agent.errors import AgentError, KubeError
from agent.kube import NODES
from agent.plugin.cluster.locks import Lock
from agent.plugin.cluster.nodes import PAGE_SIZE, NodeRow
from agent.plugin.cluster.policy import Policy
from agent.plugin.session import Session
from agent.plugin.views.table import age, since, stamp
from agent.reboot.blockers import make_blockers
from agent.reboot.kube.views import member
from agent.reboot.lock.pools import budget, usable_slots
from agent.reboot.state import Phase


@dataclass(frozen=True, slots=True)
class Wall:
    """The session's time as the rooms of reboots want it; they only ever ask for wall time here."""

    now: Callable[[], float]

    def wall(self) -> float:
        """Epoch seconds."""
        return self.now()

    def monotonic(self) -> float:
        """Of no meaning to anybody else."""
        return self.now()


def held_back_by(session: Session, row: NodeRow, policy: Policy, locks: Sequence[Lock]) -> tuple[str, ...]:
    """Everything that is seen, a sentence each, the most basic first. Never raises KubeError."""
    return tuple(_all(session, row, policy, locks))


def _all(session: Session, row: NodeRow, policy: Policy, locks: Sequence[Lock]) -> Iterator[str]:
    yield from by_node(row)
    if policy.config is None:
        yield f"unknown: the agents' configuration cannot be told ({policy.problem}), nor windows, mode and budget"
        return
    reboot = policy.config.reboot
    if reboot.mode is not Mode.ENFORCE:
        yield f"reboot.mode is {reboot.mode.value}: the agents only say what they would do"
    yield from _by_blockers(session, row, reboot)
    yield from by_locks(row, reboot, [lock for lock in locks if lock.pool == row.pool], session.now())
    yield from _by_budget(session, row, reboot, locks)
    if reboot.blockers.prometheus.url:
        yield f"unknown from here: alerts in Prometheus ({reboot.blockers.prometheus.url}), which the agent asks"


def by_node(row: NodeRow) -> Iterator[str]:
    """What the Node itself says. Pure."""
    if not row.version:
        yield "no agent reports on this node: nobody would act"
    if row.ready is not True:
        yield f"the node is {'not Ready' if row.ready is False else 'not heard of'}: its agent may not be running"
    if row.skip:
        yield f"opted out on the node: {row.skip} (kubectl node-hardening skip {row.name} --off)"
    if row.phase is Phase.FAILED:
        yield f"back-off after a failure: {row.sentence}"
    if row.config_problem:
        yield f"its agent has refused the newest configuration and works by an older one: {row.config_problem}"


def by_locks(row: NodeRow, reboot: Reboot, slots: Sequence[Lock], now: float) -> Iterator[str]:
    """Every slot taken, or the pool at rest. slots: of the node's pool. Pure."""
    usable = usable_slots(reboot)
    others = [lock for lock in slots if lock.slot < usable and not lock.is_free and lock.holder != row.name]
    if len(others) >= usable:
        for lock in others:
            stuck = ", which went down and did not come back (kubectl node-hardening unlock)" if lock.is_stuck else ""
            yield f"lock {lock.name} is held by {lock.holder} for {since(lock.acquired, now)}{stuck}"
    gap = reboot.blockers.minimum_gap
    rest = max((lock.view.last_reboot for lock in slots), default=0.0) + gap - now
    if gap > 0 and rest > 0:
        yield f"the pool rests after its last reboot until {stamp(now + rest)} (in {age(rest)})"


def _by_blockers(session: Session, row: NodeRow, reboot: Reboot) -> Iterator[str]:
    """Windows, pause, kured, pods: the very rooms that the agent asks, but for Prometheus."""
    blockers = dataclasses.replace(reboot.blockers, prometheus=Prometheus())
    asked = dataclasses.replace(reboot, blockers=blockers)
    clock = Wall(session.now)
    for blocker in make_blockers(asked, session.kube, node=row.name, namespace=session.namespace, clock=clock):
        try:
            verdict = blocker.check()
        except AgentError as error:
            yield f"unknown: {blocker.name}: {error}"
            continue
        if verdict.blocked:
            yield verdict.by


def _by_budget(session: Session, row: NodeRow, reboot: Reboot, locks: Sequence[Lock]) -> Iterator[str]:
    """The pool's unavailability, counted as the one that is about to take the lock counts it."""
    holders = [lock.view.holder for lock in locks if lock.pool == row.pool and not lock.is_free]
    others = [holder for holder in holders if holder.rpartition("/")[0] != row.name]
    try:
        members = (member(found) for found in session.kube.list(NODES, page_size=PAGE_SIZE))
        found = budget(members, row.name, reboot, row.pool, others)
    except KubeError as error:
        yield f"unknown: how many nodes of the pool are unavailable: {error}"
        return
    if not found.fits:
        yield found.why
