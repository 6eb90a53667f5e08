"""Overrides: what they may set, how they merge, and where a value comes from."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from agent.config import Config, loads
from agent.config.loader import read
from agent.config.overrides import CLUSTER_WIDE, MOST, merge, origins
from agent.config.schema_tree import Section, Table, keys, paths
from agent.config.validation import refused
from agent.errors import ConfigError
from tests.unit.config.strategies import policies
from tools.config_schema import schema

GPU = {"pool": "gpu"}


def problems(text: str) -> list[tuple[int, str, str]]:
    """Line, key and message of every problem."""
    with pytest.raises(ConfigError) as caught:
        loads(text, "f")
    return [(one.line, one.key, one.message) for one in caught.value.problems]


def spoken(section: type[Any], value: dict[str, Any], above: str = "") -> dict[str, Any]:
    """A policy without the keys that no override may set."""
    kept = {}
    for name, one in value.items():
        form = keys(section)[name].form
        if f"{above}{name}" not in CLUSTER_WIDE:
            kept[name] = spoken(form.make, one, f"{above}{name}.") if isinstance(form, Section) else one
    return kept


def by_hand(section: type[Any], base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    """The merge as the documentation says it, on the files' data: what the implementation is compared with."""
    made = dict(base)
    for name, one in over.items():
        key = keys(section)[name]
        if isinstance(key.form, Section):
            made[name] = by_hand(key.form.make, base.get(name, {}), one)
        elif isinstance(key.form, Table):
            before = base.get(name, key.default)
            made[name] = {entry: value for entry, value in {**before, **one}.items() if value is not None}
        else:
            made[name] = one
    return made


def written(policy: Any) -> str:
    return yaml.safe_dump(json.loads(json.dumps(policy)), allow_unicode=True)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large], max_examples=60)
@given(policies(), st.lists(st.tuples(policies(), st.booleans()), min_size=1, max_size=3), st.data())
def test_the_merge_is_the_documented_one_in_order_and_of_every_key(
    base: dict[str, Any], overs: list[tuple[dict[str, Any], bool]], data: st.DataObject
) -> None:
    """Compared with a merge of the files' data, for any policies: whatever the schema holds, today or later."""
    base = {name: one for name, one in base.items() if name not in ("overrides", "rollout")}
    expected, listed = base, []
    for number, (over, matches) in enumerate(overs):
        changed = spoken(Config, over)
        skip = changed.get("kubelet", {}).get("skip", {})
        for entry in [*skip, *base.get("kubelet", {}).get("skip", {})]:
            if data.draw(st.booleans()):
                changed.setdefault("kubelet", {}).setdefault("skip", {})[entry] = None
        listed.append({"name": f"o{number}", "nodeSelector": "pool=gpu" if matches else "pool=cpu", **changed})
        expected = by_hand(Config, expected, changed) if matches else expected
    try:
        config, right = loads(written({**base, "overrides": listed}), "f"), loads(written(expected), "f")
    except ConfigError:
        assume(False)  # a rule between keys of two policies
    assert merge(config, GPU) == right


def test_a_later_override_wins_and_lists_are_replaced() -> None:
    config = loads(
        """
        modprobe: {deny: [a, b]}
        overrides:
          - {name: one, nodeSelector: pool=gpu, modprobe: {deny: [c]}, interval: 1m}
          - {name: two, nodeSelector: pool, interval: 2m}
        """,
        "f",
    )
    assert (merge(config, GPU).modprobe.deny, merge(config, GPU).interval) == (("c",), 120.0)
    assert (merge(config, {"pool": "x"}).modprobe.deny, merge(config, {}).interval) == (("a", "b"), 300.0)
    assert merge(config, {}).overrides == ()


def test_null_removes_an_entry_of_a_mapping() -> None:
    text = 'kubelet: {skip: {"1": x, "2": y}}\noverrides: [{name: o, nodeSelector: a, kubelet: {skip: {"1": null}}}]'
    assert merge(loads(text, "f"), {"a": ""}).kubelet.skip == {"2": "y"}


