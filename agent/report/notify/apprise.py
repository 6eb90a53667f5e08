"""Any service that Apprise supports, through a child process that ends after the message.

Apprise in the agent would cost 14 MiB on every node; a child costs them for a second. The URL is passed on standard
input, so that no process list shows it, and the child's output is ignored.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Protocol

from agent.errors import AgentError
from agent.kube.credentials import CommandResult
from agent.report.notify.http import NotSent
from agent.report.notify.message import Message

CHILD = "agent.report.notify.apprise_child"
SENT, NOT_SENT, NOT_UNDERSTOOD, NO_APPRISE = 0, 10, 11, 12
_KINDS = {"critical": "failure", "warning": "warning"}
_START_SECONDS = 20.0  # Python and Apprise on a busy node, before the first byte is sent


class Runner(Protocol):
    """Starts a command beside the agent: `Host.run` with `how=HostExec.DIRECT`; this package does not import host."""

    def __call__(
        self, argv: Sequence[str], *, timeout_seconds: float, input_bytes: bytes, environment: Mapping[str, str]
    ) -> CommandResult:
        """argv[0] is an absolute path; `environment` is added to a small one of its own. Raises HostError."""


def send(message: Message, url: str, run: Runner, *, timeout_seconds: float, environment: Mapping[str, str]) -> None:
    """Sends it once. Raises NotSent. environment: for its proxies."""
    kind = "success" if message.is_end else _KINDS.get(message.severity, "info")
    document = {"url": url, "title": f"{message.event.value} on {message.notification.node}", "body": message.text}
    passed = {name: text for name, text in environment.items() if name.lower().endswith("_proxy")}
    try:
        done = run(
            [sys.executable, "-I", "-m", CHILD],
            timeout_seconds=timeout_seconds + _START_SECONDS,
            input_bytes=json.dumps({**document, "kind": kind}).encode(),
            environment=passed,
        )
    except AgentError as error:
        raise NotSent(str(error)) from error
    if done.code == SENT:
        return
    if done.code == NO_APPRISE:
        raise NotSent("apprise is not installed: use an image with the extra `notify`", is_final=True)
    if done.code == NOT_UNDERSTOOD:
        raise NotSent("apprise supports no service with that URL", is_final=True)
    raise NotSent(f"apprise did not send it (exit code {done.code})")
