"""What goes when something went: dependents of deleted owners, and everything in a namespace that is terminating.

The garbage collector and the namespace controller of kube-controller-manager, without their caution: the emulator
knows every kind that it stores.
"""

from __future__ import annotations

from agent.sandbox.deletion import DeleteOptions
from agent.sandbox.reconcile import Reconciler
from agent.sandbox.registry import Registry
from agent.sandbox.status_errors import Object
from agent.sandbox.store import Change, ChangeType, Item

_FOREGROUND, _ORPHAN = "foregroundDeletion", "orphan"


class Collector:
    """Runs after every deletion."""

    def __init__(self, registry: Registry) -> None:
        """Nothing runs before ``start``."""
        self._registry = registry
        self._reconciler = Reconciler(registry.store, registry.catalog.all, self._reconcile, _matters)
        self.start, self.close = self._reconciler.start, self._reconciler.close

    def _reconcile(self) -> None:
        self._sweep_namespaces()
        alive, dependents = self._survey()
        for plural, item in dependents:
            self._judge(plural, item, alive)
        self._finish_owners(dependents)

    def _survey(self) -> tuple[set[str], list[tuple[str, Item]]]:
        alive: set[str] = set()
        dependents: list[tuple[str, Item]] = []
        for resource in self._registry.catalog.all:
            for _, item in self._registry.store.scan(resource):
                finalizers = item.meta.get("finalizers") or []
                if "deletionTimestamp" not in item.meta or _FOREGROUND not in finalizers:
                    alive.add(item.meta["uid"])
                if item.meta.get("ownerReferences"):
                    dependents.append((resource.plural, item))
        return alive, dependents

    def _judge(self, plural: str, item: Item, alive: set[str]) -> None:
        meta = item.meta
        if "deletionTimestamp" in meta or any(owner.get("uid") in alive for owner in meta["ownerReferences"]):
            return
        resource = self._registry.catalog.named(plural)
        self._registry.delete(resource, meta.get("namespace", ""), meta["name"], DeleteOptions())

    def _finish_owners(self, dependents: list[tuple[str, Item]]) -> None:
        for resource in self._registry.catalog.all:
            for _, item in list(self._registry.store.scan(resource)):
                held = set(item.meta.get("finalizers") or []) & {_FOREGROUND, _ORPHAN}
                if "deletionTimestamp" not in item.meta or not held:
                    continue
                mine = [(plural, found) for plural, found in dependents if _owned_by(found.obj, item.meta["uid"])]
                if _ORPHAN in held:
                    self._drop_owner(mine, item.meta["uid"])
                elif any(self._registry.store.get(self._registry.catalog.named(plural), _key(found)) is not None
                         for plural, found in mine):  # fmt: skip
                    continue
                kept = [name for name in item.meta["finalizers"] if name not in (_FOREGROUND, _ORPHAN)]
                self._registry.write(resource, {**item.obj, "metadata": {**item.meta, "finalizers": kept}})

    def _drop_owner(self, dependents: list[tuple[str, Item]], uid: str) -> None:
        for plural, item in dependents:
            owners = [owner for owner in item.meta["ownerReferences"] if owner.get("uid") != uid]
            resource = self._registry.catalog.named(plural)
            self._registry.write(resource, {**item.obj, "metadata": {**item.meta, "ownerReferences": owners}})

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


def _matters(change: Change) -> bool:
    return change.type is ChangeType.DELETED or "deletionTimestamp" in change.item.meta


def _owned_by(obj: Object, uid: str) -> bool:
    return any(owner.get("uid") == uid for owner in obj["metadata"].get("ownerReferences") or [])


def _key(item: Item) -> tuple[str, str]:
    return item.meta.get("namespace", ""), item.meta["name"]
