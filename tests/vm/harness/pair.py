"""Two machines under systemd with the agent as a service, one lock between them; and somebody who watches them."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tests.vm.harness.channel import MachineGone
from tests.vm.harness.cluster import ClusterOfMachines, cluster, eventually
from tests.vm.harness.kubelet import StandInKubelet
from tests.vm.harness.machine import Machine
from tests.vm.harness.node import EVERYTHING_OFF, POLICY
from tests.vm.harness.watcher import STATE, Watcher

CYCLE_SECONDS = float(os.environ.get("NHA_VM_CYCLE_SECONDS", "600"))  # a bound for what never comes
_REBOOT: dict[str, Any] = {
    "rebootTimeout": "3m", "verifyTimeout": "5m", "retryAfter": "2s",
    "lock": {"leaseDuration": "20s"}, "drain": {"timeout": "2m"}, "sentinel": {"settle": "1s"},
}  # fmt: skip
# What a package's trigger leaves behind (update-notifier-common's notify-reboot-required).
_SENTINEL = (
    "echo '*** System restart required ***' > /var/run/reboot-required; "
    "echo linux-image-6.1.0-99-cloud-amd64 >> /var/run/reboot-required.pkgs"
)


@dataclass
class Pair:
    """Two machines, their kubelets, the cluster they are in."""

    api: ClusterOfMachines
    machines: dict[str, Machine]
    kubelets: dict[str, StandInKubelet]

    def want(self, *names: str) -> None:
        """The OS of these machines asks for a reboot; of all when none is named. One that is down is left out."""
        for name in names or self.machines:
            self._forget_streak(name)
            try:
                self.machines[name].sh(_SENTINEL, seconds=30)
            except (MachineGone, TimeoutError, RuntimeError):
                continue

    def _forget_streak(self, name: str) -> None:
        """An idle node's note goes, as on-call would take it away: the agent backs off from a node whose OS asks again
        and again, and here it does. A node that leaves idle meanwhile keeps its note (409)."""
        metadata = self.api.node(name)["metadata"]
        note = metadata.get("annotations", {}).get(STATE)
        if note and json.loads(note).get("phase") == "idle":
            gone = {"resourceVersion": metadata["resourceVersion"], "annotations": {STATE: None}}
            answer = self.api.client.patch(f"/api/v1/nodes/{name}", {"metadata": gone})
            assert answer.status_code in (200, 409), answer.text

    def policy(self, *names: str, **reboot: Any) -> None:
        """Another policy in force on these, on both when none is named, as a ConfigMap's change is: no restart."""
        text = yaml.safe_dump({**EVERYTHING_OFF, "modprobe": {}, "reboot": {**_REBOOT, **reboot}})
        self.api.publish(text)
        for machine in map(self.machines.get, names or self.machines):
            assert machine is not None
            machine.put(f"{POLICY}.new", text)
            machine.sh(f"mv {POLICY}.new {POLICY}")

    def label(self, name: str, key: str, value: str | None) -> None:
        """As a person with kubectl label; None removes it."""
        answer = self.api.client.patch(f"/api/v1/nodes/{name}", {"metadata": {"labels": {key: value}}})
        assert answer.status_code == 200, answer.text

    def boots(self, name: str) -> int:
        """How many boots of it were seen."""
        return len(self.kubelets[name].boots)

    def idle(self, watcher: Watcher) -> bool:
        """Nobody is on the way, nobody of ours cordoned, the lock free."""
        return all(watcher.phase(name) == "idle" for name in self.machines) and watcher.holders() == []

    def status(self, name: str) -> dict[str, Any]:
        """The annotation reboot-status."""
        found: dict[str, Any] = json.loads(self.api.annotation(name, "reboot-status"))
        return found

    def reasons(self, name: str) -> list[str]:
        """Reasons of this node's Events, in the order in which they were made."""
        items = self.api.client.get("/api/v1/events", fieldSelector=f"involvedObject.name={name}").json()["items"]
        return [one["reason"] for one in sorted(items, key=lambda one: int(one["metadata"]["resourceVersion"]))]

    def lease_events(self, reason: str) -> list[dict[str, Any]]:
        """Events about the lock."""
        items: list[dict[str, Any]] = self.api.client.get(
            "/api/v1/namespaces/node-hardening/events", fieldSelector=f"reason={reason}"
        ).json()["items"]
        return items

    def cordoned(self, name: str) -> bool:
        """Whether the Node is unschedulable."""
        return bool(self.api.node(name)["spec"].get("unschedulable"))


@contextmanager
def pair_of_nodes(boot: Callable[..., Machine], folder: Path) -> Iterator[Pair]:
    """Two hardened nodes with pods on them; the second one's clock is an hour ahead."""
    with ExitStack() as stack:
        api = stack.enter_context(cluster(folder, replicas=4))
        ahead = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(time.time() + 3600))
        machines = {"a": boot("a", wait=False), "b": boot("b", wait=False, rtc=ahead)}
        kubelets = {}
        for name, machine in machines.items():
            machine.await_up()
            api.join(machine, {"modprobe": {}, "reboot": _REBOOT})
            kubelets[name] = stack.enter_context(StandInKubelet(api.speaker, machine))
        made = Pair(api, machines, kubelets)
        for name in machines:
            eventually(lambda: api.annotation(name, "status") == "hardened", what=f"{name} hardened")  # noqa: B023
        yield made


@contextmanager
def watched(pair: Pair) -> Iterator[Watcher]:
    """Looks for what must never be while a test runs; both are idle before it and after it."""
    pair.policy()
    with Watcher(pair.api.api.client()) as made:
        for name, kubelet in pair.kubelets.items():
            kubelet.booted = lambda boot, name=name: made.booted(name, boot)  # type: ignore[misc]
        eventually(lambda: pair.idle(made), what="both idle at the start", seconds=CYCLE_SECONDS)
        yield made
        for kubelet in pair.kubelets.values():
            kubelet.booted = lambda _: None
