"""Several nodes need a reboot at the same time: sandboxed machines, real agents, an emulated API server, the results.

The agents are processes of their own that know nothing of being watched; what is claimed afterwards is taken from the
API server's record of requests, from the objects and from the machines, never from an agent's own report. It
refuses to leave a process behind.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from types import MappingProxyType
from typing import Any

from agent.annotations import LABEL, REBOOT
from agent.sandbox import builders
from agent.sandbox.journal import RequestRecord
from agent.sandbox.kernel_modules import RELEASE
from agent.sandbox.live_table import Row
from agent.sandbox.machines import Machine
from agent.sandbox.objects import is_ready
from agent.sandbox.server import Sandbox
from agent.sandbox.settings import KubeletSettings, Settings
from agent.sandbox.status_errors import Object

NAMESPACE = "node-hardening"
LEASE = "node-hardening-reboot-workers-0"
NEW_KERNEL = "6.1.0-25-amd64"
_PACKAGES = (f"linux-image-{NEW_KERNEL}", "libc6")
DOWN_SECONDS = 1.5
SETTINGS = Settings(
    kubelet=KubeletSettings(heartbeat_seconds=1, termination_seconds=0.3), node_grace_seconds=5, rbac=False
)
# What agents of one machine cannot share, and what does not answer in a sandbox.
POLICY: dict[str, dict[str, Any]] = {
    "metrics": {"address": ""},
    "kubelet": {"probe": False},
    "version": {"mode": "off"},  # depends on the calendar
}
_REBOOT = {"lock": {"leaseDuration": "15s"}}
# What on-call reads of one reboot, in this order; a refused eviction may come in between.
_EVENTS = (
    "RebootRequired", "RebootLockAcquired", "NodeCordoned", "Drained", "Rebooting", "RebootSucceeded",
    "NodeUncordoned", "RebootLockReleased",
)  # fmt: skip


class Kubelets:
    """The machines' kubelets at the API server. downs: from, to in monotonic seconds, each time a machine was down."""

    def __init__(self, sandbox: Sandbox) -> None:
        """kernel: the one that boots."""
        self.url, self.token = sandbox.url, sandbox.token
        self.kernel = RELEASE
        self.downs: list[tuple[float, float]] = []
        self._sandbox = sandbox

    def set_boot_id(self, node: str, boot_id: str = "", kernel: str = "") -> str:
        """The kubelet reports another boot id and kernel."""
        return self._sandbox.set_boot_id(node, boot_id, kernel or self.kernel)

    def reboot(self, node: str, down_seconds: float, boot_id: str = "", kernel: str = "") -> None:
        """The machine goes down, and is back later with another boot id."""
        now = time.monotonic()
        self.downs.append((now, now + down_seconds))
        self._sandbox.reboot(node, down_seconds, boot_id, kernel or self.kernel)


