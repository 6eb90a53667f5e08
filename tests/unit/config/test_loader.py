"""From a file to a Config, or to every problem in it with file, line, key and what would be right."""

from __future__ import annotations

import os
import textwrap
import zoneinfo
from pathlib import Path

import pytest

from agent.config import Config, load, loads
from agent.config.choices import AuditMode, Mode, NotifyType, Required, Weekday
from agent.config.loader import MAX_BYTES
from agent.config.schema import Apparmor, Drain, Hook, Modprobe, Notify, Reboot, Window
from agent.config.schema_tree import keys
from agent.config.selector import parse
from agent.errors import ConfigError, Problem
from agent.event_reasons import Reason


def problems(text: str) -> tuple[Problem, ...]:
    """Every problem of a text that does not validate."""
    with pytest.raises(ConfigError) as caught:
        loads(textwrap.dedent(text), "policy.yaml")
    return caught.value.problems


def problem(text: str) -> Problem:
    """The only problem of a text."""
    (only,) = problems(text)
    return only


# -- what loads --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "",
        "# nothing\n",
        "{}",
        "---\n",
        "apiVersion: node-hardening.io/v1alpha1\nkind: AgentConfig\n",
        "\ufeffreboot:\n",
    ],
)
def test_the_empty_file_is_the_default_policy(text: str) -> None:
    """Every key is optional, apiVersion and kind too."""
    assert loads(text, "f") == Config()


def test_the_default_policy_is_what_the_project_is_for() -> None:
    """dccp and sctp denied, profiles enforced, the kubelet audited, reboots one at a time by Debian's sentinel."""
    config = Config()
    assert config.modprobe.lists == ("kubernetes",)
    assert (config.modprobe.mode, config.apparmor.mode, config.seccomp.mode) == (Mode.ENFORCE,) * 3
    assert config.kubelet.mode is AuditMode.AUDIT
    assert (config.reboot.mode, config.reboot.concurrency) == (Mode.ENFORCE, 1)
    assert config.reboot.sentinel.file == "/var/run/reboot-required"


def test_a_policy_as_people_write_it() -> None:
    """The whole form at once: sections, lists, mappings, durations, times, selectors, enums."""
    config = loads(
        textwrap.dedent(
            """\
            apiVersion: node-hardening.io/v1alpha1
            kind: AgentConfig
            interval: 5m                       # a full pass; folders are watched in between
            modprobe:
              mode: enforce
              file: /etc/modprobe.d/kubernetes-blacklist.conf
              lists: [kubernetes]
              deny: []
              allow: []
              unload: false
            apparmor: {mode: enforce, profiles: /etc/node-hardening/apparmor}
            seccomp:  {mode: enforce, profiles: /etc/node-hardening/seccomp, directory: auto}
            kubelet:
              mode: audit
              probe: true
              skip: {"4.2.6": "no kube-proxy here"}
            reboot:
              mode: enforce
              sentinel: {file: /var/run/reboot-required}
              pool: {label: ""}
              concurrency: 1
              maxUnavailable: 1
              windows: [{days: [mon, tue, wed, thu], start: "22:00", end: "04:00", timezone: Europe/Berlin}]
              blockers:
                prometheus: {url: "http://prometheus:9090", ignore: "^Watchdog$", firingOnly: true}
                pods: ["batch.example.com/critical=true"]
                minimumGap: 0s
              drain: {timeout: 30m, onTimeout: abort, gracePeriod: null, deleteEmptyDirData: true, force: true,
                      podSelector: ""}
              hooks: {preDrain: [], preReboot: [], postReboot: []}
              lock: {leaseDuration: 60s, releaseDelay: 0s, onLostHolder: hold, kured: auto}
              command: [/usr/bin/systemctl, reboot]
              rebootTimeout: 10m
              verifyTimeout: 15m
            notify: [{type: slack, urlFile: /etc/node-hardening/secrets/slack, events: [RebootLockStuck, RebootFailed]}]
            status: {label: true, startupTaint: true}
            metrics: {address: "0.0.0.0:9105"}
            log: {level: info, format: auto}
            """
        ),
        "f",
    )
    assert config.kubelet.skip == {"4.2.6": "no kube-proxy here"}
    days = (Weekday.MON, Weekday.TUE, Weekday.WED, Weekday.THU)
    assert config.reboot.windows == (Window(days=days, start="22:00", end="04:00", timezone="Europe/Berlin"),)
    assert config.reboot.blockers.prometheus.url == "http://prometheus:9090"
    assert config.reboot.blockers.pods == (parse("batch.example.com/critical=true"),)
    events = (Reason.REBOOT_LOCK_STUCK, Reason.REBOOT_FAILED)
    slack = Notify(type=NotifyType.SLACK, url_file="/etc/node-hardening/secrets/slack", events=events)
    assert config.notify == (slack,)
    # Everything else stands at its default there.
    assert (config.interval, config.modprobe, config.apparmor) == (300.0, Modprobe(), Apparmor())
    assert (config.reboot.drain, config.reboot.lock, config.reboot.hooks) == (Drain(), Reboot().lock, Reboot().hooks)


