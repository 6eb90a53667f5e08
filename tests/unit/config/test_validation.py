"""Rules between keys: a contradiction is refused, also where one key could simply win."""

from __future__ import annotations

import pytest

from agent.config import loads
from agent.errors import ConfigError

SLACK = "type: slack, urlFile: /run/secrets/slack"


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("modprobe: {file: /etc/modprobe.d/x.txt}", "modprobe.file", "NAME.conf in a folder modprobe.d"),
        ("modprobe: {file: /etc/x.conf}", "modprobe.file", "NAME.conf in a folder modprobe.d"),
        ("modprobe: {file: /etc/modprobe.d/.conf}", "modprobe.file", "NAME.conf in a folder modprobe.d"),
        ("modprobe: {deny: [usb-storage], allow: [usb_storage]}", "modprobe.allow[0]", "write it in one of them"),
        (
            "reboot: {sentinel: {file: /var/run/reboot-required, command: [/bin/true]}}",
            "reboot.sentinel.command",
            "a file or a command, write one of them",
        ),
        (
            "reboot: {sentinel: {exitCodes: {100: required}}}",
            "reboot.sentinel.exitCodes",
            "is not used without a command",
        ),
        (
            "reboot: {sentinel: {command: [/bin/true], exitCodes: {0: none}}}",
            "reboot.sentinel.exitCodes",
            "no code that means required",
        ),
        ("reboot: {windows: [{days: []}]}", "reboot.windows[0].days", "would never open"),
        ("reboot: {windows: [{}, {start: 22:00, end: 22:00}]}", "reboot.windows[1].end", "both 22:00"),
        ("reboot: {blackouts: [{reason: x}]}", "reboot.blackouts[0].start", "is missing"),
        ("reboot: {blackouts: [{start: 12-20, end: 2027-01-02}]}", "reboot.blackouts[0].end", "not of one form"),
        ("reboot: {blackouts: [{start: 2026-12-20, end: 2026-12-01}]}", "reboot.blackouts[0].end", "is before start"),
        (
            "reboot: {blockers: {prometheus: {url: https://p, tokenFile: /t, basicAuthFile: /b}}}",
            "reboot.blockers.prometheus.basicAuthFile",
            "is given beside tokenFile: write one of them",
        ),
        (
            "reboot: {blockers: {prometheus: {url: https://p, headerFiles: {Authorization: /h}}}}",
            "reboot.blockers.prometheus.headerFiles",
            "not a header that may be set",
        ),
        (
            "reboot: {drain: {timeout: 1m, waitFor: {pods: [a], timeout: 2m}}}",
            "reboot.drain.waitFor.timeout",
            "longer than reboot.drain.timeout",
        ),
        ("reboot: {drain: {waitFor: {timeout: 1m}}}", "reboot.drain.waitFor.timeout", "without pods or annotations"),
        ("reboot: {drain: {evictLast: ['']}}", "reboot.drain.evictLast", "matches every pod"),
        ("reboot: {blockers: {prometheus: {ignore: x}}}", "reboot.blockers.prometheus.url", "while ignore is given"),
        (
            "reboot: {blockers: {prometheus: {url: http://p, query: up, only: x}}}",
            "reboot.blockers.prometheus.only",
            "query selects series instead",
        ),
        (
            "reboot: {blockers: {prometheus: {url: http://p, query: up, labels: a=b}}}",
            "reboot.blockers.prometheus.labels",
            "query selects series instead",
        ),
        (
            "reboot: {blockers: {prometheus: {url: http://p, caFile: /ca.pem}}}",
            "reboot.blockers.prometheus.caFile",
            "not used for an http URL",
        ),
        ("reboot: {blockers: {pods: [a=b, '']}}", "reboot.blockers.pods[1]", "every pod would block"),
        ("reboot: {concurrency: 3}", "reboot.concurrency", "needs maxUnavailable of as many: it is 1"),
        ("reboot: {concurrency: 3, maxUnavailable: 2}", "reboot.maxUnavailable", "needs maxUnavailable of as many"),
        ("reboot: {drain: {timeout: 1m, gracePeriod: 2m}}", "reboot.drain.gracePeriod", "would always time out"),
        ("reboot: {command: []}", "reboot.command", "nothing would reboot the node"),
        ("reboot: {method: signal, command: [/sbin/reboot]}", "reboot.command", "never run with method signal"),
        ("reboot: {hooks: {preReboot: [{timeout: 5s}]}}", "reboot.hooks.preReboot[0].command", "nothing would run"),
        ("notify: [{type: slack}]", "notify[0].urlFile", "slack needs the file with its URL"),
        ("notify: [{}]", "notify[0].urlFile", "webhook needs the file"),
        ("notify: [{type: pagerduty, urlFile: /u}]", "notify[0].keyFile", "routing key"),
        (f"notify: [{{{SLACK}, keyFile: /k}}]", "notify[0].keyFile", "is not used by slack"),
    ],
)
def test_contradictions_are_refused_with_the_line_of_the_key(text: str, key: str, message: str) -> None:
    """Whoever wrote both believes in both."""
    with pytest.raises(ConfigError) as caught:
        loads(f"\n{text}", "f")
    (problem,) = caught.value.problems
    assert (problem.key, problem.line) == (key, 2)
    assert message in problem.message


