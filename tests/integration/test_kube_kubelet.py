"""The kubelet's own configuration, asked over real TLS: who gets the token, and how often anybody is asked."""

from __future__ import annotations

import json
import ssl
from collections.abc import Iterator
from contextlib import AbstractContextManager
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import structlog
import trustme
from structlog.testing import LogCapture

from agent.config import schema
from agent.controls.kubelet import KubeletControl
from agent.kube.credentials import Access, FileText, Fixed, StoredCredentials, Trust
from agent.kube.errors import CallFailed, Forbidden, Malformed, NoCredentials, Unreachable
from agent.kube.kubelet import KubeletConfigz
from agent.model import Status
from tests.support.kube import Scripted, Time, answer, scripted
from tests.support.kubelets import StagedHost, process

NODE, TOKEN = "worker-1", "the-agents-token"
ANSWER = {"kubeletconfig": {"podPidsLimit": 4096, "authentication": {"anonymous": {"enabled": False}}}}


class Kubelet:
    """What a test's kubelet answers: a status and a body."""

    status = 200
    body: Any = ANSWER

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        answer(request, json.dumps(self.body).encode(), self.status)


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def kubelet() -> Kubelet:
    return Kubelet()


@pytest.fixture
def log() -> LogCapture:
    return LogCapture()


def serving(
    kubelet: Kubelet, issuer: trustme.CA, *names: str, until: datetime | None = None
) -> AbstractContextManager[Scripted]:
    """A kubelet with a serving certificate for these names and addresses."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    issuer.issue_cert(*names, not_after=until).configure_cert(context)
    return scripted(kubelet, tls=context)


@pytest.fixture
def server(kubelet: Kubelet, authority: trustme.CA) -> Iterator[Scripted]:
    with serving(kubelet, authority, "127.0.0.1", NODE) as running:
        yield running


def port_of(server: Scripted) -> int:
    return int(server.url.rpartition(":")[2])


def configz(authority: trustme.CA | None, log: LogCapture, time: Time | None = None, **trust: Any) -> KubeletConfigz:
    """As the daemon makes it, on a pod's service account."""
    held = Trust(Fixed(authority.cert_pem.bytes()) if authority else None, **trust)
    access = Access("https://10.96.0.1:443", held, StoredCredentials(Fixed(TOKEN.encode())))
    logger = structlog.wrap_logger(structlog.PrintLogger(), processors=[log])
    return KubeletConfigz(access, NODE, "127.0.0.1", clock=(time or Time()).clock, log=logger)


def test_the_answer_of_a_kubelet_with_a_certificate_of_the_cluster(
    server: Scripted, authority: trustme.CA, log: LogCapture
) -> None:
    """GET /configz with the service account's token; the document as it came."""
    assert configz(authority, log)(port_of(server), "run 1") == ANSWER
    ((method, path, headers),) = server.seen
    assert (method, path, headers["authorization"]) == ("GET", "/configz", f"Bearer {TOKEN}")
    assert log.entries == []


def test_a_certificate_for_the_nodes_name_alone_will_do(
    kubelet: Kubelet, authority: trustme.CA, log: LogCapture
) -> None:
    """Some clouds sign names and no addresses."""
    with serving(kubelet, authority, NODE) as server:
        assert configz(authority, log)(port_of(server), "run 1") == ANSWER


@pytest.mark.parametrize("which", ["self-signed", "another node's", "expired"])
def test_the_token_goes_to_nobody_who_is_not_this_nodes_kubelet(
    which: str, kubelet: Kubelet, authority: trustme.CA, log: LogCapture
) -> None:
    """A self-signed certificate (kubeadm's default), another node's, an expired one: no request, said once, and why."""
    issuer = trustme.CA() if which == "self-signed" else authority
    until = datetime(2020, 1, 1, tzinfo=UTC) if which == "expired" else None
    names = ("10.9.9.9", "worker-2") if which == "another node's" else ("127.0.0.1", NODE)
    time = Time()
    ask = configz(authority, log, time)
    with serving(kubelet, issuer, *names, until=until) as server:
        for _ in range(5):
            with pytest.raises(Unreachable, match="is not trusted"):
                ask(port_of(server), "run 1")
            time.now += 4000
        assert server.seen == []
    assert [line["event"] for line in log.entries] == ["configz_unavailable"]
    assert "is not trusted" in log.entries[0]["error"]


