"""RBAC reduced to what matters: which powers a role has, and who is bound to it where. Pure.

A role is judged once, by its rules as the API server's own evaluation reads them, and its rules are dropped.
Source: kubernetes pkg/apis/rbac/v1/evaluation_helpers.go.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.plugin.cluster import values

ADMIN, WILDCARD, SECRETS, WORKLOADS, ESCALATE = "admin", "wildcard", "secrets", "workloads", "escalate"
NODE_PROXY, VOLUMES, APPROVE, WEBHOOKS, TOKENS, EXEC = "node-proxy", "volumes", "approve", "webhooks", "tokens", "exec"
PUBLIC, DISCOVERY, JOIN = "public", "discovery", "join"  # of a role: no rule lets more than that
_SERVICE_ACCOUNT = "ServiceAccount"

# Each power: any of these (API group, resource, verbs) is enough.
_POWERS: Mapping[str, tuple[tuple[str, str, str], ...]] = {
    SECRETS: (("", "secrets", "get list watch"),),
    WORKLOADS: (
        ("", "pods", "create"), ("", "replicationcontrollers", "create"), ("apps", "deployments", "create"),
        ("apps", "daemonsets", "create"), ("apps", "statefulsets", "create"), ("apps", "replicasets", "create"),
        ("batch", "jobs", "create"), ("batch", "cronjobs", "create"),
    ),
    ESCALATE: (
        ("rbac.authorization.k8s.io", "roles", "bind escalate"),
        ("rbac.authorization.k8s.io", "clusterroles", "bind escalate"),
        ("", "users", "impersonate"), ("", "groups", "impersonate"), ("", "serviceaccounts", "impersonate"),
        ("authentication.k8s.io", "uids", "impersonate"), ("authentication.k8s.io", "userextras", "impersonate"),
        # KEP-5284, 1.35: verbs such as impersonate:user-info, all in that group.
        *(("authentication.k8s.io", who, "impersonate:") for who in ("users", "groups", "serviceaccounts", "nodes")),
    ),
    NODE_PROXY: (("", "nodes/proxy", "get create update patch delete"),),
    VOLUMES: (("", "persistentvolumes", "create"),),
    APPROVE: (("certificates.k8s.io", "certificatesigningrequests/approval", "update patch"),),
    WEBHOOKS: tuple(
        ("admissionregistration.k8s.io", f"{kind}webhookconfigurations", "create update patch delete")
        for kind in ("mutating", "validating")
    ),
    TOKENS: (("", "serviceaccounts/token", "create"),),
    EXEC: (
        ("", "pods/exec", "get create"), ("", "pods/attach", "get create"), ("", "pods/portforward", "get create"),
        ("", "pods/ephemeralcontainers", "update patch"),
    ),
}  # fmt: skip
# Of these, one object by its name can be as good as all: system:masters, cluster-admin, a webhook that sees everything.
_BY_NAME = frozenset({ESCALATE, NODE_PROXY, APPROVE, WEBHOOKS})
# Health, version, and the issuer's public keys, which other clouds read to verify service account tokens.
_OPEN = ("/healthz", "/livez", "/readyz", "/version", "/.well-known", "/openid/v1/jwks")
_BROWSE = (*_OPEN, "/api", "/apis", "/openapi")
_REQUESTS = "certificatesigningrequests"
_REVIEWS = ("authorization.k8s.io", "authentication.k8s.io")


Powers = frozenset[str]
"""What a role lets, and PUBLIC, DISCOVERY or JOIN where it lets no more than that."""


@dataclass(frozen=True, slots=True)
class Subject:
    """Who is bound. namespace: of a service account."""

    kind: str
    name: str
    namespace: str = ""

    def __str__(self) -> str:
        return f"{self.kind} {self.namespace}/{self.name}" if self.namespace else f"{self.kind} {self.name}"

    @property
    def is_account(self) -> bool:
        """A service account."""
        return self.kind == _SERVICE_ACCOUNT


EVERYONE = ("system:anonymous", "system:unauthenticated", "system:authenticated")
_COMPONENTS = frozenset(f"system:{name}" for name in ("apiserver", "kube-controller-manager", "kube-scheduler",
                                                      "cloud-controller-manager"))  # fmt: skip
_MASTERS = ("Group", "system:masters")  # passes every authorizer, whatever is bound to it
_KUBEADM = ("Group", "kubeadm:cluster-admins", "kubeadm:cluster-admins", "ClusterRole/cluster-admin")


@dataclass(frozen=True, slots=True)
class Grant:
    """One subject of one binding. scope: the namespace that it holds in, empty for the whole cluster.

    role: as bound, `ClusterRole/NAME`. powers: None where there is no such role.
    """

    subject: Subject
    binding: str
    scope: str
    role: str
    powers: Powers | None

    def has(self, power: str) -> bool:
        """Whether the role has it."""
        return self.powers is not None and power in self.powers

    @property
    def binding_kind(self) -> str:
        """As kubectl names it."""
        return "RoleBinding" if self.scope else "ClusterRoleBinding"

    @property
    def is_default(self) -> bool:
        """Kubernetes' own components with roles of its own, and the two groups of administrators with theirs."""
        role = self.role.partition("/")[2]
        if self.subject.is_account:
            # The controllers' accounts, each bound to the role of its own name.
            return self.subject.namespace == "kube-system" and role == f"system:controller:{self.subject.name}"
        who = (self.subject.kind, self.subject.name)
        if who == _MASTERS or (*who, self.binding, self.role) == _KUBEADM:
            return True
        is_component = who[0] == "User" and who[1] in _COMPONENTS
        return is_component and role.startswith("system:") and not self.has(ADMIN)


