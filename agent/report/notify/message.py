"""The text of a notification, which event resolves which problem, and what was delivered already.

Pure. The text is the operator's template or the default one; equal problems have equal names, so that a pager opens one
incident for them and the resolving event closes it.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from agent.config.schema import Notify
from agent.event_reasons import Reason, Urgency
from agent.report.node_status import cut

_MESSAGE_CHARACTERS = 1024
_SEVERITIES = {Urgency.ON_CALL: "critical", Urgency.WARNING: "warning", Urgency.NORMAL: "info"}
# A stuck lock is one problem of a pool, whichever of the waiting nodes reports it first.
_LOCK_EVENTS = frozenset((Reason.REBOOT_LOCK_STUCK, Reason.REBOOT_LOCK_RELEASED, Reason.REBOOT_LOCK_TAKEN_OVER))

ENDS: Mapping[Reason, tuple[Reason, ...]] = {
    Reason.NODE_HARDENED: (Reason.NODE_NON_COMPLIANT, Reason.HARDENING_FAILED),
    Reason.DRIFT_CORRECTED: (Reason.NODE_NON_COMPLIANT,),
    Reason.CONFIG_RELOADED: (Reason.CONFIG_REJECTED,),
    Reason.POLICY_ACCEPTED: (Reason.POLICY_FAILED_ON_CANARY,),
    # The lock is free or has another holder: then its last holder blocks no other node.
    Reason.REBOOT_LOCK_ACQUIRED: (Reason.REBOOT_BLOCKED, Reason.REBOOT_LOCK_STUCK),
    Reason.REBOOT_LOCK_TAKEN_OVER: (Reason.REBOOT_BLOCKED, Reason.REBOOT_LOCK_STUCK),
    Reason.REBOOT_LOCK_RELEASED: (Reason.REBOOT_LOCK_STUCK,),
    Reason.DRAINED: (Reason.DRAIN_BLOCKED,),
    Reason.NODE_UNCORDONED: (Reason.NODE_CORDONED, Reason.DRAIN_BLOCKED),
    Reason.REBOOT_SUCCEEDED: (
        Reason.REBOOT_FAILED,
        Reason.REBOOT_REQUIRED,
        Reason.REBOOT_BLOCKED,
        Reason.DRAIN_BLOCKED,
    ),
}
HAS_END = frozenset(reason for ended in ENDS.values() for reason in ended)


@dataclass(frozen=True, slots=True)
class Notification:
    """One thing that happened. node: where. key: equal keys are one event. lease: the lock it is about. at: epoch."""

    reason: Reason
    message: str
    node: str
    key: str = ""
    lease: str = ""
    at: float = field(default_factory=time.time)


@dataclass(frozen=True, slots=True)
class Message:
    """A notification for one receiver.

    event: the problem; of an end it is the problem that ended. problem: its name, equal for every message about one
    problem and for its end. text: the whole sentence.
    """

    notification: Notification
    event: Reason
    is_end: bool
    severity: str
    problem: str
    text: str
    cluster: str


def messages(notification: Notification, receiver: Notify, *, resolves: bool) -> tuple[Message, ...]:
    """What a receiver gets: the event, if it is one of its events, and the ends of its problems.

    resolves: whether the receiver keeps problems that end (pagers, alert managers) or only shows text.
    """
    found = []
    if is_subscribed(notification.reason, receiver):
        found.append(_message(notification, receiver, notification.reason, is_end=False))
    if resolves:
        ended = (reason for reason in ENDS.get(notification.reason, ()) if is_subscribed(reason, receiver))
        found += [_message(notification, receiver, reason, is_end=True) for reason in ended]
    return tuple(found)


def is_subscribed(reason: Reason, receiver: Notify) -> bool:
    """Whether a receiver gets the event; without a list it gets what on-call must see."""
    return reason in receiver.events if receiver.events else reason.urgency is Urgency.ON_CALL


def is_about_lock(event: Reason, notification: Notification) -> bool:
    """Whether the problem is the lock's and not the node's."""
    return bool(notification.lease) and event in _LOCK_EVENTS


def _message(notification: Notification, receiver: Notify, event: Reason, *, is_end: bool) -> Message:
    subject = f"lease/{notification.lease}" if is_about_lock(event, notification) else f"node/{notification.node}"
    severity = _SEVERITIES[event.urgency]
    fields = {
        "node": notification.node,
        "event": notification.reason.value,
        "message": cut(notification.message, _MESSAGE_CHARACTERS),
        "cluster": receiver.cluster,
        "severity": _SEVERITIES[notification.reason.urgency],
    }
    return Message(
        notification=notification,
        event=event,
        is_end=is_end,
        severity=severity,
        problem="/".join(part for part in ("node-hardening", receiver.cluster, subject, event.value) if part),
        text=render(receiver.template, fields),
        cluster=receiver.cluster,
    )


def render(template: str, fields: Mapping[str, str]) -> str:
    """The template, as the configuration's loader took it, with its fields filled in; empty: the default text."""
    if template:
        return template.format_map(fields)
    where = f"[{fields['cluster']}] " if fields["cluster"] else ""
    return f"{where}{fields['severity']}: {fields['event']} on {fields['node']}: {fields['message']}"


class Delivered(Protocol):
    """Digests of what was delivered, so that a restarted agent repeats none. From any thread; never raises."""

    def __contains__(self, digest: object, /) -> bool:
        """Whether it was delivered, by this process or an earlier one."""

    def add(self, digest: str, /) -> None:
        """Remembers it for longer than the process lives."""


def digest_of(message: Message, receiver: Notify) -> str:
    """Equal for the same message to the same place, however the receiver's other keys change; empty without a key."""
    key = message.notification.key
    where = receiver.type.value, receiver.url_file, receiver.key_file
    return hashlib.sha256(repr((*where, key, message.event, message.is_end)).encode()).hexdigest()[:16] if key else ""
