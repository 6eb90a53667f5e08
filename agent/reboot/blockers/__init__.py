"""What holds a reboot back although the node needs one. Each answers one question; "unknown" holds it back too.

    blockers = make_blockers(BlockerContext(config.reboot, kube, "worker-1", "node-hardening", clock, host))

Budget, opt-out and minimum gap are not here: the coordinator derives them from what it reads anyway.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

from agent.config.choices import Kured
from agent.config.schema import Reboot
from agent.host import Host
from agent.kube import Kube
from agent.reboot.blockers.inhibitors import InhibitorBlocker
from agent.reboot.blockers.kured import KuredBlocker
from agent.reboot.blockers.package_manager import PackageManagerBlocker
from agent.reboot.blockers.pause import PauseBlocker
from agent.reboot.blockers.pods import PodBlocker
from agent.reboot.blockers.prometheus import PrometheusBlocker
from agent.reboot.blockers.settle import SettleBlocker
from agent.reboot.blockers.window import WindowBlocker
from agent.reboot.interfaces import Blocker, Clock, Sentinel
from agent.reboot.status import StatusReason

__all__ = ["BLOCKERS", "BlockerContext", "BlockerSpec", "make_blockers", "reason_of"]

# The coordinator checks while it holds the lock: an API server that is away must be known before the lease is old.
_CALL_SECONDS = 8.0


@dataclass(frozen=True, slots=True)
class BlockerContext:
    """What a blocker is made from.

    namespace: the agent's own, with the pause. host, sentinel: None away from the node; what needs them is left out.
    """

    policy: Reboot
    kube: Kube
    node: str
    namespace: str
    clock: Clock
    host: Host | None = None
    sentinel: Sentinel | None = None


@dataclass(frozen=True, slots=True)
class BlockerSpec:
    """One kind of blocker.

    name: in metrics and status. reason: in the status while it blocks. make: returns None where the policy does not
    ask for it.
    """

    name: str
    reason: StatusReason
    make: Callable[[BlockerContext], Blocker | None]


def _window(context: BlockerContext) -> Blocker | None:
    policy = context.policy
    if not policy.windows and not policy.blackouts:
        return None
    return WindowBlocker(policy.windows, policy.blackouts, context.clock)


def _settle(context: BlockerContext) -> Blocker | None:
    if context.sentinel is None or context.policy.sentinel.settle <= 0:
        return None
    return SettleBlocker(context.sentinel, context.policy.sentinel.settle, context.clock)


def _package_manager(context: BlockerContext) -> Blocker | None:
    enabled = context.policy.blockers.package_manager
    return PackageManagerBlocker(context.host) if enabled and context.host is not None else None


def _inhibitors(context: BlockerContext) -> Blocker | None:
    enabled = context.policy.blockers.inhibitors
    return InhibitorBlocker(context.host) if enabled and context.host is not None else None


def _pause(context: BlockerContext) -> Blocker:
    return PauseBlocker(context.kube, context.namespace, context.clock)


def _kured(context: BlockerContext) -> Blocker | None:
    lock = context.policy.lock
    return KuredBlocker(lock, context.kube, context.node, context.clock) if lock.kured is Kured.AUTO else None


def _pods(context: BlockerContext) -> Blocker | None:
    selectors = context.policy.blockers.pods
    return PodBlocker(selectors, context.kube, context.node) if selectors else None


def _prometheus(context: BlockerContext) -> Blocker | None:
    policy = context.policy.blockers.prometheus
    return PrometheusBlocker(policy, context.clock, context.node) if policy.url else None


# The cheapest first: the first one that blocks is the one that is reported.
BLOCKERS: tuple[BlockerSpec, ...] = (
    BlockerSpec("window", StatusReason.OUTSIDE_WINDOW, _window),
    BlockerSpec("settle", StatusReason.BLOCKED_BY_PACKAGE_MANAGER, _settle),
    BlockerSpec("package-manager", StatusReason.BLOCKED_BY_PACKAGE_MANAGER, _package_manager),
    BlockerSpec("inhibitor", StatusReason.BLOCKED_BY_INHIBITOR, _inhibitors),
    BlockerSpec("pause", StatusReason.PAUSED, _pause),
    BlockerSpec("kured", StatusReason.KURED_LOCKED, _kured),
    BlockerSpec("pods", StatusReason.BLOCKED_BY_PODS, _pods),
    BlockerSpec("prometheus", StatusReason.BLOCKED_BY_ALERTS, _prometheus),
)


def make_blockers(context: BlockerContext) -> tuple[Blocker, ...]:
    """The blockers of a policy, in the order of BLOCKERS."""
    context = replace(context, kube=context.kube.within(_CALL_SECONDS))
    made = (spec.make(context) for spec in BLOCKERS)
    return tuple(blocker for blocker in made if blocker is not None)


def reason_of(name: str) -> StatusReason:
    """The status reason of a blocker by its name; a name that is not registered is just blocked."""
    return next((spec.reason for spec in BLOCKERS if spec.name == name), StatusReason.BLOCKED)
