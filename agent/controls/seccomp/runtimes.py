"""The container runtimes of the node, each of which may be the one that loads a profile.

Which of them a pod runs under is its RuntimeClass's to say, so that the most limited one counts. It refuses to take a
runtime that cannot be looked at for one that is not there.
"""

from __future__ import annotations

import re
from typing import Final

from agent.errors import HostError
from agent.host import Host, if_there

Version = tuple[int, int, int]
_FOLDERS: Final = (
    "/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin",
    "/usr/libexec/crio", "/usr/lib/cri-o-runc/sbin",  # CRI-O's packages
    "/var/lib/rancher/k3s/data/current/bin", "/var/lib/rancher/rke2/bin", "/var/lib/k0s/bin",
    "/snap/microk8s/current/bin", "/snap/k8s/current/bin",  # MicroK8s, Canonical Kubernetes
)  # fmt: skip
_SECONDS: Final = 10.0
_OUTPUT_BYTES: Final = 256 << 10
# `runc --version` has the first form; `crun --version` names none, and `crun features` has the second.
_LIBSECCOMP = re.compile(
    r'(?:^libseccomp: |"io\.github\.seccomp\.libseccomp\.version": ?")(\d+)\.(\d+)\.(\d+)', re.MULTILINE
)


def find(host: Host) -> dict[tuple[int, int], str]:
    """Every runc and crun of the node: paths by inode and time of change. Raises HostError."""
    found: dict[tuple[int, int], str] = {}
    for path in (f"{folder}/{name}" for folder in _FOLDERS for name in ("runc", "crun")):
        if (stat := if_there(None, host.stat, path)) is not None and stat.kind == "file":
            found.setdefault((stat.inode, stat.mtime_ns), path)
    return found


def ask(host: Host, path: str, question: str) -> str:
    """What a runtime prints, whatever its exit code. Raises HostError, also for more than is read."""
    done = host.run([path, question], timeout_seconds=_SECONDS, limit_bytes=_OUTPUT_BYTES)
    return done.whole(done.code).stdout


def libseccomp_of(host: Host) -> tuple[Version, str] | None:
    """The oldest libseccomp among the node's runtimes, and the path of that runtime; None where any is unknown."""
    if not host.can_start_programs:
        return None  # a plain child would be this machine's runtime, not the tree's
    try:
        found = [(_version(host, path), path) for path in find(host).values()]
    except HostError:
        return None
    known = [(version, path) for version, path in found if version is not None]
    return min(known) if known and len(known) == len(found) else None


def _version(host: Host, path: str) -> Version | None:
    for question in ("--version", "features"):
        if match := _LIBSECCOMP.search(ask(host, path, question)):
            return int(match[1]), int(match[2]), int(match[3])
    return None
