"""The Prometheus blocker on a real Prometheus: a rule that fires, stops, and cannot be asked about.

What a real one does not do on purpose (tokens, a private CA, nonsense) is answered by a scripted server.
"""

from __future__ import annotations

import base64
import json
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import psutil
import pytest
import trustme

from agent.config.schema import Prometheus
from agent.config.selector import parse as selector
from agent.reboot.blockers.prometheus import PrometheusBlocker
from agent.reboot.interfaces import BlockerResult, Drained
from tests.support.agents import eventually
from tests.support.daemons import free_ports, program
from tests.support.daemons import prometheus as prometheus_server
from tests.support.kube import answer, scripted

LONG = 60.0  # a bound for what never happens, not a timing
CONFIG = """\
global: {{scrape_interval: 200ms, scrape_timeout: 200ms, evaluation_interval: 200ms}}
rule_files: [rules.yaml]
scrape_configs: [{{job_name: trouble, static_configs: [{{targets: ["{target}"]}}]}}]
"""
RULES = """\
groups:
  - name: trouble
    rules:
      - {alert: Watchdog, expr: vector(1)}
      - {alert: NodeTrouble, expr: trouble > 0, labels: {severity: page}}
      - {alert: SlowTrouble, expr: trouble > 0, for: 1h, labels: {severity: warn}}
"""


class Clock:
    """Real time."""

    def monotonic(self) -> float:
        return time.monotonic()

    def wall(self) -> float:
        return time.time()


