"""The verdict in every phase: what comes first, in which order, and what to type next."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.annotations import LAST_CHANGE, SUMMARY
from agent.plugin.cluster import locks, nodes, policy
from agent.plugin.cluster.node_context import AgentPod, NodeContext, pod_of
from agent.plugin.cluster.nodes import Keep
from agent.plugin.cluster.policy import Policy
from agent.plugin.diagnosis.verdict import Verdict, verdict
from agent.reboot.kube.views import node_view
from agent.reboot.phases import Phase
from agent.reboot.status import StatusReason
from agent.report.compliance import ComplianceStatus
from agent.rollout import reports
from tests.support.plugin_fleet import ANONYMOUS, NAMESPACE, NO_KUBELET, SCENES, SCTP, WINDOWS, Staged, report
from tests.support.plugin_rows import a_lock

_RUNS = AgentPod("node-hardening-agent-x", ready=True)


def context(staged: Staged, name: str, **more: object) -> NodeContext:
    """What the plugin would have read of a node of this fleet."""
    found = staged.node(name)
    rules = policy.of({"data": {"config.yaml": staged.policy}}, "configmap/node-hardening-config in node-hardening")
    held = tuple(lock for one in staged.leases() if (lock := locks.lock_of(one)) is not None)
    notes = node_view(found).annotations
    known = NodeContext(
        row=nodes.with_locks(nodes.row(found, rules.pool, Keep(findings=True, history=True)), held),
        summary=notes.get(SUMMARY, ""),
        last_change=notes.get(LAST_CHANGE, ""),
        rules=rules,
        pod=_RUNS,
        locks=held,
        holders={lock.holder: nodes.row(staged.node(lock.holder), rules.pool) for lock in held if not lock.is_free},
        pause=locks.pause_of(staged.pause, staged.now) if staged.pause else locks.Pause(active=False),
        now=staged.now,
        namespace=NAMESPACE,
        rollout=reports.report(found),
    )
    return replace(known, **more)  # type: ignore[arg-type]


def codes(found: Verdict) -> tuple[list[str], list[str]]:
    """Codes of both halves, in order."""
    return [one.code for one in found.hardening], [one.code for one in found.reboot]


def holder(staged: Staged) -> str:
    """The node that holds the lock."""
    return str(staged.leases()[0]["spec"]["holderIdentity"]).partition("/")[0]


def waiter(staged: Staged) -> str:
    """One that does not."""
    return next(name for name in staged.names if name != holder(staged))


# -- each phase --------------------------------------------------------------------------------------------------------


def test_a_calm_node_is_well() -> None:
    """Nothing to do: one line, and no reasons."""
    found = verdict(context(SCENES["calm"](), "node-1"))
    assert (found.well, codes(found)) == (True, ([], []))
    assert found.headline == "node-1 is hardened; it needs no reboot."


@pytest.mark.parametrize(
    ("scene", "who", "code", "step"),
    [
        ("outside-window", "node-1", "OutsideWindow", "kubectl node-hardening forecast"),
        ("paused", "node-1", "Paused", "kubectl node-hardening resume"),
        ("skipped", "node-1", "OptedOut", "kubectl node-hardening skip node-1 --off"),
        ("skipped", "node-2", "BlockedByAlerts", "fix what is firing"),
        ("waiting", "waiter", "WaitingForLock", "kubectl node-hardening why HOLDER"),
        ("waiting", "holder", "Cordoned", ""),
        ("draining", "waiter", "WaitingForLock", "kubectl node-hardening why HOLDER"),
        ("draining", "holder", "DrainBlocked", "kubectl -n shop describe pdb web"),
        ("rebooting", "holder", "Rebooting", ""),
        ("verifying", "holder", "Verifying", "kubectl node-hardening status HOLDER"),
        ("failed", "node-1", "RolledBack", "kubectl describe node node-1"),
        ("stuck", "waiter", "LockStuck", "kubectl node-hardening unlock workers/0"),
        ("stuck", "holder", "NotBack", "kubectl node-hardening unlock workers/0"),
        ("looping", "node-1", "SentinelUnchanged", "kubectl node-hardening reboot node-1"),
        ("sentinel-unknown", "node-1", "SentinelUnknown", "kubectl node-hardening reboot node-1"),
    ],
)
def test_what_blocks_a_node_comes_first_with_its_next_step(scene: str, who: str, code: str, step: str) -> None:
    """One phase each; the step is a command where there is one."""
    staged = SCENES[scene]()
    name = {"holder": holder, "waiter": waiter}[who](staged) if who in ("holder", "waiter") else who
    found = verdict(context(staged, name))
    assert not found.well
    assert found.reboot[0].code == code, found
    wanted = step.replace("HOLDER", holder(staged)) if "HOLDER" in step else step
    assert any(one.startswith(wanted) for one in found.reboot[0].next) or not (wanted or found.reboot[0].next), found


def test_a_waiting_node_names_the_holder_how_long_and_what_it_does() -> None:
    """The lock, the node that has it, since when, and that node's own message with the budget and its owner."""
    staged = SCENES["draining"]()
    message = verdict(context(staged, waiter(staged))).reboot[0].message
    for words in ("workers/0", holder(staged), "15m", "0 of 2", "shop/web (Deployment web)"):
        assert words in message


