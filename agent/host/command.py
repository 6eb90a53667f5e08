"""The one gateway for processes: argv only, absolute path, a timeout that kills and reaps, bounded output.

It refuses shell strings, relative programs, an inherited environment and an open standard input.
"""

from __future__ import annotations

import contextlib
import os
import selectors
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import IO

from agent.errors import CommandError, CommandFailed, CommandMissing, CommandTimeout, HostError
from agent.text import last_line

_ENVIRONMENT = {"PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "LANG": "C"}
_NSENTER = ("/usr/bin/nsenter", "--target", "1", "--mount", "--uts", "--ipc", "--net", "--")
_KILL_GRACE_SECONDS = 2.0
_CANCEL_POLL_SECONDS = 0.2
_REASON_CHARACTERS = 500


class HostExec(StrEnum):
    """How a command runs on the node: in PID 1's namespaces, or as a plain child of the agent."""

    NSENTER = "nsenter"
    DIRECT = "direct"


@dataclass(frozen=True, slots=True)
class Completed:
    """A command that ended. code: exit code, negative for a signal. Output is text, cut at the limit asked for."""

    argv: tuple[str, ...]
    code: int
    stdout: str
    stderr: str
    cut: bool = False

    def whole(self, *good: int) -> Completed:
        """As `check`, for output that is judged: raises CommandError too where it was cut."""
        if self.check(*good).cut:
            raise CommandError(self.argv, "printed more than is read")
        return self

    def check(self, *good: int) -> Completed:
        """Itself when the exit code is one of `good` (0 when none is given); else raises CommandFailed."""
        if self.code in (good or (0,)):
            return self
        raise CommandFailed(self.argv, self.code, last_line(self.stderr or self.stdout, _REASON_CHARACTERS))


def run(
    argv: Sequence[str], *, how: HostExec, timeout_seconds: float, input_bytes: bytes | None, limit_bytes: int,
    environment: Mapping[str, str], cancelled: Callable[[], bool] | None = None,
) -> Completed:  # fmt: skip
    """Runs argv and waits for it. Raises CommandMissing, CommandTimeout, and CommandError where nsenter failed.

    The exit code is the caller's to judge.

    input_bytes: fed to standard input, which is closed otherwise. limit_bytes: of each output stream; the rest is read
    and dropped, so that a chatty child neither fills memory nor blocks. cancelled: asked a few times a second; True
    ends the command and raises CommandError.
    """
    if not argv or not argv[0].startswith("/"):
        raise HostError(f"a command needs an absolute path: {list(argv)!r}")
    actual = [*_NSENTER, *argv] if how is HostExec.NSENTER else list(argv)
    try:
        child = subprocess.Popen(
            actual,
            stdin=subprocess.PIPE if input_bytes is not None else subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env={**_ENVIRONMENT, **environment},
            cwd="/",
            start_new_session=True,
        )
    except FileNotFoundError as error:
        raise CommandMissing(argv, f"{actual[0]} is not there") from error
    except OSError as error:
        raise CommandMissing(argv, f"{actual[0]} cannot be started: {error.strerror}") from error
    except ValueError as error:
        raise HostError(f"{list(argv)!a} is no command: {error}") from error  # NUL, half a surrogate pair
    try:
        out, err, cut = _pump(child, input_bytes or b"", time.monotonic() + timeout_seconds, limit_bytes, cancelled)
    except InterruptedError as error:
        raise CommandError(argv, "cancelled") from error
    except TimeoutError as error:
        raise CommandTimeout(argv, f"killed after {timeout_seconds:g} s without an answer") from error
    finally:
        _end(child)
    done = Completed(tuple(argv), child.returncode, out.decode(errors="replace"), err.decode(errors="replace"), cut)
    if how is HostExec.NSENTER:
        _check_entered(done)
    return done


def _check_entered(done: Completed) -> None:
    """nsenter's own failures share exit codes with the command: 1 would read as an answer of the sentinel's."""
    if done.code in (1, 126, 127) and done.stderr.startswith("nsenter: "):
        reason = last_line(done.stderr, _REASON_CHARACTERS)
        if done.code == 127:
            raise CommandMissing(done.argv, f"{done.argv[0]} is not there: {reason}")
        raise CommandError(done.argv, f"not run on the node: {reason}")


def _pump(
    child: subprocess.Popen[bytes], input_bytes: bytes, deadline: float, limit: int,
    cancelled: Callable[[], bool] | None,
) -> tuple[bytes, bytes, bool]:  # fmt: skip
    """Feeds and drains the child until it has closed its output and ended.

    Raises TimeoutError at the deadline, InterruptedError when it is cancelled.
    """
    assert child.stdout is not None and child.stderr is not None  # noqa: S101, PT018 - both are PIPE above
    got: dict[IO[bytes], bytearray] = {child.stdout: bytearray(), child.stderr: bytearray()}
    cut = False
    feed = memoryview(input_bytes)
    with selectors.DefaultSelector() as selector:
        for stream in got:
            selector.register(stream, selectors.EVENT_READ)
        if child.stdin is not None:
            os.set_blocking(child.stdin.fileno(), False)
            selector.register(child.stdin, selectors.EVENT_WRITE)
        while selector.get_map():
            for key, _ in selector.select(_left(deadline, cancelled)):
                if key.fileobj is child.stdin:
                    feed = _feed(child.stdin, feed)
                    if not feed:
                        selector.unregister(child.stdin)
                        with contextlib.suppress(OSError):
                            child.stdin.close()
                    continue
                stream = next(pipe for pipe in got if pipe is key.fileobj)
                chunk = os.read(stream.fileno(), 1 << 16)
                if not chunk:
                    selector.unregister(stream)
                free = limit - len(got[stream])
                cut = cut or len(chunk) > free
                got[stream] += chunk[: max(free, 0)]
    while not _ended(child, 0.0):
        _ended(child, time.monotonic() + _left(deadline, cancelled))
    return bytes(got[child.stdout]), bytes(got[child.stderr]), cut


def _left(deadline: float, cancelled: Callable[[], bool] | None) -> float:
    """Seconds to wait before asking again. Raises TimeoutError at the deadline, InterruptedError when cancelled."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise TimeoutError
    if cancelled is None:
        return left
    if cancelled():
        raise InterruptedError
    return min(left, _CANCEL_POLL_SECONDS)


def _feed(stdin: IO[bytes], feed: memoryview) -> memoryview:
    try:
        return feed[os.write(stdin.fileno(), feed[: 1 << 16]) :]
    except BlockingIOError:
        return feed
    except BrokenPipeError:
        return memoryview(b"")  # the child has heard enough; its exit code decides


def _ended(child: subprocess.Popen[bytes], deadline: float) -> bool:
    """Waits until the child has ended, without reaping it: until then no other process gets its number."""
    pause = 0.0005
    while os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        left = deadline - time.monotonic()
        if left <= 0:
            return False
        time.sleep(min(pause, left))
        pause = min(pause * 2, 0.05)
    return True


def _end(child: subprocess.Popen[bytes]) -> None:
    """Kills what is left of the child's own session, closes the pipes and reaps it.

    A child that even SIGKILL does not end (it hangs in the kernel, as modprobe may) is left to be reaped later: the
    agent must not hang with it.
    """
    if not _ended(child, 0.0):
        _signal(child, signal.SIGTERM)
        _ended(child, time.monotonic() + _KILL_GRACE_SECONDS)
    # Always: grandchildren that kept the pipes, or were left behind, are in the group that outlives its leader.
    _signal(child, signal.SIGKILL)
    _ended(child, time.monotonic() + _KILL_GRACE_SECONDS)
    for stream in (child.stdin, child.stdout, child.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()
    child.poll()


def _signal(child: subprocess.Popen[bytes], sign: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, sign)
