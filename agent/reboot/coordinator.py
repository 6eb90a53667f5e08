"""One tick: look at everything, let the machine decide, do the one thing it says, and tell it in one sentence.

It refuses to do two things in one tick, to act on a lease that others may have taken, and to give the reboot command
in any other way than straight behind the fence. Whatever fails ends the tick; the next one looks anew.
"""

from __future__ import annotations

from collections.abc import Callable

from agent.config.schema import Reboot
from agent.errors import AgentError, CommandTimeout
from agent.kube.errors import Conflict
from agent.reboot import history
from agent.reboot.cluster import HISTORY, REQUEST, STATE, NodePatch, NodeView
from agent.reboot.cycle_memory import AnnouncedKeys
from agent.reboot.interfaces import Announcement, HookStage, Tick
from agent.reboot.lock.lease import Lock
from agent.reboot.machine import announcements
from agent.reboot.machine.decide import decide
from agent.reboot.machine.inputs import (
    Acquire,
    Command,
    Decision,
    FenceAndReboot,
    Fetch,
    Inputs,
    MarkStuck,
    Release,
    Renew,
    Slot,
    StepDrain,
    StepHooks,
    Write,
)
from agent.reboot.machine.transitions import fence_seconds
from agent.reboot.observer import Observer
from agent.reboot.rooms import Dependencies
from agent.reboot.state import NodeState, Phase
from agent.text import parse_rfc3339

__all__ = ["Coordinator", "Dependencies"]

_LOOKS_LIMIT = 8
_ERROR_SECONDS = 3.0
_CONFLICT_SECONDS = 0.3
# What is still queued dies with the process or the machine; who is slower than this does not hold up a reboot.
_FLUSH_SECONDS = 2.0
_PREFER_NO_SCHEDULE = "PreferNoSchedule"


