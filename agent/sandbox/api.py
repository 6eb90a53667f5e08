"""From an authorized request to its answer: which verb of which resource, with which options.

It holds no state of its own. Watches are opened here, not answered, since they do not end.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from agent.sandbox import listing, patches, status_errors, wire
from agent.sandbox.authn import User
from agent.sandbox.catalog import Resource, Target
from agent.sandbox.deletion import DeleteOptions
from agent.sandbox.discovery import Discovery
from agent.sandbox.eviction import Evictor, delete_options, read_eviction
from agent.sandbox.registry import Registry, WriteOptions
from agent.sandbox.reviews import REVIEWS, Reviews
from agent.sandbox.routing import RequestInfo
from agent.sandbox.status_errors import Cause, Object
from agent.sandbox.store import Item, Store
from agent.sandbox.tables import partial as metadata_only
from agent.sandbox.tables import table
from agent.sandbox.wire import Response

_HEALTH = frozenset({"/healthz", "/livez", "/readyz"})
_OBJECT_VERBS = frozenset({"get", "update", "patch", "delete"})
_COLLECTION_VERBS = frozenset({"list", "create"})


@dataclass(frozen=True, slots=True)
class Call:
    """One request, read whole."""

    info: RequestInfo
    user: User
    query: Mapping[str, str]
    shape: str
    content_type: str
    body: bytes
    warnings: list[str]

    def values(self) -> Any:
        """The body's JSON or YAML; None where it is empty. Raises ApiError: 400 or 415."""
        return wire.parse_body(self.body, self.content_type)


