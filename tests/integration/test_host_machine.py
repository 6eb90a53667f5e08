"""The machine behind the tree: processes, boot id, uptime."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from agent.errors import HostError, HostFileError, HostFileMissing
from agent.host import Host, Program
from agent.host.processes import ProcessEntry, boot_time
from tests.support.agents import eventually
from tests.support.node_tree import NodeTree, end, real_node, waiting_program

BOOT_ID = "11111111-2222-3333-4444-555555555555"


def boot_id_file(root: Path, content: str) -> Path:
    """A tree with a /proc of its own."""
    file = root / "proc/sys/kernel/random/boot_id"
    file.parent.mkdir(parents=True)
    file.write_text(content)
    return file


@pytest.fixture
def child(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process with known argv and working folder."""
    with subprocess.Popen(["/bin/sleep", "1000"], cwd=tmp_path) as process:
        yield process
        process.kill()


def test_a_process_is_seen_as_it_was_started(tmp_path: Path) -> None:
    """Program, argv, working directory, unit and start of a real one."""
    with real_node(tmp_path / "node") as node:
        child = node.start("kubelet", "--v=2", "a b", cwd=tmp_path)
        (seen,) = Host(node.root).processes().processes
    assert (seen.pid, seen.program, seen.argv) == (child.pid, Program.KUBELET, ("kubelet", "--v=2", "a b"))
    assert (seen.cwd, seen.unit) == (str(tmp_path), "kubelet.service")


def test_the_start_is_the_kernels(child: subprocess.Popen[bytes]) -> None:
    """In seconds since the epoch, as psutil has it."""
    with ProcessEntry("/proc", child.pid) as entry:
        started = boot_time("/proc") + entry.parent_and_start()[1] / os.sysconf("SC_CLK_TCK")
    assert started == pytest.approx(psutil.Process(child.pid).create_time(), abs=0.02)


def test_a_tree_without_proc_has_no_processes(tmp_path: Path) -> None:
    """Those of this machine are not the tree's."""
    table = Host(tmp_path).processes()
    assert (table.processes, table.total) == ((), 0)


def test_a_zombie_is_left_out(tmp_path: Path) -> None:
    """It runs nothing any more, and has no arguments to read."""
    with real_node(tmp_path / "node") as node:
        child = node.start("kubelet", "--v=2")
        host = Host(node.root)
        (seen,) = host.processes().processes
        assert host.still_running([seen]) == (seen,)
        child.kill()
        os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
        assert host.still_running([seen]) == ()
        assert host.processes().processes == ()


def test_files_as_a_process_sees_them(tmp_path: Path) -> None:
    """Through /proc/PID/root, which is how a kubelet in another mount namespace is read; gone with the process."""
    with real_node(tmp_path / "node") as node:
        child = node.start("kubelet")
        host = Host(node.root)
        (seen,) = host.processes().processes
        assert host.view_of(seen).read_bytes("/etc/passwd") == Path("/etc/passwd").read_bytes()
        child.kill()
        child.wait()
        with pytest.raises(HostError):
            host.view_of(seen)


def test_a_number_that_is_used_again_is_another_process(tmp_path: Path) -> None:
    """Told apart by the start."""
    node = NodeTree(tmp_path / "node")
    node.add("kubelet", "kubelet")
    (seen,) = Host(node.root).processes().processes
    node.remove(812)
    node.add("kubelet", "kubelet", started=61)
    assert Host(node.root).still_running([seen]) == ()


@pytest.mark.skipif(not os.access("/proc/1/root", os.R_OK), reason="PID 1's namespaces cannot be read here")
def test_a_real_process_of_root_beside_pid_1_qualifies(tmp_path: Path) -> None:
    """With nothing staged, where tests run as root beside PID 1; one in a mount namespace of its own does not."""
    program = waiting_program(tmp_path / "kubelet")
    for argv, qualifies in (([str(program)], True), (["/usr/bin/unshare", "--mount", str(program)], False)):
        child = subprocess.Popen(argv)
        try:
            name = Path(f"/proc/{child.pid}/comm")
            eventually(lambda: b"kubelet" in name.read_bytes(), what="exec")  # noqa: B023 - called before the next turn
            found = [one.pid for one in Host("/").processes().processes]
        finally:
            end(child)
        assert (child.pid in found) is qualifies


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
def test_a_real_process_of_another_user_is_none_of_the_nodes() -> None:
    """With nothing staged: the machine's own /proc, and a process that gave up root."""
    with tempfile.TemporaryDirectory() as folder:  # others may enter it
        Path(folder).chmod(0o755)
        child = subprocess.Popen([str(waiting_program(Path(folder, "kubelet"))), "--root-dir=/etc"], user=65534)
        try:
            table = Host("/").processes()
        finally:
            end(child)
    assert child.pid not in [one.pid for one in table.processes]
    assert table.others


