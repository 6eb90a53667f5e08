"""A real webhook beside whole cycles: each thing that happened is delivered once, however often the agent restarts."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from agent.daemon import delivery_log
from agent.sandbox import builders
from agent.sandbox.machines import Machine
from tests.support.kube import answer, scripted
from tests.support.sites import Site, emulated, pod_on

EVENTS = (
    "RebootRequired",
    "RebootBlocked",
    "NodeCordoned",
    "DrainBlocked",
    "Drained",
    "RebootFailed",
    "RebootSucceeded",
    "NodeUncordoned",
    "RebootLockReleased",
)
NEVER_OPEN = [{"days": ["mon"], "start": "00:00", "end": "00:01"}]


@dataclass
class Receiver:
    """What a webhook received, and the status that it answers with."""

    bodies: list[dict[str, Any]] = field(default_factory=list)
    status: int = 200

    def reasons(self) -> list[str]:
        return [body["event"] for body in self.bodies]

    def repeated(self) -> list[str]:
        return [key for key, times in Counter(body["key"] for body in self.bodies).items() if times > 1]


@dataclass
class Watched:
    """One node whose agent notifies a receiver."""

    site: Site
    machine: Machine
    receiver: Receiver
    url: Path

    def configure(self, **reboot: Any) -> None:
        notify = {"type": "webhook", "urlFile": str(self.url), "events": list(EVENTS), "retries": 0}
        self.machine.configure(self.site.policy_of("node-1", **reboot) | {"notify": [notify]})

    def wait_for(self, reason: str, times: int = 1) -> None:
        self.site.until(lambda: self.receiver.reasons().count(reason) >= times, f"{times} {reason} delivered")

    def restart(self) -> None:
        """The process dies once it has noted what it delivered, and another one has observed the node."""
        memory = self.machine.root.path / delivery_log.PATH.lstrip("/")

        def noted() -> bool:
            """The file remembers Events too, whose names end with their digests."""
            events = self.site.client.get("/api/v1/events").json()["items"]
            digests = set(memory.read_text().split()) if memory.exists() else set()
            return len(digests - {one["metadata"]["name"][-16:] for one in events}) == len(self.receiver.bodies)

        self.site.until(noted, "the note")
        seen = len(self.machine.log.read_text())
        self.machine.crash()
        self.site.until(lambda: '"event": "reboot"' in self.machine.log.read_text()[seen:], "a tick of the new process")


@pytest.fixture
def watch(tmp_path: Path) -> Iterator[Callable[..., Watched]]:
    """Makes a site whose node-1 notifies."""
    with ExitStack() as stack:

        def make(**reboot: Any) -> Watched:
            receiver = Receiver()

            def script(request: BaseHTTPRequestHandler) -> None:
                body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
                if receiver.status == 200:
                    receiver.bodies.append(body)
                answer(request, b"ok", receiver.status)

            server = stack.enter_context(scripted(script))
            site = stack.enter_context(emulated(tmp_path / "site", reboot))
            url = tmp_path / "url"
            url.write_text(f"{server.url}/hook")
            made = Watched(site, site.add("node-1"), receiver, url)
            made.configure()
            return made

        yield make


def _request(watched: Watched, number: int) -> None:
    watched.site.annotate("node-1", "reboot-request", f"please {number}")


def test_a_failed_cycle_is_notified_once(watch: Callable[..., Watched]) -> None:
    """Each restart announces its end again; what another cycle announces is new."""
    watched = watch(command=["/bin/false"])
    watched.site.start()
    watched.site.require()
    for number in (1, 2, 3):
        watched.wait_for("RebootFailed", number)
        watched.wait_for("RebootLockReleased", number)
        watched.restart()
        _request(watched, number)
    watched.wait_for("RebootLockReleased", 4)
    assert watched.receiver.repeated() == []
    assert watched.receiver.reasons().count("RebootFailed") == 4


def test_a_blocked_node_is_notified_once(watch: Callable[..., Watched]) -> None:
    """Blocked for days, and restarted by each upgrade; another blocker is new."""
    watched = watch(windows=NEVER_OPEN)
    watched.site.start()
    watched.site.require()
    watched.wait_for("RebootBlocked")
    watched.restart()
    watched.restart()
    watched.site.annotate("node-1", "reboot-skip", "an incident")
    watched.wait_for("RebootBlocked", 2)
    assert watched.receiver.repeated() == []
    assert watched.receiver.reasons().count("RebootRequired") == 1


def test_a_drain_that_waits_is_notified_once(watch: Callable[..., Watched]) -> None:
    """The cordon and the budget that refuses."""
    watched = watch()
    watched.site.sandbox.create("pods", pod_on("node-1", "held", labels={"app": "held"}))
    budget = builders.budget("never", {"app": "held"}, max_unavailable=0)
    watched.site.sandbox.create("poddisruptionbudgets", budget)
    watched.site.start()
    watched.site.require()
    watched.wait_for("DrainBlocked")
    watched.restart()
    watched.site.sandbox.delete("poddisruptionbudgets", "never")
    watched.wait_for("RebootLockReleased")
    assert watched.receiver.repeated() == []


def test_a_verification_that_fails_is_notified_once(watch: Callable[..., Watched]) -> None:
    """Also over the reboot itself: what was delivered is remembered on the node."""
    watched = watch(hooks={"postReboot": [{"command": ["/bin/false"]}]})
    watched.site.start()
    watched.site.require()
    watched.wait_for("RebootFailed")
    watched.restart()
    watched.configure(hooks={"postReboot": []})
    watched.wait_for("RebootLockReleased")
    assert watched.receiver.repeated() == []


def test_what_was_not_delivered_is_sent_after_a_restart(watch: Callable[..., Watched]) -> None:
    """A receiver that was down has not seen it."""
    watched = watch(command=["/bin/false"])
    watched.receiver.status = 503
    watched.site.start()
    watched.site.require()
    watched.site.until(lambda: _is_given_up(watched), "given up")
    watched.receiver.status = 200
    watched.restart()
    watched.wait_for("RebootFailed")
    assert watched.receiver.repeated() == []


def _is_given_up(watched: Watched) -> bool:
    lines = watched.machine.log.read_text().splitlines()
    return any('"notification_failed"' in line and '"RebootLockReleased"' in line for line in lines)


@pytest.mark.parametrize("content", [b"", b"\xff\x00" * 200_000, b"not a digest\n"], ids=["empty", "huge", "strange"])
def test_a_damaged_memory_costs_no_notification(watch: Callable[..., Watched], content: bytes) -> None:
    """It is read as empty, and replaced."""
    watched = watch(command=["/bin/false"])
    path = watched.machine.root.path / delivery_log.PATH.lstrip("/")
    path.write_bytes(content)
    watched.site.start()
    watched.site.require()
    watched.wait_for("RebootLockReleased")
    watched.site.until(lambda: path.stat().st_size < 10_000 and path.read_bytes() != content, "a memory of its own")
