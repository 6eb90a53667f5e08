"""Messages on a netlink socket that are not the kernel's: whoever may send them must not stop the reader."""

from __future__ import annotations

import socket
import time
from typing import Any, cast

import pytest

from agent.denials import netlink
from agent.denials.netlink import AuditSocket


class Foreign:
    """A socket that always has a message of another process."""

    def __init__(self) -> None:
        self.reads, self.timeout = 0, 1.0

    def sendto(self, *_: Any) -> None:
        """The question; nothing answers."""

    def settimeout(self, seconds: float) -> None:
        """Until the next read gives up."""
        self.timeout = seconds

    def recvfrom(self, _: int) -> tuple[bytes, tuple[int, int]]:
        """One more, a moment later."""
        if self.timeout <= 0.002:
            raise TimeoutError
        time.sleep(0.001)
        self.reads += 1
        return bytes(16), (4711, 0)


def test_a_record_is_read_at_a_time() -> None:
    """So that a round of the observer ends."""
    made = object.__new__(AuditSocket)
    foreign = Foreign()
    made._socket = cast("socket.socket", foreign)
    assert (made.read(), foreign.reads) == ((0, b""), 1)


def test_an_answer_has_one_deadline(monkeypatch: pytest.MonkeyPatch) -> None:
    """For all messages before it together."""
    monkeypatch.setattr(netlink, "_ANSWER_SECONDS", 0.02)
    with pytest.raises(TimeoutError):
        list(netlink._answers(cast("socket.socket", Foreign()), netlink._GET))
