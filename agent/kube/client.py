"""The client: the requests that the agent makes to the API server, and nothing else.

One Kube serves all threads of a process. It refuses to overwrite whole objects, and evictions by name alone (they need
the pod's UID), and knows nothing of what the objects mean.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import time
from collections.abc import Iterator, Mapping
from enum import Enum
from typing import Any

from agent import __version__
from agent.bounded_socket import deadline
from agent.errors import UsageError
from agent.kube import eviction
from agent.kube.credentials import Access
from agent.kube.errors import Malformed, NotFound, Operation, Refused
from agent.kube.eviction import Eviction
from agent.kube.request import JSON, Caller, ClientContext, Request
from agent.kube.resources import PODS, Resource
from agent.kube.retry import RetryPolicy
from agent.kube.watch import Informer, Listing, Watch, lines_of

FIELD_MANAGER = "node-hardening-agent"
_PAGE_SIZE = 100
_SILENCE_SECONDS = 20.0
_LINES_SECONDS = 120.0
# Names, labels and annotations without spec and data: of a Secret, nothing secret.
# Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#metadata-only-fetches
_METADATA = "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"

Object = dict[str, Any]
_Query = tuple[tuple[str, str], ...]


class Patch(Enum):
    """How a patch is meant; the value is its media type.

    Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#patch-and-apply
    """

    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"


class Kube:
    """The API server. Safe for several threads; each waits for its own answer.

    Every call raises CallFailed (by status: kube/errors.py) or NoCredentials, and returns objects as dictionaries.
    Where a write's error is `ambiguous`, it may have been done: read the object again before the next step.
    """

    def __init__(
        self, access: Access, *, node: str, retry: RetryPolicy | None = None, around: ClientContext | None = None
    ) -> None:
        """node: for the User-Agent, so that the API server's audit log distinguishes the nodes."""
        self._retry = retry or RetryPolicy()
        self._caller = Caller(access, f"{FIELD_MANAGER}/{__version__} ({node})", around or ClientContext())
        self.namespace = access.namespace
        self.source = access.source
        self.user = access.user

    def within(self, seconds: float) -> Kube:
        """The same client with another deadline for each request."""
        other = copy.copy(self)
        other._retry = dataclasses.replace(self._retry, seconds=seconds)
        return other

    def stop(self) -> None:
        """Ends watches and waits immediately, from any thread; single attempts are still sent, for the last reports."""
        self._caller.around.stop.set()
        self._caller.cut_streams()

    def close(self) -> None:
        """Ends everything immediately, from any thread; later requests raise Stopped."""
        self._caller.around.stop.set()
        self._caller.close()

    def get(self, resource: Resource, name: str, namespace: str = "") -> Object:
        return self._object(Request(_operation("GET", "get", resource, name, namespace)))

    def get_raw(self, path: str, *, accept: str = JSON) -> Object:
        """The JSON object at an absolute path, such as `/version` or `/api/v1/nodes/NAME/proxy/configz`."""
        return self._object(Request(Operation("GET", "get", "nonresource", path, path), accept=accept))

    def get_lines(self, path: str, seconds: float = _LINES_SECONDS) -> Iterator[bytes | bytearray]:
        """The lines of a text at an absolute path, such as `/metrics`, as they arrive: it is never held whole.

        seconds: for all of it.
        """
        ends = time.monotonic() + seconds
        request = Request(Operation("GET", "get", "nonresource", path, path), accept="text/plain")
        answer = self._caller.open(request, self._retry, _SILENCE_SECONDS)
        try:
            lines = lines_of(request, answer, self._caller.server)
            while True:
                with deadline(ends - time.monotonic()):
                    line = next(lines, None)
                if line is None:
                    return
                yield line
        finally:
            answer.close()

    def find(self, resource: Resource, name: str, namespace: str = "") -> Object | None:
        """One object, None where there is none by that name. A path that the server does not serve is NotFound."""
        try:
            return self.get(resource, name, namespace)
        except NotFound as error:
            if not error.names_object:
                raise
            return None

    def list(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        label_selector: str = "",
        field_selector: str = "",
        page_size: int = _PAGE_SIZE,
        metadata_only: bool = False,
        background: bool = False,
    ) -> Listing:
        """The objects of a collection, requested page by page while they are iterated; all namespaces without one.

        page_size: of the first request; smaller where the objects are too large together. metadata_only: objects have
        nothing but `metadata`, and nothing else leaves the server. background: it belongs to a watch and ends with it.
        """
        operation = _operation("GET", "list", resource, "", namespace)
        accept = _METADATA if metadata_only else JSON
        selected = _query(labelSelector=label_selector, fieldSelector=field_selector)

        def page(token: str, size: int) -> Object:
            query = (*_query(limit=str(size), **{"continue": token}), *selected)
            return self._object(Request(operation, query, background=background, accept=accept))

        return Listing(page, page_size)

    def watch(
        self,
        resource: Resource,
        namespace: str = "",
        *,
        resource_version: str,
        label_selector: str = "",
        field_selector: str = "",
    ) -> Watch:
        """Changes since a list's or object's resourceVersion; see Watch."""
        operation = _operation("GET", "watch", resource, "", namespace)
        selected = _query(labelSelector=label_selector, fieldSelector=field_selector)
        query = (*_query(watch="true", allowWatchBookmarks="true"), *selected)

        def request(version: str, timeout_seconds: int) -> Request:
            begin = {} if version else {"sendInitialEvents": "true", "resourceVersionMatch": "NotOlderThan"}
            rest = _query(resourceVersion=version, timeoutSeconds=str(timeout_seconds), **begin)
            return Request(operation, query + rest)

        return Watch(self._caller, request, resource_version=resource_version, retry=self._retry)

    def follow(
        self, resource: Resource, namespace: str = "", *, label_selector: str = "", field_selector: str = ""
    ) -> Informer:
        """A collection as it is and as it changes, through everything that may go wrong; see Informer."""
        single = copy.copy(self)
        # An Informer retries by itself, for longer.
        single._retry = dataclasses.replace(self._retry, attempts=1)

        def listing() -> Listing:
            return single.list(
                resource, namespace, label_selector=label_selector, field_selector=field_selector, background=True
            )

        def watch(version: str) -> Watch:
            return single.watch(
                resource, namespace, resource_version=version,
                label_selector=label_selector, field_selector=field_selector,
            )  # fmt: skip

        return Informer(self._caller, listing, watch)

    def create(self, resource: Resource, body: Object, namespace: str = "", *, dry_run: bool = False) -> Object:
        """A new object; raises AlreadyExists. Never sent twice, unless nothing can have arrived."""
        metadata = body.get("metadata", {})
        namespace, named = namespace or metadata.get("namespace", ""), metadata.get("name", "")
        if resource.namespaced and not namespace:
            raise UsageError(f"creating one of {resource.plural} needs a namespace")
        operation = _operation("POST", "create", resource, named, namespace, path=resource.path("", namespace))
        return self._write(operation, body, _written(dry_run), repeatable=False)

    def patch(
        self,
        resource: Resource,
        name: str,
        body: Mapping[str, Any],
        namespace: str = "",
        *,
        how: Patch = Patch.MERGE,
        subresource: str = "",
        manager: str = FIELD_MANAGER,
        dry_run: bool = False,
    ) -> Object:
        """The object after a patch.

        A resourceVersion in `body.metadata` makes it a compare-and-swap: Conflict when another client was faster. A
        strategic patch merges a status's conditions by their type.
        """
        operation = _operation("PATCH", "patch", resource, name, namespace, subresource=subresource)
        repeatable = not body.get("metadata", {}).get("resourceVersion")
        return self._write(operation, body, _written(dry_run, manager), repeatable=repeatable, content_type=how.value)

    def delete(
        self,
        resource: Resource,
        name: str,
        namespace: str = "",
        *,
        uid: str = "",
        resource_version: str = "",
        grace_seconds: int | None = None,
        dry_run: bool = False,
    ) -> Object:
        """Deletes an object, only the very one where `uid` or `resource_version` is given (else Conflict).

        grace_seconds: None leaves it to the object, 0 kills immediately. Returns the object or a Status.
        """
        operation = _operation("DELETE", "delete", resource, name, namespace)
        body = {"apiVersion": "v1", "kind": "DeleteOptions", **_deletion(uid, resource_version, grace_seconds, dry_run)}
        return self._write(operation, body, (), repeatable=True)

    def evict(
        self, name: str, namespace: str, *, uid: str, grace_seconds: int | None = None, dry_run: bool = False
    ) -> Eviction:
        """Requests a pod's eviction, only of that UID; the outcome is read from the answer's body.

        dry_run: whether it would be let go, without spending its PodDisruptionBudget. Raises Forbidden and other
        refusals that are not about the pod. Never sent twice, unless nothing can have arrived; a 429 is an outcome.
        """
        where = PODS.path(name, namespace, "eviction")
        operation = Operation("POST", "evict", "pods/eviction", f"pods/{name} in {namespace}", where)
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": name, "namespace": namespace},
            "deleteOptions": _deletion(uid, "", grace_seconds, dry_run),
        }
        try:
            request = Request(operation, (), _encoded(body), repeatable=False, retries_429=False)
            return eviction.accepted(operation, self._caller.call(request, self._retry))
        except Refused as error:
            return eviction.refused(error)

    def _write(
        self, operation: Operation, body: object, query: _Query, *, repeatable: bool, content_type: str = JSON
    ) -> Object:
        return self._object(Request(operation, query, _encoded(body), content_type, repeatable=repeatable))

    def _object(self, request: Request) -> Object:
        document = self._caller.call(request, self._retry)
        if not isinstance(document, dict):
            raise Malformed(request.operation, "the answer is not an object", ambiguous=request.is_write)
        return document


def _operation(
    method: str, verb: str, resource: Resource, name: str, namespace: str, *, subresource: str = "", path: str = ""
) -> Operation:
    subject = "/".join(part for part in (resource.plural, name, subresource) if part)
    if namespace:
        subject += f" in {namespace}"
    plural = f"{resource.plural}/{subresource}" if subresource else resource.plural
    return Operation(method, verb, plural, subject, path or resource.path(name, namespace, subresource))


def _query(**parameters: str) -> _Query:
    return tuple((name, value) for name, value in parameters.items() if value)


def _written(dry_run: bool, manager: str = FIELD_MANAGER) -> _Query:
    return _query(fieldManager=manager, dryRun="All" if dry_run else "")


def _deletion(uid: str, resource_version: str, grace_seconds: int | None, dry_run: bool) -> Object:
    preconditions = {"uid": uid, "resourceVersion": resource_version}
    options = {
        "preconditions": {name: value for name, value in preconditions.items() if value},
        "gracePeriodSeconds": grace_seconds,
        "dryRun": ["All"] if dry_run else [],
    }
    return {name: value for name, value in options.items() if value or value == 0}


def _encoded(body: object) -> bytes:
    return json.dumps(body, separators=(",", ":")).encode()
