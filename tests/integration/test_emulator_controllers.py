"""The world around the API server that the emulator plays: kubelets, budgets, workloads, collection, node taints."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from agent.sandbox import builders
from agent.sandbox.deletion import DeleteOptions
from agent.sandbox.kubelet import running_pod
from agent.sandbox.server import Sandbox
from agent.sandbox.settings import KubeletSettings, Settings
from agent.sandbox.status_errors import ApiError
from tests.support.apiservers import ApiServer, Client

pytestmark = pytest.mark.emulator_only


def eventually(look: Callable[[], Any], wanted: Any) -> None:
    """Within ten seconds; the failure shows what was seen last."""
    deadline = time.monotonic() + 10
    seen = look()
    while seen != wanted and time.monotonic() < deadline:
        time.sleep(0.01)
        seen = look()
    assert seen == wanted


def spec_of(sandbox: Sandbox, node: str) -> dict[str, Any]:
    found = sandbox.get("nodes", node)
    assert found is not None
    spec: dict[str, Any] = found.get("spec", {})
    return spec


def taints(sandbox: Sandbox, node: str) -> list[str]:
    return [f"{item['key']}:{item['effect']}" for item in spec_of(sandbox, node).get("taints", [])]


def ready(sandbox: Sandbox, node: str) -> str:
    found = sandbox.get("nodes", node)
    assert found is not None
    status: str = next(item["status"] for item in found["status"]["conditions"] if item["type"] == "Ready")
    return status


def phase(sandbox: Sandbox, pod: str) -> str | None:
    found = sandbox.get("pods", pod)
    if found is None:
        return None
    return "Terminating" if "deletionTimestamp" in found["metadata"] else str(found["status"]["phase"])


def budget_status(sandbox: Sandbox, name: str) -> tuple[int, int, int, int]:
    found = sandbox.get("poddisruptionbudgets", name)
    assert found is not None
    status = found["status"]
    names = ("disruptionsAllowed", "currentHealthy", "desiredHealthy", "expectedPods")
    return tuple(status[key] for key in names)


def homes(sandbox: Sandbox) -> list[str]:
    return sorted(pod["spec"].get("nodeName", "") for pod in sandbox.list("pods"))


def test_kubelets_renew_their_leases(sandbox: Sandbox) -> None:
    """In kube-node-lease, under the node's name, until they are stopped."""
    sandbox.add_node("n")

    def renewed() -> str:
        lease = sandbox.get("leases", "n", "kube-node-lease")
        return lease["spec"]["renewTime"] if lease else ""

    first = renewed()
    assert first
    eventually(lambda: renewed() > first, True)
    sandbox.stop_kubelet("n")
    last = renewed()
    eventually(lambda: ready(sandbox, "n"), "Unknown")
    assert renewed() == last
    sandbox.start_kubelet("n")
    assert ready(sandbox, "n") == "True"
    assert renewed() > last


def test_silent_and_cordoned_nodes_are_tainted(sandbox: Sandbox) -> None:
    """By the node lifecycle controller, which takes the taints away again and leaves others alone."""
    sandbox.add_node("n")
    own = {"key": "mine", "effect": "NoSchedule"}
    sandbox.update("nodes", "n", lambda node: node["spec"].update(unschedulable=True, taints=[own]))
    eventually(lambda: taints(sandbox, "n"), ["mine:NoSchedule", "node.kubernetes.io/unschedulable:NoSchedule"])
    sandbox.update("nodes", "n", lambda node: node["spec"].pop("unschedulable"))
    eventually(lambda: taints(sandbox, "n"), ["mine:NoSchedule"])
    sandbox.stop_kubelet("n")
    unreachable = "node.kubernetes.io/unreachable"
    eventually(
        lambda: set(taints(sandbox, "n")), {"mine:NoSchedule", f"{unreachable}:NoExecute", f"{unreachable}:NoSchedule"}
    )
    sandbox.start_kubelet("n")
    eventually(lambda: taints(sandbox, "n"), ["mine:NoSchedule"])


def test_pods_run_and_end_on_their_node(sandbox: Sandbox) -> None:
    """Running with a ready container; a deleted one is Terminating until the kubelet has ended it."""
    sandbox.add_node("n")
    sandbox.add_pod("p", node="n")
    eventually(lambda: phase(sandbox, "p"), "Running")
    sandbox.delete("pods", "p", grace_seconds=None)
    eventually(lambda: phase(sandbox, "p"), None)


