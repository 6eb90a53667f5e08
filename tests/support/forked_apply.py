"""`apply` over and over for the kill tests: imports once, then forks a child for each line that it is given.

A line is `CONFIG ROOT`; the answer is the child's pid as soon as it begins, and its wait status when it has ended. Each
child is `node-hardening-agent apply` from the start to the end, without the second that a fresh interpreter takes.
"""

from __future__ import annotations

import os
import sys

from agent.cli import main


def serve() -> None:
    """Until standard input ends."""
    for line in sys.stdin:
        config, root = line.split()
        child = os.fork()
        if child == 0:
            nowhere = os.open(os.devnull, os.O_RDWR)
            for number in (0, 1):
                os.dup2(nowhere, number)
            try:
                code = main(["apply", "--config", config, "--host-root", root, "--node-name", "node-1"])
            except BaseException:  # noqa: BLE001 - a child must not go on as its parent
                sys.excepthook(*sys.exc_info())
                code = 70
            os._exit(code)
        _say(child)
        _, status = os.waitpid(child, 0)
        _say(os.waitstatus_to_exitcode(status))


def _say(number: int) -> None:
    sys.stdout.write(f"{number}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    serve()
