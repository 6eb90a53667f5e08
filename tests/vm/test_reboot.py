"""Reboots of two machines under systemd, the agents as services, one lock: for real, with failures and power cuts.

The tests go on with the same two machines, one after the other; each begins and ends with both of them idle. The power
cuts, which take longest, stand early: a worker that has two tests left is given another file already.
"""

from __future__ import annotations

import json
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
import yaml

from tests.vm.conftest import Boot
from tests.vm.harness.channel import MachineGone
from tests.vm.harness.cluster import ClusterOfMachines, cluster, eventually
from tests.vm.harness.kubelet import StandInKubelet
from tests.vm.harness.machine import Machine
from tests.vm.harness.node import EVERYTHING_OFF, POLICY
from tests.vm.harness.watcher import STATE, Watcher

CUTS = int(os.environ.get("NHA_VM_CUTS", "20"))
CYCLE_SECONDS = float(os.environ.get("NHA_VM_CYCLE_SECONDS", "600"))  # a bound for what never comes
UNDER_WAY = ("cordoned", "draining", "rebooting", "verifying", "released")
REBOOT: dict[str, Any] = {
    "rebootTimeout": "3m", "verifyTimeout": "5m", "retryAfter": "2s",
    "lock": {"leaseDuration": "20s"}, "drain": {"timeout": "2m"},
}  # fmt: skip
# What a package's trigger leaves behind (update-notifier-common's notify-reboot-required).
SENTINEL = (
    "echo '*** System restart required ***' > /var/run/reboot-required; "
    "echo linux-image-6.1.0-99-cloud-amd64 >> /var/run/reboot-required.pkgs"
)


@dataclass
class Pair:
    """Two machines, their kubelets, the cluster they are in."""

    api: ClusterOfMachines
    machines: dict[str, Machine]
    kubelets: dict[str, StandInKubelet]

    def want(self, *names: str) -> None:
        """The OS of these machines asks for a reboot; of all when none is named. One that is down is left out."""
        for name in names or self.machines:
            self._forget_streak(name)
            try:
                self.machines[name].sh(SENTINEL, seconds=30)
            except (MachineGone, TimeoutError, RuntimeError):
                continue

    def _forget_streak(self, name: str) -> None:
        """An idle node's note goes, as on-call would take it away: the agent backs off from a node whose OS asks again
        and again, and here it does. A node that leaves idle meanwhile keeps its note (409)."""
        metadata = self.api.node(name)["metadata"]
        note = metadata.get("annotations", {}).get(STATE)
        if note and json.loads(note).get("phase") == "idle":
            gone = {"resourceVersion": metadata["resourceVersion"], "annotations": {STATE: None}}
            answer = self.api.client.patch(f"/api/v1/nodes/{name}", {"metadata": gone})
            assert answer.status_code in (200, 409), answer.text

    def policy(self, **reboot: Any) -> None:
        """Another policy in force on both, as a ConfigMap's change is: no restart."""
        text = yaml.safe_dump({**EVERYTHING_OFF, "modprobe": {}, "reboot": {**REBOOT, **reboot}})
        for machine in self.machines.values():
            machine.put(f"{POLICY}.new", text)
            machine.sh(f"mv {POLICY}.new {POLICY}")

    def boots(self, name: str) -> int:
        """How many boots of it were seen."""
        return len(self.kubelets[name].boots)

    def idle(self, watcher: Watcher) -> bool:
        """Nobody is on the way, nobody of ours cordoned, the lock free."""
        return all(watcher.phase(name) == "idle" for name in self.machines) and watcher.holders() == []

    def reasons(self, name: str) -> list[str]:
        """Reasons of this node's Events, in the order in which they were made."""
        items = self.api.client.get("/api/v1/events", fieldSelector=f"involvedObject.name={name}").json()["items"]
        return [one["reason"] for one in sorted(items, key=lambda one: int(one["metadata"]["resourceVersion"]))]

    def lease_events(self, reason: str) -> list[dict[str, Any]]:
        """Events about the lock."""
        items: list[dict[str, Any]] = self.api.client.get(
            "/api/v1/namespaces/node-hardening/events", fieldSelector=f"reason={reason}"
        ).json()["items"]
        return items


