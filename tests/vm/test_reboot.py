"""Reboots of two machines under systemd, the agents as services, one lock: for real, and with failures.

The tests go on with the same two machines, one after the other; each begins and ends with both of them idle.
"""

from __future__ import annotations

from pathlib import Path

from tests.support.operator_view import Operator, operator
from tests.vm.harness.cluster import UNIT, eventually
from tests.vm.harness.machine import Machine
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


def test_a_shutdown_of_two_minutes_passes_the_lock_on_to_no_other_node(pair: Pair, watcher: Watcher) -> None:
    """Longer than rebootTimeout: the agent that still runs reports it and keeps the lock, and the node that waits
    begins nothing. A delay inhibitor (as the kubelet's graceful shutdown has one) gets the time it asks for before. The
    node was cordoned by a user, and is cordoned afterwards."""
    machine, before = pair.machines["a"], {name: pair.boots(name) for name in pair.machines}
    pair.policy(rebootTimeout="1m")
    _stop_slowly(machine, 120)
    machine.put("/etc/systemd/logind.conf.d/delay.conf", "[Login]\nInhibitDelayMaxSec=60\n")
    machine.put("/usr/local/bin/inhibitor", _INHIBITOR, 0o755)
    machine.sh("rm -f /var/lib/was-asked /var/lib/had-its-time; systemctl restart systemd-logind")
    machine.sh("systemd-run -q --unit inhibitor systemd-inhibit --what=shutdown --mode=delay /usr/local/bin/inhibitor")
    machine.eventually("systemd-inhibit --list --no-legend | grep -q inhibitor")
    pair.api.client.patch("/api/v1/nodes/a", {"spec": {"unschedulable": True}})
    watcher.let_be("a")
    pair.want("a")
    eventually(lambda: watcher.phase("a") == "rebooting", what="a rebooting", seconds=CYCLE_SECONDS)
    pair.want("b")
    eventually(
        lambda: "shutting down for longer than rebootTimeout" in pair.api.annotation("a", "reboot"),
        what="a reports its long shutdown", seconds=CYCLE_SECONDS,
    )  # fmt: skip
    assert pair.status("b")["reason"] == "WaitingForLock"
    pair.machines["b"].sh("rm /var/run/reboot-required*")  # that it is its turn now is another test's
    eventually(
        lambda: pair.boots("a") == before["a"] + 1 and pair.idle(watcher), what="a rebooted", seconds=CYCLE_SECONDS
    )
    watcher.check()
    assert pair.boots("b") == before["b"]
    assert machine.sh("test -e /var/lib/stopped-slowly", check=False).code == 0, "the shutdown was cut short"
    assert machine.sh("ls /var/lib/was-asked /var/lib/had-its-time", check=False).code == 0, "it was not waited for"
    assert pair.cordoned("a"), "somebody else's cordon was undone"
    assert [one["message"] for one in pair.api.events("a", "RebootFailed")] == []
    pair.api.client.patch("/api/v1/nodes/a", {"spec": {"unschedulable": None}})


def _stop_slowly(machine: Machine, seconds: int) -> None:
    """A service that is stopped before the agent's own, as the pods of a node are before the kubelet's."""
    machine.put("/etc/systemd/system/slow.service", _SLOW.replace("SECONDS", str(seconds)))
    machine.sh("systemctl daemon-reload; systemctl start slow")


_SLOW = f"""[Unit]
After={UNIT}

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/rm -f /var/lib/stopped-slowly
ExecStop=/bin/sh -c 'sleep SECONDS; touch /var/lib/stopped-slowly; sync'
TimeoutStopSec=300
"""
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


