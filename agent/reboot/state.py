"""What the node itself remembers of its reboot: one annotation, versioned and bounded.

With the lease it is all that a new pod, a new version or a rebooted machine has to go on with. It goes in the same
patch as the change that it describes. Times that decide anything are stamps of the monotonic clock with the boot they
belong to, because a wall clock may be hours off after a boot; wall times are for people. A text that cannot be read is
refused, never guessed: nothing is rebooted on a misread note.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, TypeGuard

from agent.reboot.ports import Outcome

VERSION = 1
_TEXT_LIMIT = 300
_ANNOTATION_LIMIT = 8192


class Phase(StrEnum):
    """Where a node is. Those in PERSISTED are written down; the others follow from what is seen."""

    IDLE = "idle"
    WANTED = "wanted"
    BLOCKED = "blocked"
    WAITING = "waiting"
    LOCKED = "locked"
    CORDONED = "cordoned"
    DRAINING = "draining"
    REBOOTING = "rebooting"
    VERIFYING = "verifying"
    RELEASING = "released"
    FAILED = "rolled back"
    UNKNOWN = "unknown"


PERSISTED = frozenset(
    {
        Phase.IDLE,
        Phase.WANTED,
        Phase.CORDONED,
        Phase.DRAINING,
        Phase.REBOOTING,
        Phase.VERIFYING,
        Phase.RELEASING,
        Phase.FAILED,
    }
)


@dataclass(frozen=True, slots=True)
class Now:
    """One moment on one node: the running boot, its monotonic clock, the wall clock (all seconds)."""

    boot: str
    mono: float
    wall: float


@dataclass(frozen=True, slots=True)
class Stamp:
    """A moment that was written down."""

    boot: str
    mono: float
    wall: float

    @classmethod
    def of(cls, now: Now) -> Stamp:
        """The moment as it is written down."""
        return cls(now.boot, round(now.mono, 3), round(now.wall, 3))

    def elapsed(self, now: Now) -> float | None:
        """Seconds since then; None when the machine was booted in between, for then nobody can tell."""
        return max(0.0, now.mono - self.mono) if self.boot == now.boot else None


@dataclass(frozen=True, slots=True)
class NodeState:
    """The note.

    phase: one of PERSISTED, entered at `entered`. cycle: one attempt's id. reason: packages. requested: the value of
    the reboot-request annotation that this cycle answers. since: wall seconds when the reboot was first wanted. boot:
    the boot id that has to change, set with the cordon. cordoned: the cordon is ours; uncordoned: we lifted it. lease:
    the name of the lock. failures: attempts that failed in a row. error: why the last one did, or what the proof is
    missing. lost: the lock was lost rather than released. guard: the sentinel was still there after a proven reboot,
    with this stamp. streak: reboots wanted again soon after the last one, which ended at `done`. outcome: how the cycle
    ended. kernel: the release before the reboot. marks: wall seconds at which phases were entered. pods, left, slowest:
    of the drain.
    """

    phase: Phase = Phase.IDLE
    cycle: str = ""
    reason: str = ""
    requested: str = ""
    since: float = 0.0
    boot: str = ""
    cordoned: bool = False
    uncordoned: bool = False
    lease: str = ""
    entered: Stamp | None = None
    failures: int = 0
    error: str = ""
    lost: bool = False
    guard: str | None = None
    streak: int = 0
    done: Stamp | None = None
    outcome: Outcome | None = None
    kernel: str = ""
    pods: int = 0
    left: int = 0
    slowest: str = ""
    marks: tuple[tuple[str, float], ...] = field(default=())

    def encode(self) -> str:
        """The annotation's value: compact JSON, what is at its default left out, long texts cut."""
        shown: dict[str, Any] = {"v": VERSION, "phase": self.phase.value}
        for key in _TEXTS:
            if value := getattr(self, key):
                shown[key] = tidy(value)
        for key in _NUMBERS:
            if value := getattr(self, key):
                shown[key] = value
        for key in _FLAGS:
            if getattr(self, key):
                shown[key] = True
        for key in _STAMPS:
            stamp: Stamp | None = getattr(self, key)
            if stamp is not None:
                shown[key] = {"boot": stamp.boot, "mono": stamp.mono, "wall": stamp.wall}
        if self.guard is not None:
            shown["guard"] = tidy(self.guard)
        if self.outcome is not None:
            shown["outcome"] = self.outcome.value
        if self.marks:
            shown["marks"] = dict(self.marks)
        return json.dumps(shown, separators=(",", ":"), ensure_ascii=False)