def test_a_stopped_kubelet_ends_no_pods(sandbox: Sandbox) -> None:
    """They stay Terminating until it is back."""
    sandbox.add_node("n")
    sandbox.add_pod("p", node="n")
    eventually(lambda: phase(sandbox, "p"), "Running")
    sandbox.stop_kubelet("n")
    sandbox.delete("pods", "p", grace_seconds=1)
    eventually(lambda: ready(sandbox, "n"), "Unknown")
    assert phase(sandbox, "p") == "Terminating"
    sandbox.start_kubelet("n")
    eventually(lambda: phase(sandbox, "p"), None)


def test_a_reboot_changes_the_boot_id(sandbox: Sandbox) -> None:
    """Containers start anew, the kernel may be another, the kubelet is silent meanwhile."""
    before = sandbox.add_node("n")["status"]["nodeInfo"]["bootID"]
    sandbox.add_pod("p", node="n")
    eventually(lambda: phase(sandbox, "p"), "Running")
    sandbox.reboot("n", 0.1, kernel="6.1.0-99")

    def boot() -> tuple[bool, str]:
        node = sandbox.get("nodes", "n")
        assert node is not None
        info = node["status"]["nodeInfo"]
        return info["bootID"] != before, info["kernelVersion"]

    eventually(boot, (True, "6.1.0-99"))
    pod = sandbox.get("pods", "p")
    assert pod is not None
    assert pod["status"]["containerStatuses"][0]["restartCount"] == 1


def test_a_boot_id_can_be_set(sandbox: Sandbox) -> None:
    """As a machine's kubelet reports it, now or after a reboot."""
    sandbox.add_node("n")
    assert sandbox.set_boot_id("n", "second") == "second"
    node = sandbox.get("nodes", "n")
    assert node is not None
    assert node["status"]["nodeInfo"]["bootID"] == "second"
    sandbox.stop_kubelet("n")
    eventually(lambda: ready(sandbox, "n"), "Unknown")
    sandbox.reboot("n", 0, "third")
    eventually(lambda: ready(sandbox, "n"), "True")


@pytest.mark.parametrize(
    ("bound", "expected"),
    [
        ({"min_available": 3}, (1, 4, 3, 4)),
        ({"min_available": "50%"}, (2, 4, 2, 4)),
        ({"min_available": "51%"}, (1, 4, 3, 4)),
        ({"max_unavailable": 1}, (1, 4, 3, 4)),
        ({"max_unavailable": "50%"}, (2, 4, 2, 4)),
        ({"max_unavailable": 0}, (0, 4, 4, 4)),
        ({"min_available": 9}, (0, 4, 9, 4)),
    ],
)
def test_budgets_are_counted(sandbox: Sandbox, bound: dict[str, Any], expected: tuple[int, int, int, int]) -> None:
    """Allowed, healthy, desired and expected, from numbers and percentages that are rounded up."""
    for name in ("n1", "n2"):
        sandbox.add_node(name)
    sandbox.create("deployments", builders.workload("Deployment", "web", replicas=4))
    sandbox.create("poddisruptionbudgets", builders.budget("b", {"app": "web"}, **bound))
    eventually(lambda: budget_status(sandbox, "b"), expected)


def test_a_budget_follows_its_pods(sandbox: Sandbox) -> None:
    """An eviction spends it, the replacement restores it; bare pods with maxUnavailable cannot be counted."""
    for name in ("n1", "n2"):
        sandbox.add_node(name)
    sandbox.create("replicasets", builders.workload("ReplicaSet", "web", replicas=2))
    sandbox.create("poddisruptionbudgets", builders.budget("b", {"app": "web"}, min_available=1))
    eventually(lambda: budget_status(sandbox, "b"), (1, 2, 1, 2))
    victim = sandbox.list("pods")[0]["metadata"]["name"]
    client = ApiServer.of(sandbox).client()
    body = {"apiVersion": "policy/v1", "kind": "Eviction", "metadata": {"name": victim}}
    assert client.post(f"/api/v1/namespaces/default/pods/{victim}/eviction", body).status_code == 201
    client.close()
    eventually(lambda: victim in [pod["metadata"]["name"] for pod in sandbox.list("pods")], False)
    eventually(lambda: budget_status(sandbox, "b"), (1, 2, 1, 2))
    sandbox.add_pod("bare", node="n1", labels={"app": "bare"})
    sandbox.create("poddisruptionbudgets", builders.budget("c", {"app": "bare"}, max_unavailable=1))

    def reason() -> str:
        found = sandbox.get("poddisruptionbudgets", "c")
        assert found is not None
        return str(found["status"].get("conditions", [{}])[0].get("reason"))

    eventually(reason, "SyncFailed")