@pytest.fixture(scope="module")
def pair(boot_for_module: Boot, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """Two hardened nodes with pods on them; the second one's clock is an hour ahead."""
    with ExitStack() as stack:
        api = stack.enter_context(cluster(tmp_path_factory.mktemp("api"), replicas=4))
        ahead = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 3600))
        machines = {"a": boot_for_module("a", wait=False), "b": boot_for_module("b", wait=False, rtc=ahead)}
        kubelets = {}
        for name, machine in machines.items():
            machine.await_up()
            api.join(machine, {"modprobe": {}, "reboot": REBOOT})
            kubelets[name] = stack.enter_context(StandInKubelet(api.speaker, machine))
        made = Pair(api, machines, kubelets)
        for name in machines:
            eventually(lambda: api.annotation(name, "status") == "hardened", what=f"{name} hardened")  # noqa: B023
        yield made


@pytest.fixture
def watcher(pair: Pair) -> Iterator[Watcher]:
    """Looks for what must never be while a test runs; both are idle before it and after it."""
    pair.policy()
    with Watcher(pair.api.api.client()) as made:
        for name, kubelet in pair.kubelets.items():
            kubelet.booted = lambda boot, name=name: made.booted(name, boot)  # type: ignore[misc]
        eventually(lambda: pair.idle(made), what="both idle at the start", seconds=CYCLE_SECONDS)
        yield made
        for kubelet in pair.kubelets.values():
            kubelet.booted = lambda _: None


def cordoned(pair: Pair, name: str) -> bool:
    """Whether the Node is unschedulable."""
    return bool(pair.api.node(name)["spec"].get("unschedulable"))


def test_two_nodes_reboot_one_after_the_other(pair: Pair, watcher: Watcher) -> None:
    """Lock, cordon, drain, `systemctl reboot`, another boot id, verified, uncordoned, released; then the other one.
    The Events tell it in that order, and the kernel refuses sctp again before the lock is free."""
    before = {name: pair.boots(name) for name in pair.machines}
    pair.want()
    eventually(
        lambda: all(pair.boots(name) == before[name] + 1 for name in before) and pair.idle(watcher),
        what="both rebooted and idle", seconds=CYCLE_SECONDS,
    )  # fmt: skip
    watcher.check()
    for name, machine in pair.machines.items():
        assert not cordoned(pair, name)
        # Events come a moment after what they tell.
        eventually(lambda: "NodeUncordoned" in pair.reasons(name), what="the last Event")  # noqa: B023
        told = [one for one in pair.reasons(name) if one in _CYCLE]
        assert told == _CYCLE, told
        assert machine.sh("test -e /var/run/reboot-required", check=False).code != 0
        assert machine.run(["/sbin/modprobe", "sctp"], check=False).code != 0
        assert "linux-image" in pair.api.annotation(name, "reboot-history")
    drained = [one["message"] for name in pair.machines for one in pair.api.events(name, "Drained")]
    assert [one for one in drained if not one.startswith("Drained: 0 pods")], drained


_CYCLE = ["RebootRequired", "NodeCordoned", "Drained", "Rebooting", "RebootSucceeded", "NodeUncordoned"]


