"""How every control is run: dry-run stops, failures stay where they are, the second time changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st
from structlog.testing import capture_logs

from agent.controls import registry
from agent.controls.base import AGENT, Step, apply, audit, dry_run
from agent.errors import HostError
from agent.model import Change, Finding, Outcome, Severity, Status

Answer = TypeVar("Answer")


@dataclass
class Switches:
    """A control that is about switches: each one has to be on. It keeps a log of what was asked of it."""

    name: str = "switches"
    on: dict[str, bool] = field(default_factory=lambda: {"a": False, "b": False})
    stuck: frozenset[str] = frozenset()
    blind_at: frozenset[int] = frozenset()
    looks: int = 0
    acts: list[str] = field(default_factory=list)

    def watched(self) -> Sequence[str]:
        """Switches are no files."""
        return ()

    def observe(self) -> dict[str, bool]:
        """The switches now; from time to time nothing can be seen."""
        self.looks += 1
        if self.looks in self.blind_at:
            raise HostError("the lights are out")
        return dict(self.on)

    def judge(self, seen: dict[str, bool]) -> Sequence[Finding]:
        """A finding for each switch."""
        return [
            Finding(f"switches/{name}", self.name, name, Status.PASS if on else Status.FAIL, Severity.HIGH)
            for name, on in seen.items()
        ]

    def plan(self, seen: dict[str, bool]) -> Sequence[Step]:
        """A step for each switch that is off."""

        def step(name: str) -> Step:
            def run() -> None:
                self.acts.append(name)
                if name in self.stuck:
                    raise HostError(f"{name} is stuck")
                self.on[name] = True

            return Step(Change(self.name, "turn on", name), run)

        return [step(name) for name, on in seen.items() if not on]


def statuses(findings: Sequence[Finding]) -> dict[str, Status]:
    """Each finding's answer by its id."""
    return {finding.id: finding.status for finding in findings}


def test_audit_looks_and_changes_nothing() -> None:
    """Findings, no changes, no act."""
    control = Switches()
    done = audit(control)
    assert statuses(done.findings) == {"switches/a": Status.FAIL, "switches/b": Status.FAIL}
    assert (done.changes, control.acts) == ((), [])


def test_dry_run_says_what_apply_would_do_and_does_nothing() -> None:
    """The same changes, planned."""
    control = Switches()
    done = dry_run(control)
    assert [(change.target, change.outcome) for change in done.changes] == [
        ("a", Outcome.PLANNED),
        ("b", Outcome.PLANNED),
    ]
    assert set(statuses(done.findings).values()) == {Status.FAIL}
    assert control.acts == []


def test_apply_acts_and_judges_what_is_there_afterwards() -> None:
    """The findings are of the node as it is now, not as it was or as it should be."""
    control = Switches()
    done = apply(control)
    assert statuses(done.findings) == {"switches/a": Status.PASS, "switches/b": Status.PASS}
    assert [change.outcome for change in done.changes] == [Outcome.DONE, Outcome.DONE]
    assert control.looks == 2


def test_the_second_apply_changes_nothing() -> None:
    """No change, no act, one look."""
    control = Switches()
    apply(control)
    again = apply(control)
    assert again.changes == ()
    assert (control.acts, control.looks) == (["a", "b"], 3)


def test_a_step_that_fails_does_not_stop_the_ones_after_it() -> None:
    """It is a failed change, a finding that says why, and the rest is done."""
    control = Switches(stuck=frozenset("a"))
    done = apply(control)
    assert [(change.target, change.outcome, change.error) for change in done.changes] == [
        ("a", Outcome.FAILED, "a is stuck"),
        ("b", Outcome.DONE, ""),
    ]
    assert statuses(done.findings) == {
        "switches/a": Status.FAIL,
        "switches/b": Status.PASS,
        "switches/turn on/a": Status.FAIL,
    }
    failed = done.findings[-1]
    assert (failed.title, failed.observed, failed.expected) == ("Required change: turn on a", "a is stuck", "")


