"""Signals as bytes in a pipe, handled where the main thread reads them.

A signal may be delivered to any thread, and a main thread that waits for a lock does not wake up. The interpreter's
wakeup descriptor is written whichever thread is hit, and nothing but a read happens in signal context.
https://docs.python.org/3/library/signal.html#signal.set_wakeup_fd
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Mapping
from types import FrameType
from typing import Any, Self


class Signals:
    """Reads signals while the block runs and restores the handlers afterwards. For the main thread."""

    def __init__(self, ending: Iterable[signal.Signals], calls: Mapping[signal.Signals, Callable[[], None]]) -> None:
        """ending: signals that end `wait`. calls: what `wait` calls for the others."""
        self._calls = {int(number): call for number, call in calls.items()}
        self._ending = {int(number) for number in ending}
        self._before: dict[int, Any] = {}
        self._read, self._write = -1, -1

    def __enter__(self) -> Self:
        self._read, self._write = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self._write, False)
        signal.set_wakeup_fd(self._write, warn_on_full_buffer=False)
        for number in self._calls.keys() | self._ending:
            # A handler of Python's has to be there for the byte to be written.
            self._before[number] = signal.signal(number, _ignore)
        return self

    def __exit__(self, *_raised: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)
        signal.set_wakeup_fd(-1)
        os.close(self._read)
        os.close(self._write)

    def wait(self) -> None:
        """Handles signals until one that ends it."""
        while True:
            for number in os.read(self._read, 64):
                if number in self._ending:
                    return
                if number in self._calls:
                    self._calls[number]()


def _ignore(_number: int, _frame: FrameType | None) -> None:
    """Only the byte in the pipe matters."""
