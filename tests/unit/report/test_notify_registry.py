"""A kind of receiver is one row of the registry, one word of the schema and one row of the docs."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import cast

import pytest

from agent.config.choices import NotifyType
from agent.config.schema import Notify
from agent.event_reasons import Reason
from agent.report.notify import Notification, Notifier, receivers
from agent.report.notify.message import Message
from agent.report.notify.receivers import DeliveryContext, NotifierSpec

DOCS = Path(__file__).parents[3] / "docs"


class Dummy(StrEnum):
    """A word beside those of the schema."""

    PIGEON = "pigeon"


def test_a_new_notifier_needs_a_row_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Queue, retries, resolving and metrics are everybody's."""
    sent: list[tuple[str, bool]] = []

    def send(message: Message, _receiver: Notify, _context: DeliveryContext) -> None:
        sent.append((message.event.value, message.is_end))

    monkeypatch.setattr(receivers, "NOTIFIERS", {Dummy.PIGEON: NotifierSpec(send, resolves=True)})
    told: list[str] = []
    receiver = Notify(type=cast(NotifyType, Dummy.PIGEON), events=(Reason.REBOOT_FAILED,))
    notifier = Notifier((receiver,), on_outcome=told.append)
    notifier.send(Notification(Reason.REBOOT_FAILED, "m", "n"))
    notifier.send(Notification(Reason.REBOOT_SUCCEEDED, "m", "n"))
    assert notifier.flush(20)
    assert sent == [("RebootFailed", False), ("RebootFailed", True)]
    assert told == ["sent"] * 2


def test_every_word_of_the_schema_has_a_notifier_and_a_row_in_the_docs() -> None:
    """And nothing else has."""
    assert set(receivers.NOTIFIERS) == set(NotifyType)
    page = (DOCS / "notifications.md").read_text()
    for kind, spec in receivers.NOTIFIERS.items():
        row = next(line for line in page.splitlines() if line.startswith(f"| `{kind}` |"))
        assert row.endswith("| yes |" if spec.resolves else "| – |")
