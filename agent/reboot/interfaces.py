"""What the coordinator asks of the rooms around it: one small front each, and the frozen values they hand over.

Sentinel, blockers, drain, hooks, power and proof are written behind these and know nothing of the machine; the machine
sees only the values. Nothing here acts. The port to the API server is in agent/reboot/cluster.py.

Two rules hold for every front. "Cannot tell" is a value of its own (None, or a Verdict that blocks), never a guess. An
AgentError that leaves a front means the same: the coordinator takes it as unknown, says it, and does not reboot.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, StrEnum
from typing import Protocol

from agent.event_reasons import Reason

# -- clocks and the machine under us -----------------------------------------------------------------------------------


class Clock(Protocol):
    """Both clocks. Timeouts use monotonic (CLOCK_MONOTONIC: one time line per boot, shared by all processes)."""

    def monotonic(self) -> float:
        """Seconds; never goes back within one boot, starts anew with each."""

    def wall(self) -> float:
        """Seconds since the epoch; for people and windows, never for safety."""


class Machine(Protocol):
    """The kernel's answers about this boot; agent.host.Host is one."""

    def boot_id(self) -> str:
        """The running boot's id. Raises HostError."""

    def kernel_release(self) -> str:
        """The running kernel's release."""


# -- what asks for a reboot --------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class SentinelReading:
    """required: None when it cannot be told, `problem` then says why. reason: packages, for people.

    stamp: another one whenever the request is a new one (file: inode and mtime and content's hash; command: a hash of
    its output). Compared only within one boot; empty while not required.
    """

    required: bool | None
    reason: str = ""
    stamp: str = ""
    problem: str = ""


class Sentinel(Protocol):
    """The file or command that asks for a reboot."""

    def read(self) -> SentinelReading:
        """The state now. Cheap: a command runs at most once an interval, its last answer is given in between."""


# -- what holds it back ------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class BlockerResult:
    """blocked: also when it cannot be told. by: who or what, in words; for an unknown, why it is unknown.

    again_seconds: when it is worth asking again, 0 when the blocker cannot say (a window knows its next opening).
    """

    blocked: bool
    by: str = ""
    again_seconds: float = 0.0


class Blocker(Protocol):
    """One thing that may hold a reboot back: windows, Prometheus, pods, the cluster's pause, kured's lock.

    Budget, opt-out and minimum gap are the coordinator's own (agent/reboot/lock/pools.py, machine.py): they come out of
    what it reads anyway.
    """

    @property
    def name(self) -> str:
        """One word for metrics: `window`, `prometheus`, `pods`, `pause`, `kured`."""

    @property
    def late(self) -> bool:
        """Whether it is asked once more between drain and reboot (alerts, pause, kured, pods: yes; windows: no)."""

    def check(self) -> BlockerResult:
        """Asked before the lock, after the lock, and when `late` before the reboot."""


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
    since …, finalizer …"). budgets: the refusing ones as (namespace, name, owner). misconfigured: what no waiting
    resolves (two budgets on one pod). done: also when what is left is left behind, past drain.volumeTimeout. slowest:
    pod and seconds. mode: of the step that reports this. returned: pods that their owner places on the cordoned node
    again; they are left running, as a DaemonSet's.
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
    budgets: tuple[tuple[str, str, str], ...] = ()
    returned: tuple[str, ...] = ()

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

    def step(self, mode: DrainMode, may_go_on: Callable[[], bool]) -> Progress:
        """Evicts what may go now and returns at once; the next step is worth it after `wait_seconds`.

        may_go_on: asked before each eviction; False means that the lock is no longer fresh and nothing more may be
        touched. A step lasts seconds, never minutes: the lease is renewed between steps. Raises AgentError.
        """

    def emptied(self) -> bool:
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
    """done: all of the stage's hooks ended well. error: one did not, and why. Neither: still running."""

    done: bool
    error: str = ""


class Hooks(Protocol):
    """Commands around the reboot. They run beside the ticks, so that the lease is renewed while they take minutes."""

    def step(self, stage: HookStage, cycle: str) -> HookProgress:
        """Starts the stage's hooks at the first call for this cycle, then says how they fare. Done when there are none.

        A failed stage is tried again only after `reset`. A new process starts them again: hooks run at least once.
        """

    def reset(self) -> None:
        """The cycle is over: end what still runs, forget results."""


class Rebooter(Protocol):
    """The one thing that cannot be taken back."""

    def reboot(self) -> None:
        """Gives the command, or the signal, and returns.

        Raises AgentError when the node is certainly not going down: the command was not found, was refused or ended
        badly. CommandTimeout says that it cannot be told; the coordinator then waits `rebootTimeout` as after a good
        answer. A command that a signal ended may well have worked: raise nothing.
        """


# -- the proof ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class HardeningReading:
    """verified: every enforced control passed in this boot; None: not looked yet, or cannot be told."""

    verified: bool | None
    problem: str = ""


class HardeningCheck(Protocol):
    """Whether the hardening was verified in the running boot. Controls that only audit do not count."""

    def read(self) -> HardeningReading:
        """The state now; asking again may make the daemon look again. Cheap."""


# -- what people are told ----------------------------------------------------------------------------------------------


class About(Enum):
    """Which object an Event hangs on."""

    NODE = "Node"
    LEASE = "Lease"


@dataclass(frozen=True, slots=True)
class Announcement:
    """One Event, on its way to the API server and to notifications.

    key: equal keys are the same event. A restarted process announces the last step again, so the reporter makes the
    Event's name from the key (a second create is AlreadyExists) and PagerDuty's dedup key too. about, name: the Node,
    or the Lease by its name.
    """

    reason: Reason
    message: str
    key: str
    about: About = About.NODE
    name: str = ""


@dataclass(frozen=True, slots=True)
class Tick:
    """What one tick came to.

    sentence: what and why; the `reboot` annotation, the RebootRequired condition and the log show it. phase: a
    machine.Phase value. required: None when it cannot be told. since: wall seconds when the reboot was first wanted, 0
    when it is not. wait_seconds: when to tick again unless something wakes the daemon earlier. holder: the node that
    has the lock which we wait for. lock_since: wall seconds at which the lock was taken that this node has or waits
    for, 0 for neither. blocked_by: a Blocker's name, or `budget`, `gap`, `skip`, `guard`, `backoff`, `drain` (evictions
    are refused), `unknown`. stuck: the lock's holder went down and did not come back.
    """

    phase: str
    sentence: str
    wait_seconds: float
    required: bool | None = None
    since: float = 0.0
    blocked_by: str = ""
    holder: str = ""
    stuck: bool = False
    failures: int = 0
    progress: Progress | None = None
    lock_since: float = 0.0


class Outcome(StrEnum):
    """How a cycle ended, for `reboots by outcome`."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ABORTED = "aborted"


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

    def event(self, announcement: Announcement) -> None:
        """In order; the same key may come again after a restart."""

    def flush(self, seconds: float, *, people: bool = False) -> None:
        """Waits until every event so far is delivered, so many seconds at most. people: notifications too."""

    def ended(self, ended: CycleResult) -> None:
        """Once a cycle, by the process that ended it."""
