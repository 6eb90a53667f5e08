"""The eviction subresource: a delete that a PodDisruptionBudget can refuse.

Step by step as kubernetes pkg/registry/core/pod/storage/eviction.go does it, with its oddest answer kept: two budgets
on one pod give a Status of code 500 without a reason.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime
from typing import Any

from agent.config.selector import from_object
from agent.sandbox import status_errors
from agent.sandbox.deletion import DeleteOptions
from agent.sandbox.objects import at, condition_of, is_ready, with_condition
from agent.sandbox.registry import Registry
from agent.sandbox.status_errors import ApiError, Cause, Object
from agent.sandbox.store import Item
from agent.sandbox.strategy import stamp

_REFUSED = "Cannot evict pod as it would violate the pod's disruption budget."
_CAUSE = "DisruptionBudget"
_LAG_SECONDS = 10
_TWO_BUDGETS = "This pod has more than one PodDisruptionBudget, which the eviction subresource does not support."


def selects(budget: Object, pod: Object) -> bool:
    """Whether a budget is about a pod. A missing selector selects nothing, an empty one everything; one that cannot be
    read, which validation refuses, selects nothing (pkg/registry/core/pod/storage/eviction.go)."""
    found = (budget.get("spec") or {}).get("selector")
    try:
        return found is not None and from_object(found).matches(at(pod, "metadata.labels", {}))
    except ValueError:
        return False


def disruption_condition(budget: Object, reason: str, message: str, now: datetime) -> Object:
    """A budget's DisruptionAllowed condition; its time moves only when its status does."""
    allowed = "True" if reason == "SufficientPods" else "False"
    before = condition_of(budget, "DisruptionAllowed")
    return {
        "type": "DisruptionAllowed",
        "status": allowed,
        "observedGeneration": at(budget, "metadata.generation", 0),
        "lastTransitionTime": before["lastTransitionTime"] if before.get("status") == allowed else stamp(now),
        "reason": reason,
        "message": message,
    }


def read_eviction(body: Any, name: str, *, dry_run: bool) -> DeleteOptions:
    """The delete options of an Eviction object.

    Raises ApiError: 400 for another kind or name, or dry-run options that contradict each other.
    """
    if not isinstance(body, dict):
        raise status_errors.bad_request("the request body is not an object")
    if body.get("kind", "Eviction") != "Eviction":
        kind, version = body["kind"], str(body.get("apiVersion", "")).rpartition("/")[2]
        what = f'{kind} in version "{version}" cannot be handled as a Eviction'
        raise status_errors.bad_request(
            f"{what}: converting ({version}.{kind}) to (policy.Eviction): unknown conversion"
        )
    if (body.get("metadata") or {}).get("name", "") != name:
        raise status_errors.bad_request("name in URL does not match name in Eviction object")
    return delete_options(body.get("deleteOptions") or {}, dry_run=dry_run)


def delete_options(values: Any, *, dry_run: bool) -> DeleteOptions:
    """metav1.DeleteOptions as values. Raises ApiError: 400 for wrong types."""
    if not isinstance(values, dict):
        raise status_errors.bad_request("the delete options are not an object")
    grace = values.get("gracePeriodSeconds")
    if grace is not None and type(grace) is not int:
        raise status_errors.bad_request("json: gracePeriodSeconds of DeleteOptions is of type int64")
    preconditions = values.get("preconditions") or {}
    return DeleteOptions(
        grace_seconds=grace,
        uid=preconditions.get("uid") or "",
        resource_version=preconditions.get("resourceVersion") or "",
        dry_run=dry_run or values.get("dryRun") == ["All"],
    )


class Evictor:
    """Evicts pods of a registry."""

    def __init__(self, registry: Registry) -> None:
        """Budgets and pods are the registry's."""
        self._registry = registry
        self._pods = registry.catalog.named("pods")
        self._budgets = registry.catalog.named("poddisruptionbudgets")

    def evict(self, namespace: str, name: str, options: DeleteOptions) -> Object:
        """The Status object of a success.

        Raises ApiError: 404, 403 in a namespace that is terminating, 409 on a precondition, 429 with the cause
        DisruptionBudget, 500 for two budgets.
        """
        # An eviction is a create, and NamespaceLifecycle judges those before anything is looked up.
        self._registry.check_namespace(self._pods, namespace, name)
        pod = self._registry.get(self._pods, namespace, name)
        if at(pod.obj, "status.phase") in ("Succeeded", "Failed", "Pending") or "deletionTimestamp" in pod.meta:
            return self._delete(pod, options)
        budgets = [
            item for _, item in self._registry.store.scan(self._budgets, namespace) if selects(item.obj, pod.obj)
        ]
        if len(budgets) > 1:
            raise ApiError(500, "", _TWO_BUDGETS, details=False)
        if budgets and self._held(budgets[0], pod):
            self._spend(budgets[0], pod, options)
        return self._delete(pod, options)

    def _delete(self, pod: Item, options: DeleteOptions) -> Object:
        """First the condition that tells an eviction from a plain deletion, then the deletion."""
        key = (pod.meta["namespace"], pod.meta["name"])
        self._registry.delete(self._pods, *key, replace(options, dry_run=True))
        if not options.dry_run:
            mark = {
                "type": "DisruptionTarget",
                "status": "True",
                "lastProbeTime": None,
                "lastTransitionTime": stamp(self._registry.clock()),
                "reason": "EvictionByEvictionAPI",
                "message": "Eviction API: evicting",
            }
            self._registry.write(self._pods, with_condition(pod.obj, mark))
            # Its version was compared above, and the mark has moved it.
            self._registry.delete(self._pods, *key, replace(options, resource_version=""))
        return {**status_errors.success(), "code": 201}

    def _held(self, budget: Item, pod: Item) -> bool:
        """An unready pod is not counted as healthy: it may go while enough others are, or always by policy."""
        if is_ready(pod.obj):
            return True
        if at(budget.obj, "spec.unhealthyPodEvictionPolicy") == "AlwaysAllow":
            return False
        status = budget.obj.get("status") or {}
        desired = status.get("desiredHealthy", 0)
        return not (desired > 0 and status.get("currentHealthy", 0) >= desired)

    def _spend(self, budget: Item, pod: Item, options: DeleteOptions) -> None:
        meta, status = budget.meta, budget.obj.get("status") or {}
        name = meta["name"]
        if status.get("observedGeneration", 0) < meta.get("generation", 0):
            raise _refusal(f"The disruption budget {name} is still being processed by the server.", _LAG_SECONDS)
        allowed = status.get("disruptionsAllowed", 0)
        if allowed <= 0:
            needs, has = status.get("desiredHealthy", 0), status.get("currentHealthy", 0)
            raise _refusal(f"The disruption budget {name} needs {needs} healthy pods and has {has} currently", 0)
        if options.dry_run:
            return
        # Spent before the delete is tried, as there: a failing precondition costs the budget until its controller's
        # two minutes are over.
        disrupted = {**(status.get("disruptedPods") or {}), pod.meta["name"]: stamp(self._registry.clock())}
        left = {"disruptionsAllowed": allowed - 1, "disruptedPods": disrupted}
        if allowed == 1:
            left["conditions"] = [disruption_condition(budget.obj, "InsufficientPods", "", self._registry.clock())]
        self._registry.write(self._budgets, {**budget.obj, "status": {**status, **left}})


def _refusal(text: str, retry_after: int) -> ApiError:
    return status_errors.too_many_requests(_REFUSED, retry_after, (Cause(_CAUSE, text),))
