"""kubectl's drain filters: which pods go, which stay, and which the policy refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.schema import Drain
from agent.reboot.drain.filters import Controller, Fate, Pod, asks_daemon, grace_seconds, judge, pod_of
from agent.reboot.drain.pdb import Budget, budget_of, misconfigured, selects
from agent.text import format_rfc3339, parse_rfc3339

NOW = parse_rfc3339("2030-01-31T22:00:00Z")
DEPLOYED = Pod("shop", "web-1", "u1", controller=Controller("ReplicaSet", "web", "r1"))
DAEMON = Pod("shop", "agent-1", "u2", controller=Controller("DaemonSet", "agent", "d1"))
ALONE = Pod("shop", "debug", "u3")


def fate(pod: Pod, policy: Drain | None = None, *, there: bool = True, late: bool = False) -> Fate:
    return judge(pod, policy or Drain(), NOW, daemon_is_there=there, is_late=late).fate


def test_what_a_controller_makes_anew_goes() -> None:
    """The plain case."""
    assert fate(DEPLOYED) is Fate.GO


def test_a_daemonsets_pod_stays_while_its_daemonset_is_there() -> None:
    """It would come again at once. Finished, or orphaned and forced, it goes; orphaned without force it is refused."""
    assert fate(DAEMON) is Fate.STAY
    assert fate(replace(DAEMON, finished=True)) is Fate.GO
    assert fate(DAEMON, there=False) is Fate.GO
    assert fate(DAEMON, Drain(force=False), there=False) is Fate.REFUSED


def test_a_static_pod_stays() -> None:
    """It belongs to the kubelet: deleting its mirror does nothing."""
    assert fate(replace(ALONE, mirror=True), Drain(force=False)) is Fate.STAY


def test_data_on_the_node_needs_consent_unless_the_pod_has_finished() -> None:
    """`deleteEmptyDirData` is that consent."""
    scratch = replace(DEPLOYED, empty_dir=True)
    assert fate(scratch) is Fate.GO
    assert fate(scratch, Drain(delete_empty_dir_data=False)) is Fate.REFUSED
    assert fate(replace(scratch, finished=True), Drain(delete_empty_dir_data=False)) is Fate.GO


def test_a_pod_that_nothing_makes_anew_needs_force_unless_it_has_finished() -> None:
    """`force` says that it may be lost."""
    assert fate(ALONE) is Fate.GO
    assert fate(ALONE, Drain(force=False)) is Fate.REFUSED
    assert fate(replace(ALONE, finished=True), Drain(force=False)) is Fate.GO


def test_what_terminates_for_long_is_not_waited_for() -> None:
    """Only where a limit is given: a pod on a dead volume may never end."""
    policy = Drain(skip_wait_for_delete_timeout=60)
    stuck = replace(DEPLOYED, terminating_since=NOW - 61)
    assert fate(stuck) is Fate.GO
    assert fate(stuck, policy) is Fate.STAY
    assert fate(replace(stuck, terminating_since=NOW - 59), policy) is Fate.GO
    assert fate(replace(stuck, terminating_since=math.inf), policy) is Fate.GO


def test_a_pod_that_arrives_in_spite_of_the_cordon_stays_if_it_tolerates_it() -> None:
    """Evicting it would only bring the next one; what was there before goes as kubectl does it."""
    stubborn = replace(DEPLOYED, tolerates_cordon=True)
    assert fate(stubborn) is Fate.GO
    assert fate(stubborn, late=True) is Fate.STAY
    assert fate(DEPLOYED, late=True) is Fate.GO


pods = st.builds(
    Pod,
    namespace=st.just("shop"),
    name=st.just("web"),
    uid=st.just("u"),
    finished=st.booleans(),
    terminating_since=st.none() | st.floats(NOW - 1000, NOW + 1000),
    mirror=st.booleans(),
    empty_dir=st.booleans(),
    controller=st.none() | st.builds(Controller, st.sampled_from(["DaemonSet", "Job"]), st.just("c"), st.just("c")),
)
policies = st.builds(
    Drain,
    force=st.booleans(),
    delete_empty_dir_data=st.booleans(),
    skip_wait_for_delete_timeout=st.sampled_from([0.0, 500.0]),
)


@given(pods, policies, st.booleans())
def test_the_filters_are_kubectls_in_kubectls_order(pod: Pod, policy: Drain, there: bool) -> None:
    """The table from kubectl's source, written down a second time."""
    old = pod.terminating_since is not None and NOW - pod.terminating_since > 500
    live_daemon = pod.controller is not None and pod.controller.kind == "DaemonSet" and not pod.finished
    rows = [
        (policy.skip_wait_for_delete_timeout > 0 and old, Fate.STAY),
        (live_daemon and there, Fate.STAY),
        (live_daemon and not policy.force, Fate.REFUSED),
        (pod.mirror, Fate.STAY),
        (pod.finished, Fate.GO),
        (pod.empty_dir and not policy.delete_empty_dir_data, Fate.REFUSED),
        (pod.controller is None and not policy.force, Fate.REFUSED),
        (True, Fate.GO),
    ]
    assert fate(pod, policy, there=there) is next(row for holds, row in rows if holds)
    assert asks_daemon(pod) is live_daemon