def test_a_drain_names_its_deadline_and_what_happens_then() -> None:
    """drain.timeout is 30 minutes by default, and then the agent aborts."""
    staged = SCENES["draining"]()
    reason = verdict(context(staged, holder(staged))).reboot[0]
    assert "aborts and uncordons at 2026-11-10 22:43Z" in reason.message
    assert reason.until == pytest.approx(staged.began + 1800, abs=2)


def test_a_window_names_its_next_opening_and_how_long_that_is() -> None:
    """In the window's own time zone."""
    found = verdict(context(SCENES["outside-window"](), "node-1"))
    assert "Mon 2026-11-16 22:00 CET, in 3d11h" in found.reboot[0].message
    assert found.reboot[0].until == 1794862800.0
    assert "3d11h" in found.headline


def test_a_failed_reboot_names_why_and_when_it_tries_again() -> None:
    """By the status's own moment."""
    staged = SCENES["failed"]()
    reason = verdict(context(staged, "node-1")).reboot[0]
    assert "Failed to connect to bus" in reason.message
    assert "in 7m59s" in reason.message
    later = replace(context(staged, "node-1"), now=staged.now + 60)
    assert "in 6m59s" in verdict(later).reboot[0].message


def test_a_node_that_is_on_its_way_down_is_not_called_broken() -> None:
    """Not Ready is as it should be, until the timeouts are over."""
    staged = SCENES["rebooting"]()
    found = verdict(context(staged, holder(staged), pod=AgentPod("p", ready=False, trouble="Running")))
    assert codes(found) == ([], ["Rebooting"])
    late = replace(context(staged, holder(staged)), now=staged.now + 3600)
    assert codes(verdict(late))[1] == ["NotBack"]


# -- the order, and what comes after -----------------------------------------------------------------------------------


def test_what_would_block_it_next_is_listed_too() -> None:
    """A node that waits for the lock while the cluster is paused and it was opted out: all of it, in order."""
    staged = SCENES["waiting"]()
    name = waiter(staged)
    staged.paused()
    known = context(staged, name)
    known = replace(known, row=replace(known.row, skip="OPS-1"))
    assert codes(verdict(known))[1] == ["WaitingForLock", "OptedOut", "Paused"]


def test_a_window_that_closes_behind_the_lock_is_listed() -> None:
    """Whoever waits for the lock learns that it would not help."""
    staged = Staged(WINDOWS, began=1_794_862_800.0)  # as Monday's opens
    for name in staged.names:
        staged.machine(name).pdb_until = 1e9
    staged.want()
    staged.until_phase(staged.first(), Phase.DRAINING)
    known = context(staged, waiter(staged))
    assert codes(verdict(known))[1] == ["WaitingForLock"]
    assert codes(verdict(replace(known, now=staged.now + 7 * 3600)))[1] == ["WaitingForLock", "OutsideWindow"]