class Coordinator:
    """One node's part in the cluster's reboots. Not for several threads; a changed policy wants a new one."""

    def __init__(
        self,
        policy: Reboot,
        rooms: Dependencies,
        *,
        lock: Lock | None = None,
        machine: Callable[[Inputs], Decision] = decide,
    ) -> None:
        self._policy = policy
        self._rooms = rooms
        self._decide = machine
        self._lock = lock or Lock(rooms.cluster, rooms.clock, policy.lock.lease_duration)
        self._observer = Observer(policy, rooms, self._lock)
        self._told = AnnouncedKeys()
        self._said_of: NodeState | None = None
        self._last_phase = Phase.UNKNOWN
        self._last_sentence = ""
        self._conflicts = 0

    def tick(self) -> Tick:
        """Looks, decides, acts at most once. Raises nothing that the node or the cluster may cause."""
        try:
            seen, decision = self._look_and_decide()
        except AgentError as error:
            return self._tell(self._failed_look(error))
        self._say_all(seen, decision)
        wait, sentence = decision.wait_seconds, decision.sentence
        try:
            if decision.action is not None:
                wait, sentence = self._act(seen, decision)
            self._conflicts = 0
        except Conflict as error:
            wait = self._rooms.rng.uniform(0.0, _CONFLICT_SECONDS)
            self._conflicts += 1
            if self._conflicts > 1:  # one alone is every day's: the next look is a moment away
                sentence = f"{sentence}: somebody was faster, looks again ({error})"
        except AgentError as error:
            wait = self._rooms.rng.uniform(1.0, _ERROR_SECONDS)
            sentence = f"{sentence}: {error}"
        if decision.postpone:
            again = self._observer.postpone(decision)
            wait = again if decision.action is None else wait
        return self._tell(self._as_tick(seen, decision, sentence, wait))

    def _look_and_decide(self) -> tuple[Inputs, Decision]:
        """Looks at what is cheap, then at what the machine asks for. Raises AgentError: nothing can be decided."""
        seen = self._observer.observe()
        decision = self._decide(seen)
        for _ in range(_LOOKS_LIMIT):
            if not isinstance(decision.action, Fetch):
                break
            self._observer.look(decision.action.need, seen)
            decision = self._decide(seen)
        return seen, decision

    # -- acting --------------------------------------------------------------------------------------------------------

    def _act(self, seen: Inputs, decision: Decision) -> tuple[float, str]:
        """Does the one thing. Returns the wait and the sentence. Raises AgentError, Conflict among them."""
        now, wait, sentence = seen.now, decision.wait_seconds, decision.after or decision.sentence
        match decision.action:
            case Write() as write:
                if write.cordon and (seen.mine is None or not self._lock.is_fresh(seen.mine.view.name)):
                    return 0.0, "renews the lock before it cordons"
                self._write(seen, write)
            case Acquire(slot, cycle, waited, pool_size, from_holder):
                self._lock.acquire(
                    slot,
                    self._observer.identity,
                    now,
                    cycle=cycle,
                    pool_size=pool_size,
                    waited=waited,
                    from_holder=from_holder,
                )
            case Renew(slot):
                self._lock.renew(slot, now)
                sentence = self._last_sentence or sentence  # no news to anybody
            case Release(slot, rebooted, last_word):
                self._lock.release(slot, now, rebooted=rebooted)
                if last_word is not None:
                    self._say(last_word)
            case MarkStuck(slot):
                self._lock.mark_stuck(slot, self._observer.identity.partition("/")[0])
                wait = 0.0
            case StepDrain(mode):
                return self._drain(seen, StepDrain(mode), sentence)
            case StepHooks(stage, again):
                self._run_hooks(stage, seen, again=again)
            case FenceAndReboot(slot, last_word):
                return self._reboot(seen, slot, last_word)
            case _:
                pass
        return wait, sentence

    def _write(self, seen: Inputs, write: Write) -> None:
        node = seen.node
        if node is None:
            return
        self._rooms.reporter.flush(_FLUSH_SECONDS)  # the note that is written over is all that could tell it again
        text = "" if write.state == NodeState() else write.state.encode()
        annotations: dict[str, str | None] = {STATE: text or None}
        if write.finished:
            before = node.annotations.get(HISTORY, "")
            annotations[HISTORY] = history.with_entry(before, write.state, kernel=seen.kernel)
            if seen.request and seen.request == write.state.requested:
                annotations[REQUEST] = None
        patch = NodePatch(
            annotations=annotations,
            labels=dict(write.labels),
            unschedulable=write.cordon,
            taints=self._taints(node, wanted=write.taint),
        )
        self._rooms.cluster.patch_node(patch, node.version)
        if (
            write.state.phase is Phase.REBOOTING
            and self._observer.memory.command is Command.UNKNOWN
            and not _was_rebooting(seen)
        ):
            self._observer.memory.command = Command.NOT_GIVEN
        if write.ended is not None:
            self._rooms.reporter.ended(write.ended)

    def _taints(self, node: NodeView, *, wanted: bool) -> tuple[dict[str, str], ...] | None:
        """spec.taints when our PreferNoSchedule taint has to come or go, else None."""
        key = self._policy.prefer_no_schedule_taint
        if not key:
            return None
        others = tuple(
            dict(taint)
            for taint in node.taints
            if taint.get("key") != key or taint.get("effect") != _PREFER_NO_SCHEDULE
        )
        if wanted == (len(others) != len(node.taints)):
            return None
        return (*others, {"key": key, "effect": _PREFER_NO_SCHEDULE}) if wanted else others

    def _drain(self, seen: Inputs, step: StepDrain, sentence: str) -> tuple[float, str]:
        name = seen.mine.view.name if seen.mine else ""
        if not self._lock.is_fresh(name):
            return 0.0, "renews the lock before it drains on"
        memory, clock = self._observer.memory, self._rooms.clock
        memory.drain_again_at = clock.monotonic() + _ERROR_SECONDS
        progress = self._rooms.drain.step(step.mode, lambda: self._lock.is_fresh(name))
        memory.progress = progress
        memory.drain_again_at = clock.monotonic() + progress.wait_seconds
        if progress.done and memory.drained_at is None:
            memory.drained_at = clock.monotonic()
        return 0.0, sentence

    def _run_hooks(self, stage: HookStage, seen: Inputs, *, again: bool) -> None:
        memory = self._observer.memory
        if again:
            self._rooms.hooks.reset()
            memory.hooks.pop(stage, None)
        progress = self._rooms.hooks.step(stage, memory.cycle)
        if progress.error and stage not in memory.hooks:
            memory.hooks_failed_at = seen.now.mono
        if progress.done or progress.error:
            memory.hooks[stage] = progress

    def _reboot(self, seen: Inputs, slot: Slot, last_word: Announcement) -> tuple[float, str]:
        """The fence, the last word, the command. A fence that took long is put up again rather than trusted."""
        memory, clock = self._observer.memory, self._rooms.clock
        if self._is_old(seen):
            return 0.0, "the look took long: looks again before the reboot"
        memory.command = Command.NOT_GIVEN
        try:
            self._lock.fence(slot, seen.now)
        except Conflict:
            memory.fence_refused = True
            raise
        self._say(last_word)
        self._rooms.reporter.flush(_FLUSH_SECONDS, people=True)
        if self._is_old(seen):
            return 0.0, "the fence took long: puts it up again"
        memory.command = Command.GIVEN
        memory.command_at = clock.monotonic()
        try:
            self._rooms.power.reboot()
        except CommandTimeout as error:
            return 0.0, f"rebooting; the command gave no answer: {error}"
        except AgentError as error:
            memory.command = Command.REFUSED
            memory.command_error = str(error)
            return 0.0, f"the reboot command failed: {error}"
        return 0.0, "rebooting: the command was given"

    def _is_old(self, seen: Inputs) -> bool:
        """Whether too much time went by since the look for a reboot to be decided on it."""
        return self._rooms.clock.monotonic() - seen.now.mono > fence_seconds(self._policy)

    # -- telling -------------------------------------------------------------------------------------------------------

    def _say_all(self, seen: Inputs, decision: Decision) -> None:
        """What the written step means, once a note, then what the decision adds."""
        if seen.state is not None and seen.state is not self._said_of:
            for announcement in announcements.events_for_phase(seen.state, seen.kernel):
                self._say(announcement)
            self._said_of = seen.state
        for announcement in decision.said:
            self._say(announcement)

    def _say(self, announcement: Announcement) -> None:
        if self._told.is_new(announcement.key):
            self._rooms.reporter.event(announcement)

    def _as_tick(self, seen: Inputs, decision: Decision, sentence: str, wait: float) -> Tick:
        state = seen.state
        self._last_phase = decision.phase
        return Tick(
            phase=decision.phase.value,
            sentence=sentence,
            wait_seconds=max(0.0, wait),
            required=True if seen.request else seen.sentinel.required,
            since=state.since if state else 0.0,
            blocked_by=decision.blocked_by,
            holder=decision.holder,
            stuck=decision.stuck,
            failures=state.failures if state else 0,
            progress=self._observer.memory.progress,
            lock_since=_lock_since(seen, decision.holder),
        )

    def _failed_look(self, error: AgentError) -> Tick:
        """Nothing can be told but this; the phase for metrics is the last one known."""
        wait = self._rooms.rng.uniform(1.0, _ERROR_SECONDS)
        return Tick(self._last_phase.value, f"cannot look at the node or the cluster: {error}", wait)

    def _tell(self, tick: Tick) -> Tick:
        self._last_sentence = tick.sentence
        self._rooms.reporter.tick(tick)
        return tick


def _lock_since(seen: Inputs, waits_for: str) -> float:
    """Wall seconds at which the lock was taken that this node has, or waits for; 0 for neither, and when unreadable."""
    slots = [seen.mine] if seen.mine else [slot for slot in seen.slots if waits_for and slot.holder == waits_for]
    try:
        return parse_rfc3339(slots[0].view.acquired) if slots else 0.0
    except ValueError:
        return 0.0


def _was_rebooting(seen: Inputs) -> bool:
    return seen.state is not None and seen.state.phase is Phase.REBOOTING
