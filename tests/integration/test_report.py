"""Reports on a Node that others have a hand in, on both API servers."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from agent.event_reasons import Reason
from agent.kube import Kube
from agent.report.api import KubeReport
from agent.report.events import Event, Recorder, Regarding
from tests.support import agents
from tests.support.agents import NAMESPACE, SERVICE_ACCOUNT, Agent, eventually, running
from tests.support.apiservers import ApiServer, Client
from tests.support.daemons import free_ports
from tests.support.kube import authority_of, client_of, kube_client

DENY_FILE = "/etc/modprobe.d/kubernetes-blacklist.conf"


@pytest.fixture
def agent(api: ApiServer, client: Client, node: str, tmp_path: Path) -> Agent:
    """This test's agent, not yet started."""
    agents.install(client)
    return Agent(api, client, node, tmp_path / node, port=free_ports(1)[0])


def anywhere(client: Client) -> str:
    """A token of the agent that is bound to no Node, so that it outlives one."""
    path = f"/api/v1/namespaces/{NAMESPACE}/serviceaccounts/{SERVICE_ACCOUNT}/token"
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}}
    return str(client.post(path, body).json()["status"]["token"])


def drift(agent: Agent) -> None:
    """Somebody changes the node, and it is mended."""
    agent.root.write(DENY_FILE, "# nothing is denied\n")
    eventually(lambda: "sctp" in agent.root.at(DENY_FILE).read_text(), what="mended")


def test_events_count_up_over_restarts(agent: Agent) -> None:
    """The same thing before and after a restart is one Event with count 2, and its first time is the first."""
    with running(agent):
        eventually(lambda: agent.condition("NodeHardened"), what="report")
        drift(agent)
        before = eventually(lambda: agent.events("DriftCorrected"), what="event")
        agent.stop()
        passes = len(agent.logged("reconcile_completed"))
        agent.start()
        eventually(lambda: len(agent.logged("reconcile_completed")) > passes, what="a pass after the restart")
        drift(agent)
        (after,) = eventually(
            lambda: [one for one in agent.events("DriftCorrected") if one["count"] == 2], what="count 2"
        )
    assert after["metadata"]["uid"] == before[0]["metadata"]["uid"]
    assert after["firstTimestamp"] == before[0]["firstTimestamp"]


def test_a_restart_rewrites_nothing(agent: Agent) -> None:
    """What stands on the Node is what should: the next write is the next news, and no condition is rewritten."""
    with running(agent):
        eventually(lambda: agent.condition("NodeHardened") and agent.events("NodeHardened"), what="report")
    before, policy = agent.condition("NodeHardened"), agent.annotation("policy")
    time.sleep(1.1)  # stamps are whole seconds
    with running(agent):
        eventually(lambda: agent.probe("/readyz") == 200, what="a pass")
        agent.write_policy(interval="7m")
        eventually(lambda: agent.annotation("policy") != policy, what="news")
    after = agent.condition("NodeHardened")
    # The heartbeat may have been carried by a write of the other condition.
    assert {**after, "lastHeartbeatTime": ""} == {**before, "lastHeartbeatTime": ""}
    assert [one["count"] for one in agent.events("NodeHardened")] == [1]


def test_the_condition_turns_with_the_node(agent: Agent) -> None:
    """True, False with the time of its turn when a control fails, and True again."""
    with running(agent):
        eventually(lambda: agent.condition("NodeHardened").get("status") == "True", what="hardened")
        first = agent.condition("NodeHardened")["lastTransitionTime"]
        time.sleep(1.1)  # stamps are whole seconds
        agent.root.at(DENY_FILE).unlink()
        agent.root.at(DENY_FILE).mkdir()
        eventually(lambda: agent.condition("NodeHardened").get("status") == "False", what="failed")
        assert agent.condition("NodeHardened")["reason"] == "ApplyFailed"
        assert agent.condition("NodeHardened")["lastTransitionTime"] > first
        eventually(lambda: agent.events("HardeningFailed"), what="event")
        agent.root.at(DENY_FILE).rmdir()
        eventually(lambda: agent.condition("NodeHardened").get("status") == "True", what="hardened again")


def test_a_node_that_is_deleted_and_registered_again(agent: Agent, client: Client) -> None:
    """Another UID with nothing of ours on it: everything is written again, the start-up taint lifted again."""
    agent.token_file.write_text(anywhere(client))
    path = f"/api/v1/nodes/{agent.node}"
    with running(agent):
        eventually(lambda: agent.condition("NodeHardened"), what="report")
        assert client.delete(path).status_code == 200
        eventually(lambda: agent.logged("node_not_found"), what="noticed")
        taint = {"key": "node-hardening.io/not-hardened", "effect": "NoSchedule"}
        body = {"metadata": {"name": agent.node}, "spec": {"taints": [taint]}}
        assert client.post("/api/v1/nodes", body).status_code == 201
        eventually(lambda: agent.condition("NodeHardened"), what="report on the new Node")
        assert agent.annotation("status") == "hardened"
        keys = [taint["key"] for taint in eventually(agent.shown, what="node")["spec"].get("taints", [])]
        eventually(lambda: "node-hardening.io/not-hardened" not in _taints(agent), what=f"lifted from {keys}")