def test_workloads_keep_their_pods_off_cordoned_nodes(sandbox: Sandbox) -> None:
    """A ReplicaSet's pods move, a DaemonSet's stay where they are; nothing fits, they wait."""
    for name in ("n1", "n2"):
        sandbox.add_node(name)
    sandbox.create("replicasets", builders.workload("ReplicaSet", "web", replicas=2))
    eventually(lambda: homes(sandbox), ["n1", "n2"])
    sandbox.update("nodes", "n1", lambda node: node["spec"].update(unschedulable=True))
    gone = next(pod for pod in sandbox.list("pods") if pod["spec"]["nodeName"] == "n1")
    sandbox.delete("pods", gone["metadata"]["name"])
    eventually(lambda: homes(sandbox), ["n2", "n2"])
    sandbox.update("nodes", "n2", lambda node: node["spec"].update(unschedulable=True))
    sandbox.delete("pods", sandbox.list("pods")[0]["metadata"]["name"])
    eventually(lambda: homes(sandbox), ["", "n2"])
    sandbox.update("nodes", "n1", lambda node: node["spec"].pop("unschedulable"))
    eventually(lambda: homes(sandbox), ["n1", "n2"])


def test_a_changed_template_replaces_the_pods(sandbox: Sandbox) -> None:
    """All of them, once; a change of anything else none."""
    sandbox.add_node("n")
    sandbox.create("deployments", builders.workload("Deployment", "web", replicas=2))
    eventually(lambda: [phase(sandbox, pod["metadata"]["name"]) for pod in sandbox.list("pods")], ["Running"] * 2)
    before = {pod["metadata"]["uid"] for pod in sandbox.list("pods")}

    def change(found: dict[str, Any]) -> None:
        found["metadata"]["labels"] = {"a": "b"}

    sandbox.update("deployments", "web", change)

    def name_profile(found: dict[str, Any]) -> None:
        found["spec"]["template"]["spec"]["securityContext"] = {"seccompProfile": {"type": "RuntimeDefault"}}

    assert {pod["metadata"]["uid"] for pod in sandbox.list("pods")} == before
    sandbox.update("deployments", "web", name_profile)
    eventually(
        lambda: [
            (pod["spec"].get("securityContext"), pod["metadata"]["uid"] in before, pod["status"]["phase"])
            for pod in sandbox.list("pods")
        ],
        [({"seccompProfile": {"type": "RuntimeDefault"}}, False, "Running")] * 2,
    )
    after = {pod["metadata"]["uid"] for pod in sandbox.list("pods")}
    sandbox.update("deployments", "web", change)
    time.sleep(0.3)
    assert {pod["metadata"]["uid"] for pod in sandbox.list("pods")} == after


def test_a_daemonset_has_a_pod_on_every_node(sandbox: Sandbox) -> None:
    """Also on cordoned ones, also on those that come later, and again after a deletion."""
    sandbox.add_node("n1")
    sandbox.update("nodes", "n1", lambda node: node["spec"].update(unschedulable=True))
    sandbox.create("daemonsets", builders.workload("DaemonSet", "logs"))
    eventually(lambda: homes(sandbox), ["n1"])
    sandbox.add_node("n2")
    eventually(lambda: homes(sandbox), ["n1", "n2"])
    sandbox.delete("pods", sandbox.list("pods")[0]["metadata"]["name"])
    eventually(lambda: homes(sandbox), ["n1", "n2"])
    eventually(lambda: (sandbox.get("daemonsets", "logs") or {})["status"]["numberReady"], 2)


@pytest.fixture
def idle() -> Iterator[Sandbox]:
    """Three nodes and a DaemonSet whose pods become Ready only where a test says so."""
    kubelet = KubeletSettings(start_seconds=3600.0, termination_seconds=0.0)
    with Sandbox(Settings(kubelet=kubelet)) as made:
        for name in ("n1", "n2", "n3"):
            made.add_node(name)
        made.create("daemonsets", builders.workload("DaemonSet", "logs"))
        eventually(lambda: homes(made), ["n1", "n2", "n3"])
        for pod in made.list("pods"):
            _becomes_ready(made, pod["metadata"]["name"])
        eventually(lambda: _rollout(made), (3, 3, 3))
        yield made


def _becomes_ready(sandbox: Sandbox, pod: str) -> None:
    sandbox.update("pods", pod, lambda found: found.update(running_pod(found, "2026-01-01T00:00:00Z")))


def _rollout(sandbox: Sandbox) -> tuple[int, int, int]:
    """Pods that there should be, those of the newest template, and those that are available."""
    status = (sandbox.get("daemonsets", "logs") or {})["status"]
    return status["desiredNumberScheduled"], status["updatedNumberScheduled"], status["numberAvailable"]


def _change_template(sandbox: Sandbox, image: str, **strategy: Any) -> set[str]:
    """The DaemonSet with another image and updateStrategy; the names of the pods before it."""
    before = {pod["metadata"]["name"] for pod in sandbox.list("pods")}

    def change(found: dict[str, Any]) -> None:
        found["spec"]["template"]["spec"]["containers"][0]["image"] = image
        found["spec"]["updateStrategy"] = strategy or {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1}}

    sandbox.update("daemonsets", "logs", change)
    return before


