"""Looking: everything that a tick knows, the cheap things always, the dear ones when the machine asks for them.

It refuses to act, and to turn what it could not read into anything but unknown or an error.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from agent.config.schema import Reboot
from agent.errors import AgentError, KubeError
from agent.reboot.cluster import MEMBERS_A_PAGE, REQUEST, STATE, Member, NodeView
from agent.reboot.cycle_memory import CycleMemory
from agent.reboot.interfaces import HardeningReading, SentinelReading
from agent.reboot.lock.contention import LockContention
from agent.reboot.lock.lease import Lock
from agent.reboot.lock.pools import budget, lease_names, pool_of, usable_slots
from agent.reboot.machine.inputs import Command, Decision, GateResult, Inputs, LockAttempt, Query, Slot
from agent.reboot.rooms import Dependencies
from agent.reboot.state import NodeState, Now, Phase, decode, tidy


class _Taken(Exception):
    """The lease that a count was for is no longer what it was."""


class Observer:
    """One process's eyes. `memory` is the running cycle's; `identity` is known after the first look."""

    def __init__(self, policy: Reboot, rooms: Dependencies, lock: Lock) -> None:
        self.memory = CycleMemory()
        self.identity = ""
        self._policy = policy
        self._rooms = rooms
        self._lock = lock
        self._waiting = LockContention(rooms.rng, policy.lock.lease_duration)
        self._note: tuple[str, NodeState | None, str] = ("", NodeState(), "")
        self._pool_size = 0
        self._usable = usable_slots(policy)
        self._last_reboot: tuple[float, float] = (0.0, 0.0)
        self._is_settled = False

    def observe(self) -> Inputs:
        """What is cheap. Raises AgentError: then nothing can be told."""
        rooms = self._rooms
        now = Now(rooms.machine.boot_id(), rooms.clock.monotonic(), rooms.clock.wall())
        node = rooms.cluster.node()
        if node is None:
            return Inputs(policy=self._policy, now=now, node=None, state=None)
        self.identity = f"{node.name}/{node.uid}"
        state, problem = self._decoded(node.annotations.get(STATE, ""))
        try:
            sentinel = rooms.sentinel.read()
        except AgentError as error:
            sentinel = SentinelReading(None, problem=str(error))
        request = tidy(node.annotations.get(REQUEST, ""))
        slots, mine, spare = self._slots(node, state, bool(request) or sentinel.required is not False)
        memory = self._remembered(state, now)
        if state is not None and state.phase is Phase.VERIFYING and memory.first_heartbeat is None:
            self._first_heartbeat(memory)
        if memory.fence_refused:
            # Another's write came before the fence. With the lease gone the command was not given; with it fenced by
            # us, an earlier process may have given it.
            memory.command = Command.NOT_GIVEN if mine is None else Command.UNKNOWN
            memory.fence_refused = False
        return Inputs(
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
            drain_due=now.mono >= memory.drain_again_at or rooms.drain.emptied(),
            drained_seconds=now.mono - memory.drained_at if memory.drained_at is not None else 0.0,
            hooks=memory.hooks,
            hooks_failed_seconds=now.mono - memory.hooks_failed_at,
            command=memory.command,
            command_error=memory.command_error,
            command_seconds=now.mono - memory.command_at if memory.command_at is not None else None,
            new_cycle=f"{rooms.rng.getrandbits(40):010x}",
        )

    def postpone(self, decision: Decision) -> float:
        """This node's turn at the lock came to nothing. Returns the wait."""
        return self._waiting.postpone(
            self._rooms.clock.monotonic(),
            pool_size=self._pool_size,
            seconds=decision.postpone_seconds,
            refused=decision.sentence if decision.blocked_by else "",
            refused_by=decision.blocked_by,
        )

    def _first_heartbeat(self, memory: CycleMemory) -> None:
        """Early, so that the kubelet's next renewal is already news."""
        try:
            memory.first_heartbeat = self._rooms.cluster.heartbeat()
        except KubeError:
            return

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
        slots = self._lock.observe(looked_at, self.identity, indexed=len(names))
        ours = [slot for slot in slots if slot.ours]
        mine = next((slot for slot in ours if slot.view.name == state.lease), ours[0] if ours else None)
        spare = next((slot for slot in ours if slot is not mine), None)
        self._is_settled = idle and mine is None
        return tuple(slot for slot in slots if slot.index >= 0), mine, spare

    def _remembered(self, state: NodeState | None, now: Now) -> CycleMemory:
        cycle = state.cycle if state else ""
        if self.memory.cycle != cycle or self.memory.boot != now.boot:
            if self.memory.cycle:
                self._rooms.drain.reset()
                self._rooms.hooks.reset()
            self.memory = CycleMemory(cycle=cycle, boot=now.boot)
        return self.memory

    def _turn(self, slots: tuple[Slot, ...], state: NodeState | None, mine: Slot | None, now: Now) -> LockAttempt:
        if state is None or state.phase is not Phase.WANTED or mine is not None:
            return LockAttempt(now=False, in_seconds=0.0)
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

    def look(self, need: Query, seen: Inputs) -> None:
        """Answers the machine's question. Raises KubeError where the pool cannot be counted."""
        match need:
            case Query.GATE:
                seen.gate = self._gate(late=False)
            case Query.LATE_GATE:
                seen.late_gate = self._gate(late=True)
            case Query.PROOF:
                seen.proof = self._proof()
            case Query.BUDGET:
                self._count(seen)
            case Query.HOLDER:
                seen.holder_gone = self._is_holder_gone(seen.turn.slot)
            case Query.HEARTBEAT:
                seen.heartbeat = self._has_heartbeat()

    def _gate(self, *, late: bool) -> GateResult:
        for blocker in self._rooms.blockers:
            if late and not blocker.late:
                continue
            try:
                verdict = blocker.check()
            except AgentError as error:
                return GateResult(blocked=True, name=blocker.name, by=f"{blocker.name}, which cannot be told: {error}")
            if verdict.blocked:
                return GateResult(blocked=True, name=blocker.name, by=verdict.by, again_seconds=verdict.again_seconds)
        return GateResult(blocked=False)

    def _proof(self) -> HardeningReading:
        try:
            return self._rooms.proof.read()
        except AgentError as error:
            return HardeningReading(None, str(error))

    def _count(self, seen: Inputs) -> None:
        """The pool's budget; none when the lock was taken meanwhile."""
        node = seen.node
        if node is None:
            return
        own = seen.mine or seen.turn.slot
        others = [slot.view.holder for slot in seen.slots if own is None or slot.index != own.index]
        pool = pool_of(node.labels, self._policy.pool)
        members = self._rooms.cluster.members()
        if seen.mine is None and own is not None:
            members = self._while_untaken(members, seen, own)
        try:
            found = budget(members, node.name, self._policy, pool, others)
        except _Taken:
            return
        self._pool_size = found.pool_size
        self._usable = min(usable_slots(self._policy), found.slots)
        seen.budget = found

    def _while_untaken(self, members: Iterable[Member], seen: Inputs, wanted: Slot) -> Iterator[Member]:
        """The members, as long as nobody else takes the lease that they are counted for.

        In a big cluster many begin to count before the first has done. The leases are watched by who waits: looking at
        them costs no request, where the next page would.

        Raises:
            _Taken: it has changed; `seen` has the leases and the turn as they are now.
        """
        for number, member in enumerate(members, start=1):
            yield member
            if number % MEMBERS_A_PAGE or seen.node is None:
                continue
            slots, mine, spare = self._slots(seen.node, seen.state, may_want=True)
            if wanted.view not in [slot.view for slot in slots]:
                seen.slots, seen.mine, seen.spare = slots, mine, spare
                seen.turn = self._turn(slots, seen.state, mine, seen.now)
                raise _Taken

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
        if self.memory.first_heartbeat is None:
            self.memory.first_heartbeat = renewed
        return bool(renewed) and renewed != self.memory.first_heartbeat
