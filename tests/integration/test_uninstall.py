"""docs/uninstall.sh with a real kubectl: afterwards nothing of the agent is left, and everything of others is."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agent.annotations import FIELD_MANAGER, REBOOT_STATE
from agent.reboot.state import Draining, Idle, NodeState, Stamp
from tests.support import agents, apiservers
from tests.support.agents import ROOT, Agent, eventually, running
from tests.support.apiservers import ApiServer, Client
from tests.support.programs import needed

NODE, OTHER = "n1", "n2"
HUMAN = "kubectl-cordon"
DRAINING = Draining(cycle="c", boot="b", cordoned=True, entered=Stamp("b", 1.0, 1.0))
THEIRS = {"metadata": {"annotations": {"a.example/x": "a value"}, "labels": {"b.example/y": "2"}}}


@pytest.fixture(params=["emulator", "real"])
def cluster(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ApiServer]:
    """A server of this test's own: the script takes the whole cluster."""
    with ExitStack() as stack:
        if request.param == "emulator":
            yield stack.enter_context(apiservers.emulator(tmp_path))
            return
        assets = apiservers.assets()
        if assets is None:
            pytest.skip("no real control plane: KUBEBUILDER_ASSETS does not name a folder with etcd and kube-apiserver")
        yield stack.enter_context(apiservers.control_plane(assets, tmp_path))


@pytest.fixture
def admin(cluster: ApiServer) -> Iterator[Client]:
    made = cluster.client()
    for name in (NODE, OTHER):
        assert made.post("/api/v1/nodes", {"metadata": {"name": name}}).status_code == 201
        made.patch(f"/api/v1/nodes/{name}", {**THEIRS, "spec": {"taints": [{"key": "gpu", "effect": "NoSchedule"}]}})
        ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "m"}
        made.patch(f"/api/v1/nodes/{name}/status", {"status": {"conditions": [ready]}}, "strategic")
    agents.install(made)
    yield made
    made.close()


def uninstall(
    cluster: ApiServer, folder: Path, *arguments: str, shell: str = "/bin/sh"
) -> subprocess.CompletedProcess[str]:
    kubeconfig = cluster.kubeconfig(folder / "admin.kubeconfig")
    return subprocess.run(
        [shell, str(ROOT / "docs/uninstall.sh"), *arguments],
        env={"PATH": "/usr/bin:/bin", "KUBECTL": needed("kubectl"), "KUBECONFIG": str(kubeconfig), "HOME": str(folder),
             "WAIT": "2s"},
        capture_output=True, text=True, timeout=180, check=False,
    )  # fmt: skip


def ours(node: dict[str, Any]) -> list[str]:
    """Everything on a Node that is the agent's."""
    keys = [*node["metadata"].get("annotations", {}), *node["metadata"].get("labels", {})]
    keys += [taint["key"] for taint in node["spec"].get("taints", [])]
    kinds = [one["type"] for one in node["status"].get("conditions", [])]
    return [key for key in keys if "node-hardening" in key] + [kind for kind in kinds if kind != "Ready"]


def cordon(admin: Client, name: str, state: NodeState, *managers: str) -> None:
    """The node is cordoned by these field managers, the last of which set it, and its agent left this state."""
    # The emulator keeps the managedFields that it is given, and no others.
    base: dict[str, Any] = {"apiVersion": "v1", "fieldsType": "FieldsV1"}
    base |= {"fieldsV1": {"f:spec": {"f:unschedulable": {}}}}
    operations = [*["Apply"] * (len(managers) - 1), "Update"]
    owners = [{**base, "manager": one, "operation": how} for one, how in zip(managers, operations, strict=True)]
    meta = {"annotations": {REBOOT_STATE: state.encode()}, "managedFields": owners}
    patch = {"metadata": meta, "spec": {"unschedulable": True}}
    answer = admin.patch(f"/api/v1/nodes/{name}", patch, fieldManager=managers[-1])
    assert answer.status_code == 200, answer.text


def shown(admin: Client, name: str) -> dict[str, Any]:
    node: dict[str, Any] = admin.get(f"/api/v1/nodes/{name}").json()
    return node


