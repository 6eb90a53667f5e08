"""What the client does when the API server throttles, fails, cuts connections, loses answers or is away.

Time passes only where the client waits, so that no test is slow and every delay can be read.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest

from agent.kube import CONFIGMAPS, LEASES, NODES, PODS, ClientContext, Kube, Object, Outcome
from agent.kube.credentials import Access, FileText, StoredCredentials
from agent.kube.errors import (
    Conflict,
    Malformed,
    NotFound,
    ResponseTooLarge,
    ServerError,
    TooManyRequests,
    Unauthorized,
    Unreachable,
)
from agent.kube.questions import Questions
from agent.sandbox import builders
from agent.sandbox.authn import User
from agent.sandbox.faults import Fault, FaultKind
from agent.sandbox.server import Sandbox
from tests.support.access import direct
from tests.support.kube import Seams, answer, kube_client, scripted

pytestmark = pytest.mark.emulator_only

Write = Callable[[Kube], object]
FINALS = ("200", "201")


@pytest.fixture
def seams() -> Seams:
    return Seams()


@pytest.fixture
def kube(sandbox: Sandbox, seams: Seams) -> Kube:
    sandbox.add_node("worker-1")
    return kube_client(sandbox.url, sandbox.token, seams=seams)


def configmap(name: str) -> Object:
    return {"metadata": {"name": name}, "data": {"a": "1"}}


def label(kube: Kube, value: str) -> Object:
    return kube.patch(NODES, "worker-1", {"metadata": {"labels": {"try": value}}})


def outcomes(seams: Seams) -> list[str]:
    return [exchange.outcome for exchange in seams.sent]


def create(kube: Kube) -> Object:
    return kube.create(CONFIGMAPS, configmap("new"), "default")


def patch_versioned(kube: Kube) -> Object:
    version = kube.get(NODES, "worker-1")["metadata"]["resourceVersion"]
    return kube.patch(NODES, "worker-1", {"metadata": {"resourceVersion": version, "labels": {"a": "b"}}})


UNSAFE = [create, patch_versioned]
WRITES = frozenset({"create", "patch", "delete"})


def test_throttling_is_waited_out_as_long_as_was_asked(sandbox: Sandbox, kube: Kube, seams: Seams) -> None:
    """429 with Retry-After: never earlier, and a write too, because nothing was processed."""
    sandbox.add_fault(Fault(FaultKind.STATUS, code=429, retry_after=3, count=2))
    create(kube)
    assert outcomes(seams) == ["429", "429", "201"]
    assert all(3 <= wait <= 3.75 for wait in seams.time.waits)


def test_throttling_without_a_status_object_is_the_same(sandbox: Sandbox, kube: Kube, seams: Seams) -> None:
    """The in-flight limit answers with plain text."""
    sandbox.add_fault(Fault(FaultKind.STATUS, code=429, retry_after=1, count=1, plain=True))
    kube.get(NODES, "worker-1")
    assert outcomes(seams) == ["429", "200"]


def test_a_retry_after_beyond_the_deadline_ends_at_once(sandbox: Sandbox, kube: Kube, seams: Seams) -> None:
    """Waiting in vain helps nobody; the caller hears how long it would take."""
    sandbox.add_fault(Fault(FaultKind.STATUS, code=429, retry_after=60))
    with pytest.raises(TooManyRequests) as caught:
        kube.get(NODES, "worker-1")
    assert caught.value.retry_after_seconds == 60
    assert (outcomes(seams), seams.time.waits) == (["429"], [])


@pytest.mark.parametrize("code", [500, 502, 503, 504])
def test_a_failing_server_is_asked_again(sandbox: Sandbox, kube: Kube, seams: Seams, code: int) -> None:
    """Reads, and writes that may be done twice."""
    sandbox.add_fault(Fault(FaultKind.STATUS, code=code, count=2))
    label(kube, "a")
    assert outcomes(seams) == [str(code), str(code), "200"]
    assert seams.time.waits[0] < seams.time.waits[1] * 2


def test_a_5xx_that_says_never_is_not_asked_again(sandbox: Sandbox, kube: Kube, seams: Seams) -> None:
    """501 is an answer, not a failure."""
    sandbox.add_fault(Fault(FaultKind.STATUS, code=501))
    with pytest.raises(ServerError):
        kube.get(NODES, "worker-1")
    assert outcomes(seams) == ["501"]


def test_there_is_one_deadline_for_the_whole_call(sandbox: Sandbox, kube: Kube, seams: Seams) -> None:
    """Delays grow to a limit, and their sum stays under it; the error tells how often it was tried."""
    sandbox.add_fault(Fault(FaultKind.STATUS, code=503))
    with pytest.raises(ServerError, match=r"\(\d+ attempts\)$") as caught:
        kube.get(NODES, "worker-1")
    assert caught.value.attempts == len(seams.sent) == len(seams.time.waits) + 1
    assert 20 < sum(seams.time.waits) < 30
    assert max(seams.time.waits) <= 8


def test_another_deadline_by_the_call(sandbox: Sandbox, kube: Kube, seams: Seams) -> None:
    """within() leaves the client as it is and changes one call's patience."""
    sandbox.add_fault(Fault(FaultKind.STATUS, code=503))
    with pytest.raises(ServerError):
        kube.within(2).get(NODES, "worker-1")
    assert sum(seams.time.waits) < 2


