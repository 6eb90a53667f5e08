"""systemd-logind's block inhibitors of a shutdown: who holds one does not want this machine to go down now.

`systemctl reboot` as root ignores them before systemd 257, and `--check-inhibitors=yes` refuses only after the drain;
so they are listed before. Delay inhibitors (the kubelet's, unattended-upgrades') are logind's own business.
https://www.freedesktop.org/wiki/Software/systemd/inhibit/
"""

from __future__ import annotations

import json
from dataclasses import dataclass

from agent.errors import AgentError, HostFileError, HostFileMissing
from agent.host import Completed, Host
from agent.reboot.interfaces import BlockerResult
from agent.text import join_limited, last_line, sanitize

# logind has a file here for each inhibitor. Their content is private; that there is none is all that is read.
_DIRECTORY = "/run/systemd/inhibit"
_LIST = (
    "/usr/bin/busctl",
    "--json=short",
    "--timeout=5",
    "call",
    "org.freedesktop.login1",
    "/org/freedesktop/login1",
    "org.freedesktop.login1.Manager",
    "ListInhibitors",
)
_TIMEOUT_SECONDS = 10.0
_OUTPUT_LIMIT = 1 << 18
_AGAIN_SECONDS = 15.0


@dataclass(frozen=True, slots=True)
class Inhibitor:
    """One block inhibitor of a shutdown. why: its own words."""

    who: str
    why: str

    def __str__(self) -> str:
        return f"{self.who} ({self.why})" if self.why else self.who


class InhibitorBlocker:
    """Blocks while a block inhibitor of `shutdown` is held."""

    name = "inhibitor"
    late = True

    def __init__(self, host: Host) -> None:
        self._host = host

    def check(self) -> BlockerResult:
        """One listing; one command only where logind has inhibitors of any kind."""
        try:
            if not any(not name.endswith(".ref") for name in self._host.names(_DIRECTORY)):
                return BlockerResult(blocked=False)
            found = parse(self._host.run(_LIST, timeout_seconds=_TIMEOUT_SECONDS, limit_bytes=_OUTPUT_LIMIT))
        except HostFileMissing:
            return BlockerResult(blocked=False)  # no logind
        except (HostFileError, AgentError, ValueError) as error:
            return BlockerResult(blocked=True, by=f"systemd inhibitors unknown: {error}", again_seconds=_AGAIN_SECONDS)
        if not found:
            return BlockerResult(blocked=False)
        by = f"block inhibitor held by {join_limited(map(str, found), characters=120)}"
        return BlockerResult(blocked=True, by=by, again_seconds=_AGAIN_SECONDS)


def parse(done: Completed) -> tuple[Inhibitor, ...]:
    """The block inhibitors of a shutdown in busctl's answer, a(ssssuu): what, who, why, mode, uid, pid.

    Raises ValueError for an answer that is not understood.
    """
    if done.code != 0:
        raise ValueError(f"busctl ended with exit code {done.code}: {last_line(done.stderr or done.stdout)}")
    try:
        (rows,) = json.loads(done.stdout)["data"]
        found = [(str(what), str(who), str(why), str(mode)) for what, who, why, mode, _uid, _pid in rows]
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise ValueError(f"busctl answered {sanitize(done.stdout, 60)!r}") from error
    return tuple(
        Inhibitor(sanitize(who, 60), sanitize(why, 60))
        for what, who, why, mode in found
        if mode.startswith("block") and "shutdown" in what.split(":")
    )
