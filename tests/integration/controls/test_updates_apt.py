"""The count of pending updates, with the machine's own apt-get."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from agent.controls.updates import pending
from agent.host import Completed


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt-get")
def test_the_command_is_one_that_apt_understands() -> None:
    """Of a package alone, which is quick; with the options that the count uses."""
    argv = (*pending.APT.argv[:-1], "install", "dpkg")
    environment = {"PATH": "/usr/bin:/bin", "LC_ALL": "C"}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=True, env=environment)
    assert pending.APT.parse(Completed(argv, done.returncode, done.stdout, done.stderr)) >= 0
