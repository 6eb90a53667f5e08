"""Objects to fill a sandbox with, as a kubelet or a user would create them: plain dictionaries, nothing stored.

They are complete enough for kubectl to print them without gaps.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from agent.sandbox.status_errors import Object
from agent.sandbox.strategy import micro_stamp, stamp

KUBELET_VERSION = "v1.32.4"
KERNEL = "6.1.0-25-cloud-amd64"


def condition(kind: str, status: str, reason: str, message: str, now: datetime) -> Object:
    """A node's or a pod's condition that changed just now."""
    return {
        "type": kind, "status": status, "lastHeartbeatTime": stamp(now), "lastTransitionTime": stamp(now),
        "reason": reason, "message": message,
    }  # fmt: skip


def ready_condition(now: datetime) -> Object:
    """The Ready condition that a healthy kubelet reports."""
    return condition("Ready", "True", "KubeletReady", "kubelet is posting ready status", now)


def node(
    name: str,
    now: datetime,
    *,
    boot_id: str = "",
    labels: Mapping[str, str] | None = None,
    kernel: str = KERNEL,
    control_plane: bool = False,
) -> Object:
    """A Ready node with the usual labels, addresses and nodeInfo."""
    known = {
        "kubernetes.io/hostname": name, "kubernetes.io/os": "linux", "kubernetes.io/arch": "amd64",
        "beta.kubernetes.io/os": "linux", "beta.kubernetes.io/arch": "amd64",
    }  # fmt: skip
    if control_plane:
        known["node-role.kubernetes.io/control-plane"] = ""
    pressures = [
        condition(kind, "False", f"KubeletHas{word}", f"kubelet has {words}", now)
        for kind, word, words in (
            ("MemoryPressure", "SufficientMemory", "sufficient memory available"),
            ("DiskPressure", "NoDiskPressure", "no disk pressure"),
            ("PIDPressure", "SufficientPID", "sufficient PID available"),
        )
    ]
    size = {"cpu": "2", "memory": "4Gi", "ephemeral-storage": "20Gi", "pods": "110"}
    return {
        "kind": "Node",
        "apiVersion": "v1",
        "metadata": {"name": name, "labels": {**known, **(labels or {})}, "annotations": {}},
        "spec": {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24"]},
        "status": {
            "capacity": size,
            "allocatable": size,
            "conditions": [*pressures, ready_condition(now)],
            "addresses": [{"type": "InternalIP", "address": "127.0.0.1"}, {"type": "Hostname", "address": name}],
            "daemonEndpoints": {"kubeletEndpoint": {"Port": 10250}},
            "nodeInfo": {
                "machineID": uuid.uuid4().hex, "systemUUID": str(uuid.uuid4()), "bootID": boot_id or str(uuid.uuid4()),
                "kernelVersion": kernel, "osImage": "Debian GNU/Linux 12 (bookworm)",
                "containerRuntimeVersion": "containerd://1.7.24", "kubeletVersion": KUBELET_VERSION,
                "kubeProxyVersion": "", "operatingSystem": "linux", "architecture": "amd64",
            },
        },
    }  # fmt: skip


def node_lease(name: str, uid: str, now: datetime) -> Object:
    """The heartbeat of a node, in kube-node-lease."""
    owner = {"apiVersion": "v1", "kind": "Node", "name": name, "uid": uid}
    return {
        "metadata": {"name": name, "namespace": "kube-node-lease", "ownerReferences": [owner]},
        "spec": {"holderIdentity": name, "leaseDurationSeconds": 40, "renewTime": micro_stamp(now)},
    }


def kubeconfig(url: str, token: str, ca: Path | None) -> Object:
    """A kubeconfig. ca: a file, where the server speaks https."""
    cluster = {"server": url} if ca is None else {"server": url, "certificate-authority": str(ca)}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "sandbox", "cluster": cluster}],
        "users": [{"name": "sandbox", "user": {"token": token}}],
        "contexts": [{"name": "sandbox", "context": {"cluster": "sandbox", "user": "sandbox"}}],
        "current-context": "sandbox",
    }


def owner_reference(owner: Object) -> Object:
    """A controlling owner; ``owner`` needs kind, apiVersion and stored metadata."""
    return {
        "apiVersion": owner["apiVersion"], "kind": owner["kind"], "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"], "controller": True, "blockOwnerDeletion": True,
    }  # fmt: skip


def pod(
    name: str,
    *,
    namespace: str = "default",
    node: str = "",
    labels: Mapping[str, str] | None = None,
    owner: Object | None = None,
    grace_seconds: int = 30,
) -> Object:
    """A pod of one container; it runs once an emulated kubelet sees it on its node."""
    meta: Object = {"name": name, "namespace": namespace, "labels": dict(labels or {})}
    if owner is not None:
        meta["ownerReferences"] = [owner_reference(owner)]
    spec: Object = {
        "containers": [{"name": "main", "image": "registry.invalid/main:1"}],
        "terminationGracePeriodSeconds": grace_seconds,
    }
    if node:
        spec["nodeName"] = node
    return {"kind": "Pod", "apiVersion": "v1", "metadata": meta, "spec": spec}


def workload(
    kind: str,
    name: str,
    *,
    namespace: str = "default",
    replicas: int = 1,
    grace_seconds: int = 30,
    tolerations: list[Object] | None = None,
) -> Object:
    """A ReplicaSet, Deployment, StatefulSet or DaemonSet whose pods carry ``app: NAME``."""
    labels = {"app": name}
    template_spec: Object = {
        "containers": [{"name": "main", "image": "registry.invalid/main:1"}],
        "terminationGracePeriodSeconds": grace_seconds,
    }
    if tolerations:
        template_spec["tolerations"] = tolerations
    spec: Object = {
        "selector": {"matchLabels": labels},
        "template": {"metadata": {"labels": labels}, "spec": template_spec},
    }
    if kind != "DaemonSet":
        spec["replicas"] = replicas
    return {"kind": kind, "apiVersion": "apps/v1", "metadata": {"name": name, "namespace": namespace}, "spec": spec}


def budget(
    name: str,
    labels: Mapping[str, str],
    *,
    namespace: str = "default",
    min_available: int | str | None = None,
    max_unavailable: int | str | None = None,
) -> Object:
    """A PodDisruptionBudget over pods with these labels."""
    spec: Object = {"selector": {"matchLabels": dict(labels)}}
    if min_available is not None:
        spec["minAvailable"] = min_available
    if max_unavailable is not None:
        spec["maxUnavailable"] = max_unavailable
    return {
        "kind": "PodDisruptionBudget",
        "apiVersion": "policy/v1",
        "metadata": {"name": name, "namespace": namespace},
        "spec": spec,
    }
