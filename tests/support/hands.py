"""What a bare kube-apiserver lacks, done by hand: kubelets, a ReplicaSet's pods, a disruption budget's status.

It refuses to touch nodes that it did not make.
"""

from __future__ import annotations

import threading
import time
import uuid
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, Self

from agent.sandbox import builders
from agent.sandbox.kubelet import running_pod
from agent.sandbox.strategy import micro_stamp, stamp
from tests.support.apiservers import ApiServer, Client

Object = dict[str, Any]
_EVERY_SECONDS = 0.15
_NODE_LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-node-lease/leases"
_PDBS = "/apis/policy/v1/namespaces/default/poddisruptionbudgets"
_PODS = "/api/v1/namespaces/default/pods"


class Hands:
    """MachineContext of machines on a real API server; a context manager."""

    def __init__(self, api: ApiServer) -> None:
        """Nothing moves before it is entered."""
        self.url = api.url
        self.token = api.token
        self._client: Client = api.client()
        self._kubelets: Client = api.client()
        self._lock = threading.Lock()
        self._down: dict[str, tuple[float, str, str]] = {}
        self._nodes: list[str] = []
        self._replicas = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        """Begins."""
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends, and takes away what it made."""
        self._stop.set()
        self._thread.join(10)
        for path in (_PODS, _PDBS):
            self._client.request("DELETE", path, json={"gracePeriodSeconds": 0})
        for node in self._nodes:
            self._client.delete(f"/api/v1/nodes/{node}")
        self._client.close()
        self._kubelets.close()

    def add_node(self, name: str) -> None:
        """A Ready node without taints, and its heartbeat."""
        now = datetime.now(UTC)
        made = self._client.post("/api/v1/nodes", builders.node(name, now))
        assert made.status_code == 201, made.text
        self._client.patch(f"/api/v1/nodes/{name}", {"spec": {"taints": None}})
        self._client.post(_NODE_LEASES, builders.node_lease(name, made.json()["metadata"]["uid"], now))
        with self._lock:
            self._nodes.append(name)

    def add_web(self, replicas: int) -> None:
        """Pods `app: web` on the nodes in turn, kept at this number, under a budget that lets one go at a time."""
        self._client.post(_PDBS, builders.budget("web", {"app": "web"}, max_unavailable=1))
        with self._lock:
            self._replicas = replicas

    def set_boot_id(self, node: str, boot_id: str = "", kernel: str = "") -> str:
        """See machines.MachineContext."""
        boot_id = boot_id or str(uuid.uuid4())
        info = {"bootID": boot_id, **({"kernelVersion": kernel} if kernel else {})}
        status = {"nodeInfo": info, "conditions": [builders.ready_condition(datetime.now(UTC))]}
        self._client.patch(f"/api/v1/nodes/{node}/status", {"status": status}, "strategic")
        return boot_id

    def reboot(self, node: str, down_seconds: float, boot_id: str = "", kernel: str = "") -> None:
        """See machines.MachineContext."""
        with self._lock:
            self._down[node] = (time.monotonic() + down_seconds, boot_id, kernel)

    def stop_kubelet(self, node: str) -> None:
        """Its heartbeats end, and as a node controller would this says that nobody knows how it is."""
        with self._lock:
            self._down[node] = (float("inf"), "", "")
        self._say(node, status="Unknown", reason="NodeStatusUnknown")

    def start_kubelet(self, node: str) -> None:
        """It is Ready again."""
        self._say(node)
        with self._lock:
            self._down.pop(node, None)

    def _say(self, node: str, **ready: str) -> None:
        condition = {**builders.ready_condition(datetime.now(UTC)), **ready}
        answer = self._client.patch(
            f"/api/v1/nodes/{node}/status", {"status": {"conditions": [condition]}}, "strategic"
        )
        assert answer.status_code == 200, answer.text

    def _run(self) -> None:
        while not self._stop.wait(_EVERY_SECONDS):
            with self._lock:
                back = [(node, *what) for node, (at, *what) in self._down.items() if at < time.monotonic()]
                for node, _, _ in back:
                    del self._down[node]
                up = [node for node in self._nodes if node not in self._down]
            for node, boot, kernel in back:
                self.set_boot_id(node, boot, kernel)
            for node in up:
                renewed = {"spec": {"renewTime": micro_stamp(datetime.now(UTC))}}
                self._kubelets.patch(f"{_NODE_LEASES}/{node}", renewed)
            if self._replicas and up:
                self._see_to_pods(up)

    def _see_to_pods(self, up: list[str]) -> None:
        pods: list[Object] = self._kubelets.get(_PODS).json()["items"]
        for pod in [one for one in pods if "deletionTimestamp" in one["metadata"] and one["spec"]["nodeName"] in up]:
            self._kubelets.delete(f"{_PODS}/{pod['metadata']['name']}", {"gracePeriodSeconds": 0})
        alive = [one for one in pods if "deletionTimestamp" not in one["metadata"]]
        if len(alive) < self._replicas:
            self._make_pod(up, [one["spec"]["nodeName"] for one in alive])
        healthy = sum(one.get("status", {}).get("phase") == "Running" for one in alive)
        wanted = self._replicas - 1
        status = {
            "currentHealthy": healthy, "desiredHealthy": wanted, "expectedPods": self._replicas,
            "disruptionsAllowed": max(0, healthy - wanted), "disruptedPods": {},
        }  # fmt: skip
        for budget in self._kubelets.get(_PDBS).json()["items"]:
            known = budget.get("status", {})
            told = {**status, "observedGeneration": budget["metadata"]["generation"]}
            if {key: known.get(key, {}) for key in told} != told:
                path = f"{_PDBS}/{budget['metadata']['name']}/status"
                self._kubelets.put(path, {**budget, "status": told})

    def _make_pod(self, up: list[str], taken: list[str]) -> None:
        """On the node with the fewest, among those that take pods."""
        nodes = self._kubelets.get("/api/v1/nodes").json()["items"]
        open_ones = [one["metadata"]["name"] for one in nodes if not one["spec"].get("unschedulable")]
        places = sorted((taken.count(node), node) for node in up if node in open_ones)
        if not places:
            return
        pod = builders.pod(f"web-{uuid.uuid4().hex[:6]}", node=places[0][1], labels={"app": "web"}, grace_seconds=1)
        owner = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "web-uid", "controller": True}
        pod["metadata"]["ownerReferences"] = [owner]
        made = self._kubelets.post(_PODS, pod)
        if made.status_code == 201:
            path = f"{_PODS}/{pod['metadata']['name']}/status"
            status = running_pod(made.json(), stamp(datetime.now(UTC)))["status"]
            self._kubelets.patch(path, {"status": status}, "strategic")