def obj(**meta: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "shop", "name": "web-1", "uid": "u1", **meta}, "spec": {}, "status": {}}


def test_a_pod_is_read_from_its_object() -> None:
    """Everything that decides its fate, and nothing that is merely missing makes it fail."""
    found = obj(
        labels={"app": "web"},
        deletionTimestamp=format_rfc3339(NOW),
        annotations={"kubernetes.io/config.mirror": "x"},
        ownerReferences=[
            {"kind": "Node", "name": "n", "uid": "n1"},
            {"kind": "ReplicaSet", "name": "web", "uid": "r1", "controller": True},
        ],
    )
    found["spec"] = {"volumes": [{"name": "a", "configMap": {}}, {"name": "b", "emptyDir": {}}]}
    found["status"] = {"phase": "Succeeded"}
    assert pod_of(found) == Pod(
        "shop",
        "web-1",
        "u1",
        {"app": "web"},
        finished=True,
        terminating_since=NOW,
        mirror=True,
        empty_dir=True,
        controller=Controller("ReplicaSet", "web", "r1"),
    )
    assert pod_of(obj()) == Pod("shop", "web-1", "u1")
    assert pod_of(obj(deletionTimestamp="soon")).terminating_since == math.inf


@pytest.mark.parametrize(
    ("toleration", "expected"),
    [
        ({"operator": "Exists"}, True),
        ({"operator": "Exists", "effect": "NoSchedule"}, True),
        ({"operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "node.kubernetes.io/unschedulable", "operator": "Exists"}, True),
        ({"key": "node.kubernetes.io/unschedulable"}, True),
        ({"key": "node.kubernetes.io/unschedulable", "value": "x"}, False),
        ({"key": "node.kubernetes.io/not-ready", "operator": "Exists"}, False),
        ({}, False),
    ],
)
def test_the_cordon_is_tolerated_as_the_scheduler_sees_it(toleration: dict[str, str], expected: bool) -> None:
    """The taint has no value and the effect NoSchedule."""
    found = obj()
    found["spec"] = {"tolerations": [toleration]}
    assert pod_of(found).tolerates_cordon is expected


def test_a_grace_period_is_asked_for_in_whole_seconds() -> None:
    """Rounded up: never less time than was promised."""
    assert grace_seconds(Drain()) is None
    assert grace_seconds(Drain(grace_period=0.0)) == 0
    assert grace_seconds(Drain(grace_period=1.5)) == 2


@pytest.mark.parametrize(
    ("selector", "labels", "expected"),
    [
        (None, {"app": "web"}, False),
        ({}, {}, True),
        ({"matchLabels": {"app": "web"}}, {"app": "web", "x": "y"}, True),
        ({"matchLabels": {"app": "web"}}, {"app": "db"}, False),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]}, {"app": "web"}, True),
        ({"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]}, {}, False),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}, {}, True),
        ({"matchExpressions": [{"key": "app", "operator": "Exists"}]}, {"app": ""}, True),
        ({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, {"app": ""}, False),
        ({"matchExpressions": [{"key": "app", "operator": "Like", "values": ["w"]}]}, {"app": "web"}, False),
    ],
)
def test_a_budgets_selector_matches_as_the_api_server_does_it(
    selector: dict[str, Any] | None, labels: dict[str, str], expected: bool
) -> None:
    """Both forms of a LabelSelector."""
    assert selects(selector, labels) is expected


def budget(**meta: Any) -> Budget:
    return budget_of({"metadata": {"namespace": "shop", "name": "web", **meta}, "spec": {"selector": {}}})


def test_a_budget_names_whom_to_ask() -> None:
    """Its controller before other owners, an owner before labels, the recommended labels before others."""
    owners = [{"kind": "Team", "name": "a"}, {"kind": "Kafka", "name": "orders", "controller": True}]
    assert str(budget(ownerReferences=owners, labels={"app": "x"})) == "shop/web (Kafka orders)"
    labels = {"app": "x", "app.kubernetes.io/instance": "shop-prod"}
    assert str(budget(labels=labels)) == "shop/web (app shop-prod)"
    assert str(budget(labels={"app": "x"})) == "shop/web (app x)"
    assert str(budget()) == "shop/web"


def test_two_budgets_on_a_pod_are_named_with_their_owners() -> None:
    """Somebody has to delete one of them, and has to know which they are."""
    line = misconfigured(DEPLOYED, (budget(labels={"app": "x"}), Budget("shop", "all")))
    assert line == (
        "shop/web-1 is under more than one disruption budget, which no eviction passes: shop/web (app x), shop/all"
    )
