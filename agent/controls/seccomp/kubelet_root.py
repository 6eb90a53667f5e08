"""Where profiles have to be for the kubelet to find them.

A pod's localhostProfile is looked up below `<kubelet --root-dir>/seccomp`, and only the running kubelet knows that
directory (https://kubernetes.io/docs/reference/node/seccomp/). It is the same process, read in the same way, that the
kubelet control audits. It refuses to take a kubelet that does not run for one that has moved: then nothing moves.
"""

from __future__ import annotations

import posixpath
from dataclasses import dataclass
from typing import Final

from agent.controls.kubelet import discovery
from agent.errors import HostError
from agent.host import Host, if_there
from agent.host.budget import Budget

DEFAULT_ROOT: Final = "/var/lib/kubelet"


@dataclass(frozen=True, slots=True)
class Place:
    """The directory for profiles. source: how it is known. found: whether that is sure.

    elsewhere: where the running kubelet reads profiles, when that is not here. problem: why a running
    kubelet's root directory is unknown, empty when it is known or none runs.
    """

    path: str
    source: str
    found: bool
    elsewhere: str = ""
    problem: str = ""


def find(directory: str, host: Host, last_known: str) -> Place:
    """The directory: as configured; with `auto` the running kubelet's, else the last known one, else the default."""
    running, why, problem = _running(host.within(Budget()))
    if directory != "auto":
        elsewhere = running if running and not same_file(host, running, directory) else ""
        return Place(directory.rstrip("/") or "/", "seccomp.directory in the configuration", True, elsewhere, problem)
    if running:
        return Place(running, why, True)
    if last_known:
        return Place(last_known, f"{why}; the directory used last", False, problem=problem)
    return Place(f"{DEFAULT_ROOT}/seccomp", f"{why}; the default directory", False, problem=problem)


def _running(host: Host) -> tuple[str, str, str]:
    """The kubelet's directory of profiles and its source; else an empty text, why, and what prevents knowing it."""
    try:
        launches = discovery.search(host, host.processes()).launches
    except HostError as error:
        return "", f"the kubelet is unknown: {error}", str(error)
    if not launches:
        return "", "no kubelet is running", ""
    doubts = [f"{one.called}: {one.doubt}" for one in launches if one.doubt]
    if doubts:
        return "", doubts[0], doubts[0]
    roots = {_root(one): one for one in launches}
    if len(roots) > 1:
        several = ", ".join(f"{root} of {one.called}" for root, one in roots.items())
        return "", f"kubelets with different root directories run: {several}", f"{several}: set seccomp.directory"
    root, launch = next(iter(roots.items()))
    flag = launch.flags.last("root-dir")
    return f"{root}/seccomp", f"{launch.called}, {flag.source if flag else 'default root directory'}", ""


def _root(launch: discovery.Launch) -> str:
    """The kubelet's --root-dir; a relative one starts in its working directory."""
    given = launch.flags.text("root-dir") or DEFAULT_ROOT
    return posixpath.normpath(posixpath.join(launch.process.cwd or "/", given)).rstrip("/")


def same_file(host: Host, one: str, other: str) -> bool:
    """Whether both paths lead to the same file or directory, through a symlink or a bind mount. Raises HostError."""
    if posixpath.normpath(one) == posixpath.normpath(other):
        return True
    first, second = (if_there(None, host.stat, path) for path in (one, other))
    if first is None or second is None:
        return False
    return (first.inode, first.mtime_ns) == (second.inode, second.mtime_ns)
