"""What passes of the daemon leave in memory, measured in a process of its own: python -m … FOLDER."""

from __future__ import annotations

import gc
import sys
import tracemalloc
from pathlib import Path
from typing import Any

import structlog
import yaml

from agent.daemon.config_store import PolicyStore
from agent.daemon.loop import Daemon
from agent.event_reasons import Reason
from agent.host import Host
from agent.report.metrics import Metrics
from agent.report.node_status import NodeView
from agent.sandbox.noderoot import NodeRoot

PASSES = 20
_WARM_UP = 5


class _Counting:
    """Stands for the reporter: requests the next pass at the end of each, and takes what is allocated then."""

    def __init__(self) -> None:
        self.daemon: Daemon | None = None
        self.passes = 0
        self.before = self.after = 0

    def offer(self, part: str, _shown: NodeView) -> None:
        if part != "hardening" or self.daemon is None:
            return
        self.passes += 1
        if self.passes == _WARM_UP:
            self.before = _allocated_bytes()
        if self.passes == _WARM_UP + PASSES:
            self.after = _allocated_bytes()
            self.daemon.stop()
        self.daemon.reload()

    def event(self, reason: Reason, message: str) -> None:
        """None is expected."""
        raise AssertionError(f"{reason}: {message}")


def _allocated_bytes() -> int:
    """Without garbage, and without CPython's own cache of attributes: 4096 names, 256 KiB, which fill up slowly."""
    gc.collect()
    clear: Any = getattr(sys, "_clear_internal_caches", None) or sys._clear_type_cache
    clear()
    return tracemalloc.get_traced_memory()[0]


def main(folder: Path) -> None:
    """Prints the bytes that the passes left behind: policy read, every control applied, the result published."""
    root = NodeRoot.make(folder / "root", "node-1")
    policy = folder / "config.yaml"
    policy.write_text(yaml.safe_dump({"kubelet": {"probe": False}, "reboot": {"mode": "off"}}))
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    host, sink = Host(root.path), _Counting()
    sink.daemon = Daemon(host, "node-1", PolicyStore(policy, host, explicit=True), sink, Metrics())
    tracemalloc.start()
    sink.daemon.run()
    sys.stdout.write(f"{sink.after - sink.before}\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
