"""Server-side apply: merge what a manager wants, drop what it no longer wants, refuse what another one owns.

Sources: the Server-Side Apply page of the Kubernetes documentation; the conflict's shape is apimachinery's
NewApplyConflict.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from agent.sandbox import ownership, status_errors
from agent.sandbox.ownership import Owner, Path
from agent.sandbox.patches import PatchError, strategic
from agent.sandbox.registry import Registry, Target, WriteOptions
from agent.sandbox.status_errors import ApiError, Cause, Object
from agent.sandbox.store import Item
from agent.sandbox.strategy import stamp


class Applier:
    """Applies to the objects of a registry."""

    def __init__(self, registry: Registry) -> None:
        """Applied objects pass the registry's rules like any other write."""
        self._registry = registry

    def apply(self, target: Target, body: Any, query: Mapping[str, str], options: WriteOptions) -> tuple[Item, bool]:
        """A PATCH of the type apply; the second value is whether the object was created.

        Raises:
            ApiError: 400 without fieldManager or for a body that cannot be read, 409 for fields of others, 422.
        """
        manager, force = query.get("fieldManager", ""), query.get("force", "").lower() in ("true", "1")
        if not manager:
            cause = Cause("FieldValueRequired", "Required value: is required for apply patch", "fieldManager")
            raise status_errors.invalid(status_errors.Who("meta.k8s.io", "", "PatchOptions"), "", [cause])
        resource = target.resource
        body = self._read(body, target)
        existing = self._registry.store.get(resource, target.key)
        skipped = "f:spec" if target.subresource == "status" else "f:status" if resource.status else ""
        desired = frozenset(path for path in ownership.applied_fields(body) if path[0] != skipped)
        owner = Owner(manager, target.subresource, desired, stamp(self._registry.clock()))
        if existing is None:
            if target.subresource:
                raise status_errors.not_found(resource.who, target.name)
            item = self._registry.create(resource, target.namespace, body, options)
            if options.dry_run:
                return item, True
            return self._registry.own(resource, item, ownership.write([owner], resource.api_version)), True
        others = self._others(existing, owner, body, force=force)
        mine = next((item for item in ownership.read(existing.meta) if _same(item, owner)), None)
        dropped = mine.fields - desired if mine else frozenset()
        for other in others:
            dropped -= other.fields
        entries = ownership.write([*others, owner], resource.api_version)

        def change(obj: Object) -> Object:
            merged = strategic(obj, body, resource.kind)
            # Elements before their fields: once an element is gone its fields are no matter.
            for path in sorted(dropped, key=lambda item: (item[-1] != ".", len(item))):
                merged = ownership.without(merged, path)
            result: Object = {**merged, "metadata": {**merged["metadata"], "managedFields": entries}}
            return result

        return self._registry.patch(target, change, replace(options, applied=True)), False

    def _read(self, body: Any, target: Target) -> Object:
        if not isinstance(body, dict):
            raise status_errors.bad_request("error decoding YAML: the document is not an object")
        if not body.get("kind") or not body.get("apiVersion"):
            raise status_errors.bad_request("invalid object type: /, Kind=")
        meta = body.get("metadata") or {}
        if meta.get("managedFields"):
            raise status_errors.bad_request("metadata.managedFields must be nil")
        meta = {"name": target.name, **meta}
        if target.resource.namespaced:
            meta.setdefault("namespace", target.namespace)
        try:
            strategic({}, body, target.resource.kind)
        except PatchError as error:
            raise status_errors.bad_request(str(error)) from error
        return {**body, "metadata": meta}

    def _others(self, existing: Item, owner: Owner, body: Object, *, force: bool) -> list[Owner]:
        """The other owners, without what is taken from them by force."""
        kept: list[Owner] = []
        conflicts: list[tuple[str, Path]] = []
        for other in ownership.read(existing.meta):
            if _same(other, owner):
                continue
            taken = {
                path
                for path in other.fields & owner.fields
                if ownership.lookup(existing.obj, path) != ownership.lookup(body, path) and path[-1] != "."
            }
            conflicts += [(other.manager, path) for path in sorted(taken)]
            kept.append(Owner(other.manager, other.subresource, other.fields - taken, other.time))
        if conflicts and not force:
            raise _conflict(conflicts)
        return kept


def _same(one: Owner, other: Owner) -> bool:
    return (one.manager, one.subresource) == (other.manager, other.subresource)


def _conflict(conflicts: list[tuple[str, Path]]) -> ApiError:
    causes = tuple(
        Cause("FieldManagerConflict", f'conflict with "{manager}"', ownership.shown(path))
        for manager, path in conflicts
    )
    first = causes[0]
    if len(causes) == 1:
        message = f"Apply failed with 1 conflict: {first.message}: {first.field}"
    else:
        lines = "\n".join(f"{cause.message}: {cause.field}" for cause in causes)
        message = f"Apply failed with {len(causes)} conflicts: {lines}"
    return ApiError(409, "Conflict", message, causes=causes)
