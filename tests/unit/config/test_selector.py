"""Label selectors, as the API server reads them: against examples, and against a plain oracle."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.selector import Operator, Requirement, Selector, from_object, parse

KEYS = ("app", "tier", "example.com/pool", "a")
VALUES = ("", "web", "db", "x.y-z_1")


@pytest.mark.parametrize(
    ("text", "key", "operator", "values"),
    [
        ("app=web", "app", Operator.IN, {"web"}),
        ("app==web", "app", Operator.IN, {"web"}),
        ("app = web", "app", Operator.IN, {"web"}),
        ("app=", "app", Operator.IN, {""}),
        ("app!=web", "app", Operator.NOT_IN, {"web"}),
        ("app in (web, db)", "app", Operator.IN, {"web", "db"}),
        ("app in(web)", "app", Operator.IN, {"web"}),
        ("app in ()", "app", Operator.IN, {""}),
        ("app notin (web)", "app", Operator.NOT_IN, {"web"}),
        ("app", "app", Operator.EXISTS, set()),
        ("!app", "app", Operator.ABSENT, set()),
        ("! app", "app", Operator.ABSENT, set()),
        ("example.com/pool=a", "example.com/pool", Operator.IN, {"a"}),
        ("in=notin", "in", Operator.IN, {"notin"}),
    ],
)
def test_one_requirement(text: str, key: str, operator: Operator, values: set[str]) -> None:
    """Every form that kubectl takes for a single label."""
    assert parse(text).requirements == (Requirement(key, operator, frozenset(values)),)


def test_requirements_are_parted_by_commas_outside_of_sets() -> None:
    """A comma inside parentheses belongs to the set."""
    selector = parse("app in (web,db), tier!=cache,!spot")
    assert [one.key for one in selector.requirements] == ["app", "tier", "spot"]
    assert str(selector) == "app in (web,db), tier!=cache,!spot"


@pytest.mark.parametrize("text", ["", " ", "\n"])
def test_the_empty_selector_matches_everything_and_is_false(text: str) -> None:
    """So that `if selector` asks whether there is one."""
    assert parse(text) == Selector()
    assert not parse(text)
    assert parse(text).matches({})
    assert parse(text).matches({"any": "thing"})
    assert parse("a")


@pytest.mark.parametrize(
    "text",
    [
        ",",
        "a,",
        ",a",
        "a,,b",
        "a=b,",
        "a in",
        "a in b",
        "a in (b",
        "a in b)",
        "a in (b) c",
        "a in ((b))",
        "a within (b)",
        "in (a)",
        "a b",
        "a=b c",
        "a=b=c",
        "a=!b",
        "a>1",
        "=b",
        "!",
        "!!a",
        "!a=b",
        "-a",
        "a-",
        "a/b/c",
        "/a",
        "A.com/a",
        "a..b/c",
        "-a.com/b",
        "a=-",
        "a=" + "x" * 64,
        "x" * 64,
        "x" * 254 + "/a",
        "ü=a",
        "a=ü",
        "(a)",
        "a()",
        "a=b\x00",
    ],
)
def test_other_texts_are_refused_and_say_which_part(text: str) -> None:
    """A selector that is silently read in another way selects other pods."""
    with pytest.raises(ValueError, match=r"^['\"]"):
        parse(text)


def test_the_wrong_part_is_named() -> None:
    """Among several, the one that is wrong."""
    with pytest.raises(ValueError, match=r"^'tier within \(a\)' is not key=value"):
        parse("app=web,tier within (a)")


# -- against an oracle -------------------------------------------------------------------------------------------------

Wanted = tuple[str, str, tuple[str, ...]]  # key, form, values


@st.composite
def requirements(draw: st.DrawFn) -> Wanted:
    """One requirement in one of the forms that people write."""
    form = draw(st.sampled_from(["=", "==", "!=", "in", "notin", "exists", "!"]))
    several = form in ("in", "notin")
    values = draw(st.lists(st.sampled_from(VALUES), min_size=1, max_size=3 if several else 1))
    return draw(st.sampled_from(KEYS)), form, tuple(values)


def written(wanted: Wanted, space: str) -> str:
    """As people write it, with as much room as they like."""
    key, form, values = wanted
    match form:
        case "exists":
            return f"{space}{key}{space}"
        case "!":
            return f"{space}!{space}{key}"
        case "in" | "notin":
            return f"{key} {space}{form}{space}({space}{f'{space},{space}'.join(values)}{space})"
        case _:
            return f"{key}{space}{form}{space}{values[0]}{space}"


def selected(wanted: Wanted, labels: dict[str, str]) -> bool:
    """What the API server's documentation says, word for word."""
    key, form, values = wanted
    match form:
        case "=" | "==" | "in":
            return key in labels and labels[key] in values
        case "!=" | "notin":
            return key not in labels or labels[key] not in values
        case "exists":
            return key in labels
        case _:
            return key not in labels