def powers_of(found: Mapping[str, Any]) -> Powers:
    """A Role or ClusterRole, reduced."""
    rules = values.mappings(found.get("rules"))
    powers = {
        power for power, needs in _POWERS.items()
        if any(_lets(rule, *need, by_name=power in _BY_NAME) for rule in rules for need in needs)
    }  # fmt: skip
    powers |= {name for name, holds in _WHOLE.items() if any(map(holds, rules))}
    powers |= {name for name, holds in _AT_MOST.items() if all(map(holds, rules))}
    return frozenset(powers)


def grants(found: Mapping[str, Any], roles: Mapping[tuple[str, str], Powers]) -> Iterable[Grant]:
    """The subjects of a RoleBinding or ClusterRoleBinding. roles: by namespace (empty: ClusterRole) and name."""
    scope, name = (values.text(_meta(found).get(key), 253) for key in ("namespace", "name"))
    reference = values.part(found, "roleRef")
    kind, bound = (values.text(reference.get(key), 253) for key in ("kind", "name"))
    powers = roles.get((scope if kind == "Role" else "", bound))
    for one in values.mappings(found.get("subjects")):
        of, who = (values.text(one.get(key), 253) for key in ("kind", "name"))
        namespace = values.text(one.get("namespace"), 253) if of == _SERVICE_ACCOUNT else ""
        subject = _account(Subject(of, who, namespace))
        yield Grant(subject, name, scope, sys.intern(f"{kind}/{bound}"), powers)


def _account(subject: Subject) -> Subject:
    """A service account that is named as the user that it authenticates as is that service account."""
    parts = subject.name.split(":")
    if subject.kind == "User" and subject.name.startswith("system:serviceaccount:") and len(parts) == 4:
        return Subject(_SERVICE_ACCOUNT, parts[3], parts[2])
    return subject


def _lets(rule: Mapping[str, Any], group: str, resource: str, verbs: str, *, by_name: bool) -> bool:
    """Whether the rule lets one of the verbs on all objects of a resource. by_name: or on some that it names.

    The empty name is what list and create ask for.
    """
    names = values.texts(rule.get("resourceNames"))
    if names and "" not in names and not by_name:
        return False
    if not {group, "*"}.intersection(values.texts(rule.get("apiGroups"))):
        return False
    main, _, sub = resource.partition("/")
    matching = {resource, "*", *([f"*/{sub}"] if sub else [])}
    if main == "userextras":
        matching |= {one for one in values.texts(rule.get("resources")) if one.startswith("userextras/")}
    return bool(matching.intersection(values.texts(rule.get("resources")))) and any(
        verb in ("*", *verbs.split()) or (verb.startswith("impersonate:") and "impersonate" in verbs)
        for verb in values.texts(rule.get("verbs"))
    )


def _is_everything(rule: Mapping[str, Any]) -> bool:
    return not rule.get("resourceNames") and all(
        "*" in values.texts(rule.get(key)) for key in ("apiGroups", "resources", "verbs")
    )


def _has_wildcard(rule: Mapping[str, Any]) -> bool:
    return any("*" in values.texts(rule.get(key)) for key in ("apiGroups", "resources", "verbs", "nonResourceURLs"))


_WHOLE = {ADMIN: _is_everything, WILDCARD: _has_wildcard}


def _is_public(rule: Mapping[str, Any], paths: tuple[str, ...] = _OPEN) -> bool:
    """What is open by default; and the one ConfigMap that a node reads before it joins."""
    urls, resources = values.texts(rule.get("nonResourceURLs")), values.texts(rule.get("resources"))
    only_get = set(values.texts(rule.get("verbs"))) <= {"get"}
    below = tuple(f"{path}/" for path in paths)
    if resources == ["configmaps"]:
        return values.texts(rule.get("resourceNames")) == ["cluster-info"] and only_get and not urls
    return not resources and only_get and all(f"{one.rstrip('*')}/".startswith(below) for one in urls)


def _is_discovery(rule: Mapping[str, Any]) -> bool:
    """What every authenticated client may do: browse the API, and ask what it may do itself."""
    groups, resources = values.texts(rule.get("apiGroups")), values.texts(rule.get("resources"))
    if resources and all(one.startswith("selfsubject") for one in resources):
        return all(group in _REVIEWS for group in groups)
    return _is_public(rule, _BROWSE)


def _is_join(rule: Mapping[str, Any]) -> bool:
    """What kubeadm binds to bootstrap tokens: request and renew a node's certificate, read what a node starts with."""
    resources, verbs = (frozenset(values.texts(rule.get(key))) for key in ("resources", "verbs"))
    if resources <= {_REQUESTS, f"{_REQUESTS}/nodeclient", f"{_REQUESTS}/selfnodeclient"} and resources:
        return verbs <= {"create", "get", "list", "watch"}
    names = values.texts(rule.get("resourceNames"))
    by_name = (resources == {"configmaps"} and all(names) and bool(names)) or (
        resources == {"secrets"} and names == ["kubeadm-certs"]
    )
    return (verbs <= {"get"} and (by_name or resources == {"nodes"})) or _is_discovery(rule)


_AT_MOST = {PUBLIC: _is_public, DISCOVERY: _is_discovery, JOIN: _is_join}


def _meta(found: Mapping[str, Any]) -> Mapping[str, Any]:
    return values.part(found, "metadata")