def test_a_node_that_stays_down_is_rebooting_and_then_stuck(pair: Pair, watcher: Watcher, tmp_path: Path) -> None:
    """Held off after its reboot command, in a pool of one: annotation, condition, metric, `status`, `why` and the alert
    say rebooting, then stuck, with the next step. So they do for another node that joins the pool and waits; it begins
    nothing. Switched on after all, the node is verified, and then it is the other one's turn."""
    machine = pair.machines["a"]
    before = {name: pair.boots(name) for name in pair.machines}
    pair.policy(rebootTimeout="40s", verifyTimeout="1m")
    machine.sh("sync; systemctl poweroff")
    machine.await_off()
    watcher.power_was_cut("a")
    machine.start(come_back=False)
    eventually(lambda: pair.boots("a") == before["a"] + 1 and pair.idle(watcher), what="a is back")
    pair.label("a", _CONTROL_PLANE, "")
    ports = {name: one.metrics_port for name, one in pair.machines.items()}
    with operator(pair.api.api.kubeconfig(tmp_path / "kubeconfig"), tmp_path / "prometheus", ports) as on_call:
        eventually(lambda: on_call.query('up{node="a"} == 1'), what="scrapes of a")
        _stop_slowly(machine, 20)  # so that the phase is scraped, however busy this machine is
        pair.want("a")
        machine.await_off(CYCLE_SECONDS)
        _is_rebooting(pair, on_call)
        assert (watcher.holders(), pair.lease_events("RebootLockStuck")) == (["a"], [])
        _is_stuck(on_call)
        pair.policy("b", rebootTimeout="10s", verifyTimeout="10s")
        pair.label("b", _CONTROL_PLANE, "")
        pair.want("b")
        _holds_the_other(pair, on_call)
        assert (pair.cordoned("b"), pair.boots("b"), watcher.holders()) == (False, before["b"], ["a"])
    machine.start()
    eventually(
        lambda: pair.boots("a") == before["a"] + 2 and pair.boots("b") == before["b"] + 1 and pair.idle(watcher),
        what="a verified, then b rebooted", seconds=CYCLE_SECONDS,
    )  # fmt: skip
    watcher.check()
    for name in pair.machines:
        pair.label(name, _CONTROL_PLANE, None)


_CONTROL_PLANE = "node-role.kubernetes.io/control-plane"
_UNLOCK = "kubectl node-hardening unlock control-plane/0"


def _is_rebooting(pair: Pair, on_call: Operator) -> None:
    """What the node wrote before its command, and what is made of it."""
    assert "rebooting" in on_call.row("a"), on_call.row("a")
    why = on_call.why("a")
    assert (why["code"], why["next"]) == ("Rebooting", []), why
    status, condition = pair.status("a"), pair.api.condition("a", "RebootRequired")
    assert (status["phase"], status["reason"], pair.api.annotation("a", "reboot").split()[0]) == (
        "rebooting", "Rebooting", "rebooting",
    )  # fmt: skip
    assert (condition["status"], condition["reason"]) == ("True", "Rebooting")
    assert on_call.query('last_over_time(node_hardening_reboot_phase{node="a", phase="rebooting"}[1h])')


def _is_stuck(on_call: Operator) -> None:
    """By the age of its Lease: no other node looks."""
    eventually(lambda: "STUCK" in on_call.row("a"), what="STUCK in status", seconds=CYCLE_SECONDS, every_seconds=2.0)
    why = on_call.why("a")
    assert why["code"] == "NotBack", why
    assert why["next"][0].startswith("check the console of a and bring it back"), why
    assert why["next"][-1].startswith(_UNLOCK), why
    alert = eventually(lambda: on_call.alerts("NodeHardeningRebootNotBack"), what="the alert")
    assert [one["labels"]["node"] for one in alert] == ["a"]
    assert "Next: kubectl node-hardening why a" in alert[0]["annotations"]["description"]


def _holds_the_other(pair: Pair, on_call: Operator) -> None:
    """A node that waits marks the Lease, once it has seen no life of the holder for as long as the timeouts are."""
    stuck = eventually(lambda: pair.lease_events("RebootLockStuck"), what="Event", seconds=CYCLE_SECONDS)
    assert stuck[0]["message"].startswith("a "), stuck[0]["message"]
    eventually(lambda: pair.status("b")["reason"] == "HolderLost", what="b's status")
    assert pair.status("b")["holder"] == "a"
    why = on_call.why("b")
    assert (why["code"], why["next"][-1].startswith(_UNLOCK)) == ("LockStuck", True), why
    eventually(lambda: on_call.query('node_hardening_reboot_lock_stuck{node="b"} == 1'), what="metric")
    alert = eventually(lambda: on_call.alerts("NodeHardeningRebootLockStuck"), what="the alert")
    assert [one["labels"]["holder"] for one in alert] == ["a"]
