"""Deployments, ReplicaSets, DaemonSets and a scheduler, as small as drains need them: what is evicted comes back.

A changed template replaces a Deployment's pods together, and a DaemonSet's as its updateStrategy has it: the next one
once those before are Ready. No history, no preferences: a pod goes to the Ready and schedulable node with the fewest
pods.
"""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Collection

from agent.sandbox.builders import owner_reference
from agent.sandbox.catalog import Resource
from agent.sandbox.deletion import DeleteOptions
from agent.sandbox.disruption import share
from agent.sandbox.objects import at, is_ready
from agent.sandbox.reconcile import Controller
from agent.sandbox.registry import Registry, WriteOptions
from agent.sandbox.status_errors import ApiError, Object
from agent.sandbox.store import Item

_REVISION = "controller-revision-hash"
_DAEMON_TOLERATIONS: list[Object] = [
    {"key": f"node.kubernetes.io/{name}", "operator": "Exists"}
    for name in ("not-ready", "unreachable", "unschedulable", "disk-pressure", "memory-pressure", "pid-pressure")
]


class Workloads(Controller):
    """Reconciles all workloads and pending pods when anything around them changed."""

    def __init__(self, registry: Registry) -> None:
        """Nothing runs before ``start``."""
        named = registry.catalog.named
        self._pods, self._nodes = named("pods"), named("nodes")
        self._sets, self._daemons = named("replicasets"), named("daemonsets")
        self._deployments = named("deployments")
        super().__init__(registry, [self._pods, self._nodes, self._sets, self._daemons, self._deployments])

    def reconcile(self) -> None:
        """The workloads in order of ownership, then the pods that have no node."""
        store = self._registry.store
        owned: dict[str, list[Item]] = {}
        for _, pod in store.scan(self._pods):
            for owner in pod.meta.get("ownerReferences") or []:
                if owner.get("controller"):
                    owned.setdefault(owner["uid"], []).append(pod)
        for _, item in list(store.scan(self._deployments)):
            self._deployment(item)
        for _, item in list(store.scan(self._sets)):
            self._replicaset(item, owned.get(item.meta["uid"], []))
        for _, item in list(store.scan(self._daemons)):
            self._daemonset(item, owned.get(item.meta["uid"], []))
        self._schedule()

    def _deployment(self, item: Item) -> None:
        if "deletionTimestamp" in item.meta:
            return
        mine = [
            found
            for _, found in self._registry.store.scan(self._sets, item.meta["namespace"])
            if any(owner.get("uid") == item.meta["uid"] for owner in found.meta.get("ownerReferences") or [])
        ]
        spec = item.obj["spec"]
        if not mine:
            child: Object = {
                "metadata": {
                    "generateName": f"{item.meta['name']}-",
                    "labels": spec["template"].get("metadata", {}).get("labels", {}),
                    "ownerReferences": [owner_reference(self._deployments.typed(item.obj))],
                },
                "spec": {key: copy.deepcopy(spec[key]) for key in ("selector", "template", "replicas") if key in spec},
            }
            self._create(self._sets, item.meta["namespace"], child)
            return
        head = mine[0]
        if head.obj["spec"].get("template") != spec["template"]:
            self._registry.delete(self._sets, item.meta["namespace"], head.meta["name"], DeleteOptions())
            return
        if head.obj["spec"].get("replicas") != spec.get("replicas"):
            desired = {**head.obj["spec"], "replicas": spec.get("replicas", 1)}
            self._registry.write(self._sets, {**head.obj, "spec": desired})
        ready, count = at(head.obj, "status.readyReplicas", 0), at(head.obj, "status.replicas", 0)
        status = {
            "observedGeneration": item.meta.get("generation", 0), "replicas": count, "updatedReplicas": count,
            "readyReplicas": ready, "availableReplicas": ready,
        }  # fmt: skip
        self._registry.write(self._deployments, {**item.obj, "status": status})

    def _replicaset(self, item: Item, pods: list[Item]) -> None:
        live = [pod for pod in pods if "deletionTimestamp" not in pod.meta and not _finished(pod)]
        desired = item.obj["spec"].get("replicas", 1)
        if "deletionTimestamp" not in item.meta:
            for _ in range(desired - len(live)):
                self._create(self._pods, item.meta["namespace"], _pod(item, self._sets))
            for pod in live[desired:]:
                self._registry.delete(self._pods, pod.meta["namespace"], pod.meta["name"], DeleteOptions())
        ready = sum(1 for pod in live if is_ready(pod.obj))
        status = {
            "observedGeneration": item.meta.get("generation", 0), "replicas": len(live),
            "fullyLabeledReplicas": len(live), "readyReplicas": ready, "availableReplicas": ready,
        }  # fmt: skip
        self._registry.write(self._sets, {**item.obj, "status": status})

    def _daemonset(self, item: Item, pods: list[Item]) -> None:
        selector = at(item.obj, "spec.template.spec.nodeSelector", {})
        tolerations = [*at(item.obj, "spec.template.spec.tolerations", []), *_DAEMON_TOLERATIONS]
        homes = {pod.obj["spec"].get("nodeName"): pod for pod in pods if not _finished(pod)}
        template = json.dumps(item.obj["spec"].get("template"), sort_keys=True)
        revision = hashlib.sha256(template.encode()).hexdigest()[:10]
        nodes = [node for _, node in self._registry.store.scan(self._nodes)]
        hosts = [node.meta["name"] for node in nodes if _fits(node.obj, selector, tolerations)]
        for name in hosts:
            if name not in homes and "deletionTimestamp" not in item.meta:
                body = _pod(item, self._daemons)
                body["metadata"]["labels"] = {**body["metadata"]["labels"], _REVISION: revision}
                body["spec"] = {**body["spec"], "nodeName": name, "tolerations": tolerations}
                self._create(self._pods, item.meta["namespace"], body)
        old = [pod for pod in homes.values() if at(pod.obj, f"metadata.labels.{_REVISION}", revision) != revision]
        if "deletionTimestamp" not in item.meta:
            self._replace(item, old, len(hosts), sum(_available(homes[name]) for name in hosts if name in homes))
        ready = sum(1 for pod in homes.values() if is_ready(pod.obj))
        status = {
            "observedGeneration": item.meta.get("generation", 0), "desiredNumberScheduled": len(hosts),
            "currentNumberScheduled": len(homes), "numberMisscheduled": 0, "numberReady": ready,
            "updatedNumberScheduled": len(homes) - len(old), "numberAvailable": ready,
        }  # fmt: skip
        self._registry.write(self._daemons, {**item.obj, "status": status})

    def _replace(self, item: Item, old: Collection[Item], desired: int, available: int) -> None:
        """Pods of an earlier template: those that are not available in any case, others as maxUnavailable allows.

        https://kubernetes.io/docs/tasks/manage-daemon/update-daemon-set/
        """
        if at(item.obj, "spec.updateStrategy.type") == "OnDelete":
            return
        most = share(at(item.obj, "spec.updateStrategy.rollingUpdate.maxUnavailable", 1), desired)
        for pod in old:
            if "deletionTimestamp" in pod.meta or (_available(pod) and desired - available >= most):
                continue
            available -= _available(pod)
            self._registry.delete(self._pods, pod.meta["namespace"], pod.meta["name"], DeleteOptions())

    def _schedule(self) -> None:
        pending = []
        load: dict[str, int] = {}
        for _, pod in self._registry.store.scan(self._pods):
            home = pod.obj["spec"].get("nodeName", "")
            if home:
                load[home] = load.get(home, 0) + 1
            elif "deletionTimestamp" not in pod.meta:
                pending.append(pod)
        if not pending:
            return
        nodes = [node.obj for _, node in self._registry.store.scan(self._nodes)]
        for pod in pending:
            spec = pod.obj["spec"]
            fitting = [
                node["metadata"]["name"]
                for node in nodes
                if is_ready(node)
                and not at(node, "spec.unschedulable")
                and _fits(node, spec.get("nodeSelector") or {}, spec.get("tolerations") or [])
            ]
            if fitting:
                home = min(fitting, key=lambda name: (load.get(name, 0), name))
                load[home] = load.get(home, 0) + 1
                self._registry.write(self._pods, {**pod.obj, "spec": {**spec, "nodeName": home}})

    def _create(self, resource: Resource, namespace: str, obj: Object) -> None:
        try:
            self._registry.create(resource, namespace, obj, WriteOptions())
        except ApiError as error:
            # A namespace that is going takes no new pods; the next change tries again.
            if error.code not in (403, 404):
                raise


