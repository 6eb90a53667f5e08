"""The generated documents: current, and true to the loader."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from agent.config import Config, fingerprint, loads
from agent.config.render import spelled
from agent.config.schema_tree import Section, camel, paths
from agent.errors import ConfigError
from agent.event_reasons import Reason
from tools.config_reference import EXAMPLE, MORE, every_key, reference
from tools.config_schema import schema

ROOT = Path(__file__).parents[3]
VALIDATOR = jsonschema.Draft202012Validator(schema())


def names_as_json(data: Any) -> Any:
    """YAML's data with every key as text, which is how JSON Schema sees a mapping."""
    match data:
        case dict():
            return {str(name): names_as_json(one) for name, one in data.items()}
        case list():
            return [names_as_json(one) for one in data]
        case _:
            return data


def accepted_by_schema(text: str) -> bool:
    """Whether the generated schema accepts the text as PyYAML reads it."""
    return VALIDATOR.is_valid(names_as_json(yaml.safe_load(text)))


def accepted_by_loader(text: str) -> bool:
    """Whether the text loads."""
    try:
        loads(text, "f")
    except ConfigError:
        return False
    return True


@pytest.mark.parametrize(
    ("name", "tool"),
    [("agentconfig.schema.json", "config_schema.py"), ("configuration.md", "config_reference.py")],
)
def test_the_committed_documents_are_current(name: str, tool: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What the generators print is what docs/ holds; `make docs` writes it."""
    runpy.run_path(str(ROOT / "tools" / tool), run_name="__main__")
    assert capsys.readouterr().out == (ROOT / "docs" / name).read_text()


def test_the_schema_is_a_schema() -> None:
    """Draft 2020-12, by its own meta-schema."""
    jsonschema.Draft202012Validator.check_schema(schema())


def test_the_example_with_every_key_is_the_default_policy() -> None:
    """Copied as it stands, the reference's example changes nothing; its keys are all there are."""
    assert loads(every_key(), "f") == Config()
    shown = yaml.safe_load(every_key())
    for path, _ in paths():
        place = shown
        if "[]." not in path:
            for part in path.split("."):
                assert part in place
                place = place[part]


def test_the_example_policy_loads_and_is_accepted_by_the_schema() -> None:
    """It stands in the reference for people to copy; the bare times are text in YAML 1.2, which editors read."""
    config = loads(EXAMPLE, "f")
    assert (config.reboot.windows[0].start, config.reboot.windows[0].end) == ("22:00", "04:00")
    assert accepted_by_schema(EXAMPLE.replace("22:00", '"22:00"').replace("04:00", '"04:00"'))


def test_what_is_empty_by_default_is_shown_with_a_value() -> None:
    """In one of the two policies of the reference, both of which load."""
    assert loads(MORE, "f") != Config()
    shown = EXAMPLE + MORE
    empty = {path for path, key in paths() if key.default in (None, "", (), {})}
    assert len(empty) > 20
    assert [path for path in empty if f"{path.removesuffix('[]').rpartition('.')[2]}:" not in shown] == []


def test_the_reference_names_every_key_and_reason() -> None:
    """Nothing that can be written is missing from the page."""
    page = reference()
    for path, key in paths():
        assert f"| `{path.rpartition('.')[2]}` |" in page
        assert key.about in page.replace("\\|", "|")
    for reason in Reason:
        assert f"| `{reason.value}` |" in page


def test_every_key_is_described() -> None:
    """In the schema too: an editor shows it on hover."""
    for path, key in paths():
        assert len(key.about) > 3, path
        assert key.name == camel(key.attribute)


@pytest.mark.parametrize(
    "text",
    [
        "{}",
        "~",
        "reboot: {drain: {delay: 0s1ms}}",
        "interval: 5m",
        "interval: 300",
        "interval: ''",
        "interval: 1h 30m",
        "interval: -5s",
        "interval: 1.5h",
        "reboot: {drain: {delay: 0}}",
        "reboot: {drain: {delay: 1}}",
        "reboot: {drain: {gracePeriod: null}}",
        "reboot: {drain: {timeout: null}}",
        "apiVersion: v1",
        "kind: AgentConfig",
        "nope: 1",
        "modprobe:",
        "modprobe: []",
        "modprobe: {nope: 1}",
        "modprobe: {mode: off}",
        "modprobe: {mode: 'off'}",
        "modprobe: {mode: disabled}",
        "modprobe: {mode: true}",
        "kubelet: {mode: enforce}",
        "modprobe: {deny: }",
        "modprobe: {lists: }",
        "modprobe: {lists: []}",
        "modprobe: {deny: [dccp, usb-storage]}",
        "modprobe: {deny: ['../x']}",
        "modprobe: {deny: dccp}",
        "modprobe: {unload: yes}",
        "modprobe: {unload: 'yes'}",
        "apparmor: {profiles: relative}",
        "seccomp: {directory: auto}",
        "seccomp: {directory: else}",
        "kubelet: {skip: {'4.2.6': reason}}",
        "kubelet: {skip: {'4.2.6': ' '}}",
        "reboot: {concurrency: 0}",
        "reboot: {concurrency: 2, maxUnavailable: 2}",
        "reboot: {concurrency: '2', maxUnavailable: 2}",
        "reboot: {concurrency: 1001, maxUnavailable: 100%}",
        "reboot: {maxUnavailable: 10%}",
        "reboot: {maxUnavailable: 101%}",
        "reboot: {maxUnavailable: '3'}",
        "reboot: {maxUnavailable: 0}",
        "reboot: {windows: [{days: [mon], start: '22:00', end: '04:00'}]}",
        "reboot: {windows: [{days: [monday]}]}",
        "reboot: {windows: [{start: '24:00'}]}",
        "reboot: {windows: [~]}",
        "reboot: {windows: {}}",
        "reboot: {sentinel: {command: [/bin/x], exitCodes: {1: required, 0: none}}}",
        "reboot: {sentinel: {command: [/bin/x], exitCodes: {1: maybe, 0: required}}}",
        "reboot: {sentinel: {command: [/bin/x], exitCodes: {127: required}}}",
        "reboot: {sentinel: {command: [/bin/x], exitCodes: {256: required}}}",
        "reboot: {command: [/sbin/reboot, -f]}",
        "reboot: {command: [reboot]}",
        "reboot: {command: /sbin/reboot}",
        "reboot: {pool: {label: example.com/pool}}",
        "reboot: {pool: {label: a/b/c}}",
        "reboot: {nodeLabels: {before: {a: b}}}",
        "reboot: {nodeLabels: {before: {a: 'b c'}}}",
        "reboot: {nodeLabels: {before: {a b: c}}}",
        "reboot: {blockers: {prometheus: {url: ''}}}",
        "reboot: {blockers: {prometheus: {url: 'ftp://x'}}}",
        "notify: [{type: slack, urlFile: /u, events: [RebootFailed]}]",
        "notify: [{type: slack, urlFile: /u, events: [Fire]}]",
        "notify: [{type: mail, urlFile: /u}]",
        "notify: [{type: slack, urlFile: /u, retries: -1}]",
        "metrics: {address: ''}",
        "metrics: {address: nonsense}",
        "status: {findingsLimit: 8KiB}",
        "status: {findingsLimit: 8000}",
        "status: {label: 1}",
        "log: {level: trace}",
    ],
)
def test_schema_and_loader_agree_on_form(text: str) -> None:
    """Accepted by both or refused by both."""
    assert accepted_by_schema(text) == accepted_by_loader(text)


@pytest.mark.parametrize(
    "text",
    [
        "interval: 0s",
        "reboot: {windows: [{timezone: Mars/Olympus}]}",
        "reboot: {windows: [{start: '22:00', end: '22:00'}]}",
        "reboot: {concurrency: 3}",
        "reboot: {blockers: {pods: ['a in b']}}",
        "notify: [{type: pagerduty}]",
    ],
)
def test_what_needs_more_than_form_is_left_to_the_loader(text: str) -> None:
    """Bounds of durations, data of the machine and rules between keys: `validate` says what a schema cannot."""
    assert accepted_by_schema(text)
    assert not accepted_by_loader(text)


def test_the_fingerprint_is_short_stable_and_of_the_meaning() -> None:
    """Another spelling of the same policy has the same hash; another policy has another."""
    one = loads("interval: 5m\nmodprobe: {deny: [dccp]}", "a.yaml")
    same = loads("# comment\nmodprobe:\n  deny:\n    - dccp\ninterval: 300s\n", "b.yaml")
    other = loads("modprobe: {deny: [sctp]}", "a.yaml")
    assert fingerprint(one) == fingerprint(same)
    assert fingerprint(one) != fingerprint(other)
    assert len(fingerprint(one)) == 12
    assert set(fingerprint(one)) <= set("0123456789abcdef")


def test_the_fingerprint_does_not_depend_on_the_order_of_mappings() -> None:
    """Keys that people choose have no order."""
    one = loads("kubelet: {skip: {a: x, b: y}}", "f")
    other = loads("kubelet: {skip: {b: y, a: x}}", "f")
    assert fingerprint(one) == fingerprint(other)


def test_the_whole_document_holds_defaults_as_people_write_them() -> None:
    """Durations with units, enums as words, null where nothing is meant."""
    shown = spelled(Section(Config), Config())
    assert shown["interval"] == "5m"
    assert shown["reboot"]["drain"]["gracePeriod"] is None
    assert shown["reboot"]["sentinel"]["exitCodes"] == {"0": "required", "1": "none"}
    assert json.loads(json.dumps(shown)) == shown
