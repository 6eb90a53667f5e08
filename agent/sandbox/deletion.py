"""What a DELETE means for one object: its preconditions, how long it has, what holds it, and how it is marked.

The order follows apiserver pkg/registry/rest/delete.go; nothing is stored here.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from agent.sandbox import status_errors
from agent.sandbox.authn import User
from agent.sandbox.catalog import Resource
from agent.sandbox.status_errors import Object
from agent.sandbox.store import Item
from agent.sandbox.strategy import stamp


@dataclass(frozen=True, slots=True)
class DeleteOptions:
    """metav1.DeleteOptions, and the user when it is one; ``grace_seconds`` None is the object's own."""

    grace_seconds: int | None = None
    uid: str = ""
    resource_version: str = ""
    dry_run: bool = False
    user: User | None = None


def check_preconditions(resource: Resource, item: Item, options: DeleteOptions) -> None:
    """The UID and resourceVersion that the request names are the object's. Raises ApiError: 409."""
    meta = item.meta
    # The kind stands where the resource should: BeforeDelete has nothing else at hand.
    who = status_errors.Who(resource.group, resource.kind, resource.kind)
    if options.uid and options.uid != meta["uid"]:
        why = (
            f"the UID in the precondition ({options.uid}) does not match the UID in record ({meta['uid']})."
            " The object might have been deleted and then recreated"
        )
        raise status_errors.conflict(who, meta["name"], why)
    if options.resource_version and options.resource_version != meta["resourceVersion"]:
        why = (
            f"the ResourceVersion in the precondition ({options.resource_version}) does not match the"
            f" ResourceVersion in record ({meta['resourceVersion']}). The object might have been modified"
        )
        raise status_errors.conflict(who, meta["name"], why)


def grace(resource: Resource, item: Item, options: DeleteOptions) -> int | None:
    """Seconds until the object may go; None when it is already going and this request changes nothing."""
    meta = item.meta
    if resource.plural == "namespaces":
        return 0
    if "deletionTimestamp" in meta:
        pending = meta.get("deletionGracePeriodSeconds", 0)
        if pending == 0 and not meta.get("finalizers"):
            return 0
        if options.grace_seconds is None or options.grace_seconds >= pending:
            return None
        return max(options.grace_seconds, 0)
    if resource.plural != "pods":
        return 0
    spec = item.obj.get("spec") or {}
    period = options.grace_seconds
    if period is None:
        period = spec.get("terminationGracePeriodSeconds", 0)
    if not spec.get("nodeName") or (item.obj.get("status") or {}).get("phase") in ("Succeeded", "Failed"):
        return 0
    return 1 if period < 0 else period


def terminating(obj: Object, grace: int, now: datetime) -> Object:
    """The object, marked: it goes after so many seconds, counted from the first mark."""
    meta = dict(obj["metadata"])
    if "deletionTimestamp" in meta:
        began = datetime.strptime(meta["deletionTimestamp"], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
        began -= timedelta(seconds=meta.get("deletionGracePeriodSeconds", 0))
    else:
        began = now
        if meta.get("generation"):
            meta["generation"] += 1
    meta["deletionTimestamp"] = stamp(began + timedelta(seconds=grace))
    meta["deletionGracePeriodSeconds"] = grace
    result = {**obj, "metadata": meta}
    if "phase" in (obj.get("status") or {}) and obj["status"]["phase"] == "Active":
        result["status"] = {**obj["status"], "phase": "Terminating"}
    return result
