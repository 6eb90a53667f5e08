"""For every policy and every text: valid ones come back the same, others end in a ConfigError and nothing else."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.config import Config, fingerprint, loads
from agent.config.render import spelled
from agent.config.schema_tree import Section
from agent.errors import ConfigError
from tests.unit.config.strategies import policies, shortest
from tools.config_schema import schema

VALIDATOR = jsonschema.Draft202012Validator(schema())

_SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20) | st.dates()
_ANYTHING = st.recursive(
    _SCALARS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8) | st.integers(), inner, max_size=4),
    max_leaves=20,
)
_TOKENS = st.sampled_from(
    [
        "\t",
        "- ",
        ": ",
        "{",
        "}",
        "[",
        "]",
        "&a ",
        "*a",
        "<<: ",
        "!!str ",
        "|\n",
        "'",
        '"',
        "#",
        "\n",
        "---\n",
        "~",
        "? ",
    ]
)


def answer(text: str) -> Config | None:
    """The Config, or None for a ConfigError whose problems each name the file, a line of it and what is wrong."""
    try:
        return loads(text, "policy.yaml")
    except ConfigError as error:
        problems = error.problems
    assert problems
    lines = len(text.splitlines()) + 1
    for problem in problems:
        assert problem.file == "policy.yaml"
        assert problem.message
        assert 0 <= problem.line <= lines
    return None


def written(policy: Any) -> str:
    """The policy as YAML, through JSON so that all text is quoted where it has to be."""
    return yaml.safe_dump(json.loads(json.dumps(policy)), allow_unicode=True, sort_keys=False)


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(policies())
def test_a_policy_of_valid_values_loads_and_comes_back_the_same(policy: dict[str, Any]) -> None:
    """Reading, spelling and reading again loses nothing, without what is the default."""
    config = loads(written(policy), "f")
    again = loads(written(shortest(config)), "f")
    assert (again, fingerprint(again)) == (config, fingerprint(config))


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(policies())
def test_the_schema_never_refuses_what_the_loader_takes(policy: dict[str, Any]) -> None:
    """An editor that underlines a working policy would teach people to ignore it."""
    config = loads(written(policy), "f")
    for instance in (policy, spelled(Section(Config), config)):
        VALIDATOR.validate(json.loads(json.dumps(instance)))


@given(st.text())
def test_any_text_is_a_config_or_a_config_error(text: str) -> None:
    """Never a traceback of another kind."""
    answer(text)


@given(st.lists(_TOKENS | st.sampled_from(["reboot", "modprobe", "mode", "deny", " ", "  ", "x", "1s"]), max_size=40))
def test_any_row_of_yaml_tokens_is_a_config_or_a_config_error(tokens: list[str]) -> None:
    """Closer to YAML than arbitrary text: anchors, merges, tags, block scalars in impossible places."""
    answer("".join(tokens))


@given(_ANYTHING)
def test_any_yaml_data_is_a_config_or_a_config_error(data: object) -> None:
    """Well-formed YAML of every type in every place."""
    answer(yaml.safe_dump(data, allow_unicode=True))


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(policies(), st.data())
def test_a_policy_with_any_value_replaced_is_a_config_or_a_config_error(
    policy: dict[str, Any], data: st.DataObject
) -> None:
    """The shape is right, one value is anything at all: its problem names its key."""
    place: Any = policy
    while True:
        choices = list(place) if isinstance(place, dict) else list(range(len(place)))
        if not choices:
            break
        at = data.draw(st.sampled_from(choices))
        if isinstance(place[at], dict | list) and place[at] and data.draw(st.booleans()):
            place = place[at]
            continue
        place[at] = data.draw(_ANYTHING)
        break
    answer(yaml.safe_dump(policy, allow_unicode=True, sort_keys=False))


@settings(suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(policies(), st.lists(st.tuples(st.integers(0), st.integers(0, 8), _TOKENS | st.text(max_size=3)), max_size=4))
def test_a_policy_with_edits_is_a_config_or_a_config_error(
    policy: dict[str, Any], edits: list[tuple[int, int, str]]
) -> None:
    """A slip of the editor anywhere in a good file."""
    text = written(policy)
    for at, length, instead in edits:
        start = at % (len(text) + 1)
        text = text[:start] + instead + text[start + length :]
    answer(text)