def test_a_changed_daemonset_replaces_the_next_pod_once_the_one_before_is_ready(idle: Sandbox) -> None:
    """As kube-controller-manager does it, so that a change that breaks the pod stops at the first one."""
    old = _change_template(idle, "another")
    for updated in (1, 2, 3):
        eventually(lambda: _rollout(idle), (3, updated, 2))
        names = {pod["metadata"]["name"] for pod in idle.list("pods")}
        assert len(names & old) == 3 - updated
        (new,) = (pod for pod in idle.list("pods") if pod["status"]["phase"] == "Pending")
        _becomes_ready(idle, new["metadata"]["name"])
    eventually(lambda: _rollout(idle), (3, 3, 3))


def test_a_pod_that_is_not_ready_is_replaced_without_waiting(idle: Sandbox) -> None:
    """A correction reaches the pod that the faulty change has stopped at."""
    _change_template(idle, "faulty")
    eventually(lambda: _rollout(idle), (3, 1, 2))
    (stuck,) = (pod for pod in idle.list("pods") if pod["status"]["phase"] == "Pending")
    _change_template(idle, "corrected")
    eventually(lambda: stuck["metadata"]["name"] in {pod["metadata"]["name"] for pod in idle.list("pods")}, False)
    eventually(lambda: _rollout(idle), (3, 1, 2))


def test_a_daemonset_is_replaced_as_its_strategy_has_it(idle: Sandbox) -> None:
    """OnDelete: not at all. A percentage is of the nodes."""
    old = _change_template(idle, "another", type="OnDelete")
    eventually(lambda: _rollout(idle), (3, 0, 3))
    assert {pod["metadata"]["name"] for pod in idle.list("pods")} == old
    _change_template(idle, "another", type="RollingUpdate", rollingUpdate={"maxUnavailable": "60%"})
    eventually(lambda: _rollout(idle), (3, 2, 1))


def test_dependents_go_with_their_owner(sandbox: Sandbox) -> None:
    """Deployment, ReplicaSet and pods; others' stay."""
    sandbox.add_node("n")
    for name in ("one", "two"):
        sandbox.create("replicasets", builders.workload("ReplicaSet", name, replicas=1))
    eventually(lambda: homes(sandbox), ["n", "n"])
    sandbox.delete("replicasets", "one")
    eventually(lambda: homes(sandbox), ["n"])
    sandbox.create("deployments", builders.workload("Deployment", "web", replicas=2))
    eventually(lambda: len(sandbox.list("pods")), 3)
    sandbox.delete("deployments", "web")
    eventually(
        lambda: (sandbox.list("deployments"), len(sandbox.list("replicasets")), len(sandbox.list("pods"))), ([], 1, 1)
    )


def test_a_namespace_goes_with_all_that_is_in_it(sandbox: Sandbox) -> None:
    """And is held by finalizers of its content."""
    sandbox.create("namespaces", {"metadata": {"name": "demo"}})
    held = {"metadata": {"name": "held", "namespace": "demo", "finalizers": ["x.io/y"]}}
    sandbox.create("configmaps", held)
    sandbox.create("configmaps", {"metadata": {"name": "free", "namespace": "demo"}})
    sandbox.delete("namespaces", "demo")
    eventually(lambda: [item["metadata"]["name"] for item in sandbox.list("configmaps", "demo")], ["held"])
    assert (sandbox.get("namespaces", "demo") or {})["status"]["phase"] == "Terminating"
    sandbox.update("configmaps", "held", lambda item: item["metadata"].pop("finalizers"), "demo")
    eventually(lambda: sandbox.get("namespaces", "demo"), None)


def test_handles_answer_like_the_api(sandbox: Sandbox) -> None:
    """An absent object is an ApiError where one is needed and None where one is asked for."""
    assert sandbox.get("nodes", "none") is None
    with pytest.raises(ApiError, match='nodes "none" not found'):
        sandbox.delete("nodes", "none")
    with pytest.raises(ApiError, match="not found"):
        sandbox.set_boot_id("none")
    assert DeleteOptions().grace_seconds is None


def test_idle_clusters_send_no_requests(sandbox: Sandbox) -> None:
    """Heartbeats and controllers work inside: the journal holds what came over HTTP only."""
    sandbox.add_node("n")
    sandbox.add_pod("p", node="n")
    eventually(lambda: phase(sandbox, "p"), "Running")
    assert sandbox.requests == []
    client: Client = ApiServer.of(sandbox).client()
    client.get("/api/v1/nodes")
    client.close()
    assert len(sandbox.requests) == 1
