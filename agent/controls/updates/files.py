"""Files that say how a node updates itself: settings of the simple kinds, and when something has last touched one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Mapping

from agent.errors import HostFileMissing
from agent.host import Host

_CONFIG_BYTES = 256 << 10


def os_release(host: Host) -> Mapping[str, str]:
    """/etc/os-release; empty where there is none. Raises HostFileError."""
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            text = host.read_text(path, limit_bytes=_CONFIG_BYTES)
        except HostFileMissing:
            continue
        pairs = (line.partition("=") for line in text.splitlines())
        return {name.strip(): value.strip().strip("\"'") for name, equals, value in pairs if equals}
    return {}


def ini(text: str) -> dict[str, str]:
    """`section.key` of an INI or TOML file of the simple kind that dnf, rebootmgr and Zincati read."""
    section, found = "", {}
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("["):
            section = line.strip("[] ")
        elif line and line[0] not in "#;" and "=" in line:
            key, _, value = line.partition("=")
            found[f"{section}.{key.strip()}" if section else key.strip()] = value.strip().strip("\"'")
    return found


def merged(host: Host, paths: Iterable[str]) -> dict[str, str]:
    """The settings of those files that are there; the later ones count. Raises HostFileError."""
    found: dict[str, str] = {}
    for path in paths:
        with contextlib.suppress(HostFileMissing):
            found |= ini(host.read_text(path, limit_bytes=_CONFIG_BYTES))
    return found


def mtime(host: Host, path: str) -> float | None:
    """Seconds since the epoch; None where nothing is there. Raises HostFileError."""
    try:
        return host.stat(path).mtime_ns / 1e9
    except HostFileMissing:
        return None