def test_a_sentinel_command_with_its_exit_codes() -> None:
    """Keys of exitCodes are numbers, quoted or not."""
    for written in ("{1: required, 0: none}", '{"1": required, "0": none}'):
        text = f"reboot: {{sentinel: {{command: [/usr/bin/needs-restarting, -r], exitCodes: {written}}}}}"
        sentinel = loads(text, "f").reboot.sentinel
        assert sentinel.command == ("/usr/bin/needs-restarting", "-r")
        assert sentinel.exit_codes == {1: Required.REQUIRED, 0: Required.NONE}


@pytest.mark.parametrize("word", ["off", "'off'", "false", "False"])
def test_off_is_off(word: str) -> None:
    """YAML 1.1 makes false of a bare off, and tools in between hand false on: both are the mode off."""
    assert loads(f"modprobe: {{mode: {word}}}", "f").modprobe.mode is Mode.OFF


@pytest.mark.parametrize("word", ["true", "True", "yes", "on"])
def test_yaml_1_1_booleans(word: str) -> None:
    """Where true or false is meant, all of YAML 1.1's words are read."""
    assert loads(f"modprobe: {{unload: {word}}}", "f").modprobe.unload is True


def test_bare_times_and_numbers_keep_their_text() -> None:
    """22:00 is 1320 and 010 is 8 to YAML 1.1; here they are ten in the evening and ten."""
    config = loads("reboot: {windows: [{start: 22:00, end: 04:30}], concurrency: 010, maxUnavailable: 10}", "f")
    assert (config.reboot.windows[0].start, config.reboot.windows[0].end) == ("22:00", "04:30")
    assert (config.reboot.concurrency, config.reboot.max_unavailable) == (10, "10")


def test_text_may_look_like_another_type() -> None:
    """A label value of true, or an argument of 5, needs no quotes."""
    config = loads("reboot: {nodeLabels: {before: {rebooting: true}}, command: [/bin/reboot, 5]}", "f")
    assert config.reboot.node_labels.before == {"rebooting": "true"}
    assert config.reboot.command == ("/bin/reboot", "5")


def test_grace_periods() -> None:
    """null is the pod's own, 0 kills at once."""
    assert loads("reboot: {drain: {gracePeriod: null}}", "f").reboot.drain.grace_period is None
    assert loads("reboot: {drain: {gracePeriod: 0}}", "f").reboot.drain.grace_period == 0.0
    assert loads("reboot: {drain: {gracePeriod: 30s}}", "f").reboot.drain.grace_period == 30.0


def test_a_section_with_everything_commented_out_is_its_default() -> None:
    """`reboot:` with nothing below is what an editor leaves behind."""
    assert loads("reboot:\n  # drain: {}\nmodprobe:\n  deny:\nkubelet: {skip: }\n", "f") == Config()


def test_anchors_and_merge_keys() -> None:
    """Merged keys give way to those written beside them, and among themselves the first wins."""
    config = loads(
        textwrap.dedent(
            """\
            notify:
              - &slack {type: slack, urlFile: /a, cluster: one}
              - {<<: *slack, cluster: two}
              - <<: [{cluster: three}, *slack]
              - *slack
            """
        ),
        "f",
    )
    assert [one.cluster for one in config.notify] == ["one", "two", "three", "one"]
    assert {one.url_file for one in config.notify} == {"/a"}


