"""Reboots as they happen: agents as processes with daemonset.yaml's own rights, on machines that really go down.

On the emulator, and where a bare API server can carry it on a real kube-apiserver too, whose kubelets are the test's.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from agent.sandbox import builders
from tests.support.agents import NAMESPACE
from tests.support.hands import Hands
from tests.support.sites import CYCLE, LEASES, LOCK, Site, emulated, kured_lock, one_site, pod_on

PAUSE = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
MakeSite = Callable[..., Site]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeSite]:
    """Makes sites on emulators; several in one test run side by side."""
    with ExitStack() as stack:
        count = iter(range(9))

        def made(**reboot: Any) -> Site:
            return stack.enter_context(emulated(tmp_path / f"site{next(count)}", reboot))

        yield made


@pytest.fixture(params=["emulator", "real"])
def either(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[MakeSite]:
    """Makes one site, on an emulator and on a kube-apiserver of its own."""
    with one_site(request.param, tmp_path) as make:
        yield make


def _nodes(site: Site, count: int) -> list[str]:
    names = [f"node-{number}" for number in range(1, count + 1)]
    for name in names:
        site.add(name)
    return names


def _web(site: Site, replicas: int) -> None:
    """Pods under a budget that lets one go at a time."""
    if isinstance(site.surroundings, Hands):
        site.surroundings.add_web(replicas)
        return
    site.sandbox.create("deployments", builders.workload("Deployment", "web", replicas=replicas, grace_seconds=1))
    site.sandbox.create("poddisruptionbudgets", builders.budget("web", {"app": "web"}, max_unavailable=1))
    site.until(lambda: len(site.sandbox.list("pods")) == replicas, "the pods")


def _node_without_agent(site: Site, name: str) -> None:
    if isinstance(site.surroundings, Hands):
        site.surroundings.add_node(name)
    else:
        site.sandbox.add_node(name)


def _held(site: Site, node: str, *, owner: str = "payments") -> None:
    """A pod on the node that its budget never lets go."""
    site.sandbox.create("pods", pod_on(node, "held", labels={"app": "held"}))
    budget = builders.budget("never", {"app": "held"}, max_unavailable=0)
    budget["metadata"]["labels"] = {"app.kubernetes.io/instance": owner}
    site.sandbox.create("poddisruptionbudgets", budget)


def _assert_orderly(site: Site, *, most: int = 1) -> None:
    """Whatever happened: never two at once, no reboot without the lock, nothing left behind."""
    assert site.history.most_cordoned() <= most
    assert site.history.reboots_without_lock() == []
    assert site.holder() == ""
    for name in site.machines:
        assert not site.is_cordoned(name)


# -- the whole job -----------------------------------------------------------------------------------------------------


def test_three_nodes_go_down_one_after_another(either: MakeSite) -> None:
    """Three sentinels at once: one node at a time, all rebooted, uncordoned, lock free, Events in order."""
    site = either()
    names = _nodes(site, 3)
    _web(site, 4)
    site.start()
    site.require()
    site.until(site.all_rebooted, "three reboots")
    _assert_orderly(site)
    holders = site.history.holders()
    assert sorted(filter(None, holders)) == names
    assert holders.count("") == 3
    for name in names:
        site.until(lambda: "RebootLockReleased" in site.history.told(name), "the last Event")  # noqa: B023
        assert site.history.told(name) == list(CYCLE)
        assert site.history.cordons(name) == [False, True, False]
        entry = json.loads(site.annotation(name, "reboot-history"))
        assert len(entry) == 1
        assert entry[0]["reason"] == "linux-image-6.1.0-25-amd64, libc6"
        site.until(lambda: site.condition(name)["reason"] == "NotRequired", "the last condition")  # noqa: B023
        assert site.condition(name)["status"] == "False"
        assert "linux-image-6.1.0-25-amd64" in site.history.messages(name, "RebootRequired")[0]
        metrics = site.metrics(name)
        assert metrics['node_hardening_reboots_total{outcome="succeeded"}'] == 1
        assert metrics["node_hardening_reboot_required"] == 0
        assert metrics['node_hardening_reboot_phase{phase="idle"}'] == 1
        began = "node_hardening_reboot_phase_started_timestamp_seconds"
        assert 0 < metrics[f'{began}{{phase="rebooting"}}'] < metrics[f'{began}{{phase="verifying"}}']
    lease = site.lease()
    assert lease["spec"]["leaseTransitions"] == 3
    assert lease["metadata"]["annotations"]["node-hardening.io/last-reboot"]


def test_a_node_that_was_cordoned_by_hand_stays_cordoned(either: MakeSite) -> None:
    """It is drained and rebooted, and nobody's cordon is undone."""
    site = either()
    (name,) = _nodes(site, 1)
    site.cordon(name)
    site.start()
    site.require()
    site.until(site.all_rebooted, "the reboot")
    site.until(lambda: "RebootLockReleased" in site.history.told(name), "the last Event")
    assert site.is_cordoned(name)
    assert True not in site.history.cordons(name)[2:]
    assert site.history.told(name) == [one for one in CYCLE if one not in ("NodeCordoned", "NodeUncordoned")]


