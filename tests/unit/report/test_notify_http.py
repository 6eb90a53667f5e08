"""One attempt of one notification: which responses are a success, which are worth another attempt, and when."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.report.notify.http import NotSent, Post, send, url_in
from tests.support.offline import DROPPED, URL, offline, response


def sent(url: str = URL, refused_text: str = "") -> None:
    send(Post(url, {"text": "m"}, refused_text), timeout_seconds=5, environment={})


@pytest.mark.parametrize("status", [200, 201, 202, 204, 299])
def test_every_2xx_is_a_success(monkeypatch: pytest.MonkeyPatch, status: int) -> None:
    """Receivers differ in which."""
    with offline(monkeypatch, response(status, b"")) as server:
        sent()
    assert server.requests == ["POST / HTTP/1.1"]


@pytest.mark.parametrize(
    ("status", "is_final"),
    [
        (300, True), (301, True), (302, True), (399, True), (400, True), (401, True), (403, True), (404, True),
        (408, False), (425, False), (429, False), (499, True), (500, False), (502, False), (503, False), (599, False),
    ],
)  # fmt: skip
def test_what_the_receiver_may_accept_later_is_worth_another_attempt(
    monkeypatch: pytest.MonkeyPatch, status: int, is_final: bool
) -> None:
    """A wrong URL or key stays wrong; an overloaded service does not."""
    with offline(monkeypatch, response(status, b"")), pytest.raises(NotSent) as caught:
        sent()
    assert caught.value.is_final is is_final
    assert str(status) in str(caught.value)


def test_a_dropped_connection_is_worth_another_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the error does not contain the URL, which is a secret."""
    with offline(monkeypatch, DROPPED), pytest.raises(NotSent) as caught:
        sent(f"{URL}/secret-hook")
    assert not caught.value.is_final
    assert "secret-hook" not in str(caught.value)


@pytest.mark.parametrize(
    ("header", "seconds"), [("30", 30.0), ("0", 0.0), ("99999", 300.0), ("-5", 0.0), ("soon", 0.0)]
)
def test_retry_after_is_bounded(monkeypatch: pytest.MonkeyPatch, header: str, seconds: float) -> None:
    """At most five minutes; what is no number of seconds is left out."""
    with offline(monkeypatch, response(429, b"", f"Retry-After: {header}")), pytest.raises(NotSent) as caught:
        sent()
    assert caught.value.after_seconds == seconds


def test_a_refusal_in_the_body_of_a_success_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Some chat services answer 200 and write the refusal into the body."""
    with offline(monkeypatch, response(200, b"Error: no such channel")), pytest.raises(NotSent):
        sent(refused_text="Error:")
    with offline(monkeypatch, response(200, b"ok")):
        sent(refused_text="Error:")


@pytest.mark.parametrize(
    ("text", "good"),
    [
        ("https://hooks.example/a", True), ("http://hooks.example:1/a", True), ("https://hooks.example:65535/", True),
        ("https://hooks.example:0/", True), ("https://hooks.example:65536/", False), ("ftp://hooks.example/", False),
        ("https:///a", False), ("hooks.example/a", False), ("https://hooks.example/a b", False),
    ],
)  # fmt: skip
def test_what_a_secret_file_holds_is_a_url_or_an_error(tmp_path: Path, text: str, good: bool) -> None:
    """The error names the file and not what is in it."""
    file = tmp_path / "url"
    file.write_text(f"{text}\n")
    if good:
        assert url_in(str(file)) == text
    else:
        with pytest.raises(NotSent, match="holds no http or https URL") as caught:
            url_in(str(file))
        assert text not in str(caught.value)


@pytest.mark.parametrize("text", ["", "\n", "one\ntwo", "a\x1bb"])
def test_a_secret_is_one_line_of_text(tmp_path: Path, text: str) -> None:
    """An empty file, a second line and control characters are mistakes."""
    file = tmp_path / "url"
    file.write_text(text)
    with pytest.raises(NotSent):
        url_in(str(file))


@pytest.mark.timeout(20)
def test_a_secret_is_read_from_a_regular_file_alone(tmp_path: Path) -> None:
    """A FIFO without a writer would block the receiver's thread."""
    file = tmp_path / "url"
    os.mkfifo(file)
    with pytest.raises(NotSent, match="not a regular file"):
        url_in(str(file))
