"""Observes everything that a tick depends on: what is cheap always, what costs requests when the machine requests it.

It refuses to act, and to turn what it could not read into anything but unknown or an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from agent.annotations import REBOOT_REQUEST, REBOOT_STATE
from agent.config.choices import Mode
from agent.config.schema import Reboot
from agent.errors import AgentError, KubeError
from agent.kube.errors import Forbidden
from agent.reboot.blockers import reason_of
from agent.reboot.cluster import MEMBERS_A_PAGE, NodeView
from agent.reboot.cycle_memory import CycleMemory
from agent.reboot.interfaces import (
    Blocker,
    BlockerResult,
    Dependencies,
    DrainAwareBlocker,
    Drained,
    HardeningReading,
    SentinelReading,
)
from agent.reboot.lock.contention import LockContention
from agent.reboot.lock.lease import Lock
from agent.reboot.lock.pools import budget, lease_names, pool_of, usable_slots
from agent.reboot.machine.blocked import as_result
from agent.reboot.machine.decisions import Decision, Query
from agent.reboot.machine.inputs import Budget, Command, Inputs, LockAttempt, Slot
from agent.reboot.state import (
    Attempt,
    Cycle,
    Finished,
    Idle,
    NodeState,
    Now,
    Pending,
    Verifying,
    bounded,
    decode,
)

_HEARTBEAT_SECONDS = 2.5
_ACQUIRED_SECONDS = 3.0
_CLOCK_SET_SECONDS = 5.0  # further apart than this from each other: one of the two clocks was set, or stood still
_OFF = SentinelReading(False, problem="reboot.mode is off")


class _Taken(Exception):
    """The Lease that a count was for is no longer what it was."""


class Observer:
    """One process's view. `memory` is the running cycle's; `identity` is known after the first observation."""

    def __init__(self, policy: Reboot, dependencies: Dependencies, lock: Lock) -> None:
        self.memory = CycleMemory()
        self.identity = ""
        self._policy = policy
        self._deps = dependencies
        self._lock = lock
        self._contention = LockContention(dependencies.rng, policy.lock.lease_duration)
        self._decoded_state: tuple[str, NodeState | None, str] = ("", Idle(), "")
        self._pool_size = 0
        self._usable: int | None = None
        self._last_reboot: tuple[float, float] = (0.0, 0.0)
        self._is_settled = False
        self._slots_before: tuple[tuple[Slot, ...], Slot | None, Slot | None] = ((), None, None)
        self._lock_problem = ""
        self._before_lock: tuple[float, BlockerResult | None, Budget | None] = (float("-inf"), None, None)
        self._patchable: set[str] = set()  # Leases
        self._wall_ahead: float | None = None  # of the monotonic clock, when the two were last seen to part

    def configure(self, policy: Reboot, dependencies: Dependencies) -> None:
        """Continues with another policy; what is remembered of the running cycle stays."""
        # What the last attempt was refused for, and until when, belongs to the policy of then.
        self._contention = LockContention(dependencies.rng, policy.lock.lease_duration)
        self._policy, self._deps = policy, dependencies
        self._usable, self._is_settled = None, False

    def observe(self) -> Inputs:
        """What is cheap. Raises AgentError: then nothing can be decided."""
        deps = self._deps
        now = Now(deps.machine.boot_id(), deps.clock.monotonic(), deps.clock.wall())
        self._notice_set_clock(now)
        node = deps.cluster.node()
        if node is None:
            return Inputs(policy=self._policy, now=now, node=None, state=None)
        self.identity = f"{node.name}/{node.uid}"
        state, problem = self._decode(node.annotations.get(REBOOT_STATE, ""))
        sentinel = self._sentinel()
        request = bounded(node.annotations.get(REBOOT_REQUEST, ""))
        slots, mine, spare = self._slots(node, state, bool(request) or sentinel.required is not False)
        memory = self._remembered(state, now)
        if isinstance(state, Verifying) and memory.first_heartbeat is None:
            self._first_heartbeat(memory)
        if memory.fence_refused:
            # Another's write came before the fence. With the Lease gone the command was not given; with it fenced by
            # us, an earlier process may have given it.
            memory.command = Command.NOT_GIVEN if mine is None else Command.UNKNOWN
            memory.fence_refused = False
        blockers, counted = self._found_before_lock(slots, mine, now)
        return Inputs(
            policy=self._policy,
            now=now,
            node=node,
            state=state,
            state_problem=problem,
            slots=slots,
            mine=mine,
            spare=spare,
            lock_problem=self._lock_problem,
            renew_due=mine is not None and not self._lock_problem and self._lock.renew_due(mine),
            sentinel=sentinel,
            request=request,
            kernel=deps.machine.kernel_release(),
            gap_seconds=self._gap(slots, now),
            attempt=self._attempt(node, slots, state, mine, now),
            progress=memory.progress,
            drain_due=now.mono >= memory.drain_again_at or deps.drain.has_changed(),
            drained_seconds=now.mono - memory.drained_at if memory.drained_at is not None else 0.0,
            hooks=memory.hooks,
            hooks_failed_seconds=now.mono - memory.hooks_failed_at,
            cordon_refused=memory.cordon_refused,
            command=memory.command,
            command_error=memory.command_error,
            command_seconds=now.mono - memory.command_at if memory.command_at is not None else None,
            new_cycle=f"{deps.rng.getrandbits(40):010x}",
            blockers=blockers,
            budget=counted,
        )

    def _notice_set_clock(self, now: Now) -> None:
        """Starts the waits again where the wall clock was set: they are monotonic, and windows are not."""
        ahead = now.wall - now.mono
        if self._wall_ahead is not None and abs(ahead - self._wall_ahead) < _CLOCK_SET_SECONDS:
            return
        if self._wall_ahead is not None:
            self._contention = LockContention(self._deps.rng, self._policy.lock.lease_duration)
        self._wall_ahead = ahead

    def _found_before_lock(
        self, slots: tuple[Slot, ...], mine: Slot | None, now: Now
    ) -> tuple[BlockerResult | None, Budget | None]:
        """What held when the lock was acquired a moment ago holds for the cordon too.

        No other node can have begun since: the Lease was swapped as it was before they were asked. With several slots
        another node may have counted at the same time, so the budget is counted again.
        """
        at, blockers, counted = self._before_lock
        if mine is None or now.mono - at > _ACQUIRED_SECONDS:
            return None, None
        return blockers, counted if len(slots) == 1 else None

    def postpone(self, decision: Decision) -> float:
        """This node's attempt at the lock came to nothing. Returns the wait."""
        self.memory.cordon_refused = ""
        return self._contention.postpone(
            self._deps.clock.monotonic(),
            pool_size=self._pool_size,
            seconds=decision.postpone_seconds,
            refused=as_result(decision) if decision.blocked_by else None,
        )

    def _sentinel(self) -> SentinelReading:
        if self._policy.mode is Mode.OFF:
            return _OFF
        try:
            return self._deps.sentinel.read()
        except AgentError as error:
            return SentinelReading(None, problem=str(error))

    def _first_heartbeat(self, memory: CycleMemory) -> None:
        """Early, so that the kubelet's next renewal is already news."""
        try:
            memory.first_heartbeat = self._deps.cluster.heartbeat()
            memory.heartbeat_at = self._deps.clock.monotonic()
        except KubeError:
            return

    def _decode(self, text: str) -> tuple[NodeState | None, str]:
        if text != self._decoded_state[0]:
            try:
                self._decoded_state = (text, decode(text), "")
            except ValueError as error:
                self._decoded_state = (text, None, str(error))
        return self._decoded_state[1], self._decoded_state[2]

    def _slots(
        self, node: NodeView, state: NodeState | None, may_want: bool
    ) -> tuple[tuple[Slot, ...], Slot | None, Slot | None]:
        """The pool's slots, the one that is ours, and one too many. An idle node reads the Leases just once.

        With the node cordoned, Leases that cannot be read are those of the last time, or none in a process that has
        never read them: the deadlines count all the same.
        """
        self._lock_problem = ""
        idle = isinstance(state, Idle)
        is_over = self._policy.mode is Mode.OFF or (not may_want and self._is_settled)
        if state is None or (idle and is_over):
            return (), None, None
        pool = pool_of(node.labels, self._policy.pool)
        names = lease_names(pool, usable_slots(self._policy, pool))
        own = state.lease if isinstance(state, Attempt | Finished) else ""
        read = (*names, own) if own and own not in names else names
        try:
            slots = self._lock.observe(read, self.identity, indexed=len(names), follow=may_want or not idle)
        except KubeError as error:
            if not isinstance(state, Attempt):
                raise
            self._lock_problem = str(error)
            return self._slots_before
        ours = [slot for slot in slots if slot.ours]
        mine = next((slot for slot in ours if slot.view.name == own), ours[0] if ours else None)
        spare = next((slot for slot in ours if slot is not mine), None)
        self._is_settled = idle and mine is None
        self._slots_before = tuple(slot for slot in slots if slot.index >= 0), mine, spare
        return self._slots_before

    def _remembered(self, state: NodeState | None, now: Now) -> CycleMemory:
        cycle = state.cycle if isinstance(state, Cycle) else ""
        if self.memory.cycle != cycle or self.memory.boot != now.boot:
            if self.memory.cycle:
                self._deps.drain.reset()
                self._deps.hooks.reset()
            self.memory = CycleMemory(cycle=cycle, boot=now.boot)
        return self.memory

    def _attempt(
        self, node: NodeView, slots: tuple[Slot, ...], state: NodeState | None, mine: Slot | None, now: Now
    ) -> LockAttempt:
        if not isinstance(state, Pending) or mine is not None:
            return LockAttempt(now=False, in_seconds=0.0)
        if not self._pool_size:
            known = max((slot.view.pool_size for slot in slots), default=0)
            self._pool_size = known if self._contention.is_harmless(known) else self._deps.cluster.count()
        if self._usable is None:
            self._usable = usable_slots(self._policy, pool_of(node.labels, self._policy.pool))
        return self._contention.attempt(
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

    def fetch(self, query: Query, inputs: Inputs) -> None:
        """Answers the machine's question. Raises KubeError where the pool cannot be counted."""
        match query:
            case Query.BLOCKERS:
                inputs.blockers = self._blockers()
            case Query.LATE_BLOCKERS:
                inputs.late_blockers = self._late_blockers(inputs)
            case Query.HARDENING:
                inputs.hardening = self._hardening()
            case Query.BUDGET:
                self._count(inputs)
            case Query.HOLDER:
                inputs.holder_gone = self._is_holder_gone(inputs.attempt.slot)
            case Query.LOCK_RIGHTS:
                inputs.may_patch_lock = self._may_patch(inputs.attempt.slot)
            case Query.HEARTBEAT:
                inputs.heartbeat = self._has_heartbeat()
            case Query.SHUTDOWN:
                try:
                    inputs.shutting_down = self._deps.machine.is_shutting_down()
                except AgentError as error:
                    inputs.shutdown_problem = str(error)

    def _blockers(self) -> BlockerResult:
        found = (self._check(blocker) for blocker in self._deps.blockers)
        return next((result for result in found if result.blocked), BlockerResult(blocked=False))

    def _late_blockers(self, inputs: Inputs) -> BlockerResult:
        """One that is unknown gives way to one that certainly blocks."""
        unknown = BlockerResult(blocked=False)
        drained = self._drained(inputs)
        for result in (self._check(blocker, drained) for blocker in self._deps.blockers if blocker.late):
            if result.blocked and not result.unknown:
                return result
            unknown = result if result.blocked else unknown
        return unknown

    @staticmethod
    def _check(blocker: Blocker, drained: Drained | None = None) -> BlockerResult:
        """One blocker's answer with its name. drained: given after the drain."""
        name = blocker.name
        try:
            if drained is not None and isinstance(blocker, DrainAwareBlocker):
                result = blocker.check_after_drain(drained)
            else:
                result = blocker.check()
        except AgentError as error:
            result = BlockerResult(blocked=True, by=f"{name}, which is unknown: {error}")
        return replace(result, name=name, reason=reason_of(name))

    def _drained(self, inputs: Inputs) -> Drained:
        state = inputs.state
        at = state.marks[0][1] if isinstance(state, Attempt) and state.marks else inputs.now.wall
        return Drained(at, inputs.progress.namespaces if inputs.progress is not None else frozenset())

    def _hardening(self) -> HardeningReading:
        try:
            return self._deps.hardening.read()
        except AgentError as error:
            return HardeningReading(None, str(error))

    def _may_patch(self, slot: Slot | None) -> bool:
        """Of the Lease that would be created. Raises KubeError."""
        name = slot.view.name if slot is not None else ""
        if name and name not in self._patchable and self._deps.cluster.can_patch_lease(name):
            self._patchable.add(name)
        return not name or name in self._patchable

    def _count(self, inputs: Inputs) -> None:
        """The pool's budget; none when the lock was acquired meanwhile."""
        node = inputs.node
        if node is None:
            return
        own = inputs.mine or inputs.attempt.slot
        others = [slot.view.holder for slot in inputs.slots if own is None or slot.index != own.index]
        pool = pool_of(node.labels, self._policy.pool)
        members = self._deps.cluster.members()
        if inputs.mine is None and own is not None:
            members = self._while_untaken(members, inputs, own)
        try:
            found = budget(members, node.name, self._policy, pool, others)
        except _Taken:
            return
        self._pool_size = found.pool_size
        self._usable = min(usable_slots(self._policy, pool), found.slots)
        inputs.budget = found
        if inputs.mine is None:
            self._before_lock = (inputs.now.mono, inputs.blockers, found)

    def _while_untaken(self, members: Iterable[NodeView], inputs: Inputs, counted_for: Slot) -> Iterator[NodeView]:
        """The members, as long as no other node takes the Lease that they are counted for.

        In a big cluster many begin to count before the first is done. The Leases are watched by who waits: reading them
        costs no request, where the next page would.

        Raises:
            _Taken: it has changed; `inputs` has the Leases and the attempt as they are now.
        """
        for number, member in enumerate(members, start=1):
            yield member
            if number % MEMBERS_A_PAGE or inputs.node is None:
                continue
            slots, mine, spare = self._slots(inputs.node, inputs.state, may_want=True)
            if counted_for.view not in [slot.view for slot in slots]:
                inputs.slots, inputs.mine, inputs.spare = slots, mine, spare
                inputs.attempt = self._attempt(inputs.node, slots, inputs.state, mine, inputs.now)
                raise _Taken

    def _is_holder_gone(self, slot: Slot | None) -> bool:
        """Whether the holder's Node is gone or another one by the same name. Unknown: it is there."""
        if slot is None:
            return False
        name, _, uid = slot.view.holder.rpartition("/")
        try:
            return self._deps.cluster.uid_of(name) != uid
        except KubeError:
            return False

    def _has_heartbeat(self) -> bool:
        """Whether the kubelet has renewed its Lease since this process first read it, asked every few seconds at most.

        A Lease that RBAC does not let the agent read is not held against the node: that it is Ready with the new boot
        id comes from the same kubelet.
        """
        memory, now = self.memory, self._deps.clock.monotonic()
        if now - memory.heartbeat_at < _HEARTBEAT_SECONDS:
            return False
        try:
            renewed = self._deps.cluster.heartbeat()
        except Forbidden:
            return True
        except KubeError:
            return False
        memory.heartbeat_at = now
        if memory.first_heartbeat is None:
            memory.first_heartbeat = renewed
        return bool(renewed) and renewed != memory.first_heartbeat
