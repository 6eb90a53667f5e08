"""What the node itself remembers of its reboot: the annotation `node-hardening.io/reboot-state`, versioned and bounded.

With the Lease it is all that a new pod, a new version or a rebooted machine has to continue with, and it is written in
the same patch as the change that it describes. It is a union by phase: each phase has a class of its own with just the
fields that it can have. Times that decide anything are stamps of the monotonic clock with the boot they belong to,
because a wall clock may be hours off after a boot. A text that cannot be read is refused, never guessed: nothing is
rebooted on a misread state.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import MISSING, dataclass, fields
from enum import StrEnum
from itertools import islice
from typing import Any, ClassVar

from agent.reboot.phases import STORED, Phase

VERSION = 2
_TEXT_LIMIT = 300
_ANNOTATION_LIMIT = 8192
_COUNT_LIMIT = 1_000_000
_KEYS_LIMIT = 20
_KEYS_CHARACTERS = 1000
_ROUNDING_SECONDS = 0.01
_SECONDS_LIMIT = 253_402_300_800.0  # the year 10000: no calendar has more


class Outcome(StrEnum):
    """How a cycle ended, for `reboots by outcome`."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    ABORTED = "aborted"


@dataclass(frozen=True, slots=True)
class Now:
    """One moment on one node: the running boot, its monotonic clock, the wall clock (all seconds)."""

    boot: str
    mono: float
    wall: float


@dataclass(frozen=True, slots=True)
class Stamp(Now):
    """A moment that was written down."""

    @classmethod
    def of(cls, now: Now) -> Stamp:
        """The moment as it is written down."""
        return cls(now.boot, round(now.mono, 3), round(now.wall, 3))

    def elapsed(self, now: Now) -> float | None:
        """Seconds since then; None when the machine booted in between, or went back to a snapshot: unknown."""
        if self.boot != now.boot or self.mono > now.mono + _ROUNDING_SECONDS:
            return None
        return max(0.0, now.mono - self.mono)


Marks = tuple[tuple[Phase, float], ...]
Keys = tuple[tuple[str, str], ...]  # of `labels` and `annotations`, with a blank between two


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeState:
    """What every phase has.

    failures: attempts that failed in a row. streak: reboots required again soon after the last one, which ended at
    `done`.
    """

    phase: ClassVar[Phase]
    failures: int = 0
    streak: int = 0
    done: Stamp | None = None

    def encode(self) -> str:
        """The annotation's value: compact JSON; fields at their default are left out, long texts cut."""
        shown: dict[str, Any] = {"v": VERSION, "phase": self.phase.value}
        for one in fields(self):
            value = getattr(self, one.name)
            if value != one.default:
                shown[one.name] = _shown(value)
        return json.dumps(shown, separators=(",", ":"), ensure_ascii=False)


@dataclass(frozen=True, slots=True, kw_only=True)
class Idle(NodeState):
    """No reboot is pending. guard: the sentinel's stamp that was still there after a verified reboot. aborted: the
    cycle that ended at `done` was aborted, so no reboot came of it. last_cause, repeated: of one that was rolled back,
    see RolledBack."""

    phase = Phase.IDLE
    guard: str | None = None
    aborted: bool = False
    last_cause: str = ""
    repeated: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Cycle(NodeState):
    """What every phase of a cycle has.

    cycle: the attempt's id. packages: what the sentinel names. requested: the value of the reboot-request annotation
    that this cycle answers. since: wall seconds when the reboot was first required. entered: when the phase began.
    last_cause: see RolledBack.cause, of the attempt before.
    """

    cycle: str
    packages: str = ""
    requested: str = ""
    since: float = 0.0
    entered: Stamp
    last_cause: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pending(Cycle):
    """A reboot is required; no lock is written down yet. error: why the attempt before failed. taint: the key that is
    on the Node while it waits."""

    phase = Phase.PENDING
    error: str = ""
    taint: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Attempt(Cycle):
    """From the cordon to the release: the node is ours.

    boot: the boot id that has to change. cordoned: the cordon is ours. lease: the lock's name. kernel: the release
    before the reboot. failing: checks of the hardening that did not pass before the cordon. marks: wall seconds at
    which each phase began. pods, left, slowest: of the drain. keys: what `nodeLabels.before` and
    `nodeAnnotations.before` have put on the Node; the policy may lose them in mid-cycle.
    """

    boot: str
    cordoned: bool = False
    lease: str = ""
    kernel: str = ""
    failing: int = 0
    marks: Marks = ()
    pods: int = 0
    left: int = 0
    slowest: str = ""
    keys: Keys = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Cordoned(Attempt):
    """Cordoned, nothing evicted yet."""

    phase = Phase.CORDONED


