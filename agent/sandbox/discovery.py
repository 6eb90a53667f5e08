"""What tells clients which resources there are: /version, /api, /apis, the resource lists and a bare OpenAPI v3.

The OpenAPI documents name paths and parameters only, enough for kubectl to see that the server validates fields
itself; they carry no schemas.
"""

from __future__ import annotations

from agent.sandbox.catalog import Catalog, Resource
from agent.sandbox.status_errors import Object

VERSION: Object = {
    "major": "1", "minor": "36", "gitVersion": "v1.36.2-sandbox", "gitCommit": "", "gitTreeState": "clean",
    "buildDate": "2025-01-01T00:00:00Z", "goVersion": "", "compiler": "", "platform": "linux/amd64",
}  # fmt: skip
_VERBS = ["create", "delete", "get", "list", "patch", "update", "watch"]
_STATUS_VERBS = ["get", "patch", "update"]
_REVIEWS = {
    ("authorization.k8s.io", "v1"): ("selfsubjectaccessreviews", "SelfSubjectAccessReview"),
    ("authentication.k8s.io", "v1"): ("selfsubjectreviews", "SelfSubjectReview"),
}


def _entries(resource: Resource) -> list[Object]:
    main: Object = {
        "name": resource.plural, "singularName": resource.singular, "namespaced": resource.namespaced,
        "kind": resource.kind, "verbs": _VERBS,
    }  # fmt: skip
    if resource.short:
        main["shortNames"] = list(resource.short)
    if resource.categories:
        main["categories"] = list(resource.categories)
    entries = [main]
    if resource.status:
        entries.append({**_sub(resource, "status"), "kind": resource.kind, "verbs": _STATUS_VERBS})
    if resource.plural == "pods":
        eviction = {"kind": "Eviction", "group": "policy", "version": "v1", "verbs": ["create"]}
        entries.append({**_sub(resource, "eviction"), **eviction})
    if resource.plural == "serviceaccounts":
        token = {"kind": "TokenRequest", "group": "authentication.k8s.io", "version": "v1", "verbs": ["create"]}
        entries.append({**_sub(resource, "token"), **token})
    return entries


def _sub(resource: Resource, name: str) -> Object:
    return {"name": f"{resource.plural}/{name}", "singularName": "", "namespaced": resource.namespaced}


class Discovery:
    """The documents of one catalog."""

    def __init__(self, catalog: Catalog) -> None:
        """Built when asked for: they are small and rarely read."""
        self._catalog = catalog
        self._groups = [*catalog.group_versions(), *_REVIEWS]

    def document(self, path: str) -> Object | None:
        """The document at a path, or None."""
        parts = [part for part in path.split("/") if part]
        match parts:
            case ["version"]:
                return VERSION
            case ["api"]:
                return {
                    "kind": "APIVersions",
                    "versions": ["v1"],
                    "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": ""}],
                }
            case ["apis"]:
                groups = [self._group(group) for group in dict.fromkeys(group for group, _ in self._groups)]
                return {"kind": "APIGroupList", "apiVersion": "v1", "groups": groups}
            case ["api", "v1"]:
                return self._resources("", "v1")
            case ["apis", group, version] if (group, version) in self._groups:
                return self._resources(group, version)
            case ["openapi", "v3"]:
                return {"paths": {path: {"serverRelativeURL": f"/openapi/v3/{path}"} for path in self._openapi_paths()}}
            case ["openapi", "v3", *rest] if "/".join(rest) in self._openapi_paths():
                return self._openapi("/".join(rest))
        return None

    def _group(self, group: str) -> Object:
        versions = [
            {"groupVersion": f"{group}/{version}", "version": version}
            for name, version in self._groups
            if name == group
        ]
        return {"name": group, "versions": versions, "preferredVersion": versions[0]}

    def _resources(self, group: str, version: str) -> Object:
        entries = [
            entry
            for resource in self._catalog.all
            if (resource.group, resource.version) == (group, version)
            for entry in _entries(resource)
        ]
        if (group, version) in _REVIEWS:
            plural, kind = _REVIEWS[group, version]
            review = {"singularName": kind.lower(), "namespaced": False, "kind": kind, "verbs": ["create"]}
            entries.append({"name": plural, **review})
        return {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": f"{group}/{version}" if group else version,
            "resources": entries,
        }

    def _openapi_paths(self) -> list[str]:
        return ["api/v1", *(f"apis/{group}/{version}" for group, version in self._catalog.group_versions())]

    def _openapi(self, path: str) -> Object:
        group_version = path.removeprefix("apis/").removeprefix("api/")
        paths: Object = {}
        for resource in self._catalog.all:
            if resource.api_version != group_version:
                continue
            where = "/namespaces/{namespace}" if resource.namespaced else ""
            kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
            query = [{"name": name, "in": "query", "schema": {"type": "string"}}
                     for name in ("dryRun", "fieldManager", "fieldValidation")]  # fmt: skip
            operation = {"parameters": query, "x-kubernetes-group-version-kind": kind, "responses": {}}
            item = {name: {**operation, "x-kubernetes-action": name} for name in ("get", "put", "patch", "delete")}
            paths[f"/{path}{where}/{resource.plural}/{{name}}"] = item
            paths[f"/{path}{where}/{resource.plural}"] = {"post": {**operation, "x-kubernetes-action": "post"}}
        return {
            "openapi": "3.0.0",
            "info": {"title": "Kubernetes", "version": VERSION["gitVersion"]},
            "paths": paths,
            "components": {"schemas": {}},
        }
