"""The error tree. Every error that this project raises on purpose is one of these.

Each names the object, the action that failed and, where there is one, the next step. Library code raises; only the
command line turns an error into an exit code. What is not in this tree is a defect of ours and is allowed to surface.

    AgentError
    ├── UsageError                 the command line asked for something that cannot be            exit 2
    ├── ConfigError                configuration or profiles do not validate (all problems)       exit 2
    ├── HostError                  the node could not be read or changed                          exit 3
    │   ├── HostFileError          one file operation failed; carries path and errno
    │   │   ├── HostFileMissing    the path does not exist
    │   │   └── PathEscapesRoot    a path or symlink leads out of the host root
    │   └── CommandError           a command on the node
    │       ├── CommandMissing     there is no such program
    │       ├── CommandTimeout     it was killed after its timeout
    │       └── CommandFailed      it ended with an unexpected exit code
    └── KubeError                  the API server; its branches by status are drawn in kube/errors.py   exit 3
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass


class AgentError(Exception):
    """Base of everything that is raised on purpose."""


class UsageError(AgentError):
    """The command line or the environment is wrong."""


@dataclass(frozen=True, slots=True, order=True)
class Problem:
    """One thing that is wrong in a file.

    file: as the user named it. line: 1-based, 0 when the whole file is meant. key: dotted path such as
    `reboot.windows[0].start`, empty when there is none. message: what is wrong and what would be right.
    """

    file: str
    line: int
    key: str
    message: str

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        return f"{where}: {self.key}: {self.message}" if self.key else f"{where}: {self.message}"


class ConfigError(AgentError):
    """Configuration or profiles that do not validate. `problems` holds every problem found, in file order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(sorted(problems))
        super().__init__("\n".join(str(problem) for problem in self.problems))


class HostError(AgentError):
    """The node could not be read or changed."""


class HostFileError(HostError):
    """One file operation failed. `path` is the node's path (without the host root), `errno` the kernel's number."""

    def __init__(self, action: str, path: str, cause: OSError | str) -> None:
        self.action = action
        self.path = path
        self.errno = cause.errno if isinstance(cause, OSError) else None
        self.reason = (cause.strerror or str(cause)) if isinstance(cause, OSError) else cause
        super().__init__(f"cannot {action} {path}: {self.reason}")

    @classmethod
    def of(cls, action: str, path: str, cause: OSError) -> HostFileError:
        """The right branch for an OSError: HostFileMissing for ENOENT and ENOTDIR, else HostFileError."""
        missing = isinstance(cause, FileNotFoundError | NotADirectoryError)
        return (HostFileMissing if missing else HostFileError)(action, path, cause)


class HostFileMissing(HostFileError):
    """The path does not exist on the node."""


class PathEscapesRoot(HostFileError):
    """A path or symlink leads out of the host root, or in circles."""


class CommandError(HostError):
    """A command on the node did not do its work. `argv` is what was to run."""

    def __init__(self, argv: Sequence[str], message: str) -> None:
        self.argv = tuple(argv)
        super().__init__(f"{os.path.basename(argv[0])}: {message}")  # noqa: PTH119 - argv is a string, not a path of ours


class CommandMissing(CommandError):
    """There is no such program on the node."""


class CommandTimeout(CommandError):
    """The command was killed, with all that it started, after its timeout."""


class CommandFailed(CommandError):
    """The command ended with an exit code that does not mean success. `code` is negative for a signal."""

    def __init__(self, argv: Sequence[str], code: int, output: str) -> None:
        self.code = code
        self.output = output
        ended = f"was ended by signal {-code}" if code < 0 else f"exit code {code}"
        super().__init__(argv, f"{ended}: {output}" if output else ended)


class KubeError(AgentError):
    """The API server could not be reached or refused. Its branches by status are in kube/errors.py."""