@pytest.mark.parametrize(
    "text",
    [
        "modprobe: {file: /usr/lib/modprobe.d/10-site.conf}",
        "modprobe: {deny: [dccp], allow: [sctp]}",
        "reboot: {sentinel: {command: [/bin/true], exitCodes: {100: required}}}",
        "reboot: {sentinel: {file: /run/reboot-needed}}",
        "reboot: {windows: [{start: 22:00}, {end: 06:00}, {start: 00:00, end: 00:00}]}",
        "reboot: {blockers: {prometheus: {url: http://p, query: up, timeout: 5s, tokenFile: /t}}}",
        "reboot: {blockers: {prometheus: {url: https://p, only: x, ignore: y, caFile: /ca.pem}}}",
        "reboot: {concurrency: 3, maxUnavailable: 3}",
        "reboot: {concurrency: 3, maxUnavailable: 10%}",
        "reboot: {drain: {timeout: 1m, gracePeriod: 1m}}",
        "reboot: {method: signal}",
        "reboot: {drain: {podSelector: ''}}",
        f"notify: [{{{SLACK}}}]",
        "notify: [{type: pagerduty, keyFile: /k}, {type: pagerduty, keyFile: /k, urlFile: /eu}]",
    ],
)
def test_what_only_looks_like_a_contradiction_loads(text: str) -> None:
    """A rule never stands in the way of a policy that can be kept."""
    loads(text, "f")


def test_a_rule_is_silent_where_a_value_is_wrong_anyway() -> None:
    """The mistake is named once, not once more as its consequence."""
    with pytest.raises(ConfigError) as caught:
        loads("notify: [{type: slack, urlFile: hooks}]\nreboot: {command: [reboot], concurrency: x}", "f")
    assert [one.key for one in caught.value.problems] == [
        "notify[0].urlFile",
        "reboot.command[0]",
        "reboot.concurrency",
    ]


def test_problems_of_form_and_rules_come_in_one_answer() -> None:
    """Rules are checked although something else does not validate."""
    with pytest.raises(ConfigError) as caught:
        loads("interval: x\nreboot: {windows: [{days: []}]}", "f")
    assert [one.key for one in caught.value.problems] == ["interval", "reboot.windows[0].days"]


def test_a_missing_key_is_reported_at_the_line_of_its_section() -> None:
    """There is no better place for what is not there."""
    with pytest.raises(ConfigError) as caught:
        loads("notify:\n  - {type: slack, urlFile: /u}\n  - type: pagerduty\n    cluster: x\n", "f")
    (problem,) = caught.value.problems
    assert (problem.key, problem.line) == ("notify[1].keyFile", 3)


def test_the_longest_month_has_31_days() -> None:
    window = "reboot: {windows: [{daysOfMonth: [%d], start: '01:00', end: '02:00'}]}"
    assert loads(window % 31, "c.yaml").reboot.windows[0].days_of_month == (31,)
    with pytest.raises(ConfigError, match="32 is in no month: write days from 1 to 31"):
        loads(window % 32, "c.yaml")