class Roll:
    """A cluster of so many nodes. `start`, `require_reboots`, then `rows` until `is_over`; `stop` in any case."""

    def __init__(
        self,
        folder: Path,
        nodes: int,
        policy: Mapping[str, Any] = MappingProxyType({}),
        *,
        replicas: int = 0,
        may_miss: int = 1,
        off: Collection[str] = (),
    ) -> None:
        """folder: where the nodes are made. policy: more of the agents' `reboot` section. off: controls left out.

        replicas: of the Deployment web, 0 for one more than nodes; may_miss: how many of them its budget lets go.
        """
        self._policy = {**POLICY, "reboot": {**_REBOOT, **policy}} | {name: {"mode": "off"} for name in off}
        self.sandbox = Sandbox(SETTINGS)
        self.replicas = replicas or nodes + 1
        self.may_miss = may_miss
        self.fewest_ready = 0
        self.daemons: frozenset[str] = frozenset()
        self.machines: list[Machine] = []
        self._folder = folder
        self._names = [f"node-{number}" for number in range(1, nodes + 1)]

    def start(self) -> None:
        """The API server, the nodes with their pods, the agents."""
        sandbox = self.sandbox.start()
        self._kubelets = kubelets = Kubelets(sandbox)
        sandbox.create("namespaces", {"metadata": {"name": NAMESPACE}})
        furnish(sandbox, self._names, self.replicas, self.may_miss)
        for name in self._names:
            folder = self._folder / name
            folder.mkdir(parents=True)
            self.machines.append(Machine(kubelets, name, folder, self._policy, down_seconds=DOWN_SECONDS))
        for machine in self.machines:
            machine.start()

    def stop(self) -> None:
        """Ends every process; what was written stays readable."""
        for machine in self.machines:
            machine.stop()
        self.sandbox.stop()

    def is_ready(self) -> bool:
        """Every node hardened, no reboot required, every pod running: the initial state."""
        rows = self.rows()
        return (
            all(row.hardened == "yes" and row.reboot == "not required" for row in rows)
            and self._ready("web") == self.replicas
            and self._ready("cache") == 1
            and self._ready("logs") == len(rows)
        )

    def require_reboots(self) -> None:
        """A new kernel arrives everywhere, and its package requires a reboot."""
        self.daemons = self._uids("logs")
        self.fewest_ready = self.replicas  # what was before, while pods started, is no matter of the roll
        self._kubelets.kernel = NEW_KERNEL
        for machine in self.machines:
            machine.root.install_kernel(NEW_KERNEL)
            machine.root.require_reboot(*_PACKAGES)

    def rows(self) -> list[Row]:
        """The nodes as the API server shows them now."""
        pods = self._pods()
        self.fewest_ready = min(self.fewest_ready, self._ready("web"))
        rows = []
        for node in self._nodes():
            meta = node["metadata"]
            name, notes = meta["name"], meta.get("annotations") or {}
            hardened = {"true": "yes", "false": "NO"}.get(meta["labels"].get(LABEL, ""), "")
            cordoned = node["spec"].get("unschedulable", False)
            here = sum(pod["spec"].get("nodeName") == name for pod in pods)
            rows.append(Row(name, hardened, "no" if cordoned else "yes", here, notes.get(REBOOT, "starting")))
        return rows

    def holder(self) -> str:
        """The name of the node that holds the lock; empty when none does."""
        lease = self.lease()
        return str(lease["spec"].get("holderIdentity") or "").partition("/")[0] if lease else ""

    def lease(self) -> Object | None:
        """The lock."""
        return self.sandbox.get("leases", LEASE, NAMESPACE)

    def is_over(self) -> bool:
        """No node needs a reboot any more."""
        return (
            all(machine.reboots for machine in self.machines)
            and all(row.schedulable == "yes" and row.reboot == "not required" for row in self.rows())
            and not self.holder()
            and self._ready("web") == self.replicas
            and all(map(self._has_all_events, self._names))
        )

    # -- what came of it -------------------------------------------------------------------------------------------

    def claims(self) -> Iterator[tuple[bool, str]]:
        """Each thing that a roll has to hold, and whether it did."""
        count = len(self.machines)
        requests = self.sandbox.requests
        yield most_cordoned(requests) == 1, "never two nodes cordoned together, in all requests"
        yield not overlap(self._kubelets.downs), "never two nodes down at the same time"
        kernels = [node["status"]["nodeInfo"]["kernelVersion"] for node in self._nodes()]
        yield (
            [machine.reboots for machine in self.machines] == [1] * count and set(kernels) == {NEW_KERNEL},
            f"each of the {count} nodes rebooted once, into {NEW_KERNEL}",
        )
        yield (
            self.fewest_ready >= self.replicas - self.may_miss,
            f"web kept {self.fewest_ready} of {self.replicas} pods ready at least, as its budget requires",
        )
        yield self._uids("logs") == self.daemons, "the DaemonSet's pods were left alone"
        yield all(row.schedulable == "yes" and row.hardened == "yes" for row in self.rows()), "all uncordoned, hardened"
        yield not self.holder(), f"the lock is free (Lease {NAMESPACE}/{LEASE})"
        yield all(map(self._has_all_events, self._names)), "Events complete and in order: " + ", ".join(_EVENTS)

    def figures(self) -> str:
        """What it cost."""
        requests = self.sandbox.requests
        evictions = [one for one in requests if one.subresource == "eviction"]
        refused = sum(one.status == 429 for one in evictions)
        return (
            f"{len(requests)} API requests since the agents started; "
            f"{len(evictions) - refused} pods evicted; tried again because the budget refused: {refused}"
        )

    def events(self, name: str) -> list[Object]:
        """Of a node, and of the lock as far as that node sent them; oldest first."""
        found = [event for event in self.sandbox.list("events") if event["source"].get("host") == name]
        return sorted(found, key=lambda event: int(event["metadata"]["resourceVersion"]))

    def node(self, name: str) -> Object:
        """The stored Node."""
        return next(node for node in self._nodes() if node["metadata"]["name"] == name)

    def busiest(self) -> str:
        """The node with the most to tell."""
        return max(self._names, key=lambda name: len(self.events(name)))

    def _has_all_events(self, name: str) -> bool:
        reasons = [event["reason"] for event in self.events(name) if event["reason"] in _EVENTS]
        return reasons == list(_EVENTS)

    def _nodes(self) -> list[dict[str, Any]]:
        return self.sandbox.list("nodes")

    def _pods(self) -> list[dict[str, Any]]:
        return [pod for pod in self.sandbox.list("pods") if not pod["metadata"].get("deletionTimestamp")]

    def _of(self, app: str) -> list[dict[str, Any]]:
        return [pod for pod in self._pods() if (pod["metadata"].get("labels") or {}).get("app") == app]

    def _ready(self, app: str) -> int:
        return sum(map(is_ready, self._of(app)))

    def _uids(self, app: str) -> frozenset[str]:
        return frozenset(pod["metadata"]["uid"] for pod in self._of(app))


