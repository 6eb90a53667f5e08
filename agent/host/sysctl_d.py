"""The kernel settings that the node's files set at boot, as systemd-sysctl reads them: sysctl.d(5).

A file in an earlier folder hides its namesakes, all are read in order of their names, and the last line for a key wins;
a line without wildcards wins over all that have some, wherever they are. It refuses to guess: a file that cannot be
read raises, because any line may be in it.
"""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from agent.host.budget import Resource

if TYPE_CHECKING:
    from agent.host import Host

FOLDERS = ("/etc/sysctl.d", "/run/sysctl.d", "/usr/local/lib/sysctl.d", "/usr/lib/sysctl.d", "/lib/sysctl.d")
_SYSTEMD = ("/usr/lib/systemd/systemd-sysctl", "/lib/systemd/systemd-sysctl")
_CONF = "/etc/sysctl.conf"  # procps'; systemd reads it only where a symlink in sysctl.d leads to it
_FILE_BYTES = 256 << 10


@dataclass(frozen=True, slots=True)
class Assignment:
    """One line of a file. key: with dots; `a.b/c` is a name with a dot in it. source: FILE:LINE. excluded:
    wildcards do not mean this key."""

    key: str
    value: str
    source: str
    excluded: bool = False


class BootSettings:
    """What the files set, by key."""

    def __init__(self, lines: Iterable[Assignment]) -> None:
        self._exact: dict[str, Assignment] = {}
        self._patterns: dict[str, Assignment] = {}
        for line in lines:
            of_kind = self._patterns if any(sign in line.key for sign in "*?[") else self._exact
            of_kind.pop(line.key, None)  # the later line also counts later
            of_kind[line.key] = line

    def get(self, key: str) -> Assignment | None:
        """The line that decides about a key; None when no file sets it."""
        if (exact := self._exact.get(key)) is not None:
            return None if exact.excluded else exact
        parts = key.split(".")
        found = (line for line in reversed(self._patterns.values()) if not line.excluded and _matches(line.key, parts))
        return next(found, None)


def read(host: Host) -> BootSettings:
    """Every line of every file. Raises HostError."""
    paths = host.overlaid(FOLDERS, ".conf")
    if not any(map(host.is_file, _SYSTEMD)) and host.exists(_CONF):
        paths.append(_CONF)
    # A symlink that leads nowhere is skipped.
    texts = ((host.read_text(path, limit_bytes=_FILE_BYTES, missing=""), path) for path in paths)
    return BootSettings(_counted(host, (line for text, path in texts for line in parse(text, path))))


def _counted(host: Host, lines: Iterator[Assignment]) -> Iterator[Assignment]:
    for line in lines:
        if host.budget is not None:
            host.budget.spend(Resource.VALUES, 1, line.source)
        yield line


def parse(text: str, path: str) -> Iterator[Assignment]:
    """The assignments of one file; what is none is left out, as systemd does."""
    for number, raw in enumerate(re.split("\r\n|[\r\n\0]", text), 1):
        line = raw.strip(" \t")
        if not line or line[0] in "#;":
            continue
        name, equals, value = line.partition("=")
        name = name.strip()
        if equals:
            yield Assignment(_dotted(name.removeprefix("-")), " ".join(value.split()), f"{path}:{number}")
        elif name.startswith("-"):
            yield Assignment(_dotted(name[1:]), "", f"{path}:{number}", excluded=True)


def _dotted(name: str) -> str:
    """`net/ipv4/conf/eth0.100/rp_filter` and `net.ipv4.conf.eth0/100.rp_filter` are one key: the first sign decides."""
    first = next((sign for sign in name if sign in "./"), ".")
    return name if first == "." else name.translate(str.maketrans("./", "/."))


def _matches(pattern: str, parts: list[str]) -> bool:
    """Wildcards do not reach beyond their own part of the key."""
    given = pattern.split(".")
    return len(given) == len(parts) and all(map(fnmatch.fnmatchcase, parts, given))
