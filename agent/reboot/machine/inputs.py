"""What a tick knows and what it may decide: the machine's whole vocabulary.

The coordinator fills a Seen, the machine answers with a Decision, the coordinator does what it says. Nothing here reads
or acts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from agent.config.schema import Reboot
from agent.reboot.cluster import SKIP, LeasePhase, LeaseView, NodeView
from agent.reboot.interfaces import (
    Announcement,
    CycleResult,
    DrainMode,
    HardeningReading,
    HookProgress,
    HookStage,
    Progress,
    SentinelReading,
)
from agent.reboot.state import NodeState, Now, Phase


@dataclass(frozen=True, slots=True)
class Slot:
    """One lease of the pool's lock.

    index: which slot of the pool, -1 for a lease of another pool. ours: held by this node's UID. unseen_seconds: how
    long this process has been looking at it without seeing it change, by its own monotonic clock.
    """

    view: LeaseView
    index: int
    ours: bool
    unseen_seconds: float

    @property
    def free(self) -> bool:
        """Nobody holds it."""
        return not self.view.holder

    @property
    def holder(self) -> str:
        """The holder's node name."""
        return self.view.holder.rpartition("/")[0]

    @property
    def fenced(self) -> bool:
        """Its holder may have given the reboot command."""
        return self.view.phase is LeasePhase.REBOOTING


class Query(Enum):
    """What costs requests and is looked at only when the machine asks."""

    GATE = auto()
    LATE_GATE = auto()
    BUDGET = auto()
    HOLDER = auto()
    PROOF = auto()
    HEARTBEAT = auto()


@dataclass(frozen=True, slots=True)
class GateResult:
    """All blockers' answer in one. name: the blocker's, for metrics; by: who or what, in words."""

    blocked: bool
    name: str = ""
    by: str = ""
    again_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Budget:
    """The pool's unavailability. fits: this node may become unavailable too. slots: of the lock that may be used."""

    fits: bool
    why: str
    pool_size: int
    slots: int


@dataclass(frozen=True, slots=True)
class LockAttempt:
    """When this node may ask for the lock: `now`, or in so many seconds. slot: the lease that it would ask for.

    refused, refused_by: what its last turn came to nothing for, sentence and name, until the lock changes hands.
    """

    now: bool
    in_seconds: float
    slot: Slot | None = None
    refused: str = ""
    refused_by: str = ""


class Command(Enum):
    """What this process knows of the reboot command in this cycle. UNKNOWN: another process may have given it."""

    UNKNOWN = auto()
    NOT_GIVEN = auto()
    GIVEN = auto()
    REFUSED = auto()


@dataclass(slots=True)
class Inputs:
    """One look at everything. The coordinator fills in what the machine asks for; the machine only reads.

    node: None when the object is gone. state: None when its note cannot be read, `state_problem` says why. slots: the
    pool's leases. mine: the one that this node holds, whichever pool it is of. spare: another one that it holds by
    mistake. renew_due: of `mine`, by this process's own renewals. request: the value of the reboot-request annotation.
    kernel: running now. gap_seconds: what is left of the pool's minimum gap. progress, drain_due, drained_seconds,
    hooks, hooks_failed_seconds, command and how long ago: what this process did in this cycle. new_cycle: an id to
    begin one with. What is None below was not looked at in this tick.
    """

    policy: Reboot
    now: Now
    node: NodeView | None
    state: NodeState | None
    state_problem: str = ""
    slots: tuple[Slot, ...] = ()
    mine: Slot | None = None
    spare: Slot | None = None
    renew_due: bool = False
    sentinel: SentinelReading = field(default_factory=lambda: SentinelReading(None, problem="not read yet"))
    request: str = ""
    kernel: str = ""
    gap_seconds: float = 0.0
    turn: LockAttempt = field(default_factory=lambda: LockAttempt(now=False, in_seconds=0.0))
    progress: Progress | None = None
    drain_due: bool = True
    drained_seconds: float = 0.0
    hooks: Mapping[HookStage, HookProgress] = field(default_factory=dict)
    hooks_failed_seconds: float = 0.0
    command: Command = Command.UNKNOWN
    command_error: str = ""
    command_seconds: float | None = None
    new_cycle: str = ""
    gate: GateResult | None = None
    late_gate: GateResult | None = None
    budget: Budget | None = None
    holder_gone: bool | None = None
    proof: HardeningReading | None = None
    heartbeat: bool | None = None

    @property
    def skip(self) -> str:
        """Why somebody opted this node out, empty when nobody did."""
        return self.node.annotations.get(SKIP, "") if self.node else ""

    @property
    def wants(self) -> bool:
        """The sentinel or a person asks for a reboot."""
        return self.sentinel.required is True or bool(self.request)

    @property
    def denies(self) -> bool:
        """Nothing asks for a reboot, and that is known."""
        return self.sentinel.required is False and not self.request


# -- what may be done --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Fetch:
    """Look at something, then decide again."""

    need: Query


@dataclass(frozen=True, slots=True)
class Write:
    """One patch of the Node: the note, and what it describes.

    cordon: True or False sets spec.unschedulable. labels: set. finished: the cycle ended well: history is written and
    the request that it answered is taken away. taint: whether the PreferNoSchedule taint should be there.
    """

    state: NodeState
    cordon: bool | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    finished: bool = False
    taint: bool = False
    ended: CycleResult | None = None


@dataclass(frozen=True, slots=True)
class Acquire:
    """Take the lease. from_holder: whom it is taken over from, empty when it is free."""

    slot: Slot
    cycle: str
    waited: float
    pool_size: int
    from_holder: str = ""


@dataclass(frozen=True, slots=True)
class Renew:
    """Say that we are alive."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Release:
    """Give the lease back. rebooted: the minimum gap counts from now. said: the Event that follows, if any."""

    slot: Slot
    rebooted: bool = False
    said: Announcement | None = None


@dataclass(frozen=True, slots=True)
class MarkStuck:
    """Say on the lease that its holder does not come back."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class StepDrain:
    """One step of the drain."""

    mode: DrainMode


@dataclass(frozen=True, slots=True)
class StepHooks:
    """Start the stage's hooks, or see how they fare. again: forget that they failed."""

    stage: HookStage
    again: bool = False


@dataclass(frozen=True, slots=True)
class FenceAndReboot:
    """Compare-and-swap the lease to `rebooting`; when that holds, and at once, give the command."""

    slot: Slot
    said: Announcement


Action = Fetch | Write | Acquire | Renew | Release | MarkStuck | StepDrain | StepHooks | FenceAndReboot


@dataclass(frozen=True, slots=True)
class Decision:
    """One action or none, and the sentence that explains it.

    wait_seconds: until the next tick when there is no action. said: what people should know by now; what was said
    before is left out by the coordinator. postpone: this node had its turn at the lock and could not use it. after: the
    sentence once the action is done; empty: the same.
    """

    phase: Phase
    sentence: str
    action: Action | None = None
    wait_seconds: float = 0.0
    blocked_by: str = ""
    holder: str = ""
    stuck: bool = False
    said: tuple[Announcement, ...] = ()
    postpone: bool = False
    postpone_seconds: float = 0.0
    after: str = ""


def duration(seconds: float) -> str:
    """Seconds as people say them: `45 s`, `3 min`, `2 h`."""
    if seconds < 120:
        return f"{max(0, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 7200 else f"{round(seconds / 3600)} h"
