"""Which syscalls containers under a logging profile made: one bitmap for each container and architecture.

A checkpoint on the node keeps them over a restart. Nothing is recorded of arguments, files or times of single calls.
`agent.plugin.record` makes a profile of them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import structlog

from agent.controls.manifest import STATE_FOLDER
from agent.denials.attribution import Names, Place
from agent.denials.document import RECORDING_FIELDS, RECORDING_VERSION
from agent.denials.records import Record
from agent.denials.syscall_names import X32_BIT
from agent.errors import HostError, HostFileMissing
from agent.host import Host
from agent.text import sanitize

PATH: Final = f"{STATE_FOLDER}/recordings.json"
LIMIT_BYTES: Final = 16 << 10  # of the annotation
_FILE_BYTES = 256 << 10
_CONTAINERS = 64
_HIGHEST = 1023
_RUNNING_SECONDS = 300.0  # since its last call a container counts as one that runs
_ID_CHARACTERS = 12


@dataclass(slots=True)
class Recording:
    """One container on one architecture (AUDIT_ARCH_*). syscalls: a bit for each number. lost: records of the node that
    were lost meanwhile, whoever made them, and logged calls of unknown containers. first, last: epoch seconds."""

    syscalls: int
    calls: int
    lost: int
    first: float
    last: float
    names: Names


class Recorder:
    """Bitmaps in memory, bounded, with their checkpoint. One thread uses it."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._found: dict[tuple[Place, int], Recording] = {}
        self._log = structlog.get_logger()
        self._is_saved = True
        self._stopped_at = (0, 0.0)  # serial number and time of the checkpoint, if it is of this boot
        try:
            self._boot = host.boot_id()
        except HostError:
            self._boot = ""
        self._load()

    def add(self, place: Place, names: Names, record: Record, at: float) -> bool:
        """One call, at epoch seconds; whether it was the first of its name in this container."""
        number = record.number & ~X32_BIT
        if number > _HIGHEST:
            return False
        key = (Place(place.uid, place.container_id[:_ID_CHARACTERS]), record.arch)
        found = self._found.get(key)
        if found is None:
            found = self._found[key] = Recording(0, 0, 0, at, at, names)
            if len(self._found) > _CONTAINERS:
                del self._found[min(self._found, key=lambda one: self._found[one].last)]
        if names.pod:
            found.names = names
        found.calls += 1
        found.last = max(found.last, at)
        self._is_saved = False
        before, found.syscalls = found.syscalls, found.syscalls | 1 << number
        return before != found.syscalls

    def lost(self, number: int, at: float) -> None:
        """So many records were lost until then: what containers that ran have called may be incomplete."""
        for found in self._found.values() if number else ():
            if found.last >= at - _RUNNING_SECONDS:
                found.lost += number
                self._is_saved = False

    def resume(self, serial: int) -> None:
        """The kernel's number of this run's first record: what it numbered since the checkpoint nothing has read."""
        before, at = self._stopped_at
        if before and serial > before + 1:
            self.lost(serial - before - 1, at)

    def save(self, serial: int, at: float, *, is_last: bool = False) -> None:
        """The checkpoint; one that cannot be written costs what came since the last one, after a restart. serial, at:
        of the newest record, and the time in epoch seconds. is_last: writes it although nothing new was recorded."""
        if not self._found or (self._is_saved and not is_last):
            return
        head = {"v": RECORDING_VERSION, "boot": self._boot, "serial": serial, "at": round(at)}
        try:
            self._host.write(PATH, json.dumps({**head, "recordings": self._rows()}), mode=0o600)
            self._is_saved = True
        except HostError as error:
            self._log.warning("recordings_not_written", path=PATH, error=str(error))

    def document(self) -> str:
        """The annotation's text, the newest first, as many as fit; empty when nothing was recorded."""
        if not self._found:
            return ""
        shown: list[list[Any]] = []
        size = 60
        for row in sorted(self._rows(), key=lambda one: -one[-1]):
            size += len(json.dumps(row, separators=(",", ":"))) + 1
            if size <= LIMIT_BYTES:
                shown.append(row)
        more = len(self._found) - len(shown)
        return json.dumps({"v": RECORDING_VERSION, "more": more, "recordings": shown}, separators=(",", ":"))

    def _rows(self) -> list[list[Any]]:
        return [
            [*one.names[:2], place.uid, one.names.container, place.container_id, f"{arch:x}",
             f"{one.syscalls:x}", one.calls, one.lost, round(one.first), round(one.last)]
            for (place, arch), one in self._found.items()
        ]  # fmt: skip

    def _load(self) -> None:
        try:
            document = json.loads(self._host.read_text(PATH, limit_bytes=_FILE_BYTES))
            for row in document["recordings"][:_CONTAINERS]:
                self._restore(dict(zip(RECORDING_FIELDS, row, strict=True)))
            if self._boot and document.get("boot") == self._boot:
                self._stopped_at = int(document["serial"]), float(document["at"])
        except HostFileMissing:
            pass
        except (HostError, ValueError, KeyError, TypeError, OverflowError, RecursionError) as error:
            self._log.warning("recordings_not_read", path=PATH, error=sanitize(str(error)))

    def _restore(self, row: Mapping[str, Any]) -> None:
        names = Names(str(row["namespace"]), str(row["pod"]), str(row["container"]))
        key = (Place(str(row["uid"]), str(row["id"])), int(row["arch"], 16))
        calls, lost, first, last = (int(row[name]) for name in RECORDING_FIELDS[-4:])
        self._found[key] = Recording(int(row["syscalls"], 16), calls, lost, first, last, names)