def test_the_boot_id_is_the_kernels() -> None:
    """The same that the Node object shows."""
    assert Host("/").boot_id() == Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def test_a_trees_own_boot_id_comes_first(tmp_path: Path) -> None:
    """A mounted host's, or a sandbox's that changes with its reboot."""
    file = boot_id_file(tmp_path, BOOT_ID + "\n")
    assert Host(tmp_path).boot_id() == BOOT_ID
    file.write_text(BOOT_ID.replace("1", "9"))
    assert Host(tmp_path).boot_id() == BOOT_ID.replace("1", "9")


@pytest.mark.parametrize("content", ["", "none", BOOT_ID.upper().replace("1", "G"), BOOT_ID * 2, "\x00"])
def test_what_is_no_boot_id_is_an_error(tmp_path: Path, content: str) -> None:
    """A wrong one would look like a finished reboot."""
    boot_id_file(tmp_path, content)
    with pytest.raises(HostFileError, match="not a boot id"):
        Host(tmp_path).boot_id()


def test_a_missing_boot_id_is_not_this_machines(tmp_path: Path) -> None:
    """A tree with a /proc that lacks it cannot tell."""
    boot_id_file(tmp_path, BOOT_ID).unlink()
    with pytest.raises(HostFileMissing):
        Host(tmp_path).boot_id()


def test_kernel_and_machine_are_the_machines() -> None:
    """Plain facts for the report."""
    host = Host("/")
    assert host.kernel_release() == os.uname().release
    assert host.machine() == os.uname().machine
    assert host.is_running_system is True


def test_a_trees_own_kernel_release_comes_first(tmp_path: Path) -> None:
    """What the sandbox's nodes claim to run."""
    file = tmp_path / "proc/sys/kernel/osrelease"
    file.parent.mkdir(parents=True)
    file.write_text("6.1.0-test\n")
    assert Host(tmp_path).kernel_release() == "6.1.0-test"
    assert Host(tmp_path).is_running_system is False
    file.unlink()
    file.mkdir()
    with pytest.raises(HostFileError):  # and never this machine's, where the tree has one that cannot be read
        Host(tmp_path).kernel_release()


def test_a_procfs_without_processes_is_an_error(tmp_path: Path) -> None:
    """Not mounted below the host root: an empty list would read as "no kubelet runs here"."""
    boot_id_file(tmp_path, f"{BOOT_ID}\n")
    with pytest.raises(HostError, match="no process in /proc: the node's procfs is not mounted"):
        Host(tmp_path).processes()


def test_a_procfs_that_vanishes_is_an_error(tmp_path: Path) -> None:
    """Unmounted between two reads: the kernel's reason is reported."""

    class VanishingProc(Host):
        @property
        def procfs(self) -> str:
            return f"{tmp_path}/none"

    with pytest.raises(HostError, match="cannot list /proc: No such file or directory"):
        VanishingProc(tmp_path).processes()


def test_a_procfs_without_the_time_of_boot_verifies_no_process(tmp_path: Path) -> None:
    """When a process was started is unknown then, so none is taken rather than one guessed at."""
    node = NodeTree(tmp_path / "node")
    node.add("kubelet", "kubelet")
    (node.root / "proc/stat").write_text("cpu 1 2 3\n")
    table = Host(node.root).processes()
    assert (table.processes, table.others) == ((), 1)
    assert "btime" in table.unverified


def test_addresses_are_those_of_this_machines_interfaces() -> None:
    """Loopback among them."""
    assert "127.0.0.1" in Host("/").addresses()


def test_the_clock_of_the_lock_counts_what_a_machine_sleeps() -> None:
    """CLOCK_MONOTONIC stands still in a suspended machine, whose lock others take meanwhile; CLOCK_BOOTTIME does not.
    A time namespace sets the two apart as a suspend does."""
    unshare = shutil.which("unshare")
    imports = "import time; from agent.daemon.reboot_thread import SystemClock"
    line = f"{imports}; print(SystemClock().monotonic() - time.monotonic())"
    if unshare is None:
        pytest.skip("no unshare: it makes a time namespace")
    argv = [unshare, "--user", "--map-root-user", "--time", "--boottime", "100000", sys.executable, "-c", line]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=120, check=False)
    if done.returncode:
        pytest.skip(f"no time namespace here: {done.stderr.strip()[-200:]}")
    assert float(done.stdout) > 99_000