def test_a_reboot_command_that_fails(either: MakeSite) -> None:
    """One RebootFailed, one roll-back, back-off; no second drain within it, though the agent is started again."""
    site = either(command=["/bin/false"])
    (name,) = _nodes(site, 1)
    site.start()
    site.require()
    site.says(name, "rolled back: the reboot command failed")
    site.until(lambda: site.history.told(name, ("NodeUncordoned",)), "the last Event before the crash")
    for _ in range(2):
        before = len(site.machines[name].log.read_text())
        site.machines[name].crash()
        site.until(lambda: "RolledBack" in site.machines[name].log.read_text()[before:], "observed again")  # noqa: B023
    assert site.machines[name].reboots == 0
    assert site.history.cordons(name) == [False, True, False]
    assert site.history.told(name, ("RebootFailed", "NodeUncordoned", "Drained")) == [
        "Drained", "RebootFailed", "NodeUncordoned",
    ]  # fmt: skip
    site.until(lambda: not site.holder(), "the lock released")
    assert site.metrics(name)["node_hardening_reboot_failures"] == 1
    assert site.condition(name)["status"] == "True"


# -- what holds back ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("several", [False, True])
def test_kureds_lock_is_waited_for(either: MakeSite, several: bool) -> None:
    """In both of its forms: nothing is taken while kured holds it, and then it goes on."""
    site = either()
    _nodes(site, 1)
    kured = builders.workload("DaemonSet", "kured", namespace="kube-system")
    kured["metadata"]["annotations"] = {"weave.works/kured-node-lock": kured_lock("elsewhere", several=several)}
    site.create("apis/apps/v1", "daemonsets", kured)
    site.power_on()
    site.require()
    assert "held by elsewhere" in site.says("node-1", "kured's lock")
    site.until(lambda: site.history.told("node-1", ("RebootBlocked",)), "RebootBlocked")
    assert site.history.holders() == []
    free = {"metadata": {"annotations": {"weave.works/kured-node-lock": None}}}
    site.client.patch("/apis/apps/v1/namespaces/kube-system/daemonsets/kured", free)
    site.until(site.all_rebooted, "the reboot once kured let go")
    _assert_orderly(site)
    site.client.delete("/apis/apps/v1/namespaces/kube-system/daemonsets/kured")


def test_what_on_call_holds_back_waits_and_says_so(make: MakeSite) -> None:
    """Opt-out, pause, a closed window and audit mode, side by side: each is said, nothing is taken, each can end."""
    sites = {"skip": make(), "pause": make(), "window": make(windows=[_closed_window()]), "audit": make(mode="audit")}
    for site in sites.values():
        _nodes(site, 1)
    sites["skip"].annotate("node-1", "reboot-skip", "holds the quorum")
    pause = {"until": "", "reason": "Black Friday", "by": "ann"}
    sites["pause"].client.post(PAUSE, {"metadata": {"name": "node-hardening-pause"}, "data": pause})
    for site in sites.values():
        site.power_on()
        site.require()
    assert "holds the quorum" in sites["skip"].says("node-1", "opted out")
    assert "by ann: Black Friday" in sites["pause"].says("node-1", "the cluster's pause")
    sites["window"].says("node-1", "window")
    sites["audit"].says("node-1", "audit: would acquire the lock, drain and reboot")
    for site in sites.values():
        assert (site.history.holders(), site.history.cordons("node-1")) == ([], [False])
        assert site.condition("node-1")["status"] == "True"
    sites["skip"].annotate("node-1", "reboot-skip", None)
    sites["pause"].client.delete(f"{PAUSE}/node-hardening-pause")
    sites["window"].configure("node-1", windows=[])
    sites["audit"].configure("node-1", mode="enforce")
    for site in sites.values():
        site.until(site.all_rebooted, "the reboot once nothing holds it back")
        _assert_orderly(site)


def _closed_window() -> dict[str, Any]:
    """An hour that is half a day away."""
    start = datetime.now(UTC) + timedelta(hours=11)
    return {"start": f"{start:%H:00}", "end": f"{start + timedelta(hours=1):%H:00}", "timezone": "UTC"}


