"""The controllers of a cluster under one switch, and the one that watches over nodes.

The node lifecycle controller gives cordoned and unready nodes their taints and calls a silent kubelet Unknown, so that
the agent meets other writers on the Node as it does in life.
"""

from __future__ import annotations

import asyncio
from datetime import datetime

from agent.sandbox.builders import condition
from agent.sandbox.disruption import DisruptionController
from agent.sandbox.garbage_collector import Collector
from agent.sandbox.kubelet import Kubelets
from agent.sandbox.objects import at, condition_of, with_condition
from agent.sandbox.reconcile import Controller
from agent.sandbox.registry import Registry
from agent.sandbox.settings import Settings
from agent.sandbox.status_errors import Object
from agent.sandbox.store import Item
from agent.sandbox.strategy import stamp
from agent.sandbox.workloads import Workloads

_PREFIX = "node.kubernetes.io/"
_MANAGED = tuple(f"{_PREFIX}{name}" for name in ("unschedulable", "not-ready", "unreachable"))


class NodeLifecycle(Controller):
    """Taints and the Unknown condition."""

    def __init__(self, registry: Registry, kubelets: Kubelets, settings: Settings) -> None:
        """Nothing runs before ``start``."""
        self._nodes = registry.catalog.named("nodes")
        super().__init__(registry, [self._nodes])
        self._kubelets = kubelets
        self._settings = settings
        self._leases = registry.catalog.named("leases")
        self._next_check: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look now and then, and at every change of a node."""
        super().start()
        if self._settings.kubelet.enabled and self._settings.kubelet.heartbeat_seconds > 0:
            self._check()

    def close(self) -> None:
        """Stop."""
        super().close()
        if self._next_check is not None:
            self._next_check.cancel()

    def _check(self) -> None:
        now = self._registry.clock()
        for _, node in list(self._registry.store.scan(self._nodes)):
            if not self._kubelets.running(node.meta["name"]) and self._silent(node, now):
                self._call_unknown(node, now)
        pause = max(self._settings.node_grace_seconds / 10, 0.05)
        self._next_check = asyncio.get_running_loop().call_later(pause, self._check)

    def _silent(self, node: Item, now: datetime) -> bool:
        lease = self._registry.store.get(self._leases, ("kube-node-lease", node.meta["name"]))
        if lease is None:
            return True
        renewed = datetime.fromisoformat(lease.obj["spec"]["renewTime"])
        return (now - renewed).total_seconds() > self._settings.node_grace_seconds

    def _call_unknown(self, node: Item, now: datetime) -> None:
        if condition_of(node.obj, "Ready").get("status") != "Unknown":
            text = "Kubelet stopped posting node status."
            unknown = condition("Ready", "Unknown", "NodeStatusUnknown", text, now)
            self._registry.write(self._nodes, with_condition(node.obj, unknown))

    def reconcile(self) -> None:
        """The taints of every node."""
        now = stamp(self._registry.clock())
        for _, node in list(self._registry.store.scan(self._nodes)):
            spec = node.obj.get("spec") or {}
            taints = spec.get("taints") or []
            desired = _desired_taints(node.obj)
            kept = [taint for taint in taints if taint.get("key") not in _MANAGED or _pair(taint) in desired]
            present = {_pair(taint) for taint in kept}
            added = [{"key": key, "effect": effect, "timeAdded": now} for key, effect in desired - present]
            if added or len(kept) != len(taints):
                result = {**spec, "taints": [*kept, *sorted(added, key=_pair)]}
                if not result["taints"]:
                    del result["taints"]
                self._registry.write(self._nodes, {**node.obj, "spec": result})


def _pair(taint: Object) -> tuple[str, str]:
    return str(taint.get("key", "")), str(taint.get("effect", ""))


def _desired_taints(node: Object) -> set[tuple[str, str]]:
    desired: set[tuple[str, str]] = set()
    if at(node, "spec.unschedulable"):
        desired.add((f"{_PREFIX}unschedulable", "NoSchedule"))
    ready = condition_of(node, "Ready").get("status", "Unknown")
    if ready == "False":
        desired |= {(f"{_PREFIX}not-ready", effect) for effect in ("NoSchedule", "NoExecute")}
    elif ready != "True":
        desired |= {(f"{_PREFIX}unreachable", effect) for effect in ("NoSchedule", "NoExecute")}
    return desired


def controllers(registry: Registry, kubelets: Kubelets, settings: Settings) -> tuple[Controller, ...]:
    """All of them, or none where ``settings.controllers`` is False."""
    if not settings.controllers:
        return ()
    return (
        NodeLifecycle(registry, kubelets, settings),
        DisruptionController(registry),
        Workloads(registry),
        Collector(registry),
    )
