"""What a coordinator is given to work with."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from agent.reboot.cluster import Cluster
from agent.reboot.interfaces import Blocker, Clock, Drain, HardeningCheck, Hooks, Machine, Rebooter, Reporter, Sentinel


@dataclass(frozen=True, slots=True)
class Dependencies:
    """Everything the coordinator works with; each is a front of ports.py, cluster.py or the standard library."""

    cluster: Cluster
    clock: Clock
    machine: Machine
    sentinel: Sentinel
    blockers: Sequence[Blocker]
    drain: Drain
    hooks: Hooks
    power: Rebooter
    proof: HardeningCheck
    reporter: Reporter
    rng: random.Random
