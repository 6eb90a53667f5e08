"""What requests a reboot of the node: a file that a package manager leaves, or a command.

It refuses to guess. A folder that is missing, a file that cannot be read and an exit code without a meaning
are unknown: neither "required" nor "not required". Nothing here waits long: the command runs in a thread of its own.
Sentinels of the distributions: docs/reboots.md.
"""

from __future__ import annotations

import hashlib
import posixpath
import threading
from collections.abc import Callable
from typing import Protocol

from agent.config.choices import Required
from agent.config.schema import Sentinel as SentinelPolicy
from agent.errors import AgentError, CommandMissing, HostFileError, HostFileMissing
from agent.host import Completed, Host
from agent.reboot.interfaces import Clock, Sentinel, SentinelReading
from agent.text import join_limited, last_line, sanitize

_CONTENT_LIMIT = 1 << 20
_PACKAGES_SHOWN = 8
_OUTPUT_LIMIT = 1 << 16
# Most such commands answer within this; what takes longer is given to the next tick, which the wake-up brings.
_PATIENCE_SECONDS = 1.0
# By which a shell, or the system, reports that nothing was run: never an answer, whatever the map holds.
_NOT_RUN = {126: "could not be executed", 127: "was not found: is it installed?"}


class WatchedSentinel(Sentinel, Protocol):
    """A sentinel with what its caller needs to wake up in time."""

    def watched(self) -> tuple[str, ...]:
        """Paths of the node whose changes are news, for inotify; empty when there are none."""

    def poll_seconds(self) -> float | None:
        """How often it wants to be read although nothing changed; None: never."""


def make_sentinel(
    policy: SentinelPolicy, host: Host, clock: Clock, wake: Callable[[], None] = lambda: None
) -> WatchedSentinel:
    """The sentinel of the policy. wake: called when a command's new answer is there, from its thread."""
    if policy.command:
        return CommandSentinel(policy, host, clock, wake)
    return FileSentinel(policy.file, host)


class FileSentinel:
    """A file whose presence requests a reboot; beside it, `.pkgs` names the packages, one a line."""

    def __init__(self, path: str, host: Host) -> None:
        self._path = path
        self._host = host

    def watched(self) -> tuple[str, ...]:
        """The file and its list of packages; FolderWatch watches their folder."""
        return (self._path, f"{self._path}.pkgs")

    def poll_seconds(self) -> float | None:
        """Never: the folder is watched."""
        return None

    def read(self) -> SentinelReading:
        """There, not there, or unknown."""
        try:
            stamp = self._stamp()
        except HostFileMissing:
            return self._absent()
        except HostFileError as error:
            return SentinelReading(None, problem=str(error))
        return SentinelReading(True, self._reason(), stamp)

    def _stamp(self) -> str:
        """Another one whenever the file was written again; read until it holds still. Raises HostFileError."""
        for _ in range(5):
            before = self._host.stat(self._path)
            content = self._host.read_bytes(self._path, limit_bytes=_CONTENT_LIMIT)
            if self._host.stat(self._path) == before:
                version = f"{before.inode} {before.mtime_ns} ".encode() + content
                return hashlib.sha256(version).hexdigest()[:16]
        raise HostFileError("read", self._path, "it changes all the time")

    def _absent(self) -> SentinelReading:
        """Absent only where it could have been: a folder that is not there may be a mount that is not there."""
        folder = posixpath.dirname(self._path)
        try:
            kind = self._host.stat(folder).kind
            if kind != "directory":
                return SentinelReading(None, problem=f"{folder} is not a folder")
            if self._is_dangling():
                return SentinelReading(None, problem=f"{self._path} is a symlink that leads nowhere")
        except HostFileMissing:
            return SentinelReading(None, problem=f"the folder {folder} does not exist: is the node's root mounted?")
        except HostFileError as error:
            return SentinelReading(None, problem=str(error))
        return SentinelReading(False)

    def _is_dangling(self) -> bool:
        try:
            self._host.read_link(self._path)
        except HostFileError:
            return False
        return True

    def _reason(self) -> str:
        """The packages; a reboot is required also where their list is missing or cannot be read."""
        try:
            lines = self._host.read_text(f"{self._path}.pkgs", limit_bytes=_CONTENT_LIMIT).splitlines()
        except HostFileMissing:
            lines = []
        except HostFileError as error:
            return sanitize(f"packages unknown: {error}")
        return join_limited(lines, _PACKAGES_SHOWN) or f"{self._path} exists"


