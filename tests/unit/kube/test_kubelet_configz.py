"""When the kubelet's /configz is requested again after a failure. Over TLS: tests/integration/test_kube_kubelet.py."""

from __future__ import annotations

import base64

import pytest
import structlog

from agent.errors import KubeError
from agent.kube.credentials import Access, StoredCredentials, Trust
from agent.kube.errors import NoCredentials
from agent.kube.kubelet import KubeletConfigz
from tests.support.kube import Time

PEM = f"-----BEGIN CERTIFICATE-----\n{base64.b64encode(b'any').decode()}\n-----END CERTIFICATE-----\n".encode()


class MissingToken:
    """A token file that is not there, so that no request ever leaves; counts the attempts."""

    def __init__(self) -> None:
        self.attempts = 0

    def read(self) -> bytes:
        self.attempts += 1
        raise NoCredentials("token: No such file or directory")

    def renew(self) -> bool:
        return False


def test_a_failure_backs_off_from_one_minute_to_an_hour_and_another_run_starts_again() -> None:
    time, token = Time(), MissingToken()
    access = Access("https://10.96.0.1:443", Trust(), StoredCredentials(token))
    read = KubeletConfigz(access, "node-1", "127.0.0.1", clock=time.clock, log=structlog.get_logger())

    def is_requested(run: str = "run 1") -> bool:
        before = token.attempts
        with pytest.raises(KubeError, match="No such file"):
            read(10250, run, PEM)
        return token.attempts > before

    assert is_requested()
    for pause in (60, 120, 240, 480, 960, 1920, 3600, 3600):
        time.now += pause - 0.5
        assert not is_requested()
        time.now += 0.5
        assert is_requested()
    assert is_requested("run 2")
    time.now += 60
    assert is_requested("run 2")
