"""The folder of raw profiles, where the agent itself runs: a ConfigMap's mount, or the shipped profiles.

Reads and nothing else. It refuses files that are no profiles by their name, more than a folder of profiles can sensibly
hold, and to take a folder that cannot be read for an empty one.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from agent.bundled_profiles import is_shipped, profiles_folder
from agent.errors import HostFileError, Problem
from agent.host.filesystem import read_regular

FILES_LIMIT = 256
BYTES_LIMIT = 512 << 10
_DENY = re.compile(rb"^([ \t]*)deny ", re.MULTILINE)
# What apparmor_parser itself skips in a folder (aa_parser's man page), and prose.
_SKIPPED_ENDINGS = (
    ".dpkg-new", ".dpkg-old", ".dpkg-dist", ".dpkg-bak", ".dpkg-remove",
    ".pacsave", ".pacnew", ".rpmnew", ".rpmsave", ".orig", ".rej", "~", ".md",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class SourceFile:
    """One file of the folder. shown: its path in messages. problem: why there is no content."""

    name: str
    shown: str
    content: bytes = b""
    problem: Problem | None = None


@dataclass(frozen=True, slots=True)
class Source:
    """The folder as it was read."""

    folder: Path
    files: tuple[SourceFile, ...]


def read(configured: str, *, audited: bool = False) -> Source:
    """Every profile file, by name. A folder that is not there means the shipped profiles; an empty one means none.

    audited: the `deny` rules of shipped profiles, wherever they stand unchanged, become `audit deny`.

    Names with a leading dot are skipped, `..data` of a ConfigMap's mount among them; so are folders, which hold what
    profiles include. Raises HostFileError when the folder cannot be read, AgentError when the shipped ones are lost.
    """
    folder = profiles_folder(configured, "apparmor")
    try:
        names = sorted(entry.name for entry in folder.iterdir() if _is_candidate(entry))
    except OSError as error:
        raise HostFileError("list", str(folder), error) from error
    if len(names) > FILES_LIMIT:
        raise HostFileError("list", str(folder), f"holds {len(names)} files; no more than {FILES_LIMIT} are read")
    files = tuple(_read(folder / name) for name in names)
    return Source(folder, tuple(map(_audited, files)) if audited else files)


def has_folders(folder: Path) -> bool:
    """Whether there is anything that profiles of this folder could include from it."""
    try:
        return any(entry.is_dir() and not entry.name.startswith(".") for entry in folder.iterdir())
    except OSError:
        return False


def stamp(folders: Sequence[Path]) -> tuple[tuple[str, int, int], ...]:
    """Path, size and ctime of everything below the folders: equal stamps mean that no included file has changed."""
    found: list[tuple[str, int, int]] = []
    for folder in folders:
        for place, _, names in os.walk(folder):
            for name in names:
                path = os.path.join(place, name)  # noqa: PTH118 - hundreds of them in every pass
                try:
                    seen = os.stat(path)  # noqa: PTH116
                except OSError:
                    continue
                found.append((path, seen.st_size, seen.st_ctime_ns))
    return tuple(sorted(found))


def _audited(file: SourceFile) -> SourceFile:
    """The kernel records a refusal by a `deny` rule only where the rule has `audit`: apparmor.d(5)."""
    if not is_shipped("apparmor", file.name, file.content):
        return file
    return replace(file, content=_DENY.sub(rb"\1audit deny ", file.content))


def _is_candidate(entry: Path) -> bool:
    return not entry.name.startswith(".") and not entry.name.endswith(_SKIPPED_ENDINGS) and not entry.is_dir()


def _read(path: Path) -> SourceFile:
    shown = str(path)
    try:
        return SourceFile(path.name, shown, read_regular(shown, shown, BYTES_LIMIT))
    except HostFileError as error:
        message = error.reason
    except OSError as error:
        message = f"cannot be read: {error.strerror}"
    return SourceFile(path.name, shown, problem=Problem(shown, 0, "", message))
