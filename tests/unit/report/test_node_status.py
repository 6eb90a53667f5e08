"""What the Node should show: words, sentences, and bounds that hold whatever was found."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import annotations as keys
from agent.model import Change, Condition, Finding, Outcome, Report, Severity, Status
from agent.report import node_status
from agent.report.compliance import ComplianceStatus, compliance_of
from agent.report.node_status import NodeView
from tests.support.report import change, finding, report

TEXTS = st.text(st.characters(), max_size=400)  # lone surrogates too: a file's name may be any bytes
FINDINGS = st.builds(
    Finding,
    id=st.text(st.characters(), min_size=1, max_size=60),
    control=st.sampled_from(["modprobe", "apparmor", "seccomp", "kubelet"]),
    title=TEXTS, status=st.sampled_from(Status), severity=st.sampled_from(Severity), observed=TEXTS,
    expected=TEXTS, remediation=TEXTS,
)  # fmt: skip
CHANGES = st.builds(
    Change, control=st.just("modprobe"), action=TEXTS, target=TEXTS, reason=TEXTS, outcome=st.sampled_from(Outcome)
)
REPORTS = st.builds(
    Report, st.just("n1"), st.lists(FINDINGS, max_size=80).map(tuple), st.lists(CHANGES, max_size=10).map(tuple)
)


def hardening(of: Report, *, label: bool = True, last_change: str | None = None) -> NodeView:
    return node_status.hardening(of, policy="abc", version="1.2.3", label=label, last_change=last_change)


@given(REPORTS, st.integers(256, 65536))
def test_whatever_was_found_the_node_shows_little(found: Report, limit: int) -> None:
    """Every annotation is bounded, storable as it is, and one line; findings are JSON within their limit."""
    told = node_status.hardening(
        found,
        policy="abc",
        version="1",
        label=True,
        last_change=node_status.change_sentence(found.changes, "now"),
        limit=limit,
    )
    texts = {key: value for key, value in told.annotations.items() if value is not None}
    for key, value in texts.items():
        assert value.encode().decode() == value, key
        assert len(value) <= 1024 or key == keys.FINDINGS
    shown = texts.get(keys.FINDINGS, "[]")
    assert len(shown.encode()) <= limit
    entries = json.loads(shown)
    bad = [one for one in found.findings if one.status in (Status.FAIL, Status.UNKNOWN)]
    more = entries.pop()["more"] if entries and "more" in entries[-1] else 0
    assert len(entries) + more == len(bad)
    always = {"id", "status", "severity", "observed"}
    assert all(always <= set(entry) <= always | {"title", "expected", "remediation"} for entry in entries)
    assert all(len(one.message) <= 1024 for one in told.conditions)


@given(REPORTS)
def test_the_node_says_hardened_only_when_every_check_complies(found: Report) -> None:
    """Annotation, label and condition agree, and unknown is never taken for well."""
    told = hardening(found)
    is_well = told.annotations[keys.STATUS] == "hardened"
    assert is_well == (told.labels[keys.LABEL] == "true") == (told.conditions[0].status == "True")
    if is_well:
        assert not found.counts[Status.FAIL] + found.counts[Status.UNKNOWN]
        assert found.counts[Status.PASS]
        assert not any(one.outcome is Outcome.FAILED for one in found.changes)


def test_each_standing_has_its_condition() -> None:
    """status, condition's status and reason for what on-call will see."""
    cases = {
        ComplianceStatus.HARDENED: (report(finding()), "True", "Hardened"),
        ComplianceStatus.NON_COMPLIANT: (report(finding(status=Status.FAIL)), "False", "NotCompliant"),
        ComplianceStatus.UNKNOWN: (report(finding(status=Status.UNKNOWN)), "Unknown", "Unknown"),
        ComplianceStatus.FAILED: (report(changes=(change(Outcome.FAILED),)), "False", "ApplyFailed"),
    }
    for word, (found, status, reason) in cases.items():
        (condition,) = hardening(found).conditions
        assert (compliance_of(found), condition.status, condition.reason) == (word, status, reason)


def test_one_sentence_a_control() -> None:
    """What fails, how bad it is and where to begin; what is unknown; what does not apply."""
    found = report(
        finding(1),
        finding(2, control="kubelet", status=Status.FAIL, severity=Severity.LOW),
        finding(3, control="kubelet", status=Status.FAIL, severity=Severity.CRITICAL),
        finding(4, control="kubelet", status=Status.UNKNOWN),
        finding(5, control="apparmor", status=Status.NOT_APPLICABLE),
    )
    assert node_status.summary(found) == (
        "modprobe: 1/1 passed. kubelet: 2/3 failed, 1 critical (kubelet/3: A check …), "
        "1 unknown (kubelet/4: A check). "
        "Not applicable here: apparmor."
    )


def test_the_worst_is_shown_first_and_the_rest_counted() -> None:
    """At its limit the annotation still says how much it leaves out."""
    many = [finding(n, Status.FAIL, Severity.LOW, observed="x" * 100) for n in range(40)]
    entries = json.loads(node_status.findings([*many, finding(99, Status.FAIL, Severity.CRITICAL)], 1000))
    assert entries[0]["id"] == "modprobe/99"
    assert entries[-1] == {"more": 41 - (len(entries) - 1)}
    assert json.loads(node_status.findings(many, 65536))[-1]["id"] == "modprobe/9"


