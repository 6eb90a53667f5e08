"""Entering a pod's network namespace without the right to: an error, and never a refused connection."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from agent.host import netns

# In a user namespace of its own the process has no capability over the network namespace that it was started in; where
# it may not have one it is no root either.
_ENTER = """
import ctypes
from agent.host import netns
ctypes.CDLL(None).unshare(0x10000000)
found = netns.exchange(["/proc/self/ns/net"], "127.0.0.1", 9, b"", timeout_seconds=1)
print(*(one.result.name for one in found.values()))
"""


def test_a_namespace_that_may_not_be_entered_is_an_error_and_not_a_refused_connection() -> None:
    """Without the capability the kernel answers EPERM, which is also what a firewall answers to a connection."""
    argv = [sys.executable, "-c", _ENTER]
    folder = Path(netns.__file__).parents[2]
    done = subprocess.run(argv, cwd=folder, check=True, capture_output=True, text=True, timeout=300)
    assert done.stdout.split() == ["ERROR"]