@dataclass
class Running:
    """A Prometheus, and the switch of the trouble that it watches."""

    url: str
    trouble: threading.Event
    process: subprocess.Popen[bytes]

    def check(self, **policy: object) -> BlockerResult:
        return PrometheusBlocker(Prometheus(url=self.url, **policy), Clock()).check()  # type: ignore[arg-type]

    def until(self, holds: Callable[[BlockerResult], bool], **policy: object) -> BlockerResult:
        ends = time.monotonic() + LONG
        while not holds(verdict := self.check(**policy)):
            assert time.monotonic() < ends, verdict
            time.sleep(0.1)
        return verdict


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    path = program("prometheus", "prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    trouble = threading.Event()

    def metrics(request: BaseHTTPRequestHandler) -> None:
        answer(request, f"trouble {int(trouble.is_set())}\n".encode(), Content_Type="text/plain")

    with scripted(metrics) as target:
        (folder / "prometheus.yaml").write_text(CONFIG.format(target=target.url.removeprefix("http://")))
        (folder / "rules.yaml").write_text(RULES)
        with prometheus_server(path, folder) as (url, process):
            yield Running(url, trouble, process)


@pytest.fixture
def quiet(prometheus: Running) -> Running:
    """Nothing fires but the Watchdog."""
    prometheus.trouble.clear()
    prometheus.until(lambda verdict: verdict.by == "alerts: Watchdog", ignore="", firing_only=False)
    return prometheus


@pytest.fixture
def loud(prometheus: Running) -> Running:
    """One alert fires, one is pending."""
    prometheus.trouble.set()
    prometheus.until(lambda verdict: "Node" in verdict.by and "Slow" in verdict.by, firing_only=False)
    return prometheus


def test_a_rule_that_fires_blocks_until_it_stops(quiet: Running) -> None:
    """The Watchdog, which always fires, does not; a pending alert does not."""
    assert quiet.check() == BlockerResult(blocked=False)
    quiet.trouble.set()
    assert quiet.until(lambda verdict: verdict.blocked) == BlockerResult(blocked=True, by="alerts: NodeTrouble")
    quiet.trouble.clear()
    assert quiet.until(lambda verdict: not verdict.blocked) == BlockerResult(blocked=False)


def test_alerts_are_chosen_by_state_name_and_labels(loud: Running) -> None:
    """By the real API's own words for them."""
    assert loud.check().by == "alerts: NodeTrouble"
    assert set(loud.check(firing_only=False).by.removeprefix("alerts: ").split(", ")) == {"NodeTrouble", "SlowTrouble"}
    assert loud.check(ignore="^(Watchdog|NodeTrouble)$") == BlockerResult(blocked=False)
    assert loud.check(only="^Slow") == BlockerResult(blocked=False)
    assert loud.check(labels=selector("severity=page")).blocked is True
    assert loud.check(labels=selector("severity!=page")) == BlockerResult(blocked=False)


def test_a_query_blocks_while_it_finds_anything(loud: Running) -> None:
    """Any PromQL; a name or labels say what was found."""
    assert loud.check(query='ALERTS{alertstate="firing",alertname!="Watchdog"}').by == (
        "the Prometheus query, which found NodeTrouble"
    )
    found = loud.check(query='trouble{job="trouble"} == 1').by
    assert found.startswith('the Prometheus query, which found trouble{instance="127.0.0.1:')
    assert loud.check(query="trouble > 7") == BlockerResult(blocked=False)
    assert loud.check(query="trouble[1s] offset 1h") == BlockerResult(blocked=False)


@pytest.mark.parametrize(
    ("query", "why"),
    [
        ("trouble >", 'it answers 400: invalid parameter "query"'),
        ("scalar(trouble)", "the query returns a scalar, which always exists"),
        ("1", "the query returns a scalar"),
        ('"text"', "the query returns a string"),
    ],
)
def test_a_query_that_says_nothing_blocks_and_says_why(quiet: Running, query: str, why: str) -> None:
    """A typing error must not open the gate."""
    verdict = quiet.check(query=query)
    assert verdict.blocked is True
    assert verdict.by.startswith(f"alerts unknown: Prometheus at {quiet.url}: {why}")


def test_a_prometheus_that_hangs_blocks_in_time(quiet: Running) -> None:
    """Stopped in the middle: the connection is there, the answer never comes; later it is asked again."""
    quiet.process.send_signal(signal.SIGSTOP)
    stopped = psutil.Process(quiet.process.pid)
    eventually(lambda: stopped.status() == psutil.STATUS_STOPPED, what="every thread of it has stopped")
    try:
        verdict = quiet.check(timeout=0.5)
    finally:
        quiet.process.send_signal(signal.SIGCONT)
    assert verdict == BlockerResult(
        blocked=True, by=f"alerts unknown: Prometheus at {quiet.url}: no answer in time", unknown=True
    )
    assert quiet.until(lambda verdict: not verdict.blocked) == BlockerResult(blocked=False)


def test_a_prometheus_that_cannot_be_reached_blocks(prometheus: Running) -> None:
    """Nobody listens there."""
    (port,) = free_ports(1)
    url = f"http://127.0.0.1:{port}"
    verdict = PrometheusBlocker(Prometheus(url=url), Clock()).check()
    assert verdict == BlockerResult(
        blocked=True, by=f"alerts unknown: Prometheus at {url}: connection refused", unknown=True
    )


def test_another_servers_answer_blocks(prometheus: Running) -> None:
    """A wrong path on the right server: 404, which is no "no alerts"."""
    verdict = PrometheusBlocker(Prometheus(url=f"{prometheus.url}/wrong"), Clock()).check()
    assert verdict.blocked is True
    assert "(404, " in verdict.by


# -- what a real one does not do on purpose ----------------------------------------------------------------------------

NO_ALERTS = json.dumps({"status": "success", "data": {"alerts": []}}).encode()


@dataclass
class Scripted:
    """How the scripted server answers, and whom it lets in."""

    token: str = ""
    body: bytes = NO_ALERTS
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)

    def __call__(self, request: BaseHTTPRequestHandler) -> None:
        if self.token and request.headers.get("Authorization") != f"Bearer {self.token}":
            answer(request, b"", 401)
        else:
            answer(request, self.body, self.status, **self.headers)


def cannot(verdict: BlockerResult) -> str:
    """Why it is unknown."""
    assert verdict.blocked is True
    prefix, _, why = verdict.by.partition(": Prometheus at ")
    assert prefix == "alerts unknown"
    return why.partition(": ")[2]


