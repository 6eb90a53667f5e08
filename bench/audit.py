"""A full audit of a node: the command as a person types it, interpreter's start included, and the pass alone.

The trees: a sandboxed node, and a whole Debian where `make image-test` has left one in .cache.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from pathlib import Path

from agent.config import Config
from agent.config.schema import Kubelet
from agent.controls import registry
from agent.host import Host
from agent.sandbox.noderoot import NodeRoot
from bench import imaged
from bench.figure import Figure, below

_RUNS = 7
_LIMIT_SECONDS = 1.0
_TIMEOUT_SECONDS = 120.0


def figures() -> list[Figure]:
    """A quarter of a minute. Raises RuntimeError when an audit could not do its work."""
    python = imaged.python()
    with tempfile.TemporaryDirectory(prefix="node-hardening-bench-") as name:
        folder = Path(name)
        policy = folder / "policy.yaml"
        policy.write_text("kubelet: {probe: false}\n")  # a port of this machine's is none of the sandboxed kubelet's
        node = NodeRoot.make(folder / "root", "node-1").path
        found = [
            below("full audit of a sandboxed node: the command", _commands(python, node, policy), _LIMIT_SECONDS, "s"),
            below("the same: the pass alone", _passes(node), _LIMIT_SECONDS, "s"),
        ]
        for tree in sorted((imaged.ROOT / ".cache" / "image").glob("base-*")):
            samples = _commands(python, tree, policy)
            found.append(below("full audit of a Debian tree: the command", samples, _LIMIT_SECONDS, "s"))
    return found


def _commands(python: imaged.Python, root: Path, policy: Path) -> list[float]:
    """Seconds of whole processes; a first one, which writes byte code, is left out."""
    command = python.agent("audit", "--host-root", root, "--config", policy, "-o", "json")
    samples = []
    for _ in range(_RUNS + 1):
        began = time.perf_counter()
        done = subprocess.run(
            command, env=dict(python.environment), capture_output=True, timeout=_TIMEOUT_SECONDS, check=False
        )
        samples.append(time.perf_counter() - began)
        if done.returncode not in (0, 1):
            raise RuntimeError(f"audit of {root}: exit code {done.returncode}: {done.stderr.decode()[-500:]}")
    return samples[1:]


def _passes(root: Path) -> list[float]:
    """Seconds of passes with fresh controls in this process."""
    config, host = Config(kubelet=Kubelet(probe=False)), Host(str(root))
    samples = []
    for _ in range(_RUNS):
        began = time.perf_counter()
        registry.run("node-1", registry.controls_of(config, host), registry.Act.AUDIT)
        samples.append(time.perf_counter() - began)
    return samples
