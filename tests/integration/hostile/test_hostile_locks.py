"""Whatever admission lets a stolen token write into a lock, it lets the agents of other nodes write over it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass

import pytest

from agent.daemon.reboot_thread import SystemClock
from agent.reboot.kube.cluster import KubeCluster
from agent.reboot.kube.informer import ObjectCache
from agent.reboot.lock.lease import Lock
from agent.reboot.machine.decisions import Acquire
from agent.reboot.machine.inputs import Slot
from agent.reboot.state import Now
from tests.integration.hostile.test_hostile_writes import Object, Stolen, lock, stolen
from tests.support import agents
from tests.support.agents import NAMESPACE
from tests.support.apiservers import ApiServer, Client
from tests.support.bundled_profiles import client_with
from tests.support.sites import LEASES

__all__ = ["lock", "stolen"]  # fixtures
MOMENT = Now("boot", 0.0, 1_795_000_000.0)
FIRST, LAST = "1970-01-01T00:00:00.000000Z", "2099-12-31T23:59:59.999999Z"

# Beside the stolen token's own holder: spec and annotations.
POISONED: dict[str, tuple[Object, Object]] = {
    "nothing": ({}, {}),
    "the most transitions": ({"leaseTransitions": 2**31 - 2}, {}),
    "the longest duration": ({"leaseDurationSeconds": 604_800}, {}),
    "the last time": ({"acquireTime": LAST, "renewTime": LAST}, {"last-reboot": LAST}),
    "the first time": ({"acquireTime": FIRST, "renewTime": FIRST}, {"last-reboot": "0001-01-01T00:00:00Z"}),
    "a time that is none": ({"acquireTime": LAST}, {"last-reboot": "9999-12-31T23:59:59-23:59"}),
    "numbers that are none": ({}, {"pool-size": "9" * 399, "waited-seconds": "-1"}),
    "texts that are none": ({}, {"phase": "other", "stuck": "\x1b[2J\n", "cycle": "\u202e" * 399, "boot-id": " x  x "}),
    "a long holder": ({"holderIdentity": "x" * 200}, {"taken-from": "y" * 399}),
}


@dataclass
class Other:
    """The agent of node B: what it sees of the lock, with its own token."""

    lock: Lock
    name: str
    identity: str

    def slot(self) -> Slot:
        (slot,) = self.lock.observe([self.name], self.identity, indexed=1, follow=False)
        return slot


@pytest.fixture
def other(stolen: Stolen, lock: str, api: ApiServer, client: Client) -> Iterator[Other]:
    kube = client_with(api, agents.token(client, stolen.b))
    nodes = ObjectCache(lambda: None, lambda found: found)
    cluster = KubeCluster(kube, node=stolen.b, nodes=nodes, namespace=NAMESPACE, wake=lambda: None)
    with closing(kube), closing(cluster):
        yield Other(Lock(cluster, SystemClock(), 60.0), lock, f"{stolen.b}/uid")


@pytest.mark.parametrize(("spec", "notes"), POISONED.values(), ids=POISONED)
def test_a_poisoned_lock_is_marked_and_taken_over(
    stolen: Stolen, other: Other, lock: str, spec: Object, notes: Object
) -> None:
    holder = f"{stolen.a}/{spec.get('holderIdentity', 'uid')}"
    assert stolen.lock(lock, {**spec, "holderIdentity": holder}, notes).ok
    other.lock.mark_stuck(other.slot(), stolen.b)
    assert other.slot().view.stuck == stolen.b
    other.lock.acquire(Acquire(other.slot(), "c", waited=1.0, pool_size=3), other.identity, MOMENT)
    other.lock.renew(other.slot(), MOMENT)
    other.lock.fence(other.slot(), MOMENT)
    assert other.slot().view.holder == other.identity
    other.lock.release(other.slot(), MOMENT, rebooted=True)
    found = stolen.admin.get(f"{LEASES}/{lock}").json()
    assert "holderIdentity" not in found["spec"]
    assert found["spec"]["leaseTransitions"] < 2**31 - 2


@pytest.mark.parametrize(("spec", "notes"), POISONED.values(), ids=POISONED)
def test_a_poisoned_lock_that_was_released_is_taken(
    stolen: Stolen, other: Other, lock: str, spec: Object, notes: Object
) -> None:
    assert stolen.lock(lock, {**spec, "holderIdentity": None}, notes).ok
    assert other.slot().free
    other.lock.acquire(Acquire(other.slot(), "c", waited=1.0, pool_size=3), other.identity, MOMENT)
    assert other.slot().view.holder == other.identity


@pytest.mark.parametrize("field", ["acquireTime", "renewTime"])
def test_the_zero_time_is_refused(stolen: Stolen, lock: str, field: str) -> None:
    """Go's time that is none: a policy sees null, and cannot compare with it. Stored, nobody could mark the lock."""
    assert stolen.lock(lock, {field: "0001-01-01T00:00:00.000000Z"}).status_code in (403, 422)
