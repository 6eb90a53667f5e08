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
from agent.sandbox.reconcile import Reconciler
from agent.sandbox.registry import Registry
from agent.sandbox.settings import Settings
from agent.sandbox.status_errors import Object
from agent.sandbox.store import Item
from agent.sandbox.strategy import stamp
from agent.sandbox.workloads import Workloads

_PREFIX = "node.kubernetes.io/"
_MANAGED = tuple(f"{_PREFIX}{name}" for name in ("unschedulable", "not-ready", "unreachable"))


class NodeLifecycle:
    """Taints and the Unknown condition."""

    def __init__(self, registry: Registry, kubelets: Kubelets, settings: Settings) -> None:
        """Nothing runs before ``start``."""
        self._registry = registry
        self._kubelets = kubelets
        self._settings = settings
        self._nodes = registry.catalog.named("nodes")
        self._leases = registry.catalog.named("leases")
        self._reconciler = Reconciler(registry.store, (self._nodes,), self._reconcile)
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Look now and then, and at every change of a node."""
        self._reconciler.start()
        if self._settings.kubelet.enabled and self._settings.kubelet.heartbeat_seconds > 0:
            self._check()

    def close(self) -> None:
        """Stop."""
        self._reconciler.close()
        if self._timer is not None:
            self._timer.cancel()

    def _check(self) -> None:
        now = self._registry.clock()
        for _, node in list(self._registry.store.scan(self._nodes)):
            if not self._kubelets.running(node.meta["name"]) and self._silent(node, now):
                self._call_unknown(node, now)
        pause = max(self._settings.node_grace_seconds / 10, 0.05)
        self._timer = asyncio.get_running_loop().call_later(pause, self._check)

    def _silent(self, node: Item, now: datetime) -> bool:
        lease = self._registry.store.get(self._leases, ("kube-node-lease", node.meta["name"]))
        if lease is None:
            return True
        renewed = datetime.fromisoformat(lease.obj["spec"]["renewTime"])
        return (now - renewed).total_seconds() > self._settings.node_grace_seconds

    def _call_unknown(self, node: Item, now: datetime) -> None:
        status = node.obj.get("status") or {}
        conditions = status.get("conditions") or []
        ready = next((item for item in conditions if item.get("type") == "Ready"), None)
        if ready is not None and ready.get("status") == "Unknown":
            return
        text = "Kubelet stopped posting node status."
        unknown = condition("Ready", "Unknown", "NodeStatusUnknown", text, now)
        others = [item for item in conditions if item.get("type") != "Ready"]
        self._registry.write(self._nodes, {**node.obj, "status": {**status, "conditions": [*others, unknown]}})

    def _reconcile(self) -> None:
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
    if (node.get("spec") or {}).get("unschedulable"):
        desired.add((f"{_PREFIX}unschedulable", "NoSchedule"))
    conditions = (node.get("status") or {}).get("conditions") or []
    ready = next((item.get("status") for item in conditions if item.get("type") == "Ready"), "Unknown")
    if ready == "False":
        desired |= {(f"{_PREFIX}not-ready", effect) for effect in ("NoSchedule", "NoExecute")}
    elif ready != "True":
        desired |= {(f"{_PREFIX}unreachable", effect) for effect in ("NoSchedule", "NoExecute")}
    return desired


class Controllers:
    """All of them, or none."""

    def __init__(self, registry: Registry, kubelets: Kubelets, settings: Settings) -> None:
        """With ``settings.controllers`` False nothing ever runs."""
        self._parts: tuple[NodeLifecycle | DisruptionController | Workloads | Collector, ...] = ()
        if settings.controllers:
            self._parts = (
                NodeLifecycle(registry, kubelets, settings),
                DisruptionController(registry),
                Workloads(registry),
                Collector(registry),
            )

    def start(self) -> None:
        """Begin."""
        for part in self._parts:
            part.start()

    def close(self) -> None:
        """Stop."""
        for part in self._parts:
            part.close()
