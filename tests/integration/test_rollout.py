"""Overrides and canaries with real agents: daemonset.yaml's rights, HTTP, the plugin's own process."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import agents
from tests.support.agents import Agent, eventually, running
from tests.support.apiservers import ApiServer, Client
from tests.support.daemons import free_ports
from tests.support.typed import Person

FILE, OTHER = "/etc/modprobe.d/kubernetes-blacklist.conf", "/etc/modprobe.d/other.conf"
INSTALLED = "/var/lib/kubelet/seccomp/team.json"
ROLLOUT = {"canary": "canary=true", "soak": "1s"}
Made = Callable[..., Agent]


@pytest.fixture
def make(api: ApiServer, client: Client, unique: str, tmp_path: Path) -> Iterator[Made]:
    """Makes a Ready node with labels of this test's own, and its agent, not started."""
    agents.install(client, agents.ALL_BUT_THE_AGENT)
    names = []

    def made(name: str, **labels: str) -> Agent:
        names.append(node := f"{unique}-{name}")
        body = {"metadata": {"name": node, "labels": {key: value.format(unique) for key, value in labels.items()}}}
        assert client.post("/api/v1/nodes", body).status_code == 201
        ready = {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}
        path = f"/api/v1/nodes/{node}"
        assert client.patch(f"{path}/status", {"status": {"conditions": [ready]}}, "strategic").status_code == 200
        return Agent(api, client, node, tmp_path / node, {"metrics": {"address": ""}})

    yield made
    for node in names:
        client.delete(f"/api/v1/nodes/{node}")
    client.delete(f"/api/v1/namespaces/{agents.NAMESPACE}/configmaps/node-hardening-rollout")


def publish(client: Client, some: list[Agent], **keys: Any) -> None:
    """The same policy on every node, and in the ConfigMap that the plugin reads."""
    base = {**some[0].config, "kubelet": {"mode": "off"}, "apparmor": {"mode": "off"}, "seccomp": {"mode": "off"}}
    policy = {**base, "reboot": {"mode": "off"}, **keys}
    for agent in some:
        agent.replace(agent.policy, json.dumps(policy))
    agents.publish(client, json.dumps(policy))


def rollout(agent: Agent) -> dict[str, Any]:
    return json.loads(agent.annotation("rollout") or "{}")  # type: ignore[no-any-return]


def denies(agent: Agent, path: str = FILE) -> str:
    file = agent.root.at(path)
    return file.read_text() if file.is_file() else ""


def test_a_pool_has_its_own_policy_and_a_changed_label_changes_it(make: Made, client: Client) -> None:
    """One ConfigMap for all; the hash on the Node is that of what the node really has."""
    gpu, cpu = make("gpu", pool="gpu"), make("cpu", pool="cpu")
    override = {"name": "gpu", "nodeSelector": "pool=gpu", "modprobe": {"deny": ["cramfs"]}}
    publish(client, [gpu, cpu], overrides=[override])
    with running(gpu), running(cpu):
        eventually(lambda: "cramfs" in denies(gpu) and denies(cpu), what="the override on its pool")
        eventually(lambda: gpu.annotation("policy") and cpu.annotation("policy"), what="annotation policy")
        eventually(lambda: gpu.annotation("policy") != cpu.annotation("policy"), what="two policies")
        assert "cramfs" not in denies(cpu)
        client.patch(f"/api/v1/nodes/{cpu.node}", {"metadata": {"labels": {"pool": "gpu"}}})
        eventually(lambda: "cramfs" in denies(cpu), what="the other label's policy")
        eventually(lambda: gpu.annotation("policy") == cpu.annotation("policy"), what="one policy")


@pytest.mark.emulator_only
def test_a_node_that_starts_without_the_api_server_uses_its_last_labels(make: Made, client: Client) -> None:
    """It neither falls back to the policy of others nor flaps when the API server is back."""
    gpu = make("gpu", pool="gpu")
    override = {"name": "gpu", "nodeSelector": "pool=gpu", "modprobe": {"deny": ["cramfs"]}}
    publish(client, [gpu], overrides=[override])
    with running(gpu):
        eventually(lambda: "cramfs" in denies(gpu), what="the override")
    gpu.root.at(FILE).unlink()
    assert gpu.api.sandbox is not None
    gpu.api.sandbox.away(60)
    with running(gpu):
        eventually(lambda: denies(gpu), what="a pass without the API server")
        assert "cramfs" in denies(gpu)
        gpu.api.sandbox.back()
        eventually(lambda: gpu.annotation("status"), what="the report")
    assert len(gpu.logged("config_reloaded")) == 1  # by the first process, when it learned its labels