@pytest.mark.parametrize("trust", [{"insecure": True}, {}], ids=["insecure", "no authority"])
def test_without_an_authority_nobody_is_asked(
    trust: dict[str, Any], server: Scripted, authority: trustme.CA, log: LogCapture
) -> None:
    """Verification that was turned off for the API server is not off for whoever listens on a node's port."""
    ask = configz(authority if trust else None, log, **trust)
    with pytest.raises(NoCredentials, match="no authority"):
        ask(port_of(server), "run 1")
    assert server.seen == []


def test_one_question_for_each_run_of_the_kubelet(server: Scripted, authority: trustme.CA, log: LogCapture) -> None:
    """A hundred idle passes ask nothing: each question would be a TokenReview. A restarted kubelet is asked again."""
    time = Time()
    ask = configz(authority, log, time)
    for _ in range(100):
        assert ask(port_of(server), "run 1") == ANSWER
        time.now += 300
    assert len(server.seen) == 1
    ask(port_of(server), "run 2")
    assert len(server.seen) == 2


def test_a_refusal_is_asked_about_ever_more_rarely(
    server: Scripted, kubelet: Kubelet, authority: trustme.CA, log: LogCapture
) -> None:
    """Without the right nodes/configz a day of passes costs some thirty questions, one log line, and every pass says
    so; with it the next question is answered."""
    kubelet.status, kubelet.body = 403, {"kind": "Status", "message": "nodes/configz is forbidden", "code": 403}
    time = Time()
    ask = configz(authority, log, time)
    for _ in range(288):
        with pytest.raises(Forbidden, match="nodes/configz is forbidden"):
            ask(port_of(server), "run 1")
        time.now += 300
    assert 20 <= len(server.seen) <= 35
    assert len(log.entries) == 1
    kubelet.status, kubelet.body = 200, ANSWER
    time.now += 3600
    assert ask(port_of(server), "run 1") == ANSWER


@pytest.mark.parametrize("body", [[], {}, {"kubeletconfig": []}, {"kind": "Status"}, "x"])
def test_an_answer_that_is_none(
    body: Any, server: Scripted, kubelet: Kubelet, authority: trustme.CA, log: LogCapture
) -> None:
    """What has no kubeletconfig is an error and not an empty configuration."""
    kubelet.body = body
    with pytest.raises(Malformed):
        configz(authority, log)(port_of(server), "run 1")


def test_nobody_listens(server: Scripted, authority: trustme.CA, log: LogCapture) -> None:
    """A kubelet that is just starting."""
    port = port_of(server)
    with pytest.raises(CallFailed, match="configz"):
        # A port that was free a moment ago, on an address where this server does not listen.
        KubeletConfigz(
            Access("https://x", Trust(Fixed(authority.cert_pem.bytes())), StoredCredentials()), NODE, "127.0.0.2",
            clock=Time().clock, log=structlog.wrap_logger(structlog.PrintLogger(), processors=[log]),
        )(port, "run 1")  # fmt: skip


def test_a_rotated_token_is_used(server: Scripted, authority: trustme.CA, log: LogCapture, tmp_path: Path) -> None:
    """The file is read for each question, as for the API server."""
    path = tmp_path / "token"
    path.write_text("first")
    access = Access("https://x", Trust(Fixed(authority.cert_pem.bytes())), StoredCredentials(FileText(path)))
    logger = structlog.wrap_logger(structlog.PrintLogger(), processors=[log])
    ask = KubeletConfigz(access, NODE, "127.0.0.1", clock=Time().clock, log=logger)
    ask(port_of(server), "run 1")
    path.write_text("the-second")
    ask(port_of(server), "run 2")
    assert [headers["authorization"] for _, _, headers in server.seen] == ["Bearer first", "Bearer the-second"]


def test_the_control_takes_the_kubelets_own_word(
    server: Scripted, authority: trustme.CA, log: LogCapture, tmp_path: Path
) -> None:
    """Joined as in the daemon: the port is the one that the kubelet was told, the value comes from /configz, and a
    kubelet that was started again is asked again."""
    argv = [f"--port={port_of(server)}"]
    first, second = process("kubelet", *argv, pid=41), process("kubelet", *argv, pid=42)
    host = StagedHost(tmp_path, [first], [first], [first], [first], [second], [second])
    control = KubeletControl(schema.Kubelet(probe=False), host, configz=configz(authority, log))
    for _ in range(3):
        found = {one.id: one for one in control.judge(control.observe())}
        pids = found["kubelet/4.2.13"]
        assert (pids.status, pids.source, "4096" in pids.observed) == (Status.PASS, "configz", True)
    assert len(server.seen) == 2
