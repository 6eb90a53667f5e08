"""Passes leave nothing in memory: what the daemon allocates for one is free after it, to the byte."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from tests.support import passes

ROOT = Path(__file__).resolve().parents[2]
_LIMIT_BYTES = 16  # a pass; the smallest object that could stay has more


def test_passes_leave_nothing_in_memory(tmp_path: Path) -> None:
    """A byte a pass would be 100 KiB a year."""
    command = [sys.executable, "-m", passes.__name__, str(tmp_path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) < _LIMIT_BYTES * passes.PASSES, done.stdout