def test_a_node_that_is_not_ready_uses_the_budget_up(make: MakeSite) -> None:
    """maxUnavailable 1: while another node is down nobody goes; the sentence names it; then it goes on."""
    site = make()
    _nodes(site, 1)
    site.sandbox.add_node("broken")
    site.sandbox.stop_kubelet("broken")
    site.until(
        lambda: any(
            c["type"] == "Ready" and c["status"] != "True" for c in site.node("broken")["status"]["conditions"]
        ),
        "the broken node is seen to be",
    )
    site.start()
    site.require()
    assert "broken unavailable" in site.says("node-1", "maxUnavailable 1 of 2 nodes")
    assert site.history.cordons("node-1") == [False]
    site.sandbox.start_kubelet("broken")
    site.until(site.all_rebooted, "the reboot once the other is Ready")
    _assert_orderly(site)


def test_the_control_plane_is_a_pool_of_its_own(make: MakeSite) -> None:
    """Its lock is another one: neither waits for the other, and each takes only its own."""
    site = make()
    site.add("master", control_plane=True)
    site.add("worker")
    for name in ("master", "worker"):
        site.sandbox.create("pods", pod_on(name, f"slow-{name}", labels={"app": "slow"}))
    site.start()
    site.require()
    site.until(site.all_rebooted, "both reboots")
    assert [one for one in site.history.holders() if one] == ["worker"]
    assert [one for one in site.history.holders("node-hardening-reboot-control-plane-0") if one] == ["master"]


def test_a_reboot_that_somebody_asks_for(make: MakeSite) -> None:
    """The annotation goes the same way as the sentinel, and is taken away afterwards."""
    site = make()
    _nodes(site, 1)
    site.start()
    site.annotate("node-1", "reboot-request", "new firmware")
    site.until(site.all_rebooted, "the reboot")
    assert site.annotation("node-1", "reboot-request") == ""
    assert "requested: new firmware" in site.history.messages("node-1", "RebootRequired")[0]
    assert json.loads(site.annotation("node-1", "reboot-history"))[0]["reason"] == "new firmware"
    _assert_orderly(site)


# -- drains that do not end --------------------------------------------------------------------------------------------


def test_a_drain_that_does_not_end(make: MakeSite) -> None:
    """abort rolls back, delete takes the pods away, force reboots in spite of them; each names budget and owner."""
    sites = {how: make(drain={"timeout": "4s", "onTimeout": how}) for how in ("abort", "delete", "force")}
    for site in sites.values():
        _nodes(site, 1)
        _held(site, "node-1")
        site.power_on()
        site.require()
    sites["abort"].says("node-1", "rolled back: the drain did not end within 4 s")
    for site in (sites["delete"], sites["force"]):
        site.until(site.all_rebooted, "the reboot past the deadline")
        _assert_orderly(site)
    for site in sites.values():
        blocked = site.history.messages("node-1", "DrainBlocked")
        assert blocked == ["The drain waits: default/never (app payments)"]
    left = {how: [pod["metadata"]["name"] for pod in site.sandbox.list("pods")] for how, site in sites.items()}
    assert left == {"abort": ["held"], "delete": [], "force": ["held"]}
    assert sites["abort"].machines["node-1"].reboots == 0
    sites["abort"].until(lambda: sites["abort"].history.told("node-1", ("RebootFailed",)), "RebootFailed")
    assert sites["abort"].history.cordons("node-1") == [False, True, False]
    sites["abort"].until(lambda: not sites["abort"].holder(), "the lock released")


def test_two_budgets_on_a_pod_and_a_namesake_elsewhere(either: MakeSite) -> None:
    """The misconfiguration is named and not tried for ever; the pod of the same name on another node is left alone."""
    site = either(drain={"timeout": "8s"})
    _nodes(site, 1)
    _node_without_agent(site, "other")
    site.client.post("/api/v1/namespaces", {"metadata": {"name": "elsewhere"}})
    site.create("api/v1", "pods", pod_on("node-1", "db-0", labels={"app": "db"}))
    namesake = site.create("api/v1", "pods", pod_on("other", "db-0", namespace="elsewhere", labels={"app": "db"}))
    for budget in ("first", "second"):
        made = builders.budget(budget, {"app": "db"}, max_unavailable=1)
        site.create("apis/policy/v1", "poddisruptionbudgets", made)
    site.start()
    site.require()
    site.says("node-1", "rolled back: the drain did not end within 8 s")
    told = site.history.messages("node-1", "DrainBlocked")
    assert len(told) == 1
    assert "default/db-0 matches more than one disruption budget" in told[0]
    assert "default/first" in told[0]
    assert "default/second" in told[0]
    still = site.client.get("/api/v1/namespaces/elsewhere/pods/db-0").json()
    assert still["metadata"]["uid"] == namesake["metadata"]["uid"]
    assert "deletionTimestamp" not in still["metadata"]
    if not isinstance(site.surroundings, Hands):  # whose requests nobody writes down
        asked = site.evictions()
        assert set(asked) == {("default", "db-0")}
        assert len(asked) <= 2
    site.client.delete("/api/v1/namespaces/elsewhere/pods/db-0", {"gracePeriodSeconds": 0})


