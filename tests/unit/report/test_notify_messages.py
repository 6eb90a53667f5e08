"""What each receiver is told, in which words and in which form."""

from __future__ import annotations

import json
import string
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.choices import NotifyType
from agent.config.scalar_types import Kind
from agent.config.schema import Notify
from agent.event_reasons import Reason, Urgency
from agent.report.notify import receivers
from agent.report.notify.http import Post, proxies
from agent.report.notify.message import ENDS, Message, Notification, messages, render
from agent.report.notify.receivers import NOTIFIERS

AT = 1_900_000_000.25
FAILED = Notification(
    Reason.REBOOT_FAILED, "the reboot command failed: exit code 1", "worker-1", key="c1-RebootFailed", at=AT
)
SUCCEEDED = Notification(Reason.REBOOT_SUCCEEDED, "Rebooted and proved well", "worker-1", at=AT)
STUCK = Notification(Reason.REBOOT_LOCK_STUCK, "worker-2 holds the lock", "worker-1", lease="workers-0", at=AT)
RELEASED = Notification(Reason.REBOOT_LOCK_RELEASED, "The lock is released", "worker-2", lease="workers-0", at=AT)
FIELDS = {"node": "worker-1", "event": "RebootFailed", "message": "m {node}", "cluster": "prod", "severity": "critical"}


def told(notice: Notification, kind: NotifyType = NotifyType.WEBHOOK, **receiver: Any) -> Sequence[Message]:
    return messages(notice, Notify(type=kind, **receiver), resolves=NOTIFIERS[kind].resolves)


def build(kind: NotifyType, message: Message, url: str, key: str, now: float) -> Post:
    """The request for a receiver."""
    post: Post = getattr(receivers, kind.value)(message, url, key, now)
    return post


def posted(
    notice: Notification, kind: NotifyType, url: str = "https://hooks.example.com/secret", **receiver: Any
) -> list[Any]:
    """The bodies that a receiver gets."""
    return [build(kind, message, url, "routing-key", AT + 60).body for message in told(notice, kind, **receiver)]


# -- routing -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("reason", Reason)
def test_without_a_list_of_events_on_call_is_told_what_it_must_see(reason: Reason) -> None:
    """The urgency of each reason decides, and nothing else."""
    assert bool(told(Notification(reason, "m", "n"))) is (reason.urgency is Urgency.ON_CALL)


@given(st.sets(st.sampled_from(Reason), min_size=1), st.sampled_from(Reason), st.sampled_from(NotifyType))
def test_a_receiver_is_told_its_events_and_a_pager_their_ends(
    wanted: set[Reason], reason: Reason, kind: NotifyType
) -> None:
    """An end is told to whom the problem was told, whether or not the ending event is in the list."""
    found = told(Notification(reason, "m", "n", lease="l"), kind, events=tuple(wanted))
    expected = [(reason, False)] if reason in wanted else []
    if kind in (NotifyType.PAGERDUTY, NotifyType.ALERTMANAGER):
        expected += [(ended, True) for ended in ENDS.get(reason, ()) if ended in wanted]
    assert [(message.event, message.is_end) for message in found] == expected


def test_an_end_finds_its_problem() -> None:
    """Both sides derive the same name, on whichever node: the lock's problem is the lock's."""
    (failed,), (well,) = told(FAILED, NotifyType.PAGERDUTY), told(SUCCEEDED, NotifyType.PAGERDUTY)
    assert failed.problem == well.problem == "node-hardening/node/worker-1/RebootFailed"
    (stuck,), (free,) = told(STUCK, NotifyType.PAGERDUTY), told(RELEASED, NotifyType.PAGERDUTY)
    assert stuck.problem == free.problem == "node-hardening/lease/workers-0/RebootLockStuck"
    (other,) = told(FAILED, NotifyType.PAGERDUTY, cluster="prod")
    assert other.problem == "node-hardening/prod/node/worker-1/RebootFailed"


def test_the_lock_is_no_longer_stuck_once_another_node_has_it() -> None:
    """On-call cleared it by hand: nobody says that it was released."""
    taken = Notification(Reason.REBOOT_LOCK_ACQUIRED, "worker-3 has the lock", "worker-3", lease="workers-0")
    (stuck,), (over,) = told(STUCK, NotifyType.PAGERDUTY), told(taken, NotifyType.PAGERDUTY)
    assert (over.problem, over.is_end) == (stuck.problem, True)


def test_every_event_that_on_call_must_see_has_an_end() -> None:
    """An incident that nothing ever closes teaches people to ignore incidents."""
    ended = {reason for some in ENDS.values() for reason in some}
    assert {reason for reason in Reason if reason.urgency is Urgency.ON_CALL} <= ended


