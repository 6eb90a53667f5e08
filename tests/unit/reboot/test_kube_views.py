"""Node and Lease as they come from the API server: read without guessing, written without touching what is others'."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.annotations import FIELD_MANAGER
from agent.model import Condition
from agent.reboot.cluster import LeasePhase, LeaseView, NodePatch
from agent.reboot.kube import views
from agent.reboot.kube.views import lease_body, lease_view, node_patch, node_view, without_nulls

KEYS = (
    "metadata", "spec", "status", "name", "uid", "resourceVersion", "annotations", "labels", "managedFields",
    "fieldsV1", "f:spec", "f:unschedulable", "manager", "unschedulable", "taints", "conditions", "type", "nodeInfo",
    "holderIdentity", "leaseTransitions", "renewTime", "node-hardening.io/pool-size", "node-hardening.io/last-reboot",
)  # fmt: skip
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=6) | st.sampled_from(["Ready", "True", "²", "1e9"]),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.sampled_from(KEYS), part, max_size=4),
    max_leaves=25,
)
OBJECTS = st.dictionaries(st.sampled_from(KEYS[:3]), st.dictionaries(st.sampled_from(KEYS), JSON, max_size=6))


@given(OBJECTS)
def test_an_object_of_any_shape_is_read(found: dict[str, Any]) -> None:
    """What is missing or of another type is empty or unknown: one odd object must not stop a pool."""
    assert isinstance(node_view(found).unschedulable, bool)
    assert node_view(found).ready in (True, False, None)
    assert lease_view(found).transitions is not True


NOTES = ("phase", "cycle", "boot-id", "last-reboot", "taken-from", "pool-size", "waited-seconds", "stuck")
FORGED_TEXTS = st.sampled_from([
    "9999-12-31T23:59:59-23:59", "0001-01-01T00:00:00+23:59", "1969-12-31T23:59:59Z", "2100-01-01T00:00:00Z", "9" * 15,
    "9" * 5000, "-1", "1e999", "\x1b[31m", "../../nodes", "n\u202eode/uid", "x" * 5000, "\ud800", "²", "rebooting",
]) | st.text(max_size=20)  # fmt: skip
FORGED_NUMBERS = st.sampled_from([2**31 - 1, 2**31, -1, 10**30, True, 1.5, float("inf")]) | st.integers() | FORGED_TEXTS
FORGED_LEASES = st.fixed_dictionaries({
    "metadata": st.fixed_dictionaries({
        "name": FORGED_TEXTS,
        "resourceVersion": FORGED_TEXTS,
        "annotations": st.dictionaries(st.sampled_from([f"node-hardening.io/{note}" for note in NOTES]), FORGED_TEXTS),
    }),
    "spec": st.fixed_dictionaries({
        "holderIdentity": FORGED_TEXTS, "acquireTime": FORGED_TEXTS, "renewTime": FORGED_TEXTS,
        "leaseDurationSeconds": FORGED_NUMBERS, "leaseTransitions": FORGED_NUMBERS,
    }),
})  # fmt: skip


@given(FORGED_LEASES)
def test_a_forged_lease_has_values_in_their_ranges_and_can_be_taken(found: dict[str, Any]) -> None:
    """Whatever it holds: what the next taker writes is short and within what the API server accepts."""
    seen = lease_view(found)
    assert 0 <= seen.transitions + 1 <= 2**31 - 1
    assert 0 <= seen.duration_seconds <= views._LONGEST_LEASE_SECONDS
    assert 0 <= seen.last_reboot < views._LATEST_SECONDS
    assert all(text.isprintable() for text in (seen.holder, seen.cycle, seen.boot, seen.taken_from, seen.stuck))
    assert lease_view(without_nulls(lease_body(seen, "ns"))).last_reboot == pytest.approx(seen.last_reboot)
    assert len(json.dumps(without_nulls(lease_body(replace(seen, name="", version=""), "ns")))) < 16 << 10


def test_a_nodes_readiness_is_known_only_from_its_condition() -> None:
    """Unknown, and no condition at all, are not False."""
    ready = [{"type": "MemoryPressure", "status": "False"}, {"type": "Ready", "status": "True"}]
    assert node_view({"status": {"conditions": ready}}).ready is True
    assert node_view({"status": {"conditions": [{"type": "Ready", "status": "False"}]}}).ready is False
    assert node_view({"status": {"conditions": [{"type": "Ready", "status": "Unknown"}]}}).ready is None
    assert node_view({}).ready is None


def test_the_cordons_owner_is_the_manager_of_the_field() -> None:
    """Of the object itself, not of a subresource; without the server's book nobody."""
    fields: dict[str, Any] = {"f:spec": {"f:unschedulable": {}}}
    entries = [
        {"manager": "kubelet", "operation": "Update", "subresource": "status", "fieldsV1": fields},
        {"manager": "kubectl-label", "operation": "Update", "fieldsV1": {"f:metadata": {"f:labels": {}}}},
        {"manager": FIELD_MANAGER, "operation": "Update", "fieldsV1": fields},
    ]
    assert node_view({"metadata": {"managedFields": entries}}).unschedulable_by == FIELD_MANAGER
    assert node_view({"metadata": {"managedFields": entries[:2]}}).unschedulable_by == ""
    assert node_view({}).unschedulable_by == ""