def test_a_node_that_is_not_registered_yet(agent: Agent, client: Client) -> None:
    """The agent hardens before the kubelet has registered the Node, and reports as soon as it is there."""
    agent.token_file.write_text(anywhere(client))
    path = f"/api/v1/nodes/{agent.node}"
    assert client.delete(path).status_code == 200
    with running(agent):
        eventually(lambda: agent.logged("node_not_found"), what="waits for the Node")
        eventually(agent.root.at(DENY_FILE).exists, what="hardened meanwhile")
        assert client.post("/api/v1/nodes", {"metadata": {"name": agent.node}}).status_code == 201
        eventually(lambda: agent.annotation("status") == "hardened", what="reported")
        eventually(lambda: agent.condition("NodeHardened"), what="condition")


def test_somebody_who_keeps_taking_the_annotation_away(agent: Agent, client: Client) -> None:
    """It comes back each time, and what is new is shown in the middle of it."""
    gone = {"metadata": {"annotations": {"node-hardening.io/status": None}}}
    with running(agent):
        for _ in range(4):
            eventually(lambda: agent.annotation("status") == "hardened", what="annotation")
            client.patch(f"/api/v1/nodes/{agent.node}", gone)
        before = agent.annotation("policy")
        agent.write_policy(modprobe={"deny": ["tipc"]})
        eventually(lambda: agent.annotation("policy") != before, what="news")


def test_metrics_are_what_prometheus_reads(agent: Agent) -> None:
    """The endpoint of a running daemon, read by Prometheus' own parser: HELP and TYPE for every family."""
    import requests

    with running(agent):
        eventually(lambda: agent.probe("/readyz") == 200, what="ready")
        answer = requests.get(f"http://127.0.0.1:{agent.port}/metrics", timeout=300)
    assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
    families = list(text_string_to_metric_families(answer.text))
    assert len(families) > 15
    for family in families:
        assert family.documentation, family.name
        assert family.type != "unknown", family.name


def _taints(agent: Agent) -> list[str]:
    return [taint["key"] for taint in agent.shown()["spec"].get("taints", [])]


# -- Events on their own -----------------------------------------------------------------------------------------------


class Scene:
    """A recorder on a real client, at a time that a test moves."""

    def __init__(self, kube: Kube, node: str) -> None:
        self.now, self.dropped, self.node = time.time(), 0, node
        self.kube = kube
        self.recorder = Recorder(KubeReport(kube, node), node, lambda: self.now, self._drop)

    def _drop(self) -> None:
        self.dropped += 1

    def tell(self, namespace: str = "", *, after: float = 0.0) -> bool:
        self.now += after
        about = Regarding.node(self.node)
        if namespace:
            about = Regarding("Lease", "a-lock", "", namespace, "coordination.k8s.io/v1")
        self.recorder.record(Event(about, Reason.DRIFT_CORRECTED, "mended"))
        return self.recorder.deliver()


@pytest.fixture
def scene(api: ApiServer, node: str) -> Iterator[Scene]:
    made = Scene(client_of(api), node)
    yield made
    made.kube.close()


def counts(client: Client, node: str) -> list[int]:
    items: list[dict[str, Any]] = client.get("/api/v1/events", fieldSelector=f"involvedObject.name={node}").json()[
        "items"
    ]
    return [item["count"] for item in items]


def test_an_event_that_was_forgotten_is_made_anew(scene: Scene, client: Client, node: str) -> None:
    """The API server's TTL is shorter than ours, or somebody has deleted it: count 1 again, and none lost."""
    scene.tell()
    scene.tell(after=60)
    assert counts(client, node) == [2]
    for name in [item["metadata"]["name"] for item in client.get("/api/v1/events").json()["items"]]:
        if name.startswith(f"{node}."):
            client.delete(f"/api/v1/namespaces/default/events/{name}")
    assert scene.tell(after=60)
    assert (counts(client, node), scene.dropped) == ([1], 0)
    assert scene.tell(after=3700)
    assert (counts(client, node), scene.dropped) == ([2], 0)


def test_events_without_the_right_to_write_them(api: ApiServer, client: Client, node: str, namespace: str) -> None:
    """RBAC that is missing: given up at once and counted; nothing is raised and nothing waits."""
    assert client.post(f"/api/v1/namespaces/{namespace}/serviceaccounts", {"metadata": {"name": "none"}}).ok
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"audiences": []}}
    token = client.post(f"/api/v1/namespaces/{namespace}/serviceaccounts/none/token", body).json()["status"]["token"]
    scene = Scene(kube_client(api.url, token, authority_of(api)), node)
    try:
        assert scene.tell()
        assert (scene.dropped, scene.recorder.waiting) == (1, False)
    finally:
        scene.kube.close()


def test_events_into_a_namespace_that_goes_away(scene: Scene, client: Client, namespace: str) -> None:
    """Uninstalling, say: given up at once."""
    assert client.delete(f"/api/v1/namespaces/{namespace}").ok
    assert scene.tell(namespace)
    assert (scene.dropped, scene.recorder.waiting) == (1, False)