def test_hooks() -> None:
    """Each with its argv and timeout."""
    config = loads("reboot: {hooks: {preDrain: [{command: [/opt/site/quiesce, --all], timeout: 90s}]}}", "f")
    assert config.reboot.hooks.pre_drain == (Hook(command=("/opt/site/quiesce", "--all"), timeout=90.0),)


@pytest.mark.parametrize("address", ["0.0.0.0:9105", "127.0.0.1:0", "[::]:9105", "[::1]:1", "node.example.com:80", ""])
def test_addresses(address: str) -> None:
    """IPv4, IPv6 in brackets, names; empty serves nothing."""
    assert loads(f'metrics: {{address: "{address}"}}', "f").metrics.address == address


# -- problems ----------------------------------------------------------------------------------------------------------


def test_every_problem_is_in_one_answer_in_file_order() -> None:
    """Nobody mends a file one error at a time."""
    found = problems(
        """\
        interval: 300
        modprobe:
          mode: of
          deny: dccp
          lists: [kubernetes, ../cis]
        reboot:
          windows:
            - start: "25:00"
            - {end: 06:00, dayz: [mon]}
          drain: {onTimeout: 5, timeout: []}
        metrics: {address: ":9105"}
        nope: 1
        """
    )
    assert [(one.line, one.key) for one in found] == [
        (1, "interval"),
        (3, "modprobe.mode"),
        (4, "modprobe.deny"),
        (5, "modprobe.lists[1]"),
        (8, "reboot.windows[0].start"),
        (9, "reboot.windows[1].dayz"),
        (10, "reboot.drain.onTimeout"),
        (10, "reboot.drain.timeout"),
        (11, "metrics.address"),
        (12, "nope"),
    ]
    assert {one.file for one in found} == {"policy.yaml"}
    assert str(found[1]) == "policy.yaml:3: modprobe.mode: 'of' is none of enforce, audit, off; did you mean off?"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("modprob: {}", "did you mean modprobe?"),
        ("modprobe: {Deny: []}", "did you mean deny?"),
        ("reboot: {drain: {on_timeout: abort}}", "did you mean onTimeout?"),
        ("reboot: {drain: {on-timeout: abort}}", "did you mean onTimeout?"),
        ("reboot: {leaseDuration: 1m}", "is not a key of reboot; it is reboot.lock.leaseDuration"),
        ("drain: {}", "is not a key of the configuration; it is reboot.drain"),
        ("reboot: {drain: {maxUnavailable: 1}}", "is not a key of reboot.drain; it is reboot.maxUnavailable"),
        ("reboot: {start: '22:00'}", "it is reboot.windows[].start"),
        ("apiversion: node-hardening.io/v1alpha1", "did you mean apiVersion?"),
        ("notify: [{url: 'https://hooks.example.com/SECRET'}]", "did you mean urlFile?"),
        ("log: {colour: red}", "its keys are level, format"),
        ("modprobe: {1: 2}", "its keys are mode, file, lists, deny, allow, force, unload"),
    ],
)
def test_unknown_keys_say_what_was_meant(text: str, message: str) -> None:
    """Another spelling, a near name, or the same name where it lives."""
    assert message in problems(text)[0].message


def test_a_key_in_several_places_names_the_nearest_first() -> None:
    """`reboot.timeout` is the drain's before it is a hook's."""
    message = problem("reboot: {timeout: 5m}").message
    assert "reboot.drain.timeout" in message
    assert "hooks" not in message


