"""Whole cycles against what other software does on a real cluster: webhooks, stubborn owners, kured, package runs."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agent.sandbox import builders
from agent.sandbox.faults import Fault, FaultKind
from tests.support.sites import LONGER, Site, emulated, kured_lock, pod_on

MakeSite = Callable[..., Site]
WEBHOOK = 'admission webhook "virt-launcher-eviction-interceptor.kubevirt.io" denied the request: Eviction triggered'
HOLD = "import fcntl, sys; f = open(sys.argv[1], 'w'); fcntl.lockf(f, 2); print(1, flush=True); sys.stdin.read()"


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeSite]:
    """Makes a site on an emulator."""
    with ExitStack() as stack:
        yield lambda **reboot: stack.enter_context(emulated(tmp_path / "site", reboot))


def _reason_is(site: Site, reason: str) -> None:
    """Waits until the node's status has this reason."""
    site.until(lambda: json.loads(site.annotation("node-1", "reboot-status") or "{}").get("reason") == reason, reason)


def test_a_webhook_that_answers_429_delays_its_own_pod_alone(make: MakeSite) -> None:
    """KubeVirt migrates the machine away and refuses until then: asked seldom, in its own words, others go on."""
    site = make(drain={"timeout": LONGER})
    site.add("node-1")
    for name in ("virt-launcher", "web-0", "web-1"):
        site.sandbox.create("pods", pod_on("node-1", name))
    refusal = Fault(
        FaultKind.STATUS, path="/virt-launcher/eviction$", code=429, reason="TooManyRequests", message=WEBHOOK
    )
    site.sandbox.add_fault(refusal)
    site.start()
    site.require()
    site.until(lambda: len(site.sandbox.list("pods")) == 1, "the other pods gone")
    site.until(lambda: WEBHOOK in "".join(site.history.messages("node-1", "DrainBlocked")), "DrainBlocked")
    site.says("node-1", "denied the request")
    site.sandbox.delete("pods", "virt-launcher")  # it has migrated
    site.until(site.all_rebooted, "the reboot, long before the timeout")
    assert site.evictions().count(("default", "virt-launcher")) <= 3


@pytest.mark.parametrize("on_timeout", ["abort", "delete"])
def test_a_workload_that_returns_to_the_cordoned_node_is_no_obstacle(make: MakeSite, on_timeout: str) -> None:
    """Its owner sets nodeName: evicted twice at most, then left running as a DaemonSet's, long before the timeout."""
    site = make(drain={"timeout": LONGER, "onTimeout": on_timeout})
    site.add("node-1")
    pinned = builders.workload("ReplicaSet", "instance-manager", replicas=1, grace_seconds=1)
    pinned["spec"]["template"]["spec"]["nodeName"] = "node-1"
    site.sandbox.create("replicasets", pinned)
    site.sandbox.create("pods", pod_on("node-1", "web"))
    site.start()
    site.require()
    site.until(site.all_rebooted, "the reboot")
    assert site.history.messages("node-1", "RebootFailed") == []
    assert len([name for _, name in site.evictions() if name.startswith("instance-manager")]) <= 2


def test_others_are_tried_while_a_pod_returns(make: MakeSite) -> None:
    """Their budget opens in the middle of the drain."""
    site = make(drain={"timeout": LONGER})
    site.add("node-1")
    pinned = builders.workload("ReplicaSet", "pinned", replicas=1, grace_seconds=1)
    pinned["spec"]["template"]["spec"]["nodeName"] = "node-1"
    site.sandbox.create("replicasets", pinned)
    site.sandbox.create("pods", pod_on("node-1", "db-0", labels={"app": "db"}))
    site.sandbox.create("poddisruptionbudgets", builders.budget("db", {"app": "db"}, max_unavailable=0))
    site.start()
    site.require()
    site.says("node-1", "left running: default/pinned")
    assert site.machines["node-1"].reboots == 0
    site.sandbox.delete("poddisruptionbudgets", "db")
    site.until(site.all_rebooted, "the reboot")


