"""The audit of a big cluster: seconds, the most memory and the requests of `kubectl node-hardening audit --cluster`.

5,000 pods in 500 namespaces in an emulator of this process, the plugin as a process of its own over HTTP.
"""

from __future__ import annotations

import statistics
import tempfile
from pathlib import Path

from agent.sandbox.server import Sandbox
from agent.sandbox.settings import KubeletSettings, Settings
from bench.figure import Figure, below, spread
from bench.fleet import run
from tests.support.crowded_cluster import fill

NAMESPACES, PODS = 500, 5000
LIMIT_SECONDS, LIMIT_MIB, LIMIT_REQUESTS = 20.0, 200.0, 45.0
_RUNS = 3


def figures() -> list[Figure]:
    """Under a minute."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Sandbox(Settings(controllers=False, kubelet=KubeletSettings(enabled=False))) as sandbox,
    ):
        fill(sandbox, namespaces=NAMESPACES, workloads=NAMESPACES, pods=PODS)
        kubeconfig = sandbox.kubeconfig(Path(folder) / "kubeconfig")
        samples = []
        requests = []
        for _ in range(_RUNS):
            sandbox.clear_requests()
            samples.append(run(kubeconfig, "audit", "--cluster", "-o", "json"))
            requests.append(float(len(sandbox.requests)))
    what = f"kubectl node-hardening audit --cluster, {PODS:,} pods in {NAMESPACES} namespaces"
    return [
        below(f"{what}: time", [one.seconds for one in samples], LIMIT_SECONDS, "s"),
        Figure(f"{what}: of it processor", spread([one.processor_seconds for one in samples], "s")),
        below(f"{what}: peak memory", [one.mib for one in samples], LIMIT_MIB, "MiB"),
        Figure(f"{what}: requests", spread(requests, "requests", 0), f"<= {LIMIT_REQUESTS:g}",
               statistics.median(requests) <= LIMIT_REQUESTS),
    ]  # fmt: skip
