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
    fields = {f"f:field-{index}": {".": {}, "f:value": {}} for index in range(40)}
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
