"""The count of pending updates, with the machine's own apt-get."""

from __future__ import annotations

import shutil
import subprocess

import pytest

from agent.controls.updates import systems


@pytest.mark.skipif(shutil.which("apt-get") is None, reason="needs apt-get")
def test_the_command_is_one_that_apt_understands() -> None:
    """Of a package alone, which is quick; with the options that the count uses."""
    (_, *arguments), form = next(one.pending for one in systems.SYSTEMS if one.name == "APT")  # type: ignore[misc]
    done = subprocess.run(
        ["apt-get", *arguments[:-1], "install", "dpkg"], capture_output=True, text=True, timeout=60, check=True,
        env={"PATH": "/usr/bin:/bin", "LC_ALL": "C"},
    )  # fmt: skip
    assert systems.count_security(form, done.stdout) >= 0