@given(
    st.lists(requirements(), min_size=1, max_size=4),
    st.dictionaries(st.sampled_from(KEYS), st.sampled_from(VALUES)),
    st.sampled_from(["", " ", "  "]),
)
def test_selecting_is_what_the_documentation_says(wanted: list[Wanted], labels: dict[str, str], space: str) -> None:
    """Every requirement has to match; != and notin select objects without the key too."""
    selector = parse(",".join(written(one, space) for one in wanted))
    assert selector.matches(labels) is all(selected(one, labels) for one in wanted)


@given(st.text(max_size=40) | st.text("ab=!,()in ", max_size=20))
def test_any_text_is_a_selector_or_a_value_error(text: str) -> None:
    """And what is a selector reads the same when it is read again."""
    try:
        selector = parse(text)
    except ValueError:
        return
    assert parse(str(selector)) == selector


IN_WEB = {"matchExpressions": [{"key": "app", "operator": "In", "values": ["web"]}]}


@pytest.mark.parametrize(
    ("found", "labels", "expected"),
    [
        ({}, {}, True),
        ({"matchLabels": None, "matchExpressions": None}, {"app": "db"}, True),
        ({"matchLabels": {"app": "web"}}, {"app": "web", "x": "y"}, True),
        ({"matchLabels": {"app": "web"}}, {"app": "db"}, False),
        (IN_WEB, {"app": "web"}, True),
        (IN_WEB, {}, False),
        ({**IN_WEB, "matchLabels": {"x": "y"}}, {"app": "web"}, False),
        ({"matchExpressions": [{"key": "app", "operator": "NotIn", "values": ["web"]}]}, {}, True),
        ({"matchExpressions": [{"key": "app", "operator": "Exists", "values": []}]}, {"app": ""}, True),
        ({"matchExpressions": [{"key": "app", "operator": "DoesNotExist"}]}, {"app": ""}, False),
    ],
)
def test_an_object_selects_as_the_api_server_does_it(found: object, labels: dict[str, str], expected: bool) -> None:
    """Both parts of a LabelSelector have to match."""
    assert from_object(found).matches(labels) is expected


@pytest.mark.parametrize(
    "found",
    [
        None, [], "app=web", {"matchLabel": {}}, {"matchLabels": []},
        {"matchExpressions": ""}, {"matchLabels": [1]}, {"matchLabels": {"app": 7}},
        {"matchLabels": {"app": "a b"}}, {"matchLabels": {"": "a"}}, {"matchExpressions": {}, "matchLabels": 7},
        {"matchExpressions": {"key": "a"}}, {"matchExpressions": [7]}, {"matchExpressions": [{"key": "a"}]},
        {"matchExpressions": [{"key": "a", "operator": "Like", "values": ["w"]}]},
        {"matchExpressions": [{"key": "a", "operator": ["In"], "values": ["w"]}]},
        {"matchExpressions": [{"key": "a", "operator": "In"}]},
        {"matchExpressions": [{"key": "a", "operator": "In", "values": "web"}]},
        {"matchExpressions": [{"key": "a", "operator": "In", "values": [{}]}]},
        {"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["w"]}]},
        {"matchExpressions": [{"operator": "Exists"}]},
    ],
)  # fmt: skip
def test_an_object_that_cannot_be_read_is_an_error(found: object) -> None:
    """It neither matches nor does not."""
    with pytest.raises(ValueError, match=r"label|mapping|values|list"):
        from_object(found)
