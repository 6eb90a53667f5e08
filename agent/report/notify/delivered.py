"""Which notifications and Events were delivered: asked before each is sent, so that a restarted agent repeats none."""

from __future__ import annotations

import hashlib
from typing import Protocol

from agent.config.schema import Notify
from agent.report.notify.message import Message


class Delivered(Protocol):
    """What was delivered, by digest. Both may be called from any thread and never raise."""

    def __contains__(self, digest: object, /) -> bool:
        """Whether it was delivered, by this process or an earlier one."""

    def add(self, digest: str, /) -> None:
        """Remembers it for longer than the process lives."""


def digest_of(message: Message, receiver: Notify) -> str:
    """Equal for the same message to the same place, however the receiver's other keys change; empty without a key."""
    key = message.notification.key
    where = receiver.type.value, receiver.url_file, receiver.key_file
    return hashlib.sha256(repr((*where, key, message.event, message.is_end)).encode()).hexdigest()[:16] if key else ""
