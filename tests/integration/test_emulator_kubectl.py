"""A real kubectl against the API server: what SREs type must work and print what they know."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.sandbox import builders
from agent.sandbox.settings import KubeletSettings
from tests.support.apiservers import ApiServer, Client, emulator
from tests.support.programs import needed

FAST = KubeletSettings(start_seconds=0.0, termination_seconds=0.05)


class Kubectl:
    """kubectl with a kubeconfig of its own."""

    def __init__(self, server: ApiServer, folder: Path) -> None:
        self.folder = folder
        self.kubeconfig = server.kubeconfig(folder / "kubeconfig")

    def environment(self) -> dict[str, str]:
        return {"PATH": os.environ["PATH"], "HOME": str(self.folder), "KUBECONFIG": str(self.kubeconfig)}

    def run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [needed("kubectl"), *arguments],
            env=self.environment(),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    def __call__(self, *arguments: str, stdin: str = "") -> str:
        done = self.run(*arguments, stdin=stdin)
        assert done.returncode == 0, f"{arguments}: {done.stderr}"
        return done.stdout


@pytest.fixture
def kubectl(api: ApiServer, tmp_path: Path) -> Kubectl:
    return Kubectl(api, tmp_path)


@pytest.fixture
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ApiServer]:
    """An emulator with controllers, kubelets and three nodes, over https."""
    with emulator(tmp_path_factory.mktemp("cluster"), {"controllers": True, "kubelet": FAST}) as server:
        assert server.sandbox is not None
        for number in range(1, 4):
            server.sandbox.add_node(f"node-{number}")
        yield server


def words(line: str) -> list[str]:
    return line.split()


def test_get_prints_tables(kubectl: Kubectl, client: Client, node: str) -> None:
    """Names, states and versions in the columns that everybody knows."""
    info = {"kubeletVersion": "v1.30.0", "osImage": "Debian", "kernelVersion": "6.1", "bootID": "b"}
    ready = {"type": "Ready", "status": "True"}
    client.patch(f"/api/v1/nodes/{node}/status", {"status": {"nodeInfo": info, "conditions": [ready]}}, "strategic")
    header, row = kubectl("get", "node", node).splitlines()
    assert words(header) == ["NAME", "STATUS", "ROLES", "AGE", "VERSION"]
    assert words(row)[:3] + words(row)[4:] == [node, "Ready", "<none>", "v1.30.0"]
    wide = kubectl("get", "node", node, "-o", "wide").splitlines()
    assert "KERNEL-VERSION" in wide[0]
    assert "Debian" in wide[1]
    assert json.loads(kubectl("get", "node", node, "-o", "json"))["status"]["nodeInfo"]["bootID"] == "b"
    assert "bootID: b" in kubectl("get", "node", node, "-o", "yaml")
    assert kubectl("get", "node", node, "-o", "jsonpath={.status.nodeInfo.kernelVersion}") == "6.1"


def test_annotate_label_taint_and_patch(kubectl: Kubectl, client: Client, node: str) -> None:
    """They change what they say, and their opposites take it back."""
    kubectl("annotate", "node", node, "a=1", "b=2")
    kubectl("annotate", "node", node, "b-")
    kubectl("label", "node", node, "zone=one")
    kubectl("taint", "node", node, "dedicated=x:NoSchedule")
    kubectl("patch", "node", node, "-p", '{"metadata":{"annotations":{"c":"3"}}}')
    obj = client.get(f"/api/v1/nodes/{node}").json()
    assert obj["metadata"]["annotations"] == {"a": "1", "c": "3"}
    assert obj["metadata"]["labels"]["zone"] == "one"
    assert obj["spec"]["taints"] == [{"key": "dedicated", "value": "x", "effect": "NoSchedule"}]
    assert words(kubectl("get", "nodes", "-l", "zone=one,dedicated!=x", "--field-selector", f"metadata.name={node}",
                         "-o", "name")) == [f"node/{node}"]  # fmt: skip
    kubectl("taint", "node", node, "dedicated-")
    assert "taints" not in client.get(f"/api/v1/nodes/{node}").json()["spec"]


def test_a_stale_replace_is_refused(kubectl: Kubectl, client: Client, node: str) -> None:
    """kubectl shows the conflict."""
    before = kubectl("get", "node", node, "-o", "json")
    client.patch(f"/api/v1/nodes/{node}", {"metadata": {"annotations": {"a": "1"}}})
    done = kubectl.run("replace", "-f", "-", stdin=before)
    assert done.returncode == 1
    assert "the object has been modified; please apply your changes to the latest version" in done.stderr


def test_cordon_and_uncordon(kubectl: Kubectl, client: Client, node: str) -> None:
    """spec.unschedulable, shown as SchedulingDisabled."""
    assert kubectl("cordon", node) == f"node/{node} cordoned\n"
    assert client.get(f"/api/v1/nodes/{node}").json()["spec"]["unschedulable"] is True
    assert "SchedulingDisabled" in kubectl("get", "node", node)
    assert kubectl("uncordon", node) == f"node/{node} uncordoned\n"
    assert "unschedulable" not in client.get(f"/api/v1/nodes/{node}").json()["spec"]


def test_describe_node_shows_conditions_annotations_and_events(kubectl: Kubectl, client: Client, node: str) -> None:
    """An event is shown when its uid is the node's name."""
    client.patch(f"/api/v1/nodes/{node}", {"metadata": {"annotations": {"node-hardening.io/status": "hardened"}}})
    moment = "2024-01-02T03:04:05Z"
    condition = {"type": "NodeHardened", "status": "True", "reason": "AllControlsPass", "message": "4 of 4"}
    client.patch(f"/api/v1/nodes/{node}/status", {"status": {"conditions": [condition]}}, "strategic")
    event = {
        "metadata": {"generateName": f"{node}."},
        "involvedObject": {"kind": "Node", "name": node, "uid": node},
        "reason": "Hardened",
        "message": "two modules denied",
        "type": "Normal",
        "source": {"component": "node-hardening-agent"},
        "firstTimestamp": moment,
        "lastTimestamp": moment,
        "count": 3,
    }
    assert client.post("/api/v1/namespaces/default/events", event).status_code == 201
    shown = kubectl("describe", "node", node)
    assert "node-hardening.io/status: hardened" in shown
    assert "AllControlsPass" in shown
    (line,) = [line for line in shown.splitlines() if "two modules denied" in line]
    assert words(line)[:2] == ["Normal", "Hardened"]
    assert "(x3 over" in line
    listed = kubectl("get", "events", "--field-selector", f"involvedObject.name={node}")
    assert f"node/{node}" in listed
    assert "two modules denied" in listed


