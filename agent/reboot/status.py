"""The reboot's status as data: the annotation `node-hardening.io/reboot-status`, which programs read.

The plugin, metrics and alerts read this and never the sentence beside it. `parse` takes any text: a Node's annotations
may have been written by a compromised node, so everything is bounded, checked and printable, or absent.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from agent.reboot.phases import Phase
from agent.text import format_rfc3339, parse_rfc3339, sanitize

VERSION = 1
LIMIT_BYTES = 2048
_INPUT_LIMIT = 8192
_PODS, _BUDGETS, _REFUSALS = 5, 5, 3
_MESSAGE = 300
_COUNT_LIMIT = 1_000_000


class StatusReason(StrEnum):
    """Why a node is where it is: stable codes, and the reason of the condition RebootRequired."""

    NOT_REQUIRED = "NotRequired"
    MODE_OFF = "ModeOff"
    STATE_UNREADABLE = "StateUnreadable"
    OPTED_OUT = "OptedOut"
    SENTINEL_UNKNOWN = "SentinelUnknown"
    SENTINEL_UNCHANGED = "SentinelUnchanged"
    BACKING_OFF = "BackingOff"
    MINIMUM_GAP = "MinimumGap"
    WAITING_FOR_LOCK = "WaitingForLock"
    ACQUIRING_LOCK = "AcquiringLock"
    HOLDER_LOST = "HolderLost"
    LOCK_FORBIDDEN = "LockForbidden"
    HARDENING_UNKNOWN = "HardeningUnknown"
    OUTSIDE_WINDOW = "OutsideWindow"
    PAUSED = "Paused"
    KURED_LOCKED = "KuredLocked"
    BLOCKED_BY_PODS = "BlockedByPods"
    BLOCKED_BY_ALERTS = "BlockedByAlerts"
    BLOCKED_BY_PACKAGE_MANAGER = "BlockedByPackageManager"
    BLOCKED_BY_INHIBITOR = "BlockedByInhibitor"
    MAX_UNAVAILABLE = "MaxUnavailable"
    BLOCKED = "Blocked"
    CORDONED = "Cordoned"
    DRAINING = "Draining"
    DRAIN_BLOCKED = "DrainBlocked"
    DRAINED = "Drained"
    REBOOTING = "Rebooting"
    VERIFYING = "Verifying"
    VERIFICATION_FAILED = "VerificationFailed"
    RELEASING = "Releasing"
    ABORTED = "Aborted"
    ROLLED_BACK = "RolledBack"
    API_UNREACHABLE = "ApiUnreachable"
    WOULD_REBOOT = "WouldReboot"


@dataclass(frozen=True, slots=True)
class BudgetRef:
    """A disruption budget that refuses an eviction. owner: the workload behind it, such as `Deployment web`."""

    namespace: str
    name: str
    owner: str = ""


@dataclass(frozen=True, slots=True)
class DrainStatus:
    """How far the drain is. total: pods that have to go; left: of those, still there; pods: names of some of them.

    refusals: what refuses evictions, as text.
    """

    total: int = 0
    left: int = 0
    pods: tuple[str, ...] = ()
    budgets: tuple[BudgetRef, ...] = ()
    refusals: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class RebootStatus:
    """What the annotation holds.

    required: None when unknown. blocked_by: the blocker's name. holder: the node that holds the lock waited for. lock:
    the Lease held or waited for. since, until: epoch seconds, 0 for none: when the phase began (of an idle or pending
    node: when the reboot was first required), and when it ends or is tried again. message: for users. sentence: the
    message with its time, for the annotation beside this one; no part of it.
    """

    phase: Phase
    reason: StatusReason
    mode: str = "enforce"
    required: bool | None = None
    blocked_by: str = ""
    holder: str = ""
    lock: str = ""
    since: float = 0.0
    until: float = 0.0
    failures: int = 0
    drain: DrainStatus | None = None
    message: str = ""
    sentence: str = field(default="", compare=False)

    def encode(self) -> str:
        """The annotation's value: compact JSON of at most LIMIT_BYTES bytes; too long, it goes without its texts."""
        text = _compact(self._document(sanitize(self.message, _MESSAGE)))
        if len(text.encode()) > LIMIT_BYTES:
            drain = self.drain and DrainStatus(self.drain.total, self.drain.left)
            text = _compact(replace(self, drain=drain)._document(""))
        return text

    def _document(self, message: str) -> dict[str, Any]:
        document: dict[str, Any] = {
            "v": VERSION,
            "phase": self.phase.value,
            "reason": self.reason.value,
            "mode": self.mode,
            "required": self.required,
            "blockedBy": sanitize(self.blocked_by, 63),
            "holder": sanitize(self.holder, 253),
            "lock": sanitize(self.lock, 253),
            "since": _time(self.since),
            "until": _time(self.until),
            "failures": self.failures,
            "drain": None,
            "message": message,
        }
        if self.drain is not None:
            document["drain"] = {
                "total": self.drain.total,
                "left": self.drain.left,
                "pods": [sanitize(pod, 150) for pod in self.drain.pods[:_PODS]],
                "budgets": [
                    {"namespace": sanitize(one.namespace, 63), "name": sanitize(one.name, 80)}
                    | {"owner": sanitize(one.owner, 80)}
                    for one in self.drain.budgets[:_BUDGETS]
                ],
                "refusals": [sanitize(one, 100) for one in self.drain.refusals[:_REFUSALS]],
            }
        return {key: value for key, value in document.items() if value not in ("", 0) or value is False}


