"""The daemon as a process, with daemonset.yaml's rights, against an API server over HTTP."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import requests

from agent.sandbox.faults import Fault, FaultKind
from tests.support import agents
from tests.support.agents import Agent, eventually, running
from tests.support.apiservers import ApiServer, Client
from tests.support.programs import needed

DENY_FILE = "/etc/modprobe.d/kubernetes-blacklist.conf"
ALLOW_ALL = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chmod"], "action": "SCMP_ACT_ERRNO"}]}

Make = Callable[..., Agent]


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


@pytest.fixture
def make(api: ApiServer, client: Client, node: str, tmp_path: Path) -> Make:
    """Makes this test's agent, not yet started."""
    agents.install(client)

    def made(**config: Any) -> Agent:
        return Agent(api, client, node, tmp_path / node, config, port=_free_port())

    return made


@pytest.fixture
def agent(make: Make) -> Iterator[Agent]:
    """A running agent whose first pass is on the Node."""
    with running(make()) as started:
        eventually(lambda: started.annotation("status"), what="status annotation")
        yield started


def test_a_fresh_node_shows_what_was_found(agent: Agent) -> None:
    """Annotations, condition and label as design.md 5 has them."""
    assert agent.annotation("status") == "hardened"
    assert "modprobe: 7/7 passed" in (agent.annotation("summary") or "")
    assert agent.annotation("version")
    assert "kubernetes-blacklist.conf" in (agent.annotation("last-change") or "")
    condition = eventually(lambda: agent.condition("NodeHardened"), what="condition")
    assert (condition["status"], condition["reason"]) == ("True", "Hardened")
    assert agent.shown()["metadata"]["labels"]["node-hardening.io/hardened"] == "true"
    assert agent.root.at(DENY_FILE).exists()


