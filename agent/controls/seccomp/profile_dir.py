"""The folder of profiles where the agent runs: a ConfigMap's mount, or the shipped ones.

A file's path below the folder is its path below the kubelet's, so that pods name it as its author did. It reads
regular files only, follows the symlinks that a ConfigMap's mount is made of, and is bounded in depth and number.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from agent.controls.seccomp.parser import SIZE_LIMIT_BYTES
from agent.errors import HostFileError
from agent.host.filesystem import read_regular

_DEPTH_LIMIT: Final = 4
_FILES_LIMIT: Final = 256
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+@=-]{0,127}")
_NOTES = (".md", ".txt", ".rst")


@dataclass(frozen=True, slots=True)
class Source:
    """One file. name: its path below the folder. file: the path shown to users. error: why content is not there."""

    name: str
    file: str
    content: bytes = b""
    error: str = ""


@dataclass(frozen=True, slots=True)
class Sources:
    """What the folder holds. skipped: files that look like no profile. error: why nothing could be listed."""

    folder: str
    files: tuple[Source, ...] = ()
    skipped: tuple[str, ...] = ()
    error: str = ""


def sources(folder: Path) -> Sources:
    """Every profile: `*.json`, and names without an ending (as in `localhost/prevent-chmod`) that are not all capitals.

    Notes (README, *.md, *.txt) and dot entries are left out without a word, anything else is named in `skipped`.
    """
    files: list[Source] = []
    skipped: list[str] = []
    try:
        for path in _walk(folder, 1):
            name = path.relative_to(folder).as_posix()
            if path.suffix in _NOTES or (not path.suffix and path.name.isupper()):
                continue
            if path.suffix not in ("", ".json"):
                skipped.append(ascii(name)[1:-1])
            elif not all(_NAME.fullmatch(part) for part in name.split("/")):
                shown = ascii(name)[1:-1]
                files.append(Source(shown, f"{folder}/{shown}", error=f"a name may hold {_NAME.pattern} only"))
            else:
                files.append(_read(path, name))
            if len(files) > _FILES_LIMIT:
                return Sources(str(folder), error=f"more than {_FILES_LIMIT} profiles in {folder}")
    except OSError as error:
        return Sources(str(folder), error=f"cannot list {error.filename or folder}: {error.strerror}")
    return Sources(str(folder), tuple(files), tuple(skipped))


def _walk(folder: Path, depth: int) -> Iterator[Path]:
    for entry in sorted(folder.iterdir()):
        if entry.name.startswith("."):
            continue  # ..data and ..2024_… of a ConfigMap's mount, editors' and git's own
        if not entry.is_dir():
            yield entry
        elif depth < _DEPTH_LIMIT:
            yield from _walk(entry, depth + 1)


def _read(path: Path, name: str) -> Source:
    try:
        return Source(name, str(path), read_regular(str(path), str(path), SIZE_LIMIT_BYTES))
    except HostFileError as error:
        return Source(name, str(path), error=f"is {error.reason}")
    except OSError as error:
        return Source(name, str(path), error=f"cannot be read: {error.strerror}")
