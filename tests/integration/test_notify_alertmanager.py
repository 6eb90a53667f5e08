"""Notifications on a real Alertmanager: a problem becomes an alert, its end resolves it, and it passes that on."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest

from agent.config.choices import NotifyType
from agent.config.schema import Notify
from agent.event_reasons import Reason
from agent.report.notify import DeliveryContext, Notification, Notifier
from tests.support.daemons import daemon, free_ports, get, program
from tests.support.kube import answer, scripted

LONG = 60.0  # a bound for what never happens, not a timing
CONFIG = """\
route: {{receiver: hook, group_by: [alertname, node, lease], group_wait: 100ms, group_interval: 200ms}}
receivers: [{{name: hook, webhook_configs: [{{url: "{hook}", send_resolved: true}}]}}]
"""


@dataclass
class Running:
    """An Alertmanager, and what it has passed on to its own receiver."""

    url: str
    passed_on: list[dict[str, Any]]
    heard: threading.Condition

    def alerts(self, **query: str) -> list[dict[str, Any]]:
        """What it holds now."""
        found: list[dict[str, Any]] = get(f"{self.url}/api/v2/alerts", **query).json()
        return found

    def firing(self) -> set[str]:
        return {alert["labels"]["alertname"] for alert in self.alerts()}

    def passes_on(self, holds: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        """Waits for one alert that it tells its receiver of."""
        with self.heard:
            assert self.heard.wait_for(lambda: any(map(holds, self.passed_on)), LONG), self.passed_on
            return next(filter(holds, self.passed_on))


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[Running]:
    path = program("prometheus-alertmanager", "prometheus-alertmanager")
    passed_on: list[dict[str, Any]] = []
    heard = threading.Condition()

    def hook(request: BaseHTTPRequestHandler) -> None:
        body = json.loads(request.rfile.read(int(request.headers["Content-Length"])))
        with heard:
            passed_on.extend(body["alerts"])
            heard.notify_all()
        answer(request, b"{}")

    with scripted(hook) as receiver:
        (port,) = free_ports(1)
        (tmp_path / "am.yaml").write_text(CONFIG.format(hook=receiver.url))
        argv = [
            path,
            f"--config.file={tmp_path / 'am.yaml'}",
            f"--storage.path={tmp_path / 'data'}",
            f"--web.listen-address=127.0.0.1:{port}",
            "--cluster.listen-address=",
            "--log.level=warn",
        ]
        url = f"http://127.0.0.1:{port}"
        with daemon(argv, f"{url}/-/ready", tmp_path / "log"):
            yield Running(url, passed_on, heard)


@dataclass
class Agent:
    """One node's notifier; each is a process of its own, which remembers nothing of the others."""

    notifier: Notifier
    told: list[str]
    node: str

    def say(self, reason: Reason, message: str = "m", lease: str = "") -> None:
        self.notifier.send(Notification(reason, message, self.node, lease=lease))
        assert self.notifier.flush(LONG)
        assert set(self.told) == {"sent"}


@pytest.fixture
def agent(alertmanager: Running, tmp_path: Path) -> Callable[[str], Agent]:
    file = tmp_path / "url"
    file.write_text(f"{alertmanager.url}\n")

    def make(node: str) -> Agent:
        told: list[str] = []
        receiver = Notify(type=NotifyType.ALERTMANAGER, url_file=str(file), cluster="prod")
        return Agent(Notifier([receiver], DeliveryContext(environment={}), on_outcome=told.append), told, node)

    return make


def until(holds: Callable[[], bool]) -> None:
    ends = time.monotonic() + LONG
    while not holds():
        assert time.monotonic() < ends
        time.sleep(0.05)


def test_a_failure_is_an_alert_until_a_reboot_succeeds(alertmanager: Running, agent: Callable[[str], Agent]) -> None:
    """The success is told by another process, after the reboot; what is not for on-call is not sent."""
    agent("worker-1").say(Reason.REBOOT_FAILED, "the reboot command failed: exit code 1")
    (alert,) = alertmanager.alerts()
    assert alert["labels"] == {
        "alertname": "RebootFailed",
        "severity": "critical",
        "component": "node-hardening-agent",
        "cluster": "prod",
        "node": "worker-1",
    }
    assert alert["annotations"]["description"] == "the reboot command failed: exit code 1"
    assert alert["status"]["state"] == "active"
    lasts = datetime.fromisoformat(alert["endsAt"]) - datetime.now(UTC)
    assert 80_000 < lasts.total_seconds() < 90_000
    alertmanager.passes_on(lambda one: one["status"] == "firing")
    agent("worker-2").say(Reason.REBOOT_SUCCEEDED)
    assert alertmanager.firing() == {"RebootFailed"}
    agent("worker-1").say(Reason.REBOOT_SUCCEEDED)
    until(lambda: alertmanager.firing() == set())
    resolved = alertmanager.passes_on(lambda one: one["status"] == "resolved")
    assert resolved["labels"]["node"] == "worker-1"


def test_a_stuck_lock_is_one_alert_whoever_tells_it(alertmanager: Running, agent: Callable[[str], Agent]) -> None:
    """Two waiting nodes say it, the holder itself ends it when it is back after all."""
    for node in ("worker-1", "worker-3"):
        agent(node).say(Reason.REBOOT_LOCK_STUCK, "worker-2 holds the lock", lease="node-hardening-reboot-workers-0")
    (alert,) = alertmanager.alerts()
    assert alert["labels"]["lease"] == "node-hardening-reboot-workers-0"
    assert "node" not in alert["labels"]
    agent("worker-2").say(Reason.REBOOT_LOCK_RELEASED, lease="node-hardening-reboot-workers-0")
    until(lambda: alertmanager.firing() == set())


def test_an_end_without_a_problem_is_no_alert(alertmanager: Running, agent: Callable[[str], Agent]) -> None:
    """Every good reboot tells one, because it cannot know; nobody hears of it."""
    agent("worker-1").say(Reason.REBOOT_SUCCEEDED)
    agent("worker-2").say(Reason.CONFIG_REJECTED)
    alertmanager.passes_on(lambda one: one["labels"]["alertname"] == "ConfigRejected")
    assert {one["labels"]["alertname"] for one in alertmanager.passed_on} == {"ConfigRejected"}
    assert alertmanager.firing() == {"ConfigRejected"}
