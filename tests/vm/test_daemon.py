"""The daemon as a service of systemd in a machine, reporting to an API server outside of it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import requests

from tests.support.daemons import get
from tests.vm.conftest import Boot
from tests.vm.harness.cluster import UNIT, ClusterOfMachines, cluster, eventually
from tests.vm.harness.machine import Machine
from tests.vm.harness.node import policy

DENY_FILE = "/etc/modprobe.d/kubernetes-blacklist.conf"
DENY_WRITE = "k8s-apparmor-example-deny-write"
NAME = "served"
TAINT = "node-hardening.io/not-hardened"
CONTROLS: dict[str, dict[str, Any]] = {"modprobe": {"deny": ["tipc"]}, "apparmor": {}, "seccomp": {}}


@pytest.fixture(scope="module")
def api(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterOfMachines]:
    """The API server."""
    with cluster(tmp_path_factory.mktemp("api")) as made:
        yield made


@pytest.fixture(scope="module")
def served(boot_for_module: Boot, api: ClusterOfMachines) -> Machine:
    """A machine whose agent has hardened it and said so."""
    machine = boot_for_module(NAME)
    api.join(machine, CONTROLS)
    eventually(lambda: api.annotation(NAME, "status") == "hardened", what="hardened")
    return machine


def test_the_node_shows_what_the_kernel_does(served: Machine, api: ClusterOfMachines) -> None:
    """Label, condition and Events, and a kernel that refuses what they say it refuses."""
    assert api.node(NAME)["metadata"]["labels"]["node-hardening.io/hardened"] == "true"
    conditions = eventually(
        lambda: [one for one in api.node(NAME)["status"]["conditions"] if one["type"] == "NodeHardened"], what="it"
    )
    assert conditions[0]["status"] == "True"
    eventually(lambda: api.events(NAME, "NodeHardened"), what="Event")
    assert served.run(["/sbin/modprobe", "sctp"], check=False).code != 0
    assert f"{DENY_WRITE} (enforce)" in served.get("/sys/kernel/security/apparmor/profiles")


def test_drift_is_corrected_while_it_runs(served: Machine, api: ClusterOfMachines) -> None:
    """The file that somebody removed is back without waiting for the next full pass, and the Event says so."""
    served.sh(f"rm {DENY_FILE}")
    served.eventually(f"test -s {DENY_FILE}")
    eventually(lambda: api.events(NAME, "DriftCorrected"), what="Event")
    assert served.run(["/sbin/modprobe", "sctp"], check=False).code != 0


def test_a_profile_that_is_removed_is_loaded_again(served: Machine) -> None:
    """Removed and replaced with the node's own parser: the kernel's count of changes wakes the agent, long before its
    next full pass."""
    loaded = f"grep -q '{DENY_WRITE} (enforce)' /sys/kernel/security/apparmor/profiles"
    served.sh(f"echo 'profile {DENY_WRITE} {{ }}' | apparmor_parser -K -R")
    served.eventually(loaded)
    served.sh(f"echo 'profile {DENY_WRITE} flags=(complain) {{ }}' | apparmor_parser -K -r")
    served.eventually(loaded)


def test_a_module_that_gets_in_is_reported(served: Machine, api: ClusterOfMachines) -> None:
    """Loaded past every rule: the Node says drifted at the next pass, and hardened again when it is gone."""
    served.run(["/sbin/modprobe", "--ignore-install", "tipc"])
    served.sh(f"systemctl kill -s HUP {UNIT}")
    # The pass before may still have reported what the test before did to a profile.
    eventually(lambda: "tipc" in api.annotation(NAME, "findings"), what="the module among the findings")
    assert api.annotation(NAME, "status") == "non-compliant"
    served.sh(f"rmmod tipc; systemctl kill -s HUP {UNIT}")
    eventually(lambda: api.annotation(NAME, "status") == "hardened", what="hardened")


def test_it_stops_cleanly_and_comes_back_after_a_kill(served: Machine, api: ClusterOfMachines) -> None:
    """SIGTERM: exit 0, soon. SIGKILL: systemd starts it again and it mends what happened meanwhile."""
    served.sh(f"systemctl stop {UNIT}")
    assert served.sh(f"systemctl show -P Result {UNIT}").out.strip() == "success"
    served.sh(f"systemctl start {UNIT}")
    served.eventually(f"systemctl is-active {UNIT}")
    served.sh(f"systemctl kill -s KILL {UNIT}; rm -f {DENY_FILE}")
    served.eventually(f"test -s {DENY_FILE}")
    eventually(lambda: api.annotation(NAME, "status") == "hardened", what="hardened")


def test_a_module_that_was_loaded_before_the_first_pass(served: Machine, api: ClusterOfMachines) -> None:
    """It stays in the kernel: the agent is ready, the condition False with the reason. By default that alone keeps no
    startup taint; with keepTaintUntilReboot it does."""
    served.sh(f"systemctl stop {UNIT}; rm {DENY_FILE}; modprobe sctp")
    _taint(api)
    served.sh(f"systemctl start {UNIT}")
    eventually(lambda: _taints(api) == [], what="the taint removed")
    condition = api.condition(NAME, "NodeHardened")
    assert (condition["status"], condition["reason"], "sctp" in condition["message"]) == ("False", "NotCompliant", True)
    assert "reboot" in api.annotation(NAME, "findings")
    assert _ready(served) == (200, "ready")
    assert "non-compliant" in eventually(lambda: api.events(NAME, "StartupTaintRemoved"), what="Event")[0]["message"]
    policy(served, **CONTROLS, status={"keepTaintUntilReboot": True})
    served.sh(f"systemctl stop {UNIT}")
    _taint(api)
    served.sh(f"systemctl start {UNIT}")
    eventually(lambda: _ready(served)[0] == 200, what="ready")
    assert (api.annotation(NAME, "status"), _taints(api)) == ("non-compliant", [TAINT])


def _ready(machine: Machine) -> tuple[int, str]:
    try:
        answer = get(f"http://127.0.0.1:{machine.metrics_port}/readyz")
    except requests.RequestException:
        return 0, "nothing answers"
    return answer.status_code, answer.text.strip()


def _taint(api: ClusterOfMachines) -> None:
    taint = {"key": TAINT, "effect": "NoSchedule"}
    answer = api.client.patch(f"/api/v1/nodes/{NAME}", {"spec": {"taints": [taint]}})
    assert answer.status_code == 200, answer.text


def _taints(api: ClusterOfMachines) -> list[str]:
    return [taint["key"] for taint in api.node(NAME)["spec"].get("taints", [])]


def test_after_a_power_cut_the_node_is_hard_before_anybody_asks(served: Machine, api: ClusterOfMachines) -> None:
    """What was written is on the disk, whole; AppArmor's profiles, which a kernel forgets, are loaded again."""
    before = served.boot
    served.cut()
    served.start()
    assert served.boot != before
    assert "install sctp /bin/false" in served.get(DENY_FILE)
    assert served.run(["/sbin/modprobe", "sctp"], check=False).code != 0
    served.eventually(f"grep -q '{DENY_WRITE} (enforce)' /sys/kernel/security/apparmor/profiles")
    eventually(lambda: api.annotation(NAME, "status") == "hardened", what="hardened")
    eventually(lambda: _taints(api) == [], what="the startup taint removed")