class CommandSentinel:
    """A command whose exit code is looked up in a map; what is not in the map is unknown.

    It runs at most once an interval, and only when it is read. An answer that has grown older than two intervals
    and the timeout, because the command hangs, is unknown too.
    """

    def __init__(
        self, policy: SentinelPolicy, host: Host, clock: Clock, wake: Callable[[], None] = lambda: None
    ) -> None:
        self._policy = policy
        self._host = host
        self._clock = clock
        self._wake = wake
        self._answer: tuple[SentinelReading, float] | None = None  # and when its command was started
        self._started: float | None = None
        self._running: threading.Thread | None = None

    def watched(self) -> tuple[str, ...]:
        """Nothing to watch."""
        return ()

    def poll_seconds(self) -> float | None:
        """The interval."""
        return self._policy.interval

    def read(self) -> SentinelReading:
        """The newest answer; starts the command when that is due and waits for it a moment."""
        now = self._clock.monotonic()
        running = self._running
        if running is None or not running.is_alive():
            if self._started is None or now - self._started >= self._policy.interval:
                self._started = now
                running = self._running = threading.Thread(target=self._run, name="sentinel", daemon=True)
                running.start()
                running.join(_PATIENCE_SECONDS)
        elif self._answer is None:
            running.join(_PATIENCE_SECONDS)
        name = self._policy.command[0]
        if self._answer is None:
            return SentinelReading(None, problem=f"{name} has not answered yet")
        reading, started = self._answer
        if self._clock.monotonic() - started > 2 * self._policy.interval + self._policy.timeout:
            return SentinelReading(None, problem=f"{name} has not answered for a long time")
        return reading

    def _run(self) -> None:
        before = self._answer
        started = self._clock.monotonic()
        try:
            done = self._host.run(self._policy.command, timeout_seconds=self._policy.timeout, limit_bytes=_OUTPUT_LIMIT)
            reading = judge(done, self._policy)
        except CommandMissing as error:
            reading = SentinelReading(None, problem=f"{error}: is it installed?")
        except AgentError as error:
            reading = SentinelReading(None, problem=str(error))
        self._answer = reading, started
        if before is None or before[0] != reading:
            self._wake()


def judge(done: Completed, policy: SentinelPolicy) -> SentinelReading:
    """What a finished command means. Pure. The stamp is made of its standard output alone."""
    name = policy.command[0]
    if done.code in _NOT_RUN:
        words = last_line(done.stderr)
        return SentinelReading(None, problem=f"{name} {_NOT_RUN[done.code]}" + (f" ({words})" if words else ""))
    meaning = policy.exit_codes.get(done.code)
    if meaning is Required.NONE:
        return SentinelReading(False)
    if meaning is Required.REQUIRED:
        stamp = hashlib.sha256(done.stdout.encode()).hexdigest()[:16]
        return SentinelReading(True, _summary(done.stdout) or f"reported by {name}", stamp)
    ended = f"was ended by signal {-done.code}" if done.code < 0 else f"ended with exit code {done.code}"
    words = last_line(done.stderr or done.stdout)
    detail = f": {words}" if words else ""
    return SentinelReading(None, problem=f"{name} {ended}, which has no meaning in sentinel.exitCodes{detail}")


def _summary(output: str) -> str:
    """The bullet points of an output (`needs-restarting -r` names packages so), else its last line."""
    lines = [line.strip() for line in output.splitlines()]
    bullets = [line[1:].strip() for line in lines if line[:1] in ("*", "-") and line[1:2] == " "]
    return join_limited(bullets, _PACKAGES_SHOWN) or last_line(output)