@pytest.mark.parametrize(
    ("namespace", "name"), [("kube-system", "kured"), ("kured", "kured"), ("node-remediation", "my-release-kured")]
)
def test_kureds_lock_counts_wherever_kured_is_installed(make: MakeSite, namespace: str, name: str) -> None:
    """By its annotation."""
    site = make()
    site.add("node-1")
    site.sandbox.add_node("node-2")
    if namespace != "kube-system":
        site.sandbox.create("namespaces", {"metadata": {"name": namespace}})
    kured = builders.workload("DaemonSet", name, namespace=namespace)
    kured["metadata"]["annotations"] = {"weave.works/kured-node-lock": kured_lock("node-2", several=False)}
    site.sandbox.create("daemonsets", kured)
    site.start()
    site.require()
    _reason_is(site, "KuredLocked")
    site.says("node-1", "held by node-2")
    assert site.machines["node-1"].reboots == 0
    path = f"/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}"
    site.client.patch(path, {"metadata": {"annotations": {"weave.works/kured-node-lock": None}}})
    site.until(site.all_rebooted, "the reboot once kured released it")


def test_a_package_run_in_progress_holds_the_reboot(make: MakeSite) -> None:
    """APT's lock is free when the run has ended, and nothing is drained before."""
    site = make()
    machine = site.add("node-1")
    site.sandbox.create("pods", pod_on("node-1", "web"))
    site.start()
    lock = machine.root.path / "var/lib/dpkg/lock-frontend"
    lock.parent.mkdir(parents=True, exist_ok=True)
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline()
    site.require()
    _reason_is(site, "BlockedByPackageManager")
    site.says("node-1", "APT or dpkg")
    assert (site.is_cordoned("node-1"), site.holder(), machine.reboots) == (False, "", 0)
    child.communicate()
    site.until(site.all_rebooted, "the reboot after the run")


def test_a_package_run_that_begins_during_the_drain_holds_the_command(make: MakeSite) -> None:
    """Asked again between the drain and the reboot command."""
    site = make(delay="5s")
    machine = site.add("node-1")
    site.sandbox.create("pods", pod_on("node-1", "web"))
    lock = machine.root.path / "var/lib/dpkg/lock-frontend"
    lock.parent.mkdir(parents=True, exist_ok=True)
    site.start()
    site.require()
    _reason_is(site, "Drained")
    child = subprocess.Popen([sys.executable, "-c", HOLD, str(lock)], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert child.stdout is not None
    assert child.stdout.readline()
    _reason_is(site, "BlockedByPackageManager")
    assert machine.reboots == 0
    child.communicate()
    site.until(site.all_rebooted, "the reboot after the run")


def test_the_sentinel_settles_before_the_lock_is_requested(make: MakeSite) -> None:
    """Each change of the file begins the time again."""
    site = make(sentinel={"settle": "3s"})
    machine = site.add("node-1")
    site.start()
    began = time.monotonic()
    site.require()
    site.says("node-1", "has to stay unchanged for 3s")
    site.until(lambda: site.is_cordoned("node-1") or site.holder(), "the lock")
    assert time.monotonic() - began > 3.0
    site.until(lambda: machine.reboots, "the reboot")


def test_windows_and_virtual_nodes_do_not_hold_the_pool(make: MakeSite) -> None:
    """Down as they may be; a node that an autoscaler removes does, and takes no lock itself."""
    site = make()
    site.add("node-1")
    site.sandbox.add_node("win-1", labels={"kubernetes.io/os": "windows"})
    site.sandbox.stop_kubelet("win-1")
    taints: list[dict[str, Any]] = [{"key": "ToBeDeletedByClusterAutoscaler", "effect": "NoSchedule"}]
    site.patch_node("node-1", {"spec": {"taints": taints}})
    site.start()
    site.require()
    site.says("node-1", "taint ToBeDeletedByClusterAutoscaler")
    assert site.holder() == ""
    site.patch_node("node-1", {"spec": {"taints": None}})
    site.until(site.all_rebooted, "the reboot")