@pytest.mark.parametrize("write", UNSAFE)
def test_an_unsafe_write_that_met_a_5xx_is_not_repeated(
    sandbox: Sandbox, kube: Kube, seams: Seams, write: Write
) -> None:
    """etcd may have stored it before it timed out: the caller re-reads."""
    sandbox.add_fault(Fault(FaultKind.STATUS, code=504, verbs=WRITES))
    with pytest.raises(ServerError) as caught:
        write(kube)
    assert caught.value.ambiguous is True
    assert outcomes(seams).count("504") == 1


@pytest.mark.parametrize("kind", [FaultKind.DROP, FaultKind.LOSE_ANSWER, FaultKind.TRUNCATE])
@pytest.mark.parametrize("write", UNSAFE)
def test_an_unsafe_write_whose_answer_was_lost_is_ambiguous(
    sandbox: Sandbox, kube: Kube, seams: Seams, write: Write, kind: FaultKind
) -> None:
    """Dropped before, after, or in the middle of the answer: from here they look the same. Sent once."""
    sandbox.add_fault(Fault(kind, verbs=WRITES))
    with pytest.raises(Unreachable, match="it may have been done") as caught:
        write(kube)
    assert caught.value.ambiguous is True
    assert outcomes(seams).count("Unreachable") == 1


def test_re_reading_tells_what_became_of_an_ambiguous_write(sandbox: Sandbox, kube: Kube) -> None:
    """The way out: after a lost answer the object is there, after a dropped request it is not."""
    sandbox.add_fault(Fault(FaultKind.LOSE_ANSWER, verbs=frozenset({"create"}), count=1))
    with pytest.raises(Unreachable):
        kube.create(LEASES, {"metadata": {"name": "done"}}, "kube-system")
    sandbox.add_fault(Fault(FaultKind.DROP, verbs=frozenset({"create"}), count=1))
    with pytest.raises(Unreachable):
        kube.create(LEASES, {"metadata": {"name": "not-done"}}, "kube-system")
    assert kube.get(LEASES, "done", "kube-system")["metadata"]["name"] == "done"
    with pytest.raises(NotFound):
        kube.get(LEASES, "not-done", "kube-system")


@pytest.mark.parametrize("kind", [FaultKind.DROP, FaultKind.LOSE_ANSWER, FaultKind.TRUNCATE])
def test_what_may_be_done_twice_is_sent_again(sandbox: Sandbox, kube: Kube, seams: Seams, kind: FaultKind) -> None:
    """Reads and plain patches go on until they are answered."""
    sandbox.add_fault(Fault(kind, count=2))
    kube.get(NODES, "worker-1")
    assert outcomes(seams) == ["Unreachable", "Unreachable", "200"]
    sandbox.add_fault(Fault(kind, count=1))
    assert label(kube, "twice")["metadata"]["labels"]["try"] == "twice"
    status = {"conditions": [{"type": "NodeHardened", "status": "True"}]}
    sandbox.add_fault(Fault(kind, count=1))
    kube.patch(NODES, "worker-1", {"status": status}, subresource="status")


