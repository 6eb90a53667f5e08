"""What the server fills in, keeps and resets on a write: defaults, generation, spec and status apart.

One rule per resource where the real strategies differ (kubernetes pkg/registry/*/strategy.go). It never refuses a
write: that is validation's work.
"""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

from agent.sandbox.catalog import Resource
from agent.sandbox.status_errors import Object

NOT_READY_TAINT: Object = {"key": "node.kubernetes.io/not-ready", "effect": "NoSchedule"}
_SYSTEM_META = ("uid", "creationTimestamp", "generation", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink")
_KEEPS_STATUS_AT_CREATION = frozenset({"nodes"})


def stamp(moment: datetime) -> str:
    """``2006-01-02T15:04:05Z``."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def micro_stamp(moment: datetime) -> str:
    """``2006-01-02T15:04:05.000000Z``, as leases have it."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def for_create(obj: Object, resource: Resource, now: datetime) -> Object:
    """A decoded object as it is first stored, without a resourceVersion."""
    meta = {key: value for key, value in obj["metadata"].items() if key not in _SYSTEM_META}
    meta.pop("managedFields", None)
    meta["uid"] = str(uuid.uuid4())
    meta["creationTimestamp"] = stamp(now)
    if resource.generation:
        meta["generation"] = 1
    result = {**obj, "metadata": meta}
    if resource.status and resource.plural not in _KEEPS_STATUS_AT_CREATION:
        result.pop("status", None)
    return _with_defaults(result, resource.plural)


def for_update(obj: Object, old: Object, resource: Resource, subresource: str) -> Object:
    """A decoded object as it replaces ``old``: a write to ``status`` keeps the spec, any other keeps the status."""
    old_meta = old["metadata"]
    meta = {key: value for key, value in obj["metadata"].items() if key not in _SYSTEM_META or key == "uid"}
    meta.setdefault("uid", old_meta["uid"])
    for key in _SYSTEM_META[1:]:
        if key in old_meta:
            meta[key] = old_meta[key]
    result = {**obj, "metadata": meta}
    if resource.status:
        kept = "spec" if subresource == "status" else "status"
        result.pop(kept, None)
        if kept in old:
            result[kept] = old[kept]
    if resource.plural == "pods" and subresource == "status":
        meta.pop("ownerReferences", None)
        if "ownerReferences" in old_meta:
            meta["ownerReferences"] = old_meta["ownerReferences"]
    result = _with_defaults(result, resource.plural)
    if resource.generation and result.get("spec") != old.get("spec"):
        meta["generation"] = old_meta.get("generation", 0) + 1
    return result


def _with_defaults(obj: Object, plural: str) -> Object:
    """What the kind's own strategy fills in; a status only where there is none yet."""
    defaults = _SPECS.get(plural)
    if defaults is not None:
        obj = {**obj, "spec": _templated({**defaults, **(obj.get("spec") or {})})}
    if plural in _STATUSES:
        obj = {**obj, "status": obj.get("status") or _STATUSES[plural]}
    if plural == "secrets":
        obj = {"type": "Opaque", **obj}
    more = {"namespaces": _namespace, "pods": _pod}.get(plural)
    return more(obj) if more else obj


_ROLLING = {"type": "RollingUpdate"}
_SPECS: dict[str, Object] = {
    "deployments": {
        "replicas": 1, "strategy": {**_ROLLING, "rollingUpdate": {"maxUnavailable": "25%", "maxSurge": "25%"}},
        "revisionHistoryLimit": 10, "progressDeadlineSeconds": 600,
    },
    "replicasets": {"replicas": 1},
    "statefulsets": {"replicas": 1},
    "daemonsets": {
        "updateStrategy": {**_ROLLING, "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
        "revisionHistoryLimit": 10,
    },
    "poddisruptionbudgets": {},
    "pods": {"enableServiceLinks": True, "priority": 0, "preemptionPolicy": "PreemptLowerPriority"},
}  # fmt: skip
_COUNTS = ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady")
_BUDGET_COUNTS = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")
_STATUSES: dict[str, Object] = {
    "namespaces": {"phase": "Active"},
    "pods": {"phase": "Pending", "qosClass": "BestEffort"},
    "deployments": {},
    "replicasets": {"replicas": 0},
    "statefulsets": {"replicas": 0},
    "daemonsets": dict.fromkeys(_COUNTS, 0),
    "poddisruptionbudgets": dict.fromkeys(_BUDGET_COUNTS, 0),
}


def _namespace(obj: Object) -> Object:
    meta = obj["metadata"]
    labels = {**(meta.get("labels") or {}), "kubernetes.io/metadata.name": meta.get("name", "")}
    spec = obj.get("spec") or {"finalizers": ["kubernetes"]}
    return {**obj, "metadata": {**meta, "labels": labels}, "spec": spec}


_POD_SPEC: Object = {
    "restartPolicy": "Always", "terminationGracePeriodSeconds": 30, "dnsPolicy": "ClusterFirst", "securityContext": {},
    "schedulerName": "default-scheduler",
}  # fmt: skip
_CONTAINER: Object = {
    "resources": {}, "terminationMessagePath": "/dev/termination-log", "terminationMessagePolicy": "File",
}  # fmt: skip
_NOT_READY_FOR_FIVE_MINUTES: list[Object] = [
    {"key": f"node.kubernetes.io/{name}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    for name in ("not-ready", "unreachable")
]


def _pod_spec(spec: Object) -> Object:
    """What pods and templates of pods get."""
    containers = [
        {**_CONTAINER, "imagePullPolicy": _pull_policy(container.get("image", "")), **container}
        for container in spec.get("containers") or []
    ]
    return {**_POD_SPEC, **spec, "containers": containers}


def _pull_policy(image: str) -> str:
    name = image.rpartition("/")[2]
    return "Always" if ":" not in name or name.endswith(":latest") else "IfNotPresent"


def _templated(spec: Object) -> Object:
    template = spec.get("template")
    if not isinstance(template, dict):
        return spec
    return {**spec, "template": {**template, "spec": _pod_spec(template.get("spec") or {})}}


def _pod(obj: Object) -> Object:
    """A pod also gets, from admission, tolerations of nodes that are not ready."""
    spec, status = _pod_spec(obj["spec"]), obj["status"]
    tolerations = spec.get("tolerations") or []
    tolerated = {item.get("key", "") for item in tolerations}
    added = [] if "" in tolerated else [item for item in _NOT_READY_FOR_FIVE_MINUTES if item["key"] not in tolerated]
    if "conditions" in status:
        times = {"lastProbeTime": None, "lastTransitionTime": None}
        status = {**status, "conditions": [{**times, **item} for item in status["conditions"]]}
    return {**obj, "spec": {**spec, "tolerations": [*tolerations, *added]}, "status": status}


def admit_node(obj: Object) -> Object:
    """A new node starts with the not-ready taint (the TaintNodesByCondition admission plugin)."""
    spec = obj.get("spec") or {}
    taints = [taint for taint in spec.get("taints") or [] if taint != NOT_READY_TAINT]
    return {**obj, "spec": {**spec, "taints": [*taints, NOT_READY_TAINT]}}
