"""Failures of the network in few words: what they mean for a write, and no URL with its query."""

from __future__ import annotations

import http.client
import ssl

import pytest
import requests
import urllib3.exceptions as u3
from urllib3.connection import HTTPConnection
from urllib3.connectionpool import HTTPConnectionPool

from agent.kube.errors import Operation
from agent.kube.network_errors import unreachable

CREATE = Operation("POST", "create", "leases", "leases/a in kube-system", "/apis/…/leases")
POOL = HTTPConnectionPool("api", 6443)
URL = "/api/v1/nodes?continue=hush"


def caused(outer: Exception, inner: BaseException) -> Exception:
    outer.__cause__ = inner
    return outer


REFUSED = caused(
    u3.NewConnectionError(HTTPConnection("api"), "hush"), ConnectionRefusedError(111, "Connection refused")
)
UNTRUSTED = ssl.SSLCertVerificationError(1, "[SSL: CERTIFICATE_VERIFY_FAILED]")
UNTRUSTED.verify_message = "self-signed certificate"


@pytest.mark.parametrize(
    ("error", "words", "ambiguous"),
    [
        (requests.ConnectionError(u3.MaxRetryError(POOL, URL, REFUSED)), "connection refused", False),
        (
            requests.ConnectTimeout(u3.MaxRetryError(POOL, URL, u3.ConnectTimeoutError("hush"))),
            "no connection in time",
            False,
        ),
        (
            requests.ConnectionError(
                u3.MaxRetryError(POOL, URL, u3.NameResolutionError("api", HTTPConnection("api"), OSError("x")))  # type: ignore[arg-type]
            ),
            "name does not resolve",
            False,
        ),
        (requests.ConnectionError(u3.ClosedPoolError(POOL, "hush")), "ClosedPoolError", False),
        (requests.ReadTimeout(u3.ReadTimeoutError(POOL, URL, "hush")), "no answer in time", True),
        (
            requests.ConnectionError(u3.ProtocolError("hush", ConnectionResetError(104, "Connection reset by peer"))),
            "connection reset by peer",
            True,
        ),
        (
            requests.ConnectionError(u3.ProtocolError("hush", http.client.RemoteDisconnected("hush"))),
            "cut before an answer",
            True,
        ),
        (u3.IncompleteRead(3, 4), "cut during", True),
        (u3.ReadTimeoutError(POOL, URL, "hush"), "no answer in time", True),
        (BrokenPipeError(32, "Broken pipe"), "broken pipe", True),
    ],
)
def test_each_failure_has_its_words_and_its_meaning(error: Exception, words: str, ambiguous: bool) -> None:
    """A write is ambiguous unless there never was a connection."""
    found = unreachable(CREATE, "https://api:6443", error, write=True)
    assert words in str(found)
    assert "https://api:6443" in str(found)
    assert "hush" not in str(found)
    assert found.ambiguous is ambiguous
    assert found.repeatable is True
    assert unreachable(CREATE, "https://api:6443", error, write=False).ambiguous is False


def test_an_untrusted_certificate_is_said_so_and_is_not_tried_again() -> None:
    """It does not get better by waiting, and nothing was sent."""
    error = requests.exceptions.SSLError(u3.MaxRetryError(POOL, URL, u3.SSLError(UNTRUSTED)))
    found = unreachable(CREATE, "https://api:6443", error, write=True)
    assert found.message == "the certificate of https://api:6443 is not trusted: self-signed certificate"
    assert (found.ambiguous, found.repeatable) == (False, False)


def test_errors_that_wrap_each_other_in_a_circle_come_to_an_end() -> None:
    """__context__ chains may."""
    first, second = OSError(5, "Input/output error"), ValueError("x")
    first.__context__, second.__context__ = second, first
    assert "input/output error" in str(unreachable(CREATE, "s", first, write=True))
