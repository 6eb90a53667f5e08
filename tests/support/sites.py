"""A cluster of machines that really go down, agents with daemonset.yaml's own rights, and what the API server saw.

What happened is read from watches that an administrator keeps, never from what an agent says of itself.
"""

from __future__ import annotations

import json
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import requests

from agent.sandbox import builders
from agent.sandbox.kubelet import running_pod
from agent.sandbox.machines import Machine, MachineContext
from agent.sandbox.server import Sandbox
from agent.sandbox.settings import KubeletSettings, Settings
from agent.sandbox.strategy import stamp
from tests.support import agents, apiservers
from tests.support.agents import NAMESPACE, eventually
from tests.support.apiservers import ApiServer, Client
from tests.support.daemons import free_ports
from tests.support.hands import Hands

Object = dict[str, Any]
PREFIX = "node-hardening.io"
LOCK = "node-hardening-reboot-workers-0"
LEASES = f"/apis/coordination.k8s.io/v1/namespaces/{NAMESPACE}/leases"
CYCLE = (
    "RebootRequired",
    "RebootLockAcquired",
    "NodeCordoned",
    "Drained",
    "Rebooting",
    "RebootSucceeded",
    "NodeUncordoned",
    "RebootLockReleased",
)
LONG = 240.0  # a bound for what should come; only a failing test waits so long
LONGER = "10m"  # a timeout of the policy that no test which passes reaches, however busy the machine
_FOLLOWED = {"nodes": "/api/v1/nodes", "events": "/api/v1/events", "leases": LEASES}


@dataclass(frozen=True, slots=True)
class Change:
    """One event of a watch. version: resourceVersion, by which changes of all kinds are put in order."""

    version: int
    kind: str
    type: str
    object: Object

    @property
    def name(self) -> str:
        """The object's name."""
        return str(self.object["metadata"]["name"])


class History:
    """Everything that happened to nodes, locks and Events since it was begun."""

    def __init__(self, api: ApiServer) -> None:
        """It begins to watch at once."""
        self._api = api
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._changes: list[Change] = []
        self.mark = 0  # the version at which the machines were powered on
        self._threads = [threading.Thread(target=self._follow, args=one, daemon=True) for one in _FOLLOWED.items()]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Ends the watches."""
        self._stop.set()
        for thread in self._threads:
            thread.join(10)

    def changes(self, *kinds: str) -> list[Change]:
        """Those of these kinds, in the server's order."""
        with self._lock:
            return sorted((one for one in self._changes if one.kind in kinds), key=lambda one: one.version)

    def catch_up(self, client: Client) -> None:
        """Returns when the watches have brought all that the API server has now: they run behind what a test reads."""
        for kind, path in _FOLLOWED.items():
            for one in client.get(path).json()["items"]:
                self._await(kind, one["metadata"]["name"], int(one["metadata"]["resourceVersion"]))

    def _await(self, kind: str, name: str, version: int) -> None:
        def is_seen() -> bool:
            with self._lock:
                return any(
                    one.version >= version and one.kind == kind and one.name == name for one in reversed(self._changes)
                )

        eventually(is_seen, what=f"{kind}/{name} in the watch", seconds=LONG)

    def _follow(self, kind: str, path: str) -> None:
        version = ""
        while not self._stop.is_set():
            client = self._api.client()
            try:
                version = version or self._begin(client, kind, path)
                for event in client.watch(path, resourceVersion=version, timeoutSeconds=3):
                    version = self._take(kind, event["type"], event["object"])
            except requests.RequestException:
                self._stop.wait(0.2)
            finally:
                client.close()

    def _begin(self, client: Client, kind: str, path: str) -> str:
        found = client.get(path).json()
        for one in found["items"]:
            self._take(kind, "ADDED", one)
        return str(found["metadata"]["resourceVersion"])

    def _take(self, kind: str, what: str, found: Object) -> str:
        version = str(found["metadata"]["resourceVersion"])
        with self._lock:
            self._changes.append(Change(int(version), kind, what, found))
        return version

    # -- what it says ----------------------------------------------------------------------------------------------

    def cordons(self, node: str) -> list[bool]:
        """Whether the node was cordoned, each time that it changed."""
        return _steps(
            bool(one.object["spec"].get("unschedulable")) for one in self.changes("nodes") if one.name == node
        )

    def most_cordoned(self) -> int:
        """The most nodes that were cordoned at one moment."""
        cordoned: dict[str, bool] = {}
        most = 0
        for one in self.changes("nodes"):
            cordoned[one.name] = one.type != "DELETED" and bool(one.object["spec"].get("unschedulable"))
            most = max(most, sum(cordoned.values()))
        return most

    def holders(self, lease: str = LOCK) -> list[str]:
        """The names of the nodes that held the lock, each time that it changed hands; empty: free."""
        found = (one.object["spec"].get("holderIdentity", "") for one in self.changes("leases") if one.name == lease)
        return [holder.partition("/")[0] for holder in _steps(found)]

    def reboots_without_lock(self, lease: str = LOCK) -> list[str]:
        """Nodes whose boot id changed while the lock was not theirs."""
        holder, boots, found = "", dict[str, str](), list[str]()
        for one in self.changes("nodes", "leases"):
            if one.kind == "leases" and one.name == lease:
                holder = "" if one.type == "DELETED" else one.object["spec"].get("holderIdentity", "").partition("/")[0]
            elif one.kind == "nodes":
                boot = one.object["status"].get("nodeInfo", {}).get("bootID", "")
                if one.version > self.mark and boots.get(one.name) != boot and holder != one.name:
                    found.append(one.name)
                boots[one.name] = boot
        return found

    def told(self, node: str, reasons: tuple[str, ...] = CYCLE) -> list[str]:
        """The reasons of the Events that this node's agent made, in order."""
        return [one.object["reason"] for one in self._events(node) if one.object["reason"] in reasons]

    def messages(self, node: str, reason: str) -> list[str]:
        """What it said under that reason."""
        return [one.object["message"] for one in self._events(node) if one.object["reason"] == reason]

    def _events(self, node: str) -> list[Change]:
        made = [one for one in self.changes("events") if one.type == "ADDED"]
        return [one for one in made if one.object.get("source", {}).get("host") == node]


