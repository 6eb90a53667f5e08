"""What the emulator does to its clients on purpose, and what it writes down of them."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import pytest
import requests

from agent.sandbox.faults import Fault, FaultKind
from agent.sandbox.server import Sandbox
from agent.sandbox.settings import KubeletSettings, Settings
from tests.support.apiservers import ApiServer, Client

pytestmark = pytest.mark.emulator_only

BROKEN = (requests.ConnectionError, requests.exceptions.ChunkedEncodingError)
NODES = "/api/v1/nodes"


@pytest.fixture
def quiet() -> Iterator[Sandbox]:
    """An emulator that does nothing by itself."""
    with Sandbox(Settings(controllers=False, kubelet=KubeletSettings(enabled=False))) as sandbox:
        sandbox.add_node("n")
        yield sandbox


@pytest.fixture
def client(quiet: Sandbox) -> Iterator[Client]:
    made = ApiServer.of(quiet).client()
    yield made
    made.close()


def annotate(client: Client, value: str) -> requests.Response:
    return client.patch(f"{NODES}/n", {"metadata": {"annotations": {"a": value}}})


def annotation(sandbox: Sandbox) -> str | None:
    node = sandbox.get("nodes", "n")
    assert node is not None
    value: str | None = node["metadata"].get("annotations", {}).get("a")
    return value


def test_the_journal_tells_who_asked_for_what(quiet: Sandbox, client: Client) -> None:
    """Verb, resource, user, agent, status and body, in the order of arrival; never the token."""
    client.session.headers["User-Agent"] = "node-hardening-agent/1"
    client.get(NODES, limit=5)
    annotate(client, "1")
    client.get("/api/v1/namespaces/default/pods/none")
    client.session.headers["Authorization"] = "Bearer wrong"
    client.get(NODES)
    records = quiet.requests
    assert [(item.verb, item.resource, item.name, item.status) for item in records] == [
        ("list", "nodes", "", 200),
        ("patch", "nodes", "n", 200),
        ("get", "pods", "none", 404),
        ("list", "nodes", "", 401),
    ]
    assert {item.user_agent for item in records} == {"node-hardening-agent/1"}
    assert [item.user for item in records] == ["sandbox-admin"] * 3 + [""]
    assert records[0].query == "limit=5"
    assert "annotations" in records[1].body
    assert all(item.duration_seconds is not None for item in records)
    assert quiet.token not in str(records)
    quiet.clear_requests()
    assert quiet.requests == []


def test_a_watch_is_one_request_and_lasts(quiet: Sandbox, client: Client) -> None:
    """Noted when it begins, with a duration when it ends."""
    events = client.watch(NODES, timeoutSeconds=30)
    next(events)
    (record,) = quiet.requests
    assert (record.verb, record.status, record.duration_seconds) == ("watch", 200, None)
    assert quiet.cut_watches() == 1
    assert list(events) == []
    (record,) = quiet.requests
    assert record.duration_seconds is not None


def test_a_status_fault_answers_without_doing_it(quiet: Sandbox, client: Client) -> None:
    """As often as it is told, then no more."""
    quiet.add_fault(Fault(FaultKind.STATUS, verbs=frozenset({"patch"}), code=503, count=2))
    assert client.get(f"{NODES}/n").status_code == 200
    first = annotate(client, "1")
    assert (first.status_code, first.json()["reason"]) == (503, "ServiceUnavailable")
    assert annotate(client, "1").status_code == 503
    assert annotation(quiet) is None
    assert annotate(client, "1").status_code == 200
    assert [item.fault for item in quiet.requests] == ["", "status", "status", ""]


def test_throttling_with_and_without_a_time(quiet: Sandbox, client: Client) -> None:
    """429 with Retry-After, without, and as the plain text of the in-flight limit."""
    quiet.add_fault(Fault(FaultKind.STATUS, code=429, retry_after=3, count=1))
    quiet.add_fault(Fault(FaultKind.STATUS, code=429, count=1))
    quiet.add_fault(Fault(FaultKind.STATUS, code=429, count=1, retry_after=1, plain=True))
    timed, bare, plain = (client.get(NODES) for _ in range(3))
    assert (timed.headers["Retry-After"], timed.json()["details"]["retryAfterSeconds"]) == ("3", 3)
    assert "Retry-After" not in bare.headers
    assert bare.json()["reason"] == "TooManyRequests"
    assert plain.headers["Retry-After"] == "1"
    assert plain.headers["Content-Type"].startswith("text/plain")


def test_a_dropped_request_was_never_there(quiet: Sandbox, client: Client) -> None:
    """The connection ends and nothing was stored."""
    quiet.add_fault(Fault(FaultKind.DROP, verbs=frozenset({"patch"}), count=1))
    with pytest.raises(BROKEN):
        annotate(client, "1")
    assert annotation(quiet) is None
    assert annotate(client, "1").status_code == 200


def test_a_lost_answer_leaves_the_write(quiet: Sandbox, client: Client) -> None:
    """The same sight for the client, and yet it has happened."""
    quiet.add_fault(Fault(FaultKind.LOSE_ANSWER, verbs=frozenset({"patch"}), count=1))
    with pytest.raises(BROKEN):
        annotate(client, "1")
    assert annotation(quiet) == "1"


def test_a_truncated_body_is_no_whole_answer(quiet: Sandbox, client: Client) -> None:
    """Half of it arrives under the length of all of it."""
    quiet.add_fault(Fault(FaultKind.TRUNCATE, count=1))
    with pytest.raises(BROKEN):
        client.get(NODES)
    assert client.get(NODES).status_code == 200


def test_latency_delays_and_combines(quiet: Sandbox, client: Client) -> None:
    """A client that waits less gives up; another fault may follow the wait."""
    number = quiet.add_fault(Fault(FaultKind.LATENCY, seconds=5))
    with pytest.raises(requests.ReadTimeout):
        client.request("GET", NODES, timeout=0.2)
    quiet.remove_fault(number)
    quiet.add_fault(Fault(FaultKind.LATENCY, seconds=0.01, count=1))
    quiet.add_fault(Fault(FaultKind.STATUS, code=500, count=1))
    assert client.get(NODES).status_code == 500
    assert quiet.requests[-1].fault == "latency,status"


def test_a_watch_can_be_cut(quiet: Sandbox, client: Client) -> None:
    """After its first events, by a fault that hits watches only."""
    quiet.add_fault(Fault(FaultKind.CUT_WATCH, seconds=0.05, count=1))
    assert client.get(NODES).status_code == 200
    with pytest.raises(BROKEN):
        list(client.watch(NODES, timeoutSeconds=30))


def test_a_watch_can_be_gone(quiet: Sandbox, client: Client) -> None:
    """410 as the status of the answer, beside the ERROR event of an old revision."""
    quiet.add_fault(Fault(FaultKind.STATUS, verbs=frozenset({"watch"}), code=410, count=1))
    answer = client.get(NODES, watch="1", resourceVersion="1", timeoutSeconds=1)
    assert (answer.status_code, answer.json()["reason"]) == (410, "Expired")
    quiet.compact()
    (event,) = client.watch(NODES, resourceVersion="1", timeoutSeconds=30)
    assert (event["type"], event["object"]["code"]) == ("ERROR", 410)


def test_faults_match_by_path_agent_and_order(quiet: Sandbox, client: Client) -> None:
    """Every condition that is set has to hold; skip lets the first ones through."""
    quiet.add_fault(Fault(FaultKind.STATUS, path="/status$", code=500))
    quiet.add_fault(Fault(FaultKind.STATUS, agent="^kured", code=502))
    quiet.add_fault(Fault(FaultKind.STATUS, verbs=frozenset({"list"}), skip=1, count=1, code=503))
    assert client.patch(f"{NODES}/n/status", {}).status_code == 500
    assert [client.get(NODES).status_code for _ in range(3)] == [200, 503, 200]
    client.session.headers["User-Agent"] = "kured/1"
    assert client.get(NODES).status_code == 502


def test_chance_is_repeatable() -> None:
    """The same requests, the same hits."""

    def run() -> list[int]:
        bare = Settings(controllers=False, kubelet=KubeletSettings(enabled=False))
        with Sandbox(bare) as sandbox:
            sandbox.add_fault(Fault(FaultKind.STATUS, code=500, probability=0.5))
            client = ApiServer.of(sandbox).client()
            codes = [client.get(NODES).status_code for _ in range(40)]
            client.close()
            return codes

    first = run()
    assert set(first) == {200, 500}
    assert run() == first


def test_away_refuses_connections_and_comes_back_on_the_same_port(quiet: Sandbox, client: Client) -> None:
    """Running connections are cut, new ones refused, state and address stay."""
    annotate(client, "1")
    url = quiet.url
    quiet.away()
    for _ in range(3):
        with pytest.raises(requests.ConnectionError):
            client.get(NODES)
    quiet.back()
    assert quiet.url == url
    assert client.get(f"{NODES}/n").json()["metadata"]["annotations"] == {"a": "1"}


def test_away_for_a_time_cuts_watches(quiet: Sandbox, client: Client) -> None:
    """It is back by itself."""
    events = client.watch(NODES, timeoutSeconds=30)
    next(events)
    quiet.away(0.3)
    with pytest.raises(BROKEN):
        list(events)
    for _ in range(100):
        try:
            if client.get(NODES).ok:
                break
        except requests.ConnectionError:
            time.sleep(0.05)
    assert client.get(NODES).status_code == 200


def test_writers_at_the_same_time_do_not_mix(quiet: Sandbox) -> None:
    """Of many PUTs with the same version exactly one wins."""
    first = quiet.get("nodes", "n")
    assert first is not None
    codes: list[int] = []

    def write(number: int) -> None:
        client = ApiServer.of(quiet).client()
        body = {**first, "metadata": {**first["metadata"], "annotations": {"writer": str(number)}}}
        codes.append(client.put(f"{NODES}/n", body).status_code)
        client.close()

    threads = [threading.Thread(target=write, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [200] + [409] * 11
