"""Resident memory of `run` over ten thousand passes: whether it stays, or grows with every pass.

Each pass is requested with SIGHUP and over before the next. Memory is VmRSS, read after 2,000 passes, when CPython's
caches are full, and then eight times: a leak grows from one reading to the next, what levels off does not.
"""

from __future__ import annotations

import signal
import time

from bench import imaged
from bench.daemons import running
from bench.figure import Figure
from bench.resident import Resident
from tests.support.agents import Agent, eventually

_WARM_UP, _PASSES, _READINGS = 2_000, 8_000, 8
_LIMIT_BYTES = 16.0  # a pass; 1.7 MiB in a year of passes every five minutes
_PASS_SECONDS = 60.0  # a bound for a pass that never comes


def figures() -> list[Figure]:
    """Ten minutes on a quiet machine."""
    with running(imaged.python()) as agent:
        begin = _resident_kib(agent)
        _make_passes(agent, _WARM_UP)
        readings = [_resident_kib(agent)]
        for _ in range(_READINGS):
            _make_passes(agent, _PASSES // _READINGS)
            readings.append(_resident_kib(agent))
    growth = (readings[-1] - readings[0]) * 1024 / _PASSES
    path = ", ".join(f"{one:,.0f}" for one in readings)
    return [
        Figure(
            f"growth of resident memory over {_PASSES:,} passes, after {_WARM_UP:,}",
            f"{growth:.1f} bytes a pass: {begin:,.0f} KiB after the first pass, then {path}",
            f"< {_LIMIT_BYTES:g} bytes a pass", growth < _LIMIT_BYTES,
        )
    ]  # fmt: skip


def _resident_kib(agent: Agent) -> float:
    assert agent.process is not None
    return Resident.of(agent.process.pid).total_mib * 1024


def _make_passes(agent: Agent, count: int) -> None:
    """One after the other; signals that come together are one pass."""
    with agent.log.open("rb") as log:
        log.seek(0, 2)

        def one_more() -> bool:
            return b'"reconcile_completed"' in log.read()

        for _ in range(count):
            agent.signal(signal.SIGHUP)
            eventually(one_more, what="pass", seconds=_PASS_SECONDS, every_seconds=0.002)
        time.sleep(1)  # what reports, in another thread, has reported
