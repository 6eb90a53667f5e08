"""The disruption controller: keeps every budget's status true, so that evictions can be decided.

Follows kubernetes pkg/controller/disruption: who counts as healthy, what a percentage is of, and for how long an
eviction that led to nothing holds its place.
"""

from __future__ import annotations

import math
from datetime import datetime, timedelta

from agent.sandbox.eviction import disruption_condition, selects
from agent.sandbox.objects import is_ready
from agent.sandbox.reconcile import Controller
from agent.sandbox.registry import Registry
from agent.sandbox.status_errors import Object

DISRUPTED_FOR = timedelta(minutes=2)
_SCALED = {"ReplicaSet": "replicasets", "Deployment": "deployments", "StatefulSet": "statefulsets"}


class _NoControllerError(Exception):
    """A percentage or maxUnavailable over pods whose scale is unknown."""


class DisruptionController(Controller):
    """Recomputes all budgets when a pod, a budget or a workload changed."""

    def __init__(self, registry: Registry) -> None:
        """Nothing runs before ``start``."""
        named = registry.catalog.named
        self._pods, self._budgets = named("pods"), named("poddisruptionbudgets")
        super().__init__(registry, [self._pods, self._budgets, *map(named, _SCALED.values())])

    def reconcile(self) -> None:
        """The status of every budget."""
        store = self._registry.store
        for key, item in list(store.scan(self._budgets)):
            pods = [pod.obj for _, pod in store.scan(self._pods, key[0]) if selects(item.obj, pod.obj)]
            status = self._status(item.obj, pods, self._registry.clock())
            self._registry.write(self._budgets, {**item.obj, "status": status})

    def _status(self, budget: Object, pods: list[Object], now: datetime) -> Object:
        old = budget.get("status") or {}
        disrupted = self._disrupted(old.get("disruptedPods") or {}, pods, now)
        healthy = sum(
            1
            for pod in pods
            if is_ready(pod) and "deletionTimestamp" not in pod["metadata"] and pod["metadata"]["name"] not in disrupted
        )
        try:
            expected, desired = self._demand(budget["spec"], pods)
        except _NoControllerError as error:
            expected, desired, allowed = old.get("expectedPods", 0), old.get("desiredHealthy", 0), 0
            reason, message = "SyncFailed", str(error)
        else:
            allowed = max(healthy - desired, 0) if expected > 0 else 0
            reason, message = ("SufficientPods" if allowed else "InsufficientPods"), ""
        status: Object = {
            "observedGeneration": budget["metadata"].get("generation", 0),
            "disruptionsAllowed": allowed,
            "currentHealthy": healthy,
            "desiredHealthy": desired,
            "expectedPods": expected,
            "conditions": [disruption_condition(budget, reason, message, now)],
        }
        if disrupted:
            status["disruptedPods"] = disrupted
        return status

    def _disrupted(self, marked: Object, pods: list[Object], now: datetime) -> Object:
        waiting = {pod["metadata"]["name"] for pod in pods if "deletionTimestamp" not in pod["metadata"]}
        return {
            name: moment
            for name, moment in marked.items()
            if name in waiting and now - datetime.fromisoformat(moment) < DISRUPTED_FOR
        }

    def _demand(self, spec: Object, pods: list[Object]) -> tuple[int, int]:
        """How many pods there should be, and how many of them healthy."""
        if "maxUnavailable" in spec:
            expected = self._scale(pods)
            return expected, max(expected - share(spec["maxUnavailable"], expected), 0)
        least = spec.get("minAvailable")
        if least is None:
            return 0, 0
        if isinstance(least, int):
            return len(pods), least
        expected = self._scale(pods)
        return expected, share(least, expected)

    def _scale(self, pods: list[Object]) -> int:
        scales: dict[str, int] = {}
        for pod in pods:
            uid, replicas = self._controller(pod)
            scales[uid] = replicas
        return sum(scales.values())

    def _controller(self, obj: Object) -> tuple[str, int]:
        owners = obj["metadata"].get("ownerReferences") or []
        owner = next((item for item in owners if item.get("controller")), None)
        name = obj["metadata"]["name"]
        if owner is None:
            raise _NoControllerError(f'found no controller ref for pod "{name}"')
        plural = _SCALED.get(owner.get("kind", ""))
        key = (obj["metadata"].get("namespace", ""), owner["name"])
        item = self._registry.store.get(self._registry.catalog.named(plural), key) if plural else None
        if item is None or item.meta["uid"] != owner["uid"]:
            raise _NoControllerError(f'found no controllers for pod "{name}"')
        above = item.meta.get("ownerReferences") or []
        if any(reference.get("controller") for reference in above):
            return self._controller(item.obj)
        return item.meta["uid"], (item.obj.get("spec") or {}).get("replicas", 1)


def share(value: int | str, whole: int) -> int:
    if isinstance(value, int):
        return value
    return math.ceil(whole * int(value.rstrip("%")) / 100)
