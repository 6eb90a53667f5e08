"""Delivery to local webhooks: what is tried again, what is not, what never waits, and what is never logged."""

from __future__ import annotations

import json
import random
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from http.server import BaseHTTPRequestHandler
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from agent.config.choices import NotifyType
from agent.config.schema import Notify
from agent.event_reasons import Reason
from agent.host import Host, HostExec
from agent.report.notify import DeliveryContext, Notification, Notifier, apprise, apprise_child
from tests.support.daemons import free_ports
from tests.support.kube import Scripted, answer, scripted

LONG = 30.0  # a bound for what never happens, not a timing
SECRET = "T0SECRET"
Reply = tuple[int, bytes, dict[str, str]]
GOOD: Reply = (200, b"ok", {})


@dataclass
class Hook:
    """A webhook that answers as it is told, good when it is told nothing more."""

    server: Scripted
    bodies: list[dict[str, Any]]
    replies: list[Reply]

    @property
    def url(self) -> str:
        return f"{self.server.url}/services/{SECRET}"

    def texts(self) -> list[str]:
        return [body["message"] for body in self.bodies]


@contextmanager
def hooked(*replies: Reply, before: Callable[[], object] = lambda: None) -> Iterator[Hook]:
    bodies: list[dict[str, Any]] = []
    left = list(replies)

    def script(request: BaseHTTPRequestHandler) -> None:
        bodies.append(json.loads(request.rfile.read(int(request.headers["Content-Length"]))))
        before()
        status, body, headers = left.pop(0) if left else GOOD
        answer(request, body, status, **headers)

    with scripted(script) as server:
        yield Hook(server, bodies, left)


@dataclass
class Sender:
    """A notifier and what became of its messages."""

    notifier: Notifier
    told: list[str] = field(default_factory=list)

    def say(self, message: str, reason: Reason = Reason.REBOOT_FAILED, key: str = "") -> None:
        self.notifier.send(Notification(reason, message, "worker-1", key=key))

    def flush(self) -> list[str]:
        assert self.notifier.flush(LONG)
        return list(self.told)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "url"


@pytest.fixture
def sender(file: Path) -> Iterator[Callable[..., Sender]]:
    """Makes notifiers; waits between tries are short."""
    made: list[Notifier] = []

    def make(*receivers: Notify, **receiver: Any) -> Sender:
        told: list[str] = []
        context = DeliveryContext(run=partial(Host("/").run, how=HostExec.DIRECT), environment={})
        some = receivers or (Notify(url_file=str(file), **receiver),)
        made.append(Notifier(some, context, on_outcome=told.append, first_delay_seconds=0.02, chance=random.Random(1)))
        return Sender(made[-1], told)

    yield make
    for one in made:
        one.close()


def test_messages_arrive_in_order_and_once(file: Path, sender: Callable[..., Sender]) -> None:
    """An event that is announced again, after a restart of the coordinator, is told once."""
    with hooked() as hook:
        file.write_text(hook.url)
        one = sender()
        for number in range(5):
            one.say(f"m{number}", key=f"k{number % 4}")
        assert one.flush() == ["sent"] * 4
        assert hook.texts() == ["m0", "m1", "m2", "m3"]


@pytest.mark.parametrize("kind", [NotifyType.SLACK, NotifyType.TEAMS, NotifyType.PAGERDUTY, NotifyType.WEBHOOK])
def test_each_kind_is_posted_as_json_to_its_url(
    kind: NotifyType, file: Path, tmp_path: Path, sender: Callable[..., Sender]
) -> None:
    """Whatever HTTP says, the body is one JSON document and the method POST."""
    (tmp_path / "key").write_text("routing-key\n")
    with hooked((202, b"1", {})) as hook:
        file.write_text(f"  {hook.url}\n")
        key = str(tmp_path / "key") if kind is NotifyType.PAGERDUTY else ""
        one = sender(type=kind, key_file=key)
        one.say("it failed")
        assert one.flush() == ["sent"]
        ((method, path, headers),) = hook.server.seen
        assert (method, path, headers["content-type"]) == ("POST", f"/services/{SECRET}", "application/json")
        assert headers["user-agent"].startswith("node-hardening-agent/")
        assert "it failed" in json.dumps(hook.bodies[0])


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503])
def test_what_passes_is_tried_again(status: int, file: Path, sender: Callable[..., Sender]) -> None:
    """And later messages wait their turn: a pager must not hear of the end first."""
    with hooked((status, b"", {}), (status, b"", {})) as hook:
        file.write_text(hook.url)
        one = sender(retries=3)
        one.say("first")
        one.say("second")
        assert one.flush() == ["sent", "sent"]
        assert hook.texts() == ["first", "first", "first", "second"]