def test_the_token_is_read_anew_each_time(tmp_path: Path) -> None:
    """It rotates; without the right one the blocker blocks."""
    file = tmp_path / "token"
    file.write_text("old\n")
    server = Scripted("new")
    with scripted(server) as running:
        blocker = PrometheusBlocker(Prometheus(url=running.url, token_file=str(file)), Clock())
        assert cannot(blocker.check()) == "access refused (401): check tokenFile, basicAuthFile and headerFiles"
        file.write_text("new\n")
        assert blocker.check() == BlockerResult(blocked=False)
        file.write_text("two\nlines")
        assert "does not hold a bearer token" in cannot(blocker.check())
        assert "two" not in blocker.check().by
        file.unlink()
        assert cannot(blocker.check()) == f"tokenFile {file}: No such file or directory"


def test_basic_authentication_and_headers_come_from_files(tmp_path: Path) -> None:
    """Read for each request, never shown; a tenant's header beside the password, as Mimir wants it."""
    asked: list[tuple[str | None, str | None]] = []

    def note(request: BaseHTTPRequestHandler) -> None:
        asked.append((request.headers.get("Authorization"), request.headers.get("X-Scope-OrgID")))
        answer(request, NO_ALERTS, 200)

    password, tenant = tmp_path / "password", tmp_path / "tenant"
    password.write_text("agent:s3cret\n")
    tenant.write_text("shop\n")
    files = {"X-Scope-OrgID": str(tenant)}
    with scripted(note) as running:
        policy = Prometheus(url=running.url, basic_auth_file=str(password), header_files=files)
        blocker = PrometheusBlocker(policy, Clock())
        assert blocker.check() == BlockerResult(blocked=False)
        assert asked == [("Basic " + base64.b64encode(b"agent:s3cret").decode(), "shop")]
        tenant.write_text("shop\nX-Evil: s3cret")
        assert cannot(blocker.check()) == f"headerFiles {tenant}: it is not one line of printable ASCII"
        tenant.write_text("shop")
        password.write_text("s3cret")
        assert cannot(blocker.check()) == f"basicAuthFile {password}: it does not hold user:password"
        password.unlink()
        assert cannot(blocker.check()) == f"basicAuthFile {password}: No such file or directory"
    assert len(asked) == 1


def test_a_private_authority_is_trusted_where_it_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the environment's own variables change nothing: neither CA nor proxy."""
    authority = trustme.CA()
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert("127.0.0.1").configure_cert(tls)
    ca_file = tmp_path / "ca.pem"
    other = tmp_path / "other.pem"
    trustme.CA().cert_pem.write_to_path(str(other))
    with scripted(Scripted(), tls=tls) as running:

        def check(path: Path | str) -> BlockerResult:
            return PrometheusBlocker(Prometheus(url=running.url, ca_file=str(path)), Clock()).check()

        assert cannot(check(ca_file)) == f"caFile {ca_file}: No such file or directory"
        authority.cert_pem.write_to_path(str(ca_file))
        for name, text in {"REQUESTS_CA_BUNDLE": str(other), "HTTPS_PROXY": "http://127.0.0.1:1"}.items():
            monkeypatch.setenv(name, text)
        assert check(ca_file) == BlockerResult(blocked=False)
        assert cannot(check(other)).startswith("the certificate is not trusted: ")
        assert cannot(check("")).startswith("the certificate is not trusted: ")
        ca_file.write_bytes(authority.cert_pem.bytes() + b"\n" * (1 << 20))  # its rest may hold another authority
        assert cannot(check(ca_file)) == f"caFile {ca_file}: larger than 1048576 bytes"
        ca_file.write_bytes(b"no PEM\n")
        assert cannot(check(ca_file)) == f"caFile {ca_file}: it holds no certificate in PEM"


@pytest.mark.parametrize(
    ("server", "why"),
    [
        (Scripted(status=302, headers={"Location": "http://127.0.0.1:1/"}), "a redirect (302), which is not followed"),
        (Scripted(body=b"<html>login</html>"), "not an answer of Prometheus (200, 18 bytes)"),
        (Scripted(body=b" " * 9_000_000), "an answer of more than 8 MiB"),
        (Scripted(status=503, body=b"upstream"), "not an answer of Prometheus (503, 8 bytes)"),
    ],
    ids=["redirect", "login page", "flood", "proxy"],
)
def test_what_is_not_understood_blocks(server: Scripted, why: str) -> None:
    """A login page in front of it is the usual case."""
    with scripted(server) as running:
        assert cannot(PrometheusBlocker(Prometheus(url=running.url), Clock()).check()).startswith(why)


