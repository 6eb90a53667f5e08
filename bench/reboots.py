"""Reboots: how soon a wish becomes a lock request, how soon the next node follows, and what a roll costs.

Real agents as processes against the emulator; every moment is that of a request's arrival there, on one clock. It
refuses to count what the bench itself asks: that goes past HTTP.

    python -m bench.reboots
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from agent.sandbox.journal import RequestRecord
from agent.sandbox.roll import Roll, wait_until
from bench.figure import Figure

_SAMPLES = 5
_NODES = 3
_REPLICAS = 12
_MAY_MISS = 4
_READY_SECONDS = 60.0
_ROLL_SECONDS = 240.0
_KURED = "kured, measured elsewhere with --period=1m: 314 s, 151 requests for 18 evictions, 5 for each of its evictions"


def figures() -> list[Figure]:
    """All of them; about two minutes. Raises RuntimeError when a roll does not end."""
    asked = [_sentinel_to_lock() for _ in range(_SAMPLES)]
    return [
        Figure("sentinel appears -> lock asked for", _spread(asked), "< 1 s", max(asked) < 1.0),
        *_roll(),
    ]


def _sentinel_to_lock() -> float:
    """Seconds from the file's appearing on a node of its own to the request that takes the Lease."""
    with tempfile.TemporaryDirectory(prefix="node-hardening-bench-") as folder:
        roll = Roll(Path(folder) / "cluster", 1)
        try:
            _begin(roll)
            began = time.monotonic()
            roll.machines[0].root.require_reboot("libc6")
            _until(lambda: bool(_lock_changes(roll.sandbox.requests)), _READY_SECONDS, "nobody asked for the lock")
            return _lock_changes(roll.sandbox.requests)[0][0] - began
        finally:
            roll.stop()


def _roll() -> list[Figure]:
    with tempfile.TemporaryDirectory(prefix="node-hardening-bench-") as folder:
        roll = Roll(Path(folder) / "cluster", _NODES, replicas=_REPLICAS, may_miss=_MAY_MISS)
        try:
            _begin(roll)
            began = time.monotonic()
            roll.require_reboots()
            _until(roll.is_over, _ROLL_SECONDS, "the roll did not end")
            seconds = time.monotonic() - began
            requests = roll.sandbox.requests
            broken = [text for holds, text in roll.claims() if not holds]
        finally:
            roll.stop()
    if broken:
        raise RuntimeError(f"a roll that is no good measures nothing: not so: {'; '.join(broken)}")
    evictions = [one for one in requests if one.subresource == "eviction"]
    done = [one for one in evictions if one.status == 201]
    refused = sum(one.status == 429 for one in evictions)
    drains = _drain_requests(requests)
    a_pod = (len(drains) - refused) / len(done)
    after = _release_to_drain(requests)
    return [
        Figure("lock released -> next node draining", _spread(after), "< 3 s", max(after) < 3.0),
        Figure(
            f"requests to drain a pod ({len(done)} pods, {_NODES} nodes), refusals by a budget aside",
            f"{a_pod:.2f}", "<= 2", a_pod <= 2.0,
        ),
        Figure(f"roll of {_NODES} nodes, each down for 1.5 s", f"{seconds:.0f} s"),
        Figure(
            "the same: requests of all agents, everything counted",
            f"{len(requests)} for {len(done)} evictions and {refused} refused ones",
        ),
        Figure("the same: requests by kind", _by_kind(requests)),
    ]  # fmt: skip


def _begin(roll: Roll) -> None:
    roll.start()
    _until(roll.is_ready, _READY_SECONDS, "the agents did not get ready")
    time.sleep(2.0)  # what starting up still has to say is not counted
    roll.sandbox.clear_requests()


def _until(holds: Callable[[], bool], seconds: float, otherwise: str) -> None:
    if not wait_until(holds, seconds):
        raise RuntimeError(f"{otherwise} within {seconds:.0f} s")


def _lock_changes(requests: Sequence[RequestRecord]) -> list[tuple[float, str]]:
    """When somebody took the lock or gave it back (an empty holder), in order; refused and repeated writes left out."""
    found: list[tuple[float, str]] = []
    for one in requests:
        if one.resource == "leases" and one.verb in ("create", "patch") and one.status in (200, 201):
            holder = json.loads(one.body)["spec"].get("holderIdentity") or ""
            if holder != (found[-1][1] if found else ""):
                found.append((one.at, holder))
    return found


def _release_to_drain(requests: Sequence[RequestRecord]) -> list[float]:
    """Seconds from each release, but for the last, to the first eviction after it."""
    evicted = [one.at for one in requests if one.subresource == "eviction"]
    released = [at for at, holder in _lock_changes(requests) if not holder][:-1]
    return [min(at for at in evicted if at > one) - one for one in released]


def _drain_requests(requests: Sequence[RequestRecord]) -> list[RequestRecord]:
    """What was asked about pods, their DaemonSets and budgets; the blocker that asks for kured's is none of it."""
    return [
        one
        for one in requests
        if one.resource in ("pods", "poddisruptionbudgets")
        or (one.resource == "daemonsets" and one.name != "kured")
    ]  # fmt: skip


def _by_kind(requests: Sequence[RequestRecord]) -> str:
    kinds: dict[str, int] = {}
    for one in requests:
        kind = f"{one.verb} {one.subresource or one.resource}"
        kinds[kind] = kinds.get(kind, 0) + 1
    return ", ".join(f"{count} {kind}" for kind, count in sorted(kinds.items(), key=lambda item: -item[1]))


def _spread(seconds: Sequence[float]) -> str:
    return f"{statistics.median(seconds):.2f} s (median of {len(seconds)}, worst {max(seconds):.2f} s)"


def main() -> int:
    """Prints the table; 1 when something is not reached."""
    found = figures()
    for one in found:
        verdict = ("" if one.reached else "  NOT REACHED") if one.limit else ""
        print(f"{one.what:<72}  {one.limit or '-':<6}  {one.measured}{verdict}")
    beside = (
        "given, but not run: it takes its API server from a pod's files only"
        if os.environ.get("KURED")
        else "not given"
    )
    print(f"KURED: {beside}. {_KURED}")
    return 0 if all(one.reached for one in found) else 1


if __name__ == "__main__":
    sys.exit(main())
