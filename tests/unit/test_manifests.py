"""Texts inside ConfigMaps, with the lines of their manifest."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.cli.manifests import Text, texts
from agent.config.yaml_nodes import MANIFEST_DEPTH as MAX_DEPTH
from agent.errors import ConfigError, Problem


def inside(content: str, name: str = "all.yaml") -> list[tuple[str, str, int]]:
    """Name, content and first line of each text."""
    return [(one.name, one.content, one.first_line) for one in texts(Text("f", name, content))]


def test_each_key_is_a_text_in_its_place() -> None:
    """Block scalars begin a line below their key, others on it."""
    manifest = "kind: ConfigMap\ndata:\n  a: |\n    one\n    two\n  b: three\n"
    assert inside(manifest) == [("a", "one\ntwo\n", 3), ("b", "three", 5)]


def test_lists_of_config_maps_are_opened() -> None:
    """As kubectl get -o yaml writes them."""
    for kind in ("List", "ConfigMapList"):
        assert inside(
            f"kind: {kind}\nitems:\n- kind: ConfigMap\n  data: {{a: x}}\n- kind: Secret\n  data: {{b: y}}\n"
        ) == [("a", "x", 3)]


@pytest.mark.parametrize("content", ["kind: ConfigMap\ndata: [1]\n", "kind: List\nitems: ConfigMap\n"])
def test_an_object_without_texts_holds_nothing_to_lint(content: str) -> None:
    """It says what it is, so it is no policy either."""
    assert inside(content) == []


@pytest.mark.parametrize(
    "content",
    [
        "kind: Deployment\ndata: {a: ConfigMap}\n",
        "kind: AgentConfig # no ConfigMap\n",
        "- ConfigMap\n",
        "kind: [ConfigMap]\n",
        "? [a]\n: ConfigMap\n",
        "# ConfigMap\n",
    ],
)
def test_what_is_no_config_map_is_a_text_by_itself(content: str) -> None:
    """From its first line on."""
    assert inside(content) == [("all.yaml", content, 0)]


def test_what_is_not_yaml_is_not_opened() -> None:
    """A profile may well hold the word."""
    assert inside("kind: ConfigMap\ndata: {a: x}\n", "profile") == [("profile", "kind: ConfigMap\ndata: {a: x}\n", 0)]


def test_depth_is_bounded_with_its_line() -> None:
    """Just at the bound is fine."""
    fine = MAX_DEPTH - 1
    assert inside("kind: ConfigMap\ndata:\n  a: x\nb: " + "[" * fine + "]" * fine) == [("a", "x", 2)]
    with pytest.raises(ConfigError, match=f"f:2: nested deeper than {MAX_DEPTH} levels"):
        inside("kind: ConfigMap\ndata: " + "[" * 100_000)


@given(st.text(st.sampled_from("kind: ConfigMap\ndt[]{}&*!|>-?\"'#,a\t\x07\u2028")))
def test_any_text_is_texts_or_a_problem(text: str) -> None:
    """Never another error."""
    problems: tuple[Problem, ...] = ()
    try:
        assert texts(Text("f", "x.yaml", f"# ConfigMap\n{text}"))
    except ConfigError as error:
        problems = error.problems
    assert all(problem.file == "f" for problem in problems)
