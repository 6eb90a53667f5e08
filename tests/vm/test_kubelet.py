"""The kubelet under systemd: a stand-in process with a real unit, drop-ins and files, and what systemd says of them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.vm.harness.machine import Machine
from tests.vm.harness.node import audit, policy

UNIT = "/lib/systemd/system/kubelet.service"
DROP_IN = "/etc/systemd/system/kubelet.service.d/10-kubeadm.conf"
FOR_ALL = "/etc/systemd/system/service.d/99-all.conf"  # a drop-in of every service: none but systemd says so
CONFIG = "/var/lib/kubelet/config.yaml"
KUBECONFIG = "/etc/kubernetes/kubelet.conf"
# It does nothing; it is found by its name and its arguments, as a wrapper script of a distribution is.
STAND_IN = "#!/usr/bin/python3 -I\nimport time\nwhile True:\n    time.sleep(600)\n"
SETTINGS = """apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: false}}
readOnlyPort: 0
"""


@pytest.fixture(scope="module")
def kubelet(node: Machine) -> Machine:
    """A node where it runs with a unit, a drop-in and a configuration file, all of them as they should be."""
    node.put("/usr/local/bin/kubelet", STAND_IN, 0o755)
    node.put(UNIT, "[Service]\nExecStart=/usr/local/bin/kubelet\n", 0o600)
    arguments = f"--kubeconfig={KUBECONFIG} --config={CONFIG} --hostname-override=vm"
    node.put(DROP_IN, f"[Service]\nExecStart=\nExecStart=/usr/local/bin/kubelet {arguments}\n", 0o600)
    node.put(CONFIG, SETTINGS, 0o600)
    node.put(KUBECONFIG, "apiVersion: v1\nkind: Config\n", 0o600)
    policy(node, kubelet={"probe": False})
    return node


@pytest.fixture
def running(kubelet: Machine) -> Iterator[Machine]:
    """Its kubelet started anew."""
    kubelet.sh(f"chmod 600 {UNIT} {DROP_IN} {CONFIG} {KUBECONFIG}; chown 0:0 {CONFIG}")
    kubelet.put(CONFIG, SETTINGS, 0o600)
    kubelet.sh("sleep 1.1; systemctl daemon-reload && systemctl restart kubelet")
    yield kubelet
    kubelet.sh("systemctl stop kubelet")


def test_the_live_process_is_found_with_what_it_was_started_with(running: Machine) -> None:
    """The drop-in's ExecStart counts, not the unit's; values name the file and line or the flag."""
    said = audit(running)
    assert said.status("kubelet/process") == "pass"
    anonymous = said.finding("kubelet/4.2.1")
    assert (anonymous["status"], anonymous["source"]) == ("pass", f"{CONFIG}:3")
    assert said.finding("kubelet/4.2.7")["source"] == "flag --hostname-override"
    assert said.status("kubelet/drift") == "pass"
    running.sh("systemctl stop kubelet")
    assert audit(running).status("kubelet/process") == "unknown"


def test_modes_of_the_unit_and_drop_ins_that_systemd_names(running: Machine) -> None:
    """FragmentPath and DropInPaths are asked of systemd: the unit is where it is, not where one would look first."""
    assert audit(running).status("kubelet/4.1.1") == "pass"
    running.sh(f"chmod 644 {UNIT}")
    told = audit(running).finding("kubelet/4.1.1")
    assert (told["status"], UNIT.removeprefix("/lib") in told["observed"]) == ("fail", True), told
    running.sh(f"chmod 600 {UNIT}; chmod 664 {DROP_IN}")
    told = audit(running).finding("kubelet/4.1.1")
    assert (told["status"], DROP_IN in told["observed"]) == ("fail", True), told
    running.sh(f"chmod 600 {DROP_IN}")
    running.put(FOR_ALL, "[Service]\nOOMScoreAdjust=0\n", 0o644)
    running.sh("systemctl daemon-reload")
    told = audit(running).finding("kubelet/4.1.1")
    running.sh(f"rm {FOR_ALL}; systemctl daemon-reload")
    assert (told["status"], FOR_ALL in told["observed"]) == ("fail", True), told


def test_modes_and_owners_of_its_files(running: Machine) -> None:
    """The files that the process was told of, wherever they are."""
    said = audit(running)
    assert [said.status(f"kubelet/4.1.{n}") for n in (5, 6, 9, 10)] == ["pass"] * 4
    running.sh(f"chmod 644 {CONFIG} {KUBECONFIG}; chown nobody {CONFIG}")
    said = audit(running)
    assert [said.status(f"kubelet/4.1.{n}") for n in (5, 6, 9, 10)] == ["fail", "pass", "fail", "fail"]


def test_a_file_that_is_newer_than_the_process_is_unknown(running: Machine) -> None:
    """What the file says is not what runs until the kubelet is started again."""
    running.sh("sleep 3")  # less than two seconds counts as the same moment
    running.put(CONFIG, SETTINGS.replace("readOnlyPort: 0", "readOnlyPort: 10255"), 0o600)
    drift = audit(running).finding("kubelet/drift")
    assert (drift["status"], CONFIG in drift["observed"] + drift["source"]) == ("unknown", True), drift
    running.sh("systemctl restart kubelet")
    said = audit(running)
    assert (said.status("kubelet/drift"), said.status("kubelet/4.2.4")) == ("pass", "fail")
