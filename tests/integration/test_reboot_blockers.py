"""The blockers that ask the API server, with the rights that the agent is shipped with and with fewer."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.config.choices import Kured
from agent.config.schema import Blackout, Blockers, Lock, Prometheus, Reboot, Window
from agent.config.selector import parse as selector
from agent.kube import CONFIGMAPS, DAEMONSETS, NODES, PODS, Kube, Object
from agent.reboot.blockers import BLOCKERS, BlockerContext, make_blockers
from agent.reboot.blockers.kured import GONE_SECONDS, KuredBlocker
from agent.reboot.blockers.pause import PAUSE, PauseBlocker
from agent.reboot.blockers.pods import PodBlocker
from agent.reboot.interfaces import BlockerResult
from agent.reboot.sentinel import make_sentinel
from agent.text import format_rfc3339
from tests.support.apiservers import ApiServer, Client
from tests.support.bundled_profiles import agents_token, client_with, token_with
from tests.support.kube import client_of, kube_client
from tests.support.rooms import Clocks, node_tree

KURED = "weave.works/kured-node-lock"


@pytest.fixture
def admin(api: ApiServer) -> Iterator[Kube]:
    made = client_of(api)
    yield made
    made.close()


@pytest.fixture
def kube(api: ApiServer, client: Client, namespace: str) -> Iterator[Kube]:
    """With the agent's own rights."""
    made = client_with(api, agents_token(client, namespace))
    yield made
    made.close()


@pytest.fixture
def poor(api: ApiServer, client: Client, namespace: str) -> Iterator[Kube]:
    """With no rights at all."""
    made = client_with(api, token_with(client, namespace, "poor", [], []))
    yield made
    made.close()


@pytest.fixture
def away() -> Iterator[Kube]:
    """Where nobody listens."""
    made = kube_client("http://127.0.0.1:1", "", attempts=1)
    yield made
    made.close()


# -- the cluster's pause -----------------------------------------------------------------------------------------------


def test_the_pause_is_seen_as_it_comes_ends_and_goes(admin: Kube, kube: Kube, namespace: str) -> None:
    """One ConfigMap, made by hand or by the plugin."""
    clock = Clocks()
    blocker = PauseBlocker(kube, namespace, clock)
    assert blocker.check() == BlockerResult(blocked=False)
    data = {"until": format_rfc3339(clock.epoch + 100), "reason": "release week", "by": "alice"}
    admin.create(CONFIGMAPS, {"metadata": {"name": PAUSE}, "data": data}, namespace)
    assert blocker.check().by == f"the cluster's pause by alice until {data['until']}: release week"
    clock.sleep(100)
    assert blocker.check() == BlockerResult(blocked=False)
    admin.patch(CONFIGMAPS, PAUSE, {"data": {"until": ""}}, namespace)
    assert blocker.check().blocked is True
    admin.delete(CONFIGMAPS, PAUSE, namespace)
    assert blocker.check() == BlockerResult(blocked=False)


def test_a_pause_that_may_not_be_read_blocks(poor: Kube, namespace: str) -> None:
    """And says which right is missing."""
    verdict = PauseBlocker(poor, namespace, Clocks()).check()
    assert verdict.blocked is True
    assert verdict.by == (
        f"the cluster's pause is unknown: allow get of configmaps/node-hardening-pause in {namespace}"
    )


# -- kured's lock ------------------------------------------------------------------------------------------------------


def kureds(namespace: str, lock: object = None) -> Object:
    """kured's DaemonSet, perhaps with its lock held."""
    labels = {"name": "kured"}
    containers = [{"name": "kured", "image": "registry.invalid/kured:1"}]
    return {
        "apiVersion": "apps/v1",
        "kind": "DaemonSet",
        "metadata": {
            "name": "kured",
            "namespace": namespace,
            "annotations": {} if lock is None else {KURED: lock if isinstance(lock, str) else json.dumps(lock)},
        },
        "spec": {
            "selector": {"matchLabels": labels},
            "template": {"metadata": {"labels": labels}, "spec": {"containers": containers}},
        },
    }


@pytest.fixture
def make_kured(admin: Kube, namespace: str) -> Iterator[Callable[..., Object]]:
    """Makes kured's DaemonSet, perhaps with its lock held; other tests find it in any namespace, so it goes."""
    yield lambda lock=None: admin.create(DAEMONSETS, kureds(namespace, lock))
    admin.delete(DAEMONSETS, "kured", namespace)