@pytest.mark.parametrize("status", [301, 307, 400, 401, 403, 404, 410])
def test_what_does_not_pass_is_given_up_at_once(status: int, file: Path, sender: Callable[..., Sender]) -> None:
    """A redirect is not followed: its target may be anybody."""
    with hooked((status, b"", {"Location": "http://127.0.0.1:1/"})) as hook:
        file.write_text(hook.url)
        one = sender(retries=3)
        one.say("first")
        one.say("second")
        assert one.flush() == ["failed", "sent"]
        assert hook.texts() == ["first", "second"]


def test_it_is_given_up_after_its_tries(file: Path, sender: Callable[..., Sender]) -> None:
    """`retries` is how many more after the first one."""
    with hooked(*[(503, b"", {})] * 9) as hook:
        file.write_text(hook.url)
        one = sender(retries=2)
        one.say("first")
        assert one.flush() == ["failed"]
        assert len(hook.bodies) == 3


def test_a_receiver_may_ask_for_patience(file: Path, sender: Callable[..., Sender]) -> None:
    """Retry-After is heeded."""
    with hooked((429, b"", {"Retry_After": "1"})) as hook:
        file.write_text(hook.url)
        one = sender()
        began = time.monotonic()
        one.say("first")
        assert one.flush() == ["sent"]
        assert time.monotonic() - began >= 1.0
        assert len(hook.bodies) == 2


def test_teams_refuses_inside_a_good_answer(file: Path, sender: Callable[..., Sender]) -> None:
    """Its connectors answer 200 with the failure in the text."""
    refused: Reply = (
        200,
        b"Webhook message delivery failed with error: Microsoft Teams endpoint returned HTTP error 429",
        {},
    )
    with hooked(refused) as hook:
        file.write_text(hook.url)
        one = sender(type=NotifyType.TEAMS)
        one.say("first")
        assert one.flush() == ["sent"]
        assert len(hook.bodies) == 2


def test_a_rotated_secret_is_used_at_once(file: Path, sender: Callable[..., Sender]) -> None:
    """Each try reads it anew; a file that is missing for a moment is waited for."""
    with hooked() as hook:
        one = sender(retries=100)
        one.say("first")
        time.sleep(0.2)
        file.write_text(hook.url)
        assert one.flush() == ["sent"]
        file.write_text(f"{hook.server.url}/other")
        one.say("second")
        one.flush()
        assert [path for _, path, _ in hook.server.seen] == [f"/services/{SECRET}", "/other"]


def test_telling_never_waits_and_one_receiver_never_holds_up_another(
    tmp_path: Path, sender: Callable[..., Sender]
) -> None:
    """A receiver that hangs costs its own messages and nobody's time."""
    release = threading.Event()
    with hooked(before=lambda: release.wait(LONG)) as slow, hooked() as quick:
        (tmp_path / "slow").write_text(slow.url)
        (tmp_path / "quick").write_text(quick.url)
        one = sender(*(Notify(url_file=str(tmp_path / name), timeout=LONG) for name in ("slow", "quick")))
        for number in range(300):
            one.say(f"m{number}")
        ends = time.monotonic() + LONG
        while "m299" not in quick.texts():
            assert time.monotonic() < ends
            time.sleep(0.02)
        assert len(slow.bodies) <= 1
        assert one.notifier.flush(0.05) is False
        release.set()
        one.flush()
    dropped = [outcome for outcome in one.told if outcome == "dropped"]
    assert len(dropped) >= 199  # the queue holds a hundred
    assert slow.texts()[-1] == "m299"


def test_a_closed_notifier_gives_up_between_tries(file: Path, sender: Callable[..., Sender]) -> None:
    """The process ends in seconds, whatever a receiver asks for."""
    with hooked((429, b"", {"Retry_After": "300"})) as hook:
        file.write_text(hook.url)
        one = sender(retries=100)
        one.say("first")
        ends = time.monotonic() + LONG
        while not hook.bodies:
            assert time.monotonic() < ends
            time.sleep(0.02)
        one.notifier.close()
        assert one.flush() == ["failed"]


def test_another_configuration_is_in_force_for_the_next_message(tmp_path: Path, sender: Callable[..., Sender]) -> None:
    """What stays keeps its queue; what is gone is told nothing more."""
    with hooked() as old, hooked() as new:
        (tmp_path / "old").write_text(old.url)
        (tmp_path / "new").write_text(new.url)
        before, after = Notify(url_file=str(tmp_path / "old")), Notify(url_file=str(tmp_path / "new"))
        one = sender(before)
        one.say("first")
        one.flush()
        one.notifier.update([after])
        one.say("second")
        one.flush()
        assert (old.texts(), new.texts()) == (["first"], ["second"])


