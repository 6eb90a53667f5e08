"""The emulated kubelets: heartbeats, pods that start and end, boot ids that change, silence when they are stopped.

One instance stands for the kubelets of all nodes. It runs no containers and judges nothing; it writes what a kubelet
would write.
"""

from __future__ import annotations

import asyncio
import uuid
from typing import Any

from agent.sandbox import builders
from agent.sandbox.deletion import DeleteOptions
from agent.sandbox.objects import at, is_ready, with_condition
from agent.sandbox.registry import Registry
from agent.sandbox.settings import KubeletSettings
from agent.sandbox.status_errors import Object
from agent.sandbox.store import Change, ChangeType, Item
from agent.sandbox.strategy import for_create, stamp

_NOW = DeleteOptions(grace_seconds=0)


class Kubelets:
    """Used from the event loop's thread."""

    def __init__(self, registry: Registry, settings: KubeletSettings) -> None:
        """Nothing happens before ``start``."""
        self._registry = registry
        self._settings = settings
        self._nodes = registry.catalog.named("nodes")
        self._pods = registry.catalog.named("pods")
        self._leases = registry.catalog.named("leases")
        self._stopped: set[str] = set()
        self._beat: asyncio.TimerHandle | None = None
        self._timers: set[asyncio.TimerHandle] = set()
        self._closers: list[Any] = []

    def start(self) -> None:
        """Begin to look after nodes and pods."""
        if not self._settings.enabled:
            return
        store = self._registry.store
        self._closers = [store.listen(self._pods, self._pod_changed), store.listen(self._nodes, self._node_changed)]
        if self._settings.heartbeat_seconds > 0:
            self._heartbeat()

    def close(self) -> None:
        """Stop everything."""
        for closer in self._closers:
            closer()
        for timer in self._timers:
            timer.cancel()
        if self._beat is not None:
            self._beat.cancel()

    def running(self, node: str) -> bool:
        """Whether the node's kubelet is up."""
        return self._settings.enabled and node not in self._stopped

    def silence(self, node: str) -> None:
        """Stop one kubelet: no heartbeats, no pod starts or ends."""
        self._stopped.add(node)

    def resume(self, node: str) -> None:
        """Start it again: it posts Ready, renews its lease and sees to its pods."""
        self._stopped.discard(node)
        item = self._registry.store.get(self._nodes, ("", node))
        if item is not None:
            self._post_ready(item)
            self._renew(item)
        for _, pod in self._registry.store.scan(self._pods):
            if at(pod.obj, "spec.nodeName") == node:
                self._see(pod)

    def set_boot_id(self, node: str, boot_id: str = "", kernel: str = "") -> str:
        """What the kubelet reports about the machine's boot; an empty id makes a new one. The id is returned.

        Raises ApiError: 404.
        """
        item = self._registry.get(self._nodes, "", node)
        status = item.obj.get("status") or {}
        info = dict(status.get("nodeInfo") or {})
        info["bootID"] = boot_id or str(uuid.uuid4())
        if kernel:
            info["kernelVersion"] = kernel
        self._registry.write(self._nodes, {**item.obj, "status": {**status, "nodeInfo": info}})
        return str(info["bootID"])

    def reboot(self, node: str, down_seconds: float, boot_id: str = "", kernel: str = "") -> None:
        """The machine goes down now and comes back with another boot id; its containers start again.

        Raises ApiError: 404.
        """
        self._registry.get(self._nodes, "", node)
        self.silence(node)

        def back() -> None:
            if self._registry.store.get(self._nodes, ("", node)) is not None:
                self.set_boot_id(node, boot_id, kernel)
                self._restart_containers(node)
                self.resume(node)

        self._later(down_seconds, back)

    def _later(self, seconds: float, action: Any, *args: Any) -> None:
        loop = asyncio.get_running_loop()

        def fire() -> None:
            self._timers.discard(timer)
            action(*args)

        timer = loop.call_later(seconds, fire)
        self._timers.add(timer)

    def _heartbeat(self) -> None:
        for _, item in list(self._registry.store.scan(self._nodes)):
            if item.meta["name"] not in self._stopped:
                self._renew(item)
        loop = asyncio.get_running_loop()
        self._beat = loop.call_later(self._settings.heartbeat_seconds, self._heartbeat)

    def _renew(self, node: Item) -> None:
        if self._settings.heartbeat_seconds <= 0:
            return
        name, now = node.meta["name"], self._registry.clock()
        desired = builders.node_lease(name, node.meta["uid"], now)
        stored = self._registry.store.get(self._leases, ("kube-node-lease", name))
        if stored is None:
            self._registry.write(self._leases, for_create(desired, self._leases, now))
        else:
            self._registry.write(self._leases, {**stored.obj, "spec": desired["spec"]})

    def _post_ready(self, node: Item) -> None:
        if not is_ready(node.obj):
            ready = builders.ready_condition(self._registry.clock())
            self._registry.write(self._nodes, with_condition(node.obj, ready))

    def _node_changed(self, change: Change) -> None:
        if change.type is ChangeType.ADDED and change.key[1] not in self._stopped:
            self._renew(change.item)

    def _pod_changed(self, change: Change) -> None:
        if change.type is not ChangeType.DELETED:
            self._see(change.item)

    def _see(self, pod: Item) -> None:
        node = at(pod.obj, "spec.nodeName", "")
        if not node or not self.running(node):
            return
        key, uid = (pod.meta["namespace"], pod.meta["name"]), pod.meta["uid"]
        if "deletionTimestamp" in pod.meta:
            grace = pod.meta.get("deletionGracePeriodSeconds", 0)
            self._later(min(grace, self._settings.termination_seconds), self._end_pod, key, uid)
        elif at(pod.obj, "status.phase") == "Pending":
            self._later(self._settings.start_seconds, self._start_pod, key, uid)

    def _mine(self, key: tuple[str, str], uid: str) -> Item | None:
        pod = self._registry.store.get(self._pods, key)
        if pod is None or pod.meta["uid"] != uid:
            return None
        return pod if self.running(at(pod.obj, "spec.nodeName", "")) else None

    def _end_pod(self, key: tuple[str, str], uid: str) -> None:
        pod = self._mine(key, uid)
        if pod is not None and (pod.meta.get("deletionGracePeriodSeconds", 0) > 0 or not pod.meta.get("finalizers")):
            self._registry.delete(self._pods, *key, _NOW)

    def _start_pod(self, key: tuple[str, str], uid: str) -> None:
        pod = self._mine(key, uid)
        if pod is None or "deletionTimestamp" in pod.meta or pod.obj["status"].get("phase") != "Pending":
            return
        self._registry.write(self._pods, running_pod(pod.obj, stamp(self._registry.clock())))

    def _restart_containers(self, node: str) -> None:
        for _, pod in list(self._registry.store.scan(self._pods)):
            containers = [
                {**item, "restartCount": item.get("restartCount", 0) + 1}
                for item in at(pod.obj, "status.containerStatuses", [])
            ]
            if containers and at(pod.obj, "spec.nodeName") == node:
                status = {**pod.obj["status"], "containerStatuses": containers}
                self._registry.write(self._pods, {**pod.obj, "status": status})


def running_pod(pod: Object, moment: str) -> Object:
    """The pod as its kubelet shows it once its containers run."""
    kinds = ("PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled")
    conditions = [{"type": kind, "status": "True", "lastTransitionTime": moment} for kind in kinds]
    containers = [
        {
            "name": item.get("name", ""), "image": item.get("image", ""), "imageID": "", "ready": True,
            "started": True, "restartCount": 0, "state": {"running": {"startedAt": moment}}, "lastState": {},
        }
        for item in pod["spec"].get("containers") or []
    ]  # fmt: skip
    status = {
        **(pod.get("status") or {}), "phase": "Running", "conditions": conditions, "containerStatuses": containers,
        "hostIP": "127.0.0.1", "podIP": "10.244.0.2", "podIPs": [{"ip": "10.244.0.2"}], "startTime": moment,
    }  # fmt: skip
    return {**pod, "status": status}
