"""The drain against an API server: which pods go, what refuses, and what is never touched.

There is no kubelet here: `Node.kubelet` ends what terminates, when a test says so.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest

from agent.config.schema import Drain, WaitFor
from agent.config.selector import parse as selector
from agent.kube import (
    DAEMONSETS,
    NAMESPACES,
    PDBS,
    PERSISTENT_VOLUMES,
    PODS,
    VOLUME_ATTACHMENTS,
    ClientContext,
    Kube,
    Object,
    Patch,
    RequestMetric,
)
from agent.kube.errors import NotFound
from agent.reboot.drain import Expected, NodeDrain, Preflight, preflight
from agent.reboot.interfaces import DrainMode, Progress
from agent.reboot.status import BudgetRef
from tests.support.apiservers import ApiServer, Client
from tests.support.bundled_profiles import agents_token, client_with, shipped_rules, token_with
from tests.support.kube import client_of
from tests.support.rooms import Clocks

LONG = 20.0  # a bound for what never happens, not a timing
CONTROLLED = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web", "uid": "r-1", "controller": True}


def yes() -> bool:
    return True


@dataclass
class Node:
    """One node: an administrator's hands on its pods, and the agent's drain of it with the agent's own rights."""

    name: str
    namespace: str
    admin: Kube
    kube: Kube
    sent: list[RequestMetric]
    clock: Clocks = field(default_factory=Clocks)
    woken: threading.Event = field(default_factory=threading.Event)
    drains: list[NodeDrain] = field(default_factory=list)

    def drain(self, kube: Kube | None = None, **policy: Any) -> NodeDrain:
        """A new process's drain."""
        made = NodeDrain(
            Drain(**policy),
            kube or self.kube,
            node=self.name,
            clock=self.clock,
            chance=random.Random(1),
            wake=self.woken.set,
        )
        self.drains.append(made)
        return made

    def pod(self, name: str, *, owner: Object | None = CONTROLLED, node: str = "", **spec: Any) -> Object:
        """A pod that runs and is ready; `labels` and `annotations` may be given."""
        meta: Object = {"name": name, "labels": spec.pop("labels", {}), "annotations": spec.pop("annotations", {})}
        if owner is not None:
            meta["ownerReferences"] = [owner]
        containers = [{"name": "main", "image": "registry.invalid/main:1"}]
        body = {"metadata": meta, "spec": {"nodeName": node or self.name, "containers": containers, **spec}}
        self.admin.create(PODS, body, self.namespace)
        return self.phase(name, "Running")

    def phase(self, name: str, phase: str) -> Object:
        status = {"phase": phase, "conditions": [{"type": "Ready", "status": str(phase == "Running")}]}
        body = {"status": status}
        return self.admin.patch(PODS, name, body, self.namespace, how=Patch.STRATEGIC, subresource="status")

    def daemonset(self, name: str) -> Object:
        """A DaemonSet; what its pods carry as their owner."""
        labels = {"app": name}
        containers = [{"name": "main", "image": "registry.invalid/main:1"}]
        template = {"metadata": {"labels": labels}, "spec": {"containers": containers}}
        body = {"metadata": {"name": name}, "spec": {"selector": {"matchLabels": labels}, "template": template}}
        made = self.admin.create(DAEMONSETS, body, self.namespace)
        return {**CONTROLLED, "kind": "DaemonSet", "name": name, "uid": made["metadata"]["uid"]}

    def budget(self, name: str, allowed: int, *, app: str = "web", **meta: Any) -> None:
        """A disruption budget whose controller has decided how many may go."""
        spec = {"minAvailable": 1, "selector": {"matchLabels": {"app": app}}}
        self.admin.create(PDBS, {"metadata": {"name": name, **meta}, "spec": spec}, self.namespace)
        self.allow(name, allowed)

    def allow(self, name: str, allowed: int) -> None:
        status = {
            "observedGeneration": 1,
            "disruptionsAllowed": allowed,
            "currentHealthy": 1 + allowed,
            "desiredHealthy": 1,
            "expectedPods": 2,
        }
        self.admin.patch(PDBS, name, {"status": status}, self.namespace, how=Patch.MERGE, subresource="status")

    def pods(self) -> dict[str, bool]:
        """Pods of the namespace by name, and whether each terminates."""
        found = self.admin.list(PODS, self.namespace)
        return {pod["metadata"]["name"]: "deletionTimestamp" in pod["metadata"] for pod in found}

    def terminating(self) -> set[str]:
        return {name for name, ends in self.pods().items() if ends}

    def kubelet(self) -> None:
        """Ends what terminates."""
        for name in self.terminating():
            self.admin.delete(PODS, name, self.namespace, grace_seconds=0)

    def evictions(self) -> int:
        return sum(exchange.verb == "evict" for exchange in self.sent)

    def until(self, drain: NodeDrain, holds: Callable[[Progress], bool], mode: DrainMode = DrainMode.EVICT) -> Progress:
        """Steps until it holds; the drain's clock stands still, so nothing is tried again meanwhile."""
        ends = time.monotonic() + LONG
        while not holds(progress := drain.step(mode, yes)):
            assert time.monotonic() < ends, progress
            time.sleep(0.02)
        return progress