def test_a_policy_that_fails_on_the_canary_stops_there_until_it_is_promoted(
    make: Made, client: Client, api: ApiServer
) -> None:
    canary, worker = make("canary", canary="true"), make("worker")
    both = [canary, worker]
    publish(client, both, rollout=ROLLOUT)
    # Only there: a folder in the file's place.
    canary.root.at(OTHER).mkdir(parents=True)
    with running(canary), running(worker):
        eventually(lambda: worker.condition("PolicyCurrent").get("status") == "True", what="the first policy")
        eventually(lambda: rollout(canary).get("verdict") == "verified", what="the first policy verified")
        old = rollout(worker)["revision"]
        publish(client, both, rollout=ROLLOUT, modprobe={"file": OTHER})
        eventually(lambda: rollout(canary).get("verdict") == "failed", what="the failure on the canary")
        eventually(lambda: worker.condition("PolicyCurrent").get("reason") == "CanaryFailed", what="the stop")
        assert rollout(worker)["revision"] == old
        assert not worker.root.at(OTHER).exists()
        assert len(eventually(lambda: canary.events("PolicyFailedOnCanary"), what="the Event")) == 1
        shown = Person(api).types("rollout", "status")
        assert (shown.code, "CanaryFailed" in shown.out, "failed" in shown.out) == (1, True, True)
        done = Person(api).types("rollout", "promote", "--yes", "--reason", "known")
        assert done.code == 0, done.error
        eventually(lambda: denies(worker, OTHER), what="the promoted policy")
        eventually(lambda: worker.condition("PolicyCurrent").get("status") == "True", what="the condition")
    assert not worker.events("PolicyFailedOnCanary")


def test_a_policy_that_works_on_the_canary_reaches_the_others_and_an_aborted_one_does_not(
    make: Made, client: Client, api: ApiServer
) -> None:
    canary, worker = make("canary", canary="true"), make("worker")
    both = [canary, worker]
    publish(client, both, rollout=ROLLOUT)
    with running(canary), running(worker):
        eventually(lambda: rollout(canary).get("verdict") == "verified", what="the first policy verified")
        eventually(lambda: worker.condition("PolicyCurrent").get("status") == "True", what="the first policy")
        publish(client, both, rollout=ROLLOUT, modprobe={"deny": ["cramfs"]})
        eventually(lambda: "cramfs" in denies(canary), what="the canary")
        eventually(lambda: "cramfs" in denies(worker), what="the other node")
        publish(client, both, rollout={**ROLLOUT, "soak": "2m"}, modprobe={"deny": ["hfs"]})
        eventually(lambda: "hfs" in denies(canary), what="the canary")
        eventually(lambda: worker.condition("PolicyCurrent").get("reason") == "Soaking", what="soaking", seconds=60)
        assert "hfs" not in denies(worker)
        # A new node has nothing to fall back to: it is hardened with what there is.
        new = make("new")
        new.replace(new.policy, worker.policy.read_text())
        with running(new):
            eventually(lambda: "hfs" in denies(new), what="the new node")
        publish(client, both, rollout={**ROLLOUT, "soak": "2m", "urgent": True}, modprobe={"deny": ["hfs"]})
        eventually(lambda: "hfs" in denies(worker), what="the urgent policy")


