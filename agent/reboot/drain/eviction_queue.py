"""Which eviction is tried next: the pods of one drain, their refusals, and when another try is worth it. No I/O.

Pods that one budget has refused wait together until that budget allows a disruption: its watch reports it, and a slow
retry covers what a budget's status does not show. Where it cannot be watched, one pod is tried each five seconds.
Critical and storage pods wait until all others are gone.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

from agent.reboot.drain.filters import Pod
from agent.reboot.drain.pdb import Budget

FIRST_RETRY_SECONDS = 5.0  # what kubectl waits; the API server names no time when no disruption is allowed
LONGEST_RETRY_SECONDS = 15.0
# A watched budget: pods that are not ready may be evicted although it allows nothing (unhealthyPodEvictionPolicy).
WATCHED_RETRY_SECONDS = 30.0
LONGEST_WATCHED_RETRY_SECONDS = 120.0
_PATIENT_TRIES = 12  # a minute at the first pace
PERMANENT_SECONDS = 300.0  # for what no waiting resolves: an operator may
LONGEST_DEFER_SECONDS = 60.0
_UNSEEN_SECONDS = 60.0  # an accepted eviction that the watch does not show is asked for again


@dataclass(slots=True)
class Entry:
    """One pod that has to go. Times are monotonic seconds. permanent: why it cannot go, whatever is waited for."""

    pod: Pod
    first_asked: float | None = None
    last_asked: float = -math.inf
    next_at: float = -math.inf
    tries: int = 0
    is_deleted: bool = False
    permanent: str = ""
    trouble: str = ""

    def asked(self, now: float) -> None:
        """Noted before the request, so that a lost answer counts as a try."""
        self.first_asked = now if self.first_asked is None else self.first_asked
        self.last_asked = now
        self.trouble = self.permanent = ""


@dataclass(slots=True)
class PdbQueue:
    """Pods that one budget has refused. next_at: when one of them is tried again.

    left: disruptions that the budget allows by its last known status, less the evictions accepted since.
    """

    budget: Budget
    next_at: float
    tries: int = 0
    left: int = 0
    uids: set[str] = field(default_factory=set)


class EvictionQueue:
    """The memory of one drain, lost without harm: a new one starts from what it sees."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.entries: dict[str, Entry] = {}
        self.pdb_queues: dict[tuple[str, str], PdbQueue] = {}
        self.seen: set[str] = set()
        self.evicted: set[str] = set()
        self.slowest: tuple[float, str] = (0.0, "")
        self.pause_until = -math.inf

    def update(self, going: dict[str, Pod], now: float) -> None:
        """The pods that have to go as of now; those that are gone are counted and forgotten."""
        for uid, pod in going.items():
            entry = self.entries.get(uid)
            if entry is None:
                self.entries[uid] = Entry(pod)
            else:
                entry.pod = pod
            if pod.terminating_since is not None:
                self._dequeue(uid)  # its budget has nothing more to say
        self.seen |= going.keys()
        for uid in self.entries.keys() - going.keys():
            entry = self.entries.pop(uid)
            self._dequeue(uid)
            if entry.first_asked is not None:
                took = (now - entry.first_asked, entry.pod.full_name)
                self.slowest = max(self.slowest, took)

    def refresh_budgets(self, current: Callable[[tuple[str, str]], Budget | None], now: float) -> None:
        """The refusing budgets as they are now: one that allows a disruption, or is deleted, is tried immediately."""
        for key, queue in self.pdb_queues.items():
            budget = current(key)
            if budget is None:
                queue.next_at = now if queue.budget.version else queue.next_at  # deleted, if it was ever read
            elif budget.version not in ("", queue.budget.version):
                queue.budget, queue.left = budget, budget.allowed or 0
                if queue.left > 0:
                    queue.next_at = now

    def begin_deleting(self) -> None:
        """What held evictions back holds no deletion back."""
        self.pdb_queues.clear()
        for entry in self.entries.values():
            entry.next_at, entry.permanent, entry.trouble = -math.inf, "", ""

    @property
    def is_emptying(self) -> bool:
        """Whether something terminates, or was asked to."""
        return any(uid in self.evicted or one.pod.terminating_since is not None for uid, one in self.entries.items())

    def current_wave(self) -> dict[str, Entry]:
        """The pods whose turn it is: critical and storage pods only when nothing else is left."""
        first = {uid: entry for uid, entry in self.entries.items() if not entry.pod.evict_last}
        return first or self.entries

    def next_to_evict(self, now: float) -> Entry | None:
        """The pod to try now, None when nothing is due."""
        if now < self.pause_until:
            return None
        wave = self.current_wave()
        for queue in self.pdb_queues.values():
            if queue.next_at <= now:
                waiting = (entry for uid, entry in wave.items() if uid in queue.uids and _is_due(entry, now))
                if (entry := _longest_waiting(waiting)) is not None:
                    return entry
        queued = {uid for queue in self.pdb_queues.values() for uid in queue.uids}
        return _longest_waiting(entry for uid, entry in wave.items() if uid not in queued and _is_due(entry, now))

    def next_to_delete(self, now: float, *, shortens_grace: bool) -> Entry | None:
        """The pod to delete now: each once; a terminating one only where that shortens its grace period."""
        if now < self.pause_until:
            return None
        for entry in self.current_wave().values():
            terminating = entry.pod.terminating_since is not None
            if not entry.is_deleted and entry.next_at <= now and (not terminating or shortens_grace):
                return entry
        return None

    def accepted(self, entry: Entry, now: float) -> None:
        """The pod terminates. The next pod of its budget is tried immediately while the budget allows more."""
        entry.next_at = now + _UNSEEN_SECONDS
        self.evicted.add(entry.pod.uid)
        for queue in self._dequeue(entry.pod.uid):
            queue.tries, queue.left = 0, queue.left - 1
            is_known = bool(queue.budget.version)
            queue.next_at = now if queue.left > 0 or not is_known else now + self._pdb_delay(queue)

    def vanished(self, entry: Entry, now: float) -> None:
        """The pod is gone already, or replaced by another one; the watch will show it."""
        entry.next_at = now + _UNSEEN_SECONDS
        self._dequeue(entry.pod.uid)

    def refused(self, entry: Entry, budget: Budget, now: float, retry_after_seconds: float | None) -> None:
        """A budget allows no disruption now. Pods that it is known to cover wait with this one."""
        queue = self.pdb_queues.get(budget.key)
        is_news = queue is None and bool(budget.allowed)  # read after the refusal: it allows a disruption again
        queue = queue or self.pdb_queues.setdefault(budget.key, PdbQueue(budget, now))
        queue.tries, queue.left = queue.tries + 1, (budget.allowed or 0) if is_news else 0
        asked = 0.0 if queue.budget.version else (retry_after_seconds or 0.0) * self._chance.uniform(1.0, 1.25)
        queue.next_at = now if is_news else now + max(self._pdb_delay(queue), asked)
        queue.uids.add(entry.pod.uid)
        for uid, other in self.entries.items():
            if other.first_asked is None and budget.covers(other.pod):
                queue.uids.add(uid)

    def _pdb_delay(self, queue: PdbQueue) -> float:
        jitter = self._chance.uniform(1.0, 1.25)
        if queue.budget.version:
            whole = WATCHED_RETRY_SECONDS * 2.0 ** min(max(0, queue.tries - 1), 8)
            return jitter * min(whole, LONGEST_WATCHED_RETRY_SECONDS)
        whole = FIRST_RETRY_SECONDS * 1.2 ** max(0, min(queue.tries, 100) - _PATIENT_TRIES)
        return jitter * min(whole, LONGEST_RETRY_SECONDS)

    def defer(self, entry: Entry, seconds: float, now: float, trouble: str = "") -> None:
        """Not now, for a reason that passes; each time twice as long, up to a minute."""
        entry.trouble = trouble
        whole = min(seconds * 2.0 ** min(entry.tries, 8), max(seconds, LONGEST_DEFER_SECONDS))
        entry.tries += 1
        entry.next_at = now + whole * self._chance.uniform(1.0, 1.25)

    def mark_permanent(self, entry: Entry, why: str, now: float) -> None:
        """No waiting resolves it; tried again seldom, in case an operator has."""
        self._dequeue(entry.pod.uid)
        entry.permanent = why
        entry.next_at = now + PERMANENT_SECONDS * self._chance.uniform(1.0, 1.25)

    def next_due(self, now: float) -> float:
        """Seconds until something is due, inf when nothing is."""
        wave = self.current_wave()
        queued = {uid for queue in self.pdb_queues.values() for uid in queue.uids}
        times = [queue.next_at for queue in self.pdb_queues.values() if queue.uids & wave.keys()]
        times += [
            entry.next_at for uid, entry in wave.items() if uid not in queued and entry.pod.terminating_since is None
        ]
        return max(0.0, max(min(times), self.pause_until) - now) if times else math.inf

    def _dequeue(self, uid: str) -> list[PdbQueue]:
        """Out of its budget's queue; returns the queues that still hold pods."""
        left = []
        for name, queue in list(self.pdb_queues.items()):
            if uid in queue.uids:
                queue.uids.discard(uid)
                if queue.uids:
                    left.append(queue)
                else:
                    del self.pdb_queues[name]
        return left


def _is_due(entry: Entry, now: float) -> bool:
    return entry.pod.terminating_since is None and entry.next_at <= now


def _longest_waiting(entries: Iterable[Entry]) -> Entry | None:
    return min(entries, key=lambda entry: (entry.last_asked, entry.pod.full_name), default=None)
