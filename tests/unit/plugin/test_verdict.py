"""The verdict in every phase: what is told first, in which order, and what to type next."""

from __future__ import annotations

from dataclasses import replace

import pytest

from agent.plugin.cluster import locks, policy
from agent.plugin.cluster import nodes as fleet
from agent.plugin.cluster.locks import Lock
from agent.plugin.cluster.node_context import AgentPod, Facts, pod_of
from agent.plugin.cluster.nodes import Keep
from agent.plugin.cluster.policy import Policy
from agent.plugin.diagnosis.verdict import Verdict, verdict
from agent.reboot.state import Phase
from agent.report import node_status
from agent.report.node_status import ComplianceStatus
from tests.support.plugin_fleet import ANONYMOUS, NAMESPACE, SCENES, SCTP, UNTOLD, WINDOWS, Staged, report

_RUNS = AgentPod("node-hardening-agent-x", ready=True)


def facts(fleet_: Staged, name: str, **more: object) -> Facts:
    """What the plugin would have read of a node of this fleet."""
    found = fleet_.node(name)
    rules = policy.of({"data": {"config.yaml": fleet_.policy}}, "configmap/node-hardening-config in node-hardening")
    held = tuple(lock for one in fleet_.leases() if (lock := locks.lock_of(one)) is not None)
    seen = node_view(found)
    known = Facts(
        row=fleet.row(found, rules.pool, Keep(findings=True, history=True)),
        state=fleet.state_of(seen.annotations),
        summary=seen.annotations.get(node_status.SUMMARY, ""),
        last_change=seen.annotations.get(node_status.LAST_CHANGE, ""),
        rules=rules,
        pod=_RUNS,
        locks=held,
        holders={lock.holder: fleet.row(fleet_.node(lock.holder), rules.pool) for lock in held if not lock.is_free},
        pause=locks.pause_of(fleet_.pause, fleet_.now) if fleet_.pause else locks.Pause(active=False),
        now=fleet_.now,
        namespace=NAMESPACE,
    )
    return replace(known, **more)  # type: ignore[arg-type]


def codes(found: Verdict) -> tuple[list[str], list[str]]:
    """Codes of both halves, in order."""
    return [one.code for one in found.hardening], [one.code for one in found.reboot]


def holder(fleet_: Staged) -> str:
    """The node that holds the lock."""
    return str(fleet_.leases()[0]["spec"]["holderIdentity"]).partition("/")[0]


def waiter(fleet_: Staged) -> str:
    """One that does not."""
    return next(name for name in fleet_.names if name != holder(fleet_))


# -- each phase --------------------------------------------------------------------------------------------------------


def test_a_calm_node_is_well() -> None:
    """Nothing to do: one line, and no reasons."""
    found = verdict(facts(SCENES["calm"](), "node-1"))
    assert (found.well, codes(found)) == (True, ([], []))
    assert found.headline == "node-1 is hardened; it needs no reboot."


@pytest.mark.parametrize(
    ("scene", "who", "code", "step"),
    [
        ("outside-window", "node-1", "window", "kubectl node-hardening forecast"),
        ("paused", "node-1", "pause", "kubectl node-hardening resume"),
        ("skipped", "node-1", "skip", "kubectl node-hardening skip node-1 --off"),
        ("skipped", "node-2", "prometheus", "mend what is firing"),
        ("waiting", "waiter", "lock", "kubectl node-hardening why HOLDER"),
        ("waiting", "holder", "cordoned", ""),
        ("draining", "waiter", "lock", "kubectl node-hardening why HOLDER"),
        ("draining", "holder", "draining", "kubectl -n shop describe pdb web"),
        ("rebooting", "holder", "rebooting", ""),
        ("verifying", "holder", "verifying", "kubectl node-hardening status HOLDER"),
        ("failed", "node-1", "failed", "kubectl describe node node-1"),
        ("stuck", "waiter", "lock-stuck", "kubectl node-hardening unlock workers/0"),
        ("stuck", "holder", "not-back", "kubectl node-hardening unlock workers/0"),
        ("looping", "node-1", "loop-guard", "kubectl node-hardening reboot node-1"),
        ("untold", "node-1", "sentinel-unknown", "kubectl node-hardening reboot node-1"),
    ],
)
def test_what_holds_a_node_comes_first_with_its_next_step(scene: str, who: str, code: str, step: str) -> None:
    """One phase each; the step is a command where there is one."""
    staged = SCENES[scene]()
    name = {"holder": holder, "waiter": waiter}[who](staged) if who in ("holder", "waiter") else who
    found = verdict(facts(staged, name))
    assert not found.well
    assert found.reboot[0].code == code, found
    wanted = step.replace("HOLDER", holder(staged)) if "HOLDER" in step else step
    assert any(one.startswith(wanted) for one in found.reboot[0].next) or not (wanted or found.reboot[0].next), found


