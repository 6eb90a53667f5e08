"""The coordinator's port against an API server: compare-and-swap on Node and Lease, watches, and what is left alone."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from agent.annotations import FIELD_MANAGER, REBOOT_STATE
from agent.kube import LEASES, NODES, ClientContext, Kube, RequestMetric, field_selector
from agent.kube.errors import AlreadyExists, Conflict, NotFound
from agent.reboot.cluster import LeasePhase, LeaseView, NodePatch
from agent.reboot.kube.cluster import KubeCluster, without_ballast
from agent.reboot.kube.informer import FollowedObjects
from agent.reboot.lock.pools import lease_names
from tests.support.apiservers import ApiServer, Client
from tests.support.bundled_profiles import agents_token, client_with
from tests.support.kube import client_of

BOUND_SECONDS = 240.0  # for what should come at once; only a failing test waits so long
NAME = lease_names("workers", 1)[0]


@dataclass
class Place:
    """A node, a namespace, and the port with the agent's own rights."""

    name: str
    namespace: str
    admin: Kube
    kube: Kube
    sent: list[RequestMetric]
    woken: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def cluster(self, kube: Kube | None = None, node: str = "") -> Iterator[KubeCluster]:
        """With a watch of the Node, as the daemon has it."""
        kube, node, wake = kube or self.kube, node or self.name, self.woken.set
        follow = kube.follow(NODES, field_selector=field_selector({"metadata.name": node}))
        with (
            closing(FollowedObjects(follow, wake, without_ballast)) as nodes,
            closing(KubeCluster(kube, node=node, nodes=nodes, namespace=self.namespace, wake=wake)) as cluster,
        ):
            yield cluster

    def count(self, verb: str, resource: str) -> int:
        return sum(1 for exchange in self.sent if (exchange.verb, exchange.resource) == (verb, resource))


@pytest.fixture
def place(api: ApiServer, client: Client) -> Iterator[Place]:
    unique = uuid.uuid4().hex[:8]
    admin = client_of(api)
    namespace, name = f"reboot-{unique}", f"node-{unique}"
    client.post("/api/v1/namespaces", {"metadata": {"name": namespace}})
    labels = {"kubernetes.io/hostname": name}
    admin.create(NODES, {"metadata": {"name": name, "labels": labels, "annotations": {"example.com/theirs": "kept"}}})
    sent: list[RequestMetric] = []
    kube = client_with(api, agents_token(client, namespace), ClientContext(on_request=sent.append))
    yield Place(name, namespace, admin, kube, sent)
    admin.delete(NODES, name)
    kube.close()


def eventually(look: Callable[[], bool]) -> None:
    ends = time.monotonic() + BOUND_SECONDS
    while not look():
        assert time.monotonic() < ends, "it did not come"
        time.sleep(0.02)


def test_a_cordon_and_its_note_are_one_write_that_a_change_in_between_refuses(place: Place) -> None:
    """A person's change between look and write is a Conflict, and nothing of the patch is done."""
    with place.cluster() as cluster:
        seen = cluster.node()
        assert seen is not None
        place.admin.patch(NODES, place.name, {"metadata": {"labels": {"example.com/by-hand": "1"}}})
        with pytest.raises(Conflict):
            cluster.patch_node(NodePatch(annotations={REBOOT_STATE: "{}"}, unschedulable=True), seen.version)
        again = cluster.node()
        assert again is not None
        assert (again.unschedulable, again.annotations.get(REBOOT_STATE)) == (False, None)
        cordoned = cluster.patch_node(NodePatch(annotations={REBOOT_STATE: "{}"}, unschedulable=True), again.version)
        assert (cordoned.unschedulable, cordoned.annotations[REBOOT_STATE]) == (True, "{}")
        assert cordoned.unschedulable_by in ("", FIELD_MANAGER)
        assert cordoned.annotations["example.com/theirs"] == "kept"
        free = cluster.patch_node(NodePatch(annotations={REBOOT_STATE: None}, unschedulable=False), cordoned.version)
        assert (free.unschedulable, REBOOT_STATE in free.annotations) == (False, False)


def test_taints_are_replaced_as_a_whole(place: Place) -> None:
    """The coordinator hands over all taints; those of others are among them."""
    theirs = {"key": "example.com/theirs", "effect": "NoSchedule"}
    ours = {"key": "example.com/soon", "effect": "PreferNoSchedule"}
    place.admin.patch(NODES, place.name, {"spec": {"taints": [theirs]}})
    with place.cluster() as cluster:
        seen = cluster.node()
        assert seen is not None
        tainted = cluster.patch_node(NodePatch(taints=(*seen.taints, ours)), seen.version)
        assert [taint["key"] for taint in tainted.taints] == ["example.com/theirs", "example.com/soon"]


