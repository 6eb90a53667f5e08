"""Emptying a node: which pods have to go, their evictions, and who stands in the way.

    drain = NodeDrain(config.reboot.drain, kube, node="worker-1", clock=clock, chance=random.Random())
    progress = drain.step(DrainMode.EVICT, may_continue)

`preflight` reports, without touching anything, what a drain would meet.
"""

from __future__ import annotations

from agent.reboot.drain.drain import NodeDrain
from agent.reboot.drain.preflight import Expected, Preflight, preflight

__all__ = ["Expected", "NodeDrain", "Preflight", "preflight"]