@pytest.mark.parametrize(
    ("text", "key", "message"),
    [
        ("apiVersion: v1", "apiVersion", "write node-hardening.io/v1alpha1"),
        ("kind: ConfigMap", "kind", "write AgentConfig"),
        ("kind: []", "kind", "write AgentConfig"),
        ("[1, 2]", "", "holds a list: it must be a mapping"),
        ("just words", "", "holds a single value: it must be a mapping"),
        ("modprobe: []", "modprobe", "is a list, it must be a mapping"),
        ("modprobe: on", "modprobe", "is a single value, it must be a mapping"),
        ("interval: {}", "interval", "is a mapping, it must be a single value"),
        ("interval:", "interval", "has no value: leave the key out"),
        ("modprobe: {lists: }", "modprobe.lists", "or write [] for none"),
        ("metrics: {address: }", "metrics.address", "leave the key out"),
        ("reboot: {blockers: {prometheus: {url: }}}", "reboot.blockers.prometheus.url", 'or write "" for none'),
        ("modprobe: {deny: [dccp, ]}\nmodprobe: {}", "modprobe", "is given twice, first in line 1"),
        ("modprobe: {deny: [~]}", "modprobe.deny[0]", "has no value"),
        ("reboot: {windows: [~]}", "reboot.windows[0]", "is empty, it must be a mapping"),
        ("reboot: {windows: {start: 22:00}}", "reboot.windows", "is a mapping, it must be a list"),
        ("modprobe: {deny: dccp}", "modprobe.deny", "it must be a list: write [dccp]"),
        ("modprobe: {deny: [br-netfilter]}", "modprobe.deny[0]", "write it in modprobe.force to deny it"),
        ("modprobe: {force: [overlay], allow: [overlay]}", "modprobe.allow[0]", "write it in one of them"),
        ("modprobe: {deny: [dccp.ko]}", "modprobe.deny[0]", "is not a kernel module's name"),
        ("modprobe: {deny: ['a b']}", "modprobe.deny[0]", "is not a kernel module's name"),
        ("modprobe: {lists: [cis.yaml]}", "modprobe.lists[0]", "without folder and ending"),
        ("modprobe: {unload: 'true'}", "modprobe.unload", "without quotes"),
        ("modprobe: {unload: maybe}", "modprobe.unload", "neither true nor false"),
        ("modprobe: {file: modprobe.d/x.conf}", "modprobe.file", "not an absolute path"),
        ("apparmor: {profiles: /etc/../tmp}", "apparmor.profiles", "without .."),
        ('apparmor: {profiles: "/etc/\\x00"}', "apparmor.profiles", "control characters"),
        ("seccomp: {directory: Auto}", "seccomp.directory", "not an absolute path"),
        ("kubelet: {mode: enforce}", "kubelet.mode", "is none of audit, off"),
        ("kubelet: {skip: {4.2.6: ''}}", "kubelet.skip.4.2.6", "is empty"),
        ("kubelet: {skip: [4.2.6]}", "kubelet.skip", "is a list, it must be a mapping"),
        ("reboot: {concurrency: 0}", "reboot.concurrency", "0 is out of range"),
        ("reboot: {concurrency: '1'}", "reboot.concurrency", "without quotes"),
        ("reboot: {concurrency: 5000}", "reboot.concurrency", "too much: at most 1000"),
        ("reboot: {maxUnavailable: 0%}", "reboot.maxUnavailable", "percentage from 1% to 100%"),
        ("reboot: {command: systemctl reboot}", "reboot.command", "it must be a list, one argument an entry"),
        ("reboot: {command: [systemctl, reboot]}", "reboot.command[0]", "no PATH"),
        ("reboot: {command: [/bin/sh, [x]]}", "reboot.command[1]", "is a list, it must be a single value"),
        ('reboot: {command: [/bin/x, "a\\0b"]}', "reboot.command[1]", "NUL"),
        ("reboot: {rebootTimeout: 0s}", "reboot.rebootTimeout", "too little: at least 1s"),
        ("reboot: {verifyTimeout: 0}", "reboot.verifyTimeout", "too little: at least 1s"),
        ("reboot: {drain: {timeout: 0s}}", "reboot.drain.timeout", "too little: at least 1s"),
        ("reboot: {drain: {delay: 9999d}}", "reboot.drain.delay", "too much: at most 366d"),
        ("reboot: {lock: {leaseDuration: 1s}}", "reboot.lock.leaseDuration", "at least 5s"),
        ("reboot: {lock: {leaseDuration: 1d}}", "reboot.lock.leaseDuration", "at most 1h"),
        ("reboot: {lock: {kuredDaemonset: kured}}", "reboot.lock.kuredDaemonset", "namespace/name"),
        ("reboot: {lock: {kuredAnnotation: ''}}", "reboot.lock.kuredAnnotation", "label key"),
        ("reboot: {pool: {label: 'a b'}}", "reboot.pool.label", "label key"),
        ("reboot: {preferNoScheduleTaint: a/b/c}", "reboot.preferNoScheduleTaint", "label key"),
        ("reboot: {nodeLabels: {before: {a/b/c: d}}}", "reboot.nodeLabels.before.a/b/c", "label key"),
        ("reboot: {nodeLabels: {before: {a: 'd e'}}}", "reboot.nodeLabels.before.a", "label value"),
        ("reboot: {windows: [{days: [mo]}]}", "reboot.windows[0].days[0]", "did you mean mon?"),
        ("reboot: {windows: [{timezone: Berlin}]}", "reboot.windows[0].timezone", "did you mean Europe/Berlin?"),
        ("reboot: {windows: [{timezone: ../UTC}]}", "reboot.windows[0].timezone", "IANA time zone"),
        ("reboot: {blackouts: [{start: 2026-02-30}]}", "reboot.blackouts[0].start", "not in the calendar"),
        ("reboot: {blackouts: [{start: 24.12.}]}", "reboot.blackouts[0].start", "write it as 2026-12-24"),
        ("reboot: {windows: [{daysOfMonth: [32]}]}", "reboot.windows[0].daysOfMonth", "from 1 to 31"),
        ("reboot: {windows: [{weeks: [sixth]}]}", "reboot.windows[0].weeks[0]", "sixth"),
        ("reboot: {windows: [{timezone: Europe}]}", "reboot.windows[0].timezone", "IANA time zone"),
        ("reboot: {windows: [{start: 10pm}]}", "reboot.windows[0].start", "did you mean 22:00?"),
        ("reboot: {blockers: {pods: ['a in b']}}", "reboot.blockers.pods[0]", "'a in b' is not key=value"),
        ("reboot: {blockers: {minimumGap: 5}}", "reboot.blockers.minimumGap", "no unit"),
        ("metrics: {address: localhost}", "metrics.address", "has no port"),
        ("metrics: {address: '::1:80'}", "metrics.address", "brackets"),
        ("metrics: {address: '[::g]:80'}", "metrics.address", "not an IPv6 address"),
        ("metrics: {address: '1.2.3:80'}", "metrics.address", "not an IPv4 address"),
        ("metrics: {address: 'a b:80'}", "metrics.address", "neither an address nor"),
        ("metrics: {address: 'a:70000'}", "metrics.address", "not a port"),
        ("metrics: {address: 'a:http'}", "metrics.address", "not a port"),
        ("status: {findingsLimit: 4k}", "status.findingsLimit", "did you mean 4KiB?"),
        ("status: {findingsLimit: 1B}", "status.findingsLimit", "at least 256B"),
        ("log: {level: warn}", "log.level", "did you mean warning?"),
        ("notify: [<<: 5]", "notify[0]", "<< takes mappings"),
    ],
)
def test_what_is_wrong_and_what_would_be_right(text: str, key: str, message: str) -> None:
    """One table of single mistakes: where it is, and words that lead to the answer."""
    found = [one for one in problems(text) if one.key == key]
    assert [message in one.message for one in found] == [True], found


