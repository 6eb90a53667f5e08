"""The image with the agent in it: the wheel built from this checkout, installed with pip in a running machine.

A disk over the base image, kept under the wheel's hash; a change of the agent costs one boot. NHA_VM_WHEEL names a
ready wheel to test instead: a release's own, or that of another commit.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.vm.harness import recipe
from tests.vm.harness.machine import Machine
from tests.vm.harness.recipe import ROOT, VENV, Image


def image(accel: Sequence[str]) -> Image:
    """The base image with this checkout's agent installed."""
    base = recipe.base()
    with tempfile.TemporaryDirectory(prefix="nha-wheel-") as folder:
        wheel = _wheel(Path(folder))
        key = hashlib.sha256(wheel.read_bytes()).hexdigest()[:16]
        disk = base.disk.with_name(f"agent-{key}.qcow2")
        with recipe.locked(recipe.cache()):
            if not disk.exists():
                _install(base, accel, wheel, disk)
    return Image(base.kernel, base.initrd, disk, "qcow2")


def _wheel(folder: Path) -> Path:
    if ready := os.environ.get("NHA_VM_WHEEL"):
        return Path(ready)
    subprocess.run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "wheel", "-q", "--no-deps",
         "--no-build-isolation", "-w", str(folder), str(ROOT)],
        check=True, stdin=subprocess.DEVNULL,
    )  # fmt: skip
    return next(folder.glob("*.whl"))


def _install(base: Image, accel: Sequence[str], wheel: Path, disk: Path) -> None:
    # Another run may be making machines over one of the last few.
    for old in sorted(disk.parent.glob("agent-*.qcow2"), key=lambda path: path.stat().st_mtime)[:-3]:
        old.unlink()
    with Machine("install", base, accel, recipe.cache() / "logs", cpus=2) as machine:
        machine.start()
        machine.put(f"/var/tmp/{wheel.name}", wheel.read_bytes())
        pip = [f"{VENV}/bin/pip", "install", "-q", "--no-index", "--no-deps", f"/var/tmp/{wheel.name}"]
        machine.run(pip, seconds=300)
        machine.run(["/usr/local/bin/node-hardening-agent", "--version"])
        machine.sh(f"rm /var/tmp/{wheel.name}; sync; systemctl poweroff")
        machine.await_off()
        machine.keep_disk(disk)
