"""What kubectl prints: server-side Tables, the columns of each kind, and objects cut down to their metadata.

The columns follow kubernetes pkg/printers/internalversion/printers.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import datetime

from agent.sandbox.catalog import Resource
from agent.sandbox.objects import at, condition_of
from agent.sandbox.status_errors import Object
from agent.sandbox.store import Item

Cell = str | int
_ROLE = "node-role.kubernetes.io/"
_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
# Below so many seconds an age has this unit, and this smaller one where it is not 0 (apimachinery's HumanDuration).
_AGES = (
    (120, "s", ""), (600, "m", "s"), (10800, "m", ""), (28800, "h", "m"), (172800, "h", ""), (691200, "d", "h"),
    (float("inf"), "d", ""),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Column:
    """``value`` makes a cell of an object and the time; ``wide`` is what ``-o wide`` adds."""

    name: str
    value: Callable[[Object, datetime], Cell]
    wide: bool = False


def partial(item: Item) -> Object:
    """The object's metadata under PartialObjectMetadata, as watches and lists of metadata want it."""
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": item.meta}


def table(resource: Resource, items: Iterable[Item], meta: Object, now: datetime, *, headed: bool = True) -> Object:
    """A meta.k8s.io/v1 Table; without ``headed`` it has no column definitions, as later events of a watch."""
    columns = _COLUMNS.get(resource.plural, (_NAME, _AGE))
    definitions = [
        {"name": column.name, "type": "string", "format": "name" if column is _NAME else "", "description": "",
         "priority": int(column.wide)}
        for column in columns
    ]  # fmt: skip
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta,
        "columnDefinitions": definitions if headed else None,
        "rows": [
            {"cells": [column.value(item.obj, now) for column in columns], "object": partial(item)} for item in items
        ],
    }


def age(text: str | None, now: datetime) -> str:
    """How long ago, as kubectl has it: 45s, 3m12s, 4h, 6d4h."""
    if not text:
        return "<unknown>"
    seconds = max(int((now - datetime.fromisoformat(text)).total_seconds()), 0)
    unit, minor = next(units for below, *units in _AGES if seconds < below)
    rest = seconds % _UNITS[unit] // _UNITS[minor] if minor else 0
    return f"{seconds // _UNITS[unit]}{unit}" + (f"{rest}{minor}" if rest else "")


def roles(node: Object) -> str:
    """The roles that its labels give a node, as kubectl lists them."""
    labels = at(node, "metadata.labels", {})
    return ",".join(sorted(key.removeprefix(_ROLE) for key in labels if key.startswith(_ROLE))) or "<none>"


def _node_status(obj: Object) -> str:
    word = {None: "Unknown", "True": "Ready"}.get(condition_of(obj, "Ready").get("status"), "NotReady")
    return f"{word},SchedulingDisabled" if at(obj, "spec.unschedulable") else word


def _address(obj: Object, kind: str) -> str:
    found = (item["address"] for item in at(obj, "status.addresses", []) if item.get("type") == kind)
    return next(found, "<none>")


def _pod_ready(obj: Object) -> str:
    ready = sum(1 for item in at(obj, "status.containerStatuses", []) if item.get("ready"))
    return f"{ready}/{len(at(obj, 'spec.containers', []))}"


def _pod_status(obj: Object) -> str:
    if "deletionTimestamp" in obj["metadata"]:
        return "Terminating"
    return str(at(obj, "status.reason") or at(obj, "status.phase", ""))


def _restarts(obj: Object) -> str:
    return str(sum(item.get("restartCount", 0) for item in at(obj, "status.containerStatuses", [])))


def _event_count(obj: Object) -> int:
    return int(at(obj, "series.count") or obj.get("count") or 1)


def _first_seen(obj: Object, now: datetime) -> str:
    return age(obj.get("firstTimestamp") or obj.get("eventTime"), now)


def _last_seen(obj: Object, now: datetime) -> str:
    last = at(obj, "series.lastObservedTime") or obj.get("lastTimestamp")
    first = _first_seen(obj, now)
    seen = age(last, now) if last else first
    count = _event_count(obj)
    return f"{seen} (x{count} over {first})" if count > 1 else seen