@pytest.fixture
def world(api: ApiServer, client: Client, namespace: str, node: str) -> Iterator[Node]:
    sent: list[RequestMetric] = []
    admin = client_of(api)
    kube = client_with(api, agents_token(client, namespace), ClientContext(on_request=sent.append))
    made = Node(node, namespace, admin, kube, sent)
    yield made
    for drain in made.drains:
        drain.reset()
    kube.close()
    admin.close()


def test_everything_that_has_to_go_goes_and_nothing_else(world: Node) -> None:
    """With the shipped rights: controlled, lone, finished and orphaned pods; not daemons, static pods, other nodes'."""
    agent = world.daemonset("agent")
    world.pod("web", labels={"app": "web"})
    world.pod("scratch", volumes=[{"name": "s", "emptyDir": {}}])
    world.pod("lone", owner=None)
    world.pod("done", owner=None)
    world.phase("done", "Succeeded")
    world.pod("daemon", owner=agent)
    world.pod("daemon-done", owner=agent)
    world.phase("daemon-done", "Failed")
    world.pod("orphan", owner={**agent, "name": "gone", "uid": "d-gone"})
    world.pod("static", owner=None, annotations={"kubernetes.io/config.mirror": "x"})
    world.pod("elsewhere", node=f"{world.name}-b")
    drain = world.drain()
    first = world.until(drain, lambda progress: progress.evicted == 6)
    assert (first.total, first.done, first.blocked_by, first.misconfigured) == (6, False, (), ())
    assert world.terminating() <= {"web", "scratch", "lone", "done", "daemon-done", "orphan"}
    world.clock.sleep(3)
    world.kubelet()
    last = world.until(drain, lambda progress: progress.done)
    assert (last.total, last.left, last.evicted, last.waiting_for) == (6, 0, 6, ())
    assert last.slowest.endswith(" 3 s")
    assert world.pods() == {"daemon": False, "elsewhere": False, "static": False}
    assert world.evictions() == 6


def test_an_empty_node_is_drained_at_once(world: Node) -> None:
    """One watch that begins with what there is, nothing else; a list before it where the server refuses that."""
    progress = world.until(world.drain(), lambda progress: progress.done)
    assert (progress.total, progress.evicted) == (0, 0)
    assert [exchange.verb for exchange in world.sent if exchange.verb != "watch"] in ([], ["list"])


