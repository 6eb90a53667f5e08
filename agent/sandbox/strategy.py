"""What the server fills in, keeps and resets on a write: defaults, generation, spec and status apart.

One rule per resource where the real strategies differ (kubernetes pkg/registry/*/strategy.go). It never refuses a
write: that is validation's work.
"""

from __future__ import annotations

import base64
import copy
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
    if "generation" in obj["metadata"]:
        # Kinds that do not count generations keep what the client made up.
        meta["generation"] = obj["metadata"]["generation"]
    meta.pop("managedFields", None)
    meta["uid"] = str(uuid.uuid4())
    meta["creationTimestamp"] = stamp(now)
    if resource.generation:
        meta["generation"] = 1
    result = {**obj, "metadata": meta}
    if resource.status and resource.plural not in _KEEPS_STATUS_AT_CREATION:
        result.pop("status", None)
    return _DEFAULTS.get(resource.plural, _unchanged)(result)


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
        _keep(meta, old_meta, "ownerReferences")
    result = _DEFAULTS.get(resource.plural, _unchanged)(result)
    if resource.generation and result.get("spec") != old.get("spec"):
        meta["generation"] = old_meta.get("generation", 0) + 1
    return result


def _keep(meta: Object, old_meta: Object, key: str) -> None:
    meta.pop(key, None)
    if key in old_meta:
        meta[key] = old_meta[key]


def _unchanged(obj: Object) -> Object:
    return obj


def _namespace(obj: Object) -> Object:
    meta = obj["metadata"]
    labels = {**(meta.get("labels") or {}), "kubernetes.io/metadata.name": meta.get("name", "")}
    return {
        **obj,
        "metadata": {**meta, "labels": labels},
        "spec": obj.get("spec") or {"finalizers": ["kubernetes"]},
        "status": obj.get("status") or {"phase": "Active"},
    }


_NOT_READY_FOR_FIVE_MINUTES: list[Object] = [
    {"key": f"node.kubernetes.io/{name}", "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": 300}
    for name in ("not-ready", "unreachable")
]


def _pod_spec(spec: Object) -> Object:
    """What pods and templates of pods get."""
    spec = {
        "restartPolicy": "Always",
        "terminationGracePeriodSeconds": 30,
        "dnsPolicy": "ClusterFirst",
        "securityContext": {},
        "schedulerName": "default-scheduler",
        **spec,
    }
    containers = [
        {
            "resources": {},
            "terminationMessagePath": "/dev/termination-log",
            "terminationMessagePolicy": "File",
            "imagePullPolicy": _pull_policy(container.get("image", "")),
            **container,
        }
        for container in spec.get("containers") or []
    ]
    return {**spec, "containers": containers}


def _pull_policy(image: str) -> str:
    name = image.rpartition("/")[2]
    return "Always" if ":" not in name or name.endswith(":latest") else "IfNotPresent"


def _pod(obj: Object) -> Object:
    """A pod also gets a priority and, from admission, patience with nodes that are not ready."""
    spec: Object = {
        "enableServiceLinks": True,
        "priority": 0,
        "preemptionPolicy": "PreemptLowerPriority",
        **_pod_spec(obj.get("spec") or {}),
    }
    tolerations = spec.get("tolerations") or []
    tolerated = {item.get("key", "") for item in tolerations}
    patience = [] if "" in tolerated else [item for item in _NOT_READY_FOR_FIVE_MINUTES if item["key"] not in tolerated]
    status = obj.get("status") or {"phase": "Pending", "qosClass": "BestEffort"}
    if "conditions" in status:
        times = {"lastProbeTime": None, "lastTransitionTime": None}
        status = {**status, "conditions": [{**times, **item} for item in status["conditions"]]}
    return {**obj, "spec": {**spec, "tolerations": [*tolerations, *patience]}, "status": status}


def _scaled(obj: Object) -> Object:
    spec = {"replicas": 1, **(obj.get("spec") or {})}
    return {**obj, "spec": _templated(spec), "status": obj.get("status") or {"replicas": 0}}


def _deployment(obj: Object) -> Object:
    quarter = {"maxUnavailable": "25%", "maxSurge": "25%"}
    spec: Object = {
        "replicas": 1,
        "strategy": {"type": "RollingUpdate", "rollingUpdate": quarter},
        "revisionHistoryLimit": 10,
        "progressDeadlineSeconds": 600,
        **(obj.get("spec") or {}),
    }
    return {**obj, "spec": _templated(spec), "status": obj.get("status") or {}}


def _templated(spec: Object) -> Object:
    template = spec.get("template")
    if not isinstance(template, dict):
        return spec
    return {**spec, "template": {**template, "spec": _pod_spec(template.get("spec") or {})}}


def _daemonset(obj: Object) -> Object:
    spec = dict(_templated(obj.get("spec") or {}))
    rolling = {"maxUnavailable": 1, "maxSurge": 0}
    spec.setdefault("updateStrategy", {"type": "RollingUpdate", "rollingUpdate": rolling})
    spec.setdefault("revisionHistoryLimit", 10)
    zero = ("currentNumberScheduled", "numberMisscheduled", "desiredNumberScheduled", "numberReady")
    return {**obj, "spec": spec, "status": obj.get("status") or dict.fromkeys(zero, 0)}


def _budget(obj: Object) -> Object:
    zero = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")
    return {**obj, "spec": obj.get("spec") or {}, "status": obj.get("status") or dict.fromkeys(zero, 0)}


def _secret(obj: Object) -> Object:
    plain = obj.get("stringData") or {}
    coded = {key: base64.b64encode(value.encode()).decode() for key, value in plain.items()}
    result = {key: value for key, value in obj.items() if key != "stringData"}
    if coded:
        result["data"] = {**(obj.get("data") or {}), **coded}
    return {"type": "Opaque", **result}


_DEFAULTS = {
    "namespaces": _namespace,
    "pods": _pod,
    "deployments": _deployment,
    "replicasets": _scaled,
    "statefulsets": _scaled,
    "daemonsets": _daemonset,
    "poddisruptionbudgets": _budget,
    "secrets": _secret,
}


def admit_node(obj: Object) -> Object:
    """A new node starts with the not-ready taint (the TaintNodesByCondition admission plugin)."""
    spec = copy.copy(obj.get("spec") or {})
    taints = list(spec.get("taints") or [])
    if NOT_READY_TAINT not in taints:
        spec["taints"] = [*taints, NOT_READY_TAINT]
    return {**obj, "spec": spec}