def test_other_peoples_keys_are_left_alone(make: Make, client: Client, node: str) -> None:
    """Annotations, labels, taints and conditions of others are the same after the agent has written its own."""
    path = f"/api/v1/nodes/{node}"
    theirs = {"metadata": {"annotations": {"a.example/x": "1"}, "labels": {"b.example/y": "2"}}}
    client.patch(path, {**theirs, "spec": {"taints": [{"key": "gpu", "effect": "NoSchedule"}]}})
    ready = {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": "m"}
    client.patch(f"{path}/status", {"status": {"conditions": [ready]}}, "strategic")
    with running(make()) as agent:
        eventually(lambda: agent.condition("NodeHardened"), what="condition")
        shown = agent.shown()
    assert shown["metadata"]["annotations"]["a.example/x"] == "1"
    assert shown["metadata"]["labels"]["b.example/y"] == "2"
    assert [taint["key"] for taint in shown["spec"]["taints"]] == ["gpu"]
    assert agent.condition("Ready")["reason"] == "KubeletReady"


@pytest.mark.emulator_only
def test_it_is_ready_when_it_works_and_says_what_is_missing(make: Make) -> None:
    """A pass that finished and an API server that was reached; a node that does not comply is no reason."""
    agent = make()
    # Loaded before the first pass, as on a node that the agent comes to late: it stays until a reboot.
    agent.root.write("/proc/modules", "sctp 409600 2 - Live 0x0000000000000000\n")
    sandbox = agent.api.sandbox
    assert sandbox is not None
    sandbox.away(60)
    with running(agent):
        eventually(lambda: agent.probe("/healthz") == 200, what="healthz")
        eventually(agent.root.at(DENY_FILE).exists, what="a pass")
        answer = requests.get(f"http://127.0.0.1:{agent.port}/readyz", timeout=300)
        assert answer.status_code == 503
        assert "the API server has not been reached yet" in answer.text
        sandbox.back()
        eventually(lambda: agent.probe("/readyz") == 200, what="ready")
        eventually(lambda: agent.condition("NodeHardened").get("status") == "False", what="condition")


def test_the_startup_taint_goes_only_after_verification(make: Make, client: Client, node: str) -> None:
    """A node that joins tainted keeps the taint while a control fails, and loses only that taint once it is well."""
    taints = [
        {"key": "node-hardening.io/not-hardened", "effect": "NoSchedule"},
        {"key": "dedicated", "value": "x", "effect": "NoExecute"},
    ]
    client.patch(f"/api/v1/nodes/{node}", {"spec": {"taints": taints}})
    agent = make()
    # A folder in the file's place: the deny list cannot be written.
    agent.root.at(DENY_FILE).mkdir(parents=True)
    with running(agent):
        eventually(lambda: agent.annotation("status") == "failed", what="status failed")
        assert len(agent.shown()["spec"]["taints"]) == 2
        assert agent.probe("/readyz") == 200  # the agent works; that the node does not comply is the condition's
        assert agent.shown()["metadata"]["labels"]["node-hardening.io/hardened"] == "false"
        agent.root.at(DENY_FILE).rmdir()
        eventually(lambda: len(agent.shown()["spec"].get("taints", [])) == 1, what="our taint lifted")
        assert agent.shown()["spec"]["taints"][0]["key"] == "dedicated"
        eventually(lambda: agent.events("StartupTaintRemoved"), what="event")


def test_a_module_that_was_loaded_before_holds_neither_readiness_nor_by_default_the_taint(
    make: Make, client: Client, node: str
) -> None:
    """It stays in the kernel until a reboot: ready, condition False with the reason; the taint is up to the policy."""
    taint = {"key": "node-hardening.io/not-hardened", "effect": "NoSchedule"}
    client.patch(f"/api/v1/nodes/{node}", {"spec": {"taints": [taint]}})
    agent = make()
    agent.root.write("/proc/modules", "sctp 409600 2 - Live 0x0000000000000000\n")
    agent.config["status"] = {"keepTaintUntilReboot": True}
    agent.write_policy()
    with running(agent):
        condition = eventually(lambda: agent.condition("NodeHardened"), what="condition")
        assert (condition["status"], condition["reason"]) == ("False", "NotCompliant")
        assert "sctp" in condition["message"]
        eventually(lambda: agent.probe("/readyz") == 200, what="ready")
        assert agent.shown()["spec"]["taints"] == [taint]
        agent.write_policy(status={})
        eventually(lambda: not agent.shown()["spec"].get("taints"), what="the taint removed")
        (event,) = eventually(lambda: agent.events("StartupTaintRemoved"), what="event")
        assert "non-compliant" in event["message"]
        assert agent.condition("NodeHardened")["status"] == "False"
        assert agent.shown()["metadata"]["labels"]["node-hardening.io/hardened"] == "false"


def test_kubectl_describe_shows_the_events(agent: Agent, tmp_path: Path) -> None:
    """What on-call types first shows conditions, annotations and Events of the agent."""
    eventually(lambda: agent.events("NodeHardened"), what="event")
    kubeconfig = agent.api.kubeconfig(tmp_path / "admin.kubeconfig")
    told = subprocess.run(
        [needed("kubectl"), "--kubeconfig", str(kubeconfig), "describe", "node", agent.node],
        capture_output=True, text=True, timeout=300, check=True,
    ).stdout  # fmt: skip
    for word in ("NodeHardened", "node-hardening.io/summary", "node-hardening-agent", "new -> hardened"):
        assert word in told


def test_a_changed_profile_reaches_node_and_annotations(agent: Agent) -> None:
    """A profile put into the mounted folder is installed and changes the policy hash; no interval is waited for."""
    before = agent.annotation("policy")
    agent.replace(agent.profiles / "seccomp" / "team.json", json.dumps(ALLOW_ALL))
    installed = agent.root.at("/var/lib/kubelet/seccomp/team.json")
    eventually(installed.exists, what="profile installed")
    eventually(lambda: agent.annotation("policy") != before, what="policy hash")
    (agent.profiles / "seccomp" / "team.json").unlink()
    eventually(lambda: not installed.exists(), what="profile removed")


def test_a_drift_is_mended_and_counted(agent: Agent) -> None:
    """What somebody changes on the node is put right at once, said in an Event and counted."""
    wanted = agent.root.at(DENY_FILE).read_text()
    agent.root.write(DENY_FILE, "# nothing is denied\n")
    eventually(lambda: agent.root.at(DENY_FILE).read_text() == wanted, what="mended")
    eventually(lambda: agent.events("DriftCorrected"), what="event")
    eventually(
        lambda: agent.metrics()['node_hardening_drift_corrected_total{control="modprobe"}'] == 1, what="counted once"
    )


def test_what_is_taken_from_the_node_comes_back(agent: Agent) -> None:
    """Annotations, label and condition that somebody removes are there again; nothing else is touched."""
    path = f"/api/v1/nodes/{agent.node}"
    agent.client.patch(path, {"metadata": {"annotations": {"node-hardening.io/status": None}}})
    eventually(lambda: agent.annotation("status") == "hardened", what="annotation again")
    agent.client.patch(path, {"metadata": {"labels": {"node-hardening.io/hardened": "false"}}})
    eventually(lambda: agent.shown()["metadata"]["labels"]["node-hardening.io/hardened"] == "true", what="label again")
    gone = {"status": {"conditions": [{"type": "NodeHardened", "$patch": "delete"}]}}
    agent.client.patch(f"{path}/status", gone, "strategic")
    eventually(lambda: agent.condition("NodeHardened"), what="condition again")


def test_a_bad_configuration_is_refused_and_survived(agent: Agent) -> None:
    """Event and annotation name file, line and key; the last good policy stays in force; the mended one is taken."""
    agent.replace(agent.policy, "modprobe: {mode: enforced}\n")
    told = eventually(lambda: agent.annotation("config-problem") or "", what="annotation")
    assert f"{agent.policy}:1: modprobe.mode" in told
    assert eventually(lambda: agent.events("ConfigRejected"), what="event")[0]["type"] == "Warning"
    assert agent.metrics()["node_hardening_config_rejected"] == 1
    agent.root.write(DENY_FILE, "# nothing is denied\n")
    eventually(lambda: "sctp" in agent.root.at(DENY_FILE).read_text(), what="last good policy still enforced")
    agent.write_policy(modprobe={"deny": ["tipc"]})
    eventually(lambda: "tipc" in agent.root.at(DENY_FILE).read_text(), what="the new policy")
    eventually(lambda: agent.annotation("config-problem") is None, what="annotation gone")


def test_a_restart_into_a_broken_configuration_keeps_the_last_good_one(agent: Agent) -> None:
    """The copy on the node is what the next process falls back on."""
    agent.write_policy(modprobe={"deny": ["tipc"]})
    eventually(lambda: "tipc" in agent.root.at(DENY_FILE).read_text(), what="policy with tipc")
    assert agent.stop() == 0
    agent.replace(agent.policy, "modprobe: [\n")
    agent.root.at(DENY_FILE).unlink()
    agent.start()
    eventually(agent.root.at(DENY_FILE).exists, what="hardened again")
    assert "tipc" in agent.root.at(DENY_FILE).read_text()
    eventually(lambda: bool(agent.annotation("config-problem")), what="the problem is said")


def test_without_any_valid_configuration_nothing_is_claimed(make: Make) -> None:
    """A node that never had a policy is unknown, not hardened, not ready; and recovers when the file is mended."""
    agent = make()
    agent.replace(agent.policy, "metrics: {address: nowhere}\n")
    with running(agent):
        eventually(lambda: agent.annotation("status") == "unknown", what="status")
        eventually(lambda: agent.condition("NodeHardened").get("status") == "Unknown", what="condition")
        assert not agent.root.at(DENY_FILE).exists()
        agent.write_policy()
        eventually(lambda: agent.annotation("status") == "hardened", what="hardened after all")


def test_sigterm_ends_it_quickly_and_cleanly(agent: Agent) -> None:
    """Exit code 0 within five seconds, the node as it was, no temporary files left."""
    assert agent.stop(seconds=5.0) == 0
    assert agent.root.at(DENY_FILE).exists()
    assert not list(agent.root.path.rglob(".node-hardening-*"))


def test_a_rotated_token_is_picked_up(agent: Agent) -> None:
    """The file is read again when it changes and on 401; reports go on."""
    if agent.api.sandbox is not None:
        agent.api.sandbox.revoke_token(agent.token_file.read_text())
    agent.token_file.write_text(agents.token(agent.client, agent.node))
    agent.write_policy(modprobe={"deny": ["tipc"]})
    eventually(lambda: "denies 7" in (agent.annotation("last-change") or ""), what="a report with the new token")


@pytest.mark.emulator_only
def test_idle_passes_ask_the_api_server_nothing(make: Make) -> None:
    """More than a hundred passes after the first one: no request but what the watch needs to reconnect."""
    with running(make(reboot={"mode": "enforce"})) as agent:
        eventually(lambda: (agent.annotation("reboot") or "").startswith("not required"), what="reboot annotation")
        _hundred_idle_passes(agent)


def _hundred_idle_passes(agent: Agent) -> None:
    sandbox = agent.api.sandbox
    assert sandbox is not None
    eventually(lambda: agent.condition("NodeHardened") and agent.events("NodeHardened"), what="first report")
    mine = f"({agent.node})"
    eventually(lambda: _settled(agent), what="nothing more to write")
    before = [one for one in sandbox.requests if mine in one.user_agent]
    passes = agent.metrics()["node_hardening_passes_total"]
    for number in range(1, 102):
        agent.signal(signal.SIGHUP)
        eventually(lambda: agent.metrics()["node_hardening_passes_total"] >= passes + number, what="a pass")  # noqa: B023
    after = [one for one in sandbox.requests if mine in one.user_agent][len(before) :]
    assert [f"{one.method} {one.path}" for one in after if one.verb != "watch"] == []


def _settled(agent: Agent) -> bool:
    before = agent.metrics()["node_hardening_api_requests_total"]
    passes = agent.metrics()["node_hardening_passes_total"]
    agent.signal(signal.SIGHUP)
    eventually(lambda: agent.metrics()["node_hardening_passes_total"] > passes, what="a pass")
    return agent.metrics()["node_hardening_api_requests_total"] == before


@pytest.mark.emulator_only
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_the_api_server_away_for_a_minute(make: Make) -> None:
    """Away at the start and again in the middle: the node is hardened meanwhile, and everything is reported after."""
    agent = make()
    sandbox = agent.api.sandbox
    assert sandbox is not None
    with ExitStack() as stack:
        sandbox.away(60)
        stack.callback(sandbox.back)
        stack.enter_context(running(agent))
        eventually(agent.root.at(DENY_FILE).exists, what="hardened while the API server is away")
        assert agent.probe("/readyz") == 503
        eventually(lambda: _try(lambda: agent.annotation("status") == "hardened"), what="reported", seconds=150)
        eventually(lambda: agent.probe("/readyz") == 200, what="ready once its watch is back", seconds=60)
        eventually(lambda: agent.events("NodeHardened"), what="event")
        sandbox.away(60)
        agent.root.write(DENY_FILE, "# nothing is denied\n")
        eventually(lambda: "sctp" in agent.root.at(DENY_FILE).read_text(), what="mended while it is away")
        eventually(lambda: _try(lambda: agent.events("DriftCorrected")), what="told afterwards", seconds=150)
        assert agent.is_running


@pytest.mark.emulator_only
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_five_hundred_faults(api: ApiServer, client: Client, unique: str, tmp_path: Path) -> None:
    """Errors, throttling, cut and lost answers at random, on six nodes: no crash, no lost report, no hot loop."""
    sandbox = api.sandbox
    assert sandbox is not None
    agents.install(client)
    names = [f"{unique}-{number}" for number in range(6)]
    for name in names:
        assert client.post("/api/v1/nodes", {"metadata": {"name": name}}).status_code == 201
    fleet = [Agent(api, client, name, tmp_path / name, port=_free_port()) for name in names]
    with ExitStack() as stack:
        for agent in fleet:
            stack.enter_context(running(agent))
        for agent in fleet:
            eventually(lambda: agent.annotation("status"), what="status annotation")  # noqa: B023
        mine = rf"\({unique}-"
        kinds = [
            *(Fault(FaultKind.STATUS, agent=mine, probability=0.06, code=code) for code in (500, 503, 409)),
            Fault(FaultKind.STATUS, agent=mine, probability=0.06, code=429, retry_after=0),
            *(
                Fault(kind, agent=mine, probability=0.06)
                for kind in (FaultKind.DROP, FaultKind.LOSE_ANSWER, FaultKind.TRUNCATE)
            ),
        ]
        numbers = [sandbox.add_fault(kind) for kind in kinds]
        stack.callback(sandbox.clear_faults)

        def hits() -> int:
            return sum(sandbox.fault_hits().get(number, 0) for number in numbers)

        struck = turn = 0
        while struck < 500:
            turn += 1
            assert turn < 2000, f"only {struck} faults struck"
            for agent in fleet:
                agent.write_policy(modprobe={"deny": [f"mod{turn}"]})
            last = fleet[turn % len(fleet)]
            eventually(lambda: f"mod{turn}" in last.root.at(DENY_FILE).read_text(), what="policy in force")  # noqa: B023
            sandbox.cut_watches()
            struck = hits()
        sandbox.clear_faults()
        sent = [one for one in sandbox.requests if f"({unique}-" in one.user_agent]
        assert len(sent) < 20 * struck, "a hot loop"
        for agent in fleet:
            agent.write_policy(modprobe={"deny": ["tipc"]})
        for agent in fleet:
            eventually(lambda: _reported(agent), what="the last report", seconds=120)  # noqa: B023
            assert agent.annotation("status") == "hardened"
            assert agent.is_running
            assert not [*agent.logged("thread_crashed"), *agent.logged("reconcile_failed")]


def _reported(agent: Agent) -> bool:
    """Whether the policy on the Node is the newest one that the agent has in force."""
    if "tipc" not in agent.root.at(DENY_FILE).read_text():
        return False
    policy = next(key for key in agent.metrics() if key.startswith("node_hardening_policy_info"))
    return f'hash="{agent.annotation("policy")}"' in policy


def _try(look: Callable[[], Any]) -> Any:
    """The answer, None while nobody can be asked."""
    import requests

    try:
        return look()
    except requests.RequestException:
        return None
