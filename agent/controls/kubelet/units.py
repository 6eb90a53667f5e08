"""What systemd knows of a unit: its files, and the command that it starts.

Asked through systemctl where the node runs systemd; where it cannot be asked (a tree, another init) the places in
which packages put units are looked at instead.
"""

from __future__ import annotations

import posixpath
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from agent.errors import HostError
from agent.host import Host, systemd
from agent.host.budget import UNIT_BYTES

_FOLDERS = ("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system",
            "/lib/systemd/system")  # fmt: skip
# { path=/usr/local/bin/k3s ; argv[]=/usr/local/bin/k3s server ; ignore_errors=no ; start_time=… }
_ARGV = re.compile(r"argv\[\]=(.*?) ; (?:ignore_errors|flags)=")


@dataclass(frozen=True, slots=True)
class UnitFiles:
    """The files that make a unit. fragment: empty when there is no such unit."""

    fragment: str = ""
    drop_ins: tuple[str, ...] = ()


def files(host: Host, unit: str) -> UnitFiles:
    """Where the unit and its drop-ins are. Raises HostError only when a standard place cannot be looked into."""
    shown = systemd.show(host, unit, "FragmentPath", "DropInPaths")
    if shown.get("FragmentPath"):
        return UnitFiles(shown["FragmentPath"], tuple(shown.get("DropInPaths", "").split()))
    fragment = next((f"{folder}/{unit}" for folder in _FOLDERS if host.exists(f"{folder}/{unit}")), "")
    drop_ins = [
        f"{folder}/{unit}.d/{name}"
        for folder in _FOLDERS
        if host.exists(f"{folder}/{unit}.d")
        for name in host.names(f"{folder}/{unit}.d")
        if name.endswith(".conf")
    ]
    seen: dict[tuple[int, int], str] = {}
    for path in drop_ins:
        # /lib is /usr/lib on a merged tree: the same file under two names counts once.
        found = host.stat(path)
        seen.setdefault((found.inode, found.mtime_ns), path)
    return UnitFiles(fragment, tuple(seen.values()))


def exec_start(host: Host, unit: str) -> Sequence[str] | None:
    """The words of the unit's ExecStart, None when they cannot be read."""
    shown = systemd.show(host, unit, "ExecStart").get("ExecStart", "")
    if found := _ARGV.search(shown):
        return _split(found[1])
    try:
        fragment = files(host, unit).fragment
        lines = [value for key, value in _settings(host, fragment) if key == "ExecStart"] if fragment else []
    except (HostError, ValueError):
        return None
    return _split(lines[-1]) if lines else None


def command(host: Host, unit: str) -> tuple[str, ...] | None:
    """The unit's command line with its variables put in, as systemd would start it; None when that is unknown.

    Later files add to a setting, an empty value resets it, EnvironmentFile= counts more than Environment=:
    systemd.exec(5), systemd.service(5), "COMMAND LINES".
    """
    start, plain, later = "", dict[str, str](), dict[str, str]()
    try:
        found = files(host, unit)
        paths = [found.fragment, *sorted(found.drop_ins, key=posixpath.basename)]
        for key, value in (pair for path in paths if path for pair in _settings(host, path)):
            if key == "ExecStart":
                start = value
            elif key == "Environment":
                plain |= dict(word.split("=", 1) for word in shlex.split(value) if "=" in word)
            elif key == "EnvironmentFile" and (not value.startswith("-") or host.exists(value[1:])):
                later |= {name: " ".join(shlex.split(text)) for name, text in _settings(host, value.removeprefix("-"))}
        words = [word for one in shlex.split(start) for word in _expanded(one, plain | later)]
    except (HostError, ValueError):
        return None
    if not words or posixpath.basename(words[0]) in ("sh", "bash") or any("%" in word for word in words):
        return None
    return (words[0].lstrip("@-:+!"), *words[1:])


def _settings(host: Host, path: str) -> Iterator[tuple[str, str]]:
    """`KEY=value` lines of a unit or of an environment file. Raises HostError."""
    for line in host.read_text(path, limit_bytes=UNIT_BYTES).replace("\\\n", " ").splitlines():
        key, equals, value = line.strip().partition("=")
        if equals and key[:1] not in ("#", ";"):
            yield key.strip(), value.strip()


def _expanded(word: str, variables: Mapping[str, str]) -> Sequence[str]:
    """`$X` as a word of its own is as many words as it has, with its quotes read, `${X}` is put in."""
    if whole := re.fullmatch(r"\$(\w+)", word):
        return shlex.split(variables.get(whole[1], ""))
    return [re.sub(r"\$\{(\w+)\}", lambda found: variables.get(found[1], ""), word)]


def _split(text: str) -> Sequence[str] | None:
    """Words of a command line; systemd's quoting is near enough to a shell's. None when quotes do not close."""
    try:
        return shlex.split(text)
    except ValueError:
        return None
