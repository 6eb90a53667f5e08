"""A cluster of thousands of pods in hundreds of namespaces, put into the emulator past HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from agent.sandbox.server import Sandbox

Object = dict[str, Any]
_RULES = [{"apiGroups": ["", "apps"], "resources": ["pods", "deployments"], "verbs": ["get", "list", "watch"]}]


def fill(sandbox: Sandbox, *, namespaces: int, workloads: int, pods: int) -> None:
    """Pods of Deployments, spread evenly; in each namespace what a platform team sets up for a team."""
    for plural, objects in _objects(namespaces, workloads, pods):
        batch: list[Object] = []
        for one in objects:
            batch.append(one)
            if len(batch) == 500:
                _put(sandbox, plural, batch)
        _put(sandbox, plural, batch)


def _put(sandbox: Sandbox, plural: str, batch: list[Object]) -> None:
    sandbox.call(lambda: [sandbox._seed(plural, one) for one in batch])
    batch.clear()


def _objects(namespaces: int, workloads: int, pods: int) -> Iterator[tuple[str, Iterator[Object]]]:
    names = [f"team-{number:04}" for number in range(namespaces)]
    yield "namespaces", ({"metadata": {"name": name, "labels": {"team": name}}} for name in names)
    yield "serviceaccounts", (_in(name, "default") for name in names)
    yield "serviceaccounts", (_in(name, "app", automountServiceAccountToken=False) for name in names)
    for role in ("view", "edit", "deploy", "debug"):
        yield "roles", (_in(name, role, rules=_RULES) for name in names)
        yield "rolebindings", (_in(name, role, **_bound(name, role)) for name in names)
    yield "networkpolicies", (_in(name, "all", spec={"podSelector": {}, "policyTypes": ["Ingress"]}) for name in names)
    yield "resourcequotas", (_in(name, "all", spec={"hard": {"pods": "50"}}) for name in names)
    yield "limitranges", (_in(name, "all", spec={"limits": []}) for name in names)
    yield "secrets", (_in(name, "db", type="Opaque", data={"password": "c2VjcmV0"}) for name in names)
    yield "pods", (_pod(number, number % workloads, names[number % workloads % namespaces]) for number in range(pods))


def _in(namespace: str, name: str, **more: Any) -> Object:
    return {"metadata": {"name": name, "namespace": namespace}, **more}


def _bound(name: str, role: str) -> Object:
    group = "rbac.authorization.k8s.io"
    subject = {"apiGroup": group, "kind": "Group", "name": f"{name}-{role}"}
    return {"subjects": [subject], "roleRef": {"apiGroup": group, "kind": "Role", "name": role}}


def _pod(number: int, workload: int, namespace: str) -> Object:
    """As a list of a real cluster has it: most of its size is managedFields and status."""
    hash_ = f"{workload:08x}"
    container = {
        "name": "app", "image": f"registry.example/app-{workload}:1.0", "imagePullPolicy": "IfNotPresent",
        "env": [{"name": f"SETTING_{index}", "value": "x" * 40} for index in range(8)],
        "resources": {"limits": {"memory": "256Mi"}, "requests": {"cpu": "50m", "memory": "128Mi"}},
        "volumeMounts": [{"name": "tmp", "mountPath": "/tmp"}],
    }  # fmt: skip
    fields: Object = {f"f:field-{index}": {".": {}, "f:value": {}} for index in range(40)}
    return {
        "metadata": {
            "name": f"app-{workload}-{hash_}-{number:05}", "namespace": namespace,
            "labels": {"app": f"app-{workload}", "pod-template-hash": hash_},
            "ownerReferences": [{"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": f"app-{workload}-{hash_}",
                                 "uid": f"uid-{workload}", "controller": True}],
            "managedFields": [{"manager": "kube-controller-manager", "operation": "Update", "apiVersion": "v1",
                               "fieldsType": "FieldsV1", "fieldsV1": fields}],
        },
        "spec": {"containers": [container], "volumes": [{"name": "tmp", "emptyDir": {}}], "serviceAccountName": "app"},
        "status": {"phase": "Running", "podIP": "10.0.0.1", "conditions": [{"type": "Ready", "status": "True"}] * 5},
    }  # fmt: skip


def put_shop(sandbox: Sandbox) -> None:
    """A small cluster with a finding of every sort, for docs/cluster-audit.md; the nodes are there already."""
    for plural, objects in _SHOP.items():
        for one in objects:
            sandbox.call(lambda plural=plural, one=one: sandbox._seed(plural, one))  # type: ignore[misc]


def _of(kind: str, name: str, namespace: str, pod: str, labels: Object, spec: Object) -> Object:  # noqa: PLR0917
    owner = {"apiVersion": "apps/v1", "kind": kind, "name": name, "uid": f"uid-{name}", "controller": True}
    meta = {"name": pod, "namespace": namespace, "labels": labels, "ownerReferences": [owner]}
    return {"metadata": meta, "spec": {"automountServiceAccountToken": False, **spec}}


def _binding(name: str, role: str, kind: str, subject: str, namespace: str = "") -> Object:
    group = {"namespace": namespace} if namespace else {"apiGroup": "rbac.authorization.k8s.io"}
    reference = {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role}
    return {"metadata": {"name": name}, "subjects": [{"kind": kind, "name": subject, **group}], "roleRef": reference}


_GOOD: Object = {
    "allowPrivilegeEscalation": False, "runAsNonRoot": True, "capabilities": {"drop": ["ALL"]},
    "seccompProfile": {"type": "RuntimeDefault"},
}  # fmt: skip
_EXPORTER: Object = {
    "hostPID": True, "hostNetwork": True, "serviceAccountName": "node-exporter",
    "containers": [{"name": "exporter", "image": "exporter:1", "securityContext": _GOOD,
                    "volumeMounts": [{"name": "root", "mountPath": "/host", "readOnly": True}]}],
    "volumes": [{"name": "root", "hostPath": {"path": "/"}}],
}  # fmt: skip
_SHOP: dict[str, list[Object]] = {
    "namespaces": [
        {"metadata": {"name": "shop", "labels": {"pod-security.kubernetes.io/enforce": "restricted"}}},
        {"metadata": {"name": "monitoring"}},
    ],
    "serviceaccounts": [
        {"metadata": {"name": name, "namespace": namespace, "labels": labels}, "automountServiceAccountToken": False}
        for namespace, name, labels in (
            ("shop", "web", {}), ("monitoring", "node-exporter", {}),
            ("monitoring", "dashboard", {"helm.sh/chart": "dashboard-7.3.0"}),
        )
    ],
    "pods": [
        *(_of("ReplicaSet", "web-6c9f", "shop", f"web-6c9f-{number}", {"app": "web", "pod-template-hash": "6c9f"},
              {"containers": [{"name": "web", "image": "web:1", "securityContext": _GOOD}],
               "serviceAccountName": "web"})
          for number in range(2)),
        *(_of("DaemonSet", "node-exporter", "monitoring", f"node-exporter-{number}", {"app": "exporter"}, _EXPORTER)
          for number in range(3)),
    ],
    "networkpolicies": [_in("shop", "all", spec={"podSelector": {}, "policyTypes": ["Ingress", "Egress"]})],
    "resourcequotas": [_in("shop", "all", spec={"hard": {"cpu": "8", "memory": "16Gi", "pods": "40",
                                                         "services.nodeports": "0", "services.loadbalancers": "1"}})],
    "clusterroles": [
        {"metadata": {"name": "dashboard"},
         "rules": [{"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"]}]}],
    "clusterrolebindings": [
        _binding("ops", "cluster-admin", "User", "alice@example.org"),
        _binding("dashboard", "dashboard", "ServiceAccount", "dashboard", "monitoring"),
    ],
    "secrets": [{"metadata": {"name": "ci-token", "namespace": "shop", "creationTimestamp": "2025-01-01T00:00:00Z",
                              "annotations": {"kubernetes.io/service-account.name": "web"}},
                 "type": "kubernetes.io/service-account-token"}],
}  # fmt: skip
