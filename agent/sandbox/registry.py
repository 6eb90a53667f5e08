"""The verbs on one object: create, replace, patch and delete, with the server's order of checks.

Everything that makes a write safe lives here: optimistic concurrency, immutability, no-op writes that cost no revision;
what a deletion requires is deletion.py's. It knows nothing of HTTP, users or watches. The order follows apiserver
pkg/registry/generic/registry/store.go.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from agent.sandbox import status_errors
from agent.sandbox.admission import NOT_ENFORCED, Attempt, Policies, environment
from agent.sandbox.authn import User
from agent.sandbox.catalog import Catalog, Resource, Target
from agent.sandbox.deletion import DeleteOptions, check_preconditions, grace, terminating
from agent.sandbox.patches import MergeKeyError, PatchError
from agent.sandbox.schema import DecodeError, decode
from agent.sandbox.status_errors import ApiError, Cause, Object
from agent.sandbox.store import Item, Store
from agent.sandbox.strategy import admit_node, for_create, for_update
from agent.sandbox.validation import validate

Clock = Callable[[], datetime]
Transform = Callable[[Object], Any]
"""From the stored object, with kind and apiVersion, to the patched one."""

IMMORTAL = frozenset({"default", "kube-system", "kube-public", "kube-node-lease"})


@dataclass(frozen=True, slots=True)
class WriteOptions:
    """Of a create, replace or patch. ``validation`` is Ignore, Warn or Strict; warnings are added to ``warnings``.

    Without a ``user`` the cluster itself writes, and no admission policy is asked.
    """

    dry_run: bool = False
    validation: str = "Warn"
    warnings: list[str] = field(default_factory=list)
    user: User | None = None


class Registry:
    """The objects of the cluster, behind the rules that every writer meets."""

    def __init__(self, store: Store, catalog: Catalog, clock: Clock) -> None:
        """``clock`` gives the wall time of timestamps."""
        self.store = store
        self.catalog = catalog
        self.clock = clock
        self._policies = Policies(store, catalog)

    def get(self, resource: Resource, namespace: str, name: str) -> Item:
        """The stored object. Raises ApiError: 404."""
        item = self.store.get(resource, (namespace, name))
        if item is None:
            raise status_errors.not_found(resource.who, name)
        return item

    def decode(self, body: Any, resource: Resource, options: WriteOptions) -> Object:
        """A request's body as this kind.

        Raises ApiError: 400 when it is another kind, has wrong types, or unknown fields under Strict.
        """
        if not isinstance(body, dict):
            raise status_errors.bad_request("the request body is not an object")
        kind, version = body.get("kind") or resource.kind, body.get("apiVersion") or resource.api_version
        if (kind, version) != (resource.kind, resource.api_version):
            raise status_errors.bad_request(
                f'{kind} in version "{version}" cannot be handled as a {resource.kind}: no kind "{kind}" is registered'
                f' for version "{version}" at this path'
            )
        prefix = f'{kind} in version "{resource.version}" cannot be handled as a {kind}: '
        try:
            obj, unknown = decode(body, resource.kind)
        except DecodeError as error:
            raise status_errors.bad_request(f"{prefix}{error}") from error
        if unknown and options.validation == "Strict":
            listed = ", ".join(f'unknown field "{path}"' for path in unknown)
            raise status_errors.bad_request(f"{prefix}strict decoding error: {listed}")
        if options.validation == "Warn":
            options.warnings.extend(f'unknown field "{path}"' for path in unknown)
        return obj

    def create(self, resource: Resource, namespace: str, body: Any, options: WriteOptions) -> Item:
        """POST. Raises ApiError: 400, 403, 404 (no such namespace), 409, 422; 500 for a body with a resourceVersion."""
        obj = self.decode(body, resource, options)
        meta = obj["metadata"]
        self._settle_namespace(meta, resource, namespace)
        self.check_namespace(resource, namespace, meta.get("name", ""))
        if not meta.get("name") and meta.get("generateName"):
            meta["name"] = meta["generateName"] + _suffix()
        if resource.plural == "nodes":
            obj = admit_node(obj)
        attempt = Attempt(options.user, "CREATE", Target(resource, namespace, meta.get("name", "")), options.dry_run)
        obj = for_create(self._policies.mutate(attempt, obj, None), resource, self.clock())
        meta = obj["metadata"]
        validate(obj, None, resource)
        self._policies.validate(attempt, obj, None)
        if resource.kind.endswith("AdmissionPolicy") and environment() is None:
            options.warnings.append(NOT_ENFORCED)
        if meta.pop("resourceVersion", ""):
            message = "resourceVersion should not be set on objects to be created"
            raise ApiError(500, "", message, details=False)
        existing = self.store.get(resource, (namespace, meta["name"]))
        if existing is not None:
            deleting = "deletionTimestamp" in existing.meta
            raise status_errors.already_exists(resource.who, meta["name"], deleting=deleting)
        return self._keep(resource, obj, options.dry_run)

    def _settle_namespace(self, meta: Object, resource: Resource, namespace: str) -> None:
        if not resource.namespaced:
            meta.pop("namespace", None)
            return
        if meta.setdefault("namespace", namespace) != namespace:
            message = "the namespace of the provided object does not match the namespace sent on the request"
            raise status_errors.bad_request(message)

    def check_namespace(self, resource: Resource, namespace: str, name: str) -> None:
        """What the NamespaceLifecycle admission requires of a create: the namespace is there and stays.

        Raises ApiError: 404, or 403 with the cause NamespaceTerminating.
        """
        if not resource.namespaced:
            return
        namespaces = self.catalog.named("namespaces")
        home = self.store.get(namespaces, ("", namespace))
        if home is None:
            raise status_errors.not_found(namespaces.who, namespace)
        if "deletionTimestamp" in home.meta:
            why = f"unable to create new content in namespace {namespace} because it is being terminated"
            text = f"namespace {namespace} is being terminated"
            cause = Cause("NamespaceTerminating", text, "metadata.namespace")
            raise status_errors.forbidden(resource.who, name, why, (cause,))

    def _keep(self, resource: Resource, obj: Object, dry_run: bool) -> Item:
        return Item(obj, self.store.revision) if dry_run else self.store.commit(resource, obj)

    def replace(self, target: Target, body: Any, options: WriteOptions) -> Item:
        """PUT of what is there: nothing is created.

        Raises ApiError: 400, 404, 409 (stale resourceVersion, other UID), 422.
        """
        resource, namespace, name = target.resource, target.namespace, target.name
        obj = self.decode(body, resource, options)
        meta = obj["metadata"]
        _check_name(meta, name)
        self._settle_namespace(meta, resource, namespace)
        existing = self.get(resource, namespace, name)
        uid, stored_uid = meta.get("uid", ""), existing.meta["uid"]
        if uid and uid != stored_uid:
            why = (
                f"StorageError: invalid object, Code: 4, Key: /registry/{resource.plural}/{namespace}/{name},"
                f" ResourceVersion: 0, AdditionalErrorMsg: Precondition failed: UID in precondition: {uid},"
                f" UID in object meta: {stored_uid}"
            )
            raise status_errors.conflict(resource.who, name, why)
        return self._update(target, existing, obj, options)

    def patch(self, target: Target, change: Transform, options: WriteOptions) -> Item:
        """PATCH, whatever its kind: ``change`` makes the new object from the stored one.

        Raises ApiError: 400, 404, 409 (the patch carries a stale resourceVersion), 422.
        """
        resource = target.resource
        existing = self.get(resource, target.namespace, target.name)
        try:
            patched = change(existing.copy(resource))
        except PatchError as error:
            raise status_errors.bad_request(str(error)) from error
        except MergeKeyError as error:
            raise ApiError(500, "", str(error), details=False) from error
        try:
            obj = self.decode(patched, resource, options)
        except ApiError as error:
            shown = json.dumps(json.dumps(patched, sort_keys=True, separators=(",", ":")))
            cause = Cause("FieldValueInvalid", f"Invalid value: {shown}: {error.message}", "patch")
            raise status_errors.invalid(status_errors.Who("", "", ""), "", [cause]) from error
        _check_name(obj["metadata"], target.name)
        self._settle_namespace(obj["metadata"], resource, target.namespace)
        return self._update(target, existing, obj, options)

    def _update(self, target: Target, existing: Item, obj: Object, options: WriteOptions) -> Item:
        resource, name = target.resource, target.name
        attempt = Attempt(options.user, "UPDATE", target, options.dry_run)
        obj = self._policies.mutate(attempt, obj, existing.obj)
        revision = obj["metadata"].pop("resourceVersion", "")
        if not revision and not resource.unconditional_update:
            cause = Cause("FieldValueInvalid", "Invalid value: 0x0: must be specified for an update",
                          "metadata.resourceVersion")  # fmt: skip
            who = status_errors.Who(resource.group, resource.plural, resource.plural)
            raise status_errors.invalid(who, name, [cause])
        if revision and not revision.isdecimal():
            message = f'strconv.ParseUint: parsing "{revision}": invalid syntax'
            raise ApiError(500, "", message, details=False)
        if revision and revision != existing.meta["resourceVersion"]:
            raise status_errors.conflict(resource.who, name)
        obj = for_update(obj, existing.obj, resource, target.subresource)
        validate(obj, existing.obj, resource)
        self._policies.validate(attempt, obj, existing.obj)
        return self._settle(resource, existing, obj, options.dry_run)

    def _settle(self, resource: Resource, existing: Item, obj: Object, dry_run: bool) -> Item:
        meta = obj["metadata"]
        if _without_revision(obj) == _without_revision(existing.obj):
            return existing
        if "deletionTimestamp" in meta and not meta.get("finalizers") and not meta.get("deletionGracePeriodSeconds"):
            if not dry_run:
                self.store.remove(resource, (meta.get("namespace", ""), meta["name"]))
            return Item({**obj, "metadata": {**meta, "resourceVersion": str(self.store.revision)}}, 0)
        if dry_run:
            meta["resourceVersion"] = existing.meta["resourceVersion"]
        return self._keep(resource, obj, dry_run)

    def write(self, resource: Resource, obj: Object) -> Item:
        """A controller's own write, without checks; a no-op costs no revision, emptied finalizers remove."""
        meta = obj["metadata"]
        existing = self.store.get(resource, (meta.get("namespace", ""), meta["name"]))
        if existing is None:
            return self.store.commit(resource, obj)
        return self._settle(resource, existing, obj, dry_run=False)

    def delete(self, resource: Resource, namespace: str, name: str, options: DeleteOptions) -> tuple[Item, bool]:
        """DELETE; the second value is whether the object is gone.

        Raises ApiError: 403 (a namespace that must stay), 404, 409 on a precondition.
        """
        existing = self.get(resource, namespace, name)
        if resource.plural == "namespaces" and name in IMMORTAL:
            raise status_errors.forbidden(resource.who, name, "this namespace may not be deleted")
        check_preconditions(resource, existing, options)
        graceful = grace(resource, existing, options)
        if graceful is None:
            return existing, False
        attempt = Attempt(options.user, "DELETE", Target(resource, namespace, name), options.dry_run)
        self._policies.validate(attempt, None, existing.obj)
        # A namespace is held by its spec.finalizers until its content is gone; the sweeper lets it go.
        held = resource.plural == "namespaces" and bool((existing.obj.get("spec") or {}).get("finalizers"))
        stays = bool(existing.meta.get("finalizers")) or graceful > 0 or held
        if not stays and resource.plural != "pods":
            return existing if options.dry_run else self.store.remove(resource, (namespace, name)), True
        obj = terminating(existing.obj, graceful, self.clock())
        if resource.plural == "namespaces":
            del obj["metadata"]["deletionGracePeriodSeconds"]
        if not stays:
            # A pod is marked before it goes, also without grace: watchers see both.
            marked = self._keep(resource, obj, options.dry_run)
            return marked if options.dry_run else self.store.remove(resource, (namespace, name)), True
        if _without_revision(obj) == _without_revision(existing.obj):
            return existing, False
        return self._keep(resource, obj, options.dry_run), False


def _without_revision(obj: Object) -> Object:
    meta = {key: value for key, value in obj["metadata"].items() if key != "resourceVersion"}
    return {**obj, "metadata": meta}


def _check_name(meta: Object, name: str) -> None:
    found = meta.get("name", "")
    if found != name:
        raise status_errors.bad_request(f"the name of the object ({found}) does not match the name on the URL ({name})")


def _suffix() -> str:
    return "".join(secrets.choice("bcdfghjklmnpqrstvwxz2456789") for _ in range(5))