def test_a_refusing_budget_is_named_with_its_owner_and_watched(world: Node) -> None:
    """The next eviction comes when the budget's status allows one, and wakes whoever waits; not by the clock."""
    for name in ("a", "b", "c", "d"):
        world.pod(name, labels={"app": "web"})
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "shop", "uid": "x-1", "controller": True}
    world.budget("one-stays", 0, ownerReferences=[owner])
    drain = world.drain()
    progress = world.until(drain, lambda progress: bool(progress.blocked_by))
    assert progress.blocked_by == (f"{world.namespace}/one-stays (ConfigMap shop)",)
    assert progress.budgets == (BudgetRef(world.namespace, "one-stays", "ConfigMap shop"),)
    assert (progress.left, len(progress.waiting_for)) == (4, 4)
    world.clock.sleep(20)
    for _ in range(3):
        drain.step(DrainMode.EVICT, yes)
    assert world.evictions() == 1
    world.woken.clear()
    world.allow("one-stays", 2)
    assert world.woken.wait(LONG)
    assert drain.has_changed()
    world.until(drain, lambda progress: progress.evicted == 2)
    assert world.evictions() == 3  # two are allowed, two are evicted, nothing is refused
    world.kubelet()
    world.allow("one-stays", 1)
    world.until(drain, lambda progress: progress.evicted == 3)
    world.admin.delete(PDBS, "one-stays", world.namespace)
    world.until(drain, lambda progress: progress.evicted == 4)
    world.kubelet()
    assert world.until(drain, lambda progress: progress.done).blocked_by == ()
    assert world.evictions() == 5
    asked = [exchange.verb for exchange in world.sent if exchange.resource == "poddisruptionbudgets"]
    assert asked in (["watch"], ["list", "watch"])


def test_two_budgets_on_a_pod_are_named_and_rarely_tried(world: Node) -> None:
    """No waiting resolves it. Other pods go; the line names both budgets and whom to ask."""
    world.pod("web", labels={"app": "web"})
    world.pod("other")
    world.budget("first", 1, labels={"app.kubernetes.io/instance": "shop"})
    world.budget("second", 1)
    drain = world.drain()
    progress = world.until(drain, lambda progress: bool(progress.misconfigured) and progress.evicted == 1)
    where = world.namespace
    (line,) = progress.misconfigured
    assert line == (
        f"{where}/web matches more than one disruption budget, so it cannot be evicted: "
        f"{where}/first (app shop), {where}/second"
    )
    assert progress.blocked_by == ()
    world.kubelet()
    for _ in range(10):
        world.clock.sleep(20)
        assert world.until(drain, lambda progress: progress.left == 1).misconfigured
    assert world.evictions() == 2
    world.admin.delete(PDBS, "second", where)
    world.clock.sleep(400)
    world.until(drain, lambda progress: progress.evicted == 2)


def test_a_same_named_pod_elsewhere_is_never_touched(world: Node) -> None:
    """It takes the name between the look and the eviction, as a StatefulSet's does; the UID tells them apart."""
    first = world.pod("db-0")

    def replaced() -> bool:
        try:
            old = world.admin.get(PODS, "db-0", world.namespace)
        except NotFound:
            return True
        if old["metadata"]["uid"] == first["metadata"]["uid"]:
            world.admin.delete(PODS, "db-0", world.namespace, grace_seconds=0)
            world.pod("db-0", node=f"{world.name}-b")
        return True

    drain = world.drain()
    ends = time.monotonic() + LONG
    while not (progress := drain.step(DrainMode.EVICT, replaced)).done:
        assert time.monotonic() < ends
        time.sleep(0.02)
    assert world.evictions() == 1
    assert progress.evicted == 0
    now = world.admin.get(PODS, "db-0", world.namespace)
    assert now["metadata"]["uid"] != first["metadata"]["uid"]
    assert "deletionTimestamp" not in now["metadata"]


@pytest.mark.parametrize("mode", DrainMode)
def test_without_consent_nothing_at_all_is_touched(world: Node, mode: DrainMode) -> None:
    """As kubectl does it: a drain that cannot end is not begun. Not even past the deadline is data destroyed."""
    world.pod("scratch", volumes=[{"name": "s", "emptyDir": {}}])
    world.pod("lone", owner=None)
    world.pod("web")
    drain = world.drain(delete_empty_dir_data=False, force=False)
    progress = world.until(drain, lambda progress: bool(progress.misconfigured), mode)
    assert progress.misconfigured == (
        f"{world.namespace}/lone: no controller recreates it, and drain.force is off",
        f"{world.namespace}/scratch: it has an emptyDir, and drain.deleteEmptyDirData is off",
    )
    assert (progress.total, progress.left, progress.done) == (3, 3, False)
    assert world.terminating() == set()
    assert {exchange.verb for exchange in world.sent} <= {"list", "watch"}