@dataclass(frozen=True, slots=True, kw_only=True)
class Draining(Attempt):
    """Pods are being evicted."""

    phase = Phase.DRAINING


@dataclass(frozen=True, slots=True, kw_only=True)
class Rebooting(Attempt):
    """Drained; the reboot command is about to be given, or was given."""

    phase = Phase.REBOOTING


@dataclass(frozen=True, slots=True, kw_only=True)
class Verifying(Attempt):
    """Another boot id was seen. error: what verification is missing past verifyTimeout."""

    phase = Phase.VERIFYING
    error: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Finished(Cycle):
    """A cycle that is over but for its lock.

    lease: the lock's name, empty when it was never ours. uncordoned: we removed our cordon. lost: the lock was lost
    rather than released. error: why it did not succeed. kernel, marks, pods, slowest: see Attempt.
    """

    lease: str = ""
    uncordoned: bool = False
    lost: bool = False
    error: str = ""
    kernel: str = ""
    marks: Marks = ()
    pods: int = 0
    slowest: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Releasing(Finished):
    """Succeeded or aborted: the lock is released next. guard: see Idle."""

    phase = Phase.RELEASING
    outcome: Outcome = Outcome.SUCCEEDED
    guard: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class RolledBack(Finished):
    """Failed: the lock is released, the next attempt comes after the back-off.

    cause: a stable word where the same drain would only be repeated: what blocked after it. repeated: for the second
    time in a row.
    """

    phase = Phase.ROLLED_BACK
    cause: str = ""
    repeated: bool = False


CLASSES: Mapping[Phase, type[NodeState]] = {
    one.phase: one for one in (Idle, Pending, Cordoned, Draining, Rebooting, Verifying, Releasing, RolledBack)
}


def bounded(text: str) -> str:
    """A text as it is written down: cut, and without what would swell in JSON or break a line."""
    cut = text[:_TEXT_LIMIT]
    return cut if cut.isprintable() else "".join(letter if letter.isprintable() else " " for letter in cut)


def keys_of(labels: Iterable[str], annotations: Iterable[str]) -> Keys:
    """Keys as they are written down: as many as fit. The policy's own are removed without it."""
    some = (("labels", _joined(labels)), ("annotations", _joined(annotations)))
    return tuple((kind, joined) for kind, joined in some if joined)


def _joined(keys: Iterable[str]) -> str:
    joined = " ".join(islice(keys, _KEYS_LIMIT))
    return joined if len(joined) <= _KEYS_CHARACTERS else joined[:_KEYS_CHARACTERS].rpartition(" ")[0]


def decode(text: str) -> NodeState:
    """Reads the annotation; an empty one is an idle node. Raises ValueError that names what is wrong."""
    if not text:
        return Idle()
    if len(text) > _ANNOTATION_LIMIT:
        raise ValueError(f"longer than {_ANNOTATION_LIMIT} characters")
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError("not JSON") from error
    if not isinstance(document, dict):
        raise ValueError("not a JSON object")  # noqa: TRY004 - it is the text that is wrong, not a caller's type
    version = document.pop("v", None)
    if type(version) is not int or version not in (1, VERSION):
        raise ValueError(f"version {version!r:.40}; this agent reads versions 1 and {VERSION}")
    if version == 1:
        document = _from_version_1(document)
    return _of(document)


