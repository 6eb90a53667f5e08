"""What holds a reboot back although the node wants one. Each answers one question, and "cannot tell" is a yes.

    blockers = make_blockers(config.reboot, kube, node="worker-1", namespace="node-hardening", clock=clock)

Budget, opt-out and minimum gap are not here: the coordinator reads them off what it looks at anyway.
"""

from __future__ import annotations

from agent.config.schema import Kured, Reboot
from agent.kube import Kube
from agent.reboot.blockers.kured import KuredBlocker
from agent.reboot.blockers.pause import PauseBlocker
from agent.reboot.blockers.pods import PodBlocker
from agent.reboot.blockers.prometheus import PrometheusBlocker
from agent.reboot.blockers.window import WindowBlocker
from agent.reboot.ports import Blocker, Clock

__all__ = ["KuredBlocker", "PauseBlocker", "PodBlocker", "PrometheusBlocker", "WindowBlocker", "make_blockers"]

# The coordinator asks while it holds the lock: an API server that is away must be known before the lease is old.
_CALL_SECONDS = 8.0


def make_blockers(policy: Reboot, kube: Kube, *, node: str, namespace: str, clock: Clock) -> tuple[Blocker, ...]:
    """The blockers that a policy asks for, cheapest first: the first one that blocks is the one that is told.

    namespace: the agent's own, where the pause lies.
    """
    hurried = kube.within(_CALL_SECONDS)
    blockers: list[Blocker] = []
    if policy.windows:
        blockers.append(WindowBlocker(policy.windows, clock))
    blockers.append(PauseBlocker(hurried, namespace, clock))
    if policy.lock.kured is Kured.AUTO:
        blockers.append(KuredBlocker(policy.lock, hurried, node, clock))
    if policy.blockers.pods:
        blockers.append(PodBlocker(policy.blockers.pods, hurried, node))
    if policy.blockers.prometheus.url:
        blockers.append(PrometheusBlocker(policy.blockers.prometheus, clock))
    return tuple(blockers)
