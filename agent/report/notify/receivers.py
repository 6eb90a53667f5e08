"""The one list of notifiers: what each kind of receiver is sent, and how.

Text from outside stays text: it mentions no user and links nowhere.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from agent.config.choices import NotifyType
from agent.config.schema import Notify
from agent.report.node_status import cut
from agent.report.notify import apprise, http
from agent.report.notify.http import NotSent, Post
from agent.report.notify.message import HAS_END, Delivered, Message, is_about_lock
from agent.text import format_rfc3339

_PRODUCT = "node-hardening-agent"
_PAGERDUTY = "https://events.pagerduty.com/v2/enqueue"
_PAGERDUTY_KEY_CHARACTERS = 255
_SUMMARY_CHARACTERS = 1024
# Alertmanager forgets an alert that is not sent again, and a node that goes down cannot send. So each alert carries its
# end: a day for a problem, an hour for what just happened.
_PROBLEM_SECONDS, _NEWS_SECONDS = 86400.0, 3600.0
_stamp = partial(format_rfc3339, timespec="milliseconds")


@dataclass(frozen=True, slots=True)
class DeliveryContext:
    """What a delivery needs.

    run: starts apprise's child; None where there is no host to run it on. delivered: what is not sent again.
    """

    run: apprise.Runner | None = None
    environment: Mapping[str, str] = field(default_factory=lambda: os.environ, repr=False)
    wall: Callable[[], float] = time.time
    delivered: Delivered = field(default_factory=set[str])


@dataclass(frozen=True, slots=True)
class NotifierSpec:
    """One kind of receiver. send: one attempt; raises NotSent. resolves: it keeps problems that end."""

    send: Callable[[Message, Notify, DeliveryContext], None]
    resolves: bool = False


def slack(message: Message, url: str, _key: str, _now: float) -> Post:
    """https://api.slack.com/messaging/webhooks; the three characters with a meaning in Slack are escaped."""
    text = message.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return Post(url, {"text": text})


def teams(message: Message, url: str, _key: str, _now: float) -> Post:
    """An Adaptive Card for a Workflows webhook; a text run, because a text block would render Markdown.

    https://learn.microsoft.com/en-us/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using
    """
    color = {"critical": "attention", "warning": "warning"}.get(message.severity, "default")
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [{"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": message.text, "color": color}]}],
    }
    kind = "application/vnd.microsoft.card.adaptive"
    body = {"type": "message", "attachments": [{"contentType": kind, "contentUrl": None, "content": card}]}
    return Post(url, body, refused_text="Webhook message delivery failed")


def pagerduty(message: Message, url: str, key: str, _now: float) -> Post:
    """Events API v2: one incident a problem. https://developer.pagerduty.com/docs/send-alert-event"""
    body: dict[str, Any] = {
        "routing_key": key,
        "event_action": "resolve" if message.is_end else "trigger",
        "dedup_key": cut(message.problem, _PAGERDUTY_KEY_CHARACTERS),
    }
    if not message.is_end:
        about = message.notification
        details = {"message": about.message, "node": about.node, "lease": about.lease, "cluster": message.cluster}
        body["client"] = _PRODUCT
        body["payload"] = {
            "summary": cut(message.text, _SUMMARY_CHARACTERS),
            "source": about.node,
            "severity": message.severity,
            "timestamp": _stamp(about.at),
            "component": _PRODUCT,
            "class": message.event.value,
            "group": message.cluster or "kubernetes",
            "custom_details": {name: text for name, text in details.items() if text},
        }
    return Post(url or _PAGERDUTY, body)


def alertmanager(message: Message, url: str, _key: str, now: float) -> Post:
    """API v2: an alert whose labels name the problem, so that its end finds it.

    https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml
    """
    about = message.notification
    subject = {"lease": about.lease} if is_about_lock(message.event, about) else {"node": about.node}
    labels = {
        "alertname": message.event.value,
        "severity": message.severity,
        "component": _PRODUCT,
        "cluster": message.cluster,
        **subject,
    }
    alert: dict[str, Any] = {"labels": {name: text for name, text in labels.items() if text}}
    if message.is_end:
        alert["endsAt"] = _stamp(now)
    else:
        lasts = _PROBLEM_SECONDS if message.event in HAS_END else _NEWS_SECONDS
        alert["annotations"] = {"summary": message.text, "description": about.message, "reported_by": about.node}
        alert["startsAt"] = _stamp(min(about.at, now))
        alert["endsAt"] = _stamp(now + lasts)
    path = "/api/v2/alerts"
    whole = url.rstrip("/")
    return Post(whole if whole.endswith(path) else whole + path, [alert])


def webhook(message: Message, url: str, _key: str, _now: float) -> Post:
    """All fields under stable names; docs/notifications.md is the contract."""
    about = message.notification
    body = {
        "version": 1,
        "event": message.event.value,
        "severity": message.severity,
        "node": about.node,
        "lease": about.lease,
        "cluster": message.cluster,
        "message": about.message,
        "text": message.text,
        "time": _stamp(about.at),
        "key": about.key,
        "problem": message.problem,
    }
    return Post(url, body)


def _by_http(build: Callable[[Message, str, str, float], Post]) -> Callable[[Message, Notify, DeliveryContext], None]:
    def send(message: Message, receiver: Notify, context: DeliveryContext) -> None:
        url = http.url_in(receiver.url_file) if receiver.url_file else ""  # some have a well-known one
        key = http.secret(receiver.key_file) if receiver.key_file else ""
        post = build(message, url, key, context.wall())
        http.send(post, timeout_seconds=receiver.timeout, environment=context.environment)

    return send


def _by_apprise(message: Message, receiver: Notify, context: DeliveryContext) -> None:
    url = http.secret(receiver.url_file)
    if context.run is None:
        raise NotSent("no host to run apprise on", is_final=True)
    apprise.send(message, url, context.run, timeout_seconds=receiver.timeout, environment=context.environment)


NOTIFIERS: Mapping[str, NotifierSpec] = {
    NotifyType.SLACK: NotifierSpec(_by_http(slack)),
    NotifyType.TEAMS: NotifierSpec(_by_http(teams)),
    NotifyType.PAGERDUTY: NotifierSpec(_by_http(pagerduty), resolves=True),
    NotifyType.ALERTMANAGER: NotifierSpec(_by_http(alertmanager), resolves=True),
    NotifyType.WEBHOOK: NotifierSpec(_by_http(webhook)),
    NotifyType.APPRISE: NotifierSpec(_by_apprise),
}