def test_past_the_deadline_what_is_left_is_deleted(world: Node) -> None:
    """Budgets or not, each once; with the grace period that the policy gives."""
    world.pod("a", labels={"app": "web"})
    world.pod("b", labels={"app": "two"})
    world.budget("none", 0)
    world.budget("first", 1, app="two")
    world.budget("second", 1, app="two")
    drain = world.drain(grace_period=7.0)
    world.until(drain, lambda progress: bool(progress.blocked_by) and bool(progress.misconfigured))
    progress = world.until(drain, lambda progress: progress.evicted == 2, DrainMode.DELETE)
    assert (progress.blocked_by, progress.misconfigured) == ((), ())
    found = list(world.admin.list(PODS, world.namespace))
    assert [pod["metadata"]["deletionGracePeriodSeconds"] for pod in found] == [7, 7]
    for _ in range(3):
        world.clock.sleep(30)
        drain.step(DrainMode.DELETE, yes)
    assert sum(exchange.verb == "delete" for exchange in world.sent) == 2
    world.kubelet()
    assert world.until(drain, lambda progress: progress.done, DrainMode.DELETE).evicted == 2


def test_what_goes_by_itself_before_it_is_deleted_is_left_alone(world: Node) -> None:
    """Deletion carries the UID as well: gone is done, and another pod by that name is not touched."""
    world.pod("gone")
    world.pod("replaced")
    is_first = True

    def meanwhile() -> bool:
        nonlocal is_first
        if is_first:
            is_first = False
            for name in ("gone", "replaced"):
                world.admin.delete(PODS, name, world.namespace, grace_seconds=0)
            world.pod("replaced", node=f"{world.name}-b")
        return True

    drain = world.drain()
    ends = time.monotonic() + LONG
    while not (progress := drain.step(DrainMode.DELETE, meanwhile)).done:
        assert time.monotonic() < ends
        time.sleep(0.02)
    assert progress.evicted == 0
    assert world.pods() == {"replaced": False}


def test_pods_of_a_namespace_that_goes_are_waited_for(world: Node) -> None:
    """They are being deleted anyway; the API server refuses their eviction, and nobody is blamed for it."""
    world.pod("web")
    world.admin.delete(NAMESPACES, world.namespace)
    drain = world.drain(world.admin)
    progress = world.until(drain, lambda progress: progress.left == 1)
    assert (progress.evicted, progress.blocked_by, progress.misconfigured) == (0, (), ())
    world.admin.delete(PODS, "web", world.namespace, grace_seconds=0)
    world.until(drain, lambda progress: progress.done)


def test_budgets_that_may_not_be_read_are_named_as_far_as_they_are_known(
    world: Node, api: ApiServer, client: Client
) -> None:
    """A drain without the right to read budgets still drains, and still says what it can."""
    rules = [rule for rule in shipped_rules("ClusterRole") if rule["apiGroups"] != ["policy"]]
    kube = client_with(api, token_with(client, world.namespace, "poor", rules, []))
    world.pod("held", labels={"app": "web"})
    world.pod("never", labels={"app": "two"})
    world.budget("none", 0, labels={"app": "shop"})
    world.budget("first", 1, app="two")
    world.budget("second", 1, app="two")
    drain = world.drain(kube)
    progress = world.until(drain, lambda progress: bool(progress.blocked_by) and bool(progress.misconfigured))
    where = world.namespace
    assert progress.blocked_by == (f"{where}/none",)
    assert progress.misconfigured == (
        f"{where}/never matches more than one disruption budget, so it cannot be evicted",
    )
    drain.reset()
    kube.close()


def test_a_new_process_goes_on_where_the_last_one_stopped(world: Node) -> None:
    """It sees what terminates already, and asks for nothing twice."""
    for name in ("a", "b"):
        world.pod(name)
    first = world.drain()
    world.until(first, lambda progress: progress.evicted == 2)
    first.reset()
    second = world.drain()
    progress = world.until(second, lambda progress: progress.left == 2)
    assert progress.evicted == 0
    world.kubelet()
    world.until(second, lambda progress: progress.done)
    assert world.evictions() == 2


