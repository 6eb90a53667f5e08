"""unlock: what it shows, whom it refuses, and that real agents understand what it leaves behind."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from agent.reboot.cluster import LeasePhase, LeaseView
from agent.reboot.kube.views import lease_body, lease_view, without_nulls
from agent.sandbox import builders
from tests.support import apiservers
from tests.support.agents import NAMESPACE
from tests.support.apiservers import ApiServer, Client
from tests.support.sites import LEASES, LOCK, Site, emulated, pod_on, real
from tests.support.typed import Person

NO_ASSETS = "no real control plane: KUBEBUILDER_ASSETS does not name a folder with etcd and kube-apiserver"


# -- the Lease alone ---------------------------------------------------------------------------------------------------


@pytest.fixture
def leases(namespace: str) -> str:
    """The path of this test's locks."""
    return f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"


def hold(client: Client, leases: str, pool: str = "workers", holder: str = "gone/uid", **more: Any) -> str:
    name = f"node-hardening-reboot-{pool}-0"
    base = {"phase": LeasePhase.REBOOTING, "renewed": "2026-01-01T00:00:00.000000Z", "transitions": 4, "cycle": "c",
            "boot": "b", "duration_seconds": 60, "last_reboot": 1.7e9, "pool_size": 3, "stuck": "other"}  # fmt: skip
    view = LeaseView(name, holder=holder, **{**base, **more})
    answer = client.post(leases, without_nulls(lease_body(view, leases.split("/")[5])))
    assert answer.status_code == 201, answer.text
    return name


def test_a_freed_lock_is_what_an_agent_leaves_behind(
    api: ApiServer, client: Client, namespace: str, leases: str
) -> None:
    """Free, without phase, cycle, boot and mark; what the next holder goes by is kept; who did it stands beside it."""
    name = hold(client, leases)
    typed = Person(api).types("-n", namespace, "unlock", "--yes", "--reason", "scrapped", "--watch", "0")
    assert (typed.code, typed.out) == (0, "lock workers/0 is free; it was held by gone\n")
    assert "node gone does not exist any more" in typed.err
    found = client.get(f"{leases}/{name}").json()
    seen = lease_view(found)
    assert (seen.holder, seen.phase, seen.cycle, seen.boot, seen.stuck) == ("", LeasePhase.NONE, "", "", "")
    assert (seen.transitions, seen.last_reboot, seen.pool_size) == (4, 1.7e9, 3)
    note = found["metadata"]["annotations"]["node-hardening.io/unlocked"]
    assert " from gone: scrapped (by " in note
    events = client.get(f"/api/v1/namespaces/{namespace}/events").json()["items"]
    assert [(one["reason"], one["type"], one["involvedObject"]["name"]) for one in events] == [
        ("RebootLockForceReleased", "Warning", name)
    ]
    assert Person(api).types("-n", namespace, "unlock").out == "no lock is held\n"
    assert Person(api).types("-n", namespace, "unlock", "workers/0").out == "lock workers/0 is free\n"


def test_the_lock_is_named_in_any_of_three_ways(api: ApiServer, client: Client, namespace: str, leases: str) -> None:
    """Pool and slot, Lease, holder; several held and none named is a question, a wrong name an answer."""
    hold(client, leases, holder="one/uid")
    hold(client, leases, "control-plane", holder="two/uid")
    held = "control-plane/0 held by two, workers/0 held by one; nothing was changed"
    line = ("-n", namespace, "unlock", "--dry-run", "--watch", "0")
    for target, holder in (
        ("workers/0", "one"), ("workers-0", "one"), ("node-hardening-reboot-control-plane-0", "two"), ("two", "two"),
    ):  # fmt: skip
        typed = Person(api).types(*line, target)
        assert (typed.code, typed.out.endswith(f"is free; it was held by {holder}\n")) == (0, True)
    assert Person(api).types(*line).error == f"several locks are held: {held}"
    unknown = Person(api).types(*line, "three")
    assert (unknown.code, unknown.error) == (
        2, f"no lock and no holder is called 'three': {held}",
    )  # fmt: skip
    assert [one["spec"]["holderIdentity"] for one in client.get(leases).json()["items"]] == ["two/uid", "one/uid"]


