"""No value of the API ends the cluster audit: every field of an object of every kind, replaced by each odd value."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from agent.plugin.audit import collect
from agent.plugin.audit.audit import judged
from agent.plugin.audit.view import View

Object = dict[str, Any]
NOW = 1_800_000_000.0
_ODD: tuple[Any, ...] = (
    None,
    True,
    5,
    -1.5,
    "",
    "x",
    "\x1b[31m\ud800",
    [],
    {},
    [[]],
    [{}],
    [None],
    {"a": []},
    [5, "x"],
)
_CONTAINER: Object = {
    "name": "c",
    "env": [{"name": "E", "valueFrom": {"secretKeyRef": {"name": "s"}}}],
    "envFrom": [{"secretRef": {"name": "s"}}],
    "ports": [{"hostPort": 80}],
    "volumeMounts": [{"name": "v", "readOnly": True}],
    "securityContext": {
        "privileged": True, "procMount": "Unmasked", "runAsUser": 0, "runAsNonRoot": False,
        "allowPrivilegeEscalation": True, "capabilities": {"add": ["NET_ADMIN"], "drop": ["ALL"]},
        "seccompProfile": {"type": "Unconfined"}, "appArmorProfile": {"type": "Unconfined"},
        "windowsOptions": {"hostProcess": True},
    },
}  # fmt: skip
_RULE: Object = {"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": [""],
                 "nonResourceURLs": ["/metrics"]}  # fmt: skip
_OBJECTS: dict[str, Object] = {
    "namespaces": {"metadata": {"labels": {"pod-security.kubernetes.io/enforce": "baseline"},
                                "annotations": {"scheduler.alpha.kubernetes.io/node-selector": "a=b"}}},
    "nodes": {"metadata": {"labels": {"node-role.kubernetes.io/control-plane": ""},
                           "annotations": {"node-hardening.io/checks": '{"passed": ["kubelet/4.2.14"]}'}},
              "spec": {"taints": [{"key": "node-role.kubernetes.io/control-plane", "effect": "NoSchedule"}]}},
    "pods": {
        "metadata": {"namespace": "n", "labels": {"app": "a"},
                     "annotations": {"container.apparmor.security.beta.kubernetes.io/c": "unconfined"},
                     "ownerReferences": [{"controller": True, "kind": "ReplicaSet", "name": "a-1"}]},
        "spec": {"nodeName": "a", "serviceAccountName": "s", "hostNetwork": False, "hostPID": True, "hostUsers": True,
                 "os": {"name": "linux"}, "nodeSelector": {"kubernetes.io/os": "linux"},
                 "automountServiceAccountToken": True, "tolerations": [{"operator": "Exists"}],
                 "volumes": [{"name": "v", "hostPath": {"path": "/etc"}}],
                 "securityContext": {"sysctls": [{"name": "a"}], "windowsOptions": {"hostProcess": False}},
                 "containers": [_CONTAINER], "initContainers": [{"name": "i"}]},
    },
    "roles": {"rules": [_RULE]},
    "rolebindings": {"metadata": {"namespace": "n"}, "roleRef": {"kind": "Role", "name": "x"},
                     "subjects": [{"kind": "ServiceAccount", "namespace": "n", "name": "s"}]},
    "serviceaccounts": {"metadata": {"labels": {"helm.sh/chart": "c"}}, "automountServiceAccountToken": False},
    "networkpolicies": {"metadata": {"namespace": "n"}, "spec": {
        "podSelector": {"matchLabels": {"a": "b"},
                        "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}]},
        "policyTypes": ["Egress"], "egress": [{"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["10.0.0.0/8"]}}]}]}},
    "resourcequotas": {"spec": {"hard": {"pods": "1"}, "scopes": ["BestEffort"], "scopeSelector": {"a": "b"}}},
    "limitranges": {"spec": {"limits": [{"type": "Container", "default": {"memory": "1"}}]}},
    "validating webhooks": {"webhooks": [{"name": "w", "failurePolicy": "Ignore"}]},
    "admission policies": {"spec": {"matchConstraints": {"resourceRules": [{"resources": ["pods"]}]}}},
    "admission policy bindings": {"spec": {"policyName": "x", "validationActions": ["Deny"]}},
    "certificate requests": {"spec": {"signerName": "kubernetes.io/kube-apiserver-client", "username": "u"},
                             "status": {"certificate": "x"}},
    "bootstrap tokens": {"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z",
                                      "labels": {"kubernetes.io/legacy-token-last-used": "2026-01-01"},
                                      "annotations": {"kubernetes.io/service-account.name": "a"}}},
}  # fmt: skip
_ALIKE = {"clusterroles": "roles", "clusterrolebindings": "rolebindings", "service account tokens": "bootstrap tokens"}


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    yield path
    inside = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inside:
        yield from _paths(one, (*path, key))


def _with(found: Object, path: tuple[Any, ...], odd: Any) -> Object:
    made = copy.deepcopy(found)
    at: Any = made
    for key in path[:-1]:
        at = at[key]
    at[path[-1]] = odd
    return made


@pytest.mark.parametrize("kind", collect.KINDS, ids=lambda kind: kind.name)
def test_an_odd_value_in_any_field_is_read_and_judged(kind: collect.Kind) -> None:
    """Whatever it makes of the object, each check has its result, and every text can be written."""
    found = _OBJECTS[_ALIKE.get(kind.name, kind.name)]
    found = {**found, "metadata": {"name": "x", **found.get("metadata", {})}}
    of = View(now=NOW, counts=dict.fromkeys(collect.NAMES, 1), version="v1.36.2", user="u")
    for path in _paths(found):
        for odd in _ODD if path else ():
            kind.keep(of, _with(found, path, odd))
    results = judged(of, "c", ()).results
    assert results
    for one in results:
        assert str(one.document()).encode()
        assert one.finding.observed.encode()
