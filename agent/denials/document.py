"""The annotation `denials` of a Node: what the agent writes and the plugin reads. Pure.

JSON, bounded: `{v, state, reason, since, notes, received, lost, unattributed, other, more, rows}`. Each row is a list
in the order of FIELDS, the newest first; `other` counts records without a row, `more` the rows without space here.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Self

VERSION: Final = 1
LIMIT_BYTES: Final = 16 << 10
FIELDS: Final = (
    "namespace", "pod", "uid", "container", "profile", "kind", "operation", "mask", "outcome", "file", "count",
    "first", "last",
)  # fmt: skip
RECORDING_VERSION: Final = 1  # of the annotation `recordings` and the checkpoint, a row for each container
RECORDING_FIELDS: Final = (
    "namespace", "pod", "uid", "container", "id", "arch", "syscalls", "calls", "lost", "first", "last",
)  # fmt: skip


class State(StrEnum):
    """SEEING: the agent's own record arrived, so none means none. BLIND: it did not; `reason` is why."""

    STARTING = "starting"
    SEEING = "seeing"
    BLIND = "blind"


class Reason(StrEnum):
    """Why no record arrives, or why some do not (as a note); with what it means. AGENT_SILENT is the plugin's own."""

    meaning: str

    def __new__(cls, value: str, meaning: str) -> Self:
        """A plain string wherever it is compared or written."""
        reason = str.__new__(cls, value)
        reason._value_ = value
        reason.meaning = meaning
        return reason

    AUDIT_OFF = "audit-off", "the kernel makes no audit records: it was started with audit=0, or has no audit"
    NO_KERNEL = "no-kernel", "no kernel runs on the agent's --host-root: the audit records here are another machine's"
    NOT_PERMITTED = "not-permitted", "the agent may not read audit records: it needs CAP_AUDIT_READ"
    NETWORK_NAMESPACE = (
        "network-namespace",
        "the agent is in a network namespace of its own, where no audit record arrives: it needs hostNetwork",
    )
    ACTIONS_LOGGED = (
        "actions-logged",
        "the sysctl kernel.seccomp.actions_logged of the node leaves out actions: seccomp's records are incomplete",
    )
    ACTIONS_UNKNOWN = (
        "actions-unknown",
        "the sysctl kernel.seccomp.actions_logged cannot be read: seccomp's records may be incomplete",
    )
    EXCLUDED = "excluded", "an audit rule of the node drops these records: auditctl -l shows `always,exclude`"
    NO_RECORD = "no-record", "the agent's own test record did not arrive, and the reason is unknown"
    EXCLUDED_APPARMOR = "excluded-apparmor", "an audit rule of the node drops AppArmor's records: auditctl -l shows it"
    RATE_LIMIT = "rate-limit", "the node's audit rate limit may drop records (auditctl -s); dropped ones count as lost"
    AGENT_SILENT = "agent-silent", "its agent does not report any more: what is listed is its last report"
    AUDITD = "auditd", "auditd runs: a container that floods it with records is slowed down by the kernel"


@dataclass(frozen=True, slots=True)
class Summary:
    """What one agent saw since it started to read, without the rows. since: RFC 3339."""

    state: State
    reason: Reason | None = None
    since: str = ""
    notes: tuple[Reason, ...] = ()
    received: int = 0
    lost: int = 0
    unattributed: int = 0
    other: int = 0


def encode(seen: Summary, rows: Iterable[Sequence[str | int]], limit: int = LIMIT_BYTES) -> str:
    """The annotation's text, with as many of the rows (each in the order of FIELDS) as fit into `limit` bytes."""
    head: dict[str, Any] = {"v": VERSION, "state": seen.state.value, "reason": seen.reason and seen.reason.value,
        "since": seen.since, "notes": [note.value for note in seen.notes], "received": seen.received,
        "lost": seen.lost, "unattributed": seen.unattributed, "other": seen.other}  # fmt: skip
    size = len(_compact({**head, "more": 10**6, "rows": []}))
    shown, more = [], 0
    for row in rows:
        size += len(_compact(list(row))) + 1
        if size > limit:
            more += 1
        else:
            shown.append(list(row))
    return _compact({**head, **({"more": more} if more else {}), "rows": shown})


def _compact(value: object) -> str:
    return json.dumps(value, separators=(",", ":"))
