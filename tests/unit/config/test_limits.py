"""The last value that is accepted and the first that is not, and the line that an error names."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.config import load, loads
from agent.config.yaml_nodes import compose, compose_json
from agent.errors import ConfigError


def refusal(text: str) -> str:
    """The one problem of a policy, as it is shown."""
    with pytest.raises(ConfigError) as caught:
        loads(text, "policy.yaml")
    (only,) = caught.value.problems
    return f"{only.line} {only.key}: {only.message}"


@pytest.mark.parametrize(
    ("accepted", "refused"),
    [
        ("metrics: {address: '0.0.0.0:65535'}", "metrics: {address: '0.0.0.0:65536'}"),
        ("metrics: {address: '0.0.0.0:0'}", "metrics: {address: '0.0.0.0:-1'}"),
        (
            "reboot: {sentinel: {command: [/bin/x], exitCodes: {255: required}}}",
            "reboot: {sentinel: {command: [/bin/x], exitCodes: {256: required}}}",
        ),
        (
            "reboot: {sentinel: {command: [/bin/x], exitCodes: {125: required}}}",
            "reboot: {sentinel: {command: [/bin/x], exitCodes: {126: required}}}",
        ),
        (
            "reboot: {sentinel: {command: [/bin/x], exitCodes: {128: required}}}",
            "reboot: {sentinel: {command: [/bin/x], exitCodes: {127: required}}}",
        ),
        ("reboot: {maxUnavailable: 100%}", "reboot: {maxUnavailable: 101%}"),
        ("reboot: {maxUnavailable: 1%}", "reboot: {maxUnavailable: 0%}"),
        ("reboot: {windows: [{start: '23:59'}]}", "reboot: {windows: [{start: '24:00'}]}"),
        ("reboot: {retryAfter: 1s}", "reboot: {retryAfter: 0s}"),
    ],
)
def test_the_limit_itself_is_accepted_and_what_is_past_it_is_not(accepted: str, refused: str) -> None:
    """Both sides of each limit."""
    loads(accepted, "policy.yaml")
    assert refusal(refused)


@pytest.mark.parametrize(("content", "line"), [(b"\xff", 1), (b"interval: 5m\nmodprobe: {}\n# \xff\n", 3)])
def test_bytes_that_are_no_text_are_named_by_line(tmp_path: Path, content: bytes, line: int) -> None:
    """The first line is 1."""
    file = tmp_path / "config.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        load(str(file))
    assert [(one.line, "UTF-8" in one.message) for one in caught.value.problems] == [(line, True)]


def test_an_escape_out_of_range_is_a_problem_of_the_whole_file() -> None:
    """PyYAML does not give a line for it, so none is made up."""
    assert refusal('a: "\\U99999999"').startswith("0 : not YAML")


@pytest.mark.parametrize(("levels", "fits"), [(3, True), (4, False)])
def test_json_is_nested_as_deep_as_allowed_and_no_deeper(levels: int, fits: bool) -> None:
    """The error has the line at which the limit is passed."""
    text = "[\n" * levels + "]" * levels
    if fits:
        compose_json(text, "x.json", max_depth=3)
    else:
        with pytest.raises(ConfigError) as caught:
            compose_json(text, "x.json", max_depth=3)
        assert caught.value.problems[0].line == 4


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("{\n# why\n}", "no comments"), ("{\n// why\n}", "no comments"), ("{ /* why */ }", "no comments"),
        ('{"a": 1,}', "trailing commas"), ('{"a": [1,]}', "trailing commas"), ("", "the file is empty"),
        ("  \n", "the file is empty"),
    ],
)  # fmt: skip
def test_what_json_lacks_is_named(text: str, hint: str) -> None:
    """The mistakes of who is used to YAML."""
    with pytest.raises(ConfigError, match=hint):
        compose_json(text, "x.json", max_depth=9)


def test_a_plain_mistake_gets_no_hint() -> None:
    """Which would lead astray."""
    with pytest.raises(ConfigError) as caught:
        compose_json('{"a" 1}', "x.json", max_depth=9)
    assert "comments" not in caught.value.problems[0].message
    assert "commas" not in caught.value.problems[0].message


def test_an_empty_document_is_nothing() -> None:
    """Rather than an empty mapping: the caller decides what that means."""
    assert compose("# only a comment\n", "policy.yaml") is None
