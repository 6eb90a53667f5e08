"""What a roll cost, read from the API server's record of requests: the same reading for our agents and for kured.

It knows no lock of its own: who held it when is handed in. It counts what an agent asked, never what a bench did.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from agent.sandbox.journal import RequestRecord


@dataclass(frozen=True, slots=True)
class LockChange:
    """Somebody took the lock, or gave it back (an empty holder). at: monotonic seconds of the request's arrival."""

    at: float
    holder: str


@dataclass(frozen=True, slots=True)
class Cost:
    """A roll: seconds from the sentinels to its end, and every request in between.

    first_lock_seconds: from the sentinels to the first request that took the lock.
    """

    seconds: float
    requests: int
    evicted: int
    refused: int
    drain_requests: int
    first_lock_seconds: float
    release_to_drain: tuple[float, ...]
    kinds: str

    @property
    def per_pod(self) -> float:
        """Requests to drain a pod, the evictions that a budget refused aside."""
        return (self.drain_requests - self.refused) / self.evicted


def changes(holders: Sequence[LockChange]) -> list[LockChange]:
    """Without those that change nothing."""
    found: list[LockChange] = []
    for one in holders:
        if one.holder != (found[-1].holder if found else ""):
            found.append(one)
    return found


def cost(requests: Sequence[RequestRecord], locks: Sequence[LockChange], began: float, ended: float) -> Cost:
    """Reads a roll that went well. began: when the sentinels appeared; requests: from there to its end.

    Raises:
        RuntimeError: nothing was evicted, or nobody took the lock: that was no roll.
    """
    evictions = [one for one in requests if one.subresource == "eviction"]
    done = sum(one.status == 201 for one in evictions)
    if not done or not locks:
        raise RuntimeError("no roll: nothing was evicted, or nobody took the lock")
    released = [one.at for one in locks if not one.holder][:-1]
    return Cost(
        seconds=ended - began,
        requests=len(requests),
        evicted=done,
        refused=sum(one.status == 429 for one in evictions),
        drain_requests=len(_drain_requests(requests)),
        first_lock_seconds=locks[0].at - began,
        release_to_drain=tuple(min(one.at for one in evictions if one.at > at) - at for at in released),
        kinds=_kinds(requests),
    )


def _drain_requests(requests: Sequence[RequestRecord]) -> list[RequestRecord]:
    """What was asked about pods, their DaemonSets and budgets; kured's own, which carries its lock, is none of it."""
    return [
        one
        for one in requests
        if one.resource in ("pods", "poddisruptionbudgets")
        or (one.resource == "daemonsets" and one.name != "kured")
    ]  # fmt: skip


def _kinds(requests: Sequence[RequestRecord]) -> str:
    kinds: dict[str, int] = {}
    for one in requests:
        kind = f"{one.verb} {one.subresource or one.resource}"
        kinds[kind] = kinds.get(kind, 0) + 1
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items(), key=lambda item: -item[1]))