_TEXTS = ("cycle", "reason", "requested", "boot", "lease", "error", "kernel", "slowest")
_NUMBERS = ("since", "failures", "streak", "pods", "left")
_FLAGS = ("cordoned", "uncordoned", "lost")
_STAMPS = ("entered", "done")
_COUNTS = frozenset({"failures", "streak", "pods", "left"})


def tidy(text: str) -> str:
    """A text as it is written down: cut, and without what would swell in JSON or break a line."""
    cut = text[:_TEXT_LIMIT]
    return cut if cut.isprintable() else "".join(letter if letter.isprintable() else " " for letter in cut)


def decode(text: str) -> NodeState:
    """Reads the annotation; an empty one is a node that wants nothing. Raises ValueError that says what is wrong."""
    if not text:
        return NodeState()
    if len(text) > _ANNOTATION_LIMIT:
        raise ValueError(f"longer than {_ANNOTATION_LIMIT} characters")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("not JSON") from error
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - it is the text that is wrong, not a caller's type
    version = document.pop("v", None)
    if type(version) is not int or version != VERSION:
        raise ValueError(f"version {version!r}; this agent reads version {VERSION}")
    known: dict[str, Any] = {}
    for key, value in document.items():
        known[key] = _field(key, value)
    if "phase" not in known:
        raise ValueError("no phase")
    state = NodeState(**known)
    if state.phase in _UNDER_WAY and not (state.cycle and state.boot and state.entered):
        raise ValueError(f"phase {state.phase.value} without cycle, boot or entered")
    return state


_UNDER_WAY = frozenset({Phase.CORDONED, Phase.DRAINING, Phase.REBOOTING, Phase.VERIFYING})


def _field(key: str, value: Any) -> Any:
    if key == "phase":
        return _phase(value)
    if (key in _TEXTS or key == "guard") and isinstance(value, str):
        return value
    if key in _COUNTS and type(value) is int and 0 <= value < 1_000_000:
        return value
    if key == "since" and _is_seconds(value):
        return value
    if key in _FLAGS and isinstance(value, bool):
        return value
    if key in _STAMPS:
        return _stamp(key, value)
    if key == "outcome" and value in _OUTCOMES:
        return Outcome(value)
    if key == "marks" and isinstance(value, dict) and all(map(_is_seconds, value.values())):
        return tuple(value.items())
    raise ValueError(f"{key[:64]}: {str(value)[:64]!r} is not what belongs there")


_OUTCOMES = frozenset(outcome.value for outcome in Outcome)


def _phase(value: Any) -> Phase:
    try:
        phase = Phase(value)
    except ValueError:
        phase = Phase.UNKNOWN
    if phase not in PERSISTED:
        raise ValueError(f"phase {str(value)[:64]!r} is none that is written down")
    return phase


def _stamp(key: str, value: Any) -> Stamp:
    if isinstance(value, dict) and len(value) == 3:
        boot, mono, wall = value.get("boot"), value.get("mono"), value.get("wall")
        if isinstance(boot, str) and _is_seconds(mono) and _is_seconds(wall):
            return Stamp(boot, float(mono), float(wall))
    raise ValueError(f"{key}: {str(value)[:64]!r} is not {{boot, mono, wall}}")


def _is_seconds(value: object) -> TypeGuard[float]:
    """A number that a clock may have shown: up to the year 2100."""
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 4102444800
