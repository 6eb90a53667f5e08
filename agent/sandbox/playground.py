"""A sandboxed cluster that stays: for trying with kubectl what docs/quickstart.md tells, without a cluster.

What a cluster does with daemonset.yaml is done here as far as the agent can see it: agents run from the moment at which
the DaemonSet is there, with what the ConfigMaps of policy and profiles hold. The pods that kubectl shows are the
emulator's; the agents are processes of this machine, each with the folder of its node. It refuses a folder in which
something is already, and leaves no process behind.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from agent.config import Config
from agent.config.schema import Kubelet
from agent.controls import registry
from agent.controls.registry import Act, profile_kinds
from agent.errors import UsageError
from agent.host import Host
from agent.model import Report, Status
from agent.sandbox import rolling_reboot
from agent.sandbox.audit import AuditedMachine, Containers
from agent.sandbox.authn import ADMIN
from agent.sandbox.machines import SETTINGS
from agent.sandbox.noderoot import NodeRoot
from agent.sandbox.rolling_reboot import DOWN_SECONDS, NAMESPACE, furnish
from agent.sandbox.server import Sandbox

DAEMONSET = "node-hardening-agent"
POLICY = "node-hardening-config"
_LOOK_SECONDS = 0.5


class Playground:
    """The cluster. `start`, then `step` again and again; `stop` in any case."""

    def __init__(self, folder: Path, nodes: int, say: Callable[[str], None]) -> None:
        """folder: missing or empty. say: takes one line about what happened.

        Raises UsageError: there is something in the folder, or it cannot be made.
        """
        try:
            folder.mkdir(parents=True, exist_ok=True)
            if any(folder.iterdir()):
                raise UsageError(f"{folder}: a playground needs a folder that is empty or not there")
        except OSError as error:
            raise UsageError(f"{folder}: cannot be made: {error.strerror}") from error
        self.folder = folder.resolve()
        self.say = say
        # kubectl sends no token over plain http; the server listens on loopback and guards nothing but made-up nodes.
        self.sandbox = Sandbox(replace(rolling_reboot.SETTINGS, anonymous=ADMIN))
        self.names = [f"node-{number}" for number in range(1, nodes + 1)]
        self.kubeconfig = self.folder / "kubeconfig"
        self.off: frozenset[str] = frozenset()
        self._machines: list[AuditedMachine] = []
        self._containers = Containers()
        self._runs = False
        self._published: tuple[str, str] | None = None  # the policy, and the settings beside it

    def start(self) -> None:
        """The API server with its nodes, their trees; no agent yet."""
        sandbox = self.sandbox.start()
        furnish(sandbox, self.names, len(self.names) + 1, 1)
        for name in self.names:
            folder = self.folder / name
            self._machines.append(AuditedMachine(sandbox, name, folder, down_seconds=DOWN_SECONDS))
        self.off = incomplete(harden(self._machines[0].root, Act.AUDIT))
        sandbox.kubeconfig(self.kubeconfig)

    def step(self) -> None:
        """Does what the kubelets and the DaemonSet controller of a cluster would do about the manifest now."""
        there = self.sandbox.get("daemonsets", DAEMONSET, NAMESPACE) is not None
        if there and not self._runs:
            self._deliver()
            for machine in self._machines:
                machine.start()
            self.say(f"the DaemonSet is there: agents run on {', '.join(self.names)}")
        elif there:
            self._deliver()
        elif self._runs:
            for machine in self._machines:
                machine.stop()
            self._machines.clear()
            self.say("the DaemonSet is gone and the agents with it; Ctrl-C, and start again to try more")
        self._runs = there
        if there:
            self._containers.step(self._machines, lambda: self.sandbox.list("pods"))

    def stop(self) -> None:
        """Ends every process; what was written stays."""
        for machine in self._machines:
            machine.stop()
        self.sandbox.stop()

    def _deliver(self) -> None:
        """Mounts the ConfigMaps: profiles as folders, the policy as each machine's file, unchanged."""
        folders = {name: self._mount(name) for name in profile_kinds()}
        published = self._data(POLICY).get("config.yaml", ""), json.dumps(self._settings(folders))
        if published == self._published:
            return
        changed, self._published = self._published is not None, published
        for machine in self._machines:
            machine.put(SETTINGS, published[1])
            machine.put(machine.config.name, published[0])
        if changed:
            self.say("another policy was applied, and is on every node now")

    def _settings(self, folders: Mapping[str, Path | None]) -> dict[str, Any]:
        """What a sandbox needs beside the policy, for agent.cli.sandboxed."""
        over = {name: {**section} for name, section in rolling_reboot.POLICY.items()}
        for name, folder in folders.items():
            if folder is not None:
                over[name] = {"profiles": str(folder)}
        for name in self.off:
            over[name] = {**over.get(name, {}), "mode": "off"}
        # One command on every node, so that they show the hash of one policy; there is no package run to wait for.
        command = [sys.executable, "-m", "agent.sandbox.fake_reboot"]
        return {"under": {"reboot": {"command": command, "sentinel": {"settle": "0s"}}}, "over": over}

    def _mount(self, name: str) -> Path | None:
        """The folder with the files of a ConfigMap of profiles; None without one, which means the shipped ones."""
        if self.sandbox.get("configmaps", f"node-hardening-{name}", NAMESPACE) is None:
            return None
        desired, folder = self._data(f"node-hardening-{name}"), self.folder / "profiles" / name
        folder.mkdir(parents=True, exist_ok=True)
        for file in folder.iterdir():
            if file.name not in desired:
                file.unlink()
        for file_name, content in desired.items():
            file = folder / file_name
            if not file.exists() or file.read_text() != content:
                new = folder / f".{file_name}.new"
                new.write_text(content)
                new.rename(file)
        return folder

    def _data(self, name: str) -> dict[str, str]:
        found = self.sandbox.get("configmaps", name, NAMESPACE) or {}
        return found.get("data") or {}