def test_a_patch_holds_for_one_version_and_names_only_what_changes() -> None:
    """A cordon is lifted by removing the field, as kubectl does."""
    assert node_patch(NodePatch(), "7", {}, 0.0) == {"metadata": {"resourceVersion": "7"}}
    assert node_patch(NodePatch({"a": None}, {"b": "1"}, unschedulable=True), "7", {}, 0.0) == {
        "metadata": {"resourceVersion": "7", "annotations": {"a": None}, "labels": {"b": "1"}},
        "spec": {"unschedulable": True},
    }
    assert node_patch(NodePatch(unschedulable=False, taints=()), "7", {}, 0.0)["spec"] == {
        "unschedulable": None,
        "taints": [],
    }


def test_a_condition_goes_with_the_annotations_and_keeps_its_transition_time() -> None:
    """In a patch of the status; next to a change of the spec it is left to the publisher."""
    ours = Condition("RebootRequired", "True", "Draining", "draining")
    since = {"type": "RebootRequired", "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z"}
    found = {"status": {"conditions": ["forged", {"type": "Ready"}, since]}}
    body = node_patch(NodePatch({"a": "1"}, condition=ours), "7", found, 1.0)
    assert body == {
        "metadata": {"resourceVersion": "7", "annotations": {"a": "1"}},
        "status": {
            "conditions": [
                {
                    "type": "RebootRequired",
                    "status": "True",
                    "reason": "Draining",
                    "message": "draining",
                    "lastHeartbeatTime": "1970-01-01T00:00:01Z",
                    "lastTransitionTime": "2026-01-02T03:04:05Z",
                }
            ]
        },
    }
    assert "status" not in node_patch(NodePatch({"a": "1"}, unschedulable=True, condition=ours), "7", found, 1.0)


LEASES = st.builds(
    LeaseView,
    name=st.just("lease"),
    version=st.sampled_from(["", "12"]),
    holder=st.just("n0/u0"),
    phase=st.sampled_from([LeasePhase.HELD, LeasePhase.REBOOTING]),
    renewed=st.sampled_from(["", "2026-01-02T03:04:05.000000Z"]),
    duration_seconds=st.integers(0, 3600),
    transitions=st.integers(0, 10**6),
    cycle=st.text("abc", max_size=4),
    boot=st.text("abc", max_size=4),
    taken_from=st.text("abc", max_size=4),
    last_reboot=st.integers(0, 4 * 10**9).map(float),
    pool_size=st.integers(0, 5000),
    waited=st.integers(0, 10**7).map(float),
    stuck=st.text("abc", max_size=4),
)


@given(LEASES)
def test_a_lease_is_read_back_as_written(lease: LeaseView) -> None:
    """Through the body that is sent, nulls taken out as the server does it."""
    assert lease_view(without_nulls(lease_body(lease, "ns"))) == lease


def test_a_phase_that_nobody_here_writes_counts_as_rebooting() -> None:
    """A newer agent's: never taken over for its silence."""
    found = {"metadata": {"annotations": {"node-hardening.io/phase": "draining"}}, "spec": {"holderIdentity": "n/u"}}
    assert lease_view(found).phase is LeasePhase.REBOOTING


def test_a_holder_without_a_phase_only_holds() -> None:
    """Somebody took the lease by hand."""
    assert lease_view({"spec": {"holderIdentity": "a person"}}).phase is LeasePhase.HELD


@pytest.mark.parametrize("text", ["", "soon", "2026-01-02", "2026-01-02T03:04:05", "-1", "1e400"])
def test_a_time_without_a_zone_is_no_time(text: str) -> None:
    """A gap is never measured from a guess."""
    assert lease_view({"metadata": {"annotations": {"node-hardening.io/last-reboot": text}}}).last_reboot == 0.0
