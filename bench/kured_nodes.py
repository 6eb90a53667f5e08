"""Nodes that run kured, as its DaemonSet would, and the API server that they talk to.

Each kured has a mount and a PID namespace of its own in a container's place: there it finds a service account's files,
and is itself the PID 1 in whose mount namespace it runs its reboot command. It refuses to touch the machine's own.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import psutil
import trustme

from agent.sandbox.authn import User
from agent.sandbox.journal import RequestRecord
from agent.sandbox.machines import SOURCE, Machine
from agent.sandbox.rolling_reboot import Kubelets, furnish, most_cordoned, overlap
from agent.sandbox.server import Sandbox
from agent.sandbox.settings import KubeletSettings, Settings
from agent.sandbox.status_errors import Object
from bench import protobuf
from bench.cost import LockChange, changes
from bench.reboots import until

DAEMONSET = "kured"
DOWN_SECONDS = 1.5
# kured begins a rhythm after half a beat to one and a half (its pkg/delaytick): first it looks once whether it held the
# lock before, in a rhythm of a minute whatever its period, then at its sentinel in that of its period.
FIRST_BEAT = 1.5
FIRST_LOOK_SECONDS = FIRST_BEAT * 60.0
NSENTER = "/usr/bin/nsenter"  # the path that kured itself calls

_LOCK = "weave.works/kured-node-lock"
_NAMESPACE = "kube-system"
_ACCOUNT = "secrets/kubernetes.io/serviceaccount"
_SLACK_SECONDS = 60.0
_LAST_LINES = 12


@dataclass(frozen=True, slots=True)
class Given:
    """kured as it was given. period: what --period gets, as Go writes durations."""

    binary: Path
    period: str
    period_seconds: float


@dataclass
class KuredMachine(Machine):
    """A machine that runs kured. daemonset: the one that carries its lock. launches: how often it was started."""

    kured: Given = Given(Path(), "", 0.0)
    daemonset: str = DAEMONSET
    launches: int = 0

    def __post_init__(self) -> None:
        """The files that its pod would have, too."""
        super().__post_init__()
        account = self.folder / "run" / _ACCOUNT
        account.mkdir(parents=True)
        authority = self.ca.read_text() if self.ca is not None else ""
        for name, content in (("token", self.token), ("namespace", _NAMESPACE), ("ca.crt", authority)):
            (account / name).write_text(content)
        with socket.create_server(("127.0.0.1", 0)) as taken:
            self._port = int(taken.getsockname()[1])

    def launch(self, output: BinaryIO) -> subprocess.Popen[bytes]:
        """kured, in its namespaces; it ends with the process that is answered."""
        self.launches += 1
        host, _, port = self.sandbox.url.rpartition("/")[2].rpartition(":")
        environment = {
            "PATH": os.environ.get("PATH", ""),
            "PYTHONPATH": str(SOURCE),  # for the reboot command
            "KUBERNETES_SERVICE_HOST": host,
            "KUBERNETES_SERVICE_PORT": port,
            "KURED_NODE_ID": self.name,
        }
        argv = [
            shutil.which("unshare") or "unshare", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child", "--",
            sys.executable, "-m", "bench.inpod", str(self.folder / "run"), str(self.kured.binary),
            f"--period={self.kured.period}", f"--ds-namespace={_NAMESPACE}", f"--ds-name={self.daemonset}",
            f"--reboot-sentinel={self.root.at('/run/reboot-required')}",
            f"--reboot-command={' '.join(self.reboot_command)}",
            "--metrics-host=127.0.0.1", f"--metrics-port={self._port}",
        ]  # fmt: skip
        return subprocess.Popen(argv, cwd=self.folder, env=environment, stdout=output, stderr=output)

    def memory_mib(self) -> float:
        """kured's own VmRSS; 0 while it does not run."""
        process = self.process
        try:
            inside = psutil.Process(process.pid).children() if process is not None else []
            return float(inside[0].memory_info().rss) / 2**20 if inside else 0.0
        except psutil.Error:
            return 0.0


