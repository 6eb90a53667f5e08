"""Where profiles have to be for the kubelet to find them, and which libseccomp will read them.

A pod's localhostProfile is looked up below `<kubelet --root-dir>/seccomp`, and only the live process knows that folder
(https://kubernetes.io/docs/reference/node/seccomp/). It refuses to take a kubelet that is away for a moment for one
that has moved: then the folder of the last time stays.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from agent.errors import HostError
from agent.host import Host, HostExec, Process

DEFAULT_ROOT: Final = "/var/lib/kubelet"
_MICROK8S_ROOT: Final = "/var/snap/microk8s/common/var/lib/kubelet"
_K3S_RUNC: Final = "/var/lib/rancher/k3s/data/current/bin/runc"
_LIBSECCOMP = re.compile(r"^libseccomp: (\d+)\.(\d+)\.(\d+)", re.MULTILINE)

Version = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class Place:
    """The folder for profiles. source: how it is known. elsewhere: where the live kubelet looks, when not there."""

    path: str
    source: str
    found: bool
    elsewhere: str = ""


def find(directory: str, host: Host, last_known: str) -> Place:
    """The folder: as configured; with `auto` the live kubelet's, else the last known one, else the default."""
    live, why = _live(host)
    if directory != "auto":
        looks = f"{live[0]}/seccomp" if live else ""
        elsewhere = looks if looks and not _same(host, looks, directory) else ""
        return Place(directory.rstrip("/") or "/", "seccomp.directory in the configuration", True, elsewhere)
    if live:
        root, process, how, is_of_node = live
        known = f"{process.name} (pid {process.pid}), {how}"
        # Something in a container that calls itself kubelet must not move what is installed.
        if is_of_node or last_known in ("", f"{root}/seccomp"):
            return Place(f"{root}/seccomp", known, True)
        return Place(last_known, f"the folder of the last time; {known} has another root file system", False)
    if last_known:
        return Place(last_known, f"{why}; the folder of the last time", False)
    return Place(f"{DEFAULT_ROOT}/seccomp", f"{why}; the default folder", False)


def root_of(name: str, argv: Sequence[str], cwd: str = "/") -> tuple[str, str] | None:
    """The kubelet's root folder and how it is known, from a process; None when it is no kubelet.

    Both spellings (`--root-dir=X`, `--root-dir X`), `_` for `-` as the kubelet's flags allow, the last one wins.
    """
    words = argv[0].split() if len(argv) == 1 else list(argv)  # k3s rewrites its title into one word
    program = posixpath.basename(words[0]) if words else ""
    if program == "kubelet" or (name == "kubelet" and words) or list(words[1:2]) == ["kubelet"]:
        flags, default, embedded = words[1:], DEFAULT_ROOT, ""
    elif program.startswith("k3s") or name.startswith("k3s"):
        flags = [f"--{value.lstrip('-')}" for value in _values(words[1:], "kubelet-arg")]
        default, embedded = DEFAULT_ROOT, " in --kubelet-arg"
    elif "kubelite" in (program, name):
        flags, default, embedded = words[1:], _MICROK8S_ROOT, ""
    else:
        return None
    given = [value for value in _values(flags, "root-dir") if value]
    if not given:
        return default, "which has no --root-dir: the default"
    return posixpath.normpath(posixpath.join(cwd or "/", given[-1])), f"--root-dir{embedded}"


def libseccomp_of(host: Host) -> tuple[Version, str] | None:
    """The libseccomp that the node's runc was built with, and runc's path; None where that cannot be told."""
    if host.how is HostExec.DIRECT and not host.is_running_system:
        return None  # a plain child would be this machine's runc, not the tree's
    try:
        runc = host.find_tool("runc") or (_K3S_RUNC if host.exists(_K3S_RUNC) else None)
        if runc is None:
            return None
        match = _LIBSECCOMP.search(host.run([runc, "--version"], timeout_seconds=10).stdout)
    except HostError:
        return None
    return ((int(match[1]), int(match[2]), int(match[3])), runc) if match else None


def _live(host: Host) -> tuple[tuple[str, Process, str, bool] | None, str]:
    """The node's kubelet: root, process, how that is known, whether it has the node's own root; or why there is none.

    A container may run something of that name: one with the node's own root comes first.
    """
    found: list[tuple[tuple[bool, bool, float], str, Process, str]] = []
    try:
        for process in host.processes():
            if known := root_of(process.name, process.argv, process.cwd):
                rank = (not _has_root_of_node(host, process), process.uid != 0, process.started)
                found.append((rank, known[0], process, known[1]))
    except HostError as error:
        return None, f"the kubelet cannot be looked for: {error}"
    if not found:
        return None, "no kubelet is running"
    rank, root, process, how = min(found, key=lambda candidate: candidate[0])
    return (root.rstrip("/"), process, how, not rank[0]), ""


def _has_root_of_node(host: Host, process: Process) -> bool:
    try:
        return host.view_of(process).stat("/").inode == host.stat("/").inode
    except HostError:
        return False


def _same(host: Host, one: str, other: str) -> bool:
    """Whether both paths lead to one folder: a symlink or a bind mount may stand between them."""
    if posixpath.normpath(one) == posixpath.normpath(other):
        return True
    try:
        first, second = host.stat(one), host.stat(other)
    except HostError:
        return False
    return (first.inode, first.mtime_ns) == (second.inode, second.mtime_ns)


def _values(argv: Sequence[str], flag: str) -> list[str]:
    """Every value of a flag, in either spelling."""
    found: list[str] = []
    for at, word in enumerate(argv):
        name, equals, value = word.partition("=")
        if not name.startswith("--") or name[2:].replace("_", "-") != flag:
            continue
        if equals:
            found.append(value)
        elif at + 1 < len(argv):
            found.append(argv[at + 1])
    return found
