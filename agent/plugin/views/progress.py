"""How far a long read is, on a terminal's standard error, removed when it is over. Nothing without a terminal."""

from __future__ import annotations

from types import TracebackType
from typing import Self, TextIO

_BAR = 24
_WIPE = "\r\x1b[K"


class Progress:
    """A context manager; call it with what is done and how many there are, None if unknown."""

    def __init__(self, err: TextIO, *, live: bool, noun: str = "nodes") -> None:
        """live: `err` is a terminal."""
        self._err, self._live, self._noun = err, live, noun
        self._shown = False

    def of(self, noun: str, done: int, total: int | None) -> None:
        """The same for one of several things that are read."""
        self._noun = noun
        self(done, total)

    def __call__(self, done: int, total: int | None) -> None:
        """Shown from the second page on: what is read in one needs no bar."""
        if not self._live or (total is not None and done >= total and not self._shown):
            return
        if total:
            full = min(_BAR, _BAR * done // total)
            text = f"[{'#' * full}{'.' * (_BAR - full)}] {done:,} of {total:,} {self._noun}"
        else:
            text = f"{done:,} {self._noun}"
        self._shown = True
        self._err.write(f"{_WIPE}{text}")
        self._err.flush()

    def __enter__(self) -> Self:
        """Begins."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Removes it from the screen."""
        if self._shown:
            self._err.write(_WIPE)
            self._err.flush()