def test_apply_creates_and_changes(kubectl: Kubectl, client: Client, namespace: str) -> None:
    """Client-side and as a dry run; what was applied before and is gone is taken out."""

    def document(name: str, field: str = "data", **data: str) -> str:
        meta = {"name": name, "namespace": namespace}
        return json.dumps({"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, field: data})

    path = f"/api/v1/namespaces/{namespace}/configmaps"
    assert "created" in kubectl("apply", "-f", "-", stdin=document("a", x="y", z="w"))
    assert "configured" in kubectl("apply", "-f", "-", stdin=document("a", x="v"))
    assert client.get(f"{path}/a").json()["data"] == {"x": "v"}
    assert "unchanged" in kubectl("apply", "-f", "-", stdin=document("a", x="v"))
    assert "server dry run" in kubectl("apply", "--dry-run=server", "-f", "-", stdin=document("a", x="other"))
    assert client.get(f"{path}/a").json()["data"] == {"x": "v"}
    done = kubectl.run("apply", "-f", "-", stdin=document("a", field="daata", x="y"))
    assert done.returncode == 1
    assert 'unknown field "daata"' in done.stderr
    kubectl("delete", "configmap", "-n", namespace, "a")
    assert client.get(f"{path}/a").status_code == 404


def test_get_watch_prints_changes(kubectl: Kubectl, client: Client, namespace: str) -> None:
    """-w goes on after the list, until it is ended."""
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    client.post(path, {"metadata": {"name": "first"}})
    argv = [needed("kubectl"), "get", "configmaps", "-n", namespace, "-w"]
    with subprocess.Popen(argv, env=kubectl.environment(), stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert words(process.stdout.readline()) == ["NAME", "DATA", "AGE"]
            assert words(process.stdout.readline())[:2] == ["first", "0"]
            client.post(path, {"metadata": {"name": "second"}, "data": {"k": "v"}})
            assert words(process.stdout.readline())[:2] == ["second", "1"]
        finally:
            process.terminate()


def test_unknown_things_are_told_apart(kubectl: Kubectl) -> None:
    """An unknown kind and an absent object."""
    done = kubectl.run("get", "nonsense")
    assert "the server doesn't have a resource type" in done.stderr
    done = kubectl.run("get", "node", "no-such-node")
    assert done.stderr.strip() == 'Error from server (NotFound): nodes "no-such-node" not found'


@pytest.mark.emulator_only
def test_drain_evicts_what_it_should(cluster: ApiServer, tmp_path: Path) -> None:
    """A Deployment's pods come back elsewhere within its budget, a DaemonSet's stay, the node is cordoned."""
    sandbox, kubectl = cluster.sandbox, Kubectl(cluster, tmp_path)
    assert sandbox is not None
    sandbox.create("deployments", builders.workload("Deployment", "web", replicas=6, grace_seconds=0))
    sandbox.create("daemonsets", builders.workload("DaemonSet", "logs"))
    sandbox.create("poddisruptionbudgets", builders.budget("web", {"app": "web"}, max_unavailable=2))
    kubectl("rollout", "status", "deployment/web", "--timeout=200s")
    kubectl("rollout", "status", "daemonset/logs", "--timeout=200s")
    done = kubectl.run("drain", "node-1", "--timeout=200s")
    assert "cannot delete DaemonSet-managed Pods" in done.stderr
    shown = kubectl("drain", "node-1", "--ignore-daemonsets", "--timeout=200s")
    assert "node/node-1 drained" in shown
    left = kubectl("get", "pods", "--field-selector", "spec.nodeName=node-1", "-o", "name").split()
    assert [name.rpartition("-")[0] for name in left] == ["pod/logs"]
    kubectl("wait", "--for=jsonpath={.status.readyReplicas}=6", "deployment/web", "--timeout=200s")
    homes = kubectl("get", "pods", "-l", "app=web", "-o", "jsonpath={.items[*].spec.nodeName}").split()
    assert set(homes) == {"node-2", "node-3"}


@pytest.mark.emulator_only
def test_drain_waits_for_a_budget_and_says_so(cluster: ApiServer, tmp_path: Path) -> None:
    """Without room in the budget drain gives up at its timeout, and the pod is still there."""
    sandbox, kubectl = cluster.sandbox, Kubectl(cluster, tmp_path)
    assert sandbox is not None
    sandbox.create("replicasets", builders.workload("ReplicaSet", "db", replicas=1))
    sandbox.create("poddisruptionbudgets", builders.budget("db", {"app": "db"}, min_available=1))
    kubectl("wait", "--for=jsonpath={.status.readyReplicas}=1", "replicaset/db", "--timeout=200s")
    kubectl("wait", "--for=jsonpath={.status.currentHealthy}=1", "pdb/db", "--timeout=200s")
    (pod,) = sandbox.list("pods", "default")
    done = kubectl.run("drain", pod["spec"]["nodeName"], "--timeout=1s")
    assert done.returncode == 1
    assert "Cannot evict pod as it would violate the pod's disruption budget" in done.stderr
    assert sandbox.get("pods", pod["metadata"]["name"]) is not None


@pytest.mark.emulator_only
def test_deleting_a_namespace_empties_it(cluster: ApiServer, tmp_path: Path) -> None:
    """kubectl waits until everything in it and the namespace itself are gone."""
    sandbox, kubectl = cluster.sandbox, Kubectl(cluster, tmp_path)
    assert sandbox is not None
    sandbox.create("namespaces", {"metadata": {"name": "demo"}})
    sandbox.create("deployments", builders.workload("Deployment", "web", namespace="demo", replicas=2))
    kubectl("rollout", "status", "deployment/web", "-n", "demo", "--timeout=200s")
    kubectl("delete", "namespace", "demo", "--timeout=200s")
    assert sandbox.get("namespaces", "demo") is None
    assert sandbox.list("pods", "demo") == []
