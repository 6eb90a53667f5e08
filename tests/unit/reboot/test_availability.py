"""Which nodes count in a pool, and which count as gone."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.schema import Reboot
from agent.reboot.availability import removal_reason, runs_agent
from agent.reboot.kube.views import node_view
from agent.reboot.lock.pools import budget

REMOVALS = [
    "ToBeDeletedByClusterAutoscaler",
    "karpenter.sh/disrupted",
    "karpenter.sh/disruption",
    "node.cloudprovider.kubernetes.io/shutdown",
    "node.kubernetes.io/out-of-service",
]
READY = {"conditions": [{"type": "Ready", "status": "True"}]}
NOT_READY = {"conditions": [{"type": "Ready", "status": "False"}]}


def node(
    name: str, *taints: str, status: Any = None, labels: dict[str, str] | None = None, **meta: Any
) -> dict[str, Any]:
    spec = {"taints": [{"key": key, "effect": "NoSchedule"} for key in taints]}
    return {
        "metadata": {"name": name, "uid": f"u-{name}", "labels": labels or {}, **meta},
        "spec": spec,
        "status": READY if status is None else status,
    }


def fits(*others: dict[str, Any]) -> bool:
    return budget(map(node_view, (node("me"), *others)), "me", Reboot(), "workers", ()).fits


@pytest.mark.parametrize("key", REMOVALS)
def test_a_node_that_is_being_removed_counts_as_unavailable(key: str) -> None:
    """Although it is Ready and schedulable: another one down beside it is one too many."""
    assert fits(node("other"))
    assert not fits(node("other", key))
    assert node_view(node("me", key)).removal == f"taint {key}"


def test_a_node_object_that_is_being_deleted_counts_as_unavailable() -> None:
    """Karpenter holds it with a finalizer meanwhile."""
    assert not fits(node("other", deletionTimestamp="2030-01-01T00:00:00Z"))


def test_a_mere_candidate_for_removal_is_still_there() -> None:
    """cluster-autoscaler changes its mind about these."""
    assert fits(node("other", "DeletionCandidateOfClusterAutoscaler", "example.com/other"))


@pytest.mark.parametrize(
    "other",
    [
        node("w", status=NOT_READY, labels={"kubernetes.io/os": "windows"}),
        node("w", status=NOT_READY, labels={"beta.kubernetes.io/os": "windows"}),
        node("w", status={**NOT_READY, "nodeInfo": {"operatingSystem": "windows"}}),
        node("v", status=NOT_READY, labels={"type": "virtual-kubelet"}),
        node("v", "virtual-kubelet.io/provider", status=NOT_READY),
        node("f", status=NOT_READY, labels={"eks.amazonaws.com/compute-type": "fargate"}),
    ],
)
def test_nodes_that_cannot_run_the_agent_are_in_no_pool(other: dict[str, Any]) -> None:
    """Down or not, they neither hold it up nor make it bigger."""
    assert fits(other)
    assert budget(map(node_view, (node("me"), other)), "me", Reboot(), "workers", ()).pool_size == 1
    linux = node(
        "l", status={**NOT_READY, "nodeInfo": {"operatingSystem": "linux"}}, labels={"kubernetes.io/os": "linux"}
    )
    assert not fits(linux)


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["key", "labels", "taints"]), inner),
    max_leaves=8,
)


@given(st.fixed_dictionaries({}, optional=dict.fromkeys(("metadata", "spec", "status"), anything)))
def test_a_node_of_any_shape_is_judged(found: dict[str, Any]) -> None:
    """A compromised node writes what it likes on its own object."""
    assert isinstance(removal_reason(found), str)
    assert isinstance(runs_agent(found), bool)