def test_a_holder_that_renews_is_refused(
    api: ApiServer, client: Client, namespace: str, leases: str, node: str
) -> None:
    """Seen to change while it is watched, whatever its clock says; --force takes the lock all the same."""
    uid = client.get(f"/api/v1/nodes/{node}").json()["metadata"]["uid"]
    name = hold(client, leases, holder=f"{node}/{uid}", phase=LeasePhase.HELD, stuck="")

    def renew() -> None:
        body = {"spec": {"renewTime": "2026-01-01T00:00:20.000000Z"}}
        assert client.patch(f"{leases}/{name}", body).status_code == 200

    timer = threading.Timer(0.5, renew)
    timer.start()
    typed = Person(api).types("-n", namespace, "unlock", "--yes", "--watch", "20")
    timer.join()
    assert (typed.code, typed.error.startswith(f"{node} renews it; nothing was changed.")) == (3, True)
    assert f"kubectl node-hardening skip {node}" in typed.error
    assert client.get(f"{leases}/{name}").json()["spec"]["holderIdentity"] == f"{node}/{uid}"
    client.patch(f"{leases}/{name}", {"spec": {"renewTime": "2099-01-01T00:00:00.000000Z"}})
    fresh = Person(api).types("-n", namespace, "unlock", "--yes", "--watch", "0")
    assert (fresh.code, "so recently that it counts as alive" in fresh.error) == (3, True)
    forced = Person(api).types("-n", namespace, "unlock", "--yes", "--watch", "0", "--force")
    assert (forced.code, "two nodes of the pool may be down at the same time" in forced.err) == (0, True)
    events = client.get("/api/v1/namespaces/default/events", fieldSelector=f"involvedObject.name={node}").json()[
        "items"
    ]
    assert [one["message"].partition(", which was ")[2] for one in events] == ["alive (forced)"]
    client.delete(f"/api/v1/nodes/{node}")


def test_a_holder_that_comes_alive_while_somebody_thinks_keeps_its_lock(
    api: ApiServer, client: Client, namespace: str, leases: str
) -> None:
    """What is written goes by the version that was shown; a lock that changed hands is left alone too."""

    def touch(body: dict[str, Any]) -> Callable[[], str]:
        def answer() -> str:
            assert client.patch(f"{leases}/{name}", body).status_code == 200
            return "y"

        return answer

    name = hold(client, leases)
    renewed = touch({"spec": {"renewTime": "2026-01-01T00:00:20.000000Z"}})
    taken = touch({"spec": {"holderIdentity": "third/uid"}})
    for answer in (renewed, taken):
        typed = Person(api, answers=[answer]).types("-n", namespace, "unlock", "--watch", "0")
        assert (typed.code, "lock workers/0 changed meanwhile" in typed.error) == (3, True)
    assert client.get(f"{leases}/{name}").json()["spec"]["holderIdentity"] == "third/uid"
    assert client.get(f"/api/v1/namespaces/{namespace}/events").json()["items"] == []


def test_nobody_is_made_to_watch_for_nothing(api: ApiServer, client: Client, namespace: str, leases: str) -> None:
    """Without a terminal and without --yes it ends before it looks; a no changes nothing."""
    name = hold(client, leases)
    assert Person(api).types("-n", namespace, "unlock", "--watch", "3600").code == 2
    typed = Person(api, answers=["n"]).types("-n", namespace, "unlock", "--watch", "0")
    assert (typed.code, typed.err.endswith("nothing was changed\n")) == (1, True)
    assert client.get(f"{leases}/{name}").json()["spec"]["holderIdentity"] == "gone/uid"


# -- real agents -------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["emulator", "real"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Site]:
    """A site whose pool may have two nodes down, on an emulator and on a kube-apiserver of its own."""
    policy = {"maxUnavailable": "2"}
    with ExitStack() as stack:
        if request.param == "emulator":
            yield stack.enter_context(emulated(tmp_path / "site", policy))
            return
        assets = apiservers.assets()
        if assets is None:
            pytest.skip(NO_ASSETS)
        folder = tmp_path / "control-plane"
        folder.mkdir()
        api = stack.enter_context(apiservers.control_plane(assets, folder))
        yield stack.enter_context(real(api, tmp_path / "site", policy))


