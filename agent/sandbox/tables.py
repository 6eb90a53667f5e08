"""What kubectl prints: server-side Tables, one printer per kind, and objects cut down to their metadata.

The columns follow kubernetes pkg/printers/internalversion/printers.go; priority 1 is what ``-o wide`` adds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from agent.sandbox.catalog import Resource
from agent.sandbox.status_errors import Object
from agent.sandbox.store import Item

Cell = str | int | None
_ROLE_PREFIX = "node-role.kubernetes.io/"


@dataclass(frozen=True, slots=True)
class _Printer:
    columns: tuple[tuple[str, int], ...]
    cells: Callable[[Object, datetime], list[Cell]]


def partial(resource: Resource, item: Item) -> Object:
    """The object's metadata under PartialObjectMetadata, as watches and lists of metadata want it."""
    del resource
    return {"kind": "PartialObjectMetadata", "apiVersion": "meta.k8s.io/v1", "metadata": item.meta}


def table(resource: Resource, items: Iterable[Item], meta: Object, now: datetime, *, headed: bool = True) -> Object:
    """A meta.k8s.io/v1 Table; without ``headed`` it has no column definitions, as later events of a watch."""
    printer = _PRINTERS.get(resource.plural, _DEFAULT)
    columns = [
        {"name": name, "type": "string", "format": "name" if name == "Name" else "", "description": "",
         "priority": priority}
        for name, priority in printer.columns
    ]  # fmt: skip
    rows = [{"cells": printer.cells(item.obj, now), "object": partial(resource, item)} for item in items]
    return {
        "kind": "Table",
        "apiVersion": "meta.k8s.io/v1",
        "metadata": meta,
        "columnDefinitions": columns if headed else None,
        "rows": rows,
    }


def _parse(text: Any) -> datetime | None:
    if not text:
        return None
    return datetime.fromisoformat(str(text)).astimezone(UTC)


def age(text: Any, now: datetime) -> str:
    """How long ago, as kubectl has it: 45s, 3m12s, 4h, 6d4h."""
    moment = _parse(text)
    if moment is None:
        return "<unknown>"
    seconds = int((now - moment).total_seconds())
    if seconds < 0:
        return "0s" if seconds >= -1 else "<invalid>"
    if seconds < 120:
        return f"{seconds}s"
    minutes, hours, days = seconds // 60, seconds // 3600, seconds // 86400
    if minutes < 10:
        rest = seconds % 60
        return f"{minutes}m{rest}s" if rest else f"{minutes}m"
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        rest = minutes % 60
        return f"{hours}h{rest}m" if rest else f"{hours}h"
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        rest = hours % 24
        return f"{days}d{rest}h" if rest else f"{days}d"
    return f"{days}d"


def _age(obj: Object, now: datetime) -> str:
    return age(obj["metadata"].get("creationTimestamp"), now)


def _node(obj: Object, now: datetime) -> list[Cell]:
    meta, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    ready = next((item for item in status.get("conditions") or [] if item.get("type") == "Ready"), None)
    words = ["Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"]
    if spec.get("unschedulable"):
        words.append("SchedulingDisabled")
    labels = meta.get("labels") or {}
    roles = sorted(key.removeprefix(_ROLE_PREFIX) for key in labels if key.startswith(_ROLE_PREFIX))
    info = status.get("nodeInfo") or {}
    addresses = {item.get("type"): item.get("address") for item in status.get("addresses") or []}
    return [
        meta["name"], ",".join(words), ",".join(roles) or "<none>", _age(obj, now), info.get("kubeletVersion", ""),
        addresses.get("InternalIP", "<none>"), addresses.get("ExternalIP", "<none>"),
        info.get("osImage") or "<unknown>", info.get("kernelVersion") or "<unknown>",
        info.get("containerRuntimeVersion") or "<unknown>",
    ]  # fmt: skip


def _pod(obj: Object, now: datetime) -> list[Cell]:
    meta, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    containers = status.get("containerStatuses") or []
    ready = sum(1 for item in containers if item.get("ready"))
    shown = "Terminating" if "deletionTimestamp" in meta else status.get("reason") or status.get("phase", "")
    return [
        meta["name"], f"{ready}/{len(spec.get('containers') or [])}", shown,
        str(sum(item.get("restartCount", 0) for item in containers)), _age(obj, now),
        status.get("podIP") or "<none>", spec.get("nodeName") or "<none>",
        status.get("nominatedNodeName") or "<none>", "<none>",
    ]  # fmt: skip