def kured_blocker(kube: Kube, namespace: str) -> KuredBlocker:
    """It looks in every namespace, or in the one that it is given."""
    return KuredBlocker(Lock(kured_daemonset=f"{namespace}/kured" if namespace else ""), kube, "worker-1", Clocks())


def test_without_kured_nothing_blocks(kube: Kube, namespace: str) -> None:
    """Most clusters have none, or soon will not."""
    assert kured_blocker(kube, "").check() == BlockerResult(blocked=False)


def test_a_daemonset_that_the_policy_names_and_that_does_not_exist_blocks(kube: Kube, namespace: str) -> None:
    """A misspelled name is no missing kured."""
    verdict = kured_blocker(kube, namespace).check()
    assert verdict.blocked is True
    assert f"there is no DaemonSet {namespace}/kured: correct reboot.lock.kuredDaemonset" in verdict.by


def test_a_lock_of_a_node_that_is_gone_holds_nobody_up(
    admin: Kube, kube: Kube, namespace: str, make_kured: Callable[..., Object]
) -> None:
    """Once it has been gone for a while; kured itself would wait without an end. A holder that exists still counts."""
    gone = {"nodeID": f"{namespace}-gone", "created": "2026-01-01T00:00:00Z", "TTL": 0}
    make_kured(gone)
    clock = Clocks()
    blocker = KuredBlocker(Lock(), kube, "worker-1", clock)
    for _ in range(2):
        verdict = blocker.check()
        assert verdict.by == f"kured's lock, held by {namespace}-gone, whose Node does not exist; ignored after 30s"
        assert verdict.again_seconds == GONE_SECONDS
    admin.create(NODES, {"metadata": {"name": f"{namespace}-gone"}})  # it is registered again
    clock.sleep(GONE_SECONDS)
    assert blocker.check().by == f"kured's lock, held by {namespace}-gone"
    admin.delete(NODES, f"{namespace}-gone")
    assert blocker.check().blocked is True
    clock.sleep(GONE_SECONDS)
    assert blocker.check() == BlockerResult(blocked=False)
    later = {"maxOwners": 2, "locks": [gone, {**gone, "nodeID": f"{namespace}-later"}]}
    admin.patch(DAEMONSETS, "kured", {"metadata": {"annotations": {KURED: json.dumps(later)}}}, namespace)
    assert blocker.check().by.startswith(f"kured's lock, held by {namespace}-later, whose Node does not exist")
    clock.sleep(GONE_SECONDS)
    assert blocker.check() == BlockerResult(blocked=False)
    admin.create(NODES, {"metadata": {"name": f"{namespace}-there"}})
    both = {"maxOwners": 2, "locks": [gone, {**gone, "nodeID": f"{namespace}-there"}]}
    patch = {"metadata": {"annotations": {KURED: json.dumps(both)}}}
    admin.patch(DAEMONSETS, "kured", patch, namespace)
    assert blocker.check().by == f"kured's lock, held by {namespace}-there"
    admin.delete(NODES, f"{namespace}-there")


@pytest.mark.parametrize("where", ["", "named"])
def test_kureds_lock_is_respected_while_it_is_held(
    admin: Kube, kube: Kube, namespace: str, make_kured: Callable[..., Object], where: str
) -> None:
    """In both its forms, in any namespace or the named one, and free again when kured lets go."""
    admin.create(NODES, {"metadata": {"name": f"{namespace}-2"}})
    make_kured()
    blocker = kured_blocker(kube, where and namespace)
    assert blocker.check() == BlockerResult(blocked=False)
    held = {
        "nodeID": f"{namespace}-2",
        "metadata": {"unschedulable": False},
        "created": "2026-01-01T00:00:00Z",
        "TTL": 0,
    }
    for lock in (held, {"maxOwners": 2, "locks": [held]}):
        patch = {"metadata": {"annotations": {KURED: json.dumps(lock)}}}
        admin.patch(DAEMONSETS, "kured", patch, namespace)
        assert blocker.check().by == f"kured's lock, held by {namespace}-2"
    admin.patch(DAEMONSETS, "kured", {"metadata": {"annotations": {KURED: None}}}, namespace)
    assert blocker.check() == BlockerResult(blocked=False)
    admin.delete(NODES, f"{namespace}-2")


def test_a_kured_lock_that_is_not_understood_names_where_it_stands(
    kube: Kube, namespace: str, make_kured: Callable[..., Object]
) -> None:
    """Somebody has to look at it."""
    make_kured("held")
    assert kured_blocker(kube, namespace).check().by == (
        "kured's lock is not understood: 'held' is no JSON; "
        f"see the annotation {KURED} of daemonsets/kured in {namespace}"
    )


