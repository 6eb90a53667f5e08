"""What holds a reboot back on the machine itself: a real dpkg run in progress, and systemd's block inhibitors.

The tests share two machines; each begins and ends with both of them idle.
"""

from __future__ import annotations

from tests.vm.harness.cluster import eventually
from tests.vm.harness.machine import Machine
from tests.vm.harness.pair import CYCLE_SECONDS, Pair
from tests.vm.harness.watcher import Watcher

# A kernel's package touches the sentinel while dpkg still configures the rest of the transaction.
_POSTINST = """#!/bin/sh
echo '*** System restart required ***' > /var/run/reboot-required
until test -e /run/configured; do sleep 0.2; done
"""
_CONTROL = "Package: slow\nVersion: 1\nArchitecture: all\nMaintainer: nobody <nobody@example.com>\nDescription: slow\n"


def _inhibit(machine: Machine, unit: str) -> None:
    hold = "systemd-inhibit --what=shutdown --mode=block --who=raid-check --why='array rebuild' /bin/sleep 3600"
    machine.sh(f"systemd-run -q --unit {unit} {hold}")
    machine.eventually("systemd-inhibit --list --no-legend | grep -q raid-check")


def test_a_block_inhibitor_holds_the_reboot_and_is_named(pair: Pair, watcher: Watcher) -> None:
    """Nothing is locked, cordoned or drained before; when it is released the node reboots."""
    machine, before = pair.machines["a"], pair.boots("a")
    _inhibit(machine, "raid")
    pair.want("a")
    eventually(
        lambda: "block inhibitor held by raid-check (array rebuild)" in pair.api.annotation("a", "reboot"),
        what="a names the inhibitor", seconds=CYCLE_SECONDS,
    )  # fmt: skip
    assert (pair.cordoned("a"), pair.boots("a"), watcher.holders()) == (False, before, [])
    machine.sh("systemctl stop raid")
    eventually(lambda: pair.boots("a") == before + 1 and pair.idle(watcher), what="a rebooted", seconds=CYCLE_SECONDS)
    watcher.check()
    assert "RebootFailed" not in pair.reasons("a")


def test_the_default_command_does_not_go_over_a_block_inhibitor(pair: Pair, watcher: Watcher) -> None:
    """Before systemd 257 it would, as root: with the blocker off `systemctl reboot` refuses, and the cycle ends."""
    machine, before = pair.machines["a"], pair.boots("a")
    pair.policy(blockers={"inhibitors": False}, retryAfter="10m")
    _inhibit(machine, "raid")
    pair.want("a")
    failed = eventually(lambda: pair.api.events("a", "RebootFailed"), what="RebootFailed", seconds=CYCLE_SECONDS)
    assert "raid-check" in failed[0]["message"], failed[0]["message"]
    eventually(lambda: watcher.holders() == [] and not pair.cordoned("a"), what="rolled back")
    assert pair.boots("a") == before
    machine.sh("systemctl stop raid")
    pair.policy()
    eventually(lambda: pair.boots("a") == before + 1 and pair.idle(watcher), what="a rebooted", seconds=CYCLE_SECONDS)
    watcher.check()


def test_a_package_run_in_progress_holds_the_reboot_and_is_named(pair: Pair, watcher: Watcher) -> None:
    """dpkg configures a package whose script has written the sentinel: the node reboots when the run has ended."""
    machine, before = pair.machines["a"], pair.boots("a")
    machine.put("/var/tmp/slow/DEBIAN/control", _CONTROL)
    machine.put("/var/tmp/slow/DEBIAN/postinst", _POSTINST, 0o755)
    machine.sh("rm -f /run/configured; dpkg-deb -b /var/tmp/slow /var/tmp/slow.deb")
    machine.sh("systemd-run -q --unit upgrade dpkg -i /var/tmp/slow.deb")
    eventually(
        lambda: "package manager at work" in pair.api.annotation("a", "reboot"),
        what="a names the package run", seconds=CYCLE_SECONDS,
    )  # fmt: skip
    assert (pair.cordoned("a"), pair.boots("a"), watcher.holders()) == (False, before, [])
    machine.sh("touch /run/configured")
    eventually(lambda: pair.boots("a") == before + 1 and pair.idle(watcher), what="a rebooted", seconds=CYCLE_SECONDS)
    watcher.check()
    assert "install ok installed" in machine.sh("dpkg-query -W -f '${Status}' slow").out
