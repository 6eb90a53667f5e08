"""What stands on a Node is read as it is meant, and nothing that is missing or strange is ever called well."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.schema import Pool
from agent.model import Severity, Status
from agent.plugin.cluster import locks, policy
from agent.plugin.cluster import nodes as fleet
from agent.plugin.cluster.nodes import Keep, NodeRow
from agent.plugin.cluster.policy import Policy
from agent.plugin.views import fleet as overview
from agent.plugin.views.fleet import Overview
from agent.reboot.state import Phase
from agent.report.node_status import ComplianceStatus
from agent.terminal import Style
from tests.support.plugin_fleet import ANONYMOUS, SCENES, SCTP, report

PREFIX = "node-hardening.io/"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
KEYS = ("status", "findings", "reboot", "reboot-state", "reboot-history", "reboot-skip", "version", "policy")


def node(name: str = "a", **notes: str) -> dict[str, Any]:
    """A Ready Node with these annotations."""
    keys = {f"{PREFIX}{key.replace('_', '-')}": value for key, value in notes.items()}
    conditions = [{"type": "Ready", "status": "True"}]
    return {"metadata": {"name": name, "uid": f"u-{name}", "annotations": keys}, "status": {"conditions": conditions}}


def row(name: str = "a", **notes: str) -> NodeRow:
    """The same as a row with everything kept."""
    return fleet.row(node(name, **notes), Pool(), Keep(findings=True, history=True))


def test_a_node_without_annotations_has_no_agent() -> None:
    """Neither hardened nor drifted, and nothing is known of its reboots."""
    found = row()
    assert (found.standing, found.phase, found.required, found.is_well, found.wants_reboot) == (None,) * 3 + (
        False,
        False,
    )
    assert overview.hardened(found).text == "no agent"


@pytest.mark.parametrize(
    ("word", "well"), [("hardened", True), ("non-compliant", False), ("failed", False), ("new word", False)]
)
def test_only_hardened_is_well(word: str, well: bool) -> None:
    """A word of a later version is unknown."""
    assert row(status=word).is_well is well
    assert row(status="new word").standing is ComplianceStatus.UNKNOWN


@pytest.mark.parametrize("ready", ["False", "Unknown", None])
def test_a_node_that_is_not_ready_is_not_well(ready: str | None) -> None:
    """What its agent said last is only that."""
    found = node(status="hardened")
    found["status"] = {"conditions": [{"type": "Ready", "status": ready}] if ready else []}
    assert fleet.row(found, Pool()).is_well is False


@given(st.dictionaries(st.sampled_from(KEYS), st.text(max_size=60) | JSON.map(json.dumps), max_size=8))
def test_whatever_stands_on_a_node_is_read(notes: dict[str, str]) -> None:
    """Nothing that people or other controllers write makes the plugin fail, nor makes a node well by accident."""
    found = row(**{key.replace("-", "_"): value for key, value in notes.items()})
    assert found.is_well is (notes.get("status") == "hardened")
    assert isinstance(overview.node(found)["reboot"], dict)
    json.dumps(overview.node(found))


@given(JSON, JSON, JSON)
def test_whatever_shape_a_node_has_it_is_read(metadata: Any, spec: Any, status: Any) -> None:
    """Also one that no API server would store."""
    assert fleet.row({"metadata": metadata, "spec": spec, "status": status}, Pool()).is_well is False


def test_findings_are_read_as_the_agent_writes_them() -> None:
    """Worst first, with what is left out counted."""
    staged = SCENES["calm"]()
    staged.reports["node-1"] = report("node-1", SCTP, ANONYMOUS)
    found = fleet.row(staged.node("node-1"), Pool(), Keep(findings=True))
    assert [one.id for one in found.findings] == ["kubelet/4.2.1", "modprobe/sctp"]
    assert found.findings[0].severity is Severity.CRITICAL
    assert found.findings[0].remediation == ANONYMOUS.remediation
    assert (found.failing, found.unknown, found.more) == (2, 0, 0)
    assert fleet.row(staged.node("node-1"), Pool()).findings == ()


def test_findings_that_are_no_json_are_a_finding() -> None:
    """Never an empty list, which would look like nothing to say."""
    found = row(findings="[{")
    assert [one.status for one in found.findings] == [Status.UNKNOWN]


def test_what_had_no_room_is_counted() -> None:
    """As the agent wrote it behind the last one that fitted."""
    entry = {"id": "kubelet/4.2.1", "status": "fail", "severity": "critical", "observed": "x"}
    assert row(findings=json.dumps([entry, {"more": 7}])).more == 7


def test_history_is_read_as_the_agent_writes_it() -> None:
    """With the phases' durations and the slowest pod."""
    found = fleet.row(SCENES["done"]().node("node-1"), Pool(), Keep(history=True)).history
    assert len(found) == 1
    assert found[0].kernel_before == "6.1.0-25-amd64"
    assert found[0].kernel_after == "6.1.0-26-amd64"
    assert dict(found[0].phases)["draining"] == 40
    assert found[0].slowest == "shop/web-1 40 s"


