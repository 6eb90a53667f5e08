"""A package manager that is at work on the node: dpkg, APT, unattended-upgrades, RPM, DNF, Zypper.

A reboot in the middle of a transaction leaves packages half configured. Locks are asked of the kernel (F_OFD_GETLK),
which takes nothing. It refuses to believe that a lock file which cannot be opened is free.
"""

from __future__ import annotations

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
_AGAIN_SECONDS = 5.0


class PackageManagerBlocker:
    """Blocks while one of the lock files is locked."""

    name = "package-manager"
    late = True

    def __init__(self, host: Host) -> None:
        self._host = host

    def check(self) -> BlockerResult:
        """A few opened files; no command, no request."""
        busy = []
        for path, who in LOCK_FILES.items():
            try:
                if self._host.is_locked(path):
                    busy.append(f"{who} ({path})")
            except HostFileMissing:
                continue
            except HostFileError as error:
                return BlockerResult(blocked=True, by=f"package manager unknown: {error}", again_seconds=_AGAIN_SECONDS)
        if not busy:
            return BlockerResult(blocked=False)
        by = f"package manager at work: {join_limited(busy, characters=100)}"
        return BlockerResult(blocked=True, by=by, again_seconds=_AGAIN_SECONDS)
