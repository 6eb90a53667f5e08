"""What is told, in words, and which event puts an end to which.

Pure. The words are the operator's template or a good one of ours; equal problems have equal names, so that a pager
opens one incident for them and the ending event closes it.
"""

from __future__ import annotations

import string
import time
from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.config.schema import Notify
from agent.event_reasons import Reason, Urgency
from agent.report.node_status import cut

_MESSAGE_CHARACTERS = 1024
_SEVERITIES = {Urgency.ON_CALL: "critical", Urgency.WARNING: "warning", Urgency.NORMAL: "info"}
# A stuck lock is one problem of a pool, whichever of the waiting nodes tells it first.
_OF_THE_LOCK = frozenset((Reason.REBOOT_LOCK_STUCK, Reason.REBOOT_LOCK_RELEASED, Reason.REBOOT_LOCK_TAKEN_OVER))

ENDS: Mapping[Reason, tuple[Reason, ...]] = {
    Reason.NODE_HARDENED: (Reason.NODE_NON_COMPLIANT, Reason.HARDENING_FAILED),
    Reason.DRIFT_CORRECTED: (Reason.NODE_NON_COMPLIANT,),
    Reason.CONFIG_RELOADED: (Reason.CONFIG_REJECTED,),
    # The lock is taken by another, or free: then its last holder stands in nobody's way.
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
    """A notice as one receiver is told it.

    event: the problem's name; of an ending one it is the problem that ended. problem: equal for every telling of one
    problem and for its end. text: the whole sentence.
    """

    notice: Notification
    event: Reason
    is_end: bool
    severity: str
    problem: str
    text: str
    cluster: str


def messages(notice: Notification, receiver: Notify, *, tells_ends: bool) -> tuple[Message, ...]:
    """What a receiver is told of a notice: the event, if it is one of its events, and the ends of its problems.

    tells_ends: whether the receiver knows problems that end (pagers and alert managers) or just reads along.
    """
    found = []
    if is_wanted(notice.reason, receiver):
        found.append(_message(notice, receiver, notice.reason, is_end=False))
    if tells_ends:
        ended = (reason for reason in ENDS.get(notice.reason, ()) if is_wanted(reason, receiver))
        found += [_message(notice, receiver, reason, is_end=True) for reason in ended]
    return tuple(found)


def is_wanted(reason: Reason, receiver: Notify) -> bool:
    """Whether a receiver asks for it; without a list it is told what on-call must see."""
    return reason in receiver.events if receiver.events else reason.urgency is Urgency.ON_CALL


def is_about_lock(event: Reason, notice: Notification) -> bool:
    """Whether the problem is the lock's and not the node's."""
    return bool(notice.lease) and event in _OF_THE_LOCK


def _message(notice: Notification, receiver: Notify, event: Reason, *, is_end: bool) -> Message:
    subject = f"lease/{notice.lease}" if is_about_lock(event, notice) else f"node/{notice.node}"
    severity = _SEVERITIES[event.urgency]
    fields = {
        "node": notice.node,
        "event": notice.reason.value,
        "message": cut(notice.message, _MESSAGE_CHARACTERS),
        "cluster": receiver.cluster,
        "severity": _SEVERITIES[notice.reason.urgency],
    }
    return Message(
        notice=notice,
        event=event,
        is_end=is_end,
        severity=severity,
        problem="/".join(part for part in ("node-hardening", receiver.cluster, subject, event.value) if part),
        text=render(receiver.template, fields),
        cluster=receiver.cluster,
    )


def render(template: str, fields: Mapping[str, str]) -> str:
    """The template with its fields filled in, what they hold taken as it is; the empty template is a good one.

    Raises ValueError for a template that the configuration's reader would not have let through.
    """
    if not template:
        where = f"[{fields['cluster']}] " if fields["cluster"] else ""
        return f"{where}{fields['severity']}: {fields['event']} on {fields['node']}: {fields['message']}"
    text = []
    for literal, name, form, conversion in string.Formatter().parse(template):
        text.append(literal)
        if name is not None:
            if name not in fields or form or conversion:
                raise ValueError(f"{{{name}}} is not a field of a template")
            text.append(fields[name])
    return "".join(text)
