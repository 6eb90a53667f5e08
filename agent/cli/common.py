"""What every command starts and ends with: the node, the log, and errors turned into exit codes."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from pathlib import Path

from agent import log
from agent.config.schema import Log, LogFormat, LogLevel
from agent.errors import AgentError, ConfigError, UsageError
from agent.host import Host, HostExec

OK, NOT_COMPLIANT, USAGE, COULD_NOT = 0, 1, 2, 3


def answer(work: Callable[[], int]) -> int:
    """The exit code of a command's work; what can go wrong is said on standard error, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A node's files may hold any bytes, and a terminal may show less than UTF-8: never a reason to fail.
            stream.reconfigure(errors="backslashreplace" if stream is sys.stderr else "replace")
    try:
        return work()
    except ConfigError as error:
        for problem in error.problems:
            _say(str(problem))
        number = len(error.problems)
        _say(f"{number} problem{'s' if number != 1 else ''}; nothing was done")
        return USAGE
    except UsageError as error:
        _say(str(error))
        return USAGE
    except AgentError as error:
        _say(str(error))
        return COULD_NOT
    except KeyboardInterrupt:
        return 130


def node_host(root: str, how: str) -> Host:
    """The door to the node. Raises UsageError where its root is no folder."""
    # An empty one is a script's unset variable: taken for the working folder it would be written into.
    if not root or not Path(root).is_dir():
        raise UsageError(f"--host-root {root or repr('')}: not a folder")
    return Host(root, how=HostExec(how))


def set_up_log(policy: Log, node: str, *, level: str | None, form: str | None) -> None:
    """The policy's log, where the command line does not say otherwise."""
    log.configure(LogLevel(level) if level else policy.level, LogFormat(form) if form else policy.format, node)


def _say(text: str) -> None:
    print(f"node-hardening-agent: {text}", file=sys.stderr)