def test_a_pod_that_came_back_under_its_name_elsewhere_is_left_alone(make: MakeSite) -> None:
    """A StatefulSet's pod is evicted once; its successor on another node is nobody that the drain knows."""
    site = make(drain={"timeout": "8s"})
    _nodes(site, 1)
    site.sandbox.add_node("other")
    site.sandbox.create("pods", pod_on("node-1", "db-0"))
    _held(site, "node-1")
    site.start()
    site.require()
    site.until(lambda: site.sandbox.get("pods", "db-0") is None, "the pod is evicted")
    successor = site.sandbox.create("pods", pod_on("other", "db-0"))
    site.says("node-1", "rolled back: the drain did not end within 8 s")
    assert site.evictions().count(("default", "db-0")) == 1
    still = site.sandbox.get("pods", "db-0")
    assert still is not None
    assert still["metadata"]["uid"] == successor["metadata"]["uid"]


# -- hands in the middle -----------------------------------------------------------------------------------------------


def _draining(make: MakeSite, **reboot: Any) -> Site:
    """A node in the middle of a drain that a budget holds up."""
    site = make(**reboot)
    _nodes(site, 1)
    _held(site, "node-1")
    site.start()
    site.require()
    site.says("node-1", "draining")
    return site


def test_the_lock_is_deleted_or_given_away_in_the_middle(make: MakeSite) -> None:
    """By on-call's hand: the agent stops, lifts its own cordon, evicts nothing more and does not reboot."""
    sites = [_draining(make) for _ in range(2)]
    sites[0].client.delete(f"{LEASES}/{LOCK}")
    sites[1].client.patch(f"{LEASES}/{LOCK}", {"spec": {"holderIdentity": "on-call/by-hand"}})
    for site in sites:
        site.says("node-1", "rolled back: the lock was lost")
        assert site.history.cordons("node-1") == [False, True, False]
        site.sandbox.clear_requests()
        site.machines["node-1"].crash()
        site.until(lambda: site.sandbox.requests, "the next process")  # noqa: B023
        site.says("node-1", "rolled back")
        assert site.evictions() == []
        assert site.machines["node-1"].reboots == 0
    assert sites[0].holder() == ""
    assert sites[1].holder() == "on-call"


def test_a_person_uncordons_in_the_middle(make: MakeSite) -> None:
    """The cycle ends there: lock free, said, backed off; the node is not cordoned again."""
    site = _draining(make)
    site.cordon("node-1", wanted=False)
    site.says("node-1", "rolled back: the node was uncordoned by another user")
    site.until(lambda: site.holder() == "", "the lock is free")
    assert site.history.cordons("node-1") == [False, True, False]
    assert site.history.told("node-1", ("NodeUncordoned",)) == []
    assert site.machines["node-1"].reboots == 0


def test_the_api_server_is_away_in_the_middle(make: MakeSite) -> None:
    """Away during the drain and again during the reboot: it goes on where it was."""
    site = _draining(make)
    site.sandbox.away(4)
    site.until(lambda: "cannot be read" in site.machines["node-1"].log.read_text() or site.sentence("node-1"), "back")
    site.sandbox.delete("poddisruptionbudgets", "never")
    site.until(lambda: site.machines["node-1"].reboots == 1, "the reboot")
    site.sandbox.away(4)
    site.until(site.all_rebooted, "proved in spite of it")
    _assert_orderly(site)
    assert site.history.cordons("node-1") == [False, True, False]


@pytest.mark.slow
def test_agents_that_are_killed_at_random_moments(make: MakeSite) -> None:
    """kill -9 again and again while two nodes roll: each goes on where it was, and nothing is done twice."""
    import random

    rng = random.Random(4)
    site = make()
    names = _nodes(site, 2)
    _web(site, 3)
    site.start()
    site.require()
    for _ in range(8):
        victim = site.machines[rng.choice(names)]
        moment = rng.uniform(0.3, 2.5)
        site.until(_after(moment), "the moment")
        victim.crash()
    site.until(site.all_rebooted, "both reboots")
    _assert_orderly(site)
    for name in names:
        site.until(lambda: "RebootLockReleased" in site.history.told(name), "the last Event")  # noqa: B023
        assert sorted(site.history.told(name)) == sorted(CYCLE)
        assert site.history.cordons(name) == [False, True, False]


def _after(seconds: float) -> Callable[[], bool]:
    import time

    ends = time.monotonic() + seconds
    return lambda: time.monotonic() > ends