@pytest.mark.parametrize("scene", ["paused", "outside-window", "skipped"])
def test_what_is_over_is_not_repeated(scene: str) -> None:
    """The status is older than the live object: nothing is claimed that is over."""
    staged = SCENES[scene]()
    known = context(staged, "node-1")
    over = replace(known, pause=locks.Pause(active=False), row=replace(known.row, skip=""), now=1_794_862_801.0)
    found = verdict(over)
    assert codes(found)[1] == ["AcquiringLock"]
    assert found.headline.endswith("its reboot waits: what its agent reported last is over: it acquires the lock next.")
    assert not found.well


def test_a_pause_that_cannot_be_read_still_holds() -> None:
    """Unknown is not no."""
    staged = SCENES["paused"]()
    unknown = locks.Pause(active=True, sentence="unknown: 403", is_known=False)
    found = verdict(context(staged, "node-1", pause=unknown))
    assert codes(found)[1] == ["Paused"]
    assert "unknown: 403" in found.reboot[0].message


def test_locks_that_cannot_be_read_are_reported() -> None:
    """A reader without rights on Leases still learns that it is the lock."""
    staged = SCENES["waiting"]()
    found = verdict(context(staged, waiter(staged), locks=(), locks_problem="403 Forbidden"))
    assert codes(found)[1] == ["WaitingForLock"]
    assert "403 Forbidden" in found.reboot[0].message


def test_a_lock_whose_holder_is_gone_is_taken_over() -> None:
    """No user has to unlock what the next node takes over by itself."""
    staged = SCENES["waiting"]()
    found = verdict(context(staged, waiter(staged), holders={}))
    assert "whose Node is gone: the next node takes it over" in found.reboot[0].message


def test_a_second_slot_that_is_free_is_no_obstacle() -> None:
    """With two slots one busy lock blocks no node."""
    staged = SCENES["waiting"]()
    known = context(staged, waiter(staged))
    free = a_lock(replace(known.locks[0].view, name="node-hardening-reboot-workers-1", holder=""))
    assert codes(verdict(replace(known, locks=(*known.locks, free))))[1] == ["AcquiringLock"]


def test_audit_reports_what_it_would_do() -> None:
    """And that it does nothing."""
    staged = Staged("reboot: {mode: audit}\n")
    staged.machine("node-1").blocked_by = "alerts: X"
    staged.want("node-1")
    staged.run(60)
    found = verdict(context(staged, "node-1"))
    assert codes(found)[1] == ["BlockedByAlerts"]
    assert "alerts: X" in found.reboot[0].message
    assert found.headline == "node-1 is hardened; it needs a reboot, and reboot.mode is audit."


def test_reboots_that_are_off() -> None:
    """A request that no agent will act on is reported; otherwise off is no trouble."""
    staged = SCENES["calm"]()
    known = context(staged, "node-1")
    off = policy.of({"data": {"config.yaml": "reboot: {mode: off}\n"}}, "configmap/x in y")
    quiet = replace(known, rules=off, row=replace(known.row, phase=None, required=None, mode="off"))
    assert codes(verdict(quiet))[1] == []
    asked = replace(quiet, row=replace(quiet.row, requested="OPS-1"))
    assert codes(verdict(asked))[1] == ["ModeOff"]


def test_an_unreadable_state_is_reported_with_the_way_out() -> None:
    """The agent does nothing on a state that it cannot read; on-call learns how to start from scratch."""
    staged = SCENES["waiting"]()
    known = context(staged, waiter(staged))
    row = replace(known.row, phase=Phase.UNKNOWN, reason=StatusReason.STATE_UNREADABLE, message="not JSON")
    found = verdict(replace(known, row=row))
    assert codes(found)[1] == ["StateUnreadable"]
    assert any("reboot-state-" in step for step in found.reboot[0].next)


def test_an_older_agents_node_says_so() -> None:
    """Its sentence is shown; codes come from the live objects alone."""
    known = context(SCENES["paused"](), "node-1")
    row = replace(
        known.row, reason=None, is_outdated=True, message="blocked by the cluster's pause", phase=Phase.PENDING
    )
    found = verdict(replace(known, row=row))
    assert codes(found)[1] == ["AgentOutdated", "Paused"]
    assert "is too old to report details: blocked by the cluster's pause" in found.reboot[0].message