def test_what_cannot_be_observed_is_unknown() -> None:
    """Never pass, and nothing is done in the dark."""
    for run in (audit, dry_run, apply):
        control = Switches(blind_at=frozenset({1}))
        done = run(control)
        (finding,) = done.findings
        assert (finding.id, finding.status) == ("switches/observe", Status.UNKNOWN)
        assert finding.observed == "the lights are out"
        assert "Nothing was changed" in finding.remediation
        assert (done.changes, control.acts) == ((), [])


def test_changes_are_reported_when_observing_again_fails() -> None:
    """What was done was done; only whether it helped is unknown."""
    control = Switches(stuck=frozenset("a"), blind_at=frozenset({2}))
    done = apply(control)
    assert [change.outcome for change in done.changes] == [Outcome.FAILED, Outcome.DONE]
    assert statuses(done.findings) == {"switches/observe": Status.UNKNOWN, "switches/turn on/a": Status.FAIL}
    assert "The changes stay" in done.findings[0].remediation


@given(
    on=st.dictionaries(st.sampled_from("abcdef"), st.booleans()),
    stuck=st.frozensets(st.sampled_from("abcdef")),
)
def test_apply_does_all_that_can_be_done(on: dict[str, bool], stuck: frozenset[str]) -> None:
    """Whatever is stuck, every other switch is on afterwards and every finding tells the truth."""
    control = Switches(on=dict(on), stuck=stuck)
    done = apply(control)
    assert control.on == {name: was or name not in stuck for name, was in on.items()}
    answers = statuses(done.findings)
    for name, is_on in control.on.items():
        assert answers[f"switches/{name}"] is (Status.PASS if is_on else Status.FAIL)
    assert {change.target for change in done.changes} == {name for name, was in on.items() if not was}


@dataclass
class Broken(Switches):
    """A control with a defect in the named method."""

    broken: str = "observe"

    def observe(self) -> dict[str, bool]:
        """Defective, or as ever."""
        return self._or_defect("observe", super().observe())

    def judge(self, seen: dict[str, bool]) -> Sequence[Finding]:
        """Defective, or as ever."""
        return self._or_defect("judge", super().judge(seen))

    def plan(self, seen: dict[str, bool]) -> Sequence[Step]:
        """Defective, or as ever."""
        return self._or_defect("plan", super().plan(seen))

    def _or_defect(self, method: str, answer: Answer) -> Answer:
        if self.broken == method:
            raise KeyError("a\x1b[31m" + "x" * 5000)
        return answer


@pytest.mark.parametrize("broken", ["observe", "judge", "plan"])
@pytest.mark.parametrize("act", registry.Act)
def test_a_defect_in_one_control_is_unknown_and_leaves_the_others_findings(act: registry.Act, broken: str) -> None:
    """The text is bounded and printable, and the traceback is in the log."""
    with capture_logs() as logs:
        report = registry.run("n", [Broken(broken=broken), Switches(on={"c": True})], act)
    found = {one.id: one for one in report.findings}
    assert found["switches/c"].status is Status.PASS
    if (act, broken) == (registry.Act.AUDIT, "plan"):
        return
    defect = found["agent/switches"]
    assert (defect.status, defect.control) == (Status.UNKNOWN, AGENT)
    assert defect.observed.startswith("internal error: KeyError: ")
    assert len(defect.observed) <= 200
    assert defect.observed.isprintable()
    assert [(one["event"], one["exc_info"]) for one in logs] == [("control_failed", True)]
    assert report.status is Status.UNKNOWN


def test_a_defect_in_a_step_is_a_failed_change_and_the_steps_after_it_are_done() -> None:
    """What was changed before a defect is reported, too."""

    class Sticky(Switches):
        def plan(self, seen: dict[str, bool]) -> Sequence[Step]:
            """A first step with a defect."""
            return [Step(Change(self.name, "turn on", "z"), lambda: dict[str, int]()["z"]), *super().plan(seen)]

    done = apply(Sticky())
    assert [change.outcome for change in done.changes] == [Outcome.FAILED, Outcome.DONE, Outcome.DONE]
    assert done.changes[0].error == "internal error: KeyError: 'z'"
