"""A table of nodes for eyes: redrawn in place on a terminal, a line for each change anywhere else.

It reads the terminal's size before every drawing, so that a window may shrink meanwhile. It does not move the cursor
unless the caller declares a terminal.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass

Write = Callable[[str], None]

_HEAD = ("NODE", "HARDENED", "SCHEDULABLE", "PODS", "REBOOT")
_WIDTHS = (8, 8, 11, 4, 0)
_BAR = "  "


@dataclass(frozen=True, slots=True)
class Row:
    """A node, in words."""

    node: str
    hardened: str
    schedulable: str
    pods: int
    reboot: str

    def cells(self) -> tuple[str, ...]:
        """In the order of the head."""
        return (self.node, self.hardened, self.schedulable, str(self.pods), self.reboot)


class Screen:
    """Shows the latest rows. live: there is a terminal below `out`."""

    def __init__(self, out: Write, *, live: bool) -> None:
        self._out = out
        self._live = live
        self._drawn = 0  # lines of the table that stand above the cursor
        self._shown: list[str] = []
        self._last: dict[str, tuple[str, ...]] = {}

    def show(self, rows: Sequence[Row], foot: str, seconds: float) -> None:
        """The rows as they are now. foot: the line below them. seconds: since the beginning."""
        columns, height = shutil.get_terminal_size()
        if not self._live or len(rows) + 3 > height:
            self._lines(rows, foot, seconds)
            return
        lines = [_aligned(_HEAD), *(_aligned(row.cells()) for row in rows), f"{_BAR}{seconds:4.0f} s  {foot}"]
        lines = [line[: columns - 1] for line in lines]
        if lines == self._shown:
            return
        up = f"\x1b[{self._drawn}A" if self._drawn else ""
        self._out(up + "".join(f"\x1b[2K{line}\n" for line in lines))
        self._drawn, self._shown = len(lines), lines

    def _lines(self, rows: Sequence[Row], foot: str, seconds: float) -> None:
        """Pods come and go too often to be a change of their own."""
        if not self._last:
            self._out(f"{_BAR}   TIME{_aligned(_HEAD)}\n")
        for row in rows:
            status = (row.hardened, row.schedulable, row.reboot)
            if self._last.get(row.node) != status:
                self._last[row.node] = status
                self._out(f"{_BAR}{seconds:5.1f} s{_aligned(row.cells())}\n")
        if self._last.get("") != (foot,):
            self._last[""] = (foot,)
            self._out(f"{_BAR}{seconds:5.1f} s{_BAR}{foot}\n")


def _aligned(cells: Sequence[str]) -> str:
    return "".join(f"{_BAR}{cell:<{width}}" for cell, width in zip(cells, _WIDTHS, strict=True)).rstrip()
