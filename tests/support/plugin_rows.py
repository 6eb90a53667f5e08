"""Rows and locks of the plugin for tests that need no cluster: a node on which all is well, and what a test changes."""

from __future__ import annotations

from dataclasses import replace

from agent.plugin.cluster import locks
from agent.plugin.cluster.locks import Lock
from agent.plugin.cluster.nodes import NodeRow
from agent.reboot.cluster import LeaseView
from agent.reboot.kube.views import lease_body
from agent.reboot.phases import Phase
from agent.report.compliance import ComplianceStatus

_WELL = NodeRow(
    name="n", uid="uid-n", pool="workers", ready=True, cordoned=False, kernel="6.1",
    compliance=ComplianceStatus.HARDENED, silent_since=0.0, worst=None, failing=0, unknown=0, more=0,
    phase=Phase.IDLE, reason=None,
    required=False, since=0.0, until=0.0, message="", failures=0, drain=None, mode="enforce", is_outdated=False,
    skip="", requested="", version="0.2.0", policy="p", is_held_back=False, config_problem="",
)  # fmt: skip


def a_row(name: str, **more: object) -> NodeRow:
    """A hardened, Ready node that needs no reboot, with these changes."""
    return replace(_WELL, **{"name": name, "uid": f"uid-{name}", **more})  # type: ignore[arg-type]


def a_lock(view: LeaseView) -> Lock:
    """A Lease as the plugin reads it."""
    found = locks.lock_of(lease_body(view, "node-hardening"))
    assert found is not None, view.name
    return found
