"""What is known of a lock's holder, and what it would mean to take the lock from it. Pure.

Taking a lock from a node that is merely slow lets a second one go down beside it, so the risk is spelled out here. It
refuses to call a holder dead because it is silent: a node that reboots is silent too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import Enum, auto

from agent.config.schema import Reboot
from agent.plugin.cluster import values
from agent.plugin.cluster.locks import Lock
from agent.plugin.cluster.nodes import NodeRow
from agent.plugin.diagnosis.advice import kubectl
from agent.plugin.views.table import age
from agent.reboot.lock.pools import allowed_unavailable

_DURATION_SECONDS = 60.0  # lock.leaseDuration's default, for a Lease that does not say
_LONGEST_DURATION_SECONDS = 3600.0
MOST_WATCHED_SECONDS = 30.0
_SPARE_SECONDS = 5.0


class HolderLiveness(Enum):
    """What the holder is. ALIVE and FRESH may still reboot under this very lock."""

    GONE = auto()  # its Node is gone, or another one by that name; or no agent wrote what stands there
    ALIVE = auto()  # seen to renew the Lease while it was watched
    FRESH = auto()  # not seen to, but by its own clock it renewed too recently to be called silent
    SILENT = auto()


@dataclass(frozen=True, slots=True)
class Holder:
    """A held lock and its holder, as they were seen.

    node: None when there is none by that name. boot_id: of that node. heartbeat: epoch seconds of the kubelet's own
    Lease, 0 if unknown. changed: the lock's Lease changed while it was watched for so many seconds. now: epoch seconds.
    """

    lock: Lock
    node: NodeRow | None
    boot_id: str
    heartbeat: float
    changed: bool
    watched_seconds: float
    now: float

    @property
    def liveness(self) -> HolderLiveness:
        """Of the agent that holds the lock."""
        if self.node is None or self.node.uid != self.lock.holder_uid:
            return HolderLiveness.GONE
        if self.changed:
            return HolderLiveness.ALIVE
        # A clock that runs ahead of ours makes it younger than nothing: no evidence of silence either.
        is_fresh = self.now - self.lock.renewed < duration_seconds(self.lock)
        return HolderLiveness.FRESH if is_fresh else HolderLiveness.SILENT

    @property
    def booted(self) -> bool | None:
        """Whether the node has booted since the lock entered `rebooting`, or was last renewed before; None: unknown."""
        if not self.boot_id or not self.lock.view.boot:
            return None
        return self.boot_id != self.lock.view.boot


def duration_seconds(lock: Lock) -> float:
    """After which the other agents check on a silent holder."""
    return values.number(lock.view.duration_seconds, _LONGEST_DURATION_SECONDS) or _DURATION_SECONDS


def watch_seconds(lock: Lock) -> float:
    """How long a living holder may take to renew: a third of the Lease's duration, and a little more."""
    return min(duration_seconds(lock) / 3 + _SPARE_SECONDS, MOST_WATCHED_SECONDS)


def facts(holder: Holder) -> Iterator[str]:
    """What is known, one thing a line."""
    lock, node = holder.lock, holder.node
    since = _ago(lock.acquired, holder.now)
    phase = "rebooting (it may have given the reboot command)" if lock.is_rebooting else "held (not rebooted yet)"
    yield f"lock {lock.name} (lease {lock.view.name}) is held by {lock.shown_holder}, acquired {since}"
    yield f"phase: {phase}"
    yield (
        f"renewed {_ago(lock.renewed, holder.now)} by its own clock; "
        f"{'changed' if holder.changed else 'not changed'} while watched for {age(holder.watched_seconds)}"
    )
    if lock.stuck_by:
        yield f"reported as stuck by {lock.stuck_by}"
    if not lock.holder:
        yield "no agent writes such a holder: the Lease was forged or damaged"
        return
    if node is None:
        yield f"node {lock.holder} does not exist any more"
        return
    if node.uid != lock.holder_uid:
        yield f"node {lock.holder} is another one by the same name: the holder is gone"
        return
    ready = {True: "Ready", False: "NotReady", None: "not reporting"}[node.ready]
    heartbeat = f", last kubelet heartbeat {_ago(holder.heartbeat, holder.now)}" if holder.heartbeat else ""
    yield f"node {node.name} is {ready}{', cordoned' if node.cordoned else ''}{heartbeat}"
    boot = {True: "another boot than", False: "the same boot as", None: "an unknown boot compared with"}
    when = "entered this phase" if lock.is_rebooting else "was last renewed"
    yield f"it runs {boot[holder.booted]} when the lock {when}"
    yield f"its status: {node.phase or 'none'}" + (f", {node.message}" if node.message else "")


def risk(holder: Holder) -> str:
    """What may go wrong, in one sentence. Source: agent/reboot, who may take a lock over."""
    name = holder.lock.holder
    match holder.liveness:
        case HolderLiveness.GONE:
            return "none known: the holder does not exist, and waiting nodes take such a lock over by themselves"
        case HolderLiveness.ALIVE | HolderLiveness.FRESH:
            return (
                f"{name} is alive and may be about to go down: two nodes of the pool may be down at the same time, and "
                "its own cycle is interrupted and counted as failed"
            )
        case HolderLiveness.SILENT if not holder.lock.is_rebooting:
            return (
                f"small: {name} has not rebooted, and cannot any more once another node has the lock; what it drained "
                "comes back when its agent does. Waiting nodes take such a lock over by themselves"
            )
        case _:
            return (
                f"TWO NODES DOWN AT THE SAME TIME: {name} may be down, or on its way down or up, right now, "
                "and the next node may begin immediately"
            )


def follows(holder: Holder, policy: Reboot | None) -> Iterator[str]:
    """What happens afterwards, and what is better than to unlock."""
    name, lock, node = holder.lock.holder, holder.lock, holder.node
    if node is None or holder.liveness is HolderLiveness.GONE:
        return
    if lock.is_rebooting or node.is_disrupted:
        yield f"if {name} comes back, it verifies itself, removes its own cordon and releases no lock that it lost"
    if node.ready is True and not node.cordoned:
        return
    state = "NotReady" if node.ready is not True else "cordoned"
    if policy is None:
        yield f"unknown whether the pool continues: {name} is {state}, and maxUnavailable is unknown"
        return
    limit = policy.max_unavailable
    size = int(values.number(lock.view.pool_size))
    if limit == "1" or (size and allowed_unavailable(policy, lock.pool, size) == 1):
        yield (
            f"the pool keeps waiting regardless: {name} is {state} and uses up maxUnavailable {limit}. Fix it, or if "
            f"it is gone permanently: {kubectl('delete', 'node', name)} (the lock is then taken over immediately)"
        )
    else:
        yield f"{name} is {state} and keeps counting against maxUnavailable {limit}"


def _ago(moment: float, now: float) -> str:
    if moment <= 0:
        return "at an unknown time"
    return f"{age(now - moment)} ago" if now >= moment else f"{age(moment - now)} ahead of this clock"