def test_a_waiting_node_names_the_holder_how_long_and_what_it_does() -> None:
    """The lock, the node that has it, since when, and that node's own sentence with the budget and its owner."""
    staged = SCENES["draining"]()
    said = verdict(facts(staged, waiter(staged))).reboot[0].said
    for words in ("workers/0", holder(staged), "15m", "draining 0 of 2", "held by shop/web (Deployment web)"):
        assert words in said


def test_a_drain_names_its_deadline_and_what_happens_then() -> None:
    """drain.timeout is 30 minutes by default, and then the agent gives up."""
    staged = SCENES["draining"]()
    reason = verdict(facts(staged, holder(staged))).reboot[0]
    assert "gives up and uncordons at 2023-11-14 22:43Z" in reason.said
    assert reason.until == pytest.approx(staged.began + 1800, abs=2)


def test_a_window_names_its_next_opening_and_how_long_that_is() -> None:
    """In the window's own time zone."""
    found = verdict(facts(SCENES["outside-window"](), "node-1"))
    assert "Mon 2023-11-20 22:00 CET, in 3d11h" in found.reboot[0].said
    assert found.reboot[0].until == 1700514000.0
    assert "3d11h" in found.headline


def test_a_failed_reboot_names_why_and_when_it_tries_again() -> None:
    """By the state's own stamp, not by a sentence that grows old."""
    staged = SCENES["failed"]()
    reason = verdict(facts(staged, "node-1")).reboot[0]
    assert "Failed to connect to bus" in reason.said
    assert "in 8m" in reason.said
    later = replace(facts(staged, "node-1"), now=staged.now + 60)
    assert "in 7m" in verdict(later).reboot[0].said


def test_a_node_that_is_on_its_way_down_is_not_called_broken() -> None:
    """Not Ready is as it should be, until the timeouts are over."""
    staged = SCENES["rebooting"]()
    found = verdict(facts(staged, holder(staged), pod=AgentPod("p", ready=False, trouble="Running")))
    assert codes(found) == ([], ["rebooting"])
    late = replace(facts(staged, holder(staged)), now=staged.now + 3600)
    assert codes(verdict(late))[1] == ["not-back"]


# -- the order, and what comes after -----------------------------------------------------------------------------------


def test_what_would_hold_it_next_is_told_too() -> None:
    """A node that waits for the lock while the cluster is paused and it was opted out: all of it, in order."""
    staged = SCENES["waiting"]()
    name = waiter(staged)
    staged.paused()
    known = facts(staged, name)
    known = replace(known, row=replace(known.row, skip="OPS-1"))
    assert codes(verdict(known))[1] == ["lock", "skip", "pause"]


def test_a_window_that_closes_behind_the_lock_is_told() -> None:
    """Whoever waits for the lock learns that it would not help."""
    staged = Staged(WINDOWS, began=1_700_514_000.0)  # as Monday's opens
    for name in staged.names:
        staged.machine(name).pdb_until = 1e9
    staged.want()
    staged.until_phase(staged.first(), Phase.DRAINING)
    known = facts(staged, waiter(staged))
    assert codes(verdict(known))[1] == ["lock"]
    assert codes(verdict(replace(known, now=staged.now + 7 * 3600)))[1] == ["lock", "window"]


@pytest.mark.parametrize("scene", ["paused", "outside-window", "skipped"])
def test_a_hold_that_is_over_is_not_repeated(scene: str) -> None:
    """The sentence is older than the live object: nothing is claimed that is not so any more."""
    staged = SCENES[scene]()
    known = facts(staged, "node-1")
    over = replace(known, pause=locks.Pause(active=False), row=replace(known.row, skip=""), now=1_700_514_001.0)
    found = verdict(over)
    assert codes(found)[1] == ["its-turn"]
    assert found.headline.endswith("its reboot waits: what its agent named last is over, it is about to begin.")
    assert not found.well


