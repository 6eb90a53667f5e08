"""What is on Nodes, Leases and ConfigMaps is read as it is meant; nothing missing or strange is called hardened."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any, NoReturn, cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import loads
from agent.config.schema import Pool, Reboot
from agent.kube import Kube
from agent.kube.errors import NotFound, Operation
from agent.model import Severity, Status
from agent.plugin.cluster import locks, nodes, policy, values
from agent.plugin.cluster.locks import Lock, Pause
from agent.plugin.cluster.nodes import Keep, NodeRow
from agent.plugin.cluster.policy import Policy
from agent.plugin.views import fleet
from agent.plugin.views.fleet import Fleet
from agent.reboot.cluster import LeasePhase, LeaseView
from agent.reboot.lock.lease import micro_time
from agent.reboot.phases import Phase
from agent.reboot.status import StatusReason
from agent.report.compliance import ComplianceStatus
from agent.terminal import Style
from tests.support.plugin_fleet import ANONYMOUS, SCENES, SCTP, report
from tests.support.plugin_rows import a_lock, a_row

PREFIX = "node-hardening.io/"
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
NOW = 1.8e9
DEFAULT = Policy(None, "x")
KEYS = (
    "status",
    "findings",
    "reboot",
    "reboot-status",
    "reboot-state",
    "reboot-history",
    "reboot-skip",
    "version",
    "policy",
)


def node(name: str = "a", **notes: str) -> dict[str, Any]:
    """A Ready Node with these annotations."""
    keys = {f"{PREFIX}{key.replace('_', '-')}": value for key, value in notes.items()}
    conditions = [{"type": "Ready", "status": "True"}]
    return {"metadata": {"name": name, "uid": f"u-{name}", "annotations": keys}, "status": {"conditions": conditions}}


def row(name: str = "a", **notes: str) -> NodeRow:
    """The same as a row with everything kept."""
    return nodes.row(node(name, **notes), Pool(), Keep(findings=True, history=True))


def test_a_node_without_annotations_has_no_agent() -> None:
    """Neither hardened nor non-compliant, and nothing is known of its reboots."""
    found = row()
    assert (found.compliance, found.phase, found.required, found.is_well, found.wants_reboot) == (None,) * 3 + (
        False,
        False,
    )
    assert fleet.hardened(found).text == "no agent"


@pytest.mark.parametrize(
    ("agent", "kubelet", "silent"),
    [
        ("2026-01-01T00:00:00Z", "2026-01-01T02:29:00Z", False),
        ("2026-01-01T00:00:00Z", "2026-01-01T02:31:00Z", True),
        ("2026-01-01T00:00:00Z", "2026-03-01T00:00:00Z", True),
        ("2026-01-01T05:00:00Z", "2026-01-01T00:00:00Z", False),
        ("x", "2026-01-01T00:00:00Z", False),
        ("2026-01-01T00:00:00Z", None, False),
    ],
)
def test_a_node_whose_agent_is_silent_has_unknown_status(agent: str, kubelet: object, silent: bool) -> None:
    """Whatever its annotations and label still show; measured with the node's own clock alone."""
    found = node(status="hardened")
    ours = {"type": "NodeHardened", "status": "True", "lastHeartbeatTime": agent}
    found["status"]["conditions"] = [{"type": "Ready", "status": "True", "lastHeartbeatTime": kubelet}, ours]
    one = nodes.row(found, Pool())
    assert one.is_well is not silent
    assert one.compliance is (ComplianceStatus.UNKNOWN if silent else ComplianceStatus.HARDENED)
    assert fleet.is_trouble(one) is silent


@pytest.mark.parametrize(
    ("word", "well"), [("hardened", True), ("non-compliant", False), ("failed", False), ("new word", False)]
)
def test_only_hardened_is_well(word: str, well: bool) -> None:
    """A word of a later version is unknown."""
    assert row(status=word).is_well is well
    assert row(status="new word").compliance is ComplianceStatus.UNKNOWN


@pytest.mark.parametrize("ready", ["False", "Unknown", None])
def test_a_node_that_is_not_ready_is_not_well(ready: str | None) -> None:
    """What its agent reported last is only that."""
    found = node(status="hardened")
    found["status"] = {"conditions": [{"type": "Ready", "status": ready}] if ready else []}
    assert nodes.row(found, Pool()).is_well is False


