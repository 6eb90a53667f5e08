"""The emulator as a process and behind TLS: what a person or a test in another process starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import requests

from agent.sandbox.server import Sandbox
from agent.sandbox.settings import Settings
from tests.support.apiservers import make_certificates

pytestmark = pytest.mark.emulator_only
ROOT = Path(__file__).parents[2]


@contextmanager
def process(*arguments: str) -> Iterator[tuple[dict[str, str], subprocess.Popen[str]]]:
    """The process and what it printed; it is ended when the test is."""
    argv = [sys.executable, "-m", "agent.sandbox", *arguments]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as running:
        try:
            assert running.stdout is not None
            yield json.loads(running.stdout.readline()), running
        finally:
            running.kill()


def get(url: str, token: str = "", **options: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with requests.Session() as session:
        session.trust_env = False
        return session.get(url, headers=headers, timeout=300, **options)


def test_a_process_says_where_it_is_and_ends_on_sigterm() -> None:
    """One line of JSON once it answers; 0 when it is told to stop."""
    with process("--nodes", "2", "--heartbeat", "0") as (said, running):
        body = get(f"{said['url']}/api/v1/nodes", said["token"]).json()
        assert [item["metadata"]["name"] for item in body["items"]] == ["node-1", "node-2"]
        assert get(f"{said['url']}/api/v1/nodes").status_code == 401
        running.send_signal(signal.SIGTERM)
        assert running.wait(300) == 0


def test_tokens_come_from_a_file(tmp_path: Path) -> None:
    """TOKEN,USER,GROUP…: the first one is printed, each has its user's rights and no more."""
    tokens = tmp_path / "tokens"
    tokens.write_text("# who\nroot,admin,system:masters\nplain,jane\n")
    with process("--token-file", str(tokens)) as (said, _):
        assert said["token"] == "root"
        assert get(f"{said['url']}/api/v1/nodes", "root").status_code == 200
        answer = get(f"{said['url']}/api/v1/nodes", "plain")
        assert answer.status_code == 403
        assert 'User "jane" cannot list resource "nodes"' in answer.json()["message"]


def test_bad_options_are_said_and_end_with_2(tmp_path: Path) -> None:
    """A broken token file, a certificate without its key, a port that is taken."""
    tokens = tmp_path / "tokens"
    tokens.write_text("lonely\n")
    with Sandbox(Settings()) as sandbox:
        port = sandbox.url.rpartition(":")[2]
        for arguments, said in (
            (["--token-file", str(tokens)], f"{tokens}:1: expected TOKEN,USER"),
            (["--tls-cert", "x"], "--tls-cert and --tls-key go together"),
            (["--tls-cert", "/no/such", "--tls-key", "/no/such"], "No such file"),
            (["--port", port], f"cannot listen on 127.0.0.1:{port}"),
        ):
            argv = [sys.executable, "-m", "agent.sandbox", *arguments]
            done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False, cwd=ROOT)
            assert done.returncode == 2
            assert said in done.stderr


def test_https_with_a_ca_of_its_own(tmp_path: Path) -> None:
    """Trusted with the CA, refused without it; the kubeconfig names it."""
    certificates = make_certificates(tmp_path)
    settings = Settings(certificate=certificates.certificate, key=certificates.key)
    with Sandbox(settings) as sandbox:
        assert sandbox.url.startswith("https://127.0.0.1:")
        assert get(f"{sandbox.url}/api/v1/nodes", sandbox.token, verify=str(certificates.ca)).status_code == 200
        with pytest.raises(requests.exceptions.SSLError):
            get(f"{sandbox.url}/api/v1/nodes", sandbox.token)
        document = json.loads(sandbox.kubeconfig(tmp_path / "kubeconfig", ca=certificates.ca).read_text())
        cluster = document["clusters"][0]["cluster"]
        assert cluster == {"server": sandbox.url, "certificate-authority": str(certificates.ca)}
        assert document["users"][0]["user"]["token"] == sandbox.token


def test_stopping_twice_and_starting_again_are_well() -> None:
    """stop() is idempotent; a second sandbox stands beside the first."""
    first, second = Sandbox(Settings()).start(), Sandbox(Settings()).start()
    assert first.url != second.url
    first.add_node("n")
    assert second.list("nodes") == []
    for sandbox in (first, second, first):
        sandbox.stop()
    with pytest.raises(requests.ConnectionError):
        get(f"{second.url}/healthz")


def test_a_taken_port_is_an_error() -> None:
    """OSError where it was started, not a thread that dies in silence."""
    with Sandbox(Settings()) as sandbox:
        port = int(sandbox.url.rpartition(":")[2])
        with pytest.raises(OSError, match="in use"):
            Sandbox(Settings(port=port)).start()


def test_ipv6_is_served() -> None:
    """On ::1, with brackets in the URL."""
    with Sandbox(Settings(host="::1")) as sandbox:
        assert sandbox.url.startswith("http://[::1]:")
        assert get(f"{sandbox.url}/healthz", sandbox.token).text == "ok"
