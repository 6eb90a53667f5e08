"""Sandboxed machines that run the agent and really go down: the process is killed, the boot id is another afterwards.

A machine is a NodeRoot, a Node in the emulator and one agent process that is started again when it ends, as the
kubelet would. It refuses to touch processes that it did not start.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import yaml

from agent.sandbox import builders
from agent.sandbox.fake_reboot import MARK
from agent.sandbox.noderoot import NodeRoot

_LOOK_EVERY_SECONDS = 0.05
SETTINGS = "sandbox.json"  # beside the policy, for agent.cli.sandboxed
SOURCE = Path(__file__).resolve().parents[2]


class MachineContext(Protocol):
    """What a machine needs: an API server, and a client that reports for its kubelet. A Sandbox is one."""

    url: str
    token: str

    def set_boot_id(self, node: str, boot_id: str = "", kernel: str = "") -> str:
        """The kubelet reports another boot id and kernel."""

    def reboot(self, node: str, down_seconds: float, boot_id: str = "", kernel: str = "") -> None:
        """The kubelet goes silent, and is back later with another boot id."""


@dataclass
class Machine:
    """One machine. policy: the agent's configuration. down_seconds: how long a reboot takes. ca: file, for https."""

    sandbox: MachineContext
    name: str
    folder: Path
    policy: dict[str, Any] = field(default_factory=dict)
    token: str = ""
    namespace: str = "node-hardening"
    down_seconds: float = 1.0
    reboots: int = 0
    ca: Path | None = None

    def __post_init__(self) -> None:
        self.root = NodeRoot.make(self.folder / "root", self.name)
        self.config = self.folder / "config.yaml"
        self.log = self.folder / "agent.log"
        self.process: subprocess.Popen[bytes] | None = None
        self._stop = threading.Event()
        self._up = threading.Event()
        self._thread = threading.Thread(target=self._supervise, name=f"machine-{self.name}", daemon=True)
        self.sandbox.set_boot_id(self.name, self.root.boot_id())
        access = builders.kubeconfig(self.sandbox.url, self.token or self.sandbox.token, self.ca)
        self.put("kubeconfig", json.dumps(access))
        self.configure(self.policy)

    @property
    def program(self) -> tuple[str, ...]:
        """The module that runs as the agent, with arguments of its own before the agent's."""
        return ("agent",)

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What it inherits."""
        return ()

    @property
    def reboot_command(self) -> list[str]:
        """What `reboot.command` has to be for this machine to go down."""
        return [sys.executable, "-m", "agent.sandbox.fake_reboot", str(self.root.path)]

    def configure(self, policy: Mapping[str, Any]) -> None:
        """Replaces the policy in one step; the reboot command is this machine's unless the policy names another."""
        reboot = {"command": self.reboot_command, **policy.get("reboot", {})}
        reboot["sentinel"] = {"settle": "0s", **reboot.get("sentinel", {})}  # there is no package run to wait for
        self.put(self.config.name, yaml.safe_dump({**policy, "reboot": reboot}))

    def put(self, name: str, text: str) -> None:
        """Replaces a file of the machine's folder in one step."""
        new = self.folder / f".{name}.new"
        new.write_text(text)
        new.rename(self.folder / name)

    def start(self) -> None:
        """Powers the machine on."""
        self._thread.start()

    def stop(self) -> None:
        """Powers it off for good, if it was ever on."""
        self._stop.set()
        self._up.set()
        if self._thread.is_alive():
            self._thread.join(10)
        self.crash()

    def come_up(self) -> None:
        """A machine that is down comes up now, however long it was to stay down."""
        self.sandbox.reboot(self.name, 0.0, self.root.boot_id())
        self._up.set()

    def _supervise(self) -> None:
        while not self._stop.is_set():
            if self.process is None or self.process.poll() is not None:
                with self.log.open("ab") as output:
                    self.process = self.launch(output)
            if (self.root.path / MARK).exists():
                self._go_down()
            self._stop.wait(_LOOK_EVERY_SECONDS)

    def launch(self, output: BinaryIO) -> subprocess.Popen[bytes]:
        """Starts what runs on the machine: the agent, unless overridden. output takes its log."""
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "KUBECONFIG": str(self.folder / "kubeconfig"),
            "POD_NAMESPACE": self.namespace,
            "PYTHONPATH": str(SOURCE),
        }
        argv = [
            sys.executable, "-m", *self.program, "run", "--host-root", str(self.root.path), "--node-name", self.name,
            "--config", str(self.config), "--log-format", "json",
        ]  # fmt: skip
        return subprocess.Popen(
            argv, cwd=self.folder, env=environment, stdout=output, stderr=output, pass_fds=self.descriptors
        )

    def _go_down(self) -> None:
        """The power goes: no last words of the agent."""
        self._up.clear()
        if self._stop.is_set():
            return
        self.crash()
        boot_id = self.root.reboot()
        (self.root.path / MARK).unlink()
        self.reboots += 1
        self.sandbox.reboot(self.name, self.down_seconds, boot_id)
        self._up.wait(self.down_seconds)

    def crash(self) -> None:
        """Kills the agent alone; it is started again while the machine is on."""
        process, self.process = self.process, None
        if process is not None:
            process.kill()
            process.wait()