class Stage:
    """An API server over TLS and a machine for each DaemonSet named: machines that share one share a lock.

    A context manager. replicas, may_miss: the pods of `furnish`; none of them with 0 replicas.
    """

    def __init__(self, what: Given, daemonsets: Sequence[str], *, replicas: int = 0, may_miss: int = 0) -> None:
        """Nothing runs before it is entered."""
        self._what, self._daemonsets = what, daemonsets
        self._replicas, self._may_miss = replicas, may_miss
        self._stack = ExitStack()
        self.names = [f"node-{number}" for number in range(1, len(daemonsets) + 1)]
        self.machines: list[KuredMachine] = []
        self.peak_mib = 0.0

    def __enter__(self) -> Self:
        """Starts it all."""
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="node-hardening-bench-")))
            self.sandbox = stack.enter_context(_sandbox(folder))
            self._kubelets = Kubelets(self.sandbox)
            self._furnish()
            for name, daemonset in zip(self.names, self._daemonsets, strict=True):
                self.sandbox.add_token(f"token-of-{name}", User(name))
                machine = KuredMachine(
                    self._kubelets, name, folder / name, token=f"token-of-{name}", ca=folder / "ca.crt",
                    down_seconds=DOWN_SECONDS, kured=self._what, daemonset=daemonset,
                )  # fmt: skip
                self.machines.append(machine)
                machine.start()
                stack.callback(machine.stop)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends every process."""
        self._stack.close()

    def wait_for_first_look(self) -> None:
        """Every kured has looked whether it held the lock before."""
        self.until(
            lambda: {one.user for one in self.sandbox.requests if one.status == 200} >= set(self.names),
            FIRST_LOOK_SECONDS, "a kured did not look at its lock",
        )  # fmt: skip

    def wait_for_rhythm(self) -> None:
        """Every kured looks at its sentinel once a period, so that any moment is as good as another to begin."""
        self.wait_for_first_look()
        begun = time.monotonic() + FIRST_BEAT * self._what.period_seconds
        self.until(lambda: time.monotonic() > begun, FIRST_BEAT * self._what.period_seconds, "no end of waiting")

    def require_reboots(self) -> None:
        """All sentinels at once."""
        for machine in self.machines:
            machine.root.require_reboot("libc6")

    def until(self, holds: Callable[[], bool], seconds: float, otherwise: str) -> None:
        """Waits so long and a minute, and keeps the most memory that a kured had.

        Raises:
            RuntimeError: with `otherwise`; or a kured ended by itself, with its last lines.
        """

        def look() -> bool:
            for machine in self.machines:
                if machine.launches > machine.reboots + 1:
                    raise RuntimeError(f"kured ended by itself on {machine.name}; its last lines:\n{_tail(machine)}")
                self.peak_mib = max(self.peak_mib, machine.memory_mib())
            return holds()

        try:
            until(look, seconds + _SLACK_SECONDS, otherwise)
        except TimeoutError as error:
            told = "\n".join(f"{machine.name}:\n{_tail(machine)}" for machine in self.machines)
            raise RuntimeError(f"{error}; their last lines:\n{told}") from error

    def locks(self, daemonset: str) -> list[LockChange]:
        """When a kured took the lock on this DaemonSet or gave it back, in order."""
        return lock_changes(self.sandbox.requests, daemonset)

    def is_over(self) -> bool:
        """Everybody rebooted; every node uncordoned, lock free and pod back."""
        return not any(self._unfinished())

    def broken(self) -> list[str]:
        """What a roll has to hold and this one did not."""
        claims = (
            (most_cordoned(self.sandbox.requests) == 1, "never two nodes cordoned at once"),
            (not overlap(self._kubelets.downs), "never two nodes down at once"),
            ([one.reboots for one in self.machines] == [1] * len(self.machines), "each node rebooted once"),
        )
        return [text for holds, text in claims if not holds]

    def version(self) -> str:
        """What kured calls itself in its first lines."""
        said = re.search(r"Kubernetes Reboot Daemon: ([^\s\"]+)", self.machines[0].log.read_text("utf-8", "replace"))
        return said.group(1) if said else "of a version it does not tell"

    def _furnish(self) -> None:
        for name in sorted(set(self._daemonsets)):
            self.sandbox.create("daemonsets", _daemonset(name))
        if self._replicas:
            furnish(self.sandbox, self.names, self._replicas, self._may_miss)
        else:
            for name in self.names:
                self.sandbox.add_node(name)

    def _unfinished(self) -> Iterator[bool]:
        yield any(not machine.reboots for machine in self.machines)
        yield any(node["spec"].get("unschedulable") for node in self.sandbox.list("nodes"))
        for name in set(self._daemonsets):
            found = self.sandbox.get("daemonsets", name, _NAMESPACE) or {}
            yield _LOCK in (found["metadata"].get("annotations") or {})
        budget = self.sandbox.get("poddisruptionbudgets", "web") or {"status": {}}
        yield budget["status"].get("currentHealthy", 0) != self._replicas


def lock_changes(requests: Sequence[RequestRecord], daemonset: str) -> list[LockChange]:
    """When a kured took the lock on its DaemonSet or gave it back, in order; refused writes left out."""
    return changes(
        [
            LockChange(one.at, _holder(one.body))
            for one in requests
            if one.resource == "daemonsets" and one.verb == "update" and one.name == daemonset and one.status == 200
        ]
    )


def _holder(body: str) -> str:
    lock = (json.loads(body)["metadata"].get("annotations") or {}).get(_LOCK)
    return str(json.loads(lock)["nodeID"]) if lock else ""


def _sandbox(folder: Path) -> Sandbox:
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "ca.crt"))
    pair = folder / "server.pem"
    authority.issue_cert("127.0.0.1").private_key_and_cert_chain_pem.write_to_path(str(pair))
    kubelet = KubeletSettings(heartbeat_seconds=1, termination_seconds=0.3)
    # kured writes its lock into a DaemonSet that it has read: the spec that comes back is the one that was made.
    readers = {protobuf.MEDIA: partial(protobuf.as_json, rest={"spec": _daemonset("any")["spec"]})}
    return Sandbox(
        Settings(kubelet=kubelet, node_grace_seconds=5, rbac=False, certificate=pair, key=pair, readers=readers)
    )


def _daemonset(name: str) -> Object:
    """It carries the lock, and has no pods: they would be drained around, by ours and theirs alike."""
    template = {
        "metadata": {"labels": {"name": DAEMONSET}},
        "spec": {
            "containers": [{"name": DAEMONSET, "image": "registry.invalid/kured:1"}],
            "nodeSelector": {"bench": "no"},
        },
    }
    spec = {"selector": {"matchLabels": {"name": DAEMONSET}}, "template": template}
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {"name": name, "namespace": _NAMESPACE},
        "spec": spec,
    }


def _tail(machine: KuredMachine) -> str:
    """The last lines of what it said, indented."""
    if not machine.log.exists():
        return "    (nothing)"
    lines = machine.log.read_text("utf-8", "replace").splitlines()[-_LAST_LINES:]
    return "\n".join(f"    {line}" for line in lines) or "    (nothing)"
