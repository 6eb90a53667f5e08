"""Delivers notifications with retries: a queue and a thread for each receiver, so that none delays another.

A thread lives only while its queue holds something, so an idle agent pays nothing. A queue is bounded: when a receiver
stays down, the newest messages replace the oldest. It never raises and never lets its caller wait.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial

import structlog

from agent.config.schema import Notify
from agent.kube.retry import Backoff
from agent.report.notify import receivers as registry
from agent.report.notify.http import NotSent
from agent.report.notify.message import Message, Notification, digest_of, messages
from agent.report.notify.receivers import DeliveryContext

_QUEUE = 100
_LONGEST_DELAY_SECONDS = 60.0


class Notifier:
    """Takes notifications from any thread and returns immediately."""

    def __init__(
        self,
        receivers: Sequence[Notify],
        context: DeliveryContext | None = None,
        *,
        on_outcome: Callable[[str], object] = lambda _: None,
        first_delay_seconds: float = 1.0,
        chance: random.Random | None = None,
    ) -> None:
        """on_outcome: gets each message's: sent, failed (given up) or dropped (the queue was full).

        first_delay_seconds: before the first retry; doubles, with jitter.
        """
        self._stop = threading.Event()
        chance = chance or random.Random()  # noqa: S311 - jitter
        self._new_worker = partial(
            _ReceiverWorker, context=context or DeliveryContext(), stop=self._stop, on_outcome=on_outcome,
            new_backoff=partial(Backoff, first_delay_seconds, _LONGEST_DELAY_SECONDS, chance),
        )  # fmt: skip
        self._lock = threading.Lock()
        self._workers: list[_ReceiverWorker] = []
        self.update(receivers)

    def update(self, receivers: Sequence[Notify]) -> None:
        """Another configuration; what is queued for a receiver that left is still delivered."""
        workers = [self._new_worker(f"notify[{number}]", one) for number, one in enumerate(receivers)]
        with self._lock:
            before = {worker.receiver: worker for worker in self._workers}
            # A receiver that stays keeps its queue, and with it the order.
            self._workers = [before.pop(worker.receiver, worker) for worker in workers]

    def send(self, notification: Notification) -> None:
        """Queues it for each receiver. What was delivered before under its key is not sent again."""
        with self._lock:
            workers = list(self._workers)
        for worker in workers:
            worker.put(notification)

    def flush(self, seconds: float) -> bool:
        """Waits until everything is delivered or given up, so many seconds at most; whether that is so."""
        ends = time.monotonic() + seconds
        with self._lock:
            workers = list(self._workers)
        return all(worker.idle.wait(max(0.0, ends - time.monotonic())) for worker in workers)

    def close(self) -> None:
        """Ends waits between attempts; an attempt under way ends by its own timeout."""
        self._stop.set()


class _ReceiverWorker:
    """One receiver's queue and, while there is something in it, its thread."""

    def __init__(
        self, name: str, receiver: Notify, *, context: DeliveryContext, stop: threading.Event,
        new_backoff: Callable[[], Backoff], on_outcome: Callable[[str], object],
    ) -> None:  # fmt: skip
        self.receiver = receiver
        self.idle = threading.Event()
        self.idle.set()
        self._spec = registry.NOTIFIERS[receiver.type]
        self._context, self._stop, self._new_backoff = context, stop, new_backoff
        self._lock = threading.Lock()
        self._queue: deque[Message] = deque()
        self._on_outcome = on_outcome
        self._log = structlog.get_logger().bind(receiver=f"{name} ({receiver.type.value})")

    def put(self, notification: Notification) -> None:
        found = messages(notification, self.receiver, resolves=self._spec.resolves)
        if not found or self._stop.is_set():
            return
        with self._lock:
            for message in found:
                if len(self._queue) >= _QUEUE:
                    oldest = self._queue.popleft()
                    self._log.warning("notification_dropped", event_reason=oldest.event.value, queued=_QUEUE)
                    self._on_outcome("dropped")
                self._queue.append(message)
            if self.idle.is_set():
                self.idle.clear()
                threading.Thread(target=self._run, name="notify", daemon=True).start()

    def _run(self) -> None:
        try:
            while (message := self._next()) is not None:
                digest = digest_of(message, self.receiver)
                if digest in self._context.delivered:
                    continue
                is_sent = self._deliver(message)
                if is_sent and digest:
                    self._context.delivered.add(digest)
                self._on_outcome("sent" if is_sent else "failed")
        except BaseException:
            self.idle.set()  # the next notification starts another; a regular end sets it with the lock held
            raise

    def _next(self) -> Message | None:
        with self._lock:
            if self._queue and not self._stop.is_set():
                return self._queue.popleft()
            self.idle.set()
            return None

    def _deliver(self, message: Message) -> bool:
        """Tries until it is sent or given up; whether it was sent."""
        fields = {"event_reason": message.event.value, "is_end": message.is_end}
        backoff = self._new_backoff()
        for tried in range(self.receiver.retries + 1):
            try:
                self._attempt(message)
            except NotSent as error:
                is_last = error.is_final or tried == self.receiver.retries or self._stop.is_set()
                self._log.warning("notification_failed", error=str(error), tried=tried + 1, given_up=is_last, **fields)
                if is_last or self._stop.wait(backoff.next(error.after_seconds)):
                    return False
            else:
                self._log.debug("notification_sent", tried=tried + 1, **fields)
                return True
        return False

    def _attempt(self, message: Message) -> None:
        """One attempt whose every failure is a NotSent: a traceback of a defect would show the URL."""
        try:
            self._spec.send(message, self.receiver, self._context)
        except NotSent:
            raise
        except Exception as error:  # noqa: BLE001 - see above
            raise NotSent(f"defect in the agent: {type(error).__name__}", is_final=True) from None