TROUBLES: dict[str, Callable[[str, int], str]] = {
    "refused": lambda _url, port: f"http://127.0.0.1:{port}/{SECRET}",
    "no such host": lambda _url, _port: f"http://{SECRET.lower()}.invalid/{SECRET}",
    "not found": lambda url, _port: url,
    "no URL": lambda _url, _port: f"ftp://127.0.0.1/{SECRET}",
    "two lines": lambda url, _port: f"{url}\n{SECRET}",
    "no port": lambda _url, _port: f"http://127.0.0.1:{SECRET}/",
    "not UTF-8": lambda _url, _port: "\udcff" + SECRET,
    "bad label": lambda _url, _port: f"http://{'a' * 70}.{SECRET}.invalid/",
    "plain TLS": lambda url, _port: url.replace("http:", "https:"),
    "too long": lambda url, _port: f"{url}{'x' * (16 << 10)}",
}


@pytest.mark.parametrize("trouble", TROUBLES)
def test_a_url_is_never_logged(trouble: str, file: Path, sender: Callable[..., Sender]) -> None:
    """Whatever goes wrong, what is said of it holds no secret; and it is said."""
    (port,) = free_ports(1)
    body = f"no such hook {SECRET}: https://x/{SECRET}".encode()
    structlog.reset_defaults()
    with hooked(*[(404, body, {})] * 9) as hook, capture_logs() as lines:
        file.write_bytes(TROUBLES[trouble](hook.url, port).encode(errors="surrogateescape"))
        one = sender(retries=1, timeout=2.0)
        one.say("first")
        assert one.flush() == ["failed"]
    assert lines
    assert {line["receiver"] for line in lines} == {"notify[0] (webhook)"}
    assert SECRET.lower() not in str(lines).lower()
    assert all(line["error"] for line in lines)


def test_a_secret_is_never_cut(file: Path, sender: Callable[..., Sender]) -> None:
    """The beginning of a URL is another URL."""
    structlog.reset_defaults()
    with hooked() as hook, capture_logs() as lines:
        file.write_text(f"{hook.url}/{'x' * (16 << 10)}")
        one = sender(retries=0)
        one.say("first")
        assert one.flush() == ["failed"]
        assert hook.server.seen == []
    assert [line["error"] for line in lines] == [f"{file}: larger than 16384 bytes"]


def test_a_receivers_plain_words_are_logged(file: Path, sender: Callable[..., Sender]) -> None:
    """Slack says `no_service`: that helps, and can hold no secret."""
    structlog.reset_defaults()
    with hooked((404, b"no_service", {})) as hook, capture_logs() as lines:
        file.write_text(hook.url)
        one = sender(type=NotifyType.SLACK)
        one.say("first")
        one.flush()
    assert [line["error"] for line in lines] == ["HTTP status 404: no_service"]


# -- apprise -----------------------------------------------------------------------------------------------------------

needs_apprise = pytest.mark.skipif(find_spec("apprise") is None, reason="apprise is not installed (extra notify)")


def test_both_sides_agree_on_exit_codes() -> None:
    """The child imports nothing of ours."""
    names = ("SENT", "NOT_SENT", "NOT_UNDERSTOOD", "NO_APPRISE")
    assert [getattr(apprise_child, name) for name in names] == [getattr(apprise, name) for name in names]


@pytest.mark.skipif(find_spec("apprise") is not None, reason="apprise is installed here")
def test_without_the_extra_it_says_what_is_missing(file: Path, sender: Callable[..., Sender]) -> None:
    """Once, without trying again."""
    structlog.reset_defaults()
    file.write_text("json://127.0.0.1:1/x")
    with capture_logs() as lines:
        one = sender(type=NotifyType.APPRISE)
        one.say("first")
        assert one.flush() == ["failed"]
    (line,) = lines
    assert line["error"] == "apprise is not installed: use an image with the extra `notify`"


@needs_apprise
def test_any_service_of_apprises_is_reached_by_a_child(file: Path, sender: Callable[..., Sender]) -> None:
    """Its own JSON service here; this process never imports it."""
    with hooked() as hook:
        file.write_text(hook.url.replace("http:", "json:"))
        one = sender(type=NotifyType.APPRISE)
        one.say("it failed")
        assert one.flush() == ["sent"]
        (body,) = hook.bodies
        assert (body["title"], body["type"]) == ("RebootFailed on worker-1", "failure")
        assert body["message"] == "critical: RebootFailed on worker-1: it failed"
    assert "apprise" not in sys.modules


@needs_apprise
def test_what_apprise_does_not_know_is_given_up(file: Path, sender: Callable[..., Sender]) -> None:
    """And what it could not send is tried again; neither shows the URL."""
    structlog.reset_defaults()
    (port,) = free_ports(1)
    with capture_logs() as lines:
        one = sender(type=NotifyType.APPRISE, retries=1)
        for url in (f"nosuchservice://{SECRET}", f"json://127.0.0.1:{port}/{SECRET}"):
            file.write_text(url)
            one.say("first")
            one.flush()
    assert [line["error"] for line in lines] == [
        "apprise supports no service with that URL",
        "apprise did not send it (exit code 10)",
        "apprise did not send it (exit code 10)",
    ]
    assert SECRET not in str(lines)
