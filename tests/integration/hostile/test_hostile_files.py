"""Files and directories that are huge, endless, many, or no files at all: unknown with the reason, in little memory.

Each case of memory is measured in a process of its own: the highest resident size of an audit, less than the container
is given. The inputs are in files.py; tests/image reads them in the image.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from agent.config import schema
from agent.controls.apparmor import ApparmorControl
from agent.controls.apparmor.parser import Tool
from agent.errors import HostError, HostFileError
from agent.host import Host, HostExec
from agent.host.budget import LIMITS, Budget, BudgetExceeded, Resource
from tests.integration.hostile.files import FILES
from tests.support.apparmor_kernel import PARSER, StandIn
from tests.support.kubelets import CONFIG, HARDENED, plant
from tests.support.node_tree import NodeTree

MOST_MIB = 96
AUDIT = """
import json, resource, sys
from agent.config import schema
from agent.controls.kubelet import KubeletControl
from agent.host import Host
control = KubeletControl(schema.Kubelet(probe=False), Host(sys.argv[1]))
found = {one.id.removeprefix("kubelet/"): [one.status.value, one.observed] for one in control.judge(control.observe())}
json.dump({"mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, "found": found}, sys.stdout)
"""
Found = Mapping[str, tuple[str, str]]


def audit(root: Path) -> Found:
    """The kubelet control in a process of its own, which stays small."""
    # A child's peak begins with its parent's size at the fork; the shell between them is small.
    argv = ["/bin/sh", "-c", '"$0" -c "$1" "$2"', sys.executable, AUDIT, str(root)]
    done = subprocess.run(argv, stdout=subprocess.PIPE, check=True, timeout=300, cwd=Path.cwd())
    answer = json.loads(done.stdout)
    assert answer["mib"] < MOST_MIB
    return {id_: (status, observed) for id_, (status, observed) in answer["found"].items()}


@pytest.fixture
def node(tmp_path: Path) -> NodeTree:
    """A node with a hardened configuration and no kubelet yet."""
    return NodeTree(plant(tmp_path / "node", {CONFIG: HARDENED, "/var/lib/kubelet/ca.crt": "CA"}))


@pytest.mark.parametrize("name", FILES)
def test_files_that_are_huge_or_many(tmp_path: Path, name: str) -> None:
    """The finding says which limit it was, and the audit stayed small."""
    hostile = FILES[name]
    found = audit(hostile.node(tmp_path / "node").root)
    for id_, (status, reason) in hostile.findings.items():
        assert found[id_][0] in status.split()
        assert reason in found[id_][1]


# -- what is no file ---------------------------------------------------------------------------------------------------


def fifo(path: Path) -> None:
    os.mkfifo(path)


def unix_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as bound:
        folder = os.open(path.parent, os.O_RDONLY)
        bound.bind(f"/proc/self/fd/{folder}/{path.name}")  # a path may be longer than a socket's name
        os.close(folder)


def device(path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("only root makes devices")
    try:
        os.mknod(path, 0o600 | 0o020000, os.makedev(1, 5))  # /dev/zero
    except PermissionError:
        pytest.skip("devices cannot be made here")


def loop(path: Path) -> None:
    path.symlink_to(path.name)


def directory(path: Path) -> None:
    path.mkdir()


def dangling(path: Path) -> None:
    path.symlink_to("/nowhere")


def to_a_device(path: Path) -> None:
    path.symlink_to("/dev/fifo")
    plant(path.parents[1], {"/dev/x": ""})
    os.mkfifo(path.parents[1] / "dev/fifo")


@pytest.mark.parametrize("make", [fifo, unix_socket, device, loop, directory, dangling, to_a_device])
@pytest.mark.parametrize("flag", ["--config=/odd/f", "--config-dir=/odd", "--tls-cert-file=/odd/f"])
def test_what_is_no_file_is_never_opened(node: NodeTree, make: Callable[[Path], None], flag: str) -> None:
    """The finding names it, and the pass ends; with O_PATH no driver and no waiting writer is ever met."""
    (node.root / "odd").mkdir()
    make(node.root / "odd/f")
    if flag == "--config-dir=/odd":
        (node.root / "odd/f").rename(node.root / "odd/f.conf") if make is not loop else loop(node.root / "odd/f.conf")
    node.add("kubelet", "kubelet", flag, "--tls-private-key-file=/k")
    found = audit(node.root)
    assert found["4.2.9" if "cert" in flag else "4.2.14"][0] in ("unknown", "fail")


def test_a_file_that_grows_while_it_is_read(tmp_path: Path) -> None:
    """Another process appends as fast as it can: the limit ends the read."""
    path, stop = tmp_path / "log", threading.Event()
    path.write_bytes(b"x" * 4096)

    def grow() -> None:
        with path.open("ab") as file:
            while not stop.is_set() and file.tell() < 64 << 20:
                file.write(b"x" * (1 << 16))
                file.flush()

    writer = threading.Thread(target=grow)
    writer.start()
    try:
        while path.stat().st_size < 1 << 20:
            Host(tmp_path).read_bytes("/log", limit_bytes=128 << 20)  # more than is ever written
        with pytest.raises(HostFileError, match="larger than"):
            Host(tmp_path).read_bytes("/log", limit_bytes=1 << 20)
    finally:
        stop.set()
        writer.join()


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_unknown(node: NodeTree) -> None:
    """Permission denied is named."""
    (node.root / CONFIG.lstrip("/")).chmod(0)
    node.add("kubelet", "kubelet", f"--config={CONFIG}")
    assert audit(node.root)["4.2.14"][0] == "unknown"


# -- the budget --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resource", list(Resource))
def test_every_resource_of_a_pass_has_a_limit(resource: Resource) -> None:
    """What is spent is spent: the message names the limit and what was to be read."""
    budget = Budget()
    budget.spend(resource, LIMITS[resource], "/a")
    with pytest.raises(BudgetExceeded, match=f"/b: not read, one pass reads at most {LIMITS[resource]} {resource}"):
        budget.spend(resource, 1, "/b")


def test_time_is_part_of_the_budget(tmp_path: Path) -> None:
    """Files that are slow to read end the pass, whatever they are."""
    now = [0.0]
    host = Host(plant(tmp_path, {"/a": "", "/b/c": ""})).within(Budget(clock=lambda: now[0]))
    assert host.read_bytes("/a") == b""
    now[0] = 11.0
    for read in (host.read_bytes, host.read_text, host.stat, host.exists, host.names):
        with pytest.raises(HostError, match="one pass takes at most 10 s"):
            read("/a")
    assert Host(tmp_path).names("/b") == ("c",)


def test_a_view_of_a_process_spends_from_the_same_budget(node: NodeTree) -> None:
    """One budget per pass, however many trees it reads."""
    node.add("kubelet", "kubelet")
    host = Host(node.root).within(Budget({**LIMITS, Resource.BYTES: len(HARDENED)}))
    (process,) = host.processes().processes
    assert host.view_of(process).read_text(CONFIG) == HARDENED
    with pytest.raises(BudgetExceeded):
        host.read_bytes(CONFIG)


@pytest.mark.skipif(not os.access(PARSER, os.X_OK), reason="apparmor_parser is not installed")
def test_checking_profiles_is_bounded_per_pass(tmp_path: Path) -> None:
    """A slow parser holds a pass for a minute at most; the next pass goes on with what is left."""
    root, work, profiles = (tmp_path / name for name in ("node", "work", "profiles"))
    for folder in (root, work, profiles):
        folder.mkdir()
    stand_in = StandIn(root, work)
    for name in "abc":
        (profiles / name).write_text(f"profile {name} {{ }}\n")
    now = [0.0]

    def slow() -> float:
        now[0] += 25.0
        return now[0]

    tool = Tool(str(stand_in.parser), HostExec.DIRECT)
    control = ApparmorControl(schema.Apparmor(profiles=str(profiles)), Host(root), tool=tool, clock=slow)
    first = control.observe()
    assert [unit.file for unit in first.desired] == ["a", "b"]
    assert [one.file for one in first.refused] == ["c"]
    assert [unit.file for unit in control.observe().desired] == ["a", "b", "c"]