def test_a_malformed_status_is_unknown() -> None:
    """Not idle, and not an older agent."""
    known = context(SCENES["calm"](), "node-1")
    found = verdict(replace(known, row=replace(known.row, reason=None, phase=Phase.UNKNOWN, required=None)))
    assert codes(found)[1] == ["StatusMalformed"]
    assert not found.well


def test_a_lock_with_an_invalid_holder_can_be_freed() -> None:
    """What stands there is shown, and never part of a command."""
    staged = SCENES["waiting"]()
    known = context(staged, waiter(staged))
    forged = a_lock(replace(known.locks[0].view, holder="-> kubectl delete node x;\x1b[2J/uid"))
    advice = verdict(replace(known, locks=(forged,))).reboot[0]
    assert (advice.code, advice.next) == ("LockInvalid", ("kubectl node-hardening unlock workers/0",))
    assert "an invalid holder ('-> kubectl delete node x; [2J/uid')" in advice.message


def test_every_reason_has_advice() -> None:
    """A reason that an agent can publish never ends in an empty line."""
    known = context(SCENES["calm"](), "node-1")
    for reason in set(StatusReason) - {StatusReason.NOT_REQUIRED, StatusReason.MODE_OFF}:
        for phase in (Phase.BLOCKED, Phase.DRAINING, Phase.REBOOTING, Phase.VERIFYING, Phase.RELEASING):
            row = replace(known.row, phase=phase, reason=reason, required=True, message="")
            assert all(one.message and one.code for one in verdict(replace(known, row=row)).reboot), reason


# -- hardening ---------------------------------------------------------------------------------------------------------


def test_findings_come_worst_first_with_what_is_expected_and_the_next_step() -> None:
    """As the agent has them on the Node."""
    found = verdict(context(SCENES["non-compliant"](), "node-2"))
    assert codes(found)[0] == ["finding:kubelet/4.2.1", "finding:modprobe/sctp"]
    assert (
        found.hardening[0].message
        == "critical: kubelet/4.2.1 (Anonymous requests are refused) failed: true (expected false)"
    )
    assert found.hardening[0].next[0].startswith("Set authentication.anonymous.enabled: false")
    assert found.headline.startswith("node-2 is not hardened (2 findings, worst critical);")


def test_unknown_is_never_hardened() -> None:
    """Unknown is a reason of its own."""
    found = verdict(context(SCENES["non-compliant"](), "node-3"))
    assert codes(found)[0] == ["finding:kubelet/process"]
    assert found.headline.startswith("node-3 has unknown status;")
    assert not found.well


@pytest.mark.parametrize(
    ("pod", "code", "step"),
    [
        (AgentPod(ready=False), "NoAgent", "kubectl -n node-hardening get daemonset node-hardening-agent"),
        (
            AgentPod("p", ready=False, trouble="CrashLoopBackOff", restarts=7),
            "AgentNotReady", "kubectl -n node-hardening logs p --previous",
        ),
        (AgentPod("p", ready=False, trouble="ImagePullBackOff"), "AgentNotReady", "kubectl -n node-hardening logs p"),
        (AgentPod("p", ready=True), "FirstPass", "kubectl -n node-hardening logs p"),
        (AgentPod(trouble="403 Forbidden"), "NoAgent", ""),
    ],
)  # fmt: skip
def test_a_node_that_no_agent_ever_checked(pod: AgentPod, code: str, step: str) -> None:
    """Why, from the DaemonSet's pod on it."""
    staged = SCENES["without-agent"]()
    found = verdict(context(staged, "node-2", pod=pod))
    assert codes(found) == ([code], [])
    assert found.hardening[0].next[:1] == ((step,) if step else ())
    assert not found.well


def test_a_crashing_agent_makes_its_report_uncertain() -> None:
    """The Node still says hardened; the verdict does not."""
    known = context(SCENES["calm"](), "node-1", pod=AgentPod("p", ready=False, trouble="CrashLoopBackOff", restarts=3))
    found = verdict(known)
    assert codes(found)[0] == ["AgentNotReady"]
    assert "was hardened at its agent's last report" in found.headline
    assert not found.well