def test_only_selected_pods_are_drained(world: Node) -> None:
    """`podSelector`: the others stay and are not waited for."""
    world.pod("a", labels={"tier": "web"})
    world.pod("b", labels={"tier": "db"})
    drain = world.drain(pod_selector=selector("tier in (web)"))
    world.until(drain, lambda progress: progress.evicted == 1)
    world.kubelet()
    world.until(drain, lambda progress: progress.done)
    assert world.pods() == {"b": False}


@pytest.mark.parametrize("skew", [-86400.0, 0.0, 86400.0])
def test_what_terminates_for_long_is_not_waited_for(world: Node, skew: float) -> None:
    """`skipWaitForDeleteTimeout`: a pod on a dead volume holds up no drain; the node's wall clock decides nothing."""
    world.pod("stuck")
    world.clock.epoch = time.time() + skew
    drain = world.drain(skip_wait_for_delete_timeout=60)
    world.until(drain, lambda progress: progress.evicted == 1 and progress.left == 1)
    assert drain.step(DrainMode.EVICT, yes).done is False
    world.clock.sleep(50)
    assert drain.step(DrainMode.EVICT, yes).done is False
    world.clock.sleep(20)
    world.until(drain, lambda progress: progress.done)
    assert world.pods() == {"stuck": True}


def test_a_pod_that_a_finalizer_holds_says_so(world: Node) -> None:
    """Since when it terminates, and which finalizer; within its grace period nothing is wrong."""
    world.pod("held")
    world.admin.patch(PODS, "held", {"metadata": {"finalizers": ["example.com/hold"]}}, world.namespace)
    drain = world.drain()
    progress = world.until(drain, lambda progress: progress.evicted == 1 and bool(world.terminating()))
    world.clock.sleep(30)
    assert drain.step(DrainMode.EVICT, yes).blocked_by == ()
    world.clock.sleep(10)
    progress = world.until(drain, lambda progress: bool(progress.blocked_by))
    (line,) = progress.blocked_by
    assert line.startswith(f"{world.namespace}/held: Terminating since 20")
    assert line.endswith("Z, finalizer example.com/hold")
    assert progress.done is False
    world.admin.patch(PODS, "held", {"metadata": {"finalizers": None}}, world.namespace)
    world.kubelet()
    world.until(drain, lambda progress: progress.done)


def test_nothing_is_touched_once_the_lock_is_not_fresh(world: Node) -> None:
    """Asked before each eviction."""
    for name in ("a", "b", "c"):
        world.pod(name)
    drain = world.drain()
    answers = iter([True, False])
    ends = time.monotonic() + LONG
    while (progress := drain.step(DrainMode.EVICT, lambda: next(answers))).total == 0:
        assert time.monotonic() < ends
    assert (progress.evicted, progress.wait_seconds) == (1, 0.0)
    assert len(world.terminating()) == 1


def test_a_workload_that_ignores_the_cordon_is_left_running_and_named(world: Node) -> None:
    """A late pod that tolerates the cordon, and one whose owner places it here again and again: as a DaemonSet's."""
    world.pod("put-0")
    drain = world.drain()
    world.until(drain, lambda progress: progress.evicted == 1)
    world.kubelet()
    world.until(drain, lambda progress: progress.done)
    world.pod("tolerant", tolerations=[{"operator": "Exists"}])
    world.pod("put-1")  # it may have been bound while the node was being cordoned
    world.until(drain, lambda progress: progress.evicted == 2)
    world.kubelet()
    world.pod("put-2")
    world.pod("put-3")
    progress = world.until(drain, lambda progress: len(progress.returned) == 2)
    assert progress.returned == (f"{world.namespace}/put-2", f"{world.namespace}/put-3")
    assert (progress.done, progress.left, progress.misconfigured) == (True, 0, ())
    assert "put-2" in progress.left_text
    assert world.evictions() == 2
    assert world.pods() == {"put-2": False, "put-3": False, "tolerant": False}


def test_pods_that_were_bound_during_the_cordon_are_all_evicted(world: Node) -> None:
    """The scheduler had chosen this node before it saw the cordon: several of one owner arrive late, none returns."""
    drain = world.drain()
    world.until(drain, lambda progress: progress.done)
    for number in range(3):
        world.pod(f"bound-{number}")
    progress = world.until(drain, lambda progress: progress.evicted == 3)
    assert progress.returned == ()
    world.kubelet()
    world.pod("back")
    world.until(drain, lambda progress: progress.done and bool(progress.returned))
    assert world.evictions() == 3