def test_a_profile_that_fails_on_the_canary_is_aborted_and_a_good_one_reaches_the_others(
    make: Made, client: Client, api: ApiServer, tmp_path: Path
) -> None:
    """The ConfigMap of profiles changes, the policy does not; both nodes see the change immediately."""
    canary, worker = make("canary", canary="true"), make("worker")
    folder, both = tmp_path / "seccomp", [canary, worker]
    folder.mkdir()
    canary.replace(folder / "team.json", profile("SCMP_ACT_ERRNO"))
    publish(client, both, rollout=ROLLOUT, seccomp={"profiles": str(folder)})
    with running(canary), running(worker):
        eventually(lambda: rollout(canary).get("verdict") == "verified", what="the first profile verified")
        eventually(lambda: denies(worker, INSTALLED), what="the first profile")
        old, good = eventually(lambda: rollout(worker).get("revision"), what="a report"), denies(worker, INSTALLED)
        canary.replace(folder / "team.json", "{")
        eventually(lambda: rollout(canary).get("verdict") == "failed", what="the failure on the canary")
        eventually(lambda: worker.condition("PolicyCurrent").get("reason") == "CanaryFailed", what="the stop")
        worker.root.at(INSTALLED).unlink()
        eventually(lambda: denies(worker, INSTALLED) == good, what="the last profile, which the worker still keeps")
        assert rollout(worker)["revision"] == old
        shown = Person(api).types("rollout", "status")
        assert (shown.code, f"policy {rollout(worker)['target']}" in shown.out) == (1, True), shown.out
        done = Person(api).types("rollout", "abort", "--yes", "--reason", "broken")
        assert done.code == 0, done.error
        eventually(lambda: rollout(canary).get("revision") == old, what="the last profiles on the canary")
        eventually(lambda: worker.condition("PolicyCurrent").get("reason") == "Aborted", what="the abort")
        canary.replace(folder / "team.json", profile("SCMP_ACT_LOG"))  # another change: not aborted
        eventually(lambda: "SCMP_ACT_LOG" in denies(worker, INSTALLED), what="the corrected profile")
        eventually(lambda: rollout(worker) == {"v": 1, "revision": rollout(canary)["revision"]}, what="one revision")
        eventually(lambda: worker.annotation("policy") == canary.annotation("policy"), what="one hash")


def test_without_a_canary_a_policy_waits_until_it_is_promoted_and_the_next_one_waits_again(
    make: Made, client: Client, api: ApiServer
) -> None:
    worker = make("worker")
    (worker.port,) = free_ports(1)
    worker.config["metrics"] = {"address": f"127.0.0.1:{worker.port}"}
    held = 'node_hardening_policy_held_back{reason="NoCanaries"}'
    publish(client, [worker], rollout=ROLLOUT)
    with running(worker):
        eventually(lambda: worker.condition("PolicyCurrent").get("status") == "True", what="the first policy")
        assert held not in worker.metrics()
        nothing = Person(api).types("rollout", "promote", "--yes")
        assert (nothing.code, "nothing to promote" in nothing.error) == (2, True), nothing.error
        publish(client, [worker], rollout=ROLLOUT, modprobe={"deny": ["cramfs"]})
        eventually(lambda: worker.condition("PolicyCurrent").get("reason") == "NoCanaries", what="the wait")
        assert worker.metrics()[held] == 1
        done = Person(api).types("rollout", "promote", "--yes", "--reason", "no canary is there")
        assert done.code == 0, done.error
        eventually(lambda: "cramfs" in denies(worker), what="the promoted policy")
        assert held not in worker.metrics()
        eventually(lambda: worker.condition("PolicyCurrent").get("status") == "True", what="nothing held back")
        publish(client, [worker], rollout=ROLLOUT, modprobe={"deny": ["hfs"]})
        eventually(lambda: worker.condition("PolicyCurrent").get("reason") == "NoCanaries", what="the next wait")
        done = Person(api).types("rollout", "abort", "--yes")
        assert done.code == 0, done.error
        eventually(lambda: worker.condition("PolicyCurrent").get("reason") == "Aborted", what="the abort")
        assert "cramfs" in denies(worker)
        assert "hfs" not in denies(worker)
        shown = Person(api).types("rollout", "status")
        assert (shown.code, "kept the last policy on 1 node: aborted by" in shown.out) == (0, True), shown.out
        assert "pending on" not in shown.out
        publish(client, [worker], rollout=ROLLOUT, modprobe={"deny": ["cramfs"]})  # reverted
        eventually(lambda: worker.condition("PolicyCurrent").get("status") == "True", what="nothing is held back")


def profile(action: str) -> str:
    """A seccomp profile."""
    return json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chmod"], "action": action}]})
