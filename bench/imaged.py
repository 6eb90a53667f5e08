"""The agent as in the image, without an image: the Dockerfile's variables, locked packages, pruned, byte code made.

The interpreter is Debian's python3.11 where the machine has it, as in the image, else the one that runs the bench. It
reads the variables from the Dockerfile, so that nothing here can differ from what ships, and refuses to change anything
outside of .cache/bench.
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
CACHE = ROOT / ".cache" / "bench"
_DEBIAN = "/usr/bin/python3.11"


@dataclass(frozen=True, slots=True)
class Python:
    """An interpreter with its options and environment. about: for the table."""

    argv: tuple[str, ...]
    environment: Mapping[str, str]
    about: str

    def agent(self, *words: str | Path) -> list[str]:
        """The command line of the agent."""
        return [*self.argv, "-m", "agent", *map(str, words)]

    def without(self, *variables: str, **others: str) -> Python:
        """The same with some variables less, and others more."""
        kept = {name: value for name, value in self.environment.items() if name not in variables}
        return replace(self, environment={**kept, **others})


def variables() -> dict[str, str]:
    """The last ENV of the Dockerfile."""
    text = (ROOT / "Dockerfile").read_text().rpartition("\nENV ")[2]
    lines = []
    for line in text.splitlines():
        lines.append(line.removesuffix("\\"))
        if not line.endswith("\\"):
            break
    return dict(word.split("=", 1) for word in shlex.split(" ".join(lines)))


def python(*, pruned: bool = True) -> Python:
    """The interpreter as in the image. Raises CalledProcessError when the packages cannot be had."""
    debian = Path(_DEBIAN).exists()
    program = _DEBIAN if debian else sys.executable
    packages = _packages(pruned=pruned)
    environment = {
        **variables(),
        "PATH": os.environ["PATH"],
        "PYTHONPATH": str(packages),
        "PYTHONPYCACHEPREFIX": str(CACHE / "byte-code"),
    }
    # Written by a first run that does not count; the image has it from its build.
    del environment["PYTHONDONTWRITEBYTECODE"]
    # -S: what a machine has in site-packages, and starts from there, is not in the image.
    return Python((program, "-S"), environment, "Debian's python3" if debian else sys.executable)


def _packages(*, pruned: bool) -> Path:
    """A folder with the locked packages and this checkout's agent. The packages are fetched once per lock."""
    lock = (ROOT / "requirements" / "run.txt").read_bytes()
    locked = CACHE / "locked"
    if not (locked / ".lock").exists() or (locked / ".lock").read_bytes() != lock:
        shutil.rmtree(locked, ignore_errors=True)
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "install", "-qq", "--no-compile"]
        pip += ["--require-hashes", "--only-binary", ":all:", "--python-version", "3.11", "--target", str(locked)]
        subprocess.run([*pip, "-r", str(ROOT / "requirements" / "run.txt")], check=True, timeout=600)
        (locked / ".lock").write_bytes(lock)
    folder = CACHE / ("packages" if pruned else "packages-whole")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(locked, folder)
    shutil.copytree(ROOT / "agent", folder / "agent", ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ROOT / "profiles", folder / "agent" / "profiles")
    if pruned:
        subprocess.run(
            ["/bin/sh", str(ROOT / "tools" / "prune-image"), "packages", str(folder)], check=True, timeout=60
        )
    return folder