@given(st.dictionaries(st.sampled_from(KEYS), st.text(max_size=60) | JSON.map(json.dumps), max_size=8))
def test_whatever_stands_on_a_node_is_read(notes: dict[str, str]) -> None:
    """Nothing that users or other controllers write makes the plugin fail, nor makes a node well by accident."""
    found = row(**{key.replace("-", "_"): value for key, value in notes.items()})
    assert found.is_well is (notes.get("status") == "hardened")
    assert isinstance(fleet.node(found)["reboot"], dict)
    json.dumps(fleet.node(found))


@given(JSON, JSON, JSON)
def test_whatever_shape_a_node_has_it_is_read(metadata: Any, spec: Any, status: Any) -> None:
    """Also one that no API server would store."""
    assert nodes.row({"metadata": metadata, "spec": spec, "status": status}, Pool()).is_well is False


def test_findings_are_read_as_the_agent_writes_them() -> None:
    """Worst first, with what is left out counted."""
    staged = SCENES["calm"]()
    staged.reports["node-1"] = report("node-1", SCTP, ANONYMOUS)
    found = nodes.row(staged.node("node-1"), Pool(), Keep(findings=True))
    assert [one.id for one in found.findings] == ["kubelet/4.2.1", "modprobe/sctp"]
    assert found.findings[0].severity is Severity.CRITICAL
    assert found.findings[0].remediation == ANONYMOUS.remediation
    assert (found.failing, found.unknown, found.more) == (2, 0, 0)
    assert nodes.row(staged.node("node-1"), Pool()).findings == ()


def test_findings_that_are_no_json_are_a_finding() -> None:
    """Never an empty list, which would look like nothing to say."""
    found = row(findings="[{")
    assert [one.status for one in found.findings] == [Status.UNKNOWN]


def test_what_did_not_fit_is_counted() -> None:
    """As the agent wrote it behind the last one that fitted."""
    entry = {"id": "kubelet/4.2.1", "status": "fail", "severity": "critical", "observed": "x"}
    assert row(findings=json.dumps([entry, {"more": 7}])).more == 7


def test_history_is_read_as_the_agent_writes_it() -> None:
    """With the phases' durations and the slowest pod."""
    found = nodes.row(SCENES["done"]().node("node-1"), Pool(), Keep(history=True)).history
    assert len(found) == 1
    assert found[0].kernel_before == "6.1.0-25-amd64"
    assert found[0].kernel_after == "6.1.0-26-amd64"
    assert dict(found[0].phases)["draining"] == 40
    assert found[0].slowest == "shop/web-1 40 s"


# -- order and counts --------------------------------------------------------------------------------------------------


def test_the_order_is_by_how_much_attention_is_needed() -> None:
    """Failed, non-compliant by severity, no agent, unknown, under way, waiting by how long, well by name."""

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
    names = [one.name for one in the_fleet(*some).rows]
    assert names == ["failed", "critical", "low", "none", "unknown", "well-9", "well-10"]


def the_fleet(*rows: NodeRow, held: tuple[Lock, ...] = (), rules: Policy = DEFAULT, problem: str = "") -> Fleet:
    return fleet.fleet(
        rows, held, pause=Pause(active=False), rules=rules, namespace="n", now=NOW, locks_problem=problem
    )


def test_the_holder_of_a_stuck_lock_is_above_all() -> None:
    """The whole pool waits for that node."""
    staged = SCENES["stuck"]()
    held = tuple(lock for one in staged.leases() if (lock := locks.lock_of(one)) is not None)
    rows = [*(nodes.row(one, Pool()) for one in staged.nodes()), row("other", status="non-compliant")]
    seen = fleet.fleet(rows, held, pause=Pause(active=False), rules=DEFAULT, namespace="n", now=staged.now)
    assert seen.rows[0].name == held[0].holder


def test_a_fleet_whose_policy_cannot_be_read_is_not_called_well() -> None:
    """Nor one whose locks cannot."""
    well = row(status="hardened")
    assert the_fleet(well).is_well
    assert not the_fleet(well, rules=Policy(None, "x", "403")).is_well
    assert not the_fleet(well, problem="403").is_well


@pytest.mark.parametrize(("agents", "shown"), [((2, 3), True), ((3, 3), False), (None, False)])
def test_missing_agents_are_reported(agents: tuple[int, int] | None, shown: bool) -> None:
    """A Node keeps showing what an agent that is gone reported last."""
    seen = the_fleet(row(status="hardened"), rules=Policy(None, "x", agents=agents))
    assert any(line.startswith("Agents: 2/3 ready") for line in fleet.footer(seen, Style())) is shown


