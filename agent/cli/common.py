"""What every command begins and ends with: the node, the log, and errors as exit codes."""

from __future__ import annotations

import io
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from agent import log
from agent.config.choices import LogFormat, LogLevel
from agent.config.schema import Log
from agent.errors import AgentError, ConfigError, UsageError
from agent.host import Host, HostExec

OK, NOT_COMPLIANT, USAGE, COULD_NOT = 0, 1, 2, 3


@dataclass(frozen=True, slots=True)
class CliArgs:
    """The command line of `run`. is_named: the user named the configuration file, so that it has to exist."""

    config: Path
    is_named: bool
    host_root: str
    host_exec: str
    node: str
    log_level: str | None
    log_format: str | None


def answer(work: Callable[[], int]) -> int:
    """The exit code of a command's work; expected errors go to standard error, without a traceback."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            # A node's files may hold any bytes, and a terminal may support less than UTF-8: never a reason to fail.
            stream.reconfigure(errors="backslashreplace" if stream is sys.stderr else "replace")
    try:
        return work()
    except ConfigError as error:
        for problem in error.problems:
            _print_error(str(problem))
        number = len(error.problems)
        _print_error(f"{number} problem{'s' if number != 1 else ''}; nothing was changed")
        return USAGE
    except UsageError as error:
        _print_error(str(error))
        return USAGE
    except AgentError as error:
        _print_error(str(error))
        return COULD_NOT
    except KeyboardInterrupt:
        return 130
    except Exception:  # noqa: BLE001 - a defect: Python's own exit code would be that of "does not comply"
        traceback.print_exc()
        return COULD_NOT


def node_host(root: str, how: str) -> Host:
    """The node. Raises UsageError when its root is not a folder."""
    # An empty one is a script's unset variable; read as the working folder, that would be written into.
    if not root or not Path(root).is_dir():
        raise UsageError(f"--host-root {root or repr('')}: not a folder")
    return Host(root, how=HostExec(how))


def set_up_log(policy: Log, node: str, *, level: str | None, form: str | None) -> None:
    """The policy's log, unless the command line overrides it."""
    log.configure(LogLevel(level) if level else policy.level, LogFormat(form) if form else policy.format, node)


def _print_error(text: str) -> None:
    print(f"node-hardening-agent: {text}", file=sys.stderr)
