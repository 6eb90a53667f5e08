"""One request: sent, and sent again where that is safe, until it is answered or its deadline is over.

What is safe: reading, and writing that can be done twice (deletes, patches without a resourceVersion). What is not
(create, evict, a patch with a resourceVersion) is sent again only where nothing can have been processed: no connection,
or a 429. Otherwise the error is `ambiguous`, and the caller reads the object again first.
Here is also where every request is counted and timed. Nothing here logs a header, a query or a body.
"""

from __future__ import annotations

import contextlib
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any, TypeVar
from urllib.parse import urlencode

import requests

from agent.bounded_http import BODY_BYTES, Body, TooLarge, parse_json, read_body
from agent.bounded_socket import deadline
from agent.errors import KubeError
from agent.kube.credentials import Access
from agent.kube.errors import (
    CallFailed,
    Malformed,
    Operation,
    Refused,
    ResponseTooLarge,
    ServerError,
    Stopped,
    TooManyRequests,
    Unauthorized,
    Unreachable,
    refusal,
)
from agent.kube.network_errors import NETWORK, unreachable
from agent.kube.retry import Backoff, RetryPolicy
from agent.kube.transport import HttpSession, Stream, Tls

T = TypeVar("T")

JSON = "application/json"
_REFUSAL_LIMIT = 1 << 20


class Log:
    """Drops what is logged; a logger of structlog fits in its place."""

    def debug(self, event: str, **fields: object) -> None:
        """Details."""

    def warning(self, event: str, **fields: object) -> None:
        """What an operator should see."""


@dataclass(frozen=True, slots=True)
class RequestMetric:
    """One request that was sent, for metrics: few values each, whatever the cluster is like.

    outcome: the status as text, or the name of the error's class. seconds: until the answer was read; of a watch,
    until it began.
    """

    method: str
    verb: str
    resource: str
    outcome: str
    seconds: float


@dataclass(frozen=True, slots=True)
class Request:
    """What is sent.

    repeatable: idempotent. retries_429: a 429 is retried here. background: it belongs to a watch and ends with it.
    accept: the form of the answer.
    """

    operation: Operation
    query: tuple[tuple[str, str], ...] = ()
    body: bytes | None = field(default=None, repr=False)
    content_type: str = JSON
    repeatable: bool = True
    retries_429: bool = True
    background: bool = False
    accept: str = JSON

    @property
    def is_write(self) -> bool:
        return self.operation.method != "GET"


@dataclass(frozen=True, slots=True)
class ClientContext:
    """What is passed in so that a test, or a simulation, can control it.

    clock: monotonic seconds. wait: sleeps so many seconds, returns True immediately when the agent is stopping.
    """

    stop: threading.Event = field(default_factory=threading.Event)
    clock: Callable[[], float] = time.monotonic
    wait: Callable[[float], bool] | None = None
    chance: random.Random = field(default_factory=random.Random)
    log: Log = field(default_factory=Log)
    on_request: Callable[[RequestMetric], None] | None = None

    def pause(self, seconds: float) -> bool:
        """Waits; True when the agent is stopping."""
        return (self.wait or self.stop.wait)(seconds)