def harden(root: NodeRoot, act: Act) -> Report:
    """What the command of that name does there under the default policy. No kubelet listens, so none is asked."""
    config = replace(Config(), kubelet=Kubelet(probe=False))
    return registry.run(root.name, registry.controls_of(config, Host(root.path)), act)


def incomplete(report: Report) -> frozenset[str]:
    """The controls whose checks are incomplete because tools are missing on this machine."""
    return frozenset(finding.control for finding in report.findings if finding.status is Status.UNKNOWN)


def play(out: Callable[[str], None], folder: Path, nodes: int, programs: Path, *, keep: bool) -> None:
    """Stays until KeyboardInterrupt. programs: the folder in which kubectl finds the plugin."""
    ground = Playground(folder, nodes, lambda line: out(f"{time.strftime('%H:%M:%S')} {line}\n"))
    try:
        ground.start()
        out(_welcome(ground, programs))
        while True:
            ground.step()
            time.sleep(_LOOK_SECONDS)
    finally:
        ground.stop()
        if not keep:
            shutil.rmtree(ground.folder)


def _welcome(ground: Playground, programs: Path) -> str:
    names = ground.names
    return "".join(
        f"{line}\n"
        for line in (
            f"{len(names)} nodes, a few pods and no agent yet, until Ctrl-C. In another terminal of this folder:",
            "",
            f"    export KUBECONFIG={ground.kubeconfig} PATH={programs}:$PATH",
            "    kubectl get nodes",
            "    kubectl apply -f daemonset.yaml",
            "    kubectl node-hardening status",
            "",
            f"{names[0]}'s own files: {ground.folder}/{names[0]}/root; beside it agent.log, the log of its agent.",
            *_without(ground.off),
            "",
        )
    )


def _without(off: Collection[str]) -> list[str]:
    if not off:
        return []
    return [f"Without {' and '.join(sorted(off))}: this machine lacks the tools (Debian: apt install kmod apparmor)."]
