"""`apply` over and over for the kill tests: imports once, then forks a child for each line that it reads.

A line is `CONFIG ROOT LAST`; the answer is the child's exit code and how many changes to files it began. LAST: the
number of the change before which the kernel kills the child; 0 for never. Each child is `node-hardening-agent apply`
from the start to the end, without the second that a fresh interpreter takes.

Between two of these calls the disk does not change, so a kill at any other moment leaves what one of these leaves.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType

from agent.cli import main

_CHANGES = {
    "chmod", "chown", "fchmod", "fchown", "fsync", "ftruncate", "link", "mkdir", "pwrite", "remove", "rename",
    "replace", "rmdir", "symlink", "unlink", "utime", "write",
}  # fmt: skip


class Countdown:
    """Counts the calls of `os` that change files, and ends the process with SIGKILL before one of them."""

    def __init__(self, last: int) -> None:
        self.changes = 0
        self._last = last

    def __call__(self, _frame: FrameType, event: str, called: object) -> None:
        """A profile function, which the interpreter calls before each call of a C function."""
        if event != "c_call" or getattr(called, "__module__", "") != "posix":
            return
        if getattr(called, "__name__", "") in _CHANGES:
            self.changes += 1
            if self.changes == self._last:
                os.kill(os.getpid(), signal.SIGKILL)


def serve() -> None:
    """Until standard input ends."""
    for line in sys.stdin:
        config, root, last = line.split()
        reading, writing = os.pipe()
        child = os.fork()
        if child == 0:
            os._exit(_apply(config, root, Countdown(int(last)), writing))
        os.close(writing)
        changes = os.read(reading, 64).decode() or last  # killed before it could say: as many as it was given
        os.close(reading)
        _, status = os.waitpid(child, 0)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(status)} {changes}\n")
        sys.stdout.flush()


def _apply(config: str, root: str, countdown: Countdown, answer: int) -> int:
    nowhere = os.open(os.devnull, os.O_RDWR)
    for number in (0, 1):
        os.dup2(nowhere, number)
    sys.setprofile(countdown)
    try:
        code = main(["apply", "--config", config, "--host-root", root, "--node-name", "node-1"])
    except BaseException:  # noqa: BLE001 - a child must not go on as its parent
        sys.excepthook(*sys.exc_info())
        code = 70
    sys.setprofile(None)
    os.write(answer, str(countdown.changes).encode())
    return code


if __name__ == "__main__":
    serve()
