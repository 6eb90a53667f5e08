"""The folders of profiles as they were when a policy was accepted: copies on the node's disk, named by their content.

Where a policy is staged the controls read a copy, so that a ConfigMap of profiles that changes has no effect before its
turn. Reads of a folder are bounded; one that cannot be read whole has a content of its own, and is never copied.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Collection, Iterator, Mapping

from agent.config import Config
from agent.config import revision as policy_revision
from agent.config.overrides import merged
from agent.controls import registry
from agent.controls.manifest import STATE_FOLDER
from agent.errors import HostError, HostFileError, HostFileMissing
from agent.host import Host
from agent.host.filesystem import read_regular

COPIES = f"{STATE_FOLDER}/profiles"
_ACCEPTED = f"{COPIES}/accepted.json"
_FOLDER_MARK = ".folder"  # makes the folder of a copy that holds nothing
_LIMIT_BYTES, _FILE_LIMIT_BYTES, _ENTRIES_LIMIT = 16 << 20, 4 << 20, 2000
_DIGEST = re.compile(r"(?:[0-9a-f]{32})?")

# By folder, a hash of what it holds; empty for one that is not there, in place of which the shipped profiles are used.
Digests = Mapping[str, str]


def digests(config: Config) -> Digests:
    """Of every folder that the policy names, on any node and in any mode: equal on all nodes."""
    policies = (config, *(merged(config, (one,)) for one in config.overrides))
    folders = {spec.profiles(one) for one in policies for spec in registry.CONTROLS} - {""}
    return {folder: digest(folder) for folder in sorted(folders)}


def revision(config: Config, found: Digests) -> str:
    """Of the policy, followed by that of its profiles where any are there: what a rollout is about."""
    policy = policy_revision(config)
    if not any(found.values()):
        return policy
    return f"{policy}-{hashlib.sha256(json.dumps(found, sort_keys=True).encode()).hexdigest()[:8]}"


def digest(folder: str) -> str:
    """A hash of what a folder holds; empty for one that is not there."""
    if not os.path.lexists(folder):
        return ""
    seen = hashlib.sha256()
    for name, content in contents(folder):
        seen.update(record(name, content))
    return seen.hexdigest()[:32]


def record(name: str, content: bytes | None) -> bytes:
    """One file for a hash over a folder."""
    shown = b"unreadable" if content is None else content
    return f"\0{name}\0{len(shown)}\0".encode(errors="surrogateescape") + shown


def contents(folder: str) -> Iterator[tuple[str, bytes | None]]:
    """Path below the folder and content of every file; a ConfigMap's own dot entries left out.

    None for what cannot be read, and for the rest of a folder that holds too much. A folder that is not there is empty.
    """
    problems: list[OSError] = []
    entries = size = 0
    for place, folders, names in os.walk(folder, onerror=problems.append, followlinks=True):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(name for name in names if not name.startswith(".")):
            path = os.path.join(place, name)  # noqa: PTH118 - one of hundreds
            content = _read(path, min(_FILE_LIMIT_BYTES, _LIMIT_BYTES - size))
            size += len(content or b"")
            yield os.path.relpath(path, folder), content
        entries += 1 + len(names)
        if entries > _ENTRIES_LIMIT:
            yield "", None
            return
    if any(not isinstance(error, FileNotFoundError) for error in problems):
        yield "", None


def _read(path: str, limit_bytes: int) -> bytes | None:
    try:
        return read_regular(path, path, limit_bytes)
    except (OSError, HostError):
        return None


class ProfileCopies:
    """The copies on one node's disk."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def accepted(self) -> Digests | None:
        """What was last accepted; None where that was never recorded. Raises HostError, ValueError."""
        try:
            found = json.loads(self._host.read_text(_ACCEPTED))
        except HostFileMissing:
            return None
        except RecursionError as error:
            raise ValueError(f"{_ACCEPTED} is not what this agent writes") from error
        if not isinstance(found, dict) or not all(_DIGEST.fullmatch(str(one)) for one in found.values()):
            raise ValueError(f"{_ACCEPTED} is not what this agent writes")
        return found

    def keep(self, found: Digests) -> None:
        """Copies the folders that have no copy yet, and removes other copies. Raises HostError.

        Nothing is removed before the copies are whole. A folder that has changed since it was hashed is not copied.
        """
        for folder, name in found.items():
            if not self._place(name):
                self._copy(folder, name)
        self._host.write(_ACCEPTED, json.dumps(found), mode=0o600)
        self._sweep(found.values())

    def places(self, found: Digests) -> Mapping[str, str]:
        """Where this process finds the copy of each folder; without those whose copy is not whole."""
        return {folder: place for folder, name in found.items() if (place := self._place(name))}

    def is_at_hand(self, config: Config, found: Digests) -> bool:
        """Whether what was found can still be read, of every folder that the policy names: its copy, or the folder."""
        return all(
            folder in found and (found[folder] == now or self._place(found[folder]))
            for folder, now in digests(config).items()
        )

    def _place(self, name: str) -> str:
        if not name:
            return self._host.real_path(f"{COPIES}/absent")
        try:
            place = self._host.locate(f"{COPIES}/{name}")
        except HostError:
            return ""
        return place if digest(place) == name else ""

    def _copy(self, folder: str, name: str) -> None:
        copy = f"{COPIES}/{name}"
        self._remove(copy)
        if digest(folder) != name:
            raise HostFileError("copy", folder, "changed meanwhile")
        self._host.write(f"{copy}/{_FOLDER_MARK}", b"")
        for path, content in contents(folder):
            if content is None:
                raise HostFileError("copy", f"{folder}/{path}", "cannot be read")
            self._host.write(f"{copy}/{path}", content)
        if not self._place(name):
            raise HostFileError("copy", folder, "changed meanwhile")

    def _sweep(self, names: Collection[str]) -> None:
        for one in self._host.names(COPIES):
            if one not in names and _DIGEST.fullmatch(one):
                self._remove(f"{COPIES}/{one}")

    def _remove(self, path: str) -> None:
        """A copy with all that it holds; never what a symlink in it leads to."""
        try:
            below = self._host.names(path)
        except HostFileMissing:
            return
        for one in below:
            try:
                self._host.remove(f"{path}/{one}")
            except HostFileError:  # a folder
                self._remove(f"{path}/{one}")
        self._host.remove_folder(path)
