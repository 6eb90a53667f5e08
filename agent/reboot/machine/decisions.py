"""What the machine may decide: one action or none, with the status that explains it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum, auto

from agent.reboot.interfaces import Announcement, CycleResult, DrainMode, HookStage
from agent.reboot.machine.inputs import Slot
from agent.reboot.phases import Phase
from agent.reboot.state import NodeState
from agent.reboot.status import StatusReason


class Query(Enum):
    """What costs requests and is fetched only when the machine requests it."""

    BLOCKERS = auto()
    LATE_BLOCKERS = auto()
    BUDGET = auto()
    HOLDER = auto()
    LOCK_RIGHTS = auto()
    HARDENING = auto()
    HEARTBEAT = auto()
    SHUTDOWN = auto()


@dataclass(frozen=True, slots=True)
class Fetch:
    """Fetch something, then decide again."""

    query: Query


@dataclass(frozen=True, slots=True)
class Write:
    """One patch of the Node: the state, the status that goes with it, and what they describe.

    cordon: True or False sets spec.unschedulable. labels, annotations: set, None removes. finished: the cycle
    succeeded: history is written and the request that it answered is removed. taint: the key of the PreferNoSchedule
    taint that is to be there, empty for none.
    """

    state: NodeState
    cordon: bool | None = None
    labels: Mapping[str, str | None] = field(default_factory=dict)
    annotations: Mapping[str, str | None] = field(default_factory=dict)
    finished: bool = False
    taint: str = ""
    result: CycleResult | None = None


@dataclass(frozen=True, slots=True)
class Acquire:
    """Take the Lease, also from a holder that is gone. waited: seconds since the reboot was first required."""

    slot: Slot
    cycle: str
    waited: float
    pool_size: int


@dataclass(frozen=True, slots=True)
class Renew:
    """Show that the holder is alive."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Release:
    """Release the Lease. rebooted: the minimum gap counts from now. announcement: the Event that follows, if any."""

    slot: Slot
    rebooted: bool = False
    announcement: Announcement | None = None


@dataclass(frozen=True, slots=True)
class MarkStuck:
    """Mark on the Lease that its holder did not come back."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class StepDrain:
    """One step of the drain."""

    mode: DrainMode


@dataclass(frozen=True, slots=True)
class StepHooks:
    """Start the stage's hooks, or check how they fare. again: forget that they failed."""

    stage: HookStage
    again: bool = False


@dataclass(frozen=True, slots=True)
class FenceAndReboot:
    """Compare-and-swap the Lease to `rebooting`; when that holds, give the command immediately."""

    slot: Slot
    announcement: Announcement


Action = Fetch | Write | Acquire | Renew | Release | MarkStuck | StepDrain | StepHooks | FenceAndReboot


@dataclass(frozen=True, slots=True)
class Decision:
    """One action or none, and the status that explains it.

    sentence: for users, without a time that passes: `until` (wall seconds, 0 for none) is when the phase ends or is
    tried again. wait_seconds: until the next tick when there is no action. announcements: Events that should have been
    sent by now; what was sent before is left out by the coordinator. postpone: this node had its turn at the lock and
    could not use it; postpone_seconds: when it is worth another try, 0 if unknown.
    """

    phase: Phase
    reason: StatusReason
    sentence: str
    action: Action | None = None
    wait_seconds: float = 0.0
    until: float = 0.0
    blocked_by: str = ""
    holder: str = ""
    announcements: tuple[Announcement, ...] = ()
    postpone: bool = False
    postpone_seconds: float = 0.0


def duration(seconds: float) -> str:
    """Seconds in short: `45 s`, `3 min`, `2 h`."""
    if seconds < 120:
        return f"{max(0, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 7200 else f"{round(seconds / 3600)} h"
