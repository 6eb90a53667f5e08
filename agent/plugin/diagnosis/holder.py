"""What is known of a lock's holder, and what it would mean to take the lock from it. Pure.

A lock that is taken from a node which is merely slow lets a second one go down beside it, so this room words the risk.
It refuses to call a holder dead on account of its silence: a node that reboots is silent too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from agent.config.schema import Reboot
from agent.plugin.cluster.locks import Lock
from agent.plugin.views.table import age
from agent.reboot.cluster import NodeView
from agent.reboot.lock.pools import allowed_unavailable
from agent.reboot.state import NodeState

_DURATION_SECONDS = 60.0  # lock.leaseDuration's default, for a Lease that does not say
MOST_WATCHED_SECONDS = 30.0
_SPARE_SECONDS = 5.0


class Life(Enum):
    """What the holder is. ALIVE and FRESH may still reboot under this very lock."""

    GONE = auto()  # its Node is gone, or another one by that name
    ALIVE = auto()  # seen to renew the lease while we watched
    FRESH = auto()  # not seen to, but by its own clock it renewed too lately to be called silent
    SILENT = auto()


@dataclass(frozen=True, slots=True)
class Holder:
    """A held lock and its holder, as they were seen.

    node: None when there is none by that name. state: its note, None when it cannot be read. heartbeat: epoch seconds
    of the kubelet's own lease, 0 for unknown. changed: the lock's Lease changed while it was watched for so many
    seconds. now: epoch seconds.
    """

    lock: Lock
    node: NodeView | None
    state: NodeState | None
    heartbeat: float
    changed: bool
    watched_seconds: float
    now: float

    @property
    def life(self) -> Life:
        """Of the agent that holds the lock."""
        if self.node is None or self.node.uid != self.lock.holder_uid:
            return Life.GONE
        if self.changed:
            return Life.ALIVE
        # A clock that runs ahead of ours makes it younger than nothing: no proof of silence either.
        return Life.FRESH if self.now - self.lock.renewed < self.duration_seconds else Life.SILENT

    @property
    def duration_seconds(self) -> float:
        """After which the other agents look after a silent holder."""
        return self.lock.view.duration_seconds or _DURATION_SECONDS

    @property
    def booted(self) -> bool | None:
        """Whether the node runs another boot than the one that the lock was last renewed in; None: cannot be told."""
        if self.node is None or not self.node.boot_id or not self.lock.view.boot:
            return None
        return self.node.boot_id != self.lock.view.boot


def watch_seconds(lock: Lock) -> float:
    """How long a living holder may take to renew: a third of the lease's duration, and a little more."""
    return min((lock.view.duration_seconds or _DURATION_SECONDS) / 3 + _SPARE_SECONDS, MOST_WATCHED_SECONDS)


def facts(holder: Holder) -> Iterator[str]:
    """What is seen, one thing a line."""
    lock, node = holder.lock, holder.node
    phase = "rebooting: it may have given the reboot command" if lock.is_rebooting else "held: it has not rebooted yet"
    yield f"lock {lock.name} (lease {lock.view.name}) is held by {lock.holder}, taken {_ago(lock.acquired, holder.now)}"
    yield f"phase {phase}"
    seen = "changed" if holder.changed else "did not change"
    yield (
        f"renewed {_ago(lock.renewed, holder.now)} by its own clock; "
        f"it {seen} while it was watched for {age(holder.watched_seconds)}"
    )
    if lock.is_stuck:
        yield f"{lock.view.stuck} says that it does not come back"
    if node is None:
        yield f"node {lock.holder} does not exist any more"
        return
    if node.uid != lock.holder_uid:
        yield f"node {lock.holder} is another one by the same name: the holder is gone"
        return
    ready = {True: "Ready", False: "not Ready", None: "not heard of"}[node.ready]
    heart = f", its kubelet was last heard of {_ago(holder.heartbeat, holder.now)}" if holder.heartbeat else ""
    cordoned = ", cordoned" if node.unschedulable else ""
    yield f"node {node.name} is {ready}{cordoned}{heart}"
    boot = {True: "another boot than", False: "the same boot as", None: "nobody can say whether the same boot as"}
    yield f"it runs {boot[holder.booted]} when the lock was last renewed"
    at = f"phase {holder.state.phase.value}" if holder.state is not None else "its note cannot be read"
    yield f"its own note: {at}" + (f", {holder.state.error}" if holder.state and holder.state.error else "")


def risk(holder: Holder) -> str:
    """What may go wrong, in one sentence. Source: agent/reboot/machine/decide.py, who may take a lock over."""
    name = holder.lock.holder
    match holder.life:
        case Life.GONE:
            return (
                "none that is known: the holder does not exist any more, and waiters take its lock over by themselves"
            )
        case Life.ALIVE | Life.FRESH:
            return (
                f"{name} is alive and may be about to go down: two nodes of the pool may be down at once, and its own "
                "cycle is broken off and counted as failed"
            )
        case Life.SILENT if not holder.lock.is_rebooting:
            return (
                f"small: {name} has not rebooted, and cannot any more once the lock is another's; what it drained "
                "comes back when its agent does. Waiters take such a lock over by themselves"
            )
        case _:
            return (
                f"TWO NODES DOWN AT ONCE: {name} may be down, or on its way down or up, at this moment, "
                "and the next node may begin at once"
            )


def follows(holder: Holder, policy: Reboot | None) -> Iterator[str]:
    """What happens afterwards, and what is better than to unlock."""
    name, lock, node = holder.lock.holder, holder.lock, holder.node
    if holder.life is Life.GONE:
        return
    if lock.is_rebooting or (holder.state is not None and holder.state.cordoned):
        yield f"{name}, should it come back, proves itself, lifts its own cordon and releases nothing that is not its"
    if node is None or (node.ready is True and not node.unschedulable):
        return
    state = "not Ready" if node.ready is not True else "cordoned"
    if policy is None:
        yield f"unknown, whether the pool goes on: {name} is {state}, and maxUnavailable cannot be told"
        return
    limit = policy.max_unavailable
    allowed = allowed_unavailable(limit, lock.view.pool_size) if lock.view.pool_size else None
    if limit == "1" or allowed == 1:
        yield (
            f"the pool goes on waiting all the same: {name} is {state} and uses up maxUnavailable {limit}. "
            f"Mend it, or where it is gone for good: kubectl delete node {name} (the lock is then taken over at once)"
        )
    else:
        yield f"{name} is {state} and goes on counting against maxUnavailable {limit}"


def _ago(moment: float, now: float) -> str:
    if moment <= 0:
        return "nobody knows when"
    return f"{age(now - moment)} ago" if now >= moment else f"{age(moment - now)} ahead of this clock"
