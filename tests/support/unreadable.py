"""A node of which one path cannot be read: the disk reports an error for it, as a broken one does for root too."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.errors import HostFileError
from agent.host import Host


class UnreadableHost(Host):
    """Every access to the path `broken` fails with EIO. asked: every path that anything was asked about, in order."""

    def __init__(self, root: Path, broken: str = "") -> None:
        super().__init__(root)
        self.broken = broken
        self.asked: dict[str, None] = {}

    @contextmanager
    def _parent(self, action: str, path: str, **how: Any) -> Iterator[tuple[int, str]]:
        self.asked[path] = None
        if path == self.broken:
            raise HostFileError(action, path, OSError(errno.EIO, os.strerror(errno.EIO)))
        with super()._parent(action, path, **how) as found:
            yield found
