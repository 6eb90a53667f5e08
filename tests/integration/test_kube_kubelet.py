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
from tests.support.kubelets import StagedHost, plant, process

NODE, TOKEN = "worker-1", "the-agents-token"
ANSWER = {"kubeletconfig": {"podPidsLimit": 4096, "authentication": {"anonymous": {"enabled": False}}}}


class Kubelet:
    """What a test's kubelet answers: a status and a body."""

    status = 200
    body: Any = ANSWER

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        answer(request, json.dumps(self.body).encode(), self.status)


@pytest.fixture
def kubelet() -> Kubelet:
    return Kubelet()


@pytest.fixture
def log() -> LogCapture:
    return LogCapture()


def serving(kubelet: Kubelet, certificate: trustme.LeafCert) -> AbstractContextManager[Scripted]:
    """A kubelet with this serving certificate."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate.configure_cert(context)
    return scripted(kubelet, tls=context)


@pytest.fixture(scope="module")
def certificate() -> trustme.LeafCert:
    """Of an authority that nobody knows, for no name or address of the node's, as a kubelet makes its own."""
    return trustme.CA().issue_cert("elsewhere.example")


@pytest.fixture
def pem(certificate: trustme.LeafCert) -> bytes:
    """The file on the node's disk."""
    return certificate.cert_chain_pems[0].bytes()


@pytest.fixture
def server(kubelet: Kubelet, certificate: trustme.LeafCert) -> Iterator[Scripted]:
    with serving(kubelet, certificate) as running:
        yield running


def port_of(server: Scripted) -> int:
    return int(server.url.rpartition(":")[2])


def configz(log: LogCapture, time: Time | None = None) -> KubeletConfigz:
    """As the daemon makes it, on a pod's service account."""
    access = Access("https://10.96.0.1:443", Trust(), StoredCredentials(Fixed(TOKEN.encode())))
    logger = structlog.wrap_logger(structlog.PrintLogger(), processors=[log])
    return KubeletConfigz(access, NODE, "127.0.0.1", clock=(time or Time()).clock, log=logger)


def test_the_kubelet_with_the_nodes_own_certificate_is_asked(server: Scripted, pem: bytes, log: LogCapture) -> None:
    """GET /configz with the service account's token; the document as it came."""
    assert configz(log)(port_of(server), "run 1", pem) == ANSWER
    ((method, path, headers),) = server.seen
    assert (method, path, headers["authorization"]) == ("GET", "/configz", f"Bearer {TOKEN}")
    assert log.entries == []


def test_a_certificate_that_has_expired_is_still_the_nodes(kubelet: Kubelet, log: LogCapture) -> None:
    """A kubelet that signs its own does not renew it; who holds its key is this kubelet all the same."""
    old = trustme.CA().issue_cert("x.example", not_after=datetime(2020, 1, 1, tzinfo=UTC))
    with serving(kubelet, old) as server:
        assert configz(log)(port_of(server), "run 1", old.cert_chain_pems[0].bytes()) == ANSWER


@pytest.mark.parametrize("which", ["another", "same authority", "authority in the file"])
def test_the_token_goes_to_nobody_else(which: str, kubelet: Kubelet, log: LogCapture) -> None:
    """Not to who has another certificate, even of the same authority and name: no request, logged once, and why."""
    issuer = trustme.CA()
    own = issuer.issue_cert("127.0.0.1", NODE)
    other = (trustme.CA() if which == "another" else issuer).issue_cert("127.0.0.1", NODE)
    file = own.cert_chain_pems[0].bytes() + issuer.cert_pem.bytes() * (which == "authority in the file")
    time = Time()
    ask = configz(log, time)
    with serving(kubelet, other) as server:
        for _ in range(5):
            with pytest.raises(Unreachable, match="is not trusted"):
                ask(port_of(server), "run 1", file)
            time.now += 4000
        assert server.seen == []
    assert [line["event"] for line in log.entries] == ["configz_unavailable"]


@pytest.mark.parametrize("file", [b"", b"x", b"-----BEGIN CERTIFICATE-----\n*\n-----END CERTIFICATE-----"])
def test_without_a_certificate_nobody_is_asked(file: bytes, server: Scripted, log: LogCapture) -> None:
    """A file that holds none."""
    with pytest.raises(NoCredentials, match="serving certificate"):
        configz(log)(port_of(server), "run 1", file)
    assert server.seen == []


