"""Reboots: how soon a wish becomes a lock request, how soon the next node follows, and what a roll costs.

Real agents as processes against the emulator; every moment is that of a request's arrival there, on one clock. It
refuses to count what the bench itself asks: that goes past HTTP.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from agent.sandbox.journal import RequestRecord
from agent.sandbox.rolling_reboot import Roll, wait_until
from bench.cost import Cost, LockChange, changes, cost
from bench.figure import Figure, spread

SAMPLES = 5
NODES = 3
REPLICAS = 12
MAY_MISS = 4
_READY_SECONDS = 60.0
_ROLL_SECONDS = 240.0


def figures() -> list[Figure]:
    """All of them; about two minutes. Raises TimeoutError when a roll does not end."""
    asked = sentinel_to_lock()
    found = roll()
    after = found.release_to_drain
    return [
        Figure("sentinel appears -> lock asked for", spread(asked, "s"), "< 1 s", max(asked) < 1.0),
        Figure("lock released -> next node draining", spread(after, "s"), "< 3 s", max(after) < 3.0),
        Figure(
            f"requests to drain a pod ({found.evicted} pods, {NODES} nodes), refusals by a budget aside",
            f"{found.per_pod:.2f}", "<= 2", found.per_pod <= 2.0,
        ),
        Figure(f"roll of {NODES} nodes, each down for 1.5 s", f"{found.seconds:.0f} s"),
        Figure(
            "the same: requests of all agents, everything counted",
            f"{found.requests} for {found.evicted} evictions and {found.refused} refused ones",
        ),
        Figure("the same: requests by kind", found.kinds),
    ]  # fmt: skip


def sentinel_to_lock() -> list[float]:
    """Seconds from the file's appearing to the request that takes the Lease; each on a node and cluster of its own."""
    return [_sentinel_to_lock() for _ in range(SAMPLES)]


def roll() -> Cost:
    """Three nodes that want a reboot at once.

    Raises:
        TimeoutError: it did not end.
        RuntimeError: it broke something that a roll has to hold.
    """
    with tempfile.TemporaryDirectory(prefix="node-hardening-bench-") as folder:
        staged = Roll(Path(folder) / "cluster", NODES, replicas=REPLICAS, may_miss=MAY_MISS)
        try:
            _begin(staged)
            began = time.monotonic()
            staged.require_reboots()
            until(staged.is_over, _ROLL_SECONDS, "the roll did not end")
            ended = time.monotonic()
            requests = staged.sandbox.requests
            broken = [text for holds, text in staged.claims() if not holds]
        finally:
            staged.stop()
    sound(broken)
    return cost(requests, _lock_changes(requests), began, ended)


def until(holds: Callable[[], bool], seconds: float, otherwise: str) -> None:
    """Waits.

    Raises:
        TimeoutError: with `otherwise`, when the time is over.
    """
    if not wait_until(holds, seconds):
        raise TimeoutError(f"{otherwise} within {seconds:.0f} s")


def sound(broken: Sequence[str]) -> None:
    """Raises RuntimeError with what a roll had to hold and did not."""
    if broken:
        raise RuntimeError(f"a roll that is no good measures nothing: not so: {'; '.join(broken)}")


def _sentinel_to_lock() -> float:
    with tempfile.TemporaryDirectory(prefix="node-hardening-bench-") as folder:
        staged = Roll(Path(folder) / "cluster", 1)
        try:
            _begin(staged)
            began = time.monotonic()
            staged.machines[0].root.require_reboot("libc6")
            until(lambda: bool(_lock_changes(staged.sandbox.requests)), _READY_SECONDS, "nobody asked for the lock")
            return _lock_changes(staged.sandbox.requests)[0].at - began
        finally:
            staged.stop()


def _begin(staged: Roll) -> None:
    staged.start()
    until(staged.is_ready, _READY_SECONDS, "the agents did not get ready")
    time.sleep(2.0)  # what starting up still has to say is not counted
    staged.sandbox.clear_requests()


def _lock_changes(requests: Sequence[RequestRecord]) -> list[LockChange]:
    """When somebody took the lock or gave it back, in order; refused and repeated writes left out."""
    return changes(
        [
            LockChange(one.at, json.loads(one.body)["spec"].get("holderIdentity") or "")
            for one in requests
            if one.resource == "leases" and one.verb in ("create", "patch") and one.status in (200, 201)
        ]
    )