def test_the_label_can_be_switched_off() -> None:
    """status.label: false takes it away again rather than leaving an old one."""
    assert hardening(report(), label=False).labels == {keys.LABEL: None}


def test_the_last_change_stays_until_there_is_another() -> None:
    """A pass that changed nothing says nothing about it."""
    assert keys.LAST_CHANGE not in hardening(report()).annotations
    assert node_status.change_sentence((), "now") is None
    assert node_status.change_sentence((change(Outcome.FAILED),), "now") is None
    four = tuple(change(target=f"/{n}") for n in range(4))
    assert node_status.change_sentence(four, "T") == (
        "T: write /0 (was missing); write /1 (was missing); write /2 (was missing) and 1 more"
    )


def test_the_startup_taint_waits_for_what_the_agent_enforces() -> None:
    """The kubelet's audit holds no node back; an enforced control that fails or cannot tell does."""
    audit = report(finding(1), finding(2, control="kubelet", status=Status.FAIL))
    assert node_status.failing(audit, ["modprobe"]) == 0
    for bad in (Status.FAIL, Status.UNKNOWN):
        assert node_status.failing(report(finding(status=bad), finding(status=bad)), ["modprobe"]) == 2
    assert node_status.failing(report(changes=(change(Outcome.FAILED),)), ["modprobe"]) == 1


def test_the_startup_taint_does_not_wait_for_a_reboot_unless_the_policy_says_so() -> None:
    """A denied module that was loaded before: nothing but another boot changes that. It is no pass, though."""
    loaded = replace(finding(status=Status.FAIL), needs_reboot=True)
    assert node_status.failing(report(loaded), ["modprobe"], after_reboot=True) == 0
    assert node_status.failing(report(loaded), ["modprobe"]) == 1
    assert node_status.failing(report(loaded, finding(2, Status.FAIL)), ["modprobe"], after_reboot=True) == 1


def test_two_parts_of_the_work_share_one_node() -> None:
    """Conditions merge by type, keys by name, and the newer part wins."""
    one = NodeView({"a": "1", "b": "1"}, {"l": "1"}, (Condition("A", "True", "R", "m"),))
    other = NodeView(
        {"b": "2"},
        {},
        (Condition("A", "False", "R", "m"), Condition("B", "True", "R", "m")),
        True,
    )
    both = other.over(one)
    assert both.annotations == {"a": "1", "b": "2"}
    assert [(condition.type, condition.status) for condition in both.conditions] == [("A", "False"), ("B", "True")]
    assert both.lift_taint


def test_next_steps_join_where_there_is_room_for_them() -> None:
    """Nothing that does not pass is left out for the sake of a next step, and the worst findings get theirs first."""
    many = [
        Finding(f"kubelet/{number}", "kubelet", "A check", Status.FAIL, Severity.HIGH, "no", "yes", "", "Set it. " * 8)
        for number in range(10)
    ]
    everything = json.loads(node_status.findings(many, 65536))
    assert {(one["expected"], one["remediation"]) for one in everything} == {("yes", ("Set it. " * 8).strip())}
    without = len(json.dumps([{"id": one.id} for one in many]))
    some = json.loads(node_status.findings(many, without + 1000))
    assert [one["id"] for one in some] == [one.id for one in many]
    helped = ["remediation" in one for one in some]
    assert helped[0]
    assert helped == sorted(helped, reverse=True)
    assert not all(helped)


def test_what_passed_and_what_was_skipped_is_listed_with_its_reason() -> None:
    """Ids of what passed; for the rest what was observed, which is the reason of a skipped check."""
    found = report(
        finding(1),
        finding(2, status=Status.FAIL),
        finding(3, status=Status.INFO, observed="skipped: kube-proxy\nis replaced"),
        finding(4, status=Status.NOT_APPLICABLE, observed="no such file"),
    )
    assert json.loads(node_status.checks(found.findings)) == {
        "passed": [found.findings[0].id],
        "info": {found.findings[2].id: "skipped: kube-proxy is replaced"},
        "notApplicable": {found.findings[3].id: "no such file"},
    }


@pytest.mark.parametrize("number", [0, 1, 50, 5000])
def test_what_passed_is_bounded_and_the_rest_counted(number: int) -> None:
    """Whatever the checks are called."""
    found = [finding(one, status=[Status.PASS, Status.INFO][one % 2], observed="\u2192" * 300) for one in range(number)]
    text = node_status.checks(found)
    shown = json.loads(text)
    assert len(text.encode()) <= node_status.FINDINGS_BYTES
    assert len(shown.get("passed", [])) + len(shown.get("info", {})) + shown.get("more", 0) == number


def test_information_is_no_pass() -> None:
    """It is counted apart, with the first of it: a gap in a profile is visible without JSON."""
    gap = finding(2, control="seccomp", status=Status.INFO)
    assert node_status.summary(report(finding(1, control="seccomp"), gap)) == (
        f"seccomp: 1/1 passed, 1 info, neither passed nor failed ({gap.id}: {gap.title})."
    )
