"""The lock's Leases: acquired, renewed, fenced and released by compare-and-swap, judged by what was seen to change.

Whether a holder is alive is measured by this process's own monotonic clock from the last change that it saw; a remote
clock is never believed. A lease is `fresh` only while this process's own last renewal is younger than two thirds of the
duration after which others may take it: nothing harmful is done on an older one. It refuses to write a lease that is
another node's without recording whom it takes it from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from agent.reboot.cluster import Cluster, LeasePhase, LeaseView
from agent.reboot.interfaces import Clock
from agent.reboot.machine.decisions import Acquire
from agent.reboot.machine.inputs import Slot
from agent.reboot.state import Now
from agent.text import format_rfc3339

_Fingerprint = tuple[str, LeasePhase, str, int, str]


class Lock:
    """The leases of one pool, as one process of one node sees them."""

    def __init__(self, cluster: Cluster, clock: Clock, duration_seconds: float) -> None:
        self._cluster = cluster
        self._clock = clock
        self._duration = duration_seconds
        self._observed: dict[str, tuple[_Fingerprint, float]] = {}
        self._renewed: tuple[str, float] = ("", 0.0)
        self._not_before = 0.0

    def configure(self, duration_seconds: float) -> None:
        """Another lease duration; what was observed stays."""
        self._duration = duration_seconds

    def observe(self, names: Sequence[str], identity: str, *, indexed: int, follow: bool) -> tuple[Slot, ...]:
        """The leases now. indexed: the first so many are the pool's slots, the others leases of another pool.

        follow: they will be looked at again and again.
        """
        views = self._cluster.leases(names, follow=follow)
        # Read afterwards: what a slow answer shows for the first time was not seen any earlier than now.
        now = self._clock.monotonic()
        slots = []
        for index, view in enumerate(views):
            # The mark `stuck` and the version are left out: a mark is no sign of the holder's life.
            seen = (view.holder, view.phase, view.renewed, view.transitions, view.cycle)
            known = self._observed.get(view.name)
            if known is None or known[0] != seen:
                known = self._observed[view.name] = (seen, now)
            ours = bool(view.holder) and view.holder == identity
            slots.append(Slot(view, index if index < indexed else -1, ours, now - known[1]))
        return tuple(slots)

    def renew_due(self, slot: Slot) -> bool:
        """Whether a third of the duration has gone since this process renewed it, or it never did.

        After a renewal that failed not for a while: one that is refused for good must not keep the cycle from its end.
        """
        name, at = self._renewed
        now = self._clock.monotonic()
        if name != slot.view.name:
            # After the reboot: no node takes a fenced Lease over because its holder is silent for a moment.
            at = now - slot.unseen_seconds if slot.fenced else float("-inf")
        return now >= self._not_before and now - at > self._duration / 3

    def is_fresh(self, name: str) -> bool:
        """Whether no other node can have taken the Lease yet, by this process's own clock."""
        renewed, at = self._renewed
        return renewed == name and self._clock.monotonic() - at < self._duration * 2 / 3

    def acquire(self, decision: Acquire, identity: str, now: Now) -> None:
        """Acquires a free Lease, or one whose holder the machine has judged gone. Raises Conflict, KubeError."""
        view = decision.slot.view
        stamp = micro_time(now.wall)
        self._swap(
            replace(
                view,
                holder=identity,
                phase=LeasePhase.HELD,
                renewed=stamp,
                acquired=stamp,
                duration_seconds=max(1, round(self._duration)),
                transitions=view.transitions + 1,
                cycle=decision.cycle,
                boot=now.boot,
                taken_from=decision.slot.holder,
                pool_size=decision.pool_size or view.pool_size,
                waited=decision.waited,
                stuck="",
            )
        )

    def renew(self, slot: Slot, now: Now) -> None:
        """Shows that the holder lives; its phase stays, and the boot of a command that may have been given.

        Raises Conflict, KubeError.
        """
        self._not_before = self._clock.monotonic() + self._duration / 10
        boot = slot.view.boot if slot.fenced else now.boot
        self._swap(replace(slot.view, renewed=micro_time(now.wall), boot=boot, stuck=""))

    def fence(self, slot: Slot, now: Now) -> None:
        """The last act before the reboot: from here on silence is no reason to take the lease over."""
        self._swap(replace(slot.view, phase=LeasePhase.REBOOTING, renewed=micro_time(now.wall), boot=now.boot))

    def release(self, slot: Slot, now: Now, *, rebooted: bool) -> None:
        """Releases it. Raises Conflict, KubeError."""
        last = round(now.wall, 3) if rebooted else slot.view.last_reboot
        self._cluster.put_lease(replace(freed(slot.view, now.wall), last_reboot=last))
        if self._renewed[0] == slot.view.name:
            self._renewed = ("", 0.0)

    def mark_stuck(self, slot: Slot, by: str) -> None:
        """Leaves everything as it is but for the mark, which tells the others that it was announced."""
        self._cluster.mark_lease(slot.view, by)

    def _swap(self, lease: LeaseView) -> None:
        sent = self._clock.monotonic()  # counted from before the request: others may see it any time after
        self._cluster.put_lease(lease)
        self._renewed = (lease.name, sent)


def freed(lease: LeaseView, wall: float) -> LeaseView:
    """The Lease without its holder, as the next one finds it: what a release leaves, and `unlock` too."""
    return replace(
        lease,
        holder="",
        phase=LeasePhase.NONE,
        renewed=micro_time(wall),
        cycle="",
        boot="",
        taken_from="",
        stuck="",
    )


def micro_time(wall: float) -> str:
    """Kubernetes' MicroTime."""
    return format_rfc3339(wall, timespec="microseconds")