def parse(text: str) -> RebootStatus | None:
    """Reads the annotation; None for a text that no version of the agent writes. Never raises."""
    if not text or len(text) > _INPUT_LIMIT:
        return None
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(document, dict) or document.get("v") != VERSION:
        return None
    try:
        phase = Phase(str(document.get("phase")))
        reason = StatusReason(str(document.get("reason")))
    except ValueError:
        return None
    required = document.get("required")
    drain = document.get("drain")
    return RebootStatus(
        phase=phase,
        reason=reason,
        mode=_text(document, "mode", 16),
        required=required if isinstance(required, bool) else None,
        blocked_by=_text(document, "blockedBy", 63),
        holder=_text(document, "holder", 253),
        lock=_text(document, "lock", 253),
        since=_seconds(document, "since"),
        until=_seconds(document, "until"),
        failures=_count(document, "failures"),
        drain=_drain(drain) if isinstance(drain, dict) else None,
        message=_text(document, "message", _MESSAGE),
    )


def _drain(found: Mapping[str, Any]) -> DrainStatus:
    return DrainStatus(
        total=_count(found, "total"),
        left=_count(found, "left"),
        pods=tuple(sanitize(one, 150) for one in _list(found, "pods", _PODS) if isinstance(one, str)),
        budgets=tuple(
            BudgetRef(_text(one, "namespace", 63), _text(one, "name", 80), _text(one, "owner", 80))
            for one in _list(found, "budgets", _BUDGETS)
            if isinstance(one, dict)
        ),
        refusals=tuple(sanitize(one, 100) for one in _list(found, "refusals", _REFUSALS) if isinstance(one, str)),
    )


def _list(found: Mapping[str, Any], key: str, most: int) -> list[Any]:
    value = found.get(key)
    return value[:most] if isinstance(value, list) else []


def _text(found: Mapping[str, Any], key: str, limit: int) -> str:
    value = found.get(key)
    return sanitize(value, limit) if isinstance(value, str) else ""


def _count(found: Mapping[str, Any], key: str) -> int:
    value = found.get(key)
    return value if type(value) is int and 0 <= value <= _COUNT_LIMIT else 0


def _seconds(found: Mapping[str, Any], key: str) -> float:
    value = found.get(key)
    try:
        return parse_rfc3339(value) if isinstance(value, str) and value else 0.0
    except ValueError:
        return 0.0


def _time(seconds: float) -> str:
    """RFC 3339, or empty for none and for what no calendar has."""
    return format_rfc3339(seconds) if 0 < seconds < 253402300799 else ""


def _compact(document: Mapping[str, Any]) -> str:
    return json.dumps(document, separators=(",", ":"), ensure_ascii=False)
