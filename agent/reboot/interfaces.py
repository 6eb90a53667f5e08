"""What the coordinator depends on: one small interface each, and the frozen values that they hand over.

Sentinel, blockers, drain, hooks, rebooter and the API server are implemented behind these and know nothing of the
machine; the machine sees only the values. Nothing here acts.

Two rules hold for every interface. "Unknown" is a value of its own (None, or a BlockerResult that blocks), never a
guess. An AgentError that an implementation raises means the same: the coordinator reports it and does not reboot.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Protocol, runtime_checkable

from agent.event_reasons import Reason
from agent.reboot.cluster import Cluster
from agent.reboot.state import Marks, Outcome
from agent.reboot.status import BudgetRef, RebootStatus, StatusReason

# -- clocks and the machine --------------------------------------------------------------------------------------------


class Clock(Protocol):
    """Both clocks. Timeouts use monotonic (CLOCK_BOOTTIME: one time line per boot, shared by all processes)."""

    def monotonic(self) -> float:
        """Seconds; never goes back within one boot, starts from zero with each."""

    def wall(self) -> float:
        """Seconds since the epoch; for display and windows, never for safety."""


class Machine(Protocol):
    """The kernel's answers about this boot; see rebooters.NodeMachine."""

    def boot_id(self) -> str:
        """The running boot's id. Raises HostError."""

    def kernel_release(self) -> str:
        """The running kernel's release; empty where it cannot be read."""

    def is_shutting_down(self) -> bool:
        """Whether the system is on its way down already. Raises HostError."""


# -- what requires a reboot --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SentinelReading:
    """required: None when unknown, `problem` then names the cause. reason: packages, for users.

    stamp: another one whenever the request is a new one (file: inode and mtime and content's hash; command: a hash of
    its output). Compared only within one boot; empty while not required.
    """

    required: bool | None
    reason: str = ""
    stamp: str = ""
    problem: str = ""


class Sentinel(Protocol):
    """The file or command that requires a reboot."""

    def read(self) -> SentinelReading:
        """The state now. Cheap: a command runs at most once an interval, its last answer is given in between."""


# -- what holds it back ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BlockerResult:
    """blocked: also when it is unknown, as `unknown` shows. by: who or what, as text; for unknown, why it is.

    again_seconds: when it is worth another check, 0 when the blocker cannot say (a window knows its next opening).
    name, reason: the blocker's, filled in by whoever asked it.
    """

    blocked: bool
    by: str = ""
    again_seconds: float = 0.0
    unknown: bool = False
    name: str = ""
    reason: StatusReason = StatusReason.BLOCKED


@dataclass(frozen=True, slots=True)
class Drained:
    """What the drain has done, for a check after it. cordoned_at: wall seconds. namespaces: of the evicted pods."""

    cordoned_at: float
    namespaces: frozenset[str] = frozenset()


class Blocker(Protocol):
    """One thing that may hold a reboot back: windows, Prometheus, pods, the cluster's pause, kured's lock …

    Budget, opt-out and minimum gap are the machine's own: they come out of what is read anyway.
    """

    @property
    def name(self) -> str:
        """Its name in metrics and in the registry (blockers.BLOCKERS)."""

    @property
    def late(self) -> bool:
        """Whether it is checked again between drain and reboot (alerts, pause, kured, pods: yes; windows: no)."""

    def check(self) -> BlockerResult:
        """Checked before the lock, after the lock, and when `late` before the reboot."""


@runtime_checkable
class DrainAwareBlocker(Blocker, Protocol):
    """A blocker that the drain itself can set off: it leaves out after the drain what the drain caused."""

    def check_after_drain(self, drained: Drained) -> BlockerResult:
        """Instead of `check` between drain and reboot."""


# -- what is done to the node ------------------------------------------------------------------------------------------


