"""One tick: look at everything, let the machine decide, do the one thing it says, and tell it in one sentence.

It refuses to do two things in one tick, to act on a lease that others may have taken, and to give the reboot command
in any other way than straight behind the fence. Whatever fails ends the tick; the next one looks anew.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from agent.config.schema import Reboot
from agent.errors import AgentError, CommandTimeout, KubeError
from agent.kube.errors import Conflict
from agent.reboot import history, said
from agent.reboot.cluster import HISTORY, REQUEST, STATE, Cluster, NodePatch, NodeView
from agent.reboot.lock import Lock
from agent.reboot.machine import decide
from agent.reboot.memory import CycleMemory, Told
from agent.reboot.pools import budget, lease_names, pool_of, usable_slots
from agent.reboot.ports import (
    Announcement,
    Blocker,
    Clock,
    Drain,
    Hooks,
    HookStage,
    Machine,
    Power,
    Proof,
    ProofReading,
    Reporter,
    Sentinel,
    SentinelReading,
    Tick,
)
from agent.reboot.seen import (
    Acquire,
    Command,
    Decision,
    FenceAndReboot,
    Gate,
    Look,
    MarkStuck,
    Need,
    Release,
    Renew,
    Seen,
    Slot,
    StepDrain,
    StepHooks,
    Turn,
    Write,
)
from agent.reboot.state import NodeState, Now, Phase, decode
from agent.reboot.steps import fence_seconds
from agent.reboot.waiting import WaitingRoom

_LOOKS_LIMIT = 8
_ERROR_SECONDS = 3.0
_CONFLICT_SECONDS = 0.3
_PREFER_NO_SCHEDULE = "PreferNoSchedule"


@dataclass(frozen=True, slots=True)
class Rooms:
    """Everything the coordinator works with; each is a front of ports.py, cluster.py or the standard library."""

    cluster: Cluster
    clock: Clock
    machine: Machine
    sentinel: Sentinel
    blockers: Sequence[Blocker]
    drain: Drain
    hooks: Hooks
    power: Power
    proof: Proof
    reporter: Reporter
    rng: random.Random


class Coordinator:
    """One node's part in the cluster's reboots. Not for several threads; a changed policy wants a new one."""

    def __init__(
        self,
        policy: Reboot,
        rooms: Rooms,
        *,
        lock: Lock | None = None,
        machine: Callable[[Seen], Decision] = decide,
    ) -> None:
        self._policy = policy
        self._rooms = rooms
        self._decide = machine
        self._lock = lock or Lock(rooms.cluster, rooms.clock, policy.lock.lease_duration)
        self._waiting = WaitingRoom(rooms.rng, policy.lock.lease_duration)
        self._told = Told()
        self._said_of: NodeState | None = None
        self._memory = CycleMemory()
        self._note: tuple[str, NodeState | None, str] = ("", NodeState(), "")
        self._pool_size = 0
        self._usable = usable_slots(policy)
        self._last_reboot: tuple[float, float] = (0.0, 0.0)
        self._last_phase = Phase.UNKNOWN
        self._identity = ""
        self._is_settled = False

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
        except Conflict as error:
            wait = self._rooms.rng.uniform(0.0, _CONFLICT_SECONDS)
            sentence = f"{sentence}: somebody was faster, looks again ({error})"
        except AgentError as error:
            wait = self._rooms.rng.uniform(1.0, _ERROR_SECONDS)
            sentence = f"{sentence}: {error}"
        if decision.postpone:
            again = self._waiting.postpone(
                self._rooms.clock.monotonic(), pool_size=self._pool_size, seconds=decision.postpone_seconds
            )
            wait = again if decision.action is None else wait
        return self._tell(self._as_tick(seen, decision, sentence, wait))

    def _look_and_decide(self) -> tuple[Seen, Decision]:
        """Looks at what is cheap, then at what the machine asks for. Raises AgentError: nothing can be decided."""
        seen = self._observe()
        decision = self._decide(seen)
        for _ in range(_LOOKS_LIMIT):
            if not isinstance(decision.action, Look):
                break
            self._look(decision.action.need, seen)
            decision = self._decide(seen)
        return seen, decision

    # -- looking -------------------------------------------------------------------------------------------------------

    def _observe(self) -> Seen:
        rooms = self._rooms
        now = Now(rooms.machine.boot_id(), rooms.clock.monotonic(), rooms.clock.wall())
        node = rooms.cluster.node()
        if node is None:
            return Seen(policy=self._policy, now=now, node=None, state=None)
        self._identity = f"{node.name}/{node.uid}"
        state, problem = self._decoded(node.annotations.get(STATE, ""))
        try:
            sentinel = rooms.sentinel.read()
        except AgentError as error:
            sentinel = SentinelReading(None, problem=str(error))
        request = node.annotations.get(REQUEST, "")
        slots, mine, spare = self._slots(node, state, bool(request) or sentinel.required is not False)
        memory = self._remembered(state, now)
        if state is not None and state.phase is Phase.VERIFYING and memory.first_heartbeat is None:
            memory.first_heartbeat = rooms.cluster.heartbeat()
        if memory.fence_refused:
            # Another's write came before the fence. With the lease gone the command was not given; with it fenced by
            # us, an earlier process may have given it.
            memory.command = Command.NOT_GIVEN if mine is None else Command.UNKNOWN
            memory.fence_refused = False
        return Seen(
            policy=self._policy,
            now=now,
            node=node,
            state=state,
            state_problem=problem,
            slots=slots,
            mine=mine,
            spare=spare,
            renew_due=mine is not None and self._lock.renew_due(mine),
            sentinel=sentinel,
            request=request,
            kernel=rooms.machine.kernel_release(),
            gap_seconds=self._gap(slots, now),
            turn=self._turn(slots, state, mine, now),
            progress=memory.progress,
            drain_due=now.mono >= memory.drain_again_at,
            drained_seconds=now.mono - memory.drained_at if memory.drained_at is not None else 0.0,
            hooks=memory.hooks,
            hooks_failed_seconds=now.mono - memory.hooks_failed_at,
            command=memory.command,
            command_error=memory.command_error,
            command_seconds=now.mono - memory.command_at if memory.command_at is not None else None,
            new_cycle=f"{rooms.rng.getrandbits(40):010x}",
        )

    def _decoded(self, text: str) -> tuple[NodeState | None, str]:
        if text != self._note[0]:
            try:
                self._note = (text, decode(text), "")
            except ValueError as error:
                self._note = (text, None, str(error))
        return self._note[1], self._note[2]

    def _slots(
        self, node: NodeView, state: NodeState | None, may_want: bool
    ) -> tuple[tuple[Slot, ...], Slot | None, Slot | None]:
        """The pool's slots, the one that is ours, and one too many. An idle node looks at the leases just once."""
        idle = state is not None and state.phase is Phase.IDLE
        if state is None or (idle and not may_want and self._is_settled):
            return (), None, None
        pool = pool_of(node.labels, self._policy.pool)
        names = lease_names(pool, self._policy.concurrency)
        looked_at = (*names, state.lease) if state.lease and state.lease not in names else names
        slots = self._lock.observe(looked_at, self._identity, indexed=len(names))
        ours = [slot for slot in slots if slot.ours]
        mine = next((slot for slot in ours if slot.view.name == state.lease), ours[0] if ours else None)
        spare = next((slot for slot in ours if slot is not mine), None)
        self._is_settled = idle and mine is None
        return tuple(slot for slot in slots if slot.index >= 0), mine, spare

    def _remembered(self, state: NodeState | None, now: Now) -> CycleMemory:
        cycle = state.cycle if state else ""
        if self._memory.cycle != cycle or self._memory.boot != now.boot:
            if self._memory.cycle:
                self._rooms.drain.reset()
                self._rooms.hooks.reset()
            self._memory = CycleMemory(cycle=cycle, boot=now.boot)
        return self._memory

    def _turn(self, slots: tuple[Slot, ...], state: NodeState | None, mine: Slot | None, now: Now) -> Turn:
        if state is None or state.phase is not Phase.WANTED or mine is not None:
            return Turn(now=False, in_seconds=0.0)
        if not self._pool_size:
            self._pool_size = max((slot.view.pool_size for slot in slots), default=0) or self._rooms.cluster.count()
        return self._waiting.turn(
            slots[: self._usable],
            now.mono,
            pool_size=self._pool_size,
            waited=max(0.0, now.wall - state.since),
        )

    def _gap(self, slots: tuple[Slot, ...], now: Now) -> float:
        """What is left of the minimum gap; a remote clock that runs ahead costs one gap at most."""
        gap = self._policy.blockers.minimum_gap
        last = max((slot.view.last_reboot for slot in slots), default=0.0)
        if gap <= 0 or last <= 0:
            return 0.0
        if self._last_reboot[0] != last:
            self._last_reboot = (last, now.mono)
        return max(0.0, min(last + gap - now.wall, self._last_reboot[1] + gap - now.mono))

    def _look(self, need: Need, seen: Seen) -> None:
        """Answers the machine's question. Raises KubeError where the pool cannot be counted."""
        match need:
            case Need.GATE:
                seen.gate = self._gate(late=False)
            case Need.LATE_GATE:
                seen.late_gate = self._gate(late=True)
            case Need.PROOF:
                seen.proof = self._proof()
            case Need.BUDGET:
                self._count(seen)
            case Need.HOLDER:
                seen.holder_gone = self._is_holder_gone(seen.turn.slot)
            case Need.HEARTBEAT:
                seen.heartbeat = self._has_heartbeat()

    def _gate(self, *, late: bool) -> Gate:
        for blocker in self._rooms.blockers:
            if late and not blocker.late:
                continue
            try:
                verdict = blocker.check()
            except AgentError as error:
                return Gate(blocked=True, name=blocker.name, by=f"{blocker.name}, which cannot be told: {error}")
            if verdict.blocked:
                return Gate(blocked=True, name=blocker.name, by=verdict.by, again_seconds=verdict.again_seconds)
        return Gate(blocked=False)

    def _proof(self) -> ProofReading:
        try:
            return self._rooms.proof.read()
        except AgentError as error:
            return ProofReading(None, str(error))

    def _count(self, seen: Seen) -> None:
        node = seen.node
        if node is None:
            return
        own = seen.mine or seen.turn.slot
        others = [slot.view.holder for slot in seen.slots if own is None or slot.index != own.index]
        pool = pool_of(node.labels, self._policy.pool)
        found = budget(self._rooms.cluster.members(), node.name, self._policy, pool, others)
        self._pool_size = found.pool_size
        self._usable = min(usable_slots(self._policy), found.slots)
        seen.budget = found

    def _is_holder_gone(self, slot: Slot | None) -> bool:
        """Whether the holder's Node is gone or another one by the same name. Not to be told: it is there."""
        if slot is None:
            return False
        name, _, uid = slot.view.holder.rpartition("/")
        try:
            return self._rooms.cluster.uid_of(name) != uid
        except KubeError:
            return False

    def _has_heartbeat(self) -> bool:
        """Whether the kubelet has renewed its lease since this process first looked."""
        try:
            renewed = self._rooms.cluster.heartbeat()
        except KubeError:
            return False
        return bool(renewed) and renewed != self._memory.first_heartbeat

    # -- acting --------------------------------------------------------------------------------------------------------

    def _act(self, seen: Seen, decision: Decision) -> tuple[float, str]:
        """Does the one thing. Returns the wait and the sentence. Raises AgentError, Conflict among them."""
        now, wait, sentence = seen.now, decision.wait_seconds, decision.sentence
        match decision.action:
            case Write() as write:
                if write.cordon and (seen.mine is None or not self._lock.is_fresh(seen.mine.view.name)):
                    return 0.0, "renews the lock before it cordons"
                self._write(seen, write)
            case Acquire(slot, cycle, waited, pool_size, from_holder):
                self._lock.acquire(
                    slot,
                    self._identity,
                    now,
                    cycle=cycle,
                    pool_size=pool_size,
                    waited=waited,
                    from_holder=from_holder,
                )
            case Renew(slot):
                self._lock.renew(slot, now)
            case Release(slot, rebooted, last_word):
                self._lock.release(slot, now, rebooted=rebooted)
                if last_word is not None:
                    self._say(last_word)
            case MarkStuck(slot):
                self._lock.mark_stuck(slot, self._identity.partition("/")[0])
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

    def _write(self, seen: Seen, write: Write) -> None:
        node = seen.node
        if node is None:
            return
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
            and self._memory.command is Command.UNKNOWN
            and not _was_rebooting(seen)
        ):
            self._memory.command = Command.NOT_GIVEN
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

    def _drain(self, seen: Seen, step: StepDrain, sentence: str) -> tuple[float, str]:
        name = seen.mine.view.name if seen.mine else ""
        if not self._lock.is_fresh(name):
            return 0.0, "renews the lock before it drains on"
        memory, clock = self._memory, self._rooms.clock
        memory.drain_again_at = clock.monotonic() + _ERROR_SECONDS
        progress = self._rooms.drain.step(step.mode, lambda: self._lock.is_fresh(name))
        memory.progress = progress
        memory.drain_again_at = clock.monotonic() + progress.wait_seconds
        if progress.done and memory.drained_at is None:
            memory.drained_at = clock.monotonic()
        return 0.0, sentence

    def _run_hooks(self, stage: HookStage, seen: Seen, *, again: bool) -> None:
        memory = self._memory
        if again:
            self._rooms.hooks.reset()
            memory.hooks.pop(stage, None)
        progress = self._rooms.hooks.step(stage, memory.cycle)
        if progress.error and stage not in memory.hooks:
            memory.hooks_failed_at = seen.now.mono
        if progress.done or progress.error:
            memory.hooks[stage] = progress

    def _reboot(self, seen: Seen, slot: Slot, last_word: Announcement) -> tuple[float, str]:
        """The fence, the last word, the command. A fence that took long is put up again rather than trusted."""
        memory, clock = self._memory, self._rooms.clock
        if self._is_old(seen):
            return 0.0, "the look took long: looks again before the reboot"
        memory.command = Command.NOT_GIVEN
        try:
            self._lock.fence(slot, seen.now)
        except Conflict:
            memory.fence_refused = True
            raise
        self._say(last_word)
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

    def _is_old(self, seen: Seen) -> bool:
        """Whether too much time went by since the look for a reboot to be decided on it."""
        return self._rooms.clock.monotonic() - seen.now.mono > fence_seconds(self._policy)

    # -- telling -------------------------------------------------------------------------------------------------------

    def _say_all(self, seen: Seen, decision: Decision) -> None:
        """What the written step means, once a note, then what the decision adds."""
        if seen.state is not None and seen.state is not self._said_of:
            for announcement in said.by_step(seen.state, seen.kernel):
                self._say(announcement)
            self._said_of = seen.state
        for announcement in decision.said:
            self._say(announcement)

    def _say(self, announcement: Announcement) -> None:
        if self._told.is_new(announcement.key):
            self._rooms.reporter.event(announcement)

    def _as_tick(self, seen: Seen, decision: Decision, sentence: str, wait: float) -> Tick:
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
            progress=self._memory.progress,
        )

    def _failed_look(self, error: AgentError) -> Tick:
        """Nothing can be told but this; the phase for metrics is the last one known."""
        wait = self._rooms.rng.uniform(1.0, _ERROR_SECONDS)
        return Tick(self._last_phase.value, f"cannot look at the node or the cluster: {error}", wait)

    def _tell(self, tick: Tick) -> Tick:
        self._rooms.reporter.tick(tick)
        return tick


def _was_rebooting(seen: Seen) -> bool:
    return seen.state is not None and seen.state.phase is Phase.REBOOTING