def test_a_silent_kubelet_makes_everything_old() -> None:
    """Ready is Unknown, and no reboot of ours explains it."""
    known = context(SCENES["calm"](), "node-1")
    found = verdict(replace(known, row=replace(known.row, ready=None)))
    assert codes(found)[0] == ["NodeNotReady"]
    assert not found.well


def test_a_rejected_configuration_comes_before_the_findings() -> None:
    """Fixing findings of a policy that is not in force would be in vain."""
    known = context(SCENES["non-compliant"](), "node-2")
    row = replace(known.row, config_problem="config.yaml:3: reboot.mod: unknown key")
    found = verdict(replace(known, row=row))
    assert codes(found)[0][0] == "ConfigRejected"
    assert found.hardening[0].next[0] == "kubectl -n node-hardening edit configmap/node-hardening-config"


def test_a_policy_that_is_held_back_is_named_with_what_decides_it() -> None:
    """The findings are of the policy in force. The canary itself works by the changed one."""
    staged = SCENES["canary-failed"]()
    found = verdict(context(staged, "node-2"))
    assert codes(found)[0] == ["PolicyHeldBack"]
    assert found.hardening[0].next == ("kubectl node-hardening rollout status",)
    assert codes(verdict(context(staged, "node-1")))[0] == ["PolicyFailed"]


def test_many_findings_are_counted_below_the_worst() -> None:
    """Eight with words, the rest as a number."""
    staged = SCENES["calm"]()
    many = [replace(SCTP, id=f"modprobe/m{number}") for number in range(12)]
    staged.reports["node-1"] = report("node-1", ANONYMOUS, NO_KUBELET, *many)
    found = verdict(context(staged, "node-1"))
    assert codes(found)[0][-1] == "MoreFindings"
    assert "6 more findings" in found.hardening[-1].message


def test_a_failed_change_is_reported() -> None:
    """Failed is worse than non-compliant: the agent tried."""
    staged = SCENES["calm"]()
    known = context(staged, "node-1")
    failed = replace(known.row, compliance=ComplianceStatus.FAILED)
    assert codes(verdict(replace(known, row=failed)))[0] == ["ApplyFailed"]


def test_no_verdict_is_well_where_something_is_reported(scenes: list[tuple[str, Staged]]) -> None:
    """Over every node of every scene: well means hardened, Ready, and nothing under way; and every reason has words."""
    for scene, staged in scenes:
        for name in staged.names:
            known = context(staged, name)
            found = verdict(known)
            nothing = not (found.hardening or found.reboot or known.row.wants_reboot)
            assert found.well == (nothing and known.row.is_well), scene
            assert all(one.message and one.code for one in (*found.hardening, *found.reboot)), scene
            assert found.headline.startswith(f"{name} "), scene


@pytest.fixture(scope="module")
def scenes() -> list[tuple[str, Staged]]:
    """Every scene once."""
    return [(name, make()) for name, make in SCENES.items()]


# -- pods --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "ready", "trouble"),
    [
        ({"phase": "Running", "containerStatuses": [{"ready": True}]}, True, ""),
        ({"phase": "Pending"}, False, "Pending"),
        ({}, False, "Unknown"),
        (
            {"containerStatuses": [{"ready": False, "state": {"waiting": {"reason": "CrashLoopBackOff"}}}]},
            False,
            "CrashLoopBackOff",
        ),
    ],
)  # fmt: skip
def test_a_pod_is_ready_only_when_it_says_so(status: dict[str, object], ready: bool, trouble: str) -> None:
    """The waiting reason where there is one, else the phase."""
    found = pod_of({"metadata": {"name": "p"}, "status": status})
    assert (found.ready, found.trouble) == (ready, trouble)


def test_a_policy_that_cannot_be_read_is_not_taken_for_the_default() -> None:
    """Windows then come from the agent's message."""
    staged = SCENES["outside-window"]()
    found = verdict(context(staged, "node-1", rules=Policy(None, "configmap/x in y", "403")))
    assert codes(found)[1] == ["OutsideWindow"]
    assert "the next opens Mon" in found.reboot[0].message