# -- words -------------------------------------------------------------------------------------------------------------


def test_the_default_text_says_it_all() -> None:
    """Cluster, how bad, what, where and why."""
    assert told(FAILED)[0].text == "critical: RebootFailed on worker-1: the reboot command failed: exit code 1"
    assert told(FAILED, cluster="prod")[0].text.startswith("[prod] critical: RebootFailed")


def test_a_template_is_filled_in_once() -> None:
    """What a message holds is text, even where it looks like a field."""
    template = "{{{cluster}}} {severity} {event} {node}: {message}"
    assert render(template, FIELDS) == "{prod} critical RebootFailed worker-1: m {node}"


pieces = st.text(st.characters(exclude_characters="{}"), max_size=8) | st.sampled_from(
    ["{node}", "{event}", "{message}", "{cluster}", "{severity}", "{{", "}}"]
)


@given(st.lists(pieces, max_size=8), st.fixed_dictionaries({name: st.text(max_size=20) for name in FIELDS}))
def test_every_template_that_validates_can_be_filled_in(parts: list[str], fields: dict[str, str]) -> None:
    """The configuration's reader and this room agree on what a template is."""
    template = Kind.TEMPLATE.read("".join(parts))
    expected = "".join(
        fields[part[1:-1]]
        if part[1:-1] in fields and part.startswith("{")
        else part.replace("{{", "{").replace("}}", "}")
        for part in parts
    )
    if template:
        assert render(template, fields) == expected


@given(st.text(alphabet="{}node!r:.[]0 ", max_size=12))
def test_what_the_reader_refuses_is_never_filled_in(text: str) -> None:
    """No attribute, index, conversion or format of a field: those reach further than a text should."""
    try:
        Kind.TEMPLATE.read(text)
    except ValueError:
        pass
    else:
        render(text, FIELDS)
        assert all(name in (None, "node") for _, name, _, _ in string.Formatter().parse(text))


def test_a_long_message_is_cut() -> None:
    """Receivers refuse what is too long, and then nobody reads anything."""
    assert len(told(Notification(Reason.REBOOT_FAILED, "x" * 9000, "n"))[0].text) < 1100


# -- forms -------------------------------------------------------------------------------------------------------------


def test_slack_gets_text_that_mentions_nobody() -> None:
    """`<!channel>` in a package's name stays what it is."""
    notice = Notification(Reason.REBOOT_FAILED, "<!channel> a & b", "n")
    (body,) = posted(notice, NotifyType.SLACK)
    assert body == {"text": "critical: RebootFailed on n: &lt;!channel&gt; a &amp; b"}


def test_teams_gets_a_card_with_plain_text() -> None:
    """A text run: Markdown in a message makes no links."""
    (body,) = posted(Notification(Reason.REBOOT_FAILED, "[click](http://x)", "n"), NotifyType.TEAMS)
    assert body["type"] == "message"
    (attachment,) = body["attachments"]
    assert attachment["contentType"] == "application/vnd.microsoft.card.adaptive"
    (block,) = attachment["content"]["body"]
    run = {"type": "TextRun", "text": "critical: RebootFailed on n: [click](http://x)", "color": "attention"}
    assert block == {"type": "RichTextBlock", "inlines": [run]}


def test_pagerduty_gets_one_incident_a_problem() -> None:
    """Events API v2: trigger with a payload, resolve with the key alone."""
    (body,) = posted(FAILED, NotifyType.PAGERDUTY, cluster="prod")
    assert (body["routing_key"], body["event_action"]) == ("routing-key", "trigger")
    payload = body["payload"]
    assert (payload["source"], payload["severity"], payload["group"]) == ("worker-1", "critical", "prod")
    assert payload["timestamp"] == "2030-03-17T17:46:40.250Z"
    (end,) = posted(SUCCEEDED, NotifyType.PAGERDUTY, cluster="prod")
    assert end == {"routing_key": "routing-key", "event_action": "resolve", "dedup_key": body["dedup_key"]}
    (long,) = posted(Notification(Reason.REBOOT_FAILED, "m", "n" * 253), NotifyType.PAGERDUTY, cluster="c" * 300)
    assert len(long["dedup_key"]) <= 255


def test_pagerduty_is_reached_where_it_is_unless_told_otherwise() -> None:
    """The European region has another URL."""
    (message,) = told(FAILED, NotifyType.PAGERDUTY)
    assert build(NotifyType.PAGERDUTY, message, "", "k", AT).url == "https://events.pagerduty.com/v2/enqueue"
    eu = "https://events.eu.pagerduty.com/v2/enqueue"
    assert build(NotifyType.PAGERDUTY, message, eu, "k", AT).url == eu