# -- order and counts --------------------------------------------------------------------------------------------------


def test_the_order_is_by_how_much_a_person_is_needed() -> None:
    """Failed, drifted by severity, no agent, unknown, under way, waiting by how long, well by name."""

    def entry(severity: str) -> str:
        return json.dumps([{"id": "x", "status": "fail", "severity": severity, "observed": ""}])

    some = [
        row("well-10", status="hardened"),
        row("well-9", status="hardened"),
        row("unknown", status="unknown"),
        row("low", status="non-compliant", findings=entry("low")),
        row("critical", status="non-compliant", findings=entry("critical")),
        row("none"),
        row("failed", status="failed"),
    ]
    names = [one.name for one in overview.worst_first(some)]
    assert names == ["failed", "critical", "low", "none", "unknown", "well-9", "well-10"]


def test_who_holds_a_stuck_lock_stands_above_all() -> None:
    """The whole pool waits for that node."""
    staged = SCENES["stuck"]()
    held = [lock for one in staged.leases() if (lock := locks.lock_of(one)) is not None]
    rows = [*(fleet.row(one, Pool()) for one in staged.nodes()), row("drifted", status="non-compliant")]
    assert overview.worst_first(rows, held)[0].name == held[0].holder


def test_a_fleet_whose_policy_cannot_be_read_is_not_called_well() -> None:
    """Nor one whose locks cannot."""
    rows = (row(status="hardened"),)
    nothing = locks.Pause(active=False)
    assert Overview(rows, (), nothing, Policy(None, "x"), "n", 0.0).is_well
    assert not Overview(rows, (), nothing, Policy(None, "x", "403"), "n", 0.0).is_well
    assert not Overview(rows, (), nothing, Policy(None, "x"), "n", 0.0, locks_problem="403").is_well


@pytest.mark.parametrize(("agents", "said"), [((2, 3), True), ((3, 3), False), (None, False)])
def test_missing_agents_are_said(agents: tuple[int, int] | None, said: bool) -> None:
    """A Node goes on showing what an agent that is gone said last."""
    seen = Overview(
        (row(status="hardened"),), (), locks.Pause(active=False), Policy(None, "x", agents=agents), "n", 0.0
    )
    assert any(line.startswith("Agents: 2 of 3") for line in overview.footer(seen, Style())) is said


# -- locks, pause, policy ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("node-hardening-reboot-workers-0", ("workers", 0)),
        ("node-hardening-reboot-gpu-pool-12", ("gpu-pool", 12)),
        ("node-hardening-reboot-workers", None),
        ("node-hardening-reboot--1", None),
        ("somebody-elses-0", None),
    ],
)
def test_locks_are_told_from_other_leases(name: str, known: tuple[str, int] | None) -> None:
    """Pool and slot by the name."""
    found = locks.lock_of({"metadata": {"name": name}})
    assert (None if found is None else (found.pool, found.slot)) == known


def test_a_pause_that_is_not_understood_holds() -> None:
    """As the agents take it."""
    assert locks.pause_of({"data": {"until": "tomorrow"}}, 0.0).active
    assert not locks.pause_of({"data": {"until": "2020-01-01T00:00:00Z"}}, 2e9).active


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"config.yaml": "reboot: {mode: audit}\n"}, ""),
        ({"config.yaml": "reboot: {mod: x}\n"}, "does not validate"),
        ({}, "has no key"),
        (None, "has no key"),
    ],
)
def test_a_policy_is_read_or_said_why_not(data: object, problem: str) -> None:
    """A file that does not validate is not taken for the default."""
    found = policy.of({"data": data}, "configmap/x in y")
    assert (found.config is None) is bool(problem)
    assert problem in found.problem


def test_a_row_is_small() -> None:
    """Five thousand of them are bounded by what a table needs; findings are kept where they are asked for."""
    found = fleet.row(SCENES["drifted"]().node("node-2"), Pool())
    assert not hasattr(found, "__dict__")
    assert (found.findings, found.history) == ((), ())
    assert found.phase is Phase.IDLE
