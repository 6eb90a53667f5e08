"""What one tick knows. The observer fills it in, the machine only reads it. Nothing here fetches or acts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from agent.annotations import REBOOT_SKIP
from agent.config.schema import Reboot
from agent.reboot.cluster import LeasePhase, LeaseView, NodeView
from agent.reboot.interfaces import (
    BlockerResult,
    HardeningReading,
    HookProgress,
    HookStage,
    Progress,
    SentinelReading,
)
from agent.reboot.state import NodeState, Now


@dataclass(frozen=True, slots=True)
class Slot:
    """One Lease of the pool's lock.

    index: which slot of the pool, -1 for a Lease of another pool. ours: held by this node's UID. unseen_seconds: for
    how long this process has not seen it change, by its own monotonic clock.
    """

    view: LeaseView
    index: int
    ours: bool
    unseen_seconds: float

    @property
    def free(self) -> bool:
        """It has no holder."""
        return not self.view.holder

    @property
    def holder(self) -> str:
        """The holder's node name."""
        return self.view.holder.rpartition("/")[0]

    @property
    def fenced(self) -> bool:
        """Its holder may have given the reboot command."""
        return self.view.phase is LeasePhase.REBOOTING


@dataclass(frozen=True, slots=True)
class Budget:
    """The pool's unavailability. fits: this node may become unavailable too. slots: of the lock that may be used."""

    fits: bool
    why: str
    pool_size: int
    slots: int


@dataclass(frozen=True, slots=True)
class LockAttempt:
    """When this node may try to acquire the lock: `now`, or in so many seconds.

    slot: the Lease that it would take. refused: what its last attempt came to nothing for, until the lock changes
    hands.
    """

    now: bool
    in_seconds: float
    slot: Slot | None = None
    refused: BlockerResult | None = None


class Command(Enum):
    """What this process knows of the reboot command in this cycle. UNKNOWN: another process may have given it."""

    UNKNOWN = auto()
    NOT_GIVEN = auto()
    GIVEN = auto()
    REFUSED = auto()


@dataclass(slots=True)
class Inputs:
    """Everything that a decision depends on.

    node: None when the object is gone. state: None when its annotation cannot be read, `state_problem` is why.
    slots: the pool's Leases. mine: the one that this node holds, whichever pool it is of. spare: another one that
    it holds by mistake. lock_problem: why the Leases could not be read (they are those of the last time then, or none).
    renew_due: of `mine`, by this process's own renewals. request: the value of the reboot-request annotation.
    kernel: running now. gap_seconds: what is left of the pool's minimum gap. progress, drain_due, drained_seconds,
    hooks, hooks_failed_seconds, cordon_refused (why), command and how long ago: what this process did in this cycle.
    new_cycle: an id to begin one with. What is None below was not fetched in this tick; may_patch_lock: RBAC lets this
    node patch the Lease that it would create.
    """

    policy: Reboot
    now: Now
    node: NodeView | None
    state: NodeState | None
    state_problem: str = ""
    slots: tuple[Slot, ...] = ()
    mine: Slot | None = None
    spare: Slot | None = None
    lock_problem: str = ""
    renew_due: bool = False
    sentinel: SentinelReading = field(default_factory=lambda: SentinelReading(None, problem="not read yet"))
    request: str = ""
    kernel: str = ""
    gap_seconds: float = 0.0
    attempt: LockAttempt = field(default_factory=lambda: LockAttempt(now=False, in_seconds=0.0))
    progress: Progress | None = None
    drain_due: bool = True
    drained_seconds: float = 0.0
    hooks: Mapping[HookStage, HookProgress] = field(default_factory=dict)
    hooks_failed_seconds: float = 0.0
    cordon_refused: str = ""
    command: Command = Command.UNKNOWN
    command_error: str = ""
    command_seconds: float | None = None
    new_cycle: str = ""
    blockers: BlockerResult | None = None
    late_blockers: BlockerResult | None = None
    budget: Budget | None = None
    holder_gone: bool | None = None
    may_patch_lock: bool | None = None
    hardening: HardeningReading | None = None
    heartbeat: bool | None = None
    shutting_down: bool | None = None
    shutdown_problem: str = ""

    @property
    def is_lock_lost(self) -> bool:
        """No Lease is ours, and that is known."""
        return self.mine is None and not self.lock_problem

    @property
    def skip(self) -> str:
        """The reason of the opt-out annotation, empty without one."""
        return self.node.annotations.get(REBOOT_SKIP, "") if self.node else ""

    @property
    def required(self) -> bool:
        """The sentinel or a user requests a reboot."""
        return self.sentinel.required is True or bool(self.request)

    @property
    def not_required(self) -> bool:
        """Neither requests a reboot, and that is known."""
        return self.sentinel.required is False and not self.request