def test_nothing_of_the_agent_is_left(cluster: ApiServer, admin: Client, tmp_path: Path) -> None:
    """Conditions, annotations, label, taint, rights and namespace go; what others wrote stays, on every node. Twice is
    as good as once."""
    agent = Agent(cluster, admin, NODE, tmp_path / "agent")
    with running(agent):
        eventually(lambda: agent.condition("NodeHardened"), what="report")
    # What a reboot leaves, and a node whose agent never came to lift the taint.
    left = {"reboot": "not required", "reboot-history": "[]", "rollout": "{}"}
    note = {f"node-hardening.io/{name}": value for name, value in left.items()}
    admin.patch(f"/api/v1/nodes/{NODE}", {"metadata": {"annotations": note}})
    for kind in ("RebootRequired", "PolicyCurrent"):
        wanted = {"type": kind, "status": "False", "reason": "NotRequired", "message": "m"}
        admin.patch(f"/api/v1/nodes/{NODE}/status", {"status": {"conditions": [wanted]}}, "strategic")
    taints = [{"key": "gpu", "effect": "NoSchedule"}, {"key": "node-hardening.io/not-hardened", "effect": "NoSchedule"}]
    admin.patch(f"/api/v1/nodes/{OTHER}", {"spec": {"taints": taints, "unschedulable": True}})
    assert ours(shown(admin, NODE))
    for _ in range(2):
        done = uninstall(cluster, tmp_path)
        assert done.returncode == 0, done.stdout + done.stderr
    for name in (NODE, OTHER):
        node = shown(admin, name)
        assert ours(node) == []
        assert node["metadata"]["annotations"]["a.example/x"] == "a value"
        assert node["metadata"]["labels"]["b.example/y"] == "2"
        assert "gpu" in [taint["key"] for taint in node["spec"]["taints"]]
        assert [one["type"] for one in node["status"]["conditions"]] == ["Ready"]
    # Cordoned by somebody else.
    assert shown(admin, OTHER)["spec"]["unschedulable"] is True
    for path in ("clusterroles", "clusterrolebindings", "roles", "rolebindings"):
        left = admin.get(f"/apis/rbac.authorization.k8s.io/v1/{path}").json()["items"]
        # No controller here empties the namespace that is going away.
        names = [(item["metadata"].get("namespace"), item["metadata"]["name"]) for item in left]
        assert [name for name in names if "hardening" in name[1] and name[0] != agents.NAMESPACE] == []
    namespace = admin.get(f"/api/v1/namespaces/{agents.NAMESPACE}")
    assert namespace.status_code == 404 or namespace.json()["status"]["phase"] == "Terminating"


def test_a_reboot_under_way_is_not_broken_off_unasked(cluster: ApiServer, admin: Client, tmp_path: Path) -> None:
    """It refuses and names the node; told to go on it lifts the agent's own cordon, and no other's."""
    cordon(admin, NODE, DRAINING, FIELD_MANAGER)
    cordon(admin, OTHER, Idle(streak=1), HUMAN)
    refused = uninstall(cluster, tmp_path)
    assert (refused.returncode, f"under way on: {NODE}\n" in refused.stdout) == (1, True), refused.stdout
    assert shown(admin, NODE)["spec"]["unschedulable"] is True
    assert ours(shown(admin, NODE))
    told = uninstall(cluster, tmp_path, "--now")
    assert told.returncode == 0, told.stdout + told.stderr
    assert "unschedulable" not in shown(admin, NODE)["spec"]
    assert shown(admin, OTHER)["spec"]["unschedulable"] is True
    assert ours(shown(admin, NODE)) == ours(shown(admin, OTHER)) == []


@pytest.mark.parametrize(
    ("state", "managers", "stays"),
    [
        (DRAINING, [HUMAN], True),
        (DRAINING, [FIELD_MANAGER], False),
        (DRAINING, ["argocd", FIELD_MANAGER], True),  # applied by a user over the agent's own
        (Idle(streak=1), [FIELD_MANAGER], False),
    ],
)
def test_a_cordon_is_whose_it_was_set_by(
    cluster: ApiServer, admin: Client, tmp_path: Path, state: NodeState, managers: list[str], *, stays: bool
) -> None:
    """A user who uncordons and cordons a node whose agent is gone owns the cordon, whatever the old state says; a
    cordon of the agent whose state was removed is the agent's."""
    cordon(admin, NODE, state, *managers)
    done = uninstall(cluster, tmp_path, "--now")
    assert done.returncode == 0, done.stdout + done.stderr
    assert shown(admin, NODE)["spec"].get("unschedulable", False) is stays
    assert ours(shown(admin, NODE)) == []