def test_reads_cost_nothing_once_the_watch_runs_and_follow_people(place: Place) -> None:
    """The Node comes from a watch; a change wakes the daemon and is seen; own writes are seen at once."""
    with place.cluster() as cluster:
        assert cluster.node() is not None
        eventually(lambda: place.count("watch", "nodes") > 0)
        eventually(place.woken.is_set)
        before = place.count("get", "nodes")
        for _ in range(20):
            seen = cluster.node()
        assert place.count("get", "nodes") == before
        assert seen is not None
        written = cluster.patch_node(NodePatch(labels={"example.com/mine": "1"}), seen.version)
        assert cluster.node() == written
        place.woken.clear()
        place.admin.patch(NODES, place.name, {"spec": {"unschedulable": True}})
        eventually(lambda: (now := cluster.node()) is not None and now.unschedulable)
        eventually(place.woken.is_set)
        place.admin.delete(NODES, place.name)
        eventually(lambda: cluster.node() is None)
    place.admin.create(NODES, {"metadata": {"name": place.name}})


def test_a_lease_is_created_once_and_replaced_only_as_it_was_seen(place: Place) -> None:
    """Two takers: one wins the create, one the swap; everything that is written is read back."""
    lease = LeaseView(
        NAME,
        holder=f"{place.name}/uid-1",
        phase=LeasePhase.HELD,
        renewed="2026-01-02T03:04:05.678901Z",
        acquired="2026-01-02T03:04:05.678901Z",
        duration_seconds=60,
        transitions=3,
        cycle="abc",
        boot="boot-1",
        taken_from="other",
        last_reboot=1_700_000_000.5,
        pool_size=12,
        waited=34.0,
        stuck="third",
    )
    with place.cluster() as mine, place.cluster() as theirs:
        assert mine.leases([NAME], follow=True) == (LeaseView(NAME),)
        created = mine.put_lease(lease)
        assert replace(created, version="") == lease
        with pytest.raises(AlreadyExists):
            theirs.put_lease(lease)
        (seen,) = theirs.leases([NAME], follow=True)
        assert seen == created
        place.admin.patch(LEASES, NAME, {"metadata": {"annotations": {"example.com/x": "1"}}}, place.namespace)
        with pytest.raises(Conflict):
            mine.put_lease(replace(created, phase=LeasePhase.REBOOTING))
        (again,) = mine.leases([NAME], follow=True)
        fenced = mine.put_lease(replace(again, phase=LeasePhase.REBOOTING))
        assert fenced.phase is LeasePhase.REBOOTING
        free = mine.put_lease(replace(fenced, holder="", phase=LeasePhase.NONE, cycle="", boot="", stuck=""))
        assert (free.holder, free.phase, free.last_reboot) == ("", LeasePhase.NONE, 1_700_000_000.5)
    found = place.admin.get(LEASES, NAME, place.namespace)
    assert found["metadata"]["annotations"]["example.com/x"] == "1"
    assert "holderIdentity" not in found["spec"]


def test_a_waiter_watches_the_lease_instead_of_asking(place: Place) -> None:
    """From the second look on no request is made until something changes, and the change wakes."""
    with place.cluster() as waiter, place.cluster() as holder:
        held = holder.put_lease(LeaseView(NAME, holder="other/uid", phase=LeasePhase.HELD, duration_seconds=60))
        waiter.leases([NAME], follow=True)
        waiter.leases([NAME], follow=True)
        eventually(lambda: place.count("watch", "leases") > 0)
        eventually(lambda: waiter.leases([NAME], follow=True) == (held,))
        before = place.count("get", "leases")
        for _ in range(20):
            waiter.leases([NAME], follow=True)
        assert place.count("get", "leases") == before
        place.woken.clear()
        holder.put_lease(replace(held, holder="", phase=LeasePhase.NONE))
        eventually(place.woken.is_set)
        eventually(lambda: not waiter.leases([NAME], follow=True)[0].holder)


def test_others_are_counted_and_looked_after(place: Place) -> None:
    """The pool's members with their readiness, and another node's UID."""
    status: dict[str, Any] = {"conditions": [{"type": "Ready", "status": "True"}]}
    place.admin.patch(NODES, place.name, {"status": status}, subresource="status")
    uid = place.admin.get(NODES, place.name)["metadata"]["uid"]
    with place.cluster() as cluster:
        (own,) = [member for member in cluster.members() if member.name == place.name]
        assert (own.uid, own.ready, own.unschedulable) == (uid, True, False)
        assert own.labels["kubernetes.io/hostname"] == place.name
        assert cluster.count() == len(list(cluster.members()))
        assert cluster.uid_of(place.name) == uid
        assert cluster.uid_of("nobody") is None


def test_the_kubelets_heartbeat_is_read_where_it_writes_it(place: Place, client: Client) -> None:
    """renewTime of the node's lease in kube-node-lease, as it is written."""
    client.post("/api/v1/namespaces", {"metadata": {"name": "kube-node-lease"}})
    body = {"metadata": {"name": place.name}, "spec": {"renewTime": "2026-01-02T03:04:05.000000Z"}}
    with place.cluster(place.admin) as cluster:
        assert cluster.heartbeat() == ""
        place.admin.create(LEASES, body, "kube-node-lease")
        assert cluster.heartbeat() == "2026-01-02T03:04:05.000000Z"
    place.admin.delete(LEASES, place.name, "kube-node-lease")


def test_a_node_that_was_never_there_is_none_and_cannot_be_written(place: Place) -> None:
    """No Node object: None, not an error; a write to it is NotFound."""
    with place.cluster(place.admin, "nobody") as cluster:
        assert cluster.node() is None
        with pytest.raises(NotFound):
            cluster.patch_node(NodePatch(unschedulable=True), "1")
