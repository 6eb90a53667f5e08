"""Where the page goes: a file that is there completely or not at all.

It refuses to overwrite what is no report of ours, and to follow a name that is no regular file.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
import tempfile
from collections.abc import Iterable
from pathlib import Path

from agent.errors import AgentError, UsageError
from agent.plugin.views.table import stamp

# How a report is recognized by whoever is about to overwrite it.
GENERATOR = "node-hardening.io/report"
_HEAD_BYTES = 2048
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._-]+")


class ReportNotWritten(AgentError):
    """The file system refuses it."""


def name_for(context: str, moment: float) -> str:
    """`node-hardening-report-CONTEXT-2026-01-31-2200Z.html`: sorted by time, and fit for every file system."""
    where = _NOT_IN_NAMES.sub("-", context).strip("-.")[:60]
    when = stamp(moment).replace(" ", "-").replace(":", "")
    return "-".join(part for part in ("node-hardening-report", where, when) if part) + ".html"


def save(path: Path, pieces: Iterable[str]) -> int:
    """Writes a temporary file and renames it when it is complete; returns its size. Devices and pipes are written to.

    Only its owner can read it: it lists weaknesses. A file that exists has to have GENERATOR near its beginning.
    Raises UsageError for a name that cannot be used, ReportNotWritten.
    """
    if _is_stream(path):
        return _stream(path, pieces)
    _check(path)
    try:
        descriptor, beside = tempfile.mkstemp(prefix=f".{path.name[:100]}.", dir=path.parent)
    except OSError as error:
        raise ReportNotWritten(f"cannot write to {path.parent}: {error.strerror}; name another file with -O") from error
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8", newline="\n") as file:
            file.writelines(pieces)
            file.flush()
            os.fsync(file.fileno())
            size = os.fstat(file.fileno()).st_size
        Path(beside).replace(path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            Path(beside).unlink()
        if isinstance(error, OSError):
            raise ReportNotWritten(f"cannot write {path}: {error.strerror}") from error
        raise
    return size


def _is_stream(path: Path) -> bool:
    """/dev/null, /dev/stdout, a named pipe: nothing that a rename may replace."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    return stat.S_ISCHR(mode) or stat.S_ISFIFO(mode)


def _stream(path: Path, pieces: Iterable[str]) -> int:
    try:
        with path.open("w", encoding="utf-8", newline="\n") as stream:
            return sum(stream.write(piece) for piece in pieces)
    except BrokenPipeError:
        raise
    except OSError as error:
        raise ReportNotWritten(f"cannot write {path}: {error.strerror}") from error


def _check(path: Path) -> None:
    try:
        found = path.lstat()
    except FileNotFoundError:
        if not path.parent.is_dir():
            raise UsageError(f"there is no directory {path.parent}: create it, or name another file with -O") from None
        return
    except OSError as error:
        raise ReportNotWritten(f"cannot read {path}: {error.strerror}") from error
    if stat.S_ISDIR(found.st_mode):
        raise UsageError(f"{path} is a directory: name a file in it with -O")
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(f"{path} is no regular file: name another with -O, or write to standard output with -O -")
    try:
        with path.open("rb") as file:
            start = file.read(_HEAD_BYTES)
    except OSError as error:
        raise ReportNotWritten(f"cannot read {path}: {error.strerror}; name another file with -O") from error
    if start and GENERATOR.encode() not in start:
        raise UsageError(f"{path} exists and is no report: nothing was overwritten; name another file with -O")
