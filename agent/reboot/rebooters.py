"""How the node is rebooted: one class a method of `reboot.method`, in one registry.

It refuses to give a reboot command to another machine than the node whose tree it is given, and never takes "ended
badly" for "is going down". Commands run in the node's own namespaces where the Host is set so.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

from agent.config.choices import RebootMethod
from agent.config.schema import Reboot
from agent.errors import CommandError, CommandFailed, CommandMissing, CommandTimeout, HostError
from agent.host import Host, read_or
from agent.reboot.interfaces import Rebooter
from agent.text import sanitize

_COMMAND_SECONDS = 60.0
_HELP_SECONDS = 10.0
_OUTPUT_LIMIT = 1 << 16
# systemd starts reboot.target on it. The number is glibc's (SIGRTMIN is 34 there), which systemd is built with; musl's
# Python would count from 35. https://www.freedesktop.org/software/systemd/man/latest/systemd.html#Signals
REBOOT_SIGNAL = 39
_INIT = "systemd"
# What a shell answers when a signal ended the command in it: on a node that goes down that is no failure.
_ENDED_BY_SIGNAL = (128 + 1, 128 + 9, 128 + 15)
_SYSTEMCTL = "/bin/systemctl"
_STATE_SECONDS = 10.0
# All but `unknown`: https://www.freedesktop.org/software/systemd/man/latest/systemctl.html#is-system-running
_SYSTEM_STATES = ("initializing", "starting", "running", "degraded", "maintenance", "stopping", "offline")
_REAL_BOOT_ID = "/proc/sys/kernel/random/boot_id"
# Before version 257 root's `systemctl reboot` ignores block inhibitors without this option (of version 248).
# https://www.freedesktop.org/software/systemd/man/latest/systemctl.html#--check-inhibitors=
_CHECK_INHIBITORS = "--check-inhibitors"


class CommandRebooter:
    """Runs `reboot.command`. It has a minute to answer; `systemctl reboot` answers immediately, the node goes later.

    What the command leaves running behind it is ended with it, so it has to hand over to the node's init.
    """

    def __init__(self, argv: tuple[str, ...], host: Host, *, timeout_seconds: float = _COMMAND_SECONDS) -> None:
        self._argv = argv
        self._host = host
        self._timeout_seconds = timeout_seconds

    def reboot(self) -> None:
        """See interfaces.Rebooter. Raises CommandError: CommandTimeout alone when the outcome is unknown."""
        argv = self._argv
        if argv == Reboot().command and self._knows_inhibitors(argv[0]):
            argv = (*argv, f"{_CHECK_INHIBITORS}=yes")
        done = self._host.run(argv, timeout_seconds=self._timeout_seconds, limit_bytes=_OUTPUT_LIMIT)
        if done.code >= 0 and done.code not in _ENDED_BY_SIGNAL:
            # systemctl's last line is advice; the one that names the inhibitor comes first.
            inhibitors = [line for line in done.stderr.splitlines() if "inhibited by" in line] if done.code else []
            if inhibitors:
                raise CommandFailed(argv, done.code, sanitize("; ".join(inhibitors)))
            done.check()

    def _knows_inhibitors(self, systemctl: str) -> bool:
        """Raises CommandError where that is unknown: without the option it could reboot past an inhibitor."""
        argv = (systemctl, "--help")
        try:
            done = self._host.run(argv, timeout_seconds=_HELP_SECONDS, limit_bytes=_OUTPUT_LIMIT)
        except CommandTimeout as error:
            raise CommandError(argv, f"no reboot, because --help did not end: {error}") from error
        return _CHECK_INHIBITORS in done.stdout or _CHECK_INHIBITORS in done.whole().stdout


class SignalRebooter:
    """Sends SIGRTMIN+5 to PID 1, for nodes without systemctl in reach.

    systemd stops services in order, but logind is not asked: inhibitors, the kubelet's graceful shutdown among them,
    are bypassed.
    """

    def __init__(self, host: Host, *, pid: int = 1, send: Callable[[int, int], None] = os.kill) -> None:
        """pid, send: for tests, which have no init of their own to signal."""
        self._host = host
        self._pid = pid
        self._send = send

    def reboot(self) -> None:
        """See interfaces.Rebooter. Raises HostError when PID 1 is not the node's systemd, or may not be signalled."""
        if self._host.boot_id() != _this_machines_boot_id():
            raise HostError("PID 1 is not signalled: the node's tree describes another machine than this one")
        try:
            name = Path(f"/proc/{self._pid}/comm").read_text(encoding="utf-8").strip()
        except OSError as error:
            raise HostError(f"PID {self._pid} is not signalled: {error.strerror}") from error
        if name != _INIT:
            hint = "does the pod have hostPID: true?"
            raise HostError(f"PID {self._pid} is {sanitize(name, 40)}, not {_INIT}, and is not signalled; {hint}")
        try:
            self._send(self._pid, REBOOT_SIGNAL)
        except OSError as error:
            raise HostError(f"PID {self._pid} could not be signalled: {error.strerror}") from error


def _this_machines_boot_id() -> str:
    try:
        return Path(_REAL_BOOT_ID).read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise HostError(f"cannot read {_REAL_BOOT_ID}: {error}") from error


REBOOTERS: Mapping[RebootMethod, Callable[[Reboot, Host], Rebooter]] = {
    RebootMethod.COMMAND: lambda policy, host: CommandRebooter(policy.command, host),
    RebootMethod.SIGNAL: lambda _policy, host: SignalRebooter(host),
}


def make_rebooter(policy: Reboot, host: Host) -> Rebooter:
    """The reboot method of the policy."""
    return REBOOTERS[policy.method](policy, host)


class NodeMachine:
    """The machine under the agent: interfaces.Machine of a Host."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self.boot_id = host.boot_id
        self.kernel_release = partial(read_or, "", host.kernel_release)

    def is_shutting_down(self) -> bool:
        """Whether systemd is stopping the system; False where there is no systemd to ask.

        Raises HostError for no answer: a shutdown ends systemctl too, and a command that was ended has not answered no.

        https://www.freedesktop.org/software/systemd/man/latest/systemctl.html#is-system-running
        """
        argv = (_SYSTEMCTL, "is-system-running")
        try:
            done = self._host.run(argv, timeout_seconds=_STATE_SECONDS, limit_bytes=_OUTPUT_LIMIT)
        except CommandMissing:
            return False
        state = done.stdout.strip()
        if state not in _SYSTEM_STATES:
            raise HostError(
                f"{_SYSTEMCTL} is-system-running: no state ({sanitize(state, 40) or f'exit code {done.code}'})"
            )
        return state == "stopping"
