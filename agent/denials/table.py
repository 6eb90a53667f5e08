"""Denials added up: one row for each container, profile and operation, in bounded memory.

A pod that is refused ever new things must not push out the others' rows: each has a bounded share. What has no row any
more is counted. Capability refusals are cached by the kernel, so a count is a least.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Final, NamedTuple

from agent.denials.attribution import Place
from agent.denials.records import Kind, Outcome

ROWS: Final = 256
ROWS_OF_A_POD: Final = 32


class Key(NamedTuple):
    """What makes a row. place: UNKNOWN where that is so. file: empty unless the policy has fileNames."""

    place: Place
    profile: str
    kind: Kind
    operation: str
    mask: str
    outcome: Outcome
    file: str = ""


@dataclass(slots=True)
class Row:
    """How often, and when first and last, in epoch seconds."""

    count: int
    first: float
    last: float


class DenialTable:
    """Rows in memory. The one whose last record is oldest goes first."""

    def __init__(self) -> None:
        self._rows: dict[Key, Row] = {}
        self._of_pod: dict[str, int] = {}
        self.other = 0  # records without a row any more

    def add(self, key: Key, at: float) -> bool:
        """One record; whether it made a new row."""
        row = self._rows.get(key)
        if row is not None:
            row.count += 1
            row.first, row.last = min(row.first, at), max(row.last, at)
            return False
        uid = key.place.uid
        if self._of_pod.get(uid, 0) >= ROWS_OF_A_POD:
            self._drop_oldest([one for one in self._rows if one.place.uid == uid])
        elif len(self._rows) >= ROWS:
            self._drop_oldest(self._rows)
        self._rows[key] = Row(1, at, at)
        self._of_pod[uid] = self._of_pod.get(uid, 0) + 1
        return True

    def newest_first(self) -> Iterator[tuple[Key, Row]]:
        """Every row."""
        return iter(sorted(self._rows.items(), key=lambda one: -one[1].last))

    def _drop_oldest(self, some: Iterable[Key]) -> None:
        key = min(some, key=lambda one: self._rows[one].last)
        self.other += self._rows.pop(key).count
        self._of_pod[key.place.uid] -= 1
        if not self._of_pod[key.place.uid]:
            del self._of_pod[key.place.uid]
