"""The drain in a living cluster: what it costs, and what it does while the API server fails in every way."""

from __future__ import annotations

import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from agent.config.schema import Drain
from agent.errors import KubeError
from agent.kube import Kube
from agent.reboot.drain import NodeDrain
from agent.reboot.interfaces import DrainMode, Progress
from agent.sandbox import builders
from agent.sandbox.faults import Fault, FaultKind
from agent.sandbox.server import Sandbox
from tests.support.kube import kube_client
from tests.support.rooms import Clocks

LONG = 30.0  # a bound for what never happens, not a timing
NODE = "worker-1"


class RealTime:
    """Both real clocks, of which the first one can be put forward."""

    def __init__(self) -> None:
        self.ahead = 0.0

    def monotonic(self) -> float:
        return time.monotonic() + self.ahead

    def wall(self) -> float:
        return time.time()


@pytest.fixture
def kube(sandbox: Sandbox) -> Iterator[Kube]:
    for number in (1, 2, 3):
        sandbox.add_node(f"worker-{number}")
    made = kube_client(sandbox.url, sandbox.token)
    yield made
    made.close()


@pytest.fixture
def drain(kube: Kube) -> Iterator[NodeDrain]:
    made = NodeDrain(Drain(), kube, node=NODE, clock=Clocks(), chance=random.Random(1))
    yield made
    made.reset()


def until(drain: NodeDrain, holds: Callable[[Progress], bool]) -> tuple[Progress, list[KubeError]]:
    """Steps until it holds, through errors, which are returned."""
    ends = time.monotonic() + LONG
    errors: list[KubeError] = []
    while time.monotonic() < ends:
        try:
            progress = drain.step(DrainMode.EVICT, lambda: True)
            if holds(progress):
                return progress, errors
        except KubeError as error:
            errors.append(error)
        time.sleep(0.05)
    raise AssertionError(f"never: {errors}")


def evictions(sandbox: Sandbox) -> list[str]:
    return [record.name for record in sandbox.requests if record.subresource == "eviction"]


def on_node(sandbox: Sandbox) -> set[str]:
    return {pod["metadata"]["name"] for pod in sandbox.list("pods") if pod["spec"].get("nodeName") == NODE}


LISTS = frozenset({"list", "watch"})  # a watch that begins with the list, or a list where there is none


def cordon(sandbox: Sandbox) -> None:
    sandbox.update("nodes", NODE, lambda node: node["spec"].update(unschedulable=True))


def wait_for(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + LONG
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.02)


def running(sandbox: Sandbox, pods: int) -> bool:
    phases = [pod["status"].get("phase") for pod in sandbox.list("pods")]
    return phases.count("Running") == pods


def test_a_pod_costs_less_than_two_requests(sandbox: Sandbox, kube: Kube) -> None:
    """A dozen pods of three workloads under budgets, two DaemonSets: list, watch, lookups and evictions together.

    Refusals and the watches of budgets that refuse are left out: they depend on how fast other nodes start the pods.
    """
    for name, replicas in (("web", 18), ("api", 9), ("db", 9)):
        sandbox.create("deployments", builders.workload("Deployment", name, replicas=replicas))
        sandbox.create("poddisruptionbudgets", builders.budget(name, {"app": name}, max_unavailable="50%"))
    for name in ("agent", "cni"):
        sandbox.create("daemonsets", builders.workload("DaemonSet", name, tolerations=[{"operator": "Exists"}]))
    wait_for(lambda: running(sandbox, 42))
    cordon(sandbox)
    sandbox.clear_requests()
    clock = RealTime()
    woken = threading.Event()
    drain = NodeDrain(Drain(), kube, node=NODE, clock=clock, chance=random.Random(1), wake=woken.set)
    progress, errors = until(drain, lambda progress: progress.done)
    drain.reset()
    requests = [record for record in sandbox.requests if record.resource != "poddisruptionbudgets"]
    sent = Counter(record.subresource or record.verb for record in requests)
    refused = sum(record.status == 429 for record in requests)
    asked = sum(sent.values()) - refused
    assert errors == []
    assert progress.evicted >= 10
    assert (sent["list"], sent["watch"]) == (0, 1), "the watch brings the list"
    assert asked / progress.evicted <= 2.0, sent
    assert woken.is_set()
    assert {name.rpartition("-")[0] for name in on_node(sandbox)} == {"agent", "cni"}


def test_a_budget_over_many_pods_is_kept_and_costs_little(sandbox: Sandbox, kube: Kube) -> None:
    """One at a time as its controller allows; a refusal is one request for all of its pods, not one for each."""
    sandbox.create("deployments", builders.workload("Deployment", "web", replicas=12))
    sandbox.create("poddisruptionbudgets", builders.budget("web", {"app": "web"}, max_unavailable=1))
    wait_for(lambda: running(sandbox, 12))
    here = len(on_node(sandbox))
    cordon(sandbox)
    clock = RealTime()
    drain = NodeDrain(Drain(), kube, node=NODE, clock=clock, chance=random.Random(1))
    lowest = 12

    def done(progress: Progress) -> bool:
        nonlocal lowest
        up = [pod for pod in sandbox.list("pods") if pod["status"].get("phase") == "Running"]
        lowest = min(lowest, sum("deletionTimestamp" not in pod["metadata"] for pod in up))
        clock.ahead += 2.0
        return progress.done

    progress, _ = until(drain, done)
    drain.reset()
    assert progress.evicted == here
    assert lowest >= 11
    refused = sum(record.status == 429 for record in sandbox.requests)
    assert refused <= 4 * here


