"""`demo --stay`: agents come and go with the manifest, ConfigMaps reach them, and nothing is left behind."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
import requests
import yaml

from agent import annotations as keys
from agent.errors import UsageError
from agent.sandbox.audit import AuditedMachine
from agent.sandbox.machines import Machine
from agent.sandbox.playground import DAEMONSET, POLICY, Playground
from agent.sandbox.rolling_reboot import NAMESPACE, Roll, wait_until
from tests.support.agents import ROOT
from tests.support.apiservers import ApiServer
from tests.support.typed import Person

MANIFEST = [one for one in yaml.safe_load_all((ROOT / "daemonset.yaml").read_text()) if one]
PLURALS = {"Namespace": "namespaces", "ConfigMap": "configmaps", "DaemonSet": "daemonsets"}
SECONDS = 60.0  # at most; it goes on as soon as what is waited for is there


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Playground]:
    """Two nodes, and no agent yet."""
    made = Playground(tmp_path / "ground", 2, print)
    try:
        made.start()
        yield made
    finally:
        made.stop()


def deploy(ground: Playground) -> None:
    """What `kubectl apply -f daemonset.yaml` makes of it, as far as the playground looks."""
    for document in MANIFEST:
        if document["kind"] in PLURALS:
            ground.sandbox.create(PLURALS[document["kind"]], document)


def becomes(ground: Playground, holds: Callable[[], bool]) -> bool:
    """Whether it comes to hold while the playground goes on."""
    return wait_until(holds, SECONDS, ground.step)


def shown_by(ground: Playground, name: str) -> dict[str, str]:
    """What the node shows."""
    node = ground.sandbox.get("nodes", name) or {}
    found: dict[str, str] = node["metadata"].get("annotations") or {}
    return found


def hardened(ground: Playground) -> bool:
    """All of them."""
    return all(shown_by(ground, name).get(keys.STATUS) == "hardened" for name in ground.names)


def put_policy(ground: Playground, text: str) -> None:
    """As `kubectl apply` of a changed ConfigMap."""
    ground.sandbox.update("configmaps", POLICY, lambda found: found.update(data={"config.yaml": text}), NAMESPACE)


def test_the_manifest_brings_agents_a_policy_reaches_them_and_a_reboot_comes_of_it(ground: Playground) -> None:
    """Nothing runs before it; all nodes have one policy; a refused one is named by the line that people wrote."""
    ground.step()
    assert all(keys.STATUS not in shown_by(ground, name) for name in ground.names)
    deploy(ground)
    assert becomes(ground, lambda: hardened(ground))
    before = {shown_by(ground, name)[keys.POLICY] for name in ground.names}
    assert len(before) == 1
    put_policy(ground, "modprobe:\n  lists: [kubernetes]\n  mode: loud\n")
    assert becomes(ground, lambda: "config.yaml:3" in shown_by(ground, "node-1").get(keys.CONFIG_PROBLEM, ""))
    put_policy(ground, "modprobe: {deny: [udf]}\n")
    asked = ground.folder / "node-2/root/etc/modprobe.d/kubernetes-blacklist.conf"
    assert "modprobe" in ground.off or becomes(ground, lambda: "udf" in asked.read_text())
    booted = (ground.folder / "node-1/root/proc/sys/kernel/random/boot_id").read_text()
    (ground.folder / "node-1/root/run/reboot-required").touch()
    assert becomes(ground, lambda: keys.REBOOT_HISTORY in shown_by(ground, "node-1"))
    assert (ground.folder / "node-1/root/proc/sys/kernel/random/boot_id").read_text() != booted
    assert keys.REBOOT_HISTORY not in shown_by(ground, "node-2")


def test_a_policy_that_fails_on_a_canary_stops_there_until_the_plugin_promotes_it(ground: Playground) -> None:
    """The agents' revision of a policy is the one that the plugin computes from the ConfigMap."""
    if "modprobe" in ground.off:
        pytest.skip("this machine lacks modprobe")
    ground.sandbox.update("nodes", "node-1", lambda found: found["metadata"]["labels"].update(canary="true"))
    (ground.folder / "node-1/root/etc/modprobe.d/other.conf").mkdir(parents=True)
    rollout = "rollout: {canary: canary=true, soak: 1s}\n"
    deploy(ground)
    put_policy(ground, rollout)
    assert becomes(ground, lambda: hardened(ground))
    put_policy(ground, f"{rollout}modprobe: {{file: /etc/modprobe.d/other.conf}}\n")
    person = Person(ApiServer.of(ground.sandbox))
    assert becomes(ground, lambda: "pending on 1 node: CanaryFailed" in person.types("rollout", "status").out)
    assert person.types("rollout", "promote", "--yes").code == 0
    assert becomes(ground, (ground.folder / "node-2/root/etc/modprobe.d/other.conf").is_file)


