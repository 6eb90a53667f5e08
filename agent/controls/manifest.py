"""What the agent installed on the node, recorded on the node: the manifest that removal works from.

One JSON file per control below /var/lib/node-hardening. An entry is written *before* the file that it names, so a crash
in between leaves an entry without a file (harmless) and never a file without an entry. An entry holds the hashes of the
agent's content, so another file in the same place is recognised: it is copied before the agent's file replaces it,
restored when that is removed, and never lost.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.errors import HostError, HostFileMissing
from agent.host import Host

STATE_FOLDER = "/var/lib/node-hardening"
_VERSION = 1


class ManifestError(HostError):
    """The manifest cannot be read: what was installed is unknown."""


@dataclass(frozen=True, slots=True)
class Entry:
    """One installed thing. key: the file's path on the node, or a name where the thing is no file.

    hashes: SHA-256 of the agent's content, newest first; the second one is from before the write, and still valid after
    a crash in between. kept: path of the copy of the file that was there before, empty without one. notes: the
    control's own.
    """

    key: str
    hashes: tuple[str, ...] = ()
    kept: str = ""
    notes: Mapping[str, str] = field(default_factory=dict)


def digest(content: bytes) -> str:
    """SHA-256 as hex."""
    return hashlib.sha256(content).hexdigest()


class Installed:
    """The manifest of one control, and installing and removing by it. All raise HostError."""

    def __init__(self, host: Host, control: str) -> None:
        self._host = host
        self._control = control
        self.path = f"{STATE_FOLDER}/{control}.json"

    def entries(self) -> dict[str, Entry]:
        """Every entry by key; empty on a node that was never touched. Raises ManifestError, HostFileError."""
        try:
            text = self._host.read_text(self.path)
        except HostFileMissing:
            return {}
        try:
            document = json.loads(text)
            if document["version"] != _VERSION:
                raise ManifestError(f"{self.path}: version {document['version']!r} is not {_VERSION}")
            return {entry.key: entry for entry in map(_entry, document["installed"])}
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            raise ManifestError(f"{self.path}: not a manifest of this agent: {error}") from error

    def read(self) -> tuple[dict[str, Entry], str]:
        """Every entry by key; none, and why, where they cannot be read."""
        try:
            return self.entries(), ""
        except HostError as error:
            return {}, str(error)

    def remember(self, entry: Entry) -> None:
        """Adds or replaces one entry."""
        self._save(self._entries_or_new() | {entry.key: entry})

    def forget(self, key: str) -> None:
        """Removes one entry, if it is there."""
        entries = self._entries_or_new()
        if entries.pop(key, None) is not None:
            self._save(entries)

    def is_ours(self, entry: Entry | None, content: bytes) -> bool:
        """Whether this content at the entry's path is the agent's."""
        return entry is not None and digest(content) in entry.hashes

    def install(self, path: str, content: bytes, *, mode: int = 0o644, notes: Mapping[str, str] | None = None) -> None:
        """Writes the content to `path`, atomically; a file of others is copied first."""
        entry = self._entries_or_new().get(path)
        new = digest(content)
        try:
            present: bytes | None = self._host.read_bytes(path)
        except HostFileMissing:
            present = None
        kept = entry.kept if entry else ""
        if present is not None and entry is None:
            # Kept even with the same content: it is not the agent's.
            kept = f"{STATE_FOLDER}/kept/{self._control}/{path.strip('/').replace('/', '_')}.{digest(present)[:12]}"
            self._host.write(kept, present, mode=self._host.stat(path).mode)
        # The agent's content there now, after any number of installs that were interrupted before their write.
        there = digest(present) if present is not None and self.is_ours(entry, present) else ""
        before = (there,) if there and there != new else ()
        self.remember(Entry(path, (new, *before), kept, dict(notes or {})))
        self._host.write(path, content, mode=mode)

    def uninstall(self, path: str) -> bool:
        """Removes the agent's file and restores the one before; False when it is no longer the agent's and was left."""
        entry = self._entries_or_new().get(path)
        if entry is None:
            return False
        try:
            ours = self.is_ours(entry, self._host.read_bytes(path))
        except HostFileMissing:
            ours = True
        if ours and not self._restore(entry):
            self._host.remove(path)
        self.forget(path)
        # Only now: while there is an entry, the next install relies on the copy that it names.
        if entry.kept and self._is_restored(entry):
            self._host.remove(entry.kept)
        return ours

    def _restore(self, entry: Entry) -> bool:
        """Restores the file from before; False when there was none, or its copy is gone."""
        if not entry.kept:
            return False
        try:
            content, mode = self._host.read_bytes(entry.kept), self._host.stat(entry.kept).mode
        except HostFileMissing:
            return False
        self._host.write(entry.key, content, mode=mode)
        return True

    def _is_restored(self, entry: Entry) -> bool:
        """Whether the kept file is in its place again, so that the copy is not the only one."""
        try:
            return self._host.read_bytes(entry.key) == self._host.read_bytes(entry.kept)
        except HostFileMissing:
            return False

    def _entries_or_new(self) -> dict[str, Entry]:
        """The entries before a write. A manifest that cannot be read is copied, not lost."""
        try:
            return self.entries()
        except ManifestError:
            self._host.write(f"{self.path}.unreadable", self._host.read_bytes(self.path))
            return {}

    def _save(self, entries: Mapping[str, Entry]) -> None:
        document = {"version": _VERSION, "installed": [_document(entries[key]) for key in sorted(entries)]}
        self._host.write(self.path, json.dumps(document, indent=1) + "\n", mode=0o600)


def _entry(raw: Any) -> Entry:
    hashes, notes = raw.get("hashes", []), raw.get("notes", {})
    if not isinstance(hashes, list) or not isinstance(notes, dict):
        raise TypeError("hashes are a list and notes a mapping")
    entry = Entry(raw["key"], tuple(hashes), raw.get("kept", ""), notes)
    texts = (entry.key, entry.kept, *entry.hashes, *entry.notes, *entry.notes.values())
    if not all(isinstance(text, str) for text in texts):
        raise ValueError(f"{entry.key!r}: holds what is not text")
    return entry


def _document(entry: Entry) -> dict[str, Any]:
    fields = {"hashes": list(entry.hashes), "kept": entry.kept, "notes": dict(entry.notes)}
    return {"key": entry.key} | {name: value for name, value in fields.items() if value}