@pytest.mark.parametrize(
    "fault",
    [
        Fault(FaultKind.STATUS, verbs=LISTS, path="/pods", code=503, count=2),
        Fault(FaultKind.STATUS, verbs=frozenset({"watch"}), path="/pods", code=410, reason="Expired", count=2),
        Fault(FaultKind.DROP, verbs=LISTS, path="/pods", count=2),
        Fault(FaultKind.TRUNCATE, verbs=LISTS, path="/pods", count=1),
        Fault(FaultKind.CUT_WATCH, path="/pods", seconds=0.1, count=2),
        Fault(FaultKind.STATUS, verbs=frozenset({"create"}), path="/eviction", code=500, count=2),
        Fault(FaultKind.STATUS, verbs=frozenset({"create"}), path="/eviction", code=429, count=2, retry_after=1),
        Fault(FaultKind.STATUS, verbs=frozenset({"create"}), path="/eviction", code=403, count=1, message="not you"),
        Fault(FaultKind.DROP, verbs=frozenset({"create"}), path="/eviction", count=2),
        Fault(FaultKind.LOSE_ANSWER, verbs=frozenset({"create"}), path="/eviction", count=2),
        Fault(FaultKind.STATUS, verbs=frozenset({"get"}), path="/daemonsets", code=503, count=1),
    ],
    ids=lambda fault: f"{fault.kind.value}-{fault.code}-{'-'.join(sorted(fault.verbs))}",
)
def test_whatever_fails_the_node_is_empty_in_the_end(sandbox: Sandbox, kube: Kube, fault: Fault) -> None:
    """And no live pod was missed, and a daemon's pod never touched."""
    sandbox.create("daemonsets", builders.workload("DaemonSet", "agent", tolerations=[{"operator": "Exists"}]))
    for number in range(4):
        sandbox.add_pod(f"web-{number}", node=NODE)
    wait_for(lambda: running(sandbox, 7))
    cordon(sandbox)
    sandbox.add_fault(fault)
    clock = Clocks()
    drain = NodeDrain(Drain(), kube, node=NODE, clock=clock, chance=random.Random(1))

    def done(progress: Progress) -> bool:
        clock.sleep(6.0)  # what is tried again is due
        return progress.done

    until(drain, done)
    drain.reset()
    assert sum(sandbox.fault_hits().values()) >= 1
    assert {name.rpartition("-")[0] for name in on_node(sandbox)} == {"agent"}


def test_an_answer_that_is_lost_is_found_out_by_looking(sandbox: Sandbox, drain: NodeDrain) -> None:
    """The eviction was done although nobody told us: the pod is seen to terminate, and is not asked for twice."""
    sandbox.stop_kubelet(NODE)
    sandbox.add_pod("web", node=NODE)
    sandbox.add_fault(Fault(FaultKind.LOSE_ANSWER, verbs=frozenset({"create"}), path="/eviction", count=1))
    _, errors = until(drain, lambda progress: progress.left == 1 and progress.total == 1)
    wait_for(lambda: bool(sandbox.list("pods")[0]["metadata"].get("deletionTimestamp")))
    assert len(errors) == 1
    for _ in range(3):
        drain.step(DrainMode.EVICT, lambda: True)
        time.sleep(0.1)
    assert evictions(sandbox) == ["web"]


def test_before_the_first_list_nothing_is_known_to_be_empty(sandbox: Sandbox, drain: NodeDrain) -> None:
    """A slow list is no empty node."""
    sandbox.add_pod("web", node=NODE)
    sandbox.add_fault(Fault(FaultKind.LATENCY, verbs=LISTS, path="/pods", seconds=7.0, count=1))
    progress = drain.step(DrainMode.EVICT, lambda: True)
    assert (progress.total, progress.done) == (0, False)
    until(drain, lambda progress: progress.done and progress.evicted == 1)


def test_an_api_server_that_is_away_is_an_error_and_no_end(sandbox: Sandbox, drain: NodeDrain) -> None:
    """What was known before must not pass for an empty node; when it is back the drain goes on."""
    sandbox.add_pod("web", node=NODE)
    sandbox.stop_kubelet(NODE)
    until(drain, lambda progress: progress.evicted == 1)
    fault = sandbox.add_fault(Fault(FaultKind.DROP, path="/pods"))
    sandbox.cut_watches()
    sandbox.delete("pods", "web")
    progress: Progress | None = None
    for step in count():
        try:
            progress = drain.step(DrainMode.EVICT, lambda: True)
        except KubeError:
            break
        assert not progress.done
        assert step < 400
        time.sleep(0.05)
    sandbox.remove_fault(fault)
    until(drain, lambda progress: progress.done)
