"""The agent's own memory and CPU time, read at each scrape.

prometheus_client's own collector opens five files a scrape, and loading it costs memory on every node. What the kernel
does not report is left out.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric

_STATM = Path("/proc/self/statm")


class ProcessCollector:
    """A collector for a registry: memory of this process, CPU time of it and of the commands that it ran."""

    def __init__(self, statm: Path = _STATM) -> None:
        """statm: the kernel's file of this process's memory, in pages (proc_pid_statm(5))."""
        self._statm = statm

    def collect(self) -> Iterator[Metric]:
        """Both metrics, as they are now."""
        memory = GaugeMetricFamily(
            "node_hardening_process_resident_memory_bytes", "Memory that the agent holds on this node now."
        )
        try:
            pages = int(self._statm.read_text().split()[1])
        except (OSError, ValueError, IndexError):
            pages = None
        if pages is not None:
            memory.add_metric((), float(pages * os.sysconf("SC_PAGE_SIZE")))
        yield memory
        times = os.times()
        yield CounterMetricFamily(
            "node_hardening_process_cpu_seconds",
            "CPU time of the agent and of the commands that it ran on the node.",
            value=times.user + times.system + times.children_user + times.children_system,
        )
