"""What each kind of receiver is sent: one request, as its API wants it.

Pure, but for the clock that is passed in. Other people's text stays text: it mentions nobody and links nowhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from agent.config.schema import NotifyType
from agent.report.node_status import cut
from agent.report.notify.notice import HAS_END, Message, is_about_lock

_PRODUCT = "node-hardening-agent"
_PAGERDUTY = "https://events.pagerduty.com/v2/enqueue"
_PAGERDUTY_KEY_CHARACTERS = 255
_SUMMARY_CHARACTERS = 1024
# Alertmanager forgets an alert that is not sent again. Nobody sends again from a node that is going down, so the alert
# says itself how long it lasts unless its end is told: a problem a day, what just happened an hour.
_PROBLEM_SECONDS, _NEWS_SECONDS = 86400.0, 3600.0

TELLS_ENDS = frozenset((NotifyType.PAGERDUTY, NotifyType.ALERTMANAGER))


@dataclass(frozen=True, slots=True)
class Post:
    """One request. The URL and what identifies us in the body are secrets; neither is in the repr."""

    url: str = field(repr=False)
    body: Any = field(repr=False)
    refused_text: str = ""  # an answer that begins so is a refusal, whatever its status says


def slack(message: Message, url: str, _key: str) -> Post:
    """https://api.slack.com/messaging/webhooks; the three characters that mean something to Slack are escaped."""
    text = message.text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")
    return Post(url, {"text": text})


def teams(message: Message, url: str, _key: str) -> Post:
    """An Adaptive Card, as the Workflows webhooks take it; a text run, because a text block would read Markdown.

    https://learn.microsoft.com/en-us/microsoftteams/platform/webhooks-and-connectors/how-to/connectors-using
    """
    color = {"critical": "attention", "warning": "warning"}.get(message.severity, "default")
    card = {
        "$schema": "http://adaptivecards.io/schemas/adaptive-card.json",
        "type": "AdaptiveCard",
        "version": "1.4",
        "body": [
            {"type": "RichTextBlock", "inlines": [{"type": "TextRun", "text": message.text, "color": color}]},
        ],
    }
    kind = "application/vnd.microsoft.card.adaptive"
    body = {"type": "message", "attachments": [{"contentType": kind, "contentUrl": None, "content": card}]}
    return Post(url, body, refused_text="Webhook message delivery failed")


def pagerduty(message: Message, url: str, key: str) -> Post:
    """Events API v2: one incident a problem. https://developer.pagerduty.com/docs/send-alert-event"""
    body: dict[str, Any] = {
        "routing_key": key,
        "event_action": "resolve" if message.is_end else "trigger",
        "dedup_key": cut(message.problem, _PAGERDUTY_KEY_CHARACTERS),
    }
    if not message.is_end:
        notice = message.notice
        details = {"message": notice.message, "node": notice.node, "lease": notice.lease, "cluster": message.cluster}
        body["client"] = _PRODUCT
        body["payload"] = {
            "summary": cut(message.text, _SUMMARY_CHARACTERS),
            "source": notice.node,
            "severity": message.severity,
            "timestamp": stamp(notice.at),
            "component": _PRODUCT,
            "class": message.event.value,
            "group": message.cluster or "kubernetes",
            "custom_details": {name: text for name, text in details.items() if text},
        }
    return Post(url or _PAGERDUTY, body)


def alertmanager(message: Message, url: str, _key: str, now: float) -> Post:
    """API v2: an alert whose labels are the problem's name, so that its end finds it.

    https://github.com/prometheus/alertmanager/blob/main/api/v2/openapi.yaml
    """
    notice = message.notice
    about = {"lease": notice.lease} if is_about_lock(message.event, notice) else {"node": notice.node}
    labels = {
        "alertname": message.event.value,
        "severity": message.severity,
        "component": _PRODUCT,
        "cluster": message.cluster,
        **about,
    }
    alert: dict[str, Any] = {"labels": {name: text for name, text in labels.items() if text}}
    if message.is_end:
        alert["endsAt"] = stamp(now)
    else:
        lasts = _PROBLEM_SECONDS if message.event in HAS_END else _NEWS_SECONDS
        alert["annotations"] = {"summary": message.text, "description": notice.message, "reported_by": notice.node}
        alert["startsAt"] = stamp(min(notice.at, now))
        alert["endsAt"] = stamp(now + lasts)
    path = "/api/v2/alerts"
    whole = url.rstrip("/")
    return Post(whole if whole.endswith(path) else whole + path, [alert])


def webhook(message: Message, url: str, _key: str) -> Post:
    """Everything that is known, under stable names; docs/notifications.md is the contract."""
    notice = message.notice
    body = {
        "version": 1,
        "event": message.event.value,
        "severity": message.severity,
        "node": notice.node,
        "lease": notice.lease,
        "cluster": message.cluster,
        "message": notice.message,
        "text": message.text,
        "time": stamp(notice.at),
        "key": notice.key,
        "problem": message.problem,
    }
    return Post(url, body)


_BUILDERS: Mapping[NotifyType, Callable[[Message, str, str], Post]] = {
    NotifyType.SLACK: slack,
    NotifyType.TEAMS: teams,
    NotifyType.PAGERDUTY: pagerduty,
    NotifyType.WEBHOOK: webhook,
}


def build(kind: NotifyType, message: Message, url: str, key: str, now: float) -> Post:
    """The request for a receiver that takes HTTP. url, key: as read from their files. now: epoch seconds."""
    if kind is NotifyType.ALERTMANAGER:
        return alertmanager(message, url, key, now)
    return _BUILDERS[kind](message, url, key)


def stamp(when: float) -> str:
    """RFC 3339 with milliseconds, UTC."""
    return datetime.fromtimestamp(when, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