class DrainMode(Enum):
    """EVICT respects disruption budgets. DELETE is for `onTimeout: delete` after the deadline."""

    EVICT = "evict"
    DELETE = "delete"


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the drain is. Pods are `namespace/name`; every tuple is bounded.

    total: pods, and after them volumes, that had to go since the drain began; left: of those, still there. evicted: by
    us so far. waiting_for: names of what is left. blocked_by: a line for each refusing disruption budget,
    `namespace/name (owner)`, for each pod that must finish, is refused by a webhook, or should be gone ("Terminating
    since …, finalizer …"). budgets: the refusing ones. misconfigured: what no waiting
    resolves (two budgets on one pod). done: also when what is left is left behind, past drain.volumeTimeout. slowest:
    pod and seconds. mode: of the step that reports this. returned: pods that their owner places on the cordoned node
    again; they are left running, as a DaemonSet's. namespaces: of all the pods that had to go.
    """

    total: int = 0
    left: int = 0
    evicted: int = 0
    waiting_for: tuple[str, ...] = ()
    blocked_by: tuple[str, ...] = ()
    misconfigured: tuple[str, ...] = ()
    done: bool = False
    slowest: str = ""
    wait_seconds: float = 5.0
    mode: DrainMode = DrainMode.EVICT
    budgets: tuple[BudgetRef, ...] = ()
    returned: tuple[str, ...] = ()
    namespaces: frozenset[str] = frozenset()

    @property
    def left_text(self) -> str:
        """For display: `: 2 left (shop/a, shop/b; held by …)`, and the pods that came back."""
        text = ""
        if self.left:
            held = self.misconfigured or self.blocked_by
            by = f"; held by {'; '.join(held[:2])}" if held else ""
            text = f": {self.left} left ({', '.join(self.waiting_for[:3])}{by})"
        if self.returned:
            text += f"; left running: {', '.join(self.returned[:3])} (placed here again in spite of the cordon)"
        return text


class Drain(Protocol):
    """Empties the node a step at a time. Remembers nothing that a new process could not find out by looking."""

    def step(self, mode: DrainMode, may_continue: Callable[[], bool]) -> Progress:
        """Evicts what may go now and returns immediately; the next step is worth it after `wait_seconds`.

        may_continue: asked before each eviction; False means that the lock is no longer fresh and nothing more may be
        touched. A step lasts seconds, never minutes: the lease is renewed between steps. Raises AgentError.
        """

    def has_changed(self) -> bool:
        """Whether another step is worthwhile before `wait_seconds` are over: the last pod that was waited for has gone,
        a budget allows a disruption again, or a volume is detached. Costs nothing."""

    def reset(self) -> None:
        """The cycle is over: drop watch and memory."""


class HookStage(StrEnum):
    """When hooks run."""

    PRE_DRAIN = "preDrain"
    PRE_REBOOT = "preReboot"
    POST_REBOOT = "postReboot"


@dataclass(frozen=True, slots=True)
class HookProgress:
    """done: all of the stage's hooks succeeded. error: one did not, and why. Neither: still running."""

    done: bool
    error: str = ""


class Hooks(Protocol):
    """Commands around the reboot. They run beside the ticks, so that the lease is renewed while they take minutes."""

    def step(self, stage: HookStage, cycle: str) -> HookProgress:
        """Starts the stage's hooks at the first call for this cycle, then reports progress. Done when there are none.

        A failed stage is tried again only after `reset`. A new process starts them again: hooks run at least once.
        """

    def reset(self) -> None:
        """The cycle is over: end what still runs, forget results."""


class Rebooter(Protocol):
    """The one step that cannot be reverted."""

    def reboot(self) -> None:
        """Gives the command, or the signal, and returns.

        Raises AgentError when the node is certainly not going down: the command was not found, was refused or ended
        badly. CommandTimeout means that it is unknown; the coordinator then waits `rebootTimeout` as after a good
        answer. A command that a signal ended may well have worked: raise nothing.
        """


# -- verification ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HardeningReading:
    """verified: every enforced control passed in this boot; None: no pass yet. failing: how many did not."""

    verified: bool | None
    problem: str = ""
    failing: int = 0


class HardeningCheck(Protocol):
    """Whether the hardening was verified in the running boot. Controls that only audit do not count."""

    def read(self) -> HardeningReading:
        """The state now; another read may make the daemon run another pass. Cheap."""


# -- reporting ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Announcement:
    """One Event, on its way to the API server and to notifications.

    key: equal keys are the same event. A restarted process announces the last step again, so the reporter makes the
    Event's name from the key (a second create is AlreadyExists) and PagerDuty's dedup key too. lease: the name of the
    Lease that it is about, empty for the Node.
    """

    reason: Reason
    message: str
    key: str
    lease: str = ""


@dataclass(frozen=True, slots=True)
class Tick:
    """What one tick came to.

    status: as the annotations and the condition have it. wait_seconds: when to tick again unless something wakes
    the daemon earlier. required_since: wall seconds when the reboot was first required, 0 when it is not. stuck:
    the lock's holder went down and did not come back. lock_since: wall seconds at which the lock was acquired that
    this node has or waits for, 0 for neither. marks: see state.Attempt. acting: there was something to do, whether
    or not it succeeded.
    """

    status: RebootStatus
    wait_seconds: float
    required_since: float = 0.0
    stuck: bool = False
    lock_since: float = 0.0
    marks: Marks = ()
    acting: bool = False


@dataclass(frozen=True, slots=True)
class CycleResult:
    """A cycle's end, for metrics: outcome, seconds by phase (draining, rebooting, verifying …) and altogether."""

    outcome: Outcome
    seconds: float
    phases: tuple[tuple[str, float], ...] = ()


class Reporter(Protocol):
    """Where ticks go. It never raises, and waits only in `flush`: a lost event never fails a reboot."""

    def tick(self, tick: Tick) -> None:
        """After every tick, changed or not."""

    def writing(self) -> None:
        """The coordinator is about to write state and status itself; a tick follows, whether it could or not."""

    def event(self, announcement: Announcement) -> None:
        """In order; the same key may come again after a restart."""

    def flush(self, seconds: float, *, notifications: bool = False) -> None:
        """Waits until every event so far is delivered, so many seconds at most. notifications: these too."""

    def cycle_ended(self, result: CycleResult) -> None:
        """Once a cycle, by the process that ended it."""


@dataclass(frozen=True, slots=True)
class Dependencies:
    """Everything that the coordinator works with."""

    cluster: Cluster
    clock: Clock
    machine: Machine
    sentinel: Sentinel
    blockers: Sequence[Blocker]
    drain: Drain
    hooks: Hooks
    rebooter: Rebooter
    hardening: HardeningCheck
    reporter: Reporter
    rng: random.Random
