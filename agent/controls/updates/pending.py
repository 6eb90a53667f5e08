"""Pending security updates: the command that counts them, what it prints, and how old the lists are that it reads.

No command here refreshes a list. A program counts nothing from lists that are old, empty or without advisories, and
prints 0: the age is read from what the package managers themselves touch when they find a list to be current.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from agent.controls.updates.files import mtime, os_release
from agent.errors import HostError, HostFileMissing
from agent.host import Completed, Host
from agent.host.budget import Budget

_TIMEOUT_SECONDS = 300.0
# A unit of its own: what apt or dnf need (84 MB, 200 MB and more) would else count against the agent's memory limit.
_UNIT = (
    "--quiet", "--pipe", "--wait", "--collect", "--property=Nice=19", "--property=CPUWeight=1",
    "--property=MemoryMax=1G", f"--property=RuntimeMaxSec={_TIMEOUT_SECONDS:g}", "--setenv=LC_ALL=C", "--",
)  # fmt: skip
_APT = "/var/lib/apt"
_APT_LIST = re.compile(r"_(In)?Release$")
# DNF touches primary.xml and zypper repomd.xml of a repository that they find to be current.
_TOUCHED = re.compile(r"repomd\.xml$|primary\.xml")
# Distributions of snapshots: they publish packages and no advisories.
_WITHOUT_ADVISORIES = ("opensuse-tumbleweed", "opensuse-microos", "opensuse-slowroll")


@dataclass(frozen=True, slots=True)
class Pending:
    """One package manager. argv: its name and arguments. parse: how many security updates a run listed.

    listed_at: when its lists were last found to be current, in seconds since the epoch; None where there are none.
    """

    argv: tuple[str, ...]
    parse: Callable[[Completed], int]
    listed_at: Callable[[Host], float | None]

    def count(self, host: Host) -> int:
        """How many security updates are pending, by a run that takes seconds. Raises HostError."""
        unit, tool = host.find_tool("systemd-run"), host.find_tool(self.argv[0])
        if unit is None or tool is None:
            raise HostError(f"{self.argv[0] if tool is None else 'systemd-run'} is not on this node")
        done = host.run([unit, *_UNIT, tool, *self.argv[1:]], timeout_seconds=_TIMEOUT_SECONDS + 10)
        if done.cut:
            raise HostError(f"{self.argv[0]} printed more than is read")
        return self.parse(done)


def _apt_count(done: Completed) -> int:
    """`Inst openssl [3.0.17-1] (3.0.18-1 Debian-Security:12/oldstable-security [amd64])`"""
    output = done.check().stdout
    if "Reading package lists" not in output:
        raise HostError("not the output of apt-get")
    lines = (line for line in output.splitlines() if line.startswith("Inst "))
    return sum(bool(re.search(r"\([^)]*-security\b", line, re.IGNORECASE)) for line in lines)


def _dnf_count(done: Completed) -> int:
    """Advisories, not packages: `RHSA-2026:1234 Important/Sec. openssl-…`, or `… security Important …` by DNF 5."""
    rows = [words for line in done.check().stdout.splitlines() if len(words := line.split()) > 2]
    found = {words[0] for words in rows if words[1].endswith("/Sec.") or words[1] == "security"}
    left_out = re.search(r"^Ignoring repositories: .*", done.stderr, re.MULTILINE)
    if left_out and not found:
        raise HostError(f"dnf has no list of some: {left_out[0]}")
    return len(found)


def _zypper_count(done: Completed) -> int:
    """`5 patches needed (3 security patches)`"""
    # 100 and 101 are updates, the latter security ones; 106 left out repositories.
    output = done.check(0, 100, 101).stdout
    found = re.search(r"^[0-9]+ patch(?:es)? needed(?: \(([0-9]+) security patch(?:es)?\))?", output, re.MULTILINE)
    if found is None:
        raise HostError("not the output of zypper patch-check")
    return int(found[1] or 0)


def _apt_listed_at(host: Host) -> float | None:
    folder = f"{_APT}/lists"
    names = [name for name in (host.names(folder) if host.exists(folder) else ()) if _APT_LIST.search(name)]
    paths = [f"{_APT}/periodic/update-success-stamp", *(f"{folder}/{name}" for name in names)] if names else []
    return max((at for path in paths if (at := mtime(host, path)) is not None), default=None)


def _repositories_listed_at(*folders: str) -> Callable[[Host], float | None]:
    """Of repositories with advisories alone: others count nothing, however current they are."""

    def read(host: Host) -> float | None:
        host, times = host.within(Budget()), list[float | None]()
        if os_release(host).get("ID") in _WITHOUT_ADVISORIES:
            return None
        for folder in folders:
            for name in host.names(folder) if host.exists(folder) else ():
                path = f"{folder}/{name}/repodata"
                try:
                    files = host.names(path)
                except HostFileMissing:
                    continue
                if any("updateinfo.xml" in file for file in files):
                    times += [mtime(host, f"{path}/{file}") for file in files if _TOUCHED.search(file)]
        return max((at for at in times if at is not None), default=None)

    return read


APT = Pending(("apt-get", "-s", "-o", "Debug::NoLocking=true", "dist-upgrade"), _apt_count, _apt_listed_at)
DNF = Pending(
    ("dnf", "-C", "updateinfo", "list", "--security"), _dnf_count,
    _repositories_listed_at("/var/cache/dnf", "/var/cache/libdnf5"),
)  # fmt: skip
ZYPPER = Pending(
    ("zypper", "--non-interactive", "--no-refresh", "patch-check"),
    _zypper_count,
    _repositories_listed_at("/var/cache/zypp/raw"),
)