def test_a_repeated_delete_finds_nothing_left(sandbox: Sandbox, kube: Kube) -> None:
    """The first was done though nobody said so: NotFound, with the attempts, and never the successor's death."""
    first = create(kube)["metadata"]
    sandbox.add_fault(Fault(FaultKind.LOSE_ANSWER, verbs=frozenset({"delete"}), count=1))
    with pytest.raises(NotFound, match="2 attempts"):
        kube.delete(CONFIGMAPS, "new", "default", uid=first["uid"])
    sandbox.add_fault(Fault(FaultKind.LOSE_ANSWER, verbs=frozenset({"delete"}), count=1))
    second = create(kube)["metadata"]
    seen = kube_client(sandbox.url, sandbox.token, seams=Seams())

    def successor() -> None:
        seen.create(CONFIGMAPS, configmap("new"), "default")

    around = Seams()
    around.time.on_wait = successor
    with pytest.raises(Conflict):
        kube_client(sandbox.url, sandbox.token, seams=around).delete(CONFIGMAPS, "new", "default", uid=second["uid"])
    assert kube.get(CONFIGMAPS, "new", "default")["metadata"]["uid"] != second["uid"]


def test_an_eviction_is_sent_once(sandbox: Sandbox, kube: Kube, seams: Seams) -> None:
    """Throttled is an outcome; a lost answer is ambiguous. Neither spends a budget twice behind the caller's back."""
    uid = sandbox.add_pod("web", node="worker-1")["metadata"]["uid"]
    sandbox.add_fault(Fault(FaultKind.STATUS, code=429, retry_after=2, path="/eviction$", count=1))
    throttled = kube.evict("web", "default", uid=uid)
    assert (throttled.outcome, throttled.retry_after_seconds) == (Outcome.THROTTLED, 2.0)
    sandbox.add_fault(Fault(FaultKind.LOSE_ANSWER, path="/eviction$", count=1))
    with pytest.raises(Unreachable) as caught:
        kube.evict("web", "default", uid=uid)
    assert caught.value.ambiguous is True
    assert outcomes(seams) == ["429", "Unreachable"]
    assert kube.evict("web", "default", uid=uid).outcome in (Outcome.EVICTED, Outcome.GONE)


def test_a_server_that_is_away_is_found_again(sandbox: Sandbox, kube: Kube, seams: Seams) -> None:
    """Refused connections: nothing can have arrived, so that even a create goes on when it is back."""
    sandbox.away()
    seams.time.on_wait = lambda: sandbox.back() if len(seams.time.waits) == 3 else None
    create(kube)
    assert outcomes(seams) == ["Unreachable"] * 3 + ["201"]


def test_a_server_that_stays_away_is_named(sandbox: Sandbox, kube: Kube) -> None:
    """The message says which server, and why, in words that on-call can use."""
    sandbox.away()
    with pytest.raises(Unreachable) as caught:
        create(kube)
    assert f"create configmaps/new in default: {sandbox.url}: connection refused" in str(caught.value)
    assert caught.value.ambiguous is False
    sandbox.back()


def test_a_silent_server_is_given_up_on(sandbox: Sandbox, seams: Seams) -> None:
    """A read timeout on every call; a silent create is ambiguous."""
    kube = kube_client(sandbox.url, sandbox.token, seams=seams, seconds=30, read_seconds=0.2)
    sandbox.add_fault(Fault(FaultKind.LATENCY, seconds=5, count=2))
    with pytest.raises(Unreachable, match="no answer in time") as caught:
        create(kube)
    assert caught.value.ambiguous is True
    kube.get_raw("/version")
    assert outcomes(seams) == ["Unreachable", "Unreachable", "200"]


def test_a_version_that_is_no_object_is_an_error_of_the_api() -> None:
    """A proxy may answer anything; whoever asks for a document gets an object or a KubeError."""
    with scripted(lambda request: answer(request, b"[]" if request.path == "/version" else b"{}")) as server:
        access = direct(server.url)
        questions = Questions(Kube(access, node="worker-1"), access, "worker-1", clock=time.monotonic)
        with pytest.raises(Malformed, match="not an object"):
            questions.versions()