@pytest.mark.parametrize(
    ("prometheus", "key", "message"),
    [
        ("url: 'prometheus:9090'", "url", "not an http or https URL"),
        ("url: 'ftp://p'", "url", "not an http or https URL"),
        ("url: 'http://'", "url", "not an http or https URL"),
        ("url: 'http://p:x'", "url", "not a URL"),
        ("url: 'http://p q'", "url", "not an http or https URL"),
        ("url: 'http://[::1'", "url", "not a URL"),
        ("url: 'http://p/?query=up'", "url", "not a base URL"),
        ("url: http://p, only: '('", "only", "not a regular expression"),
        ("url: http://p, only: '[[a]'", "only", "not a regular expression: Possible nested set"),
        ("url: http://p, labels: 'a=='", "labels", None),
        ("url: http://p, tokenFile: token", "tokenFile", "absolute path"),
        ("url: http://p, timeout: 0s", "timeout", "at least 1ms"),
    ],
)
def test_prometheus_settings(prometheus: str, key: str, message: str | None) -> None:
    """URLs, regular expressions, selectors and files of the alert blocker; None where it is fine."""
    text = f"reboot: {{blockers: {{prometheus: {{{prometheus}}}}}}}"
    if message is None:
        loads(text, "f")
        return
    found = problem(text)
    assert found.key == f"reboot.blockers.prometheus.{key}"
    assert message in found.message