def test_profiles_of_a_configmap_reach_the_nodes_and_leave_them(ground: Playground) -> None:
    """As files where the kubelet looks, by the agents' own control."""
    deploy(ground)
    own = '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["ptrace"], "action": "SCMP_ACT_ERRNO"}]}'
    ours = {"team.json": own}
    ground.sandbox.update("configmaps", "node-hardening-seccomp", lambda found: found.update(data=ours), NAMESPACE)
    seccomp = ground.folder / "node-1/root/var/lib/kubelet/seccomp"
    assert becomes(ground, lambda: seccomp.is_dir() and {one.name for one in seccomp.iterdir()} == {"team.json"})
    ground.sandbox.update("configmaps", "node-hardening-seccomp", lambda found: found.update(data={}), NAMESPACE)
    assert becomes(ground, lambda: not list(seccomp.iterdir()))


def test_without_its_daemonset_no_agent_runs(ground: Playground) -> None:
    """As after uninstall.sh."""
    deploy(ground)
    assert becomes(ground, lambda: hardened(ground))
    ground.sandbox.delete("daemonsets", DAEMONSET, NAMESPACE)

    def running() -> list[str]:
        told = [" ".join(one.info["cmdline"] or ()) for one in psutil.process_iter(["cmdline"])]
        return [line for line in told if str(ground.folder) in line]

    # A command that an agent had just started outlives it for a moment.
    assert becomes(ground, lambda: not running()), running()


def test_what_was_interrupted_before_its_agents_ran_stops_too(tmp_path: Path) -> None:
    """Machines that never started are put away with those that did, and with the API server."""
    roll = Roll(tmp_path / "roll", 1)
    roll.sandbox.start()
    roll.sandbox.add_node("node-1")
    for make in (Machine, AuditedMachine):
        folder = tmp_path / make.__name__
        folder.mkdir()
        roll.machines.append(make(roll.sandbox, "node-1", folder))
    roll.stop()
    with pytest.raises(requests.ConnectionError):
        requests.get(f"{roll.sandbox.url}/healthz", timeout=10)


def test_a_folder_with_something_in_it_is_left_alone(tmp_path: Path) -> None:
    """It is the reader's own, perhaps."""
    (tmp_path / "thesis.tex").touch()
    with pytest.raises(UsageError, match="empty or not there"):
        Playground(tmp_path, 2, print)


def test_ctrl_c_is_its_good_end_and_puts_everything_away(tmp_path: Path) -> None:
    """The command as people run it: the way in is told first, the exit code is 0, the folder is gone."""
    folder = tmp_path / "ground"
    argv = [sys.executable, "-m", "agent", "demo", "--stay", str(folder)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(argv, cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = next(line for line in process.stdout if "KUBECONFIG" in line)
        assert str(folder / "kubeconfig") in told
        assert (folder / "kubeconfig").is_file()
        process.send_signal(signal.SIGINT)
        assert process.wait(300) == 0
    assert not folder.exists()