def test_lines_that_never_end_are_given_up_on() -> None:
    """Neither a byte now and then nor a line after the other holds the caller for longer than it gave."""
    for dribble in (b"a", b"a 1\n"):

        def script(request: BaseHTTPRequestHandler, dribble: bytes = dribble) -> None:
            request.send_response(200)
            request.end_headers()
            while True:
                request.wfile.write(dribble)
                time.sleep(0.01)

        with scripted(script) as server:
            lines = Kube(direct(server.url), node="worker-1").get_lines("/metrics", seconds=0.5)
            with pytest.raises(Unreachable, match="no answer in time"):
                list(lines)


def test_stopping_ends_a_wait_and_does_not_try_again(sandbox: Sandbox) -> None:
    """Nobody sits out a Retry-After of twenty seconds when the agent has to end within five."""
    stop = threading.Event()
    around = ClientContext(stop=stop, on_request=lambda _: stop.set())
    kube = Kube(direct(sandbox.url, token=sandbox.token), node="worker-1", around=around)
    sandbox.add_fault(Fault(FaultKind.STATUS, code=503, retry_after=20))
    with pytest.raises(ServerError) as caught:
        kube.get(NODES, "worker-1")
    assert caught.value.attempts == 1


def test_a_rotated_token_is_picked_up_on_a_401(sandbox: Sandbox, tmp_path: Path, seams: Seams) -> None:
    """The token ends while its file is replaced: one 401, one reading, one more request."""
    user = User("system:serviceaccount:a:b", ("system:masters",))
    sandbox.add_token("old-token", user)
    file = tmp_path / "token"
    file.write_text("old-token")
    access = Access(sandbox.url, credentials=StoredCredentials(FileText(file)))
    kube = Kube(access, node="worker-1", around=seams.around())
    kube.get_raw("/version")

    def rotate() -> None:
        sandbox.revoke_token("old-token")
        sandbox.add_token("new-token", user)

    rotate()
    # The same inode, size and time: only a 401 can tell.
    held = file.stat()
    file.write_text("new-token")
    os.utime(file, ns=(held.st_atime_ns, held.st_mtime_ns))
    kube.get_raw("/version")
    assert outcomes(seams) == ["200", "401", "200"]
    sandbox.revoke_token("new-token")
    with pytest.raises(Unauthorized):
        kube.get_raw("/version")
    assert outcomes(seams)[3:] == ["401"]


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"<html>log in</html>", "is not JSON"),
        (b"[1]", "is not an object"),
        (b"", "is not JSON"),
        (b"\xff", "is not JSON"),
    ],
)
def test_an_answer_that_is_not_understood_is_said_so(seams: Seams, body: bytes, words: str) -> None:
    """A portal, a proxy: Malformed, without what it said, and without a second try."""
    with scripted(lambda request: answer(request, body)) as server:
        kube = kube_client(server.url, "token", seams=seams)
        with pytest.raises(Malformed, match=words) as caught:
            kube.get(NODES, "worker-1")
        assert "log in" not in str(caught.value)
        assert len(server.seen) == 1
        with pytest.raises(Malformed) as caught:
            create(kube)
        assert caught.value.ambiguous is True
        kube.close()


def test_a_redirect_is_not_followed(seams: Seams) -> None:
    """It would carry the token to wherever it points."""
    with scripted(lambda request: answer(request, b"{}", 302, Location="http://127.0.0.1:1/elsewhere")) as server:
        kube = kube_client(server.url, "token", seams=seams)
        with pytest.raises(Malformed, match="a redirect"):
            kube.get(NODES, "worker-1")
        assert [path for _, path, _ in server.seen] == ["/api/v1/nodes/worker-1"]
        kube.close()


def test_an_answer_without_end_is_cut_off(seams: Seams) -> None:
    """Whatever is on the other side cannot fill the node's memory."""
    with scripted(lambda request: answer(request, b" " * (17 << 20))) as server:
        kube = kube_client(server.url, "token", seams=seams)
        with pytest.raises(Malformed, match="more than 8 MiB"):
            kube.get(NODES, "worker-1")
        kube.close()