@pytest.mark.timeout(3000)
def test_power_cuts_at_random_moments_of_a_cycle(pair: Pair, watcher: Watcher) -> None:
    """Twenty times the power fails somewhere between cordon and release (and sometimes of the one that waits). Never
    two nodes on their way, never a reboot without the lock; and in the end both have rebooted, are uncordoned, and the
    lock is free."""
    seed = int(os.environ.get("NHA_VM_SEED", random.SystemRandom().randrange(1 << 32)))
    rng = random.Random(seed)
    struck: Counter[str] = Counter()
    for number in range(CUTS):
        # Every phase has its turn, or nearly all cuts would strike the one that lasts longest.
        phase = UNDER_WAY[number % len(UNDER_WAY)]
        busy = _under_way(pair, watcher, phase)
        time.sleep(rng.uniform(0.0, 15.0 if phase == "rebooting" else 1.0))
        victim = busy if rng.random() < 0.9 else next(name for name in pair.machines if name != busy)
        struck[watcher.phase(victim)] += 1
        pair.machines[victim].cut()
        watcher.power_was_cut(victim)
        pair.machines[victim].start(wait=False)
        assert watcher.broken == [], f"seed {seed}: {watcher.broken}"
    eventually(lambda: pair.idle(watcher), what=f"idle after the last cut (seed {seed})", seconds=CYCLE_SECONDS)
    print(f"power cuts by phase: {dict(struck)}; seed {seed}")  # noqa: T201 - pytest shows it with -rP, and on failure
    before = {name: pair.boots(name) for name in pair.machines}
    pair.want()
    eventually(
        lambda: all(pair.boots(name) == before[name] + 1 for name in before) and pair.idle(watcher),
        what=f"both rebooted once more (seed {seed})", seconds=CYCLE_SECONDS,
    )  # fmt: skip
    watcher.check()
    assert [name for name in pair.machines if cordoned(pair, name)] == []
    assert sum(struck[phase] for phase in UNDER_WAY) >= CUTS // 2, f"hardly a cut struck a cycle: {struck}"


def _under_way(pair: Pair, watcher: Watcher, phase: str) -> str:
    """Keeps asking for reboots until a node whose machine talks is in that phase; which one. When none is seen there
    for a while (a phase may last no longer than a look), one that is under way at all."""
    asked, begun = 0.0, time.monotonic()

    def look() -> str:
        nonlocal asked
        found = {name: watcher.phase(name) for name in pair.machines}
        exact = [name for name in found if found[name] == phase and pair.machines[name].boot]
        busy = [name for name in found if found[name] in UNDER_WAY]
        if not busy and time.monotonic() - asked > 5.0:
            pair.want()
            asked = time.monotonic()
        return (exact or (busy if time.monotonic() - begun > 60.0 else []) or [""])[0]

    return eventually(look, what=f"a node {phase}", seconds=CYCLE_SECONDS, every_seconds=0.05)


def test_a_node_is_uncordoned_only_when_it_is_proved_well(pair: Pair, watcher: Watcher) -> None:
    """Another boot id and Ready are not enough: while somebody's rule lets sctp in, the node stays cordoned and keeps
    the lock, and says why. Without the rule it is proved, uncordoned and released."""
    machine, before = pair.machines["a"], pair.boots("a")
    theirs = "/etc/modprobe.d/00-theirs.conf"
    machine.put(theirs, "install sctp /sbin/modprobe --ignore-install sctp\n")
    pair.want("a")
    eventually(
        lambda: pair.boots("a") == before + 1 and "not hardened" in pair.api.annotation("a", "reboot"),
        what="a rebooted and says that it is not hardened", seconds=CYCLE_SECONDS,
    )  # fmt: skip
    assert (cordoned(pair, "a"), watcher.holders(), watcher.phase("a")) == (True, ["a"], "verifying")
    machine.sh(f"rm {theirs}")
    eventually(lambda: pair.idle(watcher), what="a proved and released", seconds=CYCLE_SECONDS)
    watcher.check()
    assert (cordoned(pair, "a"), pair.boots("a")) == (False, before + 1)


