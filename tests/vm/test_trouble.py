"""A node in trouble: no space, a read-only /etc, a clock that is wrong. What was good stays, and the agent says so."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.vm.conftest import Boot
from tests.vm.harness import cluster
from tests.vm.harness.machine import Machine
from tests.vm.harness.node import PROGRAM, apply, audit, policy

DENY_FILE = "/etc/modprobe.d/kubernetes-blacklist.conf"
# Takes every block of the disk, root's reserve too, but for the number that is asked for.
FILL = """
import os, sys
fd = os.open("/var/filler", os.O_CREAT | os.O_WRONLY, 0o600)
size, step = 0, 1 << 30
while step >= 4096:
    try:
        os.posix_fallocate(fd, size, step)
        size += step
    except OSError:
        step //= 2
os.ftruncate(fd, max(size - 4096 * int(sys.argv[1]), 0))
os.fsync(fd)
"""


@pytest.fixture
def clean(node: Machine) -> Iterator[Machine]:
    """A node on which an older policy is in force; everything is put away afterwards."""
    policy(node, modprobe={}, seccomp={})
    assert apply(node).code == 0
    yield node
    node.sh("rm -rf /var/filler /etc/modprobe.d/* /var/lib/kubelet /var/lib/node-hardening")


@pytest.mark.parametrize("blocks", [0, 1, 3])
def test_a_disk_that_fills_up_leaves_the_last_good_state(clean: Machine, blocks: int) -> None:
    """With no block left, or so few that apply runs out of them in its midst: what could not be written is said with
    exit code 3, every file is the old one or the new one and whole, nothing is left lying about, and the next apply
    with space ends what was begun."""
    before = clean.get(DENY_FILE)
    # A policy whose file is larger than the blocks that are left.
    policy(clean, modprobe={"deny": [f"vm_module_{number}" for number in range(120)]}, seccomp={})
    clean.python(FILL, str(blocks))
    done = clean.run([PROGRAM, "apply"], check=False)
    assert done.code == 3, done.text
    assert "No space left on device" in done.text
    assert clean.get(DENY_FILE) == before
    assert clean.run(["/sbin/modprobe", "sctp"], check=False).code != 0
    assert clean.sh("find /etc /var/lib -xdev -name '.node-hardening-*'").out == ""
    clean.sh("rm /var/filler; sync")
    said = apply(clean)
    assert (said.code, "vm_module_119" in clean.get(DENY_FILE)) == (0, True), said.document


def test_a_read_only_etc_is_said_and_the_rest_is_done(clean: Machine) -> None:
    """The deny list cannot be written: exit code 3 with the file's name and why; seccomp is installed all the same;
    writable again, apply mends it."""
    clean.sh(f"rm {DENY_FILE}; rm -r /var/lib/kubelet; mount --bind /etc /etc; mount -o remount,bind,ro /etc")
    try:
        done = clean.run([PROGRAM, "apply"], check=False)
        assert done.code == 3, done.text
        assert "Read-only file system" in done.text
        assert DENY_FILE in done.text
        said = audit(clean)
        assert (said.code, said.status("modprobe/sctp"), said.status("modprobe/file")) == (1, "fail", "fail")
        assert said.status("seccomp/profile/prevent-chmod.json") == "pass"
    finally:
        clean.sh("umount /etc")
    assert apply(clean).code == 0


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_is_an_hour_off_changes_nothing(boot: Boot, tmp_path: Path, hours: int) -> None:
    """The node is hardened and reported, behind as well as ahead; times on the Node are the node's own."""
    wrong = datetime.now(UTC) + timedelta(hours=hours)
    machine = boot(f"clock{hours:+d}".replace("+", "p").replace("-", "m"), rtc=wrong.strftime("%Y-%m-%dT%H:%M:%S"))
    off = float(machine.sh("date +%s").out) - datetime.now(UTC).timestamp()
    assert abs(off - 3600 * hours) < 300, "the machine's clock is not wrong"
    with cluster.cluster(tmp_path) as api:
        api.join(machine, {"modprobe": {}, "seccomp": {}})
        cluster.eventually(lambda: api.annotation(machine.name, "status") == "hardened", what="hardened")
        cluster.eventually(lambda: api.events(machine.name, "NodeHardened"), what="Event")
        machine.sh(f"rm {DENY_FILE}")
        cluster.eventually(lambda: machine.sh(f"test -s {DENY_FILE}", check=False).code == 0, what="mended")
        cluster.eventually(lambda: api.events(machine.name, "DriftCorrected"), what="Event")
