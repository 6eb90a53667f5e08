"""What goes when something went: dependents of deleted owners, and everything in a namespace that is terminating.

The garbage collector and the namespace controller of kube-controller-manager, without their caution: the emulator
knows every kind that it stores. Every deletion is a background one.
"""

from __future__ import annotations

from agent.sandbox.deletion import DeleteOptions
from agent.sandbox.reconcile import Controller
from agent.sandbox.registry import Registry
from agent.sandbox.store import Change, ChangeType


class Collector(Controller):
    """Runs after every deletion."""

    def __init__(self, registry: Registry) -> None:
        """Nothing runs before ``start``."""
        super().__init__(registry, registry.catalog.all)

    def heard(self, change: Change) -> None:
        """Only what is gone or waits to go matters."""
        if change.type is ChangeType.DELETED or "deletionTimestamp" in change.item.meta:
            super().heard(change)

    def reconcile(self) -> None:
        """First the namespaces, then what has lost all its owners."""
        self._sweep_namespaces()
        there = [
            (resource, item)
            for resource in self._registry.catalog.all
            for _, item in self._registry.store.scan(resource)
        ]
        alive = {item.meta["uid"] for _, item in there}
        for resource, item in there:
            meta = item.meta
            owners = [owner.get("uid") for owner in meta.get("ownerReferences") or []]
            if owners and "deletionTimestamp" not in meta and not alive.intersection(owners):
                self._registry.delete(resource, meta.get("namespace", ""), meta["name"], DeleteOptions())

    def _sweep_namespaces(self) -> None:
        namespaces = self._registry.catalog.named("namespaces")
        for _, home in list(self._registry.store.scan(namespaces)):
            if "deletionTimestamp" not in home.meta:
                continue
            left = 0
            for resource in self._registry.catalog.all:
                if not resource.namespaced:
                    continue
                for _, item in list(self._registry.store.scan(resource, home.meta["name"])):
                    _, gone = self._registry.delete(resource, home.meta["name"], item.meta["name"], DeleteOptions())
                    left += 0 if gone else 1
            if not left:
                # Without spec.finalizers nothing holds it any more; the write removes it unless metadata.finalizers do.
                self._registry.write(namespaces, {**home.obj, "spec": {}})