def test_a_pause_that_cannot_be_read_still_holds() -> None:
    """Cannot tell is not no."""
    staged = SCENES["paused"]()
    unknown = locks.Pause(active=True, sentence="the cluster's pause cannot be told: 403", is_known=False)
    found = verdict(facts(staged, "node-1", pause=unknown))
    assert codes(found)[1] == ["pause"]
    assert "cannot be told" in found.reboot[0].said


def test_locks_that_cannot_be_read_are_said_so() -> None:
    """A reader without rights on Leases still learns that it is the lock."""
    staged = SCENES["waiting"]()
    found = verdict(facts(staged, waiter(staged), locks=(), locks_problem="403 Forbidden"))
    assert codes(found)[1] == ["lock"]
    assert "403 Forbidden" in found.reboot[0].said


def test_a_lock_whose_holder_is_gone_is_free_for_the_taking() -> None:
    """Nobody has to unlock what the next waiter takes over by itself."""
    staged = SCENES["waiting"]()
    found = verdict(facts(staged, waiter(staged), holders={}))
    assert "whose Node is gone: the next that asks takes it over" in found.reboot[0].said


def test_a_second_slot_that_is_free_is_no_obstacle() -> None:
    """With two slots one busy lock does not hold anybody back."""
    staged = SCENES["waiting"]()
    known = facts(staged, waiter(staged))
    free = Lock("workers", 1, replace(known.locks[0].view, name="node-hardening-reboot-workers-1", holder=""))
    assert codes(verdict(replace(known, locks=(*known.locks, free))))[1] == ["its-turn"]


def test_audit_says_what_it_would_do() -> None:
    """And that it does nothing."""
    staged = Staged("reboot: {mode: audit}\n")
    staged.machine("node-1").blocked_by = "alerts: X"
    staged.want("node-1")
    staged.run(60)
    found = verdict(facts(staged, "node-1"))
    assert codes(found)[1] == ["audit"]
    assert "alerts: X" in found.reboot[0].said
    assert found.headline == "node-1 is hardened; it would need a reboot, and reboot.mode is audit."


def test_reboots_that_are_off() -> None:
    """A person's wish that nobody hears is told; otherwise off is no trouble."""
    staged = SCENES["calm"]()
    known = facts(staged, "node-1")
    off = policy.of({"data": {"config.yaml": "reboot: {mode: off}\n"}}, "configmap/x in y")
    quiet = replace(known, rules=off, row=replace(known.row, sentence="", phase=None, required=None))
    assert codes(verdict(quiet))[1] == []
    asked = replace(quiet, row=replace(quiet.row, requested="OPS-1"))
    assert codes(verdict(asked))[1] == ["off"]


def test_a_damaged_note_is_said_with_the_way_out() -> None:
    """The agent does nothing on a note that it cannot read; on-call learns how to start anew."""
    staged = SCENES["waiting"]()
    known = facts(staged, waiter(staged))
    text = "the annotation reboot-state cannot be read (not JSON); remove it to start anew"
    damaged = replace(known, state=None, row=replace(known.row, sentence=text, phase=Phase.UNKNOWN))
    found = verdict(damaged)
    assert codes(found)[1] == ["note-unreadable"]
    assert any("reboot-state-" in step for step in found.reboot[0].next)


# -- hardening ---------------------------------------------------------------------------------------------------------


def test_findings_come_worst_first_with_what_is_expected_and_the_next_step() -> None:
    """As the agent has them on the Node."""
    found = verdict(facts(SCENES["drifted"](), "node-2"))
    assert codes(found)[0] == ["finding:kubelet/4.2.1", "finding:modprobe/sctp"]
    assert found.hardening[0].said == "critical: kubelet/4.2.1 fails: true (expected false)"
    assert found.hardening[0].next[0].startswith("Set authentication.anonymous.enabled: false")
    assert found.headline.startswith("node-2 is not hardened (2 findings, worst critical);")