class Api:
    """The resource handlers."""

    def __init__(self, registry: Registry, reviews: Reviews) -> None:
        """Everything is kept in the registry."""
        self._registry = registry
        self._reviews = reviews
        self._evictor = Evictor(registry)
        self._discovery = Discovery(registry.catalog)

    @property
    def store(self) -> Store:
        """Where watches listen."""
        return self._registry.store

    def resource(self, info: RequestInfo) -> Resource:
        """The resource of a request.

        Raises ApiError: 404 for an unknown one, or a cluster-wide one inside a namespace.
        """
        resource = self._registry.catalog.find(info.group, info.version, info.resource)
        if resource is None or (not resource.namespaced and info.namespace and info.resource != "namespaces"):
            raise status_errors.unknown_path()
        if resource.namespaced and not info.namespace and info.verb not in ("list", "watch"):
            raise status_errors.unknown_path() if info.name else status_errors.method_not_allowed()
        return resource

    def answer(self, call: Call) -> Response:
        """The answer to anything but a watch. Raises ApiError: any refusal."""
        info = call.info
        if not info.is_resource:
            return self._fixed_path(call)
        if info.resource in REVIEWS:
            if info.verb != "create":
                raise status_errors.method_not_allowed()
            return wire.document(self._reviews.review(info.resource, call.values(), call.user), 201)
        resource = self.resource(info)
        if info.subresource not in ("", "status"):
            return self._subresource(call, resource)
        if info.subresource == "status" and (not resource.status or info.verb == "delete"):
            raise status_errors.unknown_path() if not resource.status else status_errors.method_not_allowed()
        if info.verb not in (_COLLECTION_VERBS if info.verb == "list" or not info.name else _OBJECT_VERBS):
            raise status_errors.method_not_allowed()
        handler: Callable[[Call, Target], Response] = getattr(self, f"_{info.verb}")
        namespace = info.namespace if resource.namespaced else ""
        return handler(call, Target(resource, namespace, info.name, info.subresource))

    def _fixed_path(self, call: Call) -> Response:
        if call.info.path in _HEALTH:
            return Response(200, b"ok", "text/plain")
        if call.info.verb != "get":
            raise status_errors.method_not_allowed()
        found = self._discovery.document(call.info.path)
        return wire.document(found) if found is not None else wire.NO_PAGE

    def _one(self, call: Call, resource: Resource, item: Item, code: int = 200) -> Response:
        if call.shape == "Table":
            meta: Object = {"resourceVersion": item.meta.get("resourceVersion", "")}
            return wire.document(table(resource, [item], meta, self._registry.clock()), code)
        if call.shape:
            return wire.document(metadata_only(item), code)
        return Response(code, item.full(resource))

    def _get(self, call: Call, target: Target) -> Response:
        return self._one(call, target.resource, self._registry.get(target.resource, target.namespace, target.name))

    def _list(self, call: Call, target: Target) -> Response:
        options = listing.read_options(call.query, target.resource)
        page = listing.find(self._registry.store, target.resource, target.namespace, options)
        return Response(200, listing.render(page, target.resource, call.shape, self._registry.clock()))

    def _write_options(self, call: Call) -> WriteOptions:
        return WriteOptions(_dry_run(call), call.query.get("fieldValidation") or "Warn", call.warnings, call.user)

    def _create(self, call: Call, target: Target) -> Response:
        item = self._registry.create(target.resource, target.namespace, call.values(), self._write_options(call))
        return self._one(call, target.resource, item, 201)

    def _update(self, call: Call, target: Target) -> Response:
        item = self._registry.replace(target, call.values(), self._write_options(call))
        return self._one(call, target.resource, item)

    def _patch(self, call: Call, target: Target) -> Response:
        apply = _patcher(call.content_type.partition(";")[0].strip(), target.resource)
        change = partial(apply, wire.parse_json(call.body))
        return self._one(call, target.resource, self._registry.patch(target, change, self._write_options(call)))

    def _delete_options(self, call: Call) -> DeleteOptions:
        return replace(delete_options(call.values() or {}, dry_run=_dry_run(call)), user=call.user)

    def _delete(self, call: Call, target: Target) -> Response:
        resource = target.resource
        item, gone = self._registry.delete(resource, target.namespace, target.name, self._delete_options(call))
        if gone and not resource.returns_deleted:
            return wire.document(status_errors.success(resource.who, target.name, item.meta["uid"]))
        return self._one(call, resource, item)

    def _subresource(self, call: Call, resource: Resource) -> Response:
        info = call.info
        match (resource.plural, info.subresource, info.verb):
            case ("pods", "eviction", "create"):
                options = read_eviction(call.values(), info.name, dry_run=_dry_run(call))
                return wire.document(self._evictor.evict(info.namespace, info.name, options), 201)
            case ("serviceaccounts", "token", "create"):
                return wire.document(self._reviews.issue(info.namespace, info.name, call.values()), 201)
            case ("pods", "eviction", _) | ("serviceaccounts", "token", _):
                raise status_errors.method_not_allowed()
            case _:
                raise status_errors.unknown_path()


def _dry_run(call: Call) -> bool:
    value = call.query.get("dryRun", "")
    if value not in ("", "All"):
        cause = Cause("FieldValueNotSupported", f'Unsupported value: ["{value}"]: supported values: "All"', "dryRun")
        kind = {"create": "Create", "update": "Update", "patch": "Patch"}.get(call.info.verb, "Delete")
        raise status_errors.invalid(status_errors.Who("meta.k8s.io", "", f"{kind}Options"), "", [cause])
    return value == "All"


def _patcher(media: str, resource: Resource) -> Callable[[Any, Object], Any]:
    if media == "application/merge-patch+json":
        return _merge_patch
    if media == "application/strategic-merge-patch+json":
        return lambda patch, obj: patches.strategic(obj, patch, resource.kind)
    raise status_errors.ApiError(415, "UnsupportedMediaType", "415: Unsupported Media Type")


def _merge_patch(patch: Any, obj: Object) -> Any:
    if not isinstance(patch, dict):
        message = "json: cannot unmarshal array into Go value of type map[string]interface {}"
        raise patches.PatchError(f"error decoding patch: {message}")
    return patches.merge(obj, patch)