def test_a_very_long_regular_expression_is_refused_before_it_is_compiled() -> None:
    """Compiling costs, and nobody reads it either."""
    text = f"reboot: {{blockers: {{prometheus: {{url: http://p, only: '{'(' * 5000}'}}}}}}"
    assert "longer than 1000 characters" in problem(text).message


@pytest.mark.parametrize(
    "text",
    [
        "notify: [{type: slack, urlFile: 'https://hooks.slack.com/services/T0/B0/SECRET'}]",
        "notify: [{type: slack, url: 'https://hooks.slack.com/services/T0/B0/SECRET'}]",
        "reboot: {blockers: {prometheus: {url: 'https://admin:SECRET@prometheus'}}}",
    ],
)
def test_a_secret_in_the_wrong_place_is_never_repeated(text: str) -> None:
    """Problems end up in logs, Events and annotations."""
    assert "SECRET" not in "\n".join(str(one) for one in problems(text))


@pytest.mark.parametrize("template", ["{node} {event}: {message}", "{{literally}} {severity}", "", "{cluster}"])
def test_templates_with_known_fields(template: str) -> None:
    """The five fields, and doubled braces for braces."""
    text = f"notify: [{{type: webhook, urlFile: /u, template: '{template}'}}]"
    assert loads(text, "f").notify[0].template == template


@pytest.mark.parametrize("template", ["{host}", "{node.__class__}", "{node!r}", "{node:>9}", "{", "}", "{}", "{0}"])
def test_templates_with_anything_else_are_refused(template: str) -> None:
    """Attributes, conversions and formats would reach into objects, and typos would fail at three in the morning."""
    found = problem(f"notify: [{{type: webhook, urlFile: /u, template: '{template}'}}]")
    assert found.key == "notify[0].template"
    assert "template" in found.message


def test_unknown_event_reasons_name_the_near_one() -> None:
    """Alerts hang on these words, letter for letter."""
    found = problems("notify: [{type: webhook, urlFile: /u, events: [rebootfailed, RebootLockedStuck, Fire]}]")
    assert [one.key for one in found] == [f"notify[0].events[{index}]" for index in range(3)]
    assert "did you mean RebootFailed?" in found[0].message
    assert "did you mean RebootLockStuck?" in found[1].message
    assert "is none of NodeHardened" in found[2].message


def test_a_machine_without_time_zone_data_says_so(tmp_path: Path) -> None:
    """UTC needs none; for every other zone the missing package is named rather than the zone called wrong."""
    text = "reboot: {windows: [{timezone: Europe/Berlin}, {timezone: UTC}]}"
    before = zoneinfo.TZPATH
    try:
        zoneinfo.reset_tzpath(to=[tmp_path])
        zoneinfo.ZoneInfo.clear_cache()
        found = problem(text)
    finally:
        zoneinfo.reset_tzpath(to=before)
        zoneinfo.ZoneInfo.clear_cache()
    assert found.key == "reboot.windows[0].timezone"
    assert "no time zone data here (package tzdata)" in found.message
    assert len(loads(text, "f").reboot.windows) == 2


def test_what_stands_in_a_problem_is_printable_and_short() -> None:
    """A key or value of a megabyte, or one that moves the terminal's cursor, does not reach logs and annotations."""
    long = "x" * 1000  # YAML has no longer keys
    found = problems(
        f"""\
        "\\e[2J": 1
        {long}: 1
        interval: "\\e[2J"
        log: {{level: {long}, format: "\\e[2J"}}
        kubelet: {{skip: {{"\\e": ''}}}}
        reboot: {{blockers: {{pods: [{long} {long}]}}, command: [{long}]}}
        """
    )
    assert len(found) == 8
    known = len(", ".join(keys(Config)))  # our own keys, which a problem may list
    assert all(str(one).isprintable() and len(str(one)) < 150 + known for one in found), found


