"""Reboots of two machines under systemd, the agents as services, one lock: for real, and with failures.

The tests go on with the same two machines, one after the other; each begins and ends with both of them idle.
"""

from __future__ import annotations

from tests.vm.harness.cluster import eventually
from tests.vm.harness.pair import CYCLE_SECONDS, Pair
from tests.vm.harness.watcher import Watcher


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
        assert not pair.cordoned(name)
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


def test_a_node_is_uncordoned_only_when_it_is_verified(pair: Pair, watcher: Watcher) -> None:
    """Another boot id and Ready are not enough: while somebody's rule lets sctp in, the node stays cordoned and keeps
    the lock, and says why. Without the rule it is proved, uncordoned and released."""
    machine, before = pair.machines["a"], pair.boots("a")
    theirs = "/etc/modprobe.d/00-theirs.conf"
    pair.want("a")
    # After the cordon: what did not pass before it would not be held against the node.
    busy = ("cordoned", "draining", "rebooting")
    eventually(lambda: watcher.phase("a") in busy, what="a cycle of a", seconds=CYCLE_SECONDS, every_seconds=0.05)
    machine.put(theirs, "install sctp /sbin/modprobe --ignore-install sctp\n")
    eventually(
        lambda: pair.boots("a") == before + 1 and "not hardened" in pair.api.annotation("a", "reboot"),
        what="a rebooted and says that it is not hardened", seconds=CYCLE_SECONDS,
    )  # fmt: skip
    assert (pair.cordoned("a"), watcher.holders(), watcher.phase("a")) == (True, ["a"], "verifying")
    machine.sh(f"rm {theirs}")
    eventually(lambda: pair.idle(watcher), what="a proved and released", seconds=CYCLE_SECONDS)
    watcher.check()
    assert (pair.cordoned("a"), pair.boots("a")) == (False, before + 1)


def test_an_inhibitor_delays_the_reboot_and_a_foreign_cordon_stays(pair: Pair, watcher: Watcher) -> None:
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
    assert pair.cordoned("a"), "somebody else's cordon was undone"
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
    eventually(lambda: watcher.holders() == [] and not pair.cordoned("a"), what="rolled back")
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
    assert (pair.cordoned("b"), pair.boots("b"), watcher.holders()) == (False, before["b"], ["a"])
    machine.start()
    eventually(
        lambda: pair.boots("a") == before["a"] + 2 and pair.boots("b") == before["b"] + 1 and pair.idle(watcher),
        what="a proved, then b rebooted", seconds=CYCLE_SECONDS,
    )  # fmt: skip
    watcher.check()
