"""Ten thousand random schedules break no invariant, and broken coordinators are found out by the same schedules."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

import pytest

from agent.config.schema import Reboot
from agent.reboot.cluster import LeasePhase
from agent.reboot.coordinator import Coordinator, Dependencies
from agent.reboot.lock.lease import Lock
from agent.reboot.machine.decide import decide
from agent.reboot.machine.decisions import Decision, Release, Write
from agent.reboot.machine.inputs import Inputs, Slot
from agent.reboot.phases import Phase
from agent.reboot.state import Cordoned, Now, RolledBack
from tests.support.reboot_agent import Make
from tests.support.reboot_simulation import Outcome, run

SCHEDULES = 10_000
CHUNK = 500


def _replay(outcome: Outcome) -> str:
    return f"seed {outcome.seed}: {outcome.violation}\nreplay: python -m tests.support.reboot_simulation {outcome.seed}"


@pytest.mark.slow
@pytest.mark.parametrize("first", range(0, SCHEDULES, CHUNK))
def test_no_schedule_breaks_an_invariant(first: int) -> None:
    """Never more nodes down than slots; no node left cordoned by us; no reboot, eviction or takeover without the right
    to the lock; nobody else's cordon undone; no cordon past its deadlines, whatever is refused; no second drain within
    the back-off, and no third one for the same answer; all that want a reboot get it."""
    broken = [outcome for seed in range(first, first + CHUNK) if (outcome := run(seed)).violation]
    assert [_replay(outcome) for outcome in broken] == []


def test_the_first_schedules_break_no_invariant() -> None:
    """The same in the fast tier, with the first few seeds."""
    assert [_replay(outcome) for seed in range(40) if (outcome := run(seed)).violation] == []


def test_a_schedule_is_its_seed() -> None:
    """A failing seed can be replayed: the same seed gives the same log line by line."""
    once, again = run(17, logs=True), run(17, logs=True)
    assert once.log == again.log
    assert len(once.log) > 50


def test_schedules_reach_what_they_are_about() -> None:
    """The simulation is not vacuous: roll-backs, takeovers, stuck locks, lost answers, people in between."""
    log = "\n".join(line for seed in range(150) for line in run(seed, logs=True).log)
    for sign in (
        "EVENT RebootSucceeded",
        "EVENT RebootFailed: the drain did not end",
        "EVENT RebootFailed: the reboot command failed",
        "EVENT RebootFailed: still the same boot",
        "EVENT RebootFailed: the node was uncordoned by another user",
        "EVENT RebootFailed: the lock was lost",
        "EVENT RebootFailed: rebooted, but not verified",
        "EVENT RebootLockTakenOver",
        "EVENT RebootLockStuck",
        "EVENT DrainBlocked",
        "a human cordons",
        "a user removes its state (cordoned)",
        "a user removes its state (draining)",
        "a user removes its state (rebooting)",
        "is deleted by a user",
        "is taken by a user",
        "its wall clock is set by",
        "reboot request by a user",
        "it may have been done",
        "crashes after put_lease",
        "crashes before reboot",
        "crashes after reboot",
        "deleted",
        "hangs 400.0 s",
        "put_lease is refused with 403",
        "patch_node is refused with 422",
        "evict is refused with 429",
        "another policy: off",
        "EVENT RebootFailed: drained, but blocked by",
        "; blocked after the drain for the second time",
        "shutting down for longer than rebootTimeout",
    ):
        assert sign in log


# -- broken coordinators -----------------------------------------------------------------------------------------------


class _WithoutFence(Lock):
    """Gives the command without the compare-and-swap before it."""

    def fence(self, slot: Slot, now: Now) -> None:
        pass


class _TrustsRemoteClocks(Lock):
    """Judges a holder by the renewTime that it wrote with its own clock."""

    def observe(self, names: object, identity: str, *, indexed: int, follow: bool) -> tuple[Slot, ...]:
        return tuple(
            replace(slot, unseen_seconds=self._clock.wall() - datetime.fromisoformat(slot.view.renewed).timestamp())
            if slot.view.renewed
            else slot
            for slot in super().observe(names, identity, indexed=indexed, follow=follow)  # type: ignore[arg-type]
        )


class _CountsFromTheQuestion(Lock):
    """Takes a lease as inputs from when it was asked for, not from when the answer came (a bug that we had)."""

    def observe(self, names: object, identity: str, *, indexed: int, follow: bool) -> tuple[Slot, ...]:
        asked = self._clock.monotonic()
        slots = super().observe(names, identity, indexed=indexed, follow=follow)  # type: ignore[arg-type]
        late = self._clock.monotonic() - asked
        return tuple(replace(slot, unseen_seconds=slot.unseen_seconds + late) for slot in slots)


def _locked_by(kind: type[Lock]) -> Make:
    return lambda policy, rooms: Coordinator(
        policy, rooms, lock=kind(rooms.cluster, rooms.clock, policy.lock.lease_duration)
    )


def _deciding(machine: Callable[[Inputs], Decision]) -> Make:
    def make(policy: Reboot, rooms: Dependencies) -> Coordinator:
        return Coordinator(policy, rooms, machine=machine)

    return make


def _uncordons_whatever_it_finds(inputs: Inputs) -> Decision:
    decision = decide(inputs)
    if isinstance(decision.action, Write) and decision.action.state.phase in (Phase.ROLLED_BACK, Phase.RELEASING):
        return replace(decision, action=replace(decision.action, cordon=False))
    return decision


def _forgets_that_the_cordon_is_its_own(inputs: Inputs) -> Decision:
    decision = decide(inputs)
    if isinstance(decision.action, Write) and isinstance(decision.action.state, Cordoned):
        forgetful = replace(decision.action.state, cordoned=False)
        return replace(decision, action=replace(decision.action, state=forgetful))
    return decision


def _has_no_backoff(inputs: Inputs) -> Decision:
    inputs.policy = replace(inputs.policy, retry_after=1.0)
    return decide(inputs)


def _takes_over_who_is_rebooting(inputs: Inputs) -> Decision:
    if inputs.attempt.slot is not None and inputs.attempt.slot.fenced:
        view = replace(inputs.attempt.slot.view, phase=LeasePhase.HELD)
        inputs.attempt = replace(inputs.attempt, slot=replace(inputs.attempt.slot, view=view))
    return decide(inputs)


def _never_gives_a_drain_up(inputs: Inputs) -> Decision:
    decision = decide(inputs)
    if inputs.state is None or inputs.state.phase is not Phase.DRAINING or not isinstance(decision.action, Write):
        return decision
    gives_up = decision.action.state.phase is Phase.ROLLED_BACK and inputs.mine is not None
    return replace(decision, phase=Phase.DRAINING, action=None, wait_seconds=5.0) if gives_up else decision


def _repeats_the_drain(inputs: Inputs) -> Decision:
    decision = decide(inputs)
    if isinstance(decision.action, Write) and isinstance(decision.action.state, RolledBack):
        forgetful = replace(decision.action.state, repeated=False)
        return replace(decision, action=replace(decision.action, state=forgetful))
    return decision


def _never_releases(inputs: Inputs) -> Decision:
    decision = decide(inputs)
    return replace(decision, action=None, wait_seconds=300.0) if isinstance(decision.action, Release) else decision


def _ignores_a_lost_lock(inputs: Inputs) -> Decision:
    if inputs.mine is None and inputs.state is not None and inputs.state.phase is Phase.DRAINING and inputs.slots:
        inputs.mine = inputs.slots[0]
    return decide(inputs)


@pytest.mark.parametrize(
    ("make", "within", "finding"),
    [
        pytest.param(_locked_by(_WithoutFence), 20, "not fenced", id="without-fence"),
        pytest.param(_locked_by(_TrustsRemoteClocks), 200, "took the lock from", id="trusts-remote-clocks"),
        pytest.param(_deciding(_uncordons_whatever_it_finds), 100, "was undone", id="uncordons-whatever-it-finds"),
        pytest.param(
            _deciding(_forgets_that_the_cordon_is_its_own), 20, "left cordoned by us", id="forgets-its-cordon"
        ),
        pytest.param(_deciding(_has_no_backoff), 50, "drained again", id="no-backoff"),
        pytest.param(_deciding(_takes_over_who_is_rebooting), 50, "may be on its way down", id="takes-over-rebooting"),
        pytest.param(_deciding(_never_gives_a_drain_up), 50, "outlives its deadlines", id="never-gives-up"),
        pytest.param(_deciding(_repeats_the_drain), 300, "for the same answer", id="repeats-the-drain"),
        pytest.param(_deciding(_never_releases), 3, "unsettled", id="never-releases"),
    ],
)
def test_a_broken_coordinator_is_found_out(make: Make, within: int, finding: str) -> None:
    """The simulation can fail: each of these breaks its invariant within so many schedules."""
    violations = (run(seed, make).violation for seed in range(within))
    assert finding in next((violation for violation in violations if finding in violation), "nothing found")


def test_an_api_server_without_compare_and_swap_is_found_out() -> None:
    """All safety rests on resourceVersion: without it two nodes hold one lock."""
    violations = (run(seed, trusts_versions=False).violation for seed in range(200))
    found = next((violation for violation in violations if "took the lock from" in violation), "nothing found")
    assert "took the lock from" in found
