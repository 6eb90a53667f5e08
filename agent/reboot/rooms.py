"""What a coordinator is given to work with."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

from agent.reboot.cluster import Cluster
from agent.reboot.ports import Blocker, Clock, Drain, Hooks, Machine, Power, Proof, Reporter, Sentinel


@dataclass(frozen=True, slots=True)
class Rooms:
    """Everything the coordinator works with; each is a front of ports.py, cluster.py or the standard library."""

    cluster: Cluster
    clock: Clock
    machine: Machine
    sentinel: Sentinel
    blockers: Sequence[Blocker]
    drain: Drain
    hooks: Hooks
    power: Power
    proof: Proof
    reporter: Reporter
    rng: random.Random