def test_a_server_that_dribbles_is_given_up_in_time() -> None:
    """One byte now and then keeps every single read alive, and must not keep the agent."""
    stop = threading.Event()

    def dribble(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.end_headers()
        while not stop.wait(0.05):
            request.wfile.write(b" ")
            request.wfile.flush()

    with scripted(dribble) as running:
        verdict = PrometheusBlocker(Prometheus(url=running.url, timeout=0.5), Clock()).check()
        stop.set()
    assert cannot(verdict) == "no answer in time"


def test_a_connection_that_is_cut_blocks() -> None:
    """In the middle of the answer."""

    def cut(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        request.wfile.write(b'{"status":')
        request.wfile.flush()
        request.connection.shutdown(socket.SHUT_RDWR)

    with scripted(cut) as running:
        verdict = PrometheusBlocker(Prometheus(url=running.url), Clock()).check()
    assert cannot(verdict) == "the connection was cut during the answer"


CORDONED = 1_700_000_000.0
OLD, NEW = "2023-11-14T21:00:00Z", "2023-11-14T22:14:00Z"  # an hour before the cordon, and seconds after it
DRAINED = Drained(CORDONED, frozenset({"shop"}))
CAUSED = [
    {"alertname": "KubeNodeUnschedulable", "node": "n1"},
    {"alertname": "TargetDown", "instance": "n1:9100"},
    {"alertname": "PdbAtLimit", "namespace": "shop"},
    {"alertname": "ReplicasMismatch", "namespace": "monitoring", "exported_namespace": "shop"},
]
OTHERS = [
    {"alertname": "KubeNodeUnschedulable", "node": "n10"},
    {"alertname": "PdbAtLimit", "namespace": "bank"},
    {"alertname": "StorageDegraded"},
]


def _alerts(state: str, since: str, *labels: dict[str, str]) -> bytes:
    found = [{"labels": one, "state": state, "activeAt": since} for one in labels]
    return json.dumps({"status": "success", "data": {"alerts": found}}).encode()


def _after(labels: dict[str, str], *, since: str, before: bytes | None) -> bool:
    """Whether it blocks after the drain. before: what Prometheus answered before it; None: to another process."""
    answers = Scripted()
    with scripted(answers) as running:
        blocker = PrometheusBlocker(Prometheus(url=running.url), Clock(), "n1")
        if before is not None:
            answers.body = before
            assert not blocker.check().blocked
        answers.body = _alerts("firing", since, labels)
        return blocker.check_after_drain(DRAINED).blocked


@pytest.mark.parametrize("labels", CAUSED, ids=lambda labels: labels["alertname"])
@pytest.mark.parametrize("since", [OLD, NEW])
def test_what_the_drain_set_off_does_not_block(labels: dict[str, str], since: str) -> None:
    """It did not fire before, whatever `activeAt` is: that is another machine's clock."""
    assert not _after(labels, since=since, before=_alerts("firing", NEW))


@pytest.mark.parametrize("labels", OTHERS, ids=lambda labels: labels["alertname"])
def test_what_is_new_and_elsewhere_blocks(labels: dict[str, str]) -> None:
    """Another node, another namespace, or the whole cluster."""
    assert _after(labels, since=NEW, before=_alerts("firing", NEW))


@pytest.mark.parametrize("labels", CAUSED, ids=lambda labels: labels["alertname"])
def test_what_was_pending_before_the_drain_blocks(labels: dict[str, str]) -> None:
    """Its cause is older than the drain."""
    assert _after(labels, since=OLD, before=_alerts("pending", OLD, labels))


@pytest.mark.parametrize(("since", "blocks"), [(OLD, True), (NEW, False), ("", False)])
def test_a_restarted_agent_goes_by_the_alerts_own_time(since: str, blocks: bool) -> None:
    """It does not know what was pending before."""
    assert _after(CAUSED[0], since=since, before=None) is blocks
