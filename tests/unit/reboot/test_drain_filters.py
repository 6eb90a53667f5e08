"""kubectl's drain filters: which pods go, which stay, and which the policy refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.schema import Drain, WaitFor
from agent.config.selector import parse as selector
from agent.errors import KubeError
from agent.reboot.drain.filters import (
    Controller,
    DrainAction,
    Pod,
    decide_pod,
    depends_on_daemonset,
    describe_termination,
    pod_of,
    requested_grace,
)
from agent.reboot.drain.pdb import Budget, Budgets, budget_of, misconfigured
from agent.text import format_rfc3339, parse_rfc3339

NOW = parse_rfc3339("2030-01-31T22:00:00Z")
DEPLOYED = Pod("shop", "web-1", "u1", controller=Controller("ReplicaSet", "web", "r1"))
DAEMON = Pod("shop", "agent-1", "u2", controller=Controller("DaemonSet", "agent", "d1"))
ALONE = Pod("shop", "debug", "u3")


def action(
    pod: Pod, policy: Drain | None = None, *, there: bool = True, late: bool = False, seconds: float = 0.0
) -> DrainAction:
    return decide_pod(pod, policy or Drain(), daemonset_exists=there, terminating_seconds=seconds, is_late=late).action


def test_what_a_controller_makes_anew_goes() -> None:
    """The plain case."""
    assert action(DEPLOYED) is DrainAction.EVICT


def test_a_daemonsets_pod_stays_while_its_daemonset_is_there() -> None:
    """It would come again at once. Finished, or orphaned and forced, it goes; orphaned without force it is refused."""
    assert action(DAEMON) is DrainAction.KEEP
    assert action(replace(DAEMON, finished=True)) is DrainAction.EVICT
    assert action(DAEMON, there=False) is DrainAction.EVICT
    assert action(DAEMON, Drain(force=False), there=False) is DrainAction.REFUSE


def test_a_static_pod_stays() -> None:
    """It belongs to the kubelet: deleting its mirror does nothing."""
    assert action(replace(ALONE, mirror=True), Drain(force=False)) is DrainAction.KEEP


def test_data_on_the_node_needs_consent_unless_the_pod_has_finished() -> None:
    """`deleteEmptyDirData` is that consent."""
    scratch = replace(DEPLOYED, empty_dir=True)
    assert action(scratch) is DrainAction.EVICT
    assert action(scratch, Drain(delete_empty_dir_data=False)) is DrainAction.REFUSE
    assert action(replace(scratch, finished=True), Drain(delete_empty_dir_data=False)) is DrainAction.EVICT


def test_a_pod_that_nothing_makes_anew_needs_force_unless_it_has_finished() -> None:
    """`force` says that it may be lost."""
    assert action(ALONE) is DrainAction.EVICT
    assert action(ALONE, Drain(force=False)) is DrainAction.REFUSE
    assert action(replace(ALONE, finished=True), Drain(force=False)) is DrainAction.EVICT


def test_what_terminates_for_long_is_not_waited_for() -> None:
    """Only where a limit is given, and by the drain's own clock: the pod's times are the server's, or unreadable."""
    policy = Drain(skip_wait_for_delete_timeout=60)
    for since in (NOW, NOW - 1e6, NOW + 1e6, math.inf):
        stuck = replace(DEPLOYED, terminating_since=since)
        assert action(stuck, seconds=61) is DrainAction.EVICT
        assert action(stuck, policy, seconds=61) is DrainAction.KEEP
        assert action(stuck, policy, seconds=59) is DrainAction.EVICT
    assert action(DEPLOYED, policy, seconds=61) is DrainAction.EVICT


def test_a_pod_that_arrives_in_spite_of_the_cordon_stays_if_it_tolerates_it() -> None:
    """Evicting it would only bring the next one; what was there before goes as kubectl does it."""
    stubborn = replace(DEPLOYED, tolerates_cordon=True)
    assert action(stubborn) is DrainAction.EVICT
    assert action(stubborn, late=True) is DrainAction.KEEP
    assert action(DEPLOYED, late=True) is DrainAction.EVICT