class Caller:
    """Sends requests over two sessions: one for answers, one for watches, so that the latter can be ended alone.

    streams_lists: the API server is not known to refuse watches that begin with everything that there is.
    """

    def __init__(self, access: Access, user_agent: str, around: ClientContext) -> None:
        self.around = around
        self.streams_lists = True
        self._access = access
        tls = Tls(access)
        self._calls = HttpSession(access, tls, user_agent)
        self._streams = HttpSession(access, tls, user_agent)

    def call(self, request: Request, retry: RetryPolicy) -> Any:
        """The answer's JSON document. Raises CallFailed and NoCredentials."""
        return self._with_retries(request, retry, lambda left: self._answer(request, retry, left))

    def open(self, request: Request, retry: RetryPolicy, silence_seconds: float) -> Stream:
        """A running answer, to be read and closed by the caller. silence_seconds: the longest, once it has begun.

        Raises CallFailed and NoCredentials.
        """
        return self._with_retries(request, retry, lambda _: self._stream(request, retry, silence_seconds))

    @property
    def server(self) -> str:
        return self._access.server

    def cut_streams(self) -> None:
        """Ends all running answers, now and from now on."""
        self._streams.lifeline.cut()

    def close(self) -> None:
        self._streams.close()
        self._calls.close()

    def _with_retries(self, request: Request, retry: RetryPolicy, attempt: Callable[[float], T]) -> T:
        """Attempts until one succeeds, or trying again is unsafe, useless or too late."""
        around, started = self.around, self.around.clock()
        backoff = Backoff(retry.first_delay_seconds, retry.longest_delay_seconds, around.chance)
        renewed = False
        tries = 0
        while True:
            tries += 1
            try:
                return attempt(max(retry.seconds - (around.clock() - started), 0.1))
            except Unauthorized as error:
                error.attempts = tries
                if renewed or not self._access.credentials.renew():
                    raise
                renewed = True
                around.log.debug("kube_credentials_renewed", operation=str(request.operation))
            except CallFailed as error:
                error.attempts = tries
                if tries >= retry.attempts or not _is_worth_repeating(error, request):
                    raise
                delay = backoff.next(error.retry_after_seconds)
                if around.clock() - started + delay >= retry.seconds:
                    raise
                around.log.debug("kube_call_repeated", error=str(error), delay_seconds=round(delay, 2))
                if around.pause(delay):
                    raise

    def _answer(self, request: Request, retry: RetryPolicy, left: float) -> Any:
        """One attempt at a whole answer."""
        with self._observed(request.operation) as note, deadline(left):
            line = self._streams if request.background else self._calls
            timeout = (min(retry.connect_seconds, left), min(retry.read_seconds, left))
            response = self._send(line, request, timeout)
            try:
                note(str(response.status_code))
                return _document(request, response.status_code, self._body(request, response, BODY_BYTES))
            finally:
                response.close()

    def _stream(self, request: Request, retry: RetryPolicy, silence_seconds: float) -> Stream:
        """One attempt at the beginning of an answer."""
        with self._observed(request.operation) as note:
            with deadline(retry.connect_seconds + retry.read_seconds):
                response = self._send(self._streams, request, (retry.connect_seconds, retry.read_seconds))
            note(str(response.status_code))
            return Stream(response.raw, silence_seconds)

    def _send(self, line: HttpSession, request: Request, timeout: tuple[float, float]) -> requests.Response:
        """One request; an answer that is no success is read and raised."""
        operation = request.operation
        if line.lifeline.is_cut:
            raise Stopped(operation, "the agent is stopping")
        headers = {**self._access.credentials.headers(), "Accept": request.accept}
        if request.body is not None:
            headers["Content-Type"] = request.content_type
        target = f"{operation.path}?{urlencode(request.query)}" if request.query else operation.path
        try:
            response = line.send(operation.method, target, headers=headers, body=request.body, timeout=timeout)
        except NETWORK as error:
            raise self._unreachable(request, error) from error
        if response.status_code < 300:
            return response
        try:
            body = self._body(request, response, _REFUSAL_LIMIT)
            if response.status_code < 400:
                raise Malformed(operation, f"a redirect ({response.status_code}), which is not followed")
            raise refusal(operation, response.status_code, response.headers, body, write=request.is_write)
        finally:
            response.close()

    def _body(self, request: Request, response: requests.Response, limit: int) -> Body:
        """The whole body, of at most `limit` bytes."""
        try:
            return read_body(response.raw, limit)
        except TooLarge as error:
            raise ResponseTooLarge(request.operation, str(error), ambiguous=request.is_write) from None
        except NETWORK as error:
            raise self._unreachable(request, error) from error

    def _unreachable(self, request: Request, error: Exception) -> Unreachable:
        return unreachable(request.operation, self._access.server, error, write=request.is_write)

    @contextlib.contextmanager
    def _observed(self, operation: Operation) -> Iterator[Callable[[str], None]]:
        """Counts and times one request; the block notes the status."""
        started, outcome = self.around.clock(), ""

        def note(status: str) -> None:
            nonlocal outcome
            outcome = status

        try:
            yield note
        except Refused as error:
            outcome = str(error.status)
            raise
        except KubeError as error:
            outcome = type(error).__name__
            raise
        finally:
            if self.around.on_request is not None and outcome != Stopped.__name__:
                seconds = self.around.clock() - started
                self.around.on_request(
                    RequestMetric(operation.method, operation.verb, operation.resource, outcome, seconds)
                )


def _is_worth_repeating(error: CallFailed, request: Request) -> bool:
    if isinstance(error, TooManyRequests):
        return request.retries_429
    if isinstance(error, ServerError):
        return request.repeatable and error.status in (500, 502, 503, 504)
    if isinstance(error, Unreachable):
        return error.repeatable and (request.repeatable or not error.ambiguous)
    return False


def _document(request: Request, status: int, body: bytearray) -> Any:
    try:
        return parse_json(body)
    except TooLarge as error:
        raise ResponseTooLarge(request.operation, str(error), ambiguous=request.is_write) from None
    except ValueError:
        # Not chained: a JSON error carries the whole body.
        message = f"the answer ({status}, {len(body)} bytes) is not JSON"
    raise Malformed(request.operation, message, ambiguous=request.is_write)