def test_an_answer_that_trickles_does_not_outlast_the_deadline() -> None:
    """Each byte is in time, the whole is not."""

    def trickle(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "100000")
        request.end_headers()
        for _ in range(500):
            request.wfile.write(b" ")
            threading.Event().wait(0.02)

    with scripted(trickle) as server:
        kube = kube_client(server.url, "token", seconds=0.3)
        with pytest.raises(Unreachable, match="no answer in time"):
            kube.get(NODES, "worker-1")
        kube.close()


def test_cookies_are_not_kept(seams: Seams) -> None:
    """A load balancer's stickiness would tie the agent to one API server."""
    with scripted(lambda request: answer(request, b"{}", Set_Cookie="a=b; Path=/")) as server:
        kube = kube_client(server.url, "token", seams=seams)
        kube.get(NODES, "a")
        kube.get(NODES, "b")
        assert "cookie" not in server.seen[1][2]
        kube.close()


def test_connections_are_kept_for_the_next_call() -> None:
    """One connection for calls one after the other; a refusal does not cost it."""
    ports = set()

    def script(request: BaseHTTPRequestHandler) -> None:
        ports.add(request.client_address[1])
        answer(request, b"{}", 404 if request.path.endswith("nobody") else 200)

    with scripted(script) as server:
        kube = kube_client(server.url, "token")
        for name in ("a", "b", "nobody", "c"):
            with contextlib.suppress(NotFound):
                kube.get(NODES, name)
        kube.close()
    assert len(server.seen) == 4
    assert len(ports) == 1


def test_five_hundred_random_faults(sandbox: Sandbox, kube: Kube, seams: Seams) -> None:
    """Whatever comes, a call ends in an answer or an error of ours, and nothing loops without waiting."""
    every = [
        Fault(FaultKind.STATUS, code=code, probability=0.1, retry_after=after)
        for code, after in ((429, 1), (429, None), (500, None), (502, None), (503, 2), (504, None))
    ]
    every += [Fault(kind, probability=0.1) for kind in (FaultKind.DROP, FaultKind.LOSE_ANSWER, FaultKind.TRUNCATE)]
    numbers = [sandbox.add_fault(fault) for fault in every]
    done = 0
    while sum(sandbox.fault_hits()[number] for number in numbers) < 500:
        try:
            label(kube, f"n{done}")
            assert kube.get(NODES, "worker-1")["metadata"]["labels"]["try"] == f"n{done}"
            done += 1
        except (Unreachable, ServerError, TooManyRequests):
            continue
    failed = [outcome for outcome in outcomes(seams) if outcome not in FINALS]
    assert len(failed) >= 500
    assert done > 100
    # Each failed attempt but the last of a call was followed by a wait.
    assert len(seams.time.waits) > 0.9 * len(failed)


def test_a_pod_list_goes_on_after_a_cut_page(sandbox: Sandbox, kube: Kube) -> None:
    """A page is a call like any other."""
    for number in range(6):
        sandbox.add_pod(f"p{number}", node="worker-1")
    sandbox.add_fault(Fault(FaultKind.TRUNCATE, verbs=frozenset({"list"}), skip=1, count=1))
    assert [pod["metadata"]["name"] for pod in kube.list(PODS, page_size=2)] == [f"p{number}" for number in range(6)]


def _add_large(sandbox: Sandbox, name: str, size: int) -> None:
    pod = builders.pod(name)
    pod["spec"]["containers"][0]["args"] = ["x" * size]
    sandbox.create("pods", pod)


def test_objects_that_are_too_large_together_are_read_in_smaller_pages(sandbox: Sandbox, kube: Kube) -> None:
    """Whoever may make some objects large hides none of the others behind them."""
    names = [f"p{number:02}" for number in range(12)]
    for name in names:
        _add_large(sandbox, name, 900 << 10)
    assert [pod["metadata"]["name"] for pod in kube.list(PODS)] == names


def test_one_object_that_is_too_large_is_an_error(sandbox: Sandbox, kube: Kube) -> None:
    """Nothing is passed over in silence."""
    for name, size in (("p0", 1), ("p1", 9 << 20), ("p2", 1)):
        _add_large(sandbox, name, size)
    with pytest.raises(ResponseTooLarge, match="more than 8 MiB"):
        list(kube.list(PODS))