pods = st.builds(
    Pod,
    namespace=st.just("shop"),
    name=st.just("web"),
    uid=st.just("u"),
    finished=st.booleans(),
    terminating_since=st.none() | st.just(NOW),
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


@given(pods, policies, st.booleans(), st.floats(0, 1000))
def test_the_filters_are_kubectls_in_kubectls_order(pod: Pod, policy: Drain, there: bool, seconds: float) -> None:
    """The table from kubectl's source, written down a second time."""
    old = pod.terminating_since is not None and seconds > 500
    live_daemon = pod.controller is not None and pod.controller.kind == "DaemonSet" and not pod.finished
    rows = [
        (policy.skip_wait_for_delete_timeout > 0 and old, DrainAction.KEEP),
        (live_daemon and there, DrainAction.KEEP),
        (live_daemon and not policy.force, DrainAction.REFUSE),
        (pod.mirror, DrainAction.KEEP),
        (pod.finished, DrainAction.EVICT),
        (pod.empty_dir and not policy.delete_empty_dir_data, DrainAction.REFUSE),
        (pod.controller is None and not policy.force, DrainAction.REFUSE),
        (True, DrainAction.EVICT),
    ]
    assert action(pod, policy, there=there, seconds=seconds) is next(row for holds, row in rows if holds)
    assert depends_on_daemonset(pod) is live_daemon


def obj(**meta: Any) -> dict[str, Any]:
    return {"metadata": {"namespace": "shop", "name": "web-1", "uid": "u1", **meta}, "spec": {}, "status": {}}


def test_a_pod_is_read_from_its_object() -> None:
    """Everything that decides its fate, and nothing that is merely missing makes it fail."""
    found = obj(
        labels={"app": "web"},
        deletionTimestamp=format_rfc3339(NOW),
        deletionGracePeriodSeconds=30,
        finalizers=["example.com/hold"],
        annotations={"kubernetes.io/config.mirror": "x"},
        ownerReferences=[
            {"kind": "Node", "name": "n", "uid": "n1"},
            {"kind": "ReplicaSet", "name": "web", "uid": "r1", "controller": True},
        ],
    )
    found["spec"] = {"volumes": [{"name": "a", "configMap": {}}, {"name": "b", "emptyDir": {}}]}
    found["status"] = {"phase": "Succeeded"}
    assert pod_of(found, Drain()) == Pod(
        "shop",
        "web-1",
        "u1",
        {"app": "web"},
        finished=True,
        terminating_since=NOW - 30,
        grace_seconds=30.0,
        finalizers=("example.com/hold",),
        mirror=True,
        empty_dir=True,
        controller=Controller("ReplicaSet", "web", "r1"),
    )
    assert pod_of(obj(), Drain()) == Pod("shop", "web-1", "u1")
    assert pod_of(obj(deletionTimestamp="soon"), Drain()).terminating_since == math.inf


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
    assert pod_of(found, Drain()).tolerates_cordon is expected


def test_a_grace_period_is_asked_for_in_whole_seconds() -> None:
    """Rounded up: never less time than was promised."""
    assert requested_grace(Drain()) is None
    assert requested_grace(Drain(grace_period=0.0)) == 0
    assert requested_grace(Drain(grace_period=1.5)) == 2


def budget(**meta: Any) -> Budget:
    return budget_of({"metadata": {"namespace": "shop", "name": "web", **meta}, "spec": {"selector": {}}})


class ListsBudgets:
    """An API server with these budgets."""

    def __init__(self, *found: dict[str, Any]) -> None:
        self._found = found

    def within(self, _seconds: float) -> ListsBudgets:
        return self

    def list(self, _resource: object, _namespace: str) -> tuple[dict[str, Any], ...]:
        return self._found


@pytest.mark.parametrize("selector", [[], {"matchExpressions": [{"key": "app", "operator": "Like"}]}])
def test_a_budget_whose_selector_cannot_be_read_is_an_error(selector: object) -> None:
    """Whether it covers a pod is unknown, so that no preflight says that the pod goes."""
    meta = {"namespace": "shop", "name": "web"}
    kube: Any = ListsBudgets({"metadata": meta, "spec": {"selector": selector}})
    with pytest.raises(KubeError, match="the selector of shop/web cannot be read"):
        Budgets(kube).covering(Pod("shop", "p", "u"))
    kube = ListsBudgets({"metadata": meta, "spec": {}})
    assert Budgets(kube).covering(Pod("shop", "p", "u")) == ()


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
        "shop/web-1 matches more than one disruption budget, so it cannot be evicted: shop/web (app x), shop/all"
    )


def test_a_terminating_pod_names_what_holds_it() -> None:
    """Since when its deletion was requested, and the finalizers that somebody has to act on."""
    pod = replace(DEPLOYED, terminating_since=NOW)
    assert describe_termination(pod) == "Terminating since 2030-01-31T22:00:00Z"
    held = replace(pod, finalizers=("a.io/x", "b.io/y"))
    assert describe_termination(held) == "Terminating since 2030-01-31T22:00:00Z, finalizers a.io/x, b.io/y"
    assert describe_termination(replace(held, terminating_since=math.inf)) == "Terminating, finalizers a.io/x, b.io/y"


@pytest.mark.parametrize(
    ("spec", "labels", "expected"),
    [
        ({}, {}, False),
        ({"priority": 1_000_000}, {}, False),
        ({"priority": 2_000_000_000}, {}, True),
        ({"priority": 2_000_001_000}, {}, True),
        ({}, {"app": "rook-ceph-osd"}, True),
        ({}, {"app": "web"}, False),
    ],
)
def test_critical_and_storage_pods_are_evicted_last(
    spec: dict[str, Any], labels: dict[str, str], expected: bool
) -> None:
    """By the priority that the kubelet's graceful shutdown goes by, or by label."""
    assert pod_of({**obj(labels=labels), "spec": spec}, Drain()).evict_last is expected


def test_pods_that_must_finish_are_known_by_label_or_annotation() -> None:
    """What the autoscalers' do-not-disrupt annotations say is up to the policy."""
    policy = Drain(wait_for=WaitFor(pods=(selector("job"),), annotations={"karpenter.sh/do-not-disrupt": "true"}))
    assert pod_of(obj(labels={"job": "x"}), policy).must_finish == "label selector job"
    marked = obj(annotations={"karpenter.sh/do-not-disrupt": "true"})
    assert pod_of(marked, policy).must_finish == "annotation karpenter.sh/do-not-disrupt"
    assert pod_of(obj(annotations={"karpenter.sh/do-not-disrupt": "false"}), policy).must_finish == ""
    assert pod_of(marked, Drain()).must_finish == ""


def test_a_pods_claims_are_named_as_kubernetes_does() -> None:
    """A generic ephemeral volume's claim is called POD-VOLUME."""
    volumes = [{"name": "a", "persistentVolumeClaim": {"claimName": "data"}}, {"name": "b", "ephemeral": {}}]
    assert pod_of({**obj(), "spec": {"volumes": volumes}}, Drain()).claims == ("data", "web-1-b")
