"""From a method and a path to what is asked for: the same attributes that the real server authorizes.

Pure; it knows the shape of the API's paths and nothing of what is stored. Source: apiserver
pkg/endpoints/request/requestinfo.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

_VERBS = {"POST": "create", "PUT": "update", "PATCH": "patch", "GET": "get", "HEAD": "get", "DELETE": "delete"}


@dataclass(frozen=True, slots=True)
class RequestInfo:
    """``resource`` is empty for a path that is no resource."""

    verb: str
    path: str
    group: str = ""
    version: str = ""
    namespace: str = ""
    resource: str = ""
    name: str = ""
    subresource: str = ""

    @property
    def is_resource(self) -> bool:
        """Whether RBAC rules on resources apply."""
        return bool(self.resource)


def _true(value: str | None) -> bool:
    return value is not None and value.lower() in ("1", "t", "true", "")


def parse(method: str, path: str, query: Mapping[str, str]) -> RequestInfo:
    """The attributes of one request."""
    parts = [part for part in path.split("/") if part]
    verb = _VERBS.get(method, method.lower())
    if parts[:1] == ["api"] and len(parts) >= 3:
        group, version, rest = "", parts[1], parts[2:]
    elif parts[:1] == ["apis"] and len(parts) >= 4:
        group, version, rest = parts[1], parts[2], parts[3:]
    else:
        return RequestInfo(verb if method != "GET" else "get", path)
    namespace = ""
    if rest[0] == "namespaces" and len(rest) > 1:
        namespace = rest[1]
        # /namespaces/x, /namespaces/x/status and /namespaces/x/finalize are about the namespace itself.
        if len(rest) > 2 and rest[2] not in ("status", "finalize"):
            rest = rest[2:]
    resource = rest[0]
    name = rest[1] if len(rest) > 1 else ""
    subresource = rest[2] if len(rest) > 2 else ""
    if not name and verb == "get":
        verb = "watch" if _true(query.get("watch")) else "list"
        name = _selected_name(query.get("fieldSelector", ""))
    elif not name and verb == "delete":
        verb = "deletecollection"
    return RequestInfo(verb, path, group, version, namespace, resource, name, subresource)


def _selected_name(field_selector: str) -> str:
    """``metadata.name=x`` names the object, so that resourceNames can allow a list or a watch of it."""
    for term in field_selector.split(","):
        key, equals, value = term.partition("=")
        if key == "metadata.name" and equals:
            return value.removeprefix("=")
    return ""
