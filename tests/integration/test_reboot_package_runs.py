"""A package run in progress and logind's inhibitors: what holds a reboot back on the node itself."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.errors import AgentError, CommandTimeout
from agent.host import Completed, Host
from agent.reboot.blockers.inhibitors import InhibitorBlocker
from agent.reboot.blockers.package_manager import LOCK_FILES, PackageManagerBlocker
from agent.reboot.interfaces import BlockerResult
from tests.support.rooms import node_tree

HOLD = """
import fcntl, sys
file = open(sys.argv[1], "w")
fcntl.lockf(file, fcntl.LOCK_EX)
print("held", flush=True)
sys.stdin.read()
"""


class Holder:
    """Another process that holds a lock file, as APT does for a whole run."""

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.child = subprocess.Popen(
            [sys.executable, "-c", HOLD, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        assert self.child.stdout is not None
        assert self.child.stdout.readline() == "held\n"

    def end(self) -> None:
        if self.child.returncode is None:
            self.child.communicate()


@pytest.fixture
def holder(tmp_path: Path) -> Iterator[Holder]:
    made = Holder(tmp_path / "node/var/lib/dpkg/lock-frontend")
    yield made
    made.end()


def test_a_package_run_in_progress_blocks_until_its_lock_is_free(tmp_path: Path, holder: Holder) -> None:
    """Asking takes no lock: the run notices nothing, and the file of a run that has ended is free."""
    (tmp_path / "node/run").mkdir()
    blocker = PackageManagerBlocker(Host(tmp_path / "node"))
    for _ in range(3):
        verdict = blocker.check()
        assert verdict.by == "package manager at work: APT or dpkg (/var/lib/dpkg/lock-frontend)"
        assert 0 < verdict.again_seconds <= 10
    holder.end()
    assert holder.child.returncode == 0
    assert blocker.check() == BlockerResult(blocked=False)


@pytest.mark.parametrize("path", LOCK_FILES)
def test_every_package_managers_lock_is_known(tmp_path: Path, path: str) -> None:
    """Each by its own file."""
    holder = Holder(tmp_path / "node" / path.lstrip("/"))
    assert path in PackageManagerBlocker(Host(tmp_path / "node")).check().by
    holder.end()


def test_a_node_without_a_package_manager_is_not_held_back(tmp_path: Path) -> None:
    """Flatcar, Talos and friends."""
    assert PackageManagerBlocker(node_tree(tmp_path / "node")).check() == BlockerResult(blocked=False)


def test_a_lock_file_that_cannot_be_read_blocks(tmp_path: Path) -> None:
    """What stands in its place is no free lock."""
    (tmp_path / "node/var/lib/dpkg/lock").mkdir(parents=True)
    verdict = PackageManagerBlocker(Host(tmp_path / "node")).check()
    assert verdict.blocked is True
    assert verdict.by.startswith("package manager unknown: ")


def with_process(root: Path, path: str, number: str, arguments: bytes | None) -> PackageManagerBlocker:
    """A node on which a file names a process, which runs with these arguments, or not at all."""
    for name, content in {path: number.encode(), f"/proc/{number.strip()}/cmdline": arguments}.items():
        if content is not None:
            (root / name.lstrip("/")).parent.mkdir(parents=True, exist_ok=True)
            (root / name.lstrip("/")).write_bytes(content)
    return PackageManagerBlocker(Host(root))


@pytest.mark.parametrize(
    ("path", "arguments", "who"),
    [
        ("/run/zypp.pid", b"zypper\0patch", "Zypper"),
        ("/run/zypp.pid", b"/usr/lib/packagekitd", "Zypper"),
        ("/run/yum.pid", b"/usr/bin/python2\0/usr/bin/yum\0update", "YUM"),
        ("/var/lib/dnf/rpmdb_lock.pid", b"/usr/bin/python3\0/usr/bin/dnf\0upgrade", "DNF"),
    ],
)
def test_a_process_that_a_package_manager_names_blocks(tmp_path: Path, path: str, arguments: bytes, who: str) -> None:
    """Between two packages Zypper and DNF hold no lock."""
    blocker = with_process(tmp_path, path, "4711\n", arguments)
    assert blocker.check().by == f"package manager at work: {who} (process 4711)"


@pytest.mark.parametrize(
    ("path", "number", "arguments"),
    [
        ("/run/zypp.pid", "", None),  # released
        ("/run/zypp.pid", "4711", None),  # ended
        ("/run/zypp.pid", "4711", b""),  # a zombie
        ("/var/lib/dnf/rpmdb_lock.pid", "4711", b"/usr/sbin/sshd\0-D"),  # the number is another process's by now
    ],
)
def test_a_run_that_has_ended_does_not_block(tmp_path: Path, path: str, number: str, arguments: bytes | None) -> None:
    """Also where it was killed, and its file is left."""
    assert with_process(tmp_path, path, number, arguments).check() == BlockerResult(blocked=False)


def test_a_file_that_holds_no_process_number_blocks(tmp_path: Path) -> None:
    """Unknown is not none."""
    result = with_process(tmp_path, "/run/zypp.pid", "../1", None).check()
    assert result.blocked is True
    assert "it does not hold a process number" in result.by


# -- inhibitors --------------------------------------------------------------------------------------------------------


class Logind(Host):
    """A node with systemd-logind; busctl is answered here, everything else is a tree."""

    def __init__(self, root: Path, rows: object) -> None:
        super().__init__(node_tree(root).root)
        (root / "run/systemd/inhibit").mkdir(parents=True)
        self.rows = rows
        self.asked = 0

    def inhibit(self) -> None:
        (Path(self.root) / "run/systemd/inhibit/1").write_text("# This is private data. Do not parse.\n")
        (Path(self.root) / "run/systemd/inhibit/1.ref").write_text("")

    def run(self, argv: Sequence[str], **_options: Any) -> Completed:
        assert argv[0] == "/usr/bin/busctl"
        self.asked += 1
        if isinstance(self.rows, AgentError):
            raise self.rows
        text = self.rows if isinstance(self.rows, str) else json.dumps({"type": "a(ssssuu)", "data": [self.rows]})
        return Completed(tuple(argv), 0, text, "")


ROWS = [
    ["shutdown", "Unattended Upgrades Shutdown", "Stop ongoing upgrades", "delay", 0, 700],
    ["sleep:shutdown", "raid-check", "array rebuild", "block", 0, 701],
    ["sleep", "player", "music", "block", 1000, 702],
    ["shutdown:idle", "burner\u001b[2J", "", "block-weak", 1000, 703],
]


def test_a_block_inhibitor_of_a_shutdown_is_named(tmp_path: Path) -> None:
    """Who and why; delay inhibitors, and those of something else, hold nothing back."""
    host = Logind(tmp_path / "node", ROWS)
    host.inhibit()
    verdict = InhibitorBlocker(host).check()
    assert verdict.by == "block inhibitor held by raid-check (array rebuild), burner [2J"
    host.rows = ROWS[:1]
    assert InhibitorBlocker(host).check() == BlockerResult(blocked=False)


def test_without_inhibitors_nothing_is_run(tmp_path: Path) -> None:
    """And without logind neither."""
    host = Logind(tmp_path / "node", ROWS)
    assert InhibitorBlocker(host).check() == BlockerResult(blocked=False)
    assert InhibitorBlocker(node_tree(tmp_path / "other")).check() == BlockerResult(blocked=False)
    assert host.asked == 0


@pytest.mark.parametrize(
    "answer", ["", "{}", '{"data": []}', '{"data": [[1]]}', "[" * 100_000, CommandTimeout(("busctl",), "no answer")]
)
def test_inhibitors_that_cannot_be_listed_block(tmp_path: Path, answer: object) -> None:
    """Unknown is not none."""
    host = Logind(tmp_path / "node", answer)
    host.inhibit()
    verdict = InhibitorBlocker(host).check()
    assert verdict.blocked is True
    assert verdict.by.startswith("systemd inhibitors unknown: ")