def test_a_policy_that_is_held_back_is_in_the_footer() -> None:
    """The audit mode is the ConfigMap's, which such a node does not have yet."""
    rollout = {"v": 1, "revision": "a" * 12, "target": "b" * 12, "phase": "WaitingForCanaries"}
    held, tried = (row(rollout=json.dumps(rollout | {"revision": one * 12})) for one in "ab")
    audits = Policy(loads("modprobe: {mode: audit}", "config.yaml"), "x")
    footer = "\n".join(fleet.footer(the_fleet(held, tried, rules=audits), Style()))
    assert "Policy: a changed one is held back, 1 node keeps the last\n  -> kubectl node-hardening rollout" in footer
    assert "(by the changed policy, not where the last is kept)" in footer
    assert "held back" not in "\n".join(fleet.footer(the_fleet(tried, rules=audits), Style()))


# -- the reboot's status -----------------------------------------------------------------------------------------------


def status(phase: str, reason: str, **more: object) -> str:
    """The annotation `reboot-status`."""
    base = {"v": 1, "phase": phase, "reason": reason, "mode": "enforce", "required": True, "message": "m"}
    return json.dumps({**base, **more})


def test_the_status_is_read_as_data() -> None:
    """Phase, reason, moments, numbers; the sentence beside it is not looked at."""
    found = row(
        reboot="anything", reboot_status=status("blocked", "OutsideWindow", since="2026-11-28T06:00:00Z", failures=2)
    )
    assert (found.phase, found.reason, found.message) == (Phase.BLOCKED, StatusReason.OUTSIDE_WINDOW, "m")
    assert (found.since, found.required, found.is_outdated) == (1795845600.0, True, False)


def test_an_older_agents_node_is_shown_with_its_sentence() -> None:
    """Beside a newer one's: phase by the state, nothing concluded from words."""
    old = row(reboot="blocked by windows: the next opens Mon", status="hardened", version="0.1.0")
    new = row(name="b", reboot="x", reboot_status=status("idle", "NotRequired", required=False), status="hardened")
    assert (old.phase, old.reason, old.is_outdated) == (Phase.UNKNOWN, None, True)
    assert old.message == "blocked by windows: the next opens Mon"
    assert not new.is_outdated
    footer = "\n".join(fleet.footer(the_fleet(old, new), Style()))
    assert "1 node with an agent too old to report details" in footer


def test_a_malformed_status_is_unknown() -> None:
    """Never idle, and never an older agent."""
    for text in ("{", "[]", "null", '{"v":1}', "x" * 10_000):
        found = row(reboot_status=text)
        assert (found.phase, found.reason, found.is_outdated) == (Phase.UNKNOWN, None, False)


@pytest.mark.parametrize(
    ("phase", "shown"),
    [
        ("idle", Phase.REBOOTING), ("pending", Phase.REBOOTING), ("draining", Phase.REBOOTING),
        ("rebooting", Phase.REBOOTING), ("verifying", Phase.VERIFYING), ("releasing", Phase.RELEASING),
        ("rolled-back", Phase.ROLLED_BACK),
    ],
)  # fmt: skip
def test_a_lease_beats_an_older_status(phase: str, shown: Phase) -> None:
    """A holder that was given the command is rebooting, whatever its agent could write last; not past the reboot."""
    one = row(reboot_status=status(phase, "Draining"))
    mine = a_lock(rebooting(holder=f"{one.name}/{one.uid}"))
    assert nodes.with_locks(one, [mine]).phase is shown
    assert nodes.with_locks(one, [a_lock(rebooting(holder=f"{one.name}/other"))]).phase is one.phase


def rebooting(**more: object) -> LeaseView:
    base = {"holder": "a/u-a", "phase": LeasePhase.REBOOTING, "renewed": micro_time(NOW - 60), "boot": "b"}
    return LeaseView("node-hardening-reboot-workers-0", **{**base, **more})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("lease", "stuck"),
    [
        (rebooting(renewed=micro_time(NOW - 1500)), False),
        (rebooting(renewed=micro_time(NOW - 1501)), True),
        (rebooting(renewed=micro_time(NOW - 9999), phase=LeasePhase.HELD), False),
        (rebooting(renewed=micro_time(NOW + 9999)), False),
        (rebooting(renewed=""), False),
        (rebooting(stuck="b"), True),
        (rebooting(holder="", renewed=micro_time(NOW - 9999)), False),
    ],
)
def test_stuck_follows_from_the_leases_age(lease: LeaseView, stuck: bool) -> None:
    """In a pool of one too, where no waiter ever marks it: rebootTimeout and verifyTimeout are 25 minutes."""
    lock = a_lock(lease)
    assert lock.is_stuck(NOW, Reboot()) is stuck
    seen = the_fleet(a_row("a", uid="u-a"), held=(lock,))
    assert (seen.is_well, "STUCK" in "\n".join(fleet.footer(seen, Style()))) == (not stuck, stuck)