def test_what_cannot_be_told_is_never_hardened() -> None:
    """Unknown is a reason of its own."""
    found = verdict(facts(SCENES["drifted"](), "node-3"))
    assert codes(found)[0] == ["finding:kubelet/process"]
    assert found.headline.startswith("node-3 cannot be called hardened;")
    assert not found.well


@pytest.mark.parametrize(
    ("pod", "code", "step"),
    [
        (AgentPod(ready=False), "no-agent", "kubectl -n node-hardening get daemonset node-hardening-agent"),
        (
            AgentPod("p", ready=False, trouble="CrashLoopBackOff", restarts=7),
            "agent-not-ready", "kubectl -n node-hardening logs p --previous",
        ),
        (AgentPod("p", ready=False, trouble="ImagePullBackOff"), "agent-not-ready", "kubectl -n node-hardening logs p"),
        (AgentPod("p", ready=True), "first-pass", "kubectl -n node-hardening logs p"),
        (AgentPod(trouble="403 Forbidden"), "no-agent", ""),
    ],
)  # fmt: skip
def test_a_node_that_no_agent_ever_looked_at(pod: AgentPod, code: str, step: str) -> None:
    """Why, from the DaemonSet's pod on it."""
    staged = SCENES["without-agent"]()
    found = verdict(facts(staged, "node-2", pod=pod))
    assert codes(found) == ([code], [])
    assert found.hardening[0].next[:1] == ((step,) if step else ())
    assert not found.well


def test_a_crashing_agent_makes_what_it_said_doubtful() -> None:
    """The Node still says hardened; the verdict does not."""
    known = facts(SCENES["calm"](), "node-1", pod=AgentPod("p", ready=False, trouble="CrashLoopBackOff", restarts=3))
    found = verdict(known)
    assert codes(found)[0] == ["agent-not-ready"]
    assert "was hardened when its agent last looked" in found.headline
    assert not found.well


def test_a_silent_kubelet_makes_everything_old() -> None:
    """Ready is Unknown, and no reboot of ours explains it."""
    known = facts(SCENES["calm"](), "node-1")
    found = verdict(replace(known, row=replace(known.row, ready=None)))
    assert codes(found)[0] == ["node-not-ready"]
    assert not found.well


def test_a_refused_configuration_comes_before_the_findings() -> None:
    """Mending findings by a policy that is not in force would be in vain."""
    known = facts(SCENES["drifted"](), "node-2")
    row = replace(known.row, config_problem="config.yaml:3: reboot.mod: unknown key")
    found = verdict(replace(known, row=row))
    assert codes(found)[0][0] == "config-refused"
    assert found.hardening[0].next[0] == "kubectl -n node-hardening edit configmap/node-hardening-config"


def test_many_findings_are_counted_below_the_worst() -> None:
    """Eight with words, the rest as a number."""
    staged = SCENES["calm"]()
    many = [replace(SCTP, id=f"modprobe/m{number}") for number in range(12)]
    staged.reports["node-1"] = report("node-1", ANONYMOUS, UNTOLD, *many)
    found = verdict(facts(staged, "node-1"))
    assert codes(found)[0][-1] == "more-findings"
    assert "6 more findings" in found.hardening[-1].said


def test_a_change_that_could_not_be_made_is_told() -> None:
    """Failed is worse than drifted: the agent tried."""
    staged = SCENES["calm"]()
    known = facts(staged, "node-1")
    failed = replace(known.row, standing=ComplianceStatus.FAILED)
    assert codes(verdict(replace(known, row=failed)))[0] == ["apply-failed"]


def test_no_verdict_is_well_where_something_is_said(scenes: list[tuple[str, Staged]]) -> None:
    """Over every node of every scene: well means hardened, Ready, and nothing under way; and every reason has words."""
    for scene, staged in scenes:
        for name in staged.names:
            known = facts(staged, name)
            found = verdict(known)
            nothing = not (found.hardening or found.reboot or known.row.wants_reboot)
            assert found.well == (nothing and known.row.is_well), scene
            assert all(one.said and one.code for one in (*found.hardening, *found.reboot)), scene
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
    """Windows then come from the sentence, and no deadline is reckoned."""
    staged = SCENES["outside-window"]()
    found = verdict(facts(staged, "node-1", rules=Policy(None, "configmap/x in y", "403")))
    assert found.reboot[0].said == "outside of the reboot windows: the next opens Mon 2023-11-20 22:00 CET"
