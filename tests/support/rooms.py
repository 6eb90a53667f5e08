"""For tests of the rooms around the coordinator: both clocks in hand, and a node's tree with its folders."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from agent.host import Host


@dataclass
class Clocks:
    """Both clocks, which pass only when a test says so."""

    mono: float = 1000.0
    epoch: float = 1_800_000_000.0  # 2027-01-15T08:00:00Z

    def monotonic(self) -> float:
        return self.mono

    def wall(self) -> float:
        return self.epoch

    def sleep(self, seconds: float) -> None:
        """Both go on alike."""
        self.mono += seconds
        self.epoch += seconds


def node_tree(folder: Path) -> Host:
    """A node's tree with /run, and /var/run as a symlink to it, as distributions have it."""
    (folder / "run").mkdir(parents=True)
    (folder / "var").mkdir()
    (folder / "var/run").symlink_to("/run")
    return Host(folder)