def test_a_pod_that_comes_back_never_stops_the_others(world: Node) -> None:
    """They are tried as soon as their budget allows; also where the late pod may not be evicted at all."""
    world.pod("pinned-0")
    world.pod("web", labels={"app": "web"})
    world.budget("none", 0)
    drain = world.drain(force=False)
    world.until(drain, lambda progress: progress.evicted == 1 and bool(progress.blocked_by))
    world.kubelet()
    for name in ("pinned-1", "pinned-2"):
        world.pod(name)
        world.until(drain, lambda progress: progress.total >= 2)
        world.kubelet()
    world.pod("bare", owner=None)
    world.until(drain, lambda progress: bool(progress.misconfigured))
    evicted = drain.step(DrainMode.EVICT, yes).evicted
    world.allow("none", 1)
    progress = world.until(drain, lambda progress: progress.evicted > evicted)
    assert "web" in world.terminating()
    assert (progress.left, progress.done) == (2, False)  # web, which terminates, and bare, which may not go
    assert f"{world.namespace}/bare" in progress.waiting_for


def test_pods_that_must_finish_are_waited_for_before_anything_is_evicted(world: Node) -> None:
    """By label or annotation; each is named, and the last one that finishes wakes whoever waits."""
    world.pod("web")
    world.pod("job", labels={"batch": "nightly"})
    world.pod("session", annotations={"karpenter.sh/do-not-disrupt": "true"})
    wait = WaitFor(pods=(selector("batch"),), annotations={"karpenter.sh/do-not-disrupt": "true"})
    drain = world.drain(wait_for=wait)
    progress = world.until(drain, lambda progress: bool(progress.blocked_by))
    assert progress.blocked_by == (
        f"{world.namespace}/job must finish first (label selector batch)",
        f"{world.namespace}/session must finish first (annotation karpenter.sh/do-not-disrupt)",
    )
    assert (progress.left, world.evictions()) == (3, 0)
    world.phase("job", "Succeeded")
    world.until(drain, lambda progress: len(progress.blocked_by) == 1)
    assert not world.woken.is_set()
    world.admin.delete(PODS, "session", world.namespace, grace_seconds=0)
    assert world.woken.wait(LONG)
    world.until(drain, lambda progress: progress.evicted == 2)
    world.kubelet()
    world.until(drain, lambda progress: progress.done)


def test_pods_that_must_finish_are_evicted_after_the_deadline(world: Node) -> None:
    """`waitFor.timeout`; with 0 `drain.timeout` and its `onTimeout` decide, as for everything else."""
    world.pod("job", labels={"batch": "nightly"})
    patient = world.drain(wait_for=WaitFor(pods=(selector("batch"),)))
    drain = world.drain(wait_for=WaitFor(pods=(selector("batch"),), timeout=60.0))
    for one in (patient, drain):
        world.until(one, lambda progress: bool(progress.blocked_by))
    world.clock.sleep(59)
    assert 0 < drain.step(DrainMode.EVICT, yes).wait_seconds <= 1.0
    world.clock.sleep(1)
    assert patient.step(DrainMode.EVICT, yes).evicted == 0
    world.until(drain, lambda progress: progress.evicted == 1)


def test_past_the_drains_deadline_nothing_is_waited_for(world: Node) -> None:
    """`onTimeout: delete` deletes what must finish as well."""
    world.pod("job", labels={"batch": "nightly"})
    drain = world.drain(wait_for=WaitFor(pods=(selector("batch"),)))
    world.until(drain, lambda progress: bool(progress.blocked_by))
    world.until(drain, lambda progress: progress.evicted == 1, DrainMode.DELETE)


