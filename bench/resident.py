"""Resident memory of `run`, idle: every feature on, TLS to the API server, the image's interpreter settings.

Seven daemons one after the other, each read three seconds after its first pass was reported on the Node and its metrics
were scraped. What a short-lived child (apparmor_parser, modprobe) takes is not in it.
"""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from pathlib import Path

from bench import imaged
from bench.daemons import running
from bench.figure import Figure

LIMIT_MIB = 32.0
_RUNS = 7
_SETTLED_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Resident:
    """A process's memory in MiB: VmRSS, and the two parts of it; the kernel's /proc/PID/status."""

    total_mib: float
    anonymous_mib: float
    file_mib: float

    @classmethod
    def of(cls, pid: int) -> Resident:
        """A running process's."""
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        kib = {
            name: int(value.split()[0]) for name, _, value in (line.partition(":") for line in lines) if "kB" in value
        }
        return cls(kib["VmRSS"] / 1024, kib["RssAnon"] / 1024, kib["RssFile"] / 1024)

    def __str__(self) -> str:
        return f"{self.total_mib:.1f} MiB, of it {self.anonymous_mib:.1f} its own and {self.file_mib:.1f} of files"


def sample(python: imaged.Python) -> Resident:
    """One daemon, from its start to idleness."""
    with running(python) as agent:
        agent.metrics()
        time.sleep(_SETTLED_SECONDS)
        assert agent.process is not None
        return Resident.of(agent.process.pid)


def median(python: imaged.Python, runs: int) -> Resident:
    """The median of each part; a first run, which writes byte code, is left out."""
    sample(python)
    samples = [sample(python) for _ in range(runs)]
    return Resident(
        statistics.median(one.total_mib for one in samples),
        statistics.median(one.anonymous_mib for one in samples),
        statistics.median(one.file_mib for one in samples),
    )


def figures() -> list[Figure]:
    """About a minute."""
    python = imaged.python()
    found = median(python, _RUNS)
    return [
        Figure(
            f"resident, idle, all features on ({python.about})", f"{found} (medians of {_RUNS})",
            f"<= {LIMIT_MIB:g} MiB", found.total_mib <= LIMIT_MIB,
        )
    ]  # fmt: skip