@pytest.mark.parametrize("key", sorted(CLUSTER_WIDE))
def test_what_has_to_be_the_same_on_every_node_is_refused_with_the_reason(key: str) -> None:
    """And the editor's schema underlines it."""
    assert key in {path for path, _ in paths()}
    override: Any = None
    for part in reversed(key.split(".")):
        override = {part: override}
    text = written({"overrides": [{"name": "o", "nodeSelector": "a", **override}]})
    ((_, where, message),) = problems(text)
    assert where == f"overrides[0].{key}"
    assert CLUSTER_WIDE[key] in message
    place = schema()["properties"]["overrides"]["items"]
    for part in key.split("."):
        place = place.get("properties", {}).get(part)
        if place is None:
            break
    assert place is None


def test_every_problem_is_named_at_once_with_its_line() -> None:
    text = """\
overrides:
  - name: a
    modprobe: {modes: x}
  - name: a
    nodeSelector: node-hardening.io/hardened=true
    reboot:
      drain:
        gracePeriod: 2d
  - 3
"""
    assert [(line, key) for line, key, _ in problems(text)] == [
        (2, "overrides[0].nodeSelector"),
        (3, "overrides[0].modprobe.modes"),
        (4, "overrides[1].name"),
        (5, "overrides[1].nodeSelector"),
        (8, "overrides[1].reboot.drain.gracePeriod"),
        (9, "overrides[2]"),
    ]


def test_there_are_only_so_many() -> None:
    listed = [{"name": f"o{number}", "nodeSelector": "a"} for number in range(MOST + 1)]
    assert [key for _, key, _ in problems(written({"overrides": listed}))] == ["overrides"]


def test_a_selector_on_a_label_that_the_agent_writes_around_reboots_is_refused() -> None:
    """The policy would change in the middle of a reboot, because of it."""
    text = "reboot: {nodeLabels: {before: {x/y: z}}}\nrollout: {canary: x/y=z}"
    assert [key for _, key, _ in problems(text)] == ["rollout.canary"]


def test_overrides_that_contradict_each_other_are_found_for_the_nodes_that_match_both() -> None:
    """Two pools may well hold what no single node could."""
    config = loads(
        "overrides:\n- {name: a, nodeSelector: a, modprobe: {deny: [udf]}}\n"
        "- {name: b, nodeSelector: b, modprobe: {allow: [udf]}}\n",
        "f",
    )
    assert [list(refused(config, [one])) for one in config.overrides] == [[], []]
    assert [key for key, _ in refused(config, config.overrides)] == ["modprobe.allow[0]"]


def test_an_override_may_replace_a_sentinel_file_by_a_command() -> None:
    """Both in one place would contradict each other; here the override wins."""
    text = "reboot: {sentinel: {file: /run/x}}\noverrides:\n- name: a\n  nodeSelector: a\n"
    config = loads(f"{text}  reboot: {{sentinel: {{command: [/bin/x]}}}}\n", "f")
    assert merge(config, {"a": ""}).reboot.sentinel.command == ("/bin/x",)


def test_every_value_has_its_origin() -> None:
    text = 'interval: 1m\nkubelet: {skip: {"1": x}}\noverrides:\n- name: o\n  nodeSelector: a\n'
    text += '  kubelet: {skip: {"2": y}}\n  modprobe:\n    deny: [b]\n'
    config, lines = read(text, "f")
    found = {one.key: (one.value, one.override, one.line) for one in origins(config, lines, {"a": ""})}
    assert found["interval"] == ("1m", "", 1)
    assert found["kubelet.skip.1"] == ("x", "", 2)
    assert found["kubelet.skip.2"] == ("y", "o", 6)
    assert found["modprobe.deny"] == (["b"], "o", 8)
    assert found["reboot.mode"] == ("enforce", "", 0)
    assert not {"modprobe.deny[0]", "overrides", "rollout.soak"} & found.keys()


def test_lines_alone_make_no_other_policy() -> None:
    """A comment above it must not reload anything."""
    text = "overrides: [{name: o, nodeSelector: a, interval: 1m}]"
    assert loads(text, "f") == loads(f"# a comment\n{text}", "f")