def test_critical_pods_go_when_all_others_are_gone(world: Node) -> None:
    """They may carry the volumes and the network that the others need to end."""
    world.pod("csi", labels={"longhorn.io/component": "instance-manager"})
    world.pod("web")
    drain = world.drain()
    world.until(drain, lambda progress: progress.evicted == 1 and bool(world.terminating()))
    drain.step(DrainMode.EVICT, yes)
    assert world.terminating() == {"web"}
    world.woken.clear()
    world.kubelet()
    assert world.woken.wait(LONG)
    world.until(drain, lambda progress: progress.evicted == 2)
    assert world.terminating() == {"csi"}


class Volumes:
    """Attachments of PersistentVolumes, made and removed as the attach-detach controller does."""

    def __init__(self, world: Node) -> None:
        self._world = world

    def attach(self, volume: str, claim: str = "", node: str = "") -> None:
        if claim:
            reference = {"namespace": self._world.namespace, "name": claim}
            spec: Object = {"claimRef": reference, "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"]}
            body = {"metadata": {"name": volume}, "spec": {**spec, "hostPath": {"path": "/x"}}}
            self._world.admin.create(PERSISTENT_VOLUMES, body)
        source = {"persistentVolumeName": volume}
        spec = {"attacher": "csi.example.com", "nodeName": node or self._world.name, "source": source}
        self._world.admin.create(VOLUME_ATTACHMENTS, {"metadata": {"name": f"csi-{volume}"}, "spec": spec})

    def detach(self, volume: str) -> None:
        self._world.admin.delete(VOLUME_ATTACHMENTS, f"csi-{volume}")


def test_the_nodes_volumes_are_waited_for_and_named(world: Node) -> None:
    """Not another node's, and not a staying pod's; the last one that is detached wakes whoever waits."""
    volumes, one = Volumes(world), world.namespace
    claim = [{"name": "v", "persistentVolumeClaim": {"claimName": "logs"}}]
    world.pod("daemon", owner=world.daemonset("agent"), volumes=claim)
    world.pod("db-0")
    volumes.attach(f"{one}-data")
    volumes.attach(f"{one}-logs", claim="logs")
    volumes.attach(f"{one}-far", node=f"{world.name}-b")
    drain = world.drain(volume_timeout=300.0)
    world.until(drain, lambda progress: progress.evicted == 1)
    world.kubelet()
    progress = world.until(drain, lambda progress: progress.waiting_for == (f"volume {one}-data",))
    assert (progress.total, progress.left, progress.done) == (2, 1, False)
    world.woken.clear()
    volumes.detach(f"{one}-data")
    assert world.woken.wait(LONG)
    assert world.until(drain, lambda progress: progress.done).left == 0
    for volume in ("logs", "far"):
        volumes.detach(f"{one}-{volume}")


def test_a_volume_that_stays_attached_is_left_behind_after_the_deadline(world: Node) -> None:
    """`volumeTimeout`: the node reboots, and what was left is counted."""
    volumes, volume = Volumes(world), f"{world.namespace}-data"
    volumes.attach(volume)
    drain = world.drain(volume_timeout=300.0)
    world.until(drain, lambda progress: progress.left == 1)
    world.clock.sleep(299)
    assert drain.step(DrainMode.EVICT, yes).done is False
    world.clock.sleep(1)
    progress = drain.step(DrainMode.EVICT, yes)
    assert (progress.done, progress.left, progress.waiting_for) == (True, 1, (f"volume {volume}",))
    volumes.detach(volume)


def test_attachments_that_may_not_be_listed_are_named_until_the_deadline(
    world: Node, api: ApiServer, client: Client
) -> None:
    """Unknown is never none."""
    rules = [rule for rule in shipped_rules("ClusterRole") if rule["apiGroups"] != ["storage.k8s.io"]]
    kube = client_with(api, token_with(client, world.namespace, "poor", rules, []))
    drain = world.drain(kube, volume_timeout=300.0)
    progress = world.until(drain, lambda progress: bool(progress.misconfigured))
    assert "volume attachments unknown" in progress.misconfigured[0]
    assert progress.done is False
    world.clock.sleep(300)
    world.until(drain, lambda progress: progress.done)
    drain.reset()
    kube.close()


