"""YAML as nodes: lines, text as written, and what is refused or bounded."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.yaml_nodes import MAX_DEPTH, MAX_NODES, Items, Node, Pairs, Scalar, compose, compose_json
from agent.errors import ConfigError, Problem


def problem_of(text: str) -> Problem:
    """The one problem that composing the text raises."""
    with pytest.raises(ConfigError) as caught:
        compose(text, "policy.yaml")
    (problem,) = caught.value.problems
    assert problem.file == "policy.yaml"
    return problem


@pytest.mark.parametrize("text", ["", "\n\n", "# only a comment\n", "---\n", "~", "null\n", "--- # nothing\n...\n"])
def test_a_text_without_content_is_no_node(text: str) -> None:
    """Empty files, comments and an explicit null all hold nothing."""
    assert compose(text, "f") is None


def test_scalars_keep_their_text_line_and_quotes() -> None:
    """What YAML 1.1 would make a boolean or a base-60 number is still the text that was written."""
    node = compose("a: off\nb: 22:00\nc: '010'\n", "f")
    assert isinstance(node, Pairs)
    values = [value for _, value in node.pairs]
    assert values == [Scalar(1, "off", plain=True), Scalar(2, "22:00", plain=True), Scalar(3, "010", plain=False)]


@pytest.mark.parametrize(
    ("text", "line", "words"),
    [
        ("a: [1,\nb: 2\n", 3, "begins in line 1"),
        ("a: 1\n\tb: 2\n", 2, "not with tabs"),
        ("a:\n  b: 1\n c: 2\n", 3, "not YAML"),
        ("a: 'open\n", 2, "not YAML"),
        ("a: \x00\n", 1, "character U+0000"),
        ("a: 1\nb: \x07\n", 2, "character U+0007"),
        ('a: "\\UFFFFFFFF"\n', 0, "not YAML"),
        ('a: "\\uD800"\n', 1, "surrogate"),
        ("a: 1\n---\nb: 2\n", 2, "a second document"),
        ("a: 1\n---\n", 2, "a second document"),
        ("a: !!python/object/apply:os.system [id]\n", 1, "the tag tag:yaml.org,2002:python/object/apply:os.system"),
        ("a: !!str 1\n", 1, "the tag"),
        ("a: !mine {}\n", 1, "the tag !mine"),
        ("a: *nowhere\n", 1, "the anchor nowhere is not defined"),
        ("a: &x [*x]\n", 1, "the anchor x is used inside itself"),
        ("? [a, b]\n: 1\n", 1, "a key has to be a word"),
        ("? {a: b}\n: 1\n", 1, "a key has to be a word"),
        ("%YAML 99\n---\na: 1\n", 0, "not YAML"),
        ("@", 1, "not YAML"),
        ("%", 1, "not YAML"),
    ],
)
def test_what_is_not_yaml_or_not_wanted_is_one_problem_with_its_line(text: str, line: int, words: str) -> None:
    """Syntax errors, foreign tags, several documents and bad anchors say where and why."""
    problem = problem_of(text)
    assert words in problem.message
    if line:
        assert problem.line == line


def test_aliases_stand_for_what_they_name() -> None:
    """An alias is the anchor's node, with the anchor's lines."""
    node = compose("a: &x [1]\nb: *x\n", "f")
    assert isinstance(node, Pairs)
    assert node.pairs[1][1] == Items(1, (Scalar(1, "1", plain=True),), 2)


def test_depth_is_bounded_without_recursing() -> None:
    """A hundred thousand brackets are one problem, not a stack overflow."""
    assert f"deeper than {MAX_DEPTH}" in problem_of("[" * 100_000).message


def test_a_bomb_of_aliases_never_unfolds() -> None:
    """Ten anchors of nine aliases each would be a billion values."""
    lines = ["a0: &a0 [x,x,x,x,x,x,x,x,x]"]
    lines += [f"a{n}: &a{n} [{','.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    assert "aliases counted each time" in problem_of("\n".join(lines)).message


def test_many_plain_values_are_bounded_too() -> None:
    """The bound is on values, wherever they come from."""
    assert compose(f"[{','.join(['x'] * (MAX_NODES - 2))}]", "f") is not None
    assert "holds more than" in problem_of(f"[{','.join(['x'] * (MAX_NODES + 1))}]").message


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=15,
)


def plain_data(node: Node) -> object:
    """What json.loads would return."""
    match node:
        case Pairs():
            return {key.text: plain_data(value) for key, value in node.pairs}
        case Items():
            return [plain_data(item) for item in node.items]
        case _:
            return json.loads(node.text) if node.plain else node.text


@given(_JSON, st.sampled_from([None, 1]))
def test_every_json_document_is_read_as_json_reads_it(data: object, indent: int | None) -> None:
    """Escapes, numbers and nesting; laid out over lines or not."""
    text = json.dumps(data, indent=indent)
    assert plain_data(compose_json(text, "f", max_depth=20)) == json.loads(text)


def test_json_nodes_know_their_lines_and_keep_duplicate_keys() -> None:
    """A string may hold brackets, and a line is that of the value's first character."""
    node = compose_json('{"a": "]}",\n "a":\n  [1,\n {"b": null}]}', "f", max_depth=4)
    assert isinstance(node, Pairs)
    assert [(key.line, key.text, value.line) for key, value in node.pairs] == [(1, "a", 1), (2, "a", 3)]


@pytest.mark.parametrize("text", ["[" * 5, "[" * 100_000, '{"a":' * 5 + "1" + "}" * 5])
def test_the_depth_of_json_is_bounded_before_it_is_read(text: str) -> None:
    """Also of what is not JSON at all."""
    with pytest.raises(ConfigError, match="nested deeper than 4 levels"):
        compose_json(text, "f", max_depth=4)


@given(st.text(max_size=60) | st.text('{}[],:"\\tn1e-. ', max_size=40))
def test_any_text_is_a_node_or_a_config_error(text: str) -> None:
    """As json.loads decides."""
    try:
        known = json.loads(text, parse_constant=int)  # NaN is no JSON
    except ValueError:
        with pytest.raises(ConfigError):
            compose_json(text, "f", max_depth=99)
    else:
        assert plain_data(compose_json(text, "f", max_depth=99)) == known
