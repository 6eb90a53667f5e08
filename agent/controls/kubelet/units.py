"""What systemd knows of a unit: its files, and the command that it starts.

Asked through systemctl where the node runs systemd; where it cannot be asked (a tree, another init) the places in
which packages put units are looked at instead.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from agent.errors import HostError
from agent.host import Host, HostExec

_FOLDERS = ("/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system",
            "/lib/systemd/system")  # fmt: skip
_TIMEOUT_SECONDS = 5.0
_UNIT = re.compile(r"/([A-Za-z0-9:_.@\\-]+\.service)(?=/|$)", re.MULTILINE)
# { path=/usr/local/bin/k3s ; argv[]=/usr/local/bin/k3s server ; ignore_errors=no ; start_time=… }
_ARGV = re.compile(r"argv\[\]=(.*?) ; (?:ignore_errors|flags)=")


@dataclass(frozen=True, slots=True)
class UnitFiles:
    """The files that make a unit. fragment: empty when there is no such unit."""

    fragment: str = ""
    drop_ins: tuple[str, ...] = ()


def of_process(host: Host, pid: int) -> str:
    """The unit that a process belongs to, by its cgroup; empty when that cannot be told."""
    try:
        found = _UNIT.findall(host.read_text(f"/proc/{pid}/cgroup"))
    except HostError:
        return ""
    return str(found[-1]) if found else ""


def files(host: Host, unit: str) -> UnitFiles:
    """Where the unit and its drop-ins are. Raises HostError only when a standard place cannot be looked into."""
    shown = _show(host, unit, "FragmentPath", "DropInPaths")
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
    shown = _show(host, unit, "ExecStart").get("ExecStart", "")
    if found := _ARGV.search(shown):
        return _split(found[1])
    try:
        fragment = files(host, unit).fragment
        text = host.read_text(fragment) if fragment else ""
    except (HostError, ValueError):
        return None
    joined = text.replace("\\\n", " ")
    lines = [line.partition("=")[2] for line in joined.splitlines() if line.strip().startswith("ExecStart=")]
    return _split(lines[-1]) if lines else None


def _show(host: Host, unit: str, *properties: str) -> dict[str, str]:
    """`systemctl show`, empty where systemd cannot be asked: another init, a tree that is not the running system."""
    if not host.is_running_system and host.how is HostExec.DIRECT:
        return {}
    try:
        tool = host.find_tool("systemctl") if host.exists("/run/systemd/system") else None
        if tool is None:
            return {}
        asked = [tool, "show", unit, f"--property={','.join(properties)}", "--no-pager"]
        answer = host.run(asked, timeout_seconds=_TIMEOUT_SECONDS).check().stdout
    except HostError:
        return {}
    pairs = (line.partition("=") for line in answer.splitlines())
    return {name: value for name, _, value in pairs if value}


def _split(text: str) -> Sequence[str] | None:
    """Words of a command line; systemd's quoting is near enough to a shell's. None when quotes do not close."""
    try:
        return shlex.split(text)
    except ValueError:
        return None
