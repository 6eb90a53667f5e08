"""Daemons to measure: one node, the emulator over TLS with daemonset.yaml's rights, the shipped profiles."""

from __future__ import annotations

import socket
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from agent.controls.registry import profile_kinds
from bench.imaged import ROOT, Python
from tests.support import agents, apiservers
from tests.support.agents import Agent, eventually

NODE = "node-1"


@contextmanager
def running(python: Python, *, start: Sequence[str] = ("-m", "agent"), **policy: Any) -> Iterator[Agent]:
    """A daemon whose first pass and first look at reboots are on the Node.

    start: what the interpreter is given before `run`. policy: keys beside the defaults; reboots are on.
    """
    with tempfile.TemporaryDirectory(prefix="node-hardening-bench-") as name:
        folder = Path(name)
        with apiservers.emulator(folder) as api:
            client = api.client()
            client.post("/api/v1/nodes", {"metadata": {"name": NODE}})
            agents.install(client)
            profiles = {kind: {"profiles": str(folder / "shipped" / kind)} for kind in profile_kinds()}
            _copy_profiles(folder / "shipped")
            with socket.create_server(("127.0.0.1", 0)) as taken:
                port = int(taken.getsockname()[1])
            config = {**profiles, "reboot": {"mode": "enforce"}, **policy}
            agent = Agent(api, client, NODE, folder / NODE, config, port=port)
            try:
                _start(agent, python, start)
                eventually(lambda: agent.annotation("status"), what="status annotation")
                eventually(lambda: agent.annotation("reboot"), what="reboot annotation")
                eventually(lambda: agent.probe("/readyz") == 200, what="ready")
                yield agent
            finally:
                if agent.process is not None:
                    agent.stop()
                client.close()


def _start(agent: Agent, python: Python, start: Sequence[str]) -> None:
    command = [*python.argv, *start, "run", "--host-root", str(agent.root.path), "--node-name", agent.node]
    command += ["--config", str(agent.policy), "--log-format", "json"]
    environment = {"KUBECONFIG": str(agent.folder / "kubeconfig"), "POD_NAMESPACE": agents.NAMESPACE}
    with agent.log.open("ab") as sink:
        agent.process = subprocess.Popen(
            command, cwd=agent.folder, env={**python.environment, **environment}, stdout=sink, stderr=sink
        )


def _copy_profiles(folder: Path) -> None:
    """The shipped ones, where a bench may change them."""
    for kind in profile_kinds():
        (folder / kind).mkdir(parents=True)
        for profile in (ROOT / "profiles" / kind).iterdir():
            (folder / kind / profile.name).write_bytes(profile.read_bytes())
