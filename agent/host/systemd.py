"""What systemd knows of a unit, through `systemctl show`.

It refuses names that are no unit's: a process may choose the name of its cgroup, and `-Hroot@host.service` would make
systemctl log in elsewhere.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING

from agent.errors import HostError

if TYPE_CHECKING:
    from agent.host import Host

_TIMEOUT_SECONDS = 5.0
_OUTPUT_BYTES = 64 << 10
_NAME = r"[A-Za-z0-9:_.@\\][A-Za-z0-9:_.@\\-]{0,250}"
_UNIT = re.compile(rf"{_NAME}\.service")
_SHOWN = re.compile(rf"{_NAME}\.(service|timer)")


def is_service(name: str) -> bool:
    """Whether a part of a cgroup's path is the name of a service."""
    return _UNIT.fullmatch(name) is not None


def unit_of(cgroup: str) -> str:
    """The innermost service in the path of a cgroup; empty when there is none."""
    return next(filter(is_service, reversed(cgroup.split("/"))), "")


def show(host: Host, unit: str, *properties: str) -> Mapping[str, str]:
    """Properties of a service or timer that are not empty; none where systemd cannot be asked (no systemd, a tree)."""
    if not _SHOWN.fullmatch(unit) or not host.can_start_programs:
        return {}
    try:
        tool = host.find_tool("systemctl") if host.exists("/run/systemd/system") else None
        if tool is None:
            return {}
        argv = [tool, "show", f"--property={','.join(properties)}", "--no-pager", "--", unit]
        answer = host.run(argv, timeout_seconds=_TIMEOUT_SECONDS, limit_bytes=_OUTPUT_BYTES).whole().stdout
    except HostError:
        return {}
    pairs = (line.partition("=") for line in answer.splitlines())
    return {name: value for name, _, value in pairs if value}
