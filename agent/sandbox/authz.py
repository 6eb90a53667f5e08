"""What a user may do: RBAC over the ClusterRoles, Roles and bindings that are stored, evaluated as the real one does.

Rules only add up; nothing denies. ``system:masters`` passes. Aggregated roles and escalation checks are left out.
Source: kubernetes plugin/pkg/auth/authorizer/rbac and pkg/apis/rbac/v1/evaluation_helpers.go.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from agent.sandbox import status_errors
from agent.sandbox.authn import MASTERS, User, service_account
from agent.sandbox.catalog import Catalog
from agent.sandbox.routing import RequestInfo
from agent.sandbox.status_errors import ApiError, Object
from agent.sandbox.store import Store

_ACCOUNT = re.compile(r"system:serviceaccount:([^:]+):([^:]+)")
_DISCOVERY = ["/healthz", "/livez", "/readyz", "/version", "/version/"]
_BROWSE = ["/api", "/api/*", "/apis", "/apis/*", "/openapi", "/openapi/*", *_DISCOVERY]


def bootstrap_roles() -> list[tuple[str, Object]]:
    """The default roles and bindings that a cluster starts with, as (plural, object): the few that matter here."""
    masters = {"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": MASTERS}
    known = {"kind": "Group", "apiGroup": "rbac.authorization.k8s.io", "name": "system:authenticated"}
    everything = [
        {"verbs": ["*"], "apiGroups": ["*"], "resources": ["*"]},
        {"verbs": ["*"], "nonResourceURLs": ["*"]},
    ]
    reviews = [
        {"verbs": ["create"], "apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectaccessreviews"]},
        {"verbs": ["create"], "apiGroups": ["authentication.k8s.io"], "resources": ["selfsubjectreviews"]},
    ]
    return [
        *_role("cluster-admin", everything, [masters]),
        *_role("system:basic-user", reviews, [known]),
        *_role("system:discovery", [{"verbs": ["get"], "nonResourceURLs": _BROWSE}], [known]),
        *_role("system:public-info-viewer", [{"verbs": ["get"], "nonResourceURLs": _DISCOVERY}], [known]),
    ]


def _role(name: str, rules: list[Object], subjects: list[Object]) -> list[tuple[str, Object]]:
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": name}
    meta = {"name": name, "labels": {"kubernetes.io/bootstrapping": "rbac-defaults"}}
    return [
        ("clusterroles", {"metadata": meta, "rules": rules}),
        ("clusterrolebindings", {"metadata": dict(meta), "subjects": subjects, "roleRef": reference}),
    ]


class Authorizer:
    """Reads the stored RBAC objects at each question: there are few, and they are never stale."""

    def __init__(self, store: Store, catalog: Catalog, *, enabled: bool) -> None:
        """Without ``enabled`` every known user may do everything (AlwaysAllow)."""
        self._store = store
        self._catalog = catalog
        self._enabled = enabled

    def allows(self, user: User, info: RequestInfo) -> bool:
        """Whether any rule that binds the user covers the request."""
        if not self._enabled or MASTERS in user.groups:
            return True
        return any(_covers(rule, info) for rule in self._rules(user, info.namespace))

    def impersonate(self, user: User, name: str, groups: tuple[str, ...]) -> User:
        """Whom a request is made as: the user itself without a name, else the one named, where that is allowed.

        A service account is in its own groups where none are named.
        Source: apiserver pkg/endpoints/filters/impersonation.

        Raises ApiError: 403.
        """
        if not name:
            return user
        account = _ACCOUNT.fullmatch(name)
        who = ("serviceaccounts", account[2], account[1]) if account else ("users", name, "")
        for resource, target, namespace in (who, *(("groups", group, "") for group in groups)):
            self.check(user, RequestInfo("impersonate", "", "", "v1", namespace, resource, target))
        return service_account(account[1], account[2]) if account and not groups else User(name, groups)

    def check(self, user: User, info: RequestInfo) -> None:
        """Nothing, or the real server's 403. Raises ApiError: 403."""
        if not self.allows(user, info):
            raise _refusal(user, info)

    def _rules(self, user: User, namespace: str) -> Iterator[Object]:
        for binding in self._all("clusterrolebindings", ""):
            if _binds(binding, user, ""):
                yield from self._role_rules(binding, "")
        if namespace:
            for binding in self._all("rolebindings", namespace):
                if _binds(binding, user, namespace):
                    yield from self._role_rules(binding, namespace)

    def _all(self, plural: str, namespace: str) -> Iterator[Object]:
        for _, item in self._store.scan(self._catalog.named(plural), namespace):
            yield item.obj

    def _role_rules(self, binding: Object, namespace: str) -> list[Any]:
        reference = binding.get("roleRef") or {}
        if reference.get("kind") == "ClusterRole":
            item = self._store.get(self._catalog.named("clusterroles"), ("", reference.get("name", "")))
        else:
            item = self._store.get(self._catalog.named("roles"), (namespace, reference.get("name", "")))
        return (item.obj.get("rules") or []) if item is not None else []


def _binds(binding: Object, user: User, namespace: str) -> bool:
    for subject in binding.get("subjects") or []:
        kind, name = subject.get("kind"), subject.get("name", "")
        if kind == "User" and name == user.name:
            return True
        if kind == "Group" and name in user.all_groups:
            return True
        home = subject.get("namespace") or namespace
        if kind == "ServiceAccount" and user.name == f"system:serviceaccount:{home}:{name}":
            return True
    return False


def _covers(rule: Object, info: RequestInfo) -> bool:
    verbs = rule.get("verbs") or []
    if "*" not in verbs and info.verb not in verbs:
        return False
    if not info.is_resource:
        return any(_path_matches(pattern, info.path) for pattern in rule.get("nonResourceURLs") or [])
    groups = rule.get("apiGroups") or []
    if "*" not in groups and info.group not in groups:
        return False
    combined = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    resources = rule.get("resources") or []
    if not any(item in ("*", combined) or (info.subresource and item == f"*/{info.subresource}") for item in resources):
        return False
    names = rule.get("resourceNames") or []
    return not names or (bool(info.name) and info.name in names)


def _path_matches(pattern: str, path: str) -> bool:
    if pattern.endswith("*"):
        return path.startswith(pattern[:-1])
    return pattern == path


def _refusal(user: User, info: RequestInfo) -> ApiError:
    who = f'User "{user.name}" cannot {info.verb}'
    if not info.is_resource:
        return status_errors.forbidden_path(f'{who} path "{info.path}"')
    combined = f"{info.resource}/{info.subresource}" if info.subresource else info.resource
    where = f'in the namespace "{info.namespace}"' if info.namespace else "at the cluster scope"
    why = f'{who} resource "{combined}" in API group "{info.group}" {where}'
    return status_errors.forbidden(status_errors.Who(info.group, info.resource, ""), info.name, why)
