"""How often a notification is tried, for how long it waits in between, and when it is given up."""

from __future__ import annotations

import random
import sys
import threading
from collections.abc import Callable, Iterator
from enum import StrEnum
from types import FrameType
from typing import cast

import pytest
from structlog.testing import capture_logs

from agent.config.choices import NotifyType
from agent.config.schema import Notify
from agent.event_reasons import Reason
from agent.report.notify import Notification, Notifier, receivers
from agent.report.notify.http import NotSent
from agent.report.notify.message import Message
from agent.report.notify.receivers import DeliveryContext, NotifierSpec

SECONDS = 20.0  # only a failing test waits so long


class Dummy(StrEnum):
    """A receiver beside those of the schema."""

    PIGEON = "pigeon"


class Loft:
    """A receiver whose attempts a test decides; `results` are what metrics count."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.attempts = 0
        self.texts: list[str] = []
        self.results: list[str] = []
        self.on_text: Callable[[str], None] = lambda _: None
        self.outcomes: Iterator[Exception | None] = iter(())
        self.began = threading.Event()
        self.gate = threading.Event()
        self.gate.set()
        patch.setattr(receivers, "NOTIFIERS", {Dummy.PIGEON: NotifierSpec(self._send, resolves=True)})

    def _send(self, message: Message, _receiver: Notify, _context: DeliveryContext) -> None:
        self.attempts += 1
        self.began.set()
        self.gate.wait(SECONDS)
        failure = next(self.outcomes, None)
        if failure is not None:
            raise failure
        self.texts.append(message.text)
        self.on_text(message.text)

    def notifier(self, *, retries: int = 3, first_delay_seconds: float = 0.0) -> Notifier:
        receiver = Notify(type=cast(NotifyType, Dummy.PIGEON), events=(Reason.REBOOT_FAILED,), retries=retries)
        return Notifier(
            (receiver,),
            on_outcome=self.results.append,
            first_delay_seconds=first_delay_seconds,
            chance=random.Random(1),
        )


@pytest.fixture
def loft(monkeypatch: pytest.MonkeyPatch) -> Loft:
    return Loft(monkeypatch)


def notification(text: str = "m", key: str = "") -> Notification:
    return Notification(Reason.REBOOT_FAILED, text, "worker-1", key=key)


@pytest.mark.parametrize(("failures", "retries", "attempts", "result"), [
    (0, 3, 1, "sent"), (2, 3, 3, "sent"), (3, 3, 4, "sent"), (4, 3, 4, "failed"), (1, 0, 1, "failed"),
])  # fmt: skip
def test_it_is_tried_once_and_then_as_often_as_configured(
    loft: Loft, failures: int, retries: int, attempts: int, result: str
) -> None:
    """retries: 3 are four attempts."""
    loft.outcomes = iter([NotSent("HTTP status 503")] * failures)
    notifier = loft.notifier(retries=retries)
    notifier.send(notification())
    assert notifier.flush(SECONDS)
    assert (loft.attempts, loft.results) == (attempts, [result])


def test_nothing_is_waited_for_after_the_last_attempt(loft: Loft) -> None:
    """The first retry would be in an hour, and none is configured."""
    loft.outcomes = iter([NotSent("HTTP status 503")])
    notifier = loft.notifier(retries=0, first_delay_seconds=3600.0)
    notifier.send(notification())
    assert notifier.flush(SECONDS)
    assert loft.results == ["failed"]


def test_a_final_failure_is_not_tried_again(loft: Loft) -> None:
    """A wrong key stays wrong."""
    loft.outcomes = iter([NotSent("HTTP status 401", is_final=True)])
    notifier = loft.notifier()
    notifier.send(notification())
    assert notifier.flush(SECONDS)
    assert (loft.attempts, loft.results) == (1, ["failed"])


def test_a_defect_of_a_receiver_is_a_failure(loft: Loft) -> None:
    """The thread survives it, and the next notification is delivered."""
    loft.outcomes = iter([ValueError("https://hooks.example/secret")])
    notifier = loft.notifier()
    for text in ("first", "second"):
        notifier.send(notification(text))
        assert notifier.flush(SECONDS)
    assert (loft.attempts, loft.results) == (2, ["failed", "sent"])


def test_a_stop_ends_the_waits(loft: Loft) -> None:
    """An hour until the next attempt, and the agent ends now: the message is given up."""
    loft.outcomes = iter([NotSent("HTTP status 429", after_seconds=3600.0)] * 9)
    notifier = loft.notifier()
    notifier.send(notification())
    assert not notifier.flush(0.05)
    notifier.close()
    assert notifier.flush(SECONDS)
    assert (loft.attempts, loft.results) == (1, ["failed"])


def test_a_stop_is_the_end_of_attempts_too(loft: Loft) -> None:
    """An attempt that fails after the stop is the last one, and nothing is queued any more."""
    loft.outcomes = iter([NotSent("HTTP status 503")] * 9)
    loft.gate.clear()
    notifier = loft.notifier()
    notifier.send(notification())
    assert loft.began.wait(SECONDS)
    notifier.close()
    loft.gate.set()
    assert notifier.flush(SECONDS)
    notifier.send(notification("later"))
    assert notifier.flush(SECONDS)
    assert (loft.attempts, loft.results) == (1, ["failed"])


def test_the_same_key_is_sent_once_in_a_process(loft: Loft) -> None:
    """A notification without a key is always sent."""
    notifier = loft.notifier()
    for key in ("a", "a", "b", "", ""):
        notifier.send(notification(key, key))
    assert notifier.flush(SECONDS)
    assert loft.attempts == 4


def test_a_full_queue_drops_its_oldest(loft: Loft) -> None:
    """The newest is what matters; each that is dropped is in the log."""
    loft.gate.clear()
    with capture_logs() as logs:
        notifier = loft.notifier()
        for number in range(105):
            notifier.send(notification(f"m{number}"))
        loft.gate.set()
        assert notifier.flush(SECONDS)
    dropped = [line["event_reason"] for line in logs if line["event"] == "notification_dropped"]
    assert dropped == ["RebootFailed"] * loft.results.count("dropped")
    assert loft.results.count("dropped") + loft.results.count("sent") == 105
    assert loft.results.count("dropped") in (4, 5)  # the first one may be under way already
    assert "m104" in loft.texts[-1]


def test_flush_is_over_when_its_time_is(loft: Loft) -> None:
    """It says whether everything was delivered, and never waits longer."""
    loft.gate.clear()
    notifier = loft.notifier()
    notifier.send(notification())
    assert not notifier.flush(0.01)
    loft.gate.set()
    assert notifier.flush(SECONDS)
    assert loft.results == ["sent"]


def test_a_notification_that_comes_as_the_thread_ends_is_waited_for(
    loft: Loft, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the end of the queue and the end of the thread: a flush before the reboot must not miss it."""
    ended, goes_on = threading.Event(), threading.Event()

    class SlowThread(threading.Thread):
        """Ends only when the test lets it: by then the next notification has a thread of its own."""

        def run(self) -> None:
            def wait(frame: FrameType, event: str, _: object) -> None:
                if event == "return" and frame.f_code.co_name == "_next" and loft.texts and not ended.is_set():
                    ended.set()
                    goes_on.wait(SECONDS)

            sys.setprofile(wait)
            super().run()

    monkeypatch.setattr(threading, "Thread", SlowThread)
    notifier = loft.notifier()
    notifier.send(notification("first"))
    assert ended.wait(SECONDS)
    monkeypatch.undo()
    loft.gate.clear()
    loft.began.clear()
    notifier.send(notification("second"))
    assert loft.began.wait(SECONDS)
    threads = [one for one in threading.enumerate() if isinstance(one, SlowThread)]
    goes_on.set()
    for one in threads:
        one.join(SECONDS)
    assert not notifier.flush(0)
    loft.gate.set()
    assert notifier.flush(SECONDS)
    assert [text.rpartition(" ")[2] for text in loft.texts] == ["first", "second"]


def test_a_receiver_that_leaves_still_gets_what_is_queued(loft: Loft) -> None:
    """And nothing after that."""
    loft.gate.clear()
    delivered = threading.Event()
    loft.on_text = lambda _: delivered.set()
    notifier = loft.notifier()
    notifier.send(notification("before"))
    notifier.update(())
    notifier.send(notification("after"))
    loft.gate.set()
    assert delivered.wait(SECONDS)
    assert [text for text in loft.texts if "after" in text] == []
