"""The emulator's server: behind TLS, stopped and started."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import requests

from agent.sandbox.server import Sandbox
from agent.sandbox.settings import Settings
from tests.support.apiservers import make_certificates

pytestmark = pytest.mark.emulator_only


def get(url: str, token: str = "", **options: Any) -> requests.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    with requests.Session() as session:
        session.trust_env = False
        return session.get(url, headers=headers, timeout=300, **options)


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
