"""Which requests are sent again, after which failures, how often and how soon."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from agent.kube import LEASES, NODES, PODS, Kube, Outcome
from agent.kube.errors import (
    CallFailed,
    Conflict,
    Forbidden,
    Invalid,
    Malformed,
    NotFound,
    Refused,
    ServerError,
    TooManyRequests,
    Unreachable,
)
from tests.support.kube import Seams, kube_client
from tests.support.offline import DROPPED, URL, offline, response

LEASE = {"metadata": {"name": "lock", "namespace": "node-hardening", "resourceVersion": "7"}}
OK = response(200)
Call = Callable[[Kube], object]


def read(kube: Kube) -> object:
    return kube.get(NODES, "worker-1")


def create(kube: Kube) -> object:
    return kube.create(LEASES, LEASE)


def merge(kube: Kube) -> object:
    return kube.patch(NODES, "worker-1", {"metadata": {"labels": {"a": "b"}}})


def merge_at_a_version(kube: Kube) -> object:
    return kube.patch(NODES, "worker-1", {"metadata": {"resourceVersion": "7"}})


def delete(kube: Kube) -> object:
    return kube.delete(PODS, "web-0", "shop")


def refused(status: int, *headers: str) -> bytes:
    return response(status, b'{"kind": "Status", "message": "no"}', *headers)


@pytest.mark.parametrize("status", [500, 502, 503, 504])
@pytest.mark.parametrize("call", [read, merge, delete])
def test_what_may_be_done_twice_is_sent_again_after_a_server_error(
    monkeypatch: pytest.MonkeyPatch, call: Call, status: int
) -> None:
    """The server may have done it: the second time changes nothing."""
    with offline(monkeypatch, refused(status), OK) as server:
        call(kube_client(URL, "", seams=Seams()))
    assert len(server.requests) == 2


@pytest.mark.parametrize("call", [create, merge_at_a_version])
@pytest.mark.parametrize(("failure", "error"), [(refused(500), ServerError), (DROPPED, Unreachable)])
def test_what_may_have_happened_and_must_not_happen_twice_is_not_sent_again(
    monkeypatch: pytest.MonkeyPatch, call: Call, failure: bytes, error: type[CallFailed]
) -> None:
    """The caller has to read first what became of it; the error says that it is ambiguous."""
    with offline(monkeypatch, failure, OK) as server, pytest.raises(error) as caught:
        call(kube_client(URL, "", seams=Seams()))
    assert (len(server.requests), caught.value.ambiguous) == (1, True)


def test_a_read_is_sent_again_after_a_dropped_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is never ambiguous."""
    with offline(monkeypatch, DROPPED, OK) as server:
        read(kube_client(URL, "", seams=Seams()))
    assert len(server.requests) == 2


@pytest.mark.parametrize("call", [read, create, merge])
def test_too_many_requests_is_tried_again_as_late_as_the_server_asks(
    monkeypatch: pytest.MonkeyPatch, call: Call
) -> None:
    """A 429 was not processed, so every kind of request may be sent again; up to a quarter is added."""
    seams = Seams()
    with offline(monkeypatch, refused(429, "Retry-After: 3"), OK) as server:
        call(kube_client(URL, "", seams=seams))
    assert len(server.requests) == 2
    assert 3.0 <= seams.time.waits[0] <= 3.75


def test_a_refused_eviction_is_the_callers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A 429 is an outcome there, and the drain decides when to try again."""
    with offline(monkeypatch, refused(429, "Retry-After: 10"), OK) as server:
        found = kube_client(URL, "", seams=Seams()).evict("web-0", "shop", uid="1")
    assert (len(server.requests), found.outcome) == (1, Outcome.THROTTLED)


@pytest.mark.parametrize(
    ("status", "error"), [(403, Forbidden), (404, NotFound), (409, Conflict), (422, Invalid), (501, ServerError)]
)
def test_what_the_server_refuses_for_good_is_sent_once(
    monkeypatch: pytest.MonkeyPatch, status: int, error: type[CallFailed]
) -> None:
    """Another attempt would be refused as well."""
    seams = Seams()
    with offline(monkeypatch, refused(status), OK) as server, pytest.raises(error):
        read(kube_client(URL, "", seams=seams))
    assert (len(server.requests), seams.time.waits) == (1, [])


def test_attempts_and_time_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last error is raised with the number of attempts; no wait begins that would end past the time."""
    with offline(monkeypatch, refused(503)) as server, pytest.raises(ServerError) as caught:
        read(kube_client(URL, "", seams=Seams(), seconds=1000.0, attempts=3))
    assert (len(server.requests), caught.value.attempts) == (3, 3)
    seams = Seams()
    with offline(monkeypatch, refused(429, "Retry-After: 60")) as server, pytest.raises(TooManyRequests):
        read(kube_client(URL, "", seams=seams, seconds=30.0))
    assert (len(server.requests), seams.time.waits) == (1, [])


def test_a_stop_ends_the_attempts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The wait between two attempts ends when the agent stops, and nothing is sent any more."""
    seams = Seams()
    seams.time.wait = lambda _seconds: True  # type: ignore[method-assign, assignment]
    with offline(monkeypatch, refused(503)) as server, pytest.raises(CallFailed):
        read(kube_client(URL, "", seams=seams))
    assert len(server.requests) == 1


@pytest.mark.parametrize("status", [301, 302, 307])
def test_a_redirect_is_an_error(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """No API server redirects; the token must not follow one."""
    away = response(status, b"", "Location: http://127.0.0.1:2/")
    with offline(monkeypatch, away, OK) as server, pytest.raises(Malformed, match="redirect"):
        read(kube_client(URL, "", seams=Seams()))
    assert len(server.requests) == 1


def test_a_bad_request_is_a_refusal(monkeypatch: pytest.MonkeyPatch) -> None:
    """400 is the first status that is no redirect."""
    with offline(monkeypatch, refused(400)), pytest.raises(Refused, match="no"):
        read(kube_client(URL, "", seams=Seams()))


@pytest.mark.parametrize("body", [b"not JSON", b"[1]", b""])
def test_what_is_no_object_is_malformed(monkeypatch: pytest.MonkeyPatch, body: bytes) -> None:
    """Something else answers at that address, a proxy's page perhaps."""
    with offline(monkeypatch, response(200, body)), pytest.raises(Malformed):
        read(kube_client(URL, "", seams=Seams()))


def test_a_refusal_without_an_end_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its text is bounded: a refusal of megabytes is no refusal of an API server."""
    with offline(monkeypatch, response(403, b"x" * (5 << 20))), pytest.raises(Malformed, match="more than"):
        read(kube_client(URL, "", seams=Seams()))


def test_every_attempt_is_counted_with_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    """For metrics: the status of a refusal, the name of another failure, nothing on success."""
    seams = Seams()
    with offline(monkeypatch, refused(503), DROPPED, OK):
        read(kube_client(URL, "", seams=seams))
    assert [(sent.verb, sent.outcome) for sent in seams.sent] == [
        ("get", "503"), ("get", "Unreachable"), ("get", "200"),
    ]  # fmt: skip