def test_a_missing_right_is_told_and_not_tried_for_ever(world: Node, api: ApiServer, client: Client) -> None:
    """RBAC without pods/eviction: the line says so, and the API server is not hammered."""
    rules = [rule for rule in shipped_rules("ClusterRole") if rule["resources"] != ["pods/eviction"]]
    sent: list[RequestMetric] = []
    token = token_with(client, world.namespace, "poor", rules, [])
    kube = client_with(api, token, ClientContext(on_request=sent.append))
    world.pod("a")
    drain = world.drain(kube)
    progress = world.until(drain, lambda progress: bool(progress.misconfigured))
    assert progress.misconfigured[0].startswith(f"{world.namespace}/a may not be removed: ")
    assert "cannot create resource" in progress.misconfigured[0]
    for _ in range(5):
        world.clock.sleep(30)
        drain.step(DrainMode.EVICT, yes)
    assert sum(exchange.verb == "evict" for exchange in sent) == 1
    drain.reset()
    kube.close()


def test_the_last_pod_that_goes_wakes_whoever_waits(world: Node) -> None:
    """Nobody polls for it; the ones before wake nobody."""
    for name in ("a", "b"):
        world.pod(name)
    drain = world.drain()
    world.until(drain, lambda progress: progress.evicted == 2)
    world.admin.delete(PODS, "a", world.namespace, grace_seconds=0)
    world.until(drain, lambda progress: progress.left == 1)
    assert not world.woken.is_set()
    world.admin.delete(PODS, "b", world.namespace, grace_seconds=0)
    assert world.woken.wait(LONG)
    assert drain.step(DrainMode.EVICT, yes).done is True


def test_a_preflight_tells_each_pods_fate_and_touches_nothing(world: Node) -> None:
    """Dry-run evictions: budgets are asked, not spent."""
    world.pod("daemon", owner=world.daemonset("agent"))
    world.pod("free")
    world.pod("held", labels={"app": "web"})
    world.pod("never", labels={"app": "two"})
    world.pod("scratch", volumes=[{"name": "s", "emptyDir": {}}])
    world.budget("none", 0, labels={"app": "shop"})
    world.budget("first", 1, app="two")
    world.budget("second", 1, app="two")
    found = preflight(world.kube, world.name, Drain(delete_empty_dir_data=False))
    where = world.namespace
    assert [(answer.pod.partition("/")[2], answer.expected) for answer in found] == [
        ("daemon", Expected.STAYS),
        ("free", Expected.GOES),
        ("held", Expected.WAITS),
        ("never", Expected.NEVER),
        ("scratch", Expected.NEVER),
    ]
    assert found[1] == Preflight(f"{where}/free", Expected.GOES)
    assert found[2].budget == f"{where}/none (app shop)"
    assert found[3].budget == f"{where}/first, {where}/second"
    assert world.terminating() == set()
    budgets = world.admin.list(PDBS, where)
    assert sorted(one["status"]["disruptionsAllowed"] for one in budgets) == [0, 1, 1]


def test_an_estimate_tries_no_eviction_and_comes_to_the_same(world: Node) -> None:
    """For who may only look: from the budgets' own status, and unknown where that was not written yet."""
    world.pod("free")
    world.pod("held", labels={"app": "web"})
    world.pod("lucky", labels={"app": "one"})
    world.pod("never", labels={"app": "two"})
    world.budget("none", 0, labels={"app": "shop"})
    world.budget("one", 1, app="one")
    world.budget("first", 1, app="two")
    world.budget("second", 1, app="two")
    found = preflight(world.kube, world.name, Drain(), ask=False)
    fates = [Expected.GOES, Expected.WAITS, Expected.GOES, Expected.NEVER]
    assert [one.expected for one in found] == fates
    assert [one.expected for one in preflight(world.kube, world.name, Drain())] == fates
    assert found[1].budget == f"{world.namespace}/none (app shop)"
    budget = {"metadata": {"name": "new"}, "spec": {"maxUnavailable": 1, "selector": {"matchLabels": {"app": "new"}}}}
    world.admin.create(PDBS, budget, world.namespace)
    world.pod("new", labels={"app": "new"})
    expected = {
        one.pod.partition("/")[2]: one.expected for one in preflight(world.kube, world.name, Drain(), ask=False)
    }
    assert expected["new"] is Expected.UNKNOWN
    assert world.terminating() == set()
