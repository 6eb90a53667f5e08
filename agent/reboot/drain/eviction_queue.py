"""What one drain has done so far: tries, refusals and when the next one is worth it. It knows neither HTTP nor threads.

Pods that one budget has refused wait together: only one of them is tried each time, the one that has waited longest,
until the budget lets one go. So a budget over a hundred pods costs one request each five seconds, not a hundred.
"""

from __future__ import annotations

import math
import random
from dataclasses import dataclass, field

from agent.reboot.drain.filters import Pod
from agent.reboot.drain.pdb import Budget

FIRST_RETRY_SECONDS = 5.0  # what kubectl waits; the API server names no time when no disruption is allowed
LONGEST_RETRY_SECONDS = 15.0
_PATIENT_TRIES = 12  # a minute at the first pace
FINAL_SECONDS = 300.0  # for what no waiting mends: somebody may mend it by hand
_UNSEEN_SECONDS = 60.0  # an accepted eviction that the watch does not show is asked for again


@dataclass(slots=True)
class Entry:
    """One pod that has to go. Times are monotonic seconds. final: why it cannot go, whatever is waited for."""

    pod: Pod
    first_asked: float | None = None
    last_asked: float = -math.inf
    next_at: float = -math.inf
    tries: int = 0
    is_deleted: bool = False
    final: str = ""
    trouble: str = ""

    def asked(self, now: float) -> None:
        """Noted before the request, so that a lost answer counts as a try."""
        self.first_asked = now if self.first_asked is None else self.first_asked
        self.last_asked = now
        self.trouble = self.final = ""


@dataclass(slots=True)
class Held:
    """Pods that one budget holds. next_at: when one of them is tried again."""

    budget: Budget
    next_at: float
    tries: int = 0
    uids: set[str] = field(default_factory=set)


class EvictionQueue:
    """The memory of one drain, lost without harm: a new one starts from what it sees."""

    def __init__(self, chance: random.Random) -> None:
        self._chance = chance
        self.entries: dict[str, Entry] = {}
        self.held: dict[tuple[str, str], Held] = {}
        self.seen: set[str] = set()
        self.evicted: set[str] = set()
        self.slowest: tuple[float, str] = (0.0, "")
        self.pause_until = -math.inf

    def update(self, going: dict[str, Pod], now: float) -> None:
        """What has to go by the newest look; pods that are gone are counted and forgotten."""
        for uid, pod in going.items():
            entry = self.entries.get(uid)
            if entry is None:
                self.entries[uid] = Entry(pod)
            else:
                entry.pod = pod
            if pod.terminating_since is not None:
                self._release(uid)  # its budget has nothing more to say
        self.seen |= going.keys()
        for uid in self.entries.keys() - going.keys():
            entry = self.entries.pop(uid)
            self._release(uid)
            if entry.first_asked is not None:
                took = (now - entry.first_asked, entry.pod.full_name)
                self.slowest = max(self.slowest, took)

    def begin_deleting(self) -> None:
        """What held evictions back holds no deletion back."""
        self.held.clear()
        for entry in self.entries.values():
            entry.next_at, entry.final, entry.trouble = -math.inf, "", ""

    @property
    def is_emptying(self) -> bool:
        """Whether something terminates, or was asked to."""
        return any(uid in self.evicted or one.pod.terminating_since is not None for uid, one in self.entries.items())

    def next_to_evict(self, now: float) -> Entry | None:
        """The pod to try now, None when nothing is due."""
        if now < self.pause_until:
            return None
        grouped = {uid for held in self.held.values() for uid in held.uids}
        for held in self.held.values():
            if held.next_at <= now and (entry := self._longest_waiting(held, now)):
                return entry
        due = (entry for uid, entry in self.entries.items() if uid not in grouped and _is_due(entry, now))
        return min(due, key=lambda entry: (entry.last_asked, entry.pod.full_name), default=None)

    def next_to_delete(self, now: float, *, shortens_grace: bool) -> Entry | None:
        """The pod to delete now: each once; a terminating one only where that shortens its grace period."""
        if now < self.pause_until:
            return None
        for entry in self.entries.values():
            terminating = entry.pod.terminating_since is not None
            if not entry.is_deleted and entry.next_at <= now and (not terminating or shortens_grace):
                return entry
        return None

    def accepted(self, entry: Entry, now: float) -> None:
        """The pod terminates. The next pod of its budget may be tried at once."""
        entry.next_at = now + _UNSEEN_SECONDS
        self.evicted.add(entry.pod.uid)
        for held in self._release(entry.pod.uid):
            held.tries, held.next_at = 0, now

    def vanished(self, entry: Entry, now: float) -> None:
        """The pod is gone already, or another one stands there; the watch will show it."""
        entry.next_at = now + _UNSEEN_SECONDS
        self._release(entry.pod.uid)

    def refused(self, entry: Entry, budget: Budget, now: float, asked_seconds: float | None) -> None:
        """A budget allows no disruption now. Pods that it is known to cover wait with this one."""
        held = self.held.setdefault((budget.namespace, budget.name), Held(budget, now))
        held.tries += 1
        whole = FIRST_RETRY_SECONDS * 1.2 ** max(0, held.tries - _PATIENT_TRIES)
        delay = self._chance.uniform(1.0, 1.25) * min(whole, LONGEST_RETRY_SECONDS)
        held.next_at = now + max(delay, (asked_seconds or 0.0) * self._chance.uniform(1.0, 1.25))
        held.uids.add(entry.pod.uid)
        for uid, other in self.entries.items():
            if other.first_asked is None and budget.covers(other.pod):
                held.uids.add(uid)

    def postponed(self, entry: Entry, seconds: float, now: float, trouble: str = "") -> None:
        """Not now, for a reason that passes."""
        entry.trouble = trouble
        entry.tries += 1
        entry.next_at = now + seconds * self._chance.uniform(1.0, 1.25)

    def mark_permanent(self, entry: Entry, why: str, now: float) -> None:
        """No waiting mends it; tried again seldom, in case that somebody does."""
        self._release(entry.pod.uid)
        entry.final = why
        entry.next_at = now + FINAL_SECONDS * self._chance.uniform(1.0, 1.25)

    def next_due(self, now: float) -> float:
        """Seconds until something is due, inf when nothing is."""
        grouped = {uid for held in self.held.values() for uid in held.uids}
        times = [held.next_at for held in self.held.values() if held.uids]
        times += [
            entry.next_at
            for uid, entry in self.entries.items()
            if uid not in grouped and entry.pod.terminating_since is None
        ]
        return max(0.0, max(min(times), self.pause_until) - now) if times else math.inf

    def _longest_waiting(self, held: Held, now: float) -> Entry | None:
        waiting = [entry for uid in held.uids if (entry := self.entries.get(uid)) and _is_due(entry, now)]
        return min(waiting, key=lambda entry: (entry.last_asked, entry.pod.full_name), default=None)

    def _release(self, uid: str) -> list[Held]:
        """Out of its budget's queue; returns the queues that go on without it."""
        left = []
        for name, held in list(self.held.items()):
            if uid in held.uids:
                held.uids.discard(uid)
                if held.uids:
                    left.append(held)
                else:
                    del self.held[name]
        return left


def _is_due(entry: Entry, now: float) -> bool:
    return entry.pod.terminating_since is None and entry.next_at <= now
