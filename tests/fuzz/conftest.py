"""A place in memory: the fuzz tests write the same few files ten thousand times, and no test of them is about disks."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[Path]:
    """A folder of this test's own, on a tmpfs where there is one."""
    memory = Path("/dev/shm")
    if not os.access(memory, os.W_OK):
        yield tmp_path
        return
    with tempfile.TemporaryDirectory(prefix="node-hardening-", dir=memory) as folder:
        yield Path(folder)