def _with_policy(site: Site) -> None:
    """The ConfigMap that the plugin reads; the agents have theirs from their machines."""
    config = {"metadata": {"name": "node-hardening-config"}, "data": {"config.yaml": "reboot: {maxUnavailable: 2}"}}
    path = f"/api/v1/namespaces/{NAMESPACE}/configmaps"
    assert site.client.post(path, config).status_code == 201


def status_of(site: Site, name: str) -> dict[str, Any]:
    """The node's `reboot-status`; no phase and no reason while it has none."""
    return {"phase": "", "reason": "", **json.loads(site.annotation(name, "reboot-status") or "{}")}


def test_another_node_takes_a_freed_lock_and_the_old_holder_finishes_without_it(site: Site) -> None:
    """Down for long: not freed while it may be alive, then freed; the next one reboots under the lock; the old one
    comes back, is verified, removes its own cordon, and releases no lock that it lost.
    """
    for name in ("node-1", "node-2"):
        site.add(name)
    site.machines["node-1"].down_seconds = 3600.0
    _with_policy(site)
    site.start()
    site.require("node-1")
    site.until(lambda: site.machines["node-1"].reboots == 1, "node-1 went down")
    assert lease_view(site.lease()).phase is LeasePhase.REBOOTING
    early = Person(site.api).types("unlock", "--yes", "--watch", "0")
    assert (early.code, "so recently that it counts as alive" in early.error) == (3, True)
    site.require("node-2")
    site.until(lambda: status_of(site, "node-2")["reason"] == "WaitingForLock", "node-2 waits")

    def freed() -> bool:
        """As soon as it is silent for longer than a lease lasts."""
        typed = Person(site.api).types("unlock", "node-1", "--yes", "--reason", "its console is dark", "--watch", "1")
        assert typed.code == 0 or "counts as alive" in typed.error, typed
        if typed.code == 0:
            assert "RISK: TWO NODES DOWN AT THE SAME TIME: node-1 may be down" in typed.err
            assert "if node-1 comes back, it verifies itself, removes its own cordon" in typed.err
        return typed.code == 0

    site.until(freed, "node-1 counts as silent")
    site.until(lambda: site.reboots("node-2") == 1 and site.is_well("node-2"), "node-2 rebooted")
    site.until(lambda: not site.holder(), "the lock of node-2 released")
    site.machines["node-1"].come_up()
    site.until(site.all_rebooted, "node-1 came back and is well")
    assert site.history.holders() == ["node-1", "", "node-2", ""]
    assert site.history.reboots_without_lock() == [
        "node-1"
    ]  # the risk that was named: its lock was taken while it was down
    for name in ("node-1", "node-2"):
        assert site.history.cordons(name) == [False, True, False]
    assert "RebootLockReleased" not in site.history.told("node-1")
    freed_by = [
        one.object for one in site.history.changes("events") if one.object["reason"] == "RebootLockForceReleased"
    ]
    assert {one["involvedObject"]["kind"] for one in freed_by} == {"Lease", "Node"}
    assert all("its console is dark" in one["message"] for one in freed_by)


def test_a_holder_whose_lock_was_taken_by_force_rolls_back_and_never_reboots(tmp_path: Path) -> None:
    """It drains and renews: refused; forced, its next look ends the cycle, and its own cordon is lifted."""
    with emulated(tmp_path / "site") as site:
        site.add("node-1")
        site.sandbox.create("pods", pod_on("node-1", "held", labels={"app": "held"}))
        site.sandbox.create("poddisruptionbudgets", builders.budget("never", {"app": "held"}, max_unavailable=0))
        site.start()
        site.require()
        site.until(lambda: status_of(site, "node-1")["reason"] == "DrainBlocked", "its drain is blocked")
        refused = Person(site.api).types("unlock", "--yes")
        assert (refused.code, refused.error.startswith("node-1 renew")) == (3, True)
        assert site.holder() == "node-1"
        site.until(lambda: Person(site.api).types("unlock", "--yes", "--force", "--watch", "0").code == 0, "taken")
        site.until(lambda: status_of(site, "node-1")["phase"] == "rolled-back", "rolled back")
        assert not site.is_cordoned("node-1")
        assert site.machines["node-1"].reboots == 0
        assert json.loads(site.annotation("node-1", "reboot-state"))["phase"] == "rolled-back"
        assert site.client.get(f"{LEASES}/{LOCK}").json()["spec"].get("holderIdentity") is None