# -- files -------------------------------------------------------------------------------------------------------------


def file_problem(path: Path) -> Problem:
    """The one problem of a file that cannot be read as a policy."""
    with pytest.raises(ConfigError) as caught:
        load(path)
    (only,) = caught.value.problems
    assert only.file == str(path)
    return only


def test_a_file_is_loaded_and_named_in_its_problems(tmp_path: Path) -> None:
    """The path stands in problems as it was given."""
    path = tmp_path / "config.yaml"
    path.write_text("interval: 1h\n")
    assert load(path).interval == 3600.0
    path.write_text("\ninterval: 1x\n")
    found = file_problem(path)
    assert (found.line, found.key) == (2, "interval")


def test_a_named_file_that_is_missing_is_a_problem(tmp_path: Path) -> None:
    """Whoever names a file means it."""
    assert "cannot be read: No such file or directory" in file_problem(tmp_path / "none.yaml").message
    with pytest.raises(ConfigError):
        load(tmp_path / "none.yaml", explicit=True)


def test_the_default_file_may_be_missing(tmp_path: Path) -> None:
    """Then the built-in policy holds, whether the file or its folders are not there."""
    assert load(tmp_path / "none.yaml", explicit=False) == Config()
    assert load(tmp_path / "no" / "folder" / "none.yaml", explicit=False) == Config()


def test_the_default_file_counts_when_it_is_there(tmp_path: Path) -> None:
    """And a broken one is a problem, not a reason to fall back."""
    path = tmp_path / "config.yaml"
    path.write_text("interval: 1h\n")
    assert load(path, explicit=False).interval == 3600.0
    path.write_text("interval: no\n")
    with pytest.raises(ConfigError):
        load(path, explicit=False)


def test_a_dangling_symlink_is_not_a_missing_file(tmp_path: Path) -> None:
    """A ConfigMap's mount that lost its key must not turn into the built-in policy without a word."""
    path = tmp_path / "config.yaml"
    path.symlink_to("..data/config.yaml")
    with pytest.raises(ConfigError, match="cannot be read"):
        load(path, explicit=False)


def test_a_file_below_a_file_is_a_problem(tmp_path: Path) -> None:
    """The folder of the configuration is a file: somebody has mounted the wrong thing."""
    (tmp_path / "node-hardening").write_text("")
    with pytest.raises(ConfigError, match="Not a directory"):
        load(tmp_path / "node-hardening" / "config.yaml", explicit=False)


def test_folders_and_fifos_are_refused_without_waiting(tmp_path: Path) -> None:
    """A FIFO without a writer would block for ever."""
    assert "cannot be read" in file_problem(tmp_path).message
    os.mkfifo(tmp_path / "fifo")
    assert "not a regular file" in file_problem(tmp_path / "fifo").message


def test_the_size_is_bounded(tmp_path: Path) -> None:
    """A policy of more than 256 KiB is a mistake, and reading it would cost memory on every node."""
    path = tmp_path / "big.yaml"
    path.write_bytes(b"#" * MAX_BYTES)
    assert load(path) == Config()
    path.write_bytes(b"#" * (MAX_BYTES + 1))
    assert "larger than 256KiB" in file_problem(path).message
    with pytest.raises(ConfigError, match="larger than 256KiB"):
        loads("#" * (MAX_BYTES + 1), "f")


@pytest.mark.parametrize("content", [b"a: 1\nb: \xff\n", "a: 1\nb: ü\n".encode("latin-1"), b"a: 1\n\xc3"])
def test_other_encodings_are_named_with_their_line(tmp_path: Path, content: bytes) -> None:
    """Latin-1 and cut UTF-8 are found where they begin."""
    path = tmp_path / "latin.yaml"
    path.write_bytes(content)
    found = file_problem(path)
    assert (found.line, found.message) == (2, "is not UTF-8 text: save it as UTF-8")


def test_utf_16_is_refused(tmp_path: Path) -> None:
    """Windows editors save it; every second byte of it is NUL."""
    path = tmp_path / "wide.yaml"
    path.write_bytes("interval: 5m".encode("utf-16"))
    assert "UTF-8" in file_problem(path).message
