"""When a waiting node tries to acquire the lock: soon after it is free, few at a time, and in the end every node.

All waiters see a free lock at the same time. Each draws a delay that is exponentially biased to the end of a short
interval (feedback suppression as in RFC 4654, https://www.rfc-editor.org/rfc/rfc4654#section-2.5), so that the number
of those who try before they see the winner's Lease is a small constant, however many wait and without knowing how many.
Who has waited longer than the last winner had draws from the interval's early half. Only lengths of time are compared,
never clocks of two nodes.

What may come to nothing (checking on a silent holder, trying again after a blocker) is spread so that the pool
together tries about four times a second, however big it is. A small pool tries again soon after the first refusal,
which may be over in a moment, and ever less often after that.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

from agent.reboot.cluster import MEMBERS_A_PAGE
from agent.reboot.interfaces import BlockerResult
from agent.reboot.machine.inputs import LockAttempt, Slot

# From the first request for the lock until all others have seen it: the pool listed, the Lease swapped, a watch event.
_SUPPRESSION_SECONDS = 0.4
_NEXT_PAGE_SECONDS = 0.125  # what each further page of nodes adds to that
_SPACING_SECONDS = 0.25
_RETRY_SECONDS = 2.0
_RETRY_LIMIT_SECONDS = 15.0


class LockContention:
    """One node's place among the waiters. Keeps only moments; a new process simply draws again."""

    def __init__(self, rng: random.Random, lease_duration_seconds: float) -> None:
        self._rng = rng
        self._duration = lease_duration_seconds
        self._key: tuple[object, ...] = ()
        self._at = 0.0
        self._not_before = 0.0
        self._refusals = 0
        self._refused: BlockerResult | None = None
        self._again_at = 0.0

    def attempt(self, slots: Sequence[Slot], now: float, *, pool_size: int, waited: float) -> LockAttempt:
        """Whether this node may try now, and for which slot. now: monotonic seconds."""
        candidates = [slot for slot in slots if slot.free or slot.unseen_seconds > self._duration]
        if not candidates:
            self._restart(())
            rest = min((self._duration - slot.unseen_seconds for slot in slots), default=self._duration)
            return LockAttempt(now=False, in_seconds=max(rest, 0.0) + 0.1)
        free = [slot for slot in candidates if slot.free]
        key = tuple((slot.view.name, slot.view.holder, slot.view.transitions) for slot in candidates)
        chosen = min(free or candidates, key=lambda slot: slot.index)
        if key != self._key:
            self._restart(key)
            last_winner = max(slot.view.waited for slot in candidates)
            draw = self.draw(pool_size, early=waited >= last_winner) if free else self._spread(pool_size)
            self._at = max(now, self._not_before) + draw
        return LockAttempt(now >= self._at, max(0.0, self._at - now), chosen, self._still_refused(now))

    def _still_refused(self, now: float) -> BlockerResult | None:
        refused = self._refused
        if refused is None or refused.again_seconds <= 0:
            return refused
        return replace(refused, again_seconds=max(0.0, self._again_at - now))

    def _restart(self, key: tuple[object, ...]) -> None:
        self._key = key
        self._refusals = 0
        self._refused = None

    def postpone(
        self, now: float, *, pool_size: int, seconds: float = 0.0, refused: BlockerResult | None = None
    ) -> float:
        """The attempt came to nothing: later again. Returns the wait.

        seconds: when it is worth it, 0 for unknown. refused: why, for the status until then.
        """
        self._refused, self._again_at = refused, now + seconds
        if seconds > 0:
            wait = seconds + self.draw(pool_size, early=False)
            self._not_before = now + wait
        else:
            least = min(_RETRY_LIMIT_SECONDS, _RETRY_SECONDS * 2.0**self._refusals)
            self._refusals = min(self._refusals + 1, 10)
            spread = self._rng.uniform(0.0, 2 * _SPACING_SECONDS * pool_size)
            wait = max(least, spread) * self._rng.uniform(0.5, 1.5)
        self._at = max(self._at, now + wait)
        return wait

    def is_harmless(self, recorded: int) -> bool:
        """Whether a pool of a size that another node recorded spreads nothing wider than the lease duration does.

        A smaller one than the truth costs requests only: one attempt of all, after which each has counted.
        """
        return 0 < recorded <= self._duration / (4 * _SPACING_SECONDS)

    def draw(self, pool_size: int, *, early: bool) -> float:
        """Seconds to wait with a free lock in sight. pool_size: at most so many compete."""
        size = max(pool_size, 2)
        interval = (_SUPPRESSION_SECONDS + _NEXT_PAGE_SECONDS * ((size - 1) // MEMBERS_A_PAGE)) * math.log(size)
        share = 1.0 + math.log(1.0 - self._rng.random()) / math.log(size)
        return interval * max(0.0, share) + (0.0 if early else interval)

    def _spread(self, pool_size: int) -> float:
        return self._rng.uniform(0.0, max(self._duration / 2, 2 * _SPACING_SECONDS * pool_size))
