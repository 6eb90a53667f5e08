"""What is done to the machine: the reboot command or signal, and the hooks around it.

It refuses to give a reboot command to another machine than the node whose tree it is given, and never takes "ended
badly" for "is going down". Commands run in the node's own namespaces where the Host is told so.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Mapping
from pathlib import Path

from agent.config.schema import Hook, Reboot, RebootMethod
from agent.config.schema import Hooks as HooksPolicy
from agent.errors import AgentError, CommandError, CommandMissing, CommandTimeout, HostError
from agent.host import Host
from agent.reboot.ports import HookProgress, HookStage, Power
from agent.text import sanitize

_COMMAND_SECONDS = 60.0
_OUTPUT_LIMIT = 1 << 16
_WORDS = 200
# systemd starts reboot.target on it. The number is glibc's (SIGRTMIN is 34 there), which systemd is built with; musl's
# Python would count from 35. https://www.freedesktop.org/software/systemd/man/latest/systemd.html#Signals
REBOOT_SIGNAL = 39
_INIT = "systemd"
# What a shell answers when a signal ended the command in it: on a node that goes down that is no failure.
_ENDED_BY_SIGNAL = (128 + 1, 128 + 9, 128 + 15)
_REAL_BOOT_ID = "/proc/sys/kernel/random/boot_id"


def make_power(policy: Reboot, host: Host) -> Power:
    """The way of rebooting that the policy asks for."""
    return SignalPower(host) if policy.method is RebootMethod.SIGNAL else CommandPower(policy.command, host)


class CommandPower:
    """Runs `reboot.command`. It has a minute to answer; `systemctl reboot` answers at once, and the node goes later.

    What the command leaves running behind it is ended with it, so it has to hand over to the node's init.
    """

    def __init__(self, argv: tuple[str, ...], host: Host, *, timeout_seconds: float = _COMMAND_SECONDS) -> None:
        self._argv = argv
        self._host = host
        self._timeout_seconds = timeout_seconds

    def reboot(self) -> None:
        """See ports.Power. Raises CommandMissing, CommandFailed and, when it cannot be told, CommandTimeout."""
        done = self._host.run(self._argv, timeout_seconds=self._timeout_seconds, limit_bytes=_OUTPUT_LIMIT)
        if done.code >= 0 and done.code not in _ENDED_BY_SIGNAL:
            done.check()


class SignalPower:
    """Sends SIGRTMIN+5 to PID 1, for nodes without systemctl in reach.

    systemd stops services in order, but logind is not asked: inhibitors, the kubelet's graceful shutdown among them,
    are walked around.
    """

    def __init__(self, host: Host, *, pid: int = 1, send: Callable[[int, int], None] = os.kill) -> None:
        """pid, send: for tests, which have no init of their own to signal."""
        self._host = host
        self._pid = pid
        self._send = send

    def reboot(self) -> None:
        """See ports.Power. Raises HostError when PID 1 is not the node's systemd, or may not be signalled."""
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


class HostHooks:
    """Runs the hooks of a stage one after another, in a thread of its own; satisfies ports.Hooks.

    Each gets NODE_NAME, REBOOT_STAGE and REBOOT_CYCLE in its environment. The first one that fails ends the stage.
    """

    def __init__(self, policy: HooksPolicy, host: Host, *, node: str, wake: Callable[[], None] = lambda: None) -> None:
        """wake: called in the stage's thread when it has ended."""
        self._hooks: Mapping[HookStage, tuple[Hook, ...]] = {
            HookStage.PRE_DRAIN: policy.pre_drain,
            HookStage.PRE_REBOOT: policy.pre_reboot,
            HookStage.POST_REBOOT: policy.post_reboot,
        }
        self._host = host
        self._node = node
        self._wake = wake
        self._stages: dict[tuple[HookStage, str], _Running] = {}

    def step(self, stage: HookStage, cycle: str) -> HookProgress:
        """See ports.Hooks."""
        hooks = self._hooks[stage]
        if not hooks:
            return HookProgress(done=True)
        running = self._stages.get((stage, cycle))
        if running is None:
            environment = {"NODE_NAME": self._node, "REBOOT_STAGE": stage.value, "REBOOT_CYCLE": cycle}
            running = self._stages[stage, cycle] = _Running(hooks, self._host, environment, self._wake)
        return running.progress

    def reset(self) -> None:
        """See ports.Hooks. A hook that runs is killed within a few seconds; nobody waits for it."""
        for running in self._stages.values():
            running.cancel()
        self._stages.clear()


class _Running:
    """One stage under way."""

    def __init__(
        self, hooks: tuple[Hook, ...], host: Host, environment: Mapping[str, str], wake: Callable[[], None]
    ) -> None:
        self.progress = HookProgress(done=False)
        self._cancelled = threading.Event()
        self._work = lambda: self._run(hooks, host, environment, wake)
        threading.Thread(target=self._work, name="hooks", daemon=True).start()

    def cancel(self) -> None:
        self._cancelled.set()

    def _run(
        self, hooks: tuple[Hook, ...], host: Host, environment: Mapping[str, str], wake: Callable[[], None]
    ) -> None:
        # Whatever ends this thread, nobody is left waiting for a stage that has no end.
        ended = HookProgress(done=False, error="the hooks' thread died; see the agent's log")
        try:
            ended = run_hooks(hooks, host, environment=environment, cancelled=self._cancelled.is_set)
        finally:
            self.progress = ended
            if not self._cancelled.is_set():
                wake()


def run_hooks(
    hooks: tuple[Hook, ...],
    host: Host,
    *,
    environment: Mapping[str, str],
    cancelled: Callable[[], bool] = lambda: False,
) -> HookProgress:
    """Runs hooks in order, to the first that fails. The error names the hook, how it ended and its last line."""
    for hook in hooks:
        name = sanitize(" ".join(hook.command), 100)
        try:
            host.run(
                hook.command,
                timeout_seconds=hook.timeout,
                limit_bytes=_OUTPUT_LIMIT,
                environment=environment,
                cancelled=cancelled,
            ).check()
        except CommandMissing as error:
            return HookProgress(done=False, error=sanitize(f"{name}: {error}", _WORDS))
        except CommandTimeout:
            return HookProgress(done=False, error=f"{name}: killed after {hook.timeout:g} s")
        except CommandError as error:
            return HookProgress(done=False, error=sanitize(str(error), _WORDS + len(name)))
        except AgentError as error:
            return HookProgress(done=False, error=sanitize(f"{name}: {error}", _WORDS))
    return HookProgress(done=True)