def test_an_inhibitor_delays_the_reboot_and_a_cordon_of_people_stays(pair: Pair, watcher: Watcher) -> None:
    """A delay inhibitor (as the kubelet's graceful shutdown has one) gets the time it asks for, and the agent does not
    call the reboot failed meanwhile. The node was cordoned by a person, and is cordoned afterwards."""
    machine, before = pair.machines["a"], pair.boots("a")
    machine.put("/etc/systemd/logind.conf.d/delay.conf", "[Login]\nInhibitDelayMaxSec=60\n")
    machine.put("/usr/local/bin/inhibitor", _INHIBITOR, 0o755)
    machine.sh("rm -f /var/lib/was-asked /var/lib/had-its-time; systemctl restart systemd-logind")
    machine.sh("systemd-run -q --unit inhibitor systemd-inhibit --what=shutdown --mode=delay /usr/local/bin/inhibitor")
    machine.eventually("systemd-inhibit --list --no-legend | grep -q inhibitor")
    pair.api.client.patch("/api/v1/nodes/a", {"spec": {"unschedulable": True}})
    watcher.let_be("a")
    pair.want("a")
    eventually(lambda: pair.boots("a") == before + 1 and pair.idle(watcher), what="a rebooted", seconds=CYCLE_SECONDS)
    watcher.check()
    assert machine.sh("ls /var/lib/was-asked /var/lib/had-its-time", check=False).code == 0, "it was not waited for"
    assert cordoned(pair, "a"), "somebody else's cordon was undone"
    assert "RebootFailed" not in pair.reasons("a")
    pair.api.client.patch("/api/v1/nodes/a", {"spec": {"unschedulable": None}})


_INHIBITOR = """#!/bin/sh
until busctl get-property org.freedesktop.login1 /org/freedesktop/login1 org.freedesktop.login1.Manager \\
    PreparingForShutdown | grep -q true; do sleep 0.2; done
touch /var/lib/was-asked; sync
sleep 5
touch /var/lib/had-its-time; sync
"""


def test_a_reboot_command_that_fails_is_rolled_back(pair: Pair, watcher: Watcher) -> None:
    """RebootFailed with what the command said, no other boot, cordon lifted, lock free, the sentinel still wanted; with
    a command that works the next try ends well."""
    before = pair.boots("a")
    pair.policy(command=["/usr/bin/systemctl", "reboot", "--no-such-option"], retryAfter="10m")
    pair.want("a")
    failed = eventually(lambda: pair.api.events("a", "RebootFailed"), what="RebootFailed", seconds=CYCLE_SECONDS)
    assert "systemctl" in failed[0]["message"], failed[0]["message"]
    eventually(lambda: watcher.holders() == [] and not cordoned(pair, "a"), what="rolled back")
    assert pair.boots("a") == before
    assert len(pair.api.events("a", "RebootFailed")) == 1
    assert pair.machines["a"].sh("test -e /var/run/reboot-required", check=False).code == 0
    pair.policy()
    eventually(lambda: pair.boots("a") == before + 1 and pair.idle(watcher), what="a rebooted", seconds=CYCLE_SECONDS)
    watcher.check()


def test_a_node_that_does_not_come_back_holds_the_others(pair: Pair, watcher: Watcher) -> None:
    """It goes down and stays down: the other one never starts, an Event on the Lease says who and why. Switched on
    after all, it is proved well, and then it is the other one's turn."""
    machine = pair.machines["a"]
    before = {name: pair.boots(name) for name in pair.machines}
    pair.policy(rebootTimeout="20s", verifyTimeout="20s")
    machine.sh("sync; systemctl poweroff")
    machine.await_off()
    watcher.power_was_cut("a")
    machine.start(come_back=False)
    eventually(lambda: pair.boots("a") == before["a"] + 1 and pair.idle(watcher), what="a is back")
    pair.want("a")
    machine.await_off(CYCLE_SECONDS)
    pair.want("b")
    stuck = eventually(lambda: pair.lease_events("RebootLockStuck"), what="Event", seconds=CYCLE_SECONDS)
    assert stuck[0]["message"].startswith("a "), stuck[0]["message"]
    eventually(lambda: "a" in pair.api.annotation("b", "reboot"), what="b says whom it waits for")
    assert (cordoned(pair, "b"), pair.boots("b"), watcher.holders()) == (False, before["b"], ["a"])
    machine.start()
    eventually(
        lambda: pair.boots("a") == before["a"] + 2 and pair.boots("b") == before["b"] + 1 and pair.idle(watcher),
        what="a proved, then b rebooted", seconds=CYCLE_SECONDS,
    )  # fmt: skip
    watcher.check()
