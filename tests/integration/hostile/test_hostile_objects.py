"""API objects that mean harm: whatever stands on the lock or on the Node, agents go on and the next cycle heals it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.reboot.kube.views import lease_view
from agent.reboot.lock.pools import lease_names
from tests.support.agents import NAMESPACE
from tests.support.sites import LEASES, LOCK, PREFIX, Site, emulated

ROLE = f"/apis/rbac.authorization.k8s.io/v1/namespaces/{NAMESPACE}/roles/node-hardening-agent"
LATEST = "9999-12-31T23:59:59-23:59"
FORGED: dict[str, tuple[dict[str, Any], dict[str, str]]] = {
    "a time beyond the calendar": ({"leaseTransitions": 1}, {"last-reboot": LATEST}),
    "no transition left": ({"leaseTransitions": 2**31 - 1}, {}),
    "a holder of 100 KB": ({"holderIdentity": "x" * 100_000, "leaseDurationSeconds": 10}, {}),
    "a holder that is a path": ({"holderIdentity": "../../nodes/uid", "leaseDurationSeconds": 10}, {}),
    "a holder without a name": ({"holderIdentity": "/", "leaseDurationSeconds": 10}, {"phase": "rebooting"}),
    "a holder that is not there": ({"holderIdentity": "no-such-node/uid"}, {"phase": "none of ours"}),
    "numbers that are none": ({}, {"pool-size": "9" * 15, "waited-seconds": "9" * 15, "cycle": "\x1b[2J" * 1000}),
}
NODE = {
    "reboot-history": json.dumps([{"at": LATEST, "seconds": 10**300, "phases": {"draining": "x"}}] * 400),
    "status": "\x1b[2J",
    "summary": "x" * 50_000,
    "findings": "[" * 5000,
    "policy": "",
    "last-change": LATEST,
}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with emulated(tmp_path / "site") as made:
        yield made


@pytest.mark.parametrize("forged", FORGED.values(), ids=FORGED)
def test_a_forged_lock_holds_nobody_up_and_is_healed(site: Site, forged: tuple[dict[str, Any], dict[str, str]]) -> None:
    """One PATCH with one node's token ended the agents of the other nodes once."""
    spec, notes = forged
    notes = {f"{PREFIX}/{key}": value for key, value in notes.items()}
    meta = {"name": LOCK, "namespace": NAMESPACE, "annotations": notes}
    assert site.client.post(LEASES, {"metadata": meta, "spec": spec}).status_code == 201
    site.add("node-1")
    site.start()
    for key, value in NODE.items():
        site.annotate("node-1", key, value)
    site.require()
    site.until(site.all_rebooted, "the reboot")
    assert site.history.reboots_without_lock() == []
    healed = lease_view(site.lease())
    assert healed.holder == ""
    assert 0 < healed.transitions <= 2
    assert 0 < healed.last_reboot < 4e9
    log = site.machines["node-1"].log.read_text()
    assert "Traceback" not in log
    assert "thread_crashed" not in log
    assert len(json.loads(site.annotation("node-1", "reboot-history"))) == 1


def test_leases_of_a_megabyte_do_not_hide_the_locks(site: Site) -> None:
    """18 of them are more than an answer may have."""
    for number in range(18):
        meta = {"name": f"big-{number}", "namespace": NAMESPACE, "annotations": {"a": "x" * 200_000}}
        spec = {"holderIdentity": "x" * 800_000}
        assert site.client.post(LEASES, {"metadata": meta, "spec": spec}).status_code == 201
    site.policy = {"concurrency": 2, "maxUnavailable": "2"}
    role = site.client.get(ROLE).json()
    role["rules"][0]["resourceNames"] += lease_names("workers", 2)
    assert site.client.put(ROLE, role).status_code == 200
    for name in ("node-1", "node-2", "node-3"):
        site.add(name)
    site.start()
    site.require()
    site.until(site.all_rebooted, "three reboots")
    assert site.history.most_cordoned() <= 2
