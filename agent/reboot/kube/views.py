"""Node and Lease as the API server has them, turned into the coordinator's values and back. Pure.

What is missing, of another shape or out of range reads as empty or unknown, never as an error: users, other
controllers and compromised nodes write these objects too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent import annotations as keys
from agent.reboot.availability import removal_reason, runs_agent
from agent.reboot.cluster import LeasePhase, LeaseView, NodePatch, NodeView
from agent.reboot.lock.lease import micro_time
from agent.report.node_status import condition_body
from agent.text import parse_rfc3339, sanitize

Object = dict[str, Any]

_HOLDER_CHARACTERS = 300  # <node>/<uid>: at most 253 + 1 + 36
_NOTE_CHARACTERS = 300
_TIME_CHARACTERS = 40
_LATEST_SECONDS = 4102444800.0  # the year 2100
_LONGEST_LEASE_SECONDS = 7 * 86400
_LARGEST_POOL = 100_000
_LONGEST_WAIT_SECONDS = 366 * 86400
# The next taker adds one, and admission refuses what no int32 could be added to. A poisoned count begins again with 0.
_MOST_TRANSITIONS = 2**31 - 3


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
        boot_id=_text(_part(status, "nodeInfo").get("bootID"))[:_NOTE_CHARACTERS],
        labels=_texts(meta.get("labels")),
        annotations=_texts(meta.get("annotations")),
        taints=tuple(taint for taint in _list(spec.get("taints")) if isinstance(taint, dict)),
        removal=removal_reason(found),
        runs_agent=runs_agent(found),
    )


def node_patch(patch: NodePatch, version: str, found: Mapping[str, Any], wall: float) -> Object:
    """A patch of the Node found that holds for exactly that version. wall: seconds since the epoch.

    A cordon is lifted by removing the field, as kubectl does.
    """
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
    if patch.changes_spec or patch.condition is None:
        return {"metadata": meta, "spec": spec} if spec else {"metadata": meta}
    there = _condition(_part(found, "status"), patch.condition.type)
    return {"metadata": meta, "status": {"conditions": [condition_body(patch.condition, there, wall)]}}


def lease_view(found: Mapping[str, Any]) -> LeaseView:
    """A Lease; an unknown phase counts as rebooting, which is never taken over for its silence.

    A holder that no agent would write stays a holder, cut: that its Node does not exist is the machine's to find.
    """
    meta, spec = _part(found, "metadata"), _part(found, "spec")
    notes = _texts(meta.get("annotations"))

    def note(key: str) -> str:
        return sanitize(notes.get(key, ""), _NOTE_CHARACTERS)

    holder = sanitize(_text(spec.get("holderIdentity")), _HOLDER_CHARACTERS)
    try:
        phase = LeasePhase(note(keys.LOCK_PHASE))
    except ValueError:
        phase = LeasePhase.REBOOTING
    return LeaseView(
        name=_text(meta.get("name")),
        version=_text(meta.get("resourceVersion")),
        holder=holder,
        phase=LeasePhase.HELD if holder and phase is LeasePhase.NONE else phase,
        renewed=_text(spec.get("renewTime"))[:_TIME_CHARACTERS],
        acquired=_text(spec.get("acquireTime"))[:_TIME_CHARACTERS],
        duration_seconds=_whole(spec.get("leaseDurationSeconds"), _LONGEST_LEASE_SECONDS),
        transitions=_whole(spec.get("leaseTransitions"), _MOST_TRANSITIONS),
        cycle=note(keys.LOCK_CYCLE),
        boot=note(keys.LOCK_BOOT_ID),
        taken_from=note(keys.LOCK_TAKEN_FROM),
        last_reboot=_timestamp(note(keys.LOCK_LAST_REBOOT)),
        pool_size=_number(note(keys.LOCK_POOL_SIZE), _LARGEST_POOL),
        waited=float(_number(note(keys.LOCK_WAITED_SECONDS), _LONGEST_WAIT_SECONDS)),
        stuck=note(keys.LOCK_STUCK),
    )


def lease_body(lease: LeaseView, namespace: str) -> Object:
    """The Lease to create, or a merge patch of it: what is empty is null, and the keys of others are left alone."""
    notes: Object = {
        keys.LOCK_PHASE: lease.phase.value,
        keys.LOCK_CYCLE: lease.cycle,
        keys.LOCK_BOOT_ID: lease.boot,
        keys.LOCK_TAKEN_FROM: lease.taken_from,
        keys.LOCK_LAST_REBOOT: micro_time(lease.last_reboot) if lease.last_reboot else "",
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


def mark_body(lease: LeaseView, by: str) -> Object:
    """A merge patch that changes the mark alone: all else is another node's, whatever it holds."""
    return {"metadata": {"resourceVersion": lease.version, "annotations": {keys.LOCK_STUCK: by}}}


def without_nulls(value: Any) -> Any:
    """For a create, where null is no way to say nothing."""
    if isinstance(value, dict):
        return {key: without_nulls(part) for key, part in value.items() if part is not None}
    return value


def _ready(status: Mapping[str, Any]) -> bool | None:
    return {"True": True, "False": False}.get(_text(_condition(status, "Ready").get("status")))


def _condition(status: Mapping[str, Any], kind: str) -> Mapping[str, Any]:
    for condition in _list(status.get("conditions")):
        if isinstance(condition, dict) and condition.get("type") == kind:
            return condition
    return {}


def _owner(meta: Mapping[str, Any]) -> str:
    """Who set spec.unschedulable, by managedFields; an entry of a subresource cannot have.

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


def _whole(value: object, most: int) -> int:
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= most else 0


def _number(text: str, most: int) -> int:
    return _whole(int(text), most) if text.isascii() and text.isdigit() and len(text) < 16 else 0


def _timestamp(text: str) -> float:
    """Seconds; 0 for what is no time with a zone between 1970 and 2100."""
    try:
        found = parse_rfc3339(text)
    except ValueError:
        return 0.0
    return found if 0 < found < _LATEST_SECONDS else 0.0
