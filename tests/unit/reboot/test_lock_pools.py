"""Pools, the names of their leases, and the unavailability budget."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.schema import Pool, Reboot
from agent.reboot.cluster import NodeView
from agent.reboot.lock.pools import (
    CONTROL_PLANE,
    WORKERS,
    allowed_unavailable,
    budget,
    lease_names,
    pool_of,
    usable_slots,
)

VALUES = st.from_regex(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?", fullmatch=True)


def _member(name: str, *, ready: bool | None = True, cordoned: bool = False, pool: str = "") -> NodeView:
    labels = {"pool": pool} if pool else {}
    return NodeView(name, f"uid-{name}", "1", unschedulable=cordoned, ready=ready, labels=labels)


@pytest.mark.parametrize("label", [f"node-role.kubernetes.io/{role}" for role in ("control-plane", "master", "etcd")])
def test_the_control_plane_is_always_its_own_pool(label: str) -> None:
    """Also where a pool label says otherwise."""
    assert pool_of({label: "", "pool": "gpu"}, Pool(label="pool")) == "control-plane"


def test_without_a_label_all_workers_are_one_pool() -> None:
    """And so are those that do not carry the configured one."""
    assert pool_of({"pool": "gpu"}, Pool()) == "workers"
    assert pool_of({}, Pool(label="pool")) == "workers"
    assert pool_of({"pool": "gpu"}, Pool(label="pool")) == "gpu"


def test_a_worker_cannot_name_itself_into_the_control_plane() -> None:
    """A label's value of that name is a pool of its own."""
    assert pool_of({"pool": "control-plane"}, Pool(label="pool")) != "control-plane"


@given(VALUES, VALUES)
def test_values_that_differ_never_share_a_lock_and_fit_into_a_name(one: str, other: str) -> None:
    """Case and characters that a Lease's name cannot hold do not make two pools one."""
    first, second = (pool_of({"pool": value}, Pool(label="pool")) for value in (one, other))
    assert (first == second) == (one == other)
    for name in lease_names(first, 2):
        assert re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", name)
        assert len(name) <= 253


def test_lease_names_are_predictable() -> None:
    """RBAC names them."""
    assert lease_names("workers", 2) == ("node-hardening-reboot-workers-0", "node-hardening-reboot-workers-1")


@pytest.mark.parametrize(
    ("limit", "size", "allowed"),
    [
        ("1", 10, 1),
        ("3", 2, 3),
        ("10%", 100, 10),
        ("10%", 15, 1),
        ("10%", 3, 1),
        ("50%", 5, 2),
        ("100%", 4, 4),
        ("10%", 0, 1),
    ],
)
def test_the_limit_is_a_count_or_a_share_rounded_down_but_at_least_one(limit: str, size: int, allowed: int) -> None:
    """A pool of three with 10 % may still be rebooted, one at a time."""
    assert allowed_unavailable(Reboot(max_unavailable=limit), WORKERS, size) == allowed


def test_slots_beyond_the_limit_are_not_used() -> None:
    """More nodes under the lock than may be unavailable would only wait for each other."""
    assert usable_slots(Reboot(concurrency=3, max_unavailable="2"), WORKERS) == 2
    assert usable_slots(Reboot(concurrency=3, max_unavailable="50%"), WORKERS) == 3


@pytest.mark.parametrize("limit", ["3", "100%"])
@pytest.mark.parametrize(("own", "size", "allowed"), [(1, 3, 1), (2, 3, 1), (2, 5, 2), (9, 7, 3), (1, 1, 1), (3, 2, 1)])
def test_a_control_plane_has_its_own_number_and_keeps_etcds_quorum(
    limit: str, own: int, size: int, allowed: int
) -> None:
    """Whatever suits the fleet: one at a time, or what its own key says, never half of etcd's members or more."""
    policy = Reboot(concurrency=5, max_unavailable=limit, pool=Pool(control_plane_max_unavailable=own))
    assert allowed_unavailable(policy, CONTROL_PLANE, size) == allowed
    assert usable_slots(policy, CONTROL_PLANE) == own


@given(
    states=st.lists(st.sampled_from(("fine", "not ready", "cordoned", "removed", "holder")), min_size=1, max_size=9),
    limit=st.sampled_from(("1", "3", "100%")),
    own=st.integers(1, 9),
)
def test_a_control_plane_never_loses_its_quorum(states: list[str], limit: str, own: int) -> None:
    """Whatever a fleet's numbers are: with its own number at 1 never two, and never half of it or more."""
    policy = Reboot(concurrency=9, max_unavailable=limit, pool=Pool(control_plane_max_unavailable=own))
    labels = {"node-role.kubernetes.io/control-plane": ""}
    members = [
        NodeView(f"cp-{number}", f"u{number}", "1", ready=state != "not ready", unschedulable=state == "cordoned",
                 labels=labels, removal="taint" if state == "removed" else "")
        for number, state in enumerate(states)
    ]  # fmt: skip
    holders = [f"{one.name}/{one.uid}" for one, state in zip(members, states, strict=True) if state == "holder"]
    down = sum(state != "fine" for state in states[1:])
    found = budget(members, "cp-0", policy, CONTROL_PLANE, holders)
    if found.fits and down:
        assert down + 1 <= own
        assert 2 * (down + 1) < len(states)


def test_not_ready_and_cordoned_nodes_of_the_pool_are_counted_itself_once() -> None:
    """Others' pools do not count, nor does this node's own state."""
    policy = Reboot(max_unavailable="2", pool=Pool(label="pool"))
    members = [
        _member("me", ready=False, cordoned=True, pool="a"),
        _member("down", ready=False, pool="a"),
        _member("fine", pool="a"),
        _member("elsewhere", ready=False, pool="b"),
        NodeView("cp", "u", "1", ready=False, unschedulable=True, labels={"node-role.kubernetes.io/control-plane": ""}),
    ]
    found = budget(members, "me", policy, "a", ())
    assert (found.fits, found.pool_size, found.slots) == (True, 3, 1)
    by_hand = [*members, _member("by-hand", cordoned=True, pool="a")]
    full = budget(by_hand, "me", policy, "a", ())
    assert not full.fits
    assert full.why == "maxUnavailable 2 of 4 nodes: by-hand, down unavailable"
    assert not budget([*members, _member("unknown", ready=None, pool="a")], "me", policy, "a", ()).fits


def test_a_holder_of_another_slot_counts_as_unavailable_unless_its_node_is_gone() -> None:
    """It is about to cordon itself; a Node that was deleted, or has another UID, is about nothing any more."""
    policy = Reboot(concurrency=2, max_unavailable="1")
    members = [_member("me"), _member("other")]
    assert not budget(members, "me", policy, "workers", ("other/uid-other",)).fits
    assert budget(members, "me", policy, "workers", ("other/an-older-uid", "gone/uid-gone", "")).fits
    assert budget(members, "me", policy, "workers", ("me/uid-me",)).fits


def test_many_unavailable_nodes_are_named_in_part() -> None:
    """The sentence stays readable."""
    members = [_member("me"), *(_member(f"n{number}", ready=False) for number in range(9))]
    why = budget(members, "me", Reboot(), "workers", ()).why
    assert why == "maxUnavailable 1 of 10 nodes: n0, n1, n2, n3, n4 and 4 more unavailable"