def test_a_renewed_certificate_is_taken(server: Scripted, pem: bytes, log: LogCapture) -> None:
    """What failed by the old one is tried again as soon as the file is another."""
    ask = configz(log)
    with pytest.raises(Unreachable):
        ask(port_of(server), "run 1", trustme.CA().issue_cert("x.example").cert_chain_pems[0].bytes())
    assert ask(port_of(server), "run 1", pem) == ANSWER


def test_one_question_for_each_run_of_the_kubelet(server: Scripted, pem: bytes, log: LogCapture) -> None:
    """A hundred idle passes ask nothing: each question would be a TokenReview. A restarted kubelet is asked again."""
    time = Time()
    ask = configz(log, time)
    for _ in range(100):
        assert ask(port_of(server), "run 1", pem) == ANSWER
        time.now += 300
    assert len(server.seen) == 1
    ask(port_of(server), "run 2", pem)
    assert len(server.seen) == 2


def test_a_refusal_is_asked_about_ever_more_rarely(
    server: Scripted, kubelet: Kubelet, pem: bytes, log: LogCapture
) -> None:
    """Without the right nodes/configz a day of passes costs some thirty questions, one log line, and every pass says
    so; with it the next question is answered."""
    kubelet.status, kubelet.body = 403, {"kind": "Status", "message": "nodes/configz is forbidden", "code": 403}
    time = Time()
    ask = configz(log, time)
    for _ in range(288):
        with pytest.raises(Forbidden, match="nodes/configz is forbidden"):
            ask(port_of(server), "run 1", pem)
        time.now += 300
    assert 20 <= len(server.seen) <= 35
    assert len(log.entries) == 1
    kubelet.status, kubelet.body = 200, ANSWER
    time.now += 3600
    assert ask(port_of(server), "run 1", pem) == ANSWER


@pytest.mark.parametrize("body", [[], {}, {"kubeletconfig": []}, {"kind": "Status"}, "x"])
def test_an_answer_that_is_none(body: Any, server: Scripted, kubelet: Kubelet, pem: bytes, log: LogCapture) -> None:
    """What has no kubeletconfig is an error and not an empty configuration."""
    kubelet.body = body
    with pytest.raises(Malformed):
        configz(log)(port_of(server), "run 1", pem)


def test_nobody_listens(server: Scripted, pem: bytes, log: LogCapture) -> None:
    """A kubelet that is just starting."""
    port = port_of(server)
    with pytest.raises(CallFailed, match="configz"):
        # A port that was free a moment ago, on an address where this server does not listen.
        KubeletConfigz(
            Access("https://x", Trust(), StoredCredentials()), NODE, "127.0.0.2",
            clock=Time().clock, log=structlog.wrap_logger(structlog.PrintLogger(), processors=[log]),
        )(port, "run 1", pem)  # fmt: skip


def test_a_rotated_token_is_used(server: Scripted, pem: bytes, log: LogCapture, tmp_path: Path) -> None:
    """The file is read for each question, as for the API server."""
    path = tmp_path / "token"
    path.write_text("first")
    access = Access("https://x", Trust(), StoredCredentials(FileText(path)))
    logger = structlog.wrap_logger(structlog.PrintLogger(), processors=[log])
    ask = KubeletConfigz(access, NODE, "127.0.0.1", clock=Time().clock, log=logger)
    ask(port_of(server), "run 1", pem)
    path.write_text("the-second")
    ask(port_of(server), "run 2", pem)
    assert [headers["authorization"] for _, _, headers in server.seen] == ["Bearer first", "Bearer the-second"]


def test_the_control_takes_the_kubelets_own_word(server: Scripted, pem: bytes, log: LogCapture, tmp_path: Path) -> None:
    """Joined as in the daemon: port and certificate are the kubelet's own, the value comes from /configz, and a kubelet
    that was started again is asked again."""
    plant(tmp_path, {"/certs/kubelet.crt": pem.decode()})
    argv = [f"--port={port_of(server)}", "--cert-dir=/certs"]
    first, second = process("kubelet", *argv, pid=41), process("kubelet", *argv, pid=42)
    host = StagedHost(tmp_path, [first], [first], [first], [first], [second], [second])
    control = KubeletControl(schema.Kubelet(probe=False), host, configz=configz(log))
    for _ in range(3):
        found = {one.id: one for one in control.judge(control.observe())}
        pids = found["kubelet/4.2.13"]
        assert (pids.status, pids.source, "4096" in pids.observed) == (Status.PASS, "configz", True)
    assert len(server.seen) == 2