def _event(obj: Object, now: datetime) -> list[Cell]:
    about, source = obj.get("involvedObject") or {}, obj.get("source") or {}
    component = source.get("component") or obj.get("reportingComponent") or ""
    host = source.get("host") or obj.get("reportingInstance") or ""
    first = obj.get("firstTimestamp") or obj.get("eventTime")
    series = obj.get("series") or {}
    last = series.get("lastObservedTime") or obj.get("lastTimestamp") or first
    count = series.get("count") or obj.get("count") or 1
    seen = age(last, now)
    if count > 1:
        seen = f"{seen} (x{count} over {age(first, now)})"
    return [
        seen, obj.get("type", ""), obj.get("reason", ""), f"{about.get('kind', '').lower()}/{about.get('name', '')}",
        about.get("fieldPath", ""), ", ".join(filter(None, (component, host))), str(obj.get("message", "")).strip(),
        age(first, now), count, obj["metadata"]["name"],
    ]  # fmt: skip


def _lease(obj: Object, now: datetime) -> list[Cell]:
    return [obj["metadata"]["name"], (obj.get("spec") or {}).get("holderIdentity", ""), _age(obj, now)]


def _budget(obj: Object, now: datetime) -> list[Cell]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    return [
        obj["metadata"]["name"], str(spec.get("minAvailable", "N/A")), str(spec.get("maxUnavailable", "N/A")),
        status.get("disruptionsAllowed", 0), _age(obj, now),
    ]  # fmt: skip


def _daemonset(obj: Object, now: datetime) -> list[Cell]:
    status = obj.get("status") or {}
    selector = (((obj.get("spec") or {}).get("template") or {}).get("spec") or {}).get("nodeSelector") or {}
    return [
        obj["metadata"]["name"], status.get("desiredNumberScheduled", 0), status.get("currentNumberScheduled", 0),
        status.get("numberReady", 0), status.get("updatedNumberScheduled", 0), status.get("numberAvailable", 0),
        ",".join(f"{key}={value}" for key, value in selector.items()) or "<none>", _age(obj, now),
    ]  # fmt: skip


def _replicaset(obj: Object, now: datetime) -> list[Cell]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    return [
        obj["metadata"]["name"], spec.get("replicas", 0), status.get("replicas", 0), status.get("readyReplicas", 0),
        _age(obj, now),
    ]  # fmt: skip


def _deployment(obj: Object, now: datetime) -> list[Cell]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    return [
        obj["metadata"]["name"], f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}",
        status.get("updatedReplicas", 0), status.get("availableReplicas", 0), _age(obj, now),
    ]  # fmt: skip


def _namespace(obj: Object, now: datetime) -> list[Cell]:
    return [obj["metadata"]["name"], (obj.get("status") or {}).get("phase", ""), _age(obj, now)]


def _configmap(obj: Object, now: datetime) -> list[Cell]:
    return [obj["metadata"]["name"], len(obj.get("data") or {}) + len(obj.get("binaryData") or {}), _age(obj, now)]


def _columns(plain: str, wide: str = "") -> tuple[tuple[str, int], ...]:
    return tuple((name, 0) for name in plain.split("|")) + tuple((name, 1) for name in wide.split("|") if name)


_DEFAULT = _Printer(_columns("Name|Age"), lambda obj, now: [obj["metadata"]["name"], _age(obj, now)])
_PRINTERS = {
    "nodes": _Printer(
        _columns(
            "Name|Status|Roles|Age|Version",
            "Internal-IP|External-IP|OS-Image|Kernel-Version|Container-Runtime",
        ),
        _node,
    ),
    "pods": _Printer(_columns("Name|Ready|Status|Restarts|Age", "IP|Node|Nominated Node|Readiness Gates"), _pod),
    "events": _Printer(
        (
            ("Last Seen", 0),
            ("Type", 0),
            ("Reason", 0),
            ("Object", 0),
            ("Subobject", 1),
            ("Source", 1),
            ("Message", 0),
            ("First Seen", 1),
            ("Count", 1),
            ("Name", 1),
        ),
        _event,
    ),
    "leases": _Printer(_columns("Name|Holder|Age"), _lease),
    "poddisruptionbudgets": _Printer(_columns("Name|Min Available|Max Unavailable|Allowed Disruptions|Age"), _budget),
    "daemonsets": _Printer(_columns("Name|Desired|Current|Ready|Up-to-date|Available|Node Selector|Age"), _daemonset),
    "replicasets": _Printer(_columns("Name|Desired|Current|Ready|Age"), _replicaset),
    "deployments": _Printer(_columns("Name|Ready|Up-to-date|Available|Age"), _deployment),
    "namespaces": _Printer(_columns("Name|Status|Age"), _namespace),
    "configmaps": _Printer(_columns("Name|Data|Age"), _configmap),
}