def test_alertmanager_gets_an_alert_that_its_end_finds() -> None:
    """Equal labels on both; a problem lasts a day at most, the end is now."""
    ((alert,),) = posted(FAILED, NotifyType.ALERTMANAGER, cluster="prod")
    labels = {
        "alertname": "RebootFailed",
        "severity": "critical",
        "component": "node-hardening-agent",
        "cluster": "prod",
        "node": "worker-1",
    }
    assert alert["labels"] == labels
    assert alert["annotations"]["description"] == FAILED.message
    lasts = datetime.fromisoformat(alert["endsAt"]) - datetime.fromisoformat(alert["startsAt"])
    assert lasts.total_seconds() == pytest.approx(86400 + 60, abs=1)
    ((end,),) = posted(SUCCEEDED, NotifyType.ALERTMANAGER, cluster="prod")
    assert end == {"labels": labels, "endsAt": "2030-03-17T17:47:40.250Z"}
    ((stuck,),) = posted(STUCK, NotifyType.ALERTMANAGER)
    assert stuck["labels"].keys() == {"alertname", "severity", "component", "lease"}


@pytest.mark.parametrize(
    ("base", "whole"),
    [
        ("http://am:9093", "http://am:9093/api/v2/alerts"),
        ("http://am:9093/", "http://am:9093/api/v2/alerts"),
        ("http://gw/alertmanager", "http://gw/alertmanager/api/v2/alerts"),
        ("http://am:9093/api/v2/alerts", "http://am:9093/api/v2/alerts"),
    ],
)
def test_alertmanagers_url_may_be_its_base(base: str, whole: str) -> None:
    """As people know it from their configuration of Prometheus."""
    (message,) = told(FAILED, NotifyType.ALERTMANAGER)
    assert build(NotifyType.ALERTMANAGER, message, base, "", AT).url == whole


def test_a_webhook_gets_everything_under_stable_names() -> None:
    """docs/notifications.md is the contract."""
    (body,) = posted(STUCK, NotifyType.WEBHOOK, cluster="prod")
    assert body == {
        "version": 1,
        "event": "RebootLockStuck",
        "severity": "critical",
        "node": "worker-1",
        "lease": "workers-0",
        "cluster": "prod",
        "message": "worker-2 holds the lock",
        "text": "[prod] critical: RebootLockStuck on worker-1: worker-2 holds the lock",
        "time": "2030-03-17T17:46:40.250Z",
        "key": "",
        "problem": "node-hardening/prod/lease/workers-0/RebootLockStuck",
    }


@given(
    st.text(st.characters(exclude_categories=()), max_size=200),
    st.sampled_from([kind for kind in NotifyType if kind is not NotifyType.APPRISE]),
)
def test_any_message_becomes_json(message: str, kind: NotifyType) -> None:
    """Also with halves of surrogate pairs from a command's output."""
    for body in posted(Notification(Reason.REBOOT_FAILED, message, "n"), kind):
        assert json.loads(json.dumps(body)) == body


def test_a_request_does_not_show_its_url_or_key() -> None:
    """Where a value ends in a log by accident, the secret does not."""
    (message,) = told(FAILED, NotifyType.PAGERDUTY)
    assert "secret" not in repr(build(NotifyType.PAGERDUTY, message, "https://h/secret", "secret-key", AT))


# -- proxies -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "environment", "expected"),
    [
        ("https://hooks.example.com/x", {}, {}),
        ("https://hooks.example.com/x", {"HTTPS_PROXY": "http://p:3128"}, {"https": "http://p:3128"}),
        ("https://hooks.example.com/x", {"https_proxy": "http://p:3128"}, {"https": "http://p:3128"}),
        ("https://hooks.example.com/x", {"ALL_PROXY": "http://p:3128"}, {"https": "http://p:3128"}),
        ("http://am.monitoring.svc:9093", {"HTTPS_PROXY": "http://p:3128"}, {}),
        ("https://am.monitoring.svc", {"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "a,.svc"}, {}),
        ("https://am.monitoring.svc", {"HTTPS_PROXY": "http://p:3128", "NO_PROXY": "*"}, {}),
        ("http://127.0.0.1:9093", {"HTTP_PROXY": "http://p:3128"}, {}),
        ("http://[::1]:9093", {"HTTP_PROXY": "http://p:3128"}, {}),
    ],
)
def test_proxies_of_the_environment_are_used_where_they_are_meant(
    url: str, environment: dict[str, str], expected: dict[str, str]
) -> None:
    """Chat services are outside; what is inside is named in NO_PROXY."""
    assert proxies(url, environment) == expected
