"""Which files of modprobe.d an observation finds; whole nodes are in tests/integration/controls."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from agent.controls.modprobe.modprobe_d import Hidden
from agent.controls.modprobe.observe import observe
from agent.controls.modprobe.policy import Policy
from agent.controls.modprobe.show_depends import verify
from agent.host import Completed, Host, HostExec

FILE = "/etc/modprobe.d/node-hardening.conf"


def hidden(root: Path) -> tuple[Hidden, ...]:
    (root / "proc/sys/kernel").mkdir(parents=True)
    (root / "proc/sys/kernel/osrelease").write_text("6.1.0-18-amd64\n")
    return observe(Host(root), Policy(()), FILE).configuration.hidden


def plant(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


def test_a_file_hidden_by_another_of_the_same_name_is_reported(tmp_path: Path) -> None:
    plant(tmp_path, "etc/modprobe.d/a.conf", "blacklist sctp\n")
    plant(tmp_path, "usr/lib/modprobe.d/a.conf", "install sctp /bin/false\n")
    assert hidden(tmp_path) == (Hidden("/usr/lib/modprobe.d/a.conf", "/etc/modprobe.d/a.conf"),)


def test_one_file_found_under_two_folders_hides_nothing(tmp_path: Path) -> None:
    """/lib is a symlink to /usr/lib on most nodes."""
    plant(tmp_path, "usr/lib/modprobe.d/a.conf", "blacklist sctp\n")
    (tmp_path / "lib").symlink_to("usr/lib")
    assert hidden(tmp_path) == ()


class NodeWithLongOutput(Host):
    """A node whose modprobe prints more than is read."""

    def find_tool(self, name: str, *, how: HostExec | None = None) -> str | None:
        del how
        return f"/sbin/{name}"

    def run(self, argv: Sequence[str], **_: Any) -> Completed:
        return Completed(tuple(argv), 0, "install sctp /bin/false\n", "", cut=True)


def test_a_configuration_that_was_read_in_part_verifies_nothing(tmp_path: Path) -> None:
    """The aliases that lead to a denied module may be in the rest."""
    seen = verify(NodeWithLongOutput(tmp_path), ["sctp"], "", {})
    assert (dict(seen.results), "bytes of output" in seen.problem) == ({}, True)