def _source(obj: Object) -> str:
    component = at(obj, "source.component") or obj.get("reportingComponent")
    return ", ".join(filter(None, (component, at(obj, "source.host") or obj.get("reportingInstance"))))


def _selector(obj: Object) -> str:
    pinned = at(obj, "spec.template.spec.nodeSelector", {})
    return ",".join(f"{key}={value}" for key, value in pinned.items()) or "<none>"


def _made(name: str, make: Callable[[Object], Cell], *, wide: bool = False) -> _Column:
    return _Column(name, lambda obj, _: make(obj), wide)


def _at(name: str, path: str, missing: Cell = "", *, wide: bool = False) -> _Column:
    return _Column(name, lambda obj, _: at(obj, path, missing), wide)


_NAME = _at("Name", "metadata.name")
_AGE = _Column("Age", lambda obj, now: age(obj["metadata"].get("creationTimestamp"), now))
_COLUMNS = {
    "nodes": (
        _NAME,
        _made("Status", _node_status),
        _made("Roles", roles),
        _AGE,
        _at("Version", "status.nodeInfo.kubeletVersion"),
        _made("Internal-IP", lambda obj: _address(obj, "InternalIP"), wide=True),
        _made("External-IP", lambda obj: _address(obj, "ExternalIP"), wide=True),
        _at("OS-Image", "status.nodeInfo.osImage", "<unknown>", wide=True),
        _at("Kernel-Version", "status.nodeInfo.kernelVersion", "<unknown>", wide=True),
        _at("Container-Runtime", "status.nodeInfo.containerRuntimeVersion", "<unknown>", wide=True),
    ),
    "pods": (
        _NAME,
        _made("Ready", _pod_ready),
        _made("Status", _pod_status),
        _made("Restarts", _restarts),
        _AGE,
        _at("IP", "status.podIP", "<none>", wide=True),
        _at("Node", "spec.nodeName", "<none>", wide=True),
        _at("Nominated Node", "status.nominatedNodeName", "<none>", wide=True),
        _made("Readiness Gates", lambda _: "<none>", wide=True),
    ),
    "events": (
        _Column("Last Seen", _last_seen),
        _at("Type", "type"),
        _at("Reason", "reason"),
        _made("Object", lambda obj: f"{at(obj, 'involvedObject.kind', '').lower()}/{at(obj, 'involvedObject.name')}"),
        _at("Subobject", "involvedObject.fieldPath", wide=True),
        _made("Source", _source, wide=True),
        _made("Message", lambda obj: str(obj.get("message", "")).strip()),
        _Column("First Seen", _first_seen, wide=True),
        _made("Count", _event_count, wide=True),
        _at("Name", "metadata.name", wide=True),
    ),
    "leases": (_NAME, _at("Holder", "spec.holderIdentity"), _AGE),
    "poddisruptionbudgets": (
        _NAME,
        _made("Min Available", lambda obj: str(obj["spec"].get("minAvailable", "N/A"))),
        _made("Max Unavailable", lambda obj: str(obj["spec"].get("maxUnavailable", "N/A"))),
        _at("Allowed Disruptions", "status.disruptionsAllowed", 0),
        _AGE,
    ),
    "daemonsets": (
        _NAME,
        _at("Desired", "status.desiredNumberScheduled", 0),
        _at("Current", "status.currentNumberScheduled", 0),
        _at("Ready", "status.numberReady", 0),
        _at("Up-to-date", "status.updatedNumberScheduled", 0),
        _at("Available", "status.numberAvailable", 0),
        _made("Node Selector", _selector),
        _AGE,
    ),
    "replicasets": (
        _NAME,
        _at("Desired", "spec.replicas", 0),
        _at("Current", "status.replicas", 0),
        _at("Ready", "status.readyReplicas", 0),
        _AGE,
    ),
    "deployments": (
        _NAME,
        _made("Ready", lambda obj: f"{at(obj, 'status.readyReplicas', 0)}/{at(obj, 'spec.replicas', 0)}"),
        _at("Up-to-date", "status.updatedReplicas", 0),
        _at("Available", "status.availableReplicas", 0),
        _AGE,
    ),
    "namespaces": (_NAME, _at("Status", "status.phase"), _AGE),
    "configmaps": (_NAME, _made("Data", lambda obj: len(obj.get("data", {})) + len(obj.get("binaryData", {}))), _AGE),
}
