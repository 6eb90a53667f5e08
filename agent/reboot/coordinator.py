"""One tick: observe everything, let the machine decide, do the one thing it decides, and report the status.

It refuses to do two things in one tick, to act on a Lease that others may have taken, and to give the reboot command
in any other way than directly behind the fence. Whatever fails ends the tick; the next one observes again.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import replace

from agent import annotations as keys
from agent.config.schema import Reboot
from agent.errors import AgentError, CommandTimeout
from agent.kube.errors import Conflict, Forbidden, Invalid, Refused
from agent.reboot import history
from agent.reboot.cluster import NodePatch, NodeView
from agent.reboot.interfaces import Announcement, Dependencies, HookStage, Tick
from agent.reboot.lock.lease import Lock
from agent.reboot.machine import announcements
from agent.reboot.machine.blocked import POLL_SECONDS
from agent.reboot.machine.decide import decide
from agent.reboot.machine.decisions import (
    Acquire,
    Decision,
    FenceAndReboot,
    Fetch,
    MarkStuck,
    Release,
    Renew,
    StepDrain,
    StepHooks,
    Write,
)
from agent.reboot.machine.inputs import Command, Inputs, Slot
from agent.reboot.machine.transitions import fence_seconds
from agent.reboot.machine.written_status import written_status
from agent.reboot.observer import Observer
from agent.reboot.phases import Phase
from agent.reboot.refused_keys import find_refused_keys
from agent.reboot.shown_status import shown_status
from agent.reboot.state import Attempt, Cycle, Finished, Idle, NodeState, Pending, Rebooting
from agent.reboot.status import DrainStatus, RebootStatus, StatusReason
from agent.text import format_rfc3339, parse_rfc3339

__all__ = ["Coordinator", "Dependencies"]

_FETCHES_LIMIT = 8
_ANNOUNCED_LIMIT = 256
_ERROR_SECONDS = 3.0
_REFUSED_LIMIT_SECONDS = 60.0
_CONFLICT_SECONDS = 0.3
_STALE_LOCK_SECONDS = 1.0
_TAINT_SECONDS = 0.5  # the control plane answers a cordon with its taint: a write before that would be a Conflict
_SAME_MOMENT_SECONDS = 10.0  # an `until` that moves by less is the same one: its parts come from two clocks
# What is still queued is lost with the process or the machine; what is slower than this does not hold up a reboot.
_FLUSH_SECONDS = 2.0


class Coordinator:
    """One node's part in the cluster's reboots. Not for several threads."""

    def __init__(
        self,
        policy: Reboot,
        dependencies: Dependencies,
        *,
        lock: Lock | None = None,
        machine: Callable[[Inputs], Decision] = decide,
    ) -> None:
        self._policy = policy
        self._deps = dependencies
        self._decide = machine
        self._lock = lock or Lock(dependencies.cluster, dependencies.clock, policy.lock.lease_duration)
        self._observer = Observer(policy, dependencies, self._lock)
        self._announced: deque[str] = deque(maxlen=_ANNOUNCED_LIMIT)  # keys of what this process has announced
        self._announced_state: NodeState | None = None
        self._unconfirmed: Announcement | None = None  # of a release whose answer did not come
        self._status = RebootStatus(Phase.UNKNOWN, StatusReason.API_UNREACHABLE)
        self._conflicts = 0
        self._refusals = 0

    def configure(self, policy: Reboot, dependencies: Dependencies) -> None:
        """Continues with another policy: the running cycle, its drain and its hooks stay what they are."""
        self._policy, self._deps = policy, dependencies
        self._lock.configure(policy.lock.lease_duration)
        self._observer.configure(policy, dependencies)

    def tick(self) -> Tick:
        """Observes, decides, acts at most once. Raises nothing that the node or the cluster may cause."""
        try:
            inputs, decision = self._observe_and_decide()
        except AgentError as error:
            return self._report(self._failed(error))
        self._announce_all(inputs, decision)
        status = self._status_of(inputs, decision)
        wait, acted, error_text = decision.wait_seconds, decision.action is not None, ""
        try:
            if self._waits_for_renewal(inputs, decision):
                acted, wait = False, _STALE_LOCK_SECONDS
            elif decision.action is not None:
                wait, error_text = self._act(inputs, decision)
            self._conflicts = self._refusals = 0
        except Conflict as error:
            acted, wait = False, self._deps.rng.uniform(0.0, _CONFLICT_SECONDS)
            self._conflicts += 1
            if self._conflicts > 1:  # one alone happens every day: the next tick is a moment away
                error_text = f"another writer was faster, trying again ({error})"
        except AgentError as error:
            acted, wait, error_text = False, self._error_seconds(error), str(error)
            is_final = isinstance(error, Refused) and not error.is_transient
            if is_final and isinstance(decision.action, Acquire | Renew | Release):
                status = replace(status, reason=StatusReason.LOCK_FORBIDDEN)
            if isinstance(error, Forbidden | Invalid) and isinstance(decision.action, Write):
                self._observer.memory.cordon_refused = str(error)
        if decision.postpone:
            again = self._observer.postpone(decision)
            wait = min(again, POLL_SECONDS) if decision.action is None else wait  # the wall clock may be set meanwhile
        written = decision.action if acted and isinstance(decision.action, Write) else None
        if written is not None:
            status = self._status_of_state(inputs, written.state)
        if error_text:
            sentence, message = (f"{text}: {error_text}" for text in (status.sentence, status.message))
            status = replace(status, sentence=sentence, message=message)
        tick = self._as_tick(inputs, decision, status, wait)
        # What is over with the next tick, which follows immediately, is not worth a request.
        return self._report(tick) if wait > 0 or written is not None else tick

    def _observe_and_decide(self) -> tuple[Inputs, Decision]:
        """Observes what is cheap, then what the machine requests. Raises AgentError: nothing can be decided."""
        inputs = self._observer.observe()
        decision = self._decide(inputs)
        for _ in range(_FETCHES_LIMIT):
            if not isinstance(decision.action, Fetch):
                break
            self._observer.fetch(decision.action.query, inputs)
            decision = self._decide(inputs)
        return inputs, decision

    def _error_seconds(self, error: AgentError) -> float:
        """A refusal (403, 422) will not be over in a moment; a 429 or 5xx may be, and the lock has to be renewed."""
        if not isinstance(error, Refused) or error.is_transient:
            return self._deps.rng.uniform(1.0, _ERROR_SECONDS)
        self._refusals += 1
        return min(_REFUSED_LIMIT_SECONDS, 2.0 ** min(self._refusals, 6)) * self._deps.rng.uniform(0.5, 1.0)

    # -- acting --------------------------------------------------------------------------------------------------------

    def _waits_for_renewal(self, inputs: Inputs, decision: Decision) -> bool:
        """The lock is renewed before a cordon."""
        is_cordon = isinstance(decision.action, Write) and bool(decision.action.cordon)
        return is_cordon and (inputs.mine is None or not self._lock.is_fresh(inputs.mine.view.name))

    def _act(self, inputs: Inputs, decision: Decision) -> tuple[float, str]:
        """Does the one thing. Returns the wait, and what went wrong. Raises AgentError, Conflict among them."""
        now = inputs.now
        match decision.action:
            case Write() as write:
                self._write(inputs, write)
                if write.cordon is not None:
                    return _TAINT_SECONDS, ""
            case Acquire() as acquire:
                self._lock.acquire(acquire, self._observer.identity, now)
            case Renew(slot):
                self._lock.renew(slot, now)
            case Release(slot, rebooted, announcement):
                self._unconfirmed = announcement
                self._lock.release(slot, now, rebooted=rebooted)
                self._announce_release(is_seen=True)
            case MarkStuck(slot):
                self._lock.mark_stuck(slot, self._observer.identity.partition("/")[0])
                return 0.0, ""
            case StepDrain() as step:
                return self._drain(inputs, step), ""
            case StepHooks(stage, again):
                self._run_hooks(stage, inputs, again=again)
            case FenceAndReboot(slot, announcement):
                return 0.0, self._reboot(inputs, slot, announcement)
        return decision.wait_seconds, ""

    def _write(self, inputs: Inputs, write: Write) -> None:
        node, memory = inputs.node, self._observer.memory
        if node is None:
            return
        write = memory.without_refused_keys(write)
        self._deps.reporter.flush(_FLUSH_SECONDS)  # the state that is overwritten is all that could announce it again
        shown = shown_status(self._status_of_state(inputs, write.state))
        notes: dict[str, str | None] = {
            **write.annotations,
            **shown.annotations,
            keys.REBOOT_STATE: None if write.state == Idle() else write.state.encode(),
        }
        if write.finished:
            done = write.state if isinstance(write.state, Finished) else inputs.state
            if isinstance(done, Finished):
                notes[keys.REBOOT_HISTORY] = history.with_entry(
                    node.annotations.get(keys.REBOOT_HISTORY, ""), done, kernel=inputs.kernel
                )
                if inputs.request and inputs.request == done.requested:
                    notes[keys.REBOOT_REQUEST] = None
        patch = NodePatch(
            annotations=notes,
            labels=dict(write.labels),
            unschedulable=write.cordon,
            taints=node.taints_with(write.taint, self._our_taints(inputs.state)),
            condition=shown.conditions[0],
        )
        self._deps.reporter.writing()
        try:
            self._deps.cluster.patch_node(patch, node.version)
        except (Forbidden, Invalid):
            if not isinstance(write.state, Attempt) and (write.labels or write.annotations):
                cycle = write.state.cycle if isinstance(write.state, Cycle) else inputs.new_cycle
                self._note_refused_keys(node, cycle, write)
            raise
        was_rebooting = isinstance(inputs.state, Rebooting)
        if isinstance(write.state, Rebooting) and memory.command is Command.UNKNOWN and not was_rebooting:
            memory.command = Command.NOT_GIVEN
        if write.result is not None:
            self._deps.reporter.cycle_ended(write.result)

    def _note_refused_keys(self, node: NodeView, cycle: str, write: Write) -> None:
        """Reports them; the next tick ends the cycle without them."""
        for (kind, key), why in find_refused_keys(self._deps.cluster, node, write).items():
            self._observer.memory.refused_keys.add((kind, key))
            self._announce(announcements.key_refused(cycle, kind, key, why))

    def _our_taints(self, state: NodeState | None) -> frozenset[str]:
        """The key of our PreferNoSchedule taint, and an earlier policy's that the Node may still have."""
        earlier = state.taint if isinstance(state, Pending) else ""
        return frozenset({self._policy.prefer_no_schedule_taint, earlier} - {""})

    def _drain(self, inputs: Inputs, step: StepDrain) -> float:
        name = inputs.mine.view.name if inputs.mine else ""
        if not self._lock.is_fresh(name):
            return _STALE_LOCK_SECONDS  # the lock is renewed before the drain continues
        memory, clock = self._observer.memory, self._deps.clock
        memory.drain_again_at = clock.monotonic() + _ERROR_SECONDS
        progress = self._deps.drain.step(step.mode, lambda: self._lock.is_fresh(name))
        memory.progress = progress
        memory.drain_again_at = clock.monotonic() + progress.wait_seconds
        if progress.done and memory.drained_at is None:
            memory.drained_at = clock.monotonic()
        return 0.0

    def _run_hooks(self, stage: HookStage, inputs: Inputs, *, again: bool) -> None:
        memory = self._observer.memory
        if again:
            self._deps.hooks.reset()
            memory.hooks.pop(stage, None)
        progress = self._deps.hooks.step(stage, memory.cycle)
        if progress.error and stage not in memory.hooks:
            memory.hooks_failed_at = inputs.now.mono
        if progress.done or progress.error:
            memory.hooks[stage] = progress

    def _reboot(self, inputs: Inputs, slot: Slot, announcement: Announcement) -> str:
        """The fence, the announcement, the command. A fence that took long is put up again rather than trusted.

        Returns what went wrong.
        """
        memory, clock = self._observer.memory, self._deps.clock
        if self._is_old(inputs):
            return "the observation took long; observing again before the reboot"
        memory.command = Command.NOT_GIVEN
        try:
            self._lock.fence(slot, inputs.now)
        except Conflict:
            memory.fence_refused = True
            raise
        self._announce(announcement)
        self._deps.reporter.flush(_FLUSH_SECONDS, notifications=True)
        if self._is_old(inputs):
            return "the fence took long; putting it up again"
        memory.command = Command.GIVEN
        memory.command_at = clock.monotonic()
        try:
            self._deps.rebooter.reboot()
        except CommandTimeout as error:
            return f"the reboot command gave no answer: {error}"
        except AgentError as error:
            memory.command = Command.REFUSED
            memory.command_error = str(error)
            return f"the reboot command failed: {error}"
        return ""

    def _is_old(self, inputs: Inputs) -> bool:
        """Whether too much time has passed since the observation for a reboot to be decided on it."""
        return self._deps.clock.monotonic() - inputs.now.mono > fence_seconds(self._policy)

    # -- reporting -----------------------------------------------------------------------------------------------------

    def _announce_all(self, inputs: Inputs, decision: Decision) -> None:
        """What the written state means, once a state, then what the decision adds."""
        if inputs.state is not None and inputs.state is not self._announced_state:
            for announcement in announcements.events_for_phase(inputs.state, inputs.kernel):
                self._announce(announcement)
            self._announced_state = inputs.state
        self._announce_release(is_seen=inputs.is_lock_lost)
        for announcement in decision.announcements:
            self._announce(announcement)

    def _announce_release(self, *, is_seen: bool) -> None:
        """A release whose answer was lost may have been done: what is read next decides."""
        announcement, self._unconfirmed = self._unconfirmed, None
        if announcement is not None and is_seen:
            self._announce(announcement)

    def _announce(self, announcement: Announcement) -> None:
        if announcement.key not in self._announced:
            self._announced.append(announcement.key)
            self._deps.reporter.event(announcement)

    def _status_of(self, inputs: Inputs, decision: Decision) -> RebootStatus:
        again = inputs.now.wall + decision.postpone_seconds if decision.postpone_seconds > 0 else 0.0
        message, until = decision.sentence, decision.until or again
        status = self._status_with(inputs, inputs.state, decision.phase, decision.reason, message=message, until=until)
        sentence = _with_time(message, status.until if decision.until else 0.0)
        return replace(status, sentence=sentence, blocked_by=decision.blocked_by, holder=decision.holder)

    def _status_of_state(self, inputs: Inputs, state: NodeState) -> RebootStatus:
        reason, message, until = written_status(inputs, state)
        status = self._status_with(inputs, state, state.phase, reason, message=message, until=until)
        return replace(status, sentence=_with_time(message, until))

    def _status_with(
        self, inputs: Inputs, state: NodeState | None, phase: Phase, reason: StatusReason, *, message: str, until: float
    ) -> RebootStatus:
        before = self._status
        if (before.phase, before.reason) == (phase, reason) and abs(before.until - until) < _SAME_MOMENT_SECONDS:
            until = before.until
        mine = inputs.mine.view.name if inputs.mine else ""
        since = 0.0
        if isinstance(state, Cycle):
            since = state.since if isinstance(state, Pending) else state.entered.wall
        return RebootStatus(
            phase,
            reason,
            mode=self._policy.mode.value,
            required=True if inputs.request else inputs.sentinel.required,
            lock=mine or (inputs.attempt.slot.view.name if inputs.attempt.slot else ""),
            since=since,
            until=until,
            failures=state.failures if state else 0,
            drain=self._drain_status(phase),
            message=message,
        )

    def _drain_status(self, phase: Phase) -> DrainStatus | None:
        progress = self._observer.memory.progress
        if progress is None or phase is not Phase.DRAINING:
            return None
        return DrainStatus(
            total=progress.total,
            left=progress.left,
            pods=progress.waiting_for,
            budgets=progress.budgets,
            refusals=progress.misconfigured or progress.blocked_by,
        )

    def _as_tick(self, inputs: Inputs, decision: Decision, status: RebootStatus, wait: float) -> Tick:
        return Tick(
            status=status,
            wait_seconds=max(0.0, wait),
            required_since=inputs.state.since if isinstance(inputs.state, Cycle) else 0.0,
            stuck=decision.reason is StatusReason.HOLDER_LOST,
            lock_since=_lock_since(inputs, decision.holder),
            marks=inputs.state.marks if isinstance(inputs.state, Attempt | Finished) else (),
            acting=decision.action is not None,
        )

    def _failed(self, error: AgentError) -> Tick:
        """Nothing else is known; the phase is the last known one."""
        text = f"the node or the cluster cannot be read: {error}"
        status = replace(self._status, reason=StatusReason.API_UNREACHABLE, message=text, sentence=text)
        return Tick(status, self._error_seconds(error))

    def _report(self, tick: Tick) -> Tick:
        self._status = tick.status
        self._deps.reporter.tick(tick)
        return tick


def _with_time(sentence: str, until: float) -> str:
    return f"{sentence} (until {format_rfc3339(until)})" if until else sentence


def _lock_since(inputs: Inputs, waits_for: str) -> float:
    """Wall seconds at which the lock was acquired that this node has, or waits for; 0 for neither, or if malformed."""
    busy = [slot for slot in inputs.slots if waits_for and slot.holder == waits_for]
    slots = [inputs.mine] if inputs.mine else busy
    try:
        return parse_rfc3339(slots[0].view.acquired) if slots else 0.0
    except ValueError:
        return 0.0
