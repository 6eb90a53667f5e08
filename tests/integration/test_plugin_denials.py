"""`denials` and `record` over HTTP, against staged Nodes."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from agent import annotations as keys
from agent.sandbox import builders
from agent.sandbox.server import Sandbox
from tests.support.plugin_fleet import SCENES, Staged
from tests.support.plugin_screen import Screen, emulator


@pytest.fixture(scope="module")
def still() -> Iterator[Sandbox]:
    """One emulator for all tests."""
    with emulator() as sandbox:
        yield sandbox


@pytest.fixture
def refused(still: Sandbox) -> Staged:
    """Denials on one node, none on the second, the third cannot see."""
    staged = SCENES["refused"]()
    staged.put_on(still)
    return staged


def test_one_node_that_sees_and_has_none_is_well(still: Sandbox, refused: Staged) -> None:
    """The others are not: one has denials, one cannot see."""
    screen = Screen(still, refused)
    assert [screen.type(f"denials node-{number}").code for number in (1, 2, 3)] == [1, 0, 1]
    assert "No denial" not in screen.type("denials node-3").out


def test_rows_of_a_namespace_and_of_a_pod(still: Sandbox, refused: Staged) -> None:
    """-n is the pods' namespace here; a name that no node has is a pod's."""
    screen = Screen(still, refused)
    for line in ("denials -n jobs -o json", "denials report-1 -o json"):
        assert {row["pod"] for row in json.loads(screen.type(line).out)["denials"]} == {"report-1"}
    document = json.loads(screen.type("denials -o json").out)
    assert [(one["node"], one["state"], one["reason"]) for one in document["nodes"]] == [
        ("node-1", "seeing", None), ("node-2", "seeing", None), ("node-3", "blind", "network-namespace")
    ]  # fmt: skip
    assert document["denials"][0]["suggestion"] == "FILE ix,"


def test_a_privileged_container_is_named(still: Sandbox, refused: Staged) -> None:
    """No profile confines it, so that no denial of it is none."""
    pod = builders.pod("report-1", namespace="jobs", node="node-1")
    pod["spec"]["containers"][0]["securityContext"] = {"privileged": True}
    for namespace in ("jobs",):
        if still.get("namespaces", namespace) is None:
            still.create("namespaces", {"metadata": {"name": namespace}})
    still.create("pods", pod, "jobs")
    try:
        shown = Screen(still, refused, 200).type("denials report-1").out
        assert "is privileged: no denial of it is visible" in shown
    finally:
        still.delete("pods", "report-1", "jobs")


def test_without_an_observer_it_says_how_to_begin(still: Sandbox) -> None:
    staged = SCENES["calm"]()
    staged.put_on(still)
    shown = Screen(still, staged).type("denials")
    assert (shown.code, "denials.mode: observe" in shown.out) == (1, True)


@pytest.mark.parametrize(
    "text",
    [
        "{", "[]", '{"v":1}', '{"v":2,"state":"seeing"}', '{"v":1,"state":"seeing","rows":[1,[2],[]]}',
        '{"v":1,"state":"seeing","rows":[["\\u001b[31m","p","u","c","p","seccomp","o","m","refused","",1e400,-1,"x"]]}',
        '{"v":1,"state":"seeing","rows":7,"notes":[7],"lost":"many"}',
    ],
)  # fmt: skip
def test_a_forged_annotation_is_survived(still: Sandbox, refused: Staged, text: str) -> None:
    """No control character, no traceback, and what is malformed is not "none"."""
    still.update("nodes", "node-2", lambda node: node["metadata"]["annotations"].update({keys.DENIALS: text}))
    shown = Screen(still, refused).type("denials node-2")
    assert (shown.err, "\x1b" in shown.out) == ("", False)
    assert json.loads(Screen(still, refused).type("denials node-2 -o json").out)["nodes"]
    if '"v":1,"state":"seeing"' not in text:
        assert shown.code == 1
