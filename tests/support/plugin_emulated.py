"""A staged fleet's objects on an emulator in which nothing moves by itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from agent.sandbox import builders
from agent.sandbox.server import Sandbox
from tests.support.plugin_daemons import NAMESPACE

Object = dict[str, Any]
_RUNNING = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
_PLACES = (
    ("nodes", ""), ("leases", NAMESPACE), ("configmaps", NAMESPACE), ("pods", NAMESPACE), ("daemonsets", NAMESPACE),
    ("pods", "shop"), ("poddisruptionbudgets", "shop"),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Agent:
    """The agent's pod on one node."""

    ready: bool
    crashing: bool


@dataclass(frozen=True, slots=True)
class Objects:
    """What a fleet consists of. agents: by node. held: pods are there whose disruption budget lets none go."""

    nodes: Sequence[Object]
    leases: Sequence[Object]
    pause: Object
    policy: str
    agents: Mapping[str, Agent]
    held: bool


def put(sandbox: Sandbox, objects: Objects) -> None:
    """Everything; another stage's objects are replaced."""
    for plural, namespace in _PLACES:
        for found in sandbox.list(plural, namespace):
            sandbox.delete(plural, found["metadata"]["name"], namespace)
    if sandbox.get("namespaces", NAMESPACE) is None:
        sandbox.create("namespaces", {"metadata": {"name": NAMESPACE}})
    for wanted in objects.nodes:
        name = wanted["metadata"]["name"]
        sandbox.add_node(name)
        sandbox.update("nodes", name, becomes(wanted))
    for name, agent in objects.agents.items():
        _add_pod(sandbox, name, agent)
    for lease in objects.leases:
        sandbox.create("leases", lease, NAMESPACE)
    if objects.pause:
        sandbox.create("configmaps", objects.pause, NAMESPACE)
    if objects.held:
        _add_shop(sandbox, [node["metadata"]["name"] for node in objects.nodes])
    config = {"metadata": {"name": "node-hardening-config"}, "data": {"config.yaml": objects.policy}}
    sandbox.create("configmaps", config, NAMESPACE)
    sandbox.create("daemonsets", builders.workload("DaemonSet", "node-hardening-agent", namespace=NAMESPACE))
    ready = sum(agent.ready for agent in objects.agents.values())
    status = {"desiredNumberScheduled": len(objects.nodes), "numberReady": ready}
    sandbox.update("daemonsets", "node-hardening-agent", lambda found: found.update(status=status), NAMESPACE)


def _add_pod(sandbox: Sandbox, node: str, agent: Agent) -> None:
    labels = {"app.kubernetes.io/name": "node-hardening-agent"}
    name = f"node-hardening-agent-{node.rpartition('-')[2]:0>5}"
    sandbox.create("pods", builders.pod(name, namespace=NAMESPACE, node=node, labels=labels))
    state: Object = {"running": {"startedAt": "2026-11-10T22:00:00Z"}}
    if agent.crashing:
        state = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m0s restarting failed container"}}

    def becomes_ready(pod: Object) -> None:
        restarts = 0 if agent.ready else 7
        container = {"name": "agent", "ready": agent.ready, "restartCount": restarts, "state": state}
        pod["status"] = {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True" if agent.ready else "False"}],
            "containerStatuses": [container],
        }

    sandbox.update("pods", name, becomes_ready, NAMESPACE)


def _add_shop(sandbox: Sandbox, nodes: Sequence[str]) -> None:
    """A pod on each node under a budget that lets none go, and one that goes."""
    if sandbox.get("namespaces", "shop") is None:
        sandbox.create("namespaces", {"metadata": {"name": "shop"}})
    owner = {"kind": "ReplicaSet", "apiVersion": "apps/v1", "metadata": {"name": "web", "uid": "uid-web"}}
    for name in nodes:
        for pod, labels in ((f"web-{name}-0", {"app": "web"}), (f"job-{name}-0", {"app": "job"})):
            made = builders.pod(pod, namespace="shop", node=name, labels=labels, owner=owner)
            sandbox.create("pods", made, "shop")
            sandbox.update("pods", pod, lambda found: found.update(status=_RUNNING), "shop")
    budget = builders.budget("web", {"app": "web"}, namespace="shop", max_unavailable=0)
    budget["metadata"]["labels"] = {"app.kubernetes.io/instance": "shop"}
    sandbox.create("poddisruptionbudgets", budget, "shop")
    size = len(nodes)
    status = {
        "disruptionsAllowed": 0, "currentHealthy": size, "desiredHealthy": size, "expectedPods": size,
        "observedGeneration": 1,
    }  # fmt: skip
    sandbox.update("poddisruptionbudgets", "web", lambda found: found.update(status=status), "shop")


def becomes(wanted: Mapping[str, Any]) -> Callable[[Object], None]:
    """A change that makes a Node what it should be, and leaves it its version and uid."""

    def change(node: Object) -> None:
        kept = node["metadata"]
        node.update(wanted)
        node["metadata"] = {**kept, **wanted["metadata"]}

    return change
