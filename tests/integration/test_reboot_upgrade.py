"""A rolling upgrade in the middle of a reboot cycle: what the agent before version 2 of the state wrote on its Node and
its Lease, and today's agent that takes over.

The documents are that agent's own, captured phase by phase; only boot ids, times and UIDs are the test's machine's.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.annotations import FIELD_MANAGER
from tests.support.sites import LEASES, LOCK, PREFIX, Site, emulated

STATES: dict[str, str] = json.loads(
    (Path(__file__).parents[1] / "unit" / "reboot" / "data" / "reboot-state-version-1.json").read_text()
)
BEFORE_THE_REBOOT = ("wanted", "cordoned", "draining")
LEASE_PHASES = {"rebooting": "rebooting", "verifying": "rebooting"}  # before and after these: held


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    """One machine with an agent, and a Node beside it."""
    with emulated(tmp_path / "site") as made:
        made.add("node-1")
        made.sandbox.add_node("node-2")
        yield made


def _older_agent_was_in(site: Site, phase: str) -> None:
    boot = site.machines["node-1"].root.boot_id()
    entered = {"boot": boot, "mono": time.monotonic(), "wall": time.time()}
    state: dict[str, Any] = json.loads(STATES[phase]) | {"entered": entered, "since": time.time()}
    state["boot"] = boot if phase in BEFORE_THE_REBOOT else "boot-before"
    for key in ("done", "guard", "failures", "error"):
        state.pop(key, None)
    patch: dict[str, Any] = {"metadata": {"annotations": {f"{PREFIX}/reboot-state": json.dumps(state)}}}
    if state.get("cordoned"):
        patch["spec"] = {"unschedulable": True}
    answer = site.client.patch("/api/v1/nodes/node-1", patch, "strategic", fieldManager=FIELD_MANAGER)
    assert answer.status_code == 200, answer.text
    if phase != "wanted":
        _hold_lock(site, state, LEASE_PHASES.get(phase, "held"))


def _hold_lock(site: Site, state: dict[str, Any], phase: str) -> None:
    uid = site.node("node-1")["metadata"]["uid"]
    notes = {"phase": phase, "cycle": state["cycle"], "boot-id": state["boot"], "pool-size": "2", "waited-seconds": "0"}
    moment = time.strftime("%Y-%m-%dT%H:%M:%S.000000Z", time.gmtime())
    body = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": LOCK, "annotations": {f"{PREFIX}/{key}": value for key, value in notes.items()}},
        "spec": {
            "holderIdentity": f"node-1/{uid}", "leaseDurationSeconds": 10, "acquireTime": moment,
            "renewTime": moment, "leaseTransitions": 1,
        },
    }  # fmt: skip
    answer = site.client.post(LEASES, body)
    assert answer.status_code == 201, answer.text


@pytest.mark.parametrize("phase", ["wanted", "cordoned", "draining", "rebooting", "verifying", "released"])
def test_a_cycle_that_begins_under_version_1_ends_under_version_2(site: Site, phase: str) -> None:
    """One reboot in all; then the Node is uncordoned, the lock free and the state version 2."""
    if phase in BEFORE_THE_REBOOT:
        site.require()
    _older_agent_was_in(site, phase)
    site.power_on()
    cycle = json.loads(STATES[phase])["cycle"]

    def is_over() -> bool:
        state = json.loads(site.annotation("node-1", "reboot-state"))
        return (state["v"], state["phase"]) == (2, "idle") and not site.holder()

    site.until(is_over, f"the end of the cycle {cycle}")
    assert site.machines["node-1"].reboots == (1 if phase in BEFORE_THE_REBOOT else 0)
    assert not site.is_cordoned("node-1")
    assert site.history.reboots_without_lock() == []
    history = json.loads(site.annotation("node-1", "reboot-history") or "[]")
    assert len(history) == (0 if phase == "released" else 1)