def test_a_kured_lock_that_may_not_be_read_blocks(poor: Kube, namespace: str) -> None:
    """A missing right is no missing kured."""
    verdict = kured_blocker(poor, "").check()
    assert verdict.blocked is True
    assert "allow list of daemonsets and get of nodes, or set reboot.lock.kured: off" in verdict.by


# -- pods --------------------------------------------------------------------------------------------------------------


def pod(name: str, node: str, **labels: str) -> Object:
    containers = [{"name": "main", "image": "registry.invalid/main:1"}]
    return {"metadata": {"name": name, "labels": labels}, "spec": {"nodeName": node, "containers": containers}}


def test_a_pod_that_is_not_to_be_disturbed_blocks_until_it_has_finished(
    admin: Kube, kube: Kube, namespace: str, node: str
) -> None:
    """Pending and running ones do; finished ones, other labels and other nodes do not."""
    blocker = PodBlocker((selector("job=none"), selector("job in (import,export),!small")), kube, node)
    admin.create(PODS, pod("elsewhere", f"{node}-b", job="import"), namespace)
    admin.create(PODS, pod("small", node, job="import", small="x"), namespace)
    assert blocker.check() == BlockerResult(blocked=False)
    admin.create(PODS, pod("big", node, job="export"), namespace)
    expected = f"pods with job in (import,export),!small: {namespace}/big"
    assert blocker.check() == BlockerResult(blocked=True, by=expected)
    for phase in ("Running", "Unknown"):
        admin.patch(PODS, "big", {"status": {"phase": phase}}, namespace, subresource="status")
        assert blocker.check().blocked is True
    for phase in ("Succeeded", "Failed"):
        admin.patch(PODS, "big", {"status": {"phase": phase}}, namespace, subresource="status")
        assert blocker.check() == BlockerResult(blocked=False)


def test_many_such_pods_are_not_all_named(admin: Kube, kube: Kube, namespace: str, node: str) -> None:
    """Nor all read."""
    for number in range(9):
        admin.create(PODS, pod(f"job-{number}", node, job="x"), namespace)
    verdict = PodBlocker((selector("job=x"),), kube, node).check()
    assert verdict.by.endswith(f"{namespace}/job-4 and more")
    assert "job-5" not in verdict.by


def test_pods_that_may_not_be_listed_block(poor: Kube, node: str) -> None:
    """Something critical may run there."""
    verdict = PodBlocker((selector("job=x"),), poor, node).check()
    assert verdict.blocked is True
    assert verdict.by.startswith("pods unknown: list pods: 403 Forbidden")


# -- all of them -------------------------------------------------------------------------------------------------------


def test_an_api_server_that_is_away_blocks_everything(away: Kube) -> None:
    """And each says that it could not be told."""
    some = (
        PauseBlocker(away, "ns", Clocks()),
        kured_blocker(away, "ns"),
        PodBlocker((selector("job=x"),), away, "worker-1"),
    )
    for blocker in some:
        verdict = blocker.check()
        assert verdict.blocked is True
        assert "unknown" in verdict.by
        assert "connection refused" in verdict.by


def test_the_policy_decides_which_blockers_there_are(away: Kube, tmp_path: Path) -> None:
    """In the registry's order; all but windows are asked again before the reboot; what needs a host only on one."""

    def names(policy: Reboot, *, on_node: bool = False) -> list[str]:
        host = node_tree(tmp_path / "root") if on_node else None
        sentinel = make_sentinel(policy.sentinel, host, Clocks()) if host else None
        made = make_blockers(BlockerContext(policy, away, "n", "ns", Clocks(), host, sentinel))
        assert [blocker.name for blocker in made if not blocker.late] == ["window"] * bool(
            policy.windows or policy.blackouts
        )
        return [blocker.name for blocker in made]

    assert names(Reboot()) == ["pause", "kured"]
    assert names(Reboot(lock=Lock(kured=Kured.OFF))) == ["pause"]
    assert names(Reboot(blackouts=(Blackout(start="12-24"),), lock=Lock(kured=Kured.OFF)))[0] == "window"
    everything = Reboot(
        windows=(Window(),),
        blockers=Blockers(prometheus=Prometheus(url="http://p:9090"), pods=(selector("a=b"),)),
    )
    assert names(everything, on_node=True) == [spec.name for spec in BLOCKERS]
    assert len({spec.name for spec in BLOCKERS}) == len(BLOCKERS)