def furnish(sandbox: Sandbox, names: Sequence[str], replicas: int, may_miss: int) -> None:
    """Nodes, and what runs on them: web under a budget, a cache with an emptyDir, a DaemonSet."""
    for name in names:
        sandbox.add_node(name, kernel=RELEASE)
    sandbox.create("deployments", builders.workload("Deployment", "web", replicas=replicas))
    sandbox.create("poddisruptionbudgets", builders.budget("web", {"app": "web"}, max_unavailable=may_miss))
    cache = builders.workload("Deployment", "cache")
    cache["spec"]["template"]["spec"]["volumes"] = [{"name": "scratch", "emptyDir": {}}]
    sandbox.create("deployments", cache)
    sandbox.create("daemonsets", builders.workload("DaemonSet", "logs", namespace="kube-system"))


def most_cordoned(requests: Sequence[RequestRecord]) -> int:
    """The most nodes that were cordoned at one moment, by the patches that the API server took."""
    cordoned: set[str] = set()
    most = 0
    for one in requests:
        if one.method != "PATCH" or one.resource != "nodes" or one.subresource or one.status != 200:
            continue
        spec = (json.loads(one.body) or {}).get("spec") or {}
        if "unschedulable" in spec:
            (cordoned.add if spec["unschedulable"] else cordoned.discard)(one.name)
            most = max(most, len(cordoned))
    return most


def overlap(periods: Sequence[tuple[float, float]]) -> bool:
    """Whether two periods have a moment in common."""
    ordered = sorted(periods)
    return any(begins < ends for (_, ends), (begins, _) in pairwise(ordered))


def wait_until(holds: Callable[[], bool], seconds: float, meanwhile: Callable[[], None] = lambda: None) -> bool:
    """Checks every tenth of a second; False when the time is over before it holds."""
    ends = time.monotonic() + seconds
    while not holds():
        meanwhile()
        if time.monotonic() > ends:
            return False
        time.sleep(0.1)
    meanwhile()
    return True
