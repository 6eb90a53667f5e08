"""Who is told what, and when again: a queue and a thread for each receiver, so that none holds up another.

A thread lives only while its receiver has something to be told, so an idle agent pays nothing. A queue is bounded: when
a receiver stays away, the newest news replace the oldest. It refuses to raise, and to let its caller wait.
"""

from __future__ import annotations

import os
import random
import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from agent.config.schema import Notify, NotifyType
from agent.report.notify import apprise, http
from agent.report.notify.apprise import Runner
from agent.report.notify.http import NotSent
from agent.report.notify.notice import Message, Notification, messages
from agent.report.notify.receivers import TELLS_ENDS, build

_QUEUE = 100
_REMEMBERED = 512
_LONGEST_DELAY_SECONDS = 60.0


@dataclass(frozen=True, slots=True)
class Delivery:
    """How one message fared, for metrics. outcome: sent, failed (given up) or dropped (the queue was full)."""

    receiver: str
    outcome: str


@dataclass(frozen=True, slots=True)
class DeliveryContext:
    """What a delivery works with; everything that a test has in hand."""

    run: Runner | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    wall: Callable[[], float] = time.time
    chance: random.Random = field(default_factory=random.Random)
    told: Callable[[Delivery], None] = lambda _: None
    first_delay_seconds: float = 1.0


class Notifier:
    """Takes notices in from any thread, at once."""

    def __init__(self, receivers: Sequence[Notify], means: DeliveryContext | None = None) -> None:
        self._means = means or DeliveryContext()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._known: OrderedDict[str, None] = OrderedDict()
        self._lanes: list[_ReceiverWorker] = []
        self.update(receivers)

    def update(self, receivers: Sequence[Notify]) -> None:
        """Another configuration; what is under way by the old one is still delivered."""
        lanes = [
            _ReceiverWorker(f"notify[{number}]", one, self._means, self._stop) for number, one in enumerate(receivers)
        ]
        with self._lock:
            before = {lane.receiver: lane for lane in self._lanes}
            # A receiver that stays keeps its queue, and with it its order.
            self._lanes = [before.pop(lane.receiver, lane) for lane in lanes]

    def send(self, notice: Notification) -> None:
        """Queues what each receiver is to be told. A key that was told by this process already is not told again."""
        with self._lock:
            if notice.key:
                if notice.key in self._known:
                    return
                self._known[notice.key] = None
                if len(self._known) > _REMEMBERED:
                    self._known.popitem(last=False)
            lanes = list(self._lanes)
        for lane in lanes:
            lane.put(notice)

    def flush(self, seconds: float) -> bool:
        """Waits until everything is delivered or given up, so many seconds at most; whether that is so."""
        ends = time.monotonic() + seconds
        with self._lock:
            lanes = list(self._lanes)
        return all(lane.idle.wait(max(0.0, ends - time.monotonic())) for lane in lanes)

    def close(self) -> None:
        """Ends waits between tries; tries under way end by their own timeout."""
        self._stop.set()


class _ReceiverWorker:
    """One receiver's queue and, while there is something in it, its thread."""

    def __init__(self, name: str, receiver: Notify, means: DeliveryContext, stop: threading.Event) -> None:
        self.receiver = receiver
        self.idle = threading.Event()
        self.idle.set()
        self._means = means
        self._stop = stop
        self._lock = threading.Lock()
        self._queue: deque[Message] = deque()
        self._label = receiver.type.value
        self._log = structlog.get_logger().bind(receiver=f"{name} ({self._label})")

    def put(self, notice: Notification) -> None:
        found = messages(notice, self.receiver, tells_ends=self.receiver.type in TELLS_ENDS)
        if not found or self._stop.is_set():
            return
        with self._lock:
            for message in found:
                if len(self._queue) >= _QUEUE:
                    self._queue.popleft()
                    self._means.told(Delivery(self._label, "dropped"))
                self._queue.append(message)
            if self.idle.is_set():
                self.idle.clear()
                threading.Thread(target=self._run, name="notify", daemon=True).start()

    def _run(self) -> None:
        try:
            while (message := self._next()) is not None:
                self._deliver(message)
        finally:
            self.idle.set()  # also when a defect ends the thread: the next notice begins another

    def _next(self) -> Message | None:
        with self._lock:
            if self._queue and not self._stop.is_set():
                return self._queue.popleft()
            self.idle.set()
            return None

    def _deliver(self, message: Message) -> None:
        """Tries until it is sent or given up."""
        said = {"event_reason": message.event.value, "is_end": message.is_end}
        for tried in range(self.receiver.retries + 1):
            try:
                self._try_quietly(message)
            except NotSent as error:
                is_last = error.is_final or tried == self.receiver.retries or self._stop.is_set()
                self._log.warning("notification_failed", error=str(error), tried=tried + 1, given_up=is_last, **said)
                if is_last or self._stop.wait(self._delay(tried, error.after_seconds)):
                    break
            else:
                self._log.debug("notification_sent", tried=tried + 1, **said)
                self._means.told(Delivery(self._label, "sent"))
                return
        self._means.told(Delivery(self._label, "failed"))

    def _try_quietly(self, message: Message) -> None:
        """One try whose every trouble is a NotSent: a traceback of a defect would show the URL."""
        try:
            self._try(message)
        except NotSent:
            raise
        except Exception as error:  # noqa: BLE001 - see above
            raise NotSent(f"a defect of the agent's: {type(error).__name__}", is_final=True) from None

    def _try(self, message: Message) -> None:
        receiver, means = self.receiver, self._means
        url = http.secret(receiver.url_file) if receiver.type is NotifyType.APPRISE else self._url()
        if receiver.type is NotifyType.APPRISE:
            if means.run is None:
                raise NotSent("nothing to start apprise with", is_final=True)
            apprise.send(message, url, means.run, timeout_seconds=receiver.timeout, environment=means.environment)
            return
        key = http.secret(receiver.key_file) if receiver.key_file else ""
        post = build(receiver.type, message, url, key, means.wall())
        http.send(post, timeout_seconds=receiver.timeout, environment=means.environment)

    def _url(self) -> str:
        """Empty where the receiver has a well-known one."""
        return http.url_in(self.receiver.url_file) if self.receiver.url_file else ""

    def _delay(self, tried: int, asked_seconds: float) -> float:
        means = self._means
        whole = min(_LONGEST_DELAY_SECONDS, means.first_delay_seconds * 2.0 ** min(tried, 10))
        return max(asked_seconds, means.chance.uniform(whole / 2, whole))
