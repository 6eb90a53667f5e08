"""A package manager that is at work on the node: dpkg, APT, unattended-upgrades, RPM, DNF, YUM, Zypper.

A reboot during a transaction leaves packages half configured. Each of them marks its run with a lock on a
file or with a file that holds its process number; only root can write either, so nothing that runs in a container
counts. Locks are read from the kernel, none is taken. It refuses to take a mark that cannot be read for none.
"""

from __future__ import annotations

from collections.abc import Iterator

from agent.errors import HostFileError, HostFileMissing
from agent.host import Host
from agent.reboot.interfaces import BlockerResult
from agent.text import join_limited

# What each of them locks for a whole run or transaction.
# https://manpages.debian.org/dpkg(1), https://salsa.debian.org/apt-team/apt apt-pkg/statechanges.cc, rpm lib/rpmlock.c
LOCK_FILES = {
    "/var/lib/dpkg/lock-frontend": "APT or dpkg",
    "/var/lib/dpkg/lock": "dpkg",
    "/var/cache/apt/archives/lock": "APT",
    "/run/unattended-upgrades.lock": "unattended-upgrades",
    "/var/lib/rpm/.rpm.lock": "RPM",
    "/usr/lib/sysimage/rpm/.rpm.lock": "RPM",
}
# Zypper runs RPM once a package, DNF several times: between two there is no lock. A file below /var outlives a crash,
# and its number may belong to any process by now, so that one has to look like what the file is of.
# libzypp zypp/ZYppFactory.cc, dnf dnf/lock.py
PROCESS_FILES = {
    "/run/zypp.pid": ("Zypper", b""),
    "/run/yum.pid": ("YUM", b"yum"),
    "/var/lib/dnf/rpmdb_lock.pid": ("DNF", b"dnf"),
}
_AGAIN_SECONDS = 5.0
_NUMBER_LIMIT = 64


class PackageManagerBlocker:
    """Blocks while a lock file is locked, or a process runs that such a file names."""

    name = "package-manager"
    late = True

    def __init__(self, host: Host) -> None:
        self._host = host

    def check(self) -> BlockerResult:
        """A few opened files; no command, no request."""
        try:
            busy = [*self._locked(), *self._running()]
        except HostFileError as error:
            return BlockerResult(blocked=True, by=f"package manager unknown: {error}", again_seconds=_AGAIN_SECONDS)
        if not busy:
            return BlockerResult(blocked=False)
        by = f"package manager at work: {join_limited(busy, characters=100)}"
        return BlockerResult(blocked=True, by=by, again_seconds=_AGAIN_SECONDS)

    def _locked(self) -> Iterator[str]:
        """Raises HostFileError."""
        for path, who in LOCK_FILES.items():
            try:
                if self._host.is_locked(path):
                    yield f"{who} ({path})"
            except HostFileMissing:
                continue

    def _running(self) -> Iterator[str]:
        """Raises HostFileError."""
        for path, (who, word) in PROCESS_FILES.items():
            try:
                number = self._host.read_text(path, limit_bytes=_NUMBER_LIMIT).strip()
                if not number:
                    continue  # libzypp empties its file
                if not (number.isascii() and number.isdecimal()):
                    raise HostFileError("read", path, "it does not hold a process number")
                # Empty for a process that has ended and was not waited for.
                arguments = self._host.read_bytes(f"/proc/{int(number)}/cmdline")
            except HostFileMissing:
                continue
            if arguments and word in arguments:
                yield f"{who} (process {number})"
