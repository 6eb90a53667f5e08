"""The plugin on a big fleet: seconds and the most memory of `kubectl node-hardening status` and its neighbours.

5,000 synthetic nodes in an emulator of this process, the plugin as a process of its own over HTTP. The nodes are those
of every phase that real coordinators reach, each as heavy as a node of a busy cluster (fifty images).
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from agent.plugin.commands import COMMANDS
from agent.sandbox.server import Sandbox
from agent.sandbox.settings import KubeletSettings, Settings
from bench.figure import Figure, below, spread
from tests.support.plugin_fleet import SCENES, Staged

NODES = 5000
LIMIT_SECONDS = 10.0
LIMIT_MIB = 200.0
_RUNS = 3
_IMAGES = 50
_QUIET_SHARE = 9  # of ten nodes, so many want nothing: a fleet on a usual day
_CHILD = """
import sys
from agent.plugin.main import main
code = main()
sys.stderr.write(open("/proc/self/status").read())
sys.exit(code)
"""
_LINES = (("status",), ("status", "-o", "json"), ("history",), ("forecast",), ("report", "-O", "/dev/null"))


def figures() -> list[Figure]:
    """Seconds and MiB of each command."""
    known = {command.name for command in COMMANDS}
    with tempfile.TemporaryDirectory() as folder, fleet(Path(folder), NODES) as kubeconfig:
        found = []
        for line in _LINES:
            if line[0] not in known:
                continue
            samples = [run(kubeconfig, *line) for _ in range(_RUNS)]
            what = f"kubectl node-hardening {' '.join(line[:3] if line[0] != 'report' else line[:1])}, {NODES:,} nodes"
            found.append(below(f"{what}: time", [one.seconds for one in samples], LIMIT_SECONDS, "s"))
            found.append(Figure(f"{what}: of it processor", spread([one.processor_seconds for one in samples], "s")))
            found.append(below(f"{what}: peak memory", [one.mib for one in samples], LIMIT_MIB, "MiB"))
        return found


@dataclass(frozen=True, slots=True)
class Spent:
    """One run: seconds from start to end, seconds of processor, and the most memory that it had at once, in MiB."""

    seconds: float
    processor_seconds: float
    mib: float


def run(kubeconfig: Path, *line: str) -> Spent:
    """One command as a process of its own, which tells its own peak. Raises where it could not do it.

    Not ru_maxrss: the kernel counts what the process was before exec, which is this one.
    """
    argv = [sys.executable, "-c", _CHILD, *line]
    began = time.monotonic()
    process = subprocess.Popen(
        argv, env={**os.environ, "KUBECONFIG": str(kubeconfig)}, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    assert process.stderr is not None
    said = process.stderr.read()
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.monotonic() - began
    process.stderr.close()
    process.returncode = os.waitstatus_to_exitcode(status)
    peak = re.search(r"^VmHWM:\s+(\d+) kB$", said, re.MULTILINE)
    if process.returncode not in (0, 1) or peak is None:
        raise RuntimeError(f"{' '.join(line)} ended with {process.returncode}: {said[:200]}")
    return Spent(seconds, used.ru_utime + used.ru_stime, int(peak[1]) / 1024)


@contextmanager
def fleet(folder: Path, count: int) -> Iterator[Path]:
    """So many nodes on an emulator; the way to it is a kubeconfig."""
    stages = [make() for make in SCENES.values()]
    with Sandbox(Settings(controllers=False, kubelet=KubeletSettings(enabled=False))) as sandbox:
        SCENES["waiting"]().put_on(sandbox)
        for number, node in enumerate(islice(_nodes(stages), count), 1):
            name = f"pool-a-node-{number:05}"
            sandbox.add_node(name)
            sandbox.update("nodes", name, lambda found, wanted=node: _becomes(found, wanted))  # type: ignore[misc]
        yield sandbox.kubeconfig(folder / "kubeconfig")


def _nodes(stages: list[Staged]) -> Iterator[dict[str, Any]]:
    """Nodes of every phase, most of them of the one in which all is well and was rebooted once."""
    quiet = SCENES["done"]().node("node-1")
    busy = cycle([node for staged in stages for node in staged.nodes()])
    for number in cycle(range(_QUIET_SHARE + 1)):
        yield next(busy) if number == 0 else quiet


def _becomes(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    name, metadata = found["metadata"]["name"], found["metadata"]
    metadata["annotations"] = dict(wanted["metadata"]["annotations"])
    metadata["labels"] = {**wanted["metadata"]["labels"], "kubernetes.io/hostname": name}
    found["spec"] = {**found["spec"], **wanted["spec"]}
    found["status"] = deepcopy(wanted["status"])
    found["status"]["images"] = [
        {"names": [f"registry.invalid/team-{image}/service-{image}@sha256:{image:064x}"], "sizeBytes": 10**8 + image}
        for image in range(_IMAGES)
    ]