def _of(document: dict[str, Any]) -> NodeState:
    name = document.pop("phase", None)
    if not isinstance(name, str) or name not in STORED:
        raise ValueError(f"phase {str(name)[:64]!r} is never stored")
    kind = CLASSES[Phase(name)]
    known = {one.name: one for one in fields(kind)}
    values: dict[str, Any] = {}
    for key, value in document.items():
        if key not in known:
            raise ValueError(f"phase {name} has no {key[:64]!r}")
        values[key] = _read(key, value)
    required = {one.name for one in known.values() if one.default is MISSING}
    if missing := sorted(key for key in required if not values.get(key)):
        raise ValueError(f"phase {name} without {', '.join(missing)}")
    return kind(**values)


_V1_PHASES = {"wanted": "pending", "released": "releasing", "rolled back": "rolled-back"}
_V1_KEYS = {"reason": "packages"}


def _from_version_1(document: dict[str, Any]) -> dict[str, Any]:
    """Version 1 kept the fields of every phase in one flat object; what the phase has no use for is left out.

    Before it is left out it is checked, so that what version 1 refused is refused still.
    """
    found = {_V1_KEYS.get(key, key): value for key, value in document.items()}
    phase = found.get("phase")
    phase = found["phase"] = _V1_PHASES.get(phase, phase) if isinstance(phase, str) else phase
    marks = found.get("marks")
    if isinstance(marks, dict):
        found["marks"] = {_V1_PHASES.get(key, key): value for key, value in marks.items()}
    if not isinstance(phase, str) or phase not in STORED:
        return found
    for key, value in found.items():
        if key != "phase":
            _read(key, value)
    known = {one.name for one in fields(CLASSES[Phase(phase)])} | {"phase"}
    if "entered" in known and "entered" not in found:
        found["entered"] = {"boot": "unknown", "mono": 0.0, "wall": 0.0}
    return {key: value for key, value in found.items() if key in known}


# -- values ------------------------------------------------------------------------------------------------------------


def _shown(value: object) -> object:
    if isinstance(value, Stamp):
        return {"boot": value.boot, "mono": value.mono, "wall": value.wall}
    if isinstance(value, tuple):
        return dict(value)
    return bounded(value) if type(value) is str else value


def _read(key: str, value: Any) -> Any:
    reader = _READERS.get(key)
    if reader is None:
        raise ValueError(f"{key[:64]!r} is no key of the state")
    try:
        return reader(value)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{key}: {str(value)[:64]!r} is not {error}") from None


def _text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError("a text")
    return bounded(value)


def _count(value: Any) -> int:
    if type(value) is not int or not 0 <= value <= _COUNT_LIMIT:
        raise ValueError(f"a number from 0 to {_COUNT_LIMIT}")
    return value


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise TypeError("true or false")
    return value


def _seconds(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value < _SECONDS_LIMIT:
        raise ValueError("seconds since 1970")
    return float(value)


def _stamp(value: Any) -> Stamp:
    if not isinstance(value, dict) or set(value) != {"boot", "mono", "wall"}:
        raise ValueError("{boot, mono, wall}")
    return Stamp(_text(value["boot"]), _seconds(value["mono"]), _seconds(value["wall"]))


def _marks(value: Any) -> Marks:
    if not isinstance(value, dict) or not STORED.issuperset(value):
        raise ValueError("seconds by phase")
    return tuple((Phase(key), _seconds(at)) for key, at in value.items())


def _keys(value: Any) -> Keys:
    if not isinstance(value, dict) or not {"labels", "annotations"}.issuperset(value):
        raise ValueError("keys by labels and annotations")
    if not all(
        isinstance(some, str) and some.isprintable() and _joined(some.split()) == some for some in value.values()
    ):
        raise ValueError(f"at most {_KEYS_LIMIT} keys each")
    return tuple(value.items())


_READERS: Mapping[str, Callable[[Any], Any]] = {
    **dict.fromkeys(("cycle", "packages", "requested", "boot", "lease", "error", "kernel", "slowest", "guard"), _text),
    **dict.fromkeys(("taint", "cause", "last_cause"), _text),
    **dict.fromkeys(("failures", "streak", "pods", "left", "failing"), _count),
    **dict.fromkeys(("cordoned", "uncordoned", "lost", "repeated", "aborted"), _flag),
    **dict.fromkeys(("entered", "done"), _stamp),
    "since": _seconds,
    "outcome": Outcome,
    "marks": _marks,
    "keys": _keys,
}