def test_a_machine_that_is_down_does_not_keep_the_others_cordoned(
    cluster: ApiServer, admin: Client, tmp_path: Path
) -> None:
    """The pod of its agent never ends: the other nodes are done, what the agent may still need stays, and the second
    time, without the pod, the rest is done too."""
    for name in (NODE, OTHER):
        cordon(admin, name, DRAINING, FIELD_MANAGER)
    labels = {"app.kubernetes.io/name": "node-hardening-agent"}
    spec = {"nodeName": NODE, "containers": [{"name": "agent", "image": "agent"}]}
    pods = f"/api/v1/namespaces/{agents.NAMESPACE}/pods"
    made = admin.post(pods, {"metadata": {"name": "agent-x", "labels": labels}, "spec": spec})
    assert made.status_code == 201, made.text
    first = uninstall(cluster, tmp_path, "--now")
    assert (first.returncode, f"does not end on: {NODE}\n" in first.stdout) == (1, True), first.stdout + first.stderr
    assert "unschedulable" not in shown(admin, OTHER)["spec"]
    assert ours(shown(admin, OTHER)) == []
    assert shown(admin, NODE)["spec"]["unschedulable"] is True
    assert ours(shown(admin, NODE))
    assert admin.get(f"/api/v1/namespaces/{agents.NAMESPACE}").json()["status"]["phase"] == "Active"
    admin.delete(f"{pods}/agent-x", {"gracePeriodSeconds": 0})
    second = uninstall(cluster, tmp_path, "--now")
    assert second.returncode == 0, second.stdout + second.stderr
    assert "unschedulable" not in shown(admin, NODE)["spec"]
    assert ours(shown(admin, NODE)) == []


@pytest.mark.parametrize("shell", ["/bin/sh", "/bin/bash"])
def test_what_a_node_writes_changes_no_other_node(
    cluster: ApiServer, admin: Client, tmp_path: Path, shell: str
) -> None:
    """Line breaks, quotes and commands in a condition's type or in the state: the script reads them as values."""
    run = tmp_path / "run"
    lines = (
        f'{OTHER} annotations node-hardening.io/reboot-state {{"phase":"draining","cordoned":true}}',
        f'"{OTHER}" annotations "node-hardening.io/reboot-state" "{{\\"phase\\":\\"draining\\",\\"cordoned\\":true}}"',
        f'{OTHER} labels node-hardening.io/x":null,"b.example/y',
        f'"{OTHER}" labels "node-hardening.io/x":null,"b.example/y"',
        f"$(touch {run}) `touch {run}`; touch {run}",
    )
    hostile = "\n".join(("x", *lines, "y"))
    for kind in (hostile, hostile.replace("\n", "\r"), 'y condition "NodeHardened"', "y condition NodeHardened"):
        condition = {"type": kind, "status": "True", "reason": "R", "message": "m"}
        put = admin.patch(f"/api/v1/nodes/{NODE}/status", {"status": {"conditions": [condition]}}, "strategic")
        assert put.status_code == 200, put.text
    notes = {"node-hardening.io/reboot-state": hostile, "a.example/z": hostile}
    admin.patch(f"/api/v1/nodes/{NODE}", {"metadata": {"annotations": notes}})
    admin.patch(f"/api/v1/nodes/{OTHER}", {"spec": {"unschedulable": True}})
    before = shown(admin, OTHER)
    done = uninstall(cluster, tmp_path, "--now", shell=shell)
    assert done.returncode == 0, done.stdout + done.stderr
    assert shown(admin, OTHER) == before
    assert not run.exists()
    assert shown(admin, NODE)["metadata"]["annotations"] == {"a.example/x": "a value", "a.example/z": hostile}


def test_an_empty_policy_takes_the_files_back(cluster: ApiServer, admin: Client, tmp_path: Path) -> None:
    """docs/install.md's way: with nothing to deny and no profiles, what was installed leaves the node, and what was
    there before is there again."""
    deny, theirs = "/etc/modprobe.d/kubernetes-blacklist.conf", "/var/lib/kubelet/seccomp/theirs.json"
    agent = Agent(cluster, admin, NODE, tmp_path / "agent")
    agent.root.write(theirs, "{}")
    (agent.profiles / "seccomp" / "ours.json").write_text(
        json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chmod"], "action": "SCMP_ACT_ERRNO"}]})
    )
    ours_there = agent.root.at("/var/lib/kubelet/seccomp/ours.json")
    with running(agent):
        eventually(lambda: ours_there.exists() and agent.root.at(deny).exists(), what="installed")
        (agent.profiles / "seccomp" / "ours.json").unlink()
        agent.write_policy(modprobe={"lists": [], "deny": []})
        eventually(lambda: not ours_there.exists() and not agent.root.at(deny).exists(), what="taken back")
        eventually(lambda: agent.annotation("status") == "hardened", what="said")
    assert agent.root.at(theirs).read_text() == "{}"
