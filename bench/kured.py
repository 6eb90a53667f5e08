"""kured beside our agents: the same nodes, pods and budget, the same reboot, figures read in the same way.

The binary is yours: `KURED=/path/to/kured make bench`, as root; `KURED_PERIOD` is its --period, 1m when not given. It
refuses to change kured, and to measure a roll that broke something.
"""

from __future__ import annotations

import os
import re
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench import imaged, reboots, resident
from bench.cost import Cost, cost
from bench.figure import Figure, spread
from bench.kured_nodes import DAEMONSET, DOWN_SECONDS, FIRST_LOOK_SECONDS, NSENTER, Given, Stage
from bench.reboots import MAY_MISS, NODES, REPLICAS, SAMPLES

_MEMORY_RUNS = 3
_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}


class CannotRun(RuntimeError):
    """Why kured cannot be measured here, and what would be right."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What was seen of kured. memory_mib: VmRSS of each node's, waiting; peak_mib: the most of any until the end."""

    version: str
    asked: list[float]
    cost: Cost
    memory_mib: list[float]
    peak_mib: float


def given(environment: Mapping[str, str] = os.environ, *, root: bool | None = None) -> Given:
    """kured's binary and period, from KURED and KURED_PERIOD. root: whether this is root; looked up when None.

    Raises:
        CannotRun: with everything that stands in the way.
    """
    named, period = environment.get("KURED", ""), environment.get("KURED_PERIOD") or "1m"
    binary = Path(named).absolute()
    wrong = []
    if not named:
        wrong.append("KURED is not set: give it the path of a kured binary")
    elif not binary.is_file():
        wrong.append(f"KURED={named}: no such file; it has to be the path of a kured binary")
    elif not os.access(binary, os.X_OK):
        wrong.append(f"KURED={named} is not executable: chmod +x it")
    if not re.fullmatch(r"(\d+(\.\d+)?[smh])+", period):
        wrong.append(f"KURED_PERIOD={period} is no duration: 90s, 1m or 1h30m would be")
    if not (os.geteuid() == 0 if root is None else root):
        wrong.append("this is not root: kured finds its API server in a pod's files only, which takes mount namespaces")
    missing = [tool for tool in ("unshare", "mount") if not shutil.which(tool)]
    missing += [] if Path(NSENTER).exists() else [NSENTER]
    if missing:
        wrong.append(f"{', '.join(missing)} not found: util-linux has them")
    if wrong:
        raise CannotRun("; ".join(wrong))
    seconds = sum(float(count) * _UNITS[unit] for count, unit in re.findall(r"([\d.]+)([smh])", period))
    return Given(binary, period, seconds)


def figures() -> list[Figure]:
    """Ours and kured's, a row each; about a quarter of an hour with a period of one minute.

    Raises:
        CannotRun: kured is not there, or may not be run here.
        RuntimeError: kured ended by itself, a roll did not end or was no good.
    """
    what = given()
    theirs = measure(what)
    ours, ours_asked = reboots.roll(), reboots.sentinel_to_lock()
    ours_memory = resident.median(imaged.python(), _MEMORY_RUNS).total_mib
    memory = f"{statistics.median(theirs.memory_mib):.1f} MiB, {theirs.peak_mib:.1f} at most in the roll"
    rows = [
        (f"roll of {NODES} nodes, each down for {DOWN_SECONDS} s", *_both(ours, theirs, _seconds)),
        ("API requests in all", *_both(ours, theirs, lambda one: str(one.requests))),
        ("evictions", *_both(ours, theirs, lambda one: f"{one.evicted} and {one.refused} refused ones")),
        ("requests to drain a pod, refusals aside", *_both(ours, theirs, lambda one: f"{one.per_pod:.2f}")),
        ("sentinel appears -> lock asked for", spread(ours_asked, "s"), spread(theirs.asked, "s")),
        ("lock released -> next node draining", *_both(ours, theirs, lambda one: spread(one.release_to_drain, "s"))),
        ("resident, waiting (ours: as in the image)", f"{ours_memory:.1f} MiB", memory),
        ("requests by kind", *_both(ours, theirs, lambda one: one.kinds)),
    ]  # fmt: skip
    about = f"kured {theirs.version} --period={what.period}"
    return [Figure(f"beside {about}: {name}", f"{mine} | kured: {other}") for name, mine, other in rows]


def _seconds(one: Cost) -> str:
    return f"{one.seconds:.0f} s"


def _both(ours: Cost, theirs: Measured, shown: Callable[[Cost], str]) -> tuple[str, str]:
    return shown(ours), shown(theirs.cost)


def measure(what: Given) -> Measured:
    """Runs kured: on nodes with a lock each, for what a sentinel does; then a roll of nodes with one lock.

    Raises:
        RuntimeError: kured ended by itself, a roll did not end or was no good.
    """
    singles = [f"{DAEMONSET}-{number}" for number in range(1, SAMPLES + 1)]
    with Stage(what, singles) as stage:
        stage.wait_for_rhythm()
        began = time.monotonic()
        stage.require_reboots()
        stage.until(
            lambda: all(stage.locks(name) for name in singles), what.period_seconds, "a kured did not ask for its lock"
        )
        asked = [stage.locks(name)[0].at - began for name in singles]
    with Stage(what, [DAEMONSET] * NODES, replicas=REPLICAS, may_miss=MAY_MISS) as stage:
        stage.wait_for_rhythm()
        memory = [machine.memory_mib() for machine in stage.machines]
        stage.sandbox.clear_requests()
        began = time.monotonic()
        stage.require_reboots()
        stage.until(stage.is_over, NODES * (FIRST_LOOK_SECONDS + what.period_seconds), "kured's roll did not end")
        ended = time.monotonic()
        reboots.sound(stage.broken())
        found = cost(stage.sandbox.requests, stage.locks(DAEMONSET), began, ended)
        return Measured(stage.version(), asked, found, memory, stage.peak_mib)