# -- values ------------------------------------------------------------------------------------------------------------


@given(st.text(max_size=2000) | st.none() | st.integers())
def test_a_text_is_one_printable_bounded_line(value: object) -> None:
    """Whatever an object holds."""
    found = values.text(value)
    assert found.isprintable()
    assert len(found) <= values.TEXT_CHARACTERS
    assert values.text(found) == found


@pytest.mark.parametrize(
    ("value", "known"),
    [
        ("node-1", True), ("a.b-c.d", True), ("", False), ("-a", False), ("a..b", False), ("Node", False),
        ("a b", False), ("a;reboot", False), ("$(x)", False), ("a\n", False), ("a" * 254, False), (None, False),
    ],
)  # fmt: skip
def test_only_a_name_is_a_name(value: object, known: bool) -> None:
    """DNS subdomains; nothing else reaches a suggested command."""
    assert values.name(value) == (value if known else "")


@given(st.floats() | st.integers() | st.text(max_size=30) | st.datetimes().map(lambda at: f"{at.isoformat()}Z"))
def test_a_moment_can_be_shown(value: object) -> None:
    """Out of range is unknown: no moment of a row ends in an OverflowError."""
    found = values.timestamp(value)
    assert 0.0 <= found < 4102444800.0
    datetime.fromtimestamp(found, UTC)


# -- locks, pause, policy ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("node-hardening-reboot-workers-0", ("workers", 0)),
        ("node-hardening-reboot-gpu-pool-12", ("gpu-pool", 12)),
        ("node-hardening-reboot-workers", None),
        ("node-hardening-reboot--1", None),
        ("another-controllers-0", None),
        ("node-hardening-reboot-Workers-0", None),
        ("node-hardening-reboot-w-99999", None),
    ],
)
def test_locks_are_distinguished_from_other_leases(name: str, known: tuple[str, int] | None) -> None:
    """Pool and slot by the name."""
    found = locks.lock_of({"metadata": {"name": name}})
    assert (None if found is None else (found.pool, found.slot)) == known


def test_a_pause_that_is_not_understood_holds() -> None:
    """As the agents take it."""
    assert locks.pause_of({"data": {"until": "tomorrow"}}, 0.0).active
    assert not locks.pause_of({"data": {"until": "2020-01-01T00:00:00Z"}}, 2e9).active


def test_a_pause_behind_a_path_that_is_not_served_is_unknown() -> None:
    """Such a 404 is of a proxy or an aggregator, and does not mean that there is no pause."""

    class Elsewhere:
        def get(self, *_: object) -> NoReturn:
            raise NotFound(Operation("GET", "get", "configmaps", "configmaps/pause", "/"), "page not found", status=404)

    pause = locks.pause(cast("Kube", Elsewhere()), "ns", NOW)
    assert (pause.active, pause.is_known) == (True, False)


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"config.yaml": "reboot: {mode: audit}\n"}, ""),
        ({"config.yaml": "reboot: {mod: x}\n"}, "does not validate"),
        ({}, "has no key"),
        (None, "has no key"),
    ],
)
def test_a_policy_is_read_or_its_problem_reported(data: object, problem: str) -> None:
    """A file that does not validate is not taken for the default."""
    found = policy.of({"data": data}, "configmap/x in y")
    assert (found.config is None) is bool(problem)
    assert problem in found.problem


def test_a_row_is_small() -> None:
    """Five thousand of them are bounded by what a table needs; findings are kept where they are asked for."""
    found = nodes.row(SCENES["non-compliant"]().node("node-2"), Pool())
    assert not hasattr(found, "__dict__")
    assert (found.findings, found.history) == ((), ())
    assert found.phase is Phase.IDLE


def test_what_only_reports_is_named_below_the_table() -> None:
    """Sections that could act; one that only audits in any case, and one that is off, are not."""
    config = loads("modprobe: {mode: audit}\nreboot: {mode: audit}\nseccomp: {mode: off}\n", "config.yaml")
    seen = fleet.fleet([a_row("a")], (), pause=Pause(active=False), rules=Policy(config, "x"), namespace="n", now=NOW)
    assert "Audit mode, which reports and changes nothing: modprobe, reboot" in fleet.footer(seen, Style())
    enforced = fleet.fleet([], (), pause=Pause(active=False), rules=DEFAULT, namespace="n", now=NOW)
    assert "Audit mode" not in "".join(fleet.footer(enforced, Style()))