def _pod(owner: Item, resource: Resource) -> Object:
    template = copy.deepcopy(owner.obj["spec"].get("template") or {})
    meta = {
        "generateName": f"{owner.meta['name']}-",
        "labels": at(template, "metadata.labels", {}),
        "annotations": at(template, "metadata.annotations", {}),
        "ownerReferences": [owner_reference(resource.typed(owner.obj))],
    }
    return {"metadata": meta, "spec": template.get("spec") or {}}


def _available(pod: Item) -> bool:
    return is_ready(pod.obj) and "deletionTimestamp" not in pod.meta


def _finished(pod: Item) -> bool:
    return at(pod.obj, "status.phase") in ("Succeeded", "Failed")


def _fits(node: Object, selector: Object, tolerations: list[Object]) -> bool:
    labels = at(node, "metadata.labels", {})
    if any(labels.get(key) != value for key, value in selector.items()):
        return False
    taints = at(node, "spec.taints", [])
    return all(
        taint.get("effect") == "PreferNoSchedule" or any(_tolerates(item, taint) for item in tolerations)
        for taint in taints
    )


def _tolerates(toleration: Object, taint: Object) -> bool:
    if toleration.get("effect") not in (None, "", taint.get("effect")):
        return False
    if toleration.get("operator") == "Exists":
        return toleration.get("key", "") in ("", taint.get("key"))
    return toleration.get("key") == taint.get("key") and toleration.get("value", "") == taint.get("value", "")
