"""Node and Lease as the API server has them, turned into the coordinator's values and back. Pure.

What is missing or of another shape reads as empty or unknown, never as an error: people and other controllers write
these objects too.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

from agent import annotations as keys
from agent.reboot.availability import removal_reason, runs_agent
from agent.reboot.cluster import LeasePhase, LeaseView, Member, NodePatch, NodeView

Object = dict[str, Any]


def node_view(found: Mapping[str, Any]) -> NodeView:
    """A Node."""
    meta, spec, status = _part(found, "metadata"), _part(found, "spec"), _part(found, "status")
    return NodeView(
        name=_text(meta.get("name")),
        uid=_text(meta.get("uid")),
        version=_text(meta.get("resourceVersion")),
        unschedulable=spec.get("unschedulable") is True,
        unschedulable_by=_owner(meta),
        ready=_ready(status),
        boot_id=_text(_part(status, "nodeInfo").get("bootID")),
        labels=_texts(meta.get("labels")),
        annotations=_texts(meta.get("annotations")),
        taints=tuple(taint for taint in _list(spec.get("taints")) if isinstance(taint, dict)),
        removal=removal_reason(found),
    )


def member(found: Mapping[str, Any]) -> Member:
    """A Node as one of a pool."""
    meta = _part(found, "metadata")
    return Member(
        name=_text(meta.get("name")),
        uid=_text(meta.get("uid")),
        ready=_ready(_part(found, "status")) is True,
        unschedulable=_part(found, "spec").get("unschedulable") is True,
        labels=_texts(meta.get("labels")),
        removal=removal_reason(found),
        runs_agent=runs_agent(found),
    )


def node_patch(patch: NodePatch, version: str) -> Object:
    """A merge patch that holds for exactly that version. A cordon is lifted by removing the field, as kubectl does."""
    meta: Object = {"resourceVersion": version}
    if patch.annotations:
        meta["annotations"] = dict(patch.annotations)
    if patch.labels:
        meta["labels"] = dict(patch.labels)
    spec: Object = {}
    if patch.unschedulable is not None:
        spec["unschedulable"] = True if patch.unschedulable else None
    if patch.taints is not None:
        spec["taints"] = [dict(taint) for taint in patch.taints]
    return {"metadata": meta, "spec": spec} if spec else {"metadata": meta}


def lease_view(found: Mapping[str, Any]) -> LeaseView:
    """A Lease; a phase that nobody here writes counts as rebooting, which is never taken over for its silence."""
    meta, spec = _part(found, "metadata"), _part(found, "spec")
    notes = _texts(meta.get("annotations"))
    holder = _text(spec.get("holderIdentity"))
    try:
        phase = LeasePhase(notes.get(keys.LOCK_PHASE, ""))
    except ValueError:
        phase = LeasePhase.REBOOTING
    return LeaseView(
        name=_text(meta.get("name")),
        version=_text(meta.get("resourceVersion")),
        holder=holder,
        phase=LeasePhase.HELD if holder and phase is LeasePhase.NONE else phase,
        renewed=_text(spec.get("renewTime")),
        acquired=_text(spec.get("acquireTime")),
        duration_seconds=_whole(spec.get("leaseDurationSeconds")),
        transitions=_whole(spec.get("leaseTransitions")),
        cycle=notes.get(keys.LOCK_CYCLE, ""),
        boot=notes.get(keys.LOCK_BOOT_ID, ""),
        taken_from=notes.get(keys.LOCK_TAKEN_FROM, ""),
        last_reboot=_epoch(notes.get(keys.LOCK_LAST_REBOOT, "")),
        pool_size=int(_number(notes.get(keys.LOCK_POOL_SIZE, ""))),
        waited=_number(notes.get(keys.LOCK_WAITED_SECONDS, "")),
        stuck=notes.get(keys.LOCK_STUCK, ""),
    )


def lease_body(lease: LeaseView, namespace: str) -> Object:
    """The Lease to create, or a merge patch of it: what is empty is null, and other people's keys are left alone."""
    notes: Object = {
        keys.LOCK_PHASE: lease.phase.value,
        keys.LOCK_CYCLE: lease.cycle,
        keys.LOCK_BOOT_ID: lease.boot,
        keys.LOCK_TAKEN_FROM: lease.taken_from,
        keys.LOCK_LAST_REBOOT: _rfc3339(lease.last_reboot),
        keys.LOCK_POOL_SIZE: str(lease.pool_size) if lease.pool_size else "",
        keys.LOCK_WAITED_SECONDS: f"{lease.waited:.0f}" if lease.waited else "",
        keys.LOCK_STUCK: lease.stuck,
    }
    meta: Object = {"name": lease.name, "namespace": namespace}
    if lease.version:
        meta["resourceVersion"] = lease.version
    spec = {
        "holderIdentity": lease.holder or None,
        "leaseDurationSeconds": lease.duration_seconds or None,
        "acquireTime": lease.acquired or None,
        "renewTime": lease.renewed or None,
        "leaseTransitions": lease.transitions,
    }
    return {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {**meta, "annotations": {key: value or None for key, value in notes.items()}},
        "spec": spec,
    }


def without_nulls(value: Any) -> Any:
    """For a create, where null is no way to say nothing."""
    if isinstance(value, dict):
        return {key: without_nulls(part) for key, part in value.items() if part is not None}
    return value


def _ready(status: Mapping[str, Any]) -> bool | None:
    for condition in _list(status.get("conditions")):
        if isinstance(condition, dict) and condition.get("type") == "Ready":
            return {"True": True, "False": False}.get(_text(condition.get("status")))
    return None


def _owner(meta: Mapping[str, Any]) -> str:
    """Who set spec.unschedulable, by the server's own book; an entry of a subresource cannot have.

    Source: https://kubernetes.io/docs/reference/using-api/server-side-apply/#field-management
    """
    for entry in _list(meta.get("managedFields")):
        if isinstance(entry, dict) and not entry.get("subresource"):
            fields = _part(_part(entry, "fieldsV1"), "f:spec")
            if "f:unschedulable" in fields:
                return _text(entry.get("manager"))
    return ""


def _part(value: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    part = value.get(key)
    return part if isinstance(part, dict) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _texts(value: object) -> dict[str, str]:
    return {k: v for k, v in value.items() if isinstance(v, str)} if isinstance(value, dict) else {}


def _whole(value: object) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) else 0


def _number(text: str) -> float:
    return float(text) if text.isascii() and text.isdigit() and len(text) < 16 else 0.0


def _rfc3339(wall: float) -> str:
    return datetime.fromtimestamp(wall, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ") if wall else ""


def _epoch(text: str) -> float:
    """Seconds; 0 for what is no time with a zone."""
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return 0.0
    return found.timestamp() if found.tzinfo is not None else 0.0