def _steps(values: Iterator[Any] | Any) -> list[Any]:
    found: list[Any] = []
    for value in values:
        if not found or found[-1] != value:
            found.append(value)
    return found


def merged(base: Mapping[str, Any], more: Mapping[str, Any]) -> dict[str, Any]:
    """Mappings merged key by key, as deep as they go."""
    result = dict(base)
    for key, value in more.items():
        old = result.get(key)
        result[key] = merged(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return result


@dataclass
class Site:
    """Nodes and their machines on one API server. `policy`: keys of `reboot` for all machines."""

    api: ApiServer
    client: Client
    surroundings: MachineContext
    folder: Path
    policy: Mapping[str, Any] = field(default_factory=dict)
    machines: dict[str, Machine] = field(default_factory=dict)
    ports: dict[str, int] = field(default_factory=dict)
    expects_refusals: bool = False  # of admission, which are the test's subject

    def __post_init__(self) -> None:
        self.history = History(self.api)
        self._started: list[Machine] = []

    @property
    def sandbox(self) -> Sandbox:
        """The emulator, where it is one."""
        assert isinstance(self.surroundings, Sandbox)
        return self.surroundings

    def add(self, name: str, **options: Any) -> Machine:
        """A Ready node and its machine, still off. options: of builders.node."""
        if isinstance(self.surroundings, Hands):
            self.surroundings.add_node(name)
        else:
            self.sandbox.add_node(name, **options)
        folder = self.folder / name
        folder.mkdir()
        self.ports[name] = free_ports(1)[0]
        made = Machine(
            self.surroundings, name, folder, self.policy_of(name), token=agents.token(self.client, name),
            down_seconds=0.5, ca=self.api.ca,
        )  # fmt: skip
        self.machines[name] = made
        return made

    def policy_of(self, name: str, **reboot: Any) -> dict[str, Any]:
        """The machine's whole policy, `reboot` over what the site has."""
        timings = {
            "lock": {"leaseDuration": "10s"}, "rebootTimeout": "20s", "verifyTimeout": "60s", "retryAfter": "1h",
        }  # fmt: skip
        return {
            "metrics": {"address": f"127.0.0.1:{self.ports[name]}"},
            "kubelet": {"probe": False},
            "version": {"mode": "off"},  # depends on the calendar
            "reboot": merged(merged(timings, self.policy), reboot),
        }

    def configure(self, name: str, **reboot: Any) -> None:
        """Other keys of `reboot` for one machine from now on."""
        self.machines[name].configure(self.policy_of(name, **reboot))

    def start(self) -> None:
        """Powers all of them on; returns when every agent has looked once."""
        self.power_on()
        for name in self.machines:
            self.until(lambda: self.sentence(name), f"a first tick of {name}")  # noqa: B023

    def power_on(self) -> None:
        """Powers all of them on."""
        self.history.mark = int(self.client.get("/api/v1/nodes").json()["metadata"]["resourceVersion"])
        for machine in self.machines.values():
            machine.start()
            self._started.append(machine)

    def require(self, *names: str) -> None:
        """The sentinel appears, on all of them when none is named."""
        for name in names or tuple(self.machines):
            self.machines[name].root.require_reboot("linux-image-6.1.0-25-amd64", "libc6")

    def close(self) -> None:
        """Powers everything off."""
        stoppers = [threading.Thread(target=machine.stop) for machine in self._started]
        for thread in stoppers:
            thread.start()
        for thread in stoppers:
            thread.join()
        self.history.close()

    def create(self, group: str, plural: str, body: Object) -> Object:
        """Over the API, as users do; on a bare API server a pod has to be made to run manually."""
        path = f"/{group}/namespaces/{body['metadata']['namespace']}/{plural}"
        made = self.client.post(path, body)
        assert made.status_code == 201, made.text
        found: Object = made.json()
        if plural == "pods" and isinstance(self.surroundings, Hands):
            status = {"status": running_pod(found, stamp(datetime.now(UTC)))["status"]}
            self.client.patch(f"{path}/{body['metadata']['name']}/status", status, "strategic")
        return found

    # -- what people look at and do ----------------------------------------------------------------------------------

    def until(self, look: Callable[[], Any], what: str, seconds: float = LONG) -> Any:
        """Waits for a true answer; while the API server is away nobody can be asked."""

        def asked() -> Any:
            try:
                return look()
            except requests.RequestException:
                return None

        answer = eventually(asked, what=what, seconds=seconds)
        with suppress(requests.RequestException):
            self.history.catch_up(self.client)
        return answer

    def node(self, name: str) -> Object:
        """The Node."""
        found: Object = self.client.get(f"/api/v1/nodes/{name}").json()
        return found

    def annotation(self, name: str, key: str) -> str:
        """One of ours, empty when it is not there."""
        return str((self.node(name)["metadata"].get("annotations") or {}).get(f"{PREFIX}/{key}", ""))

    def sentence(self, name: str) -> str:
        """The reboot's sentence."""
        return self.annotation(name, "reboot")

    def says(self, name: str, words: str) -> str:
        """Waits until the sentence has these words in it, and answers it."""
        return str(self.until(lambda: words in (text := self.sentence(name)) and text, f"{name} says {words!r}"))

    def condition(self, name: str, kind: str = "RebootRequired") -> dict[str, str]:
        """One condition, empty when it is not there."""
        conditions = self.node(name)["status"].get("conditions", [])
        return next((one for one in conditions if one["type"] == kind), {})

    def annotate(self, name: str, key: str, value: str | None) -> None:
        """As a person with kubectl annotate."""
        self.patch_node(name, {"metadata": {"annotations": {f"{PREFIX}/{key}": value}}})

    def cordon(self, name: str, wanted: bool = True) -> None:
        """As a person with kubectl cordon or uncordon."""
        self.patch_node(name, {"spec": {"unschedulable": wanted}})

    def patch_node(self, name: str, patch: Object) -> None:
        """As a person."""
        answer = self.client.patch(f"/api/v1/nodes/{name}", patch, "strategic")
        assert answer.status_code == 200, answer.text

    def is_cordoned(self, name: str) -> bool:
        """Whether the node is unschedulable now."""
        return bool(self.node(name)["spec"].get("unschedulable"))

    def lease(self, name: str = LOCK) -> Object:
        """The lock, empty when it is not there."""
        answer = self.client.get(f"{LEASES}/{name}")
        found: Object = answer.json() if answer.status_code == 200 else {}
        return found

    def holder(self, name: str = LOCK) -> str:
        """The node that holds the lock, empty when it is free."""
        return str(self.lease(name).get("spec", {}).get("holderIdentity", "")).partition("/")[0]

    def metrics(self, name: str) -> dict[str, float]:
        """Every sample of an agent by its name and labels."""
        text = requests.get(f"http://127.0.0.1:{self.ports[name]}/metrics", timeout=300).text
        samples = (line.rsplit(" ", 1) for line in text.splitlines() if line and not line.startswith("#"))
        return {sample: float(value) for sample, value in samples}

    def evictions(self, node: str = "") -> list[tuple[str, str]]:
        """Namespace and name of every eviction that was asked for, by one node's agent or all. Emulator only."""
        mine = f"({node})" if node else ""
        found = (one for one in self.sandbox.requests if one.subresource == "eviction" and mine in one.user_agent)
        return [(one.namespace, one.name) for one in found]

    def refused(self) -> list[str]:
        """Requests of agents that their rights did not cover. Emulator only."""
        asked = (one for one in self.sandbox.requests if one.status == 403)
        return [f"{one.method} {one.path}" for one in asked]

    def is_well(self, name: str) -> bool:
        """Nothing is asked for any more, and the last cycle is written down as done."""
        state = json.loads(self.annotation(name, "reboot-state") or "{}")
        return self.sentence(name) == "not required" and state.get("phase", "idle") == "idle"

    def all_rebooted(self, times: int = 1) -> bool:
        """Every machine went down so often and is well again."""
        return all(self.reboots(name) == times and self.is_well(name) for name in self.machines) and not self.holder()

    def reboots(self, name: str) -> int:
        """How often the machine went down and was proved well, by its history."""
        done = len(json.loads(self.annotation(name, "reboot-history") or "[]"))
        return done if done == self.machines[name].reboots else -1


@contextmanager
def emulated(folder: Path, policy: Mapping[str, Any] | None = None) -> Iterator[Site]:
    """A site on an emulator of its own, with controllers and fast kubelets. Ends with a look for refused requests."""
    kubelet = KubeletSettings(heartbeat_seconds=0.3, start_seconds=0.0, termination_seconds=0.1)
    with ExitStack() as stack:
        sandbox = stack.enter_context(Sandbox(Settings(kubelet=kubelet, node_grace_seconds=3.0)))
        yield from _site(stack, ApiServer.of(sandbox), sandbox, folder, policy)


@contextmanager
def real(api: ApiServer, folder: Path, policy: Mapping[str, Any] | None = None) -> Iterator[Site]:
    """A site on a real kube-apiserver that nobody else uses meanwhile, admission policy included."""
    with ExitStack() as stack:
        hands = stack.enter_context(Hands(api))
        yield from _site(stack, api, hands, folder, policy)


def _site(
    stack: ExitStack, api: ApiServer, surroundings: MachineContext, folder: Path, policy: Mapping[str, Any] | None
) -> Iterator[Site]:
    client = api.client()
    stack.callback(client.close)
    agents.install(client, agents.ALL_BUT_THE_AGENT)
    folder.mkdir(exist_ok=True)
    site = Site(api, client, surroundings, folder, policy or {})
    stack.callback(site.close)
    yield site
    for machine in site.machines.values():  # shown where the test has failed
        sys.stderr.write(f"-- {machine.name}\n{machine.log.read_text()[-3000:] if machine.log.exists() else ''}\n")
    if isinstance(surroundings, Sandbox):
        assert site.expects_refusals or site.refused() == [], "daemonset.yaml's RBAC does not suffice"


@contextmanager
def one_site(kind: str, folder: Path) -> Iterator[Callable[..., Site]]:
    """Makes a site from keys of `reboot`. kind: `emulator`, or `real`: a kube-apiserver of its own, skipped without."""
    with ExitStack() as stack:
        if kind == "emulator":
            yield lambda **reboot: stack.enter_context(emulated(folder / "site", reboot))
            return
        assets = apiservers.assets()
        if assets is None:
            pytest.skip("no real control plane: KUBEBUILDER_ASSETS does not name a folder with etcd and kube-apiserver")
        (folder / "control-plane").mkdir()
        api = stack.enter_context(apiservers.control_plane(assets, folder / "control-plane"))
        yield lambda **reboot: stack.enter_context(real(api, folder / "real", reboot))


def kured_lock(node: str, *, several: bool) -> str:
    """kured's annotation in one of its two forms."""
    one = {"nodeID": node, "metadata": {"unschedulable": False}, "created": "2026-01-01T00:00:00Z", "TTL": 0}
    return json.dumps({"maxOwners": 2, "locks": [one]} if several else one)


def pod_on(node: str, name: str, namespace: str = "default", **options: Any) -> Object:
    """A pod without a controller: it is gone when it is evicted, and no garbage collector takes it before."""
    return builders.pod(name, namespace=namespace, node=node, grace_seconds=1, **options)
