"""`denials` and `record` over HTTP, against staged Nodes."""

from __future__ import annotations

import io
import json
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from agent import annotations as keys
from agent.controls.seccomp.linting import lint
from agent.denials.records import Kind, Outcome
from agent.kube import Kube
from agent.plugin.cluster.denials import DenialRow
from agent.plugin.commands import COMMANDS
from agent.plugin.commands.denials import suggestion
from agent.plugin.main import parser, run
from agent.plugin.record.loading import ProfileRefused, load
from agent.plugin.record.profile import make
from agent.plugin.record.recordings import RecordingRow
from agent.plugin.session import NAMESPACE, Form, Session
from agent.sandbox import builders
from agent.sandbox.rolling_reboot import wait_until
from agent.sandbox.server import Sandbox
from tests.support.access import direct
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
    # The agent's own namespace is one like any other once it is named.
    assert json.loads(screen.type(f"denials -n {NAMESPACE} -o json").out)["denials"] == []
    document = json.loads(screen.type("denials -o json").out)
    assert [(one["node"], one["state"], one["reason"]) for one in document["nodes"]] == [
        ("node-1", "seeing", None), ("node-2", "seeing", None), ("node-3", "blind", "network-namespace")
    ]  # fmt: skip
    assert document["denials"][0]["suggestion"] == "FILE ix,"
    assert yaml.safe_load(screen.type("denials -o yaml").out) == document


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


def test_a_privileged_container_without_a_row_is_named_in_any_namespace(still: Sandbox, refused: Staged) -> None:
    """It has no rows that would tell the namespace; and without its denials there is no pass."""
    pod = builders.pod("driver-0", namespace="default", node="node-2")
    pod["spec"]["initContainers"] = [{"name": "setup", "securityContext": {"privileged": True}}]
    still.create("pods", pod, "default")
    try:
        still.update("nodes", "node-3", lambda node: node["metadata"]["annotations"].pop(keys.DENIALS))
        shown = Screen(still, refused, 200).type("denials driver-0")
        assert (shown.code, "setup is privileged: no denial of it is visible" in shown.out) == (1, True)
    finally:
        still.delete("pods", "driver-0", "default")


def test_a_workloads_name_is_that_of_its_pods(still: Sandbox, refused: Staged) -> None:
    """As for record; with and without a row, in any namespace. The name of one pod is no beginning of others."""
    screen = Screen(still, refused)
    assert {one["pod"] for one in json.loads(screen.type("denials web -o json").out)["denials"]} == {"web-5d9c7"}
    pods = [builders.pod(name, namespace="default", node="node-2") for name in ("driver-0", "driver-1", "drivers-0")]
    for pod in pods:
        own = {"name": f"{pod['metadata']['name']}-c", "image": "i", "securityContext": {"privileged": True}}
        pod["spec"]["containers"] = [own]
        still.create("pods", pod, "default")
    try:
        notes = json.loads(screen.type("denials driver -o json").out)["pod"]
        assert [note.split()[1] for note in notes] == ["driver-0-c", "driver-1-c"]
        notes = json.loads(screen.type("denials driver-1 -o json").out)["pod"]
        assert [note.split()[1] for note in notes] == ["driver-1-c"]
    finally:
        for pod in pods:
            still.delete("pods", pod["metadata"]["name"], "default")


def test_the_name_of_no_pod_is_an_error(still: Sandbox, refused: Staged) -> None:
    """Rather than "no denial"."""
    shown = Screen(still, refused).type("denials no-such-pod")
    assert (shown.code, shown.out) == (2, "")
    assert "the name of no node and of no pod" in shown.err


@pytest.mark.parametrize("key", ["lost", "unattributed", "other", "more"])
def test_what_may_be_missing_is_not_none(still: Sandbox, refused: Staged, key: str) -> None:
    text = json.dumps({"v": 1, "state": "seeing", "rows": [], key: 3})
    still.update("nodes", "node-2", lambda node: node["metadata"]["annotations"].update({keys.DENIALS: text}))
    shown = Screen(still, refused).type("denials node-2")
    assert (shown.code, "No denial" in shown.out) == (1, False)


def test_an_agent_that_is_silent_has_not_seen_none(still: Sandbox, refused: Staged) -> None:
    """Its annotation stays when it ends; the kubelet's heartbeat goes on."""

    def age(node: dict[str, Any]) -> None:
        for one in node["status"]["conditions"]:
            if one["type"] == keys.CONDITION_HARDENED:
                one["lastHeartbeatTime"] = "2020-01-01T00:00:00Z"

    still.update("nodes", "node-2", age)
    shown = Screen(still, refused).type("denials node-2")
    assert (shown.code, "No denial" in shown.out, "does not report any more" in shown.out) == (1, False, True)


@pytest.mark.parametrize("name", ["node-1", "node-3"])
def test_why_says_nothing_of_a_silent_agents_last_denials(still: Sandbox, refused: Staged, name: str) -> None:
    """Rows and blindness alike; that the agent is silent is the reason."""
    screen = Screen(still, refused)
    assert f"kubectl node-hardening denials {name}" in screen.type(f"why {name}").out

    def age(node: dict[str, Any]) -> None:
        for one in node["status"]["conditions"]:
            if one["type"] == keys.CONDITION_HARDENED:
                one["lastHeartbeatTime"] = "2020-01-01T00:00:00Z"

    still.update("nodes", name, age)
    shown = screen.type(f"why {name}").out
    assert ("its agent has not reported for" in shown, "denials" in shown) == (True, False), shown
    assert json.loads(screen.type(f"why {name} -o json").out)["denials"] is None


@pytest.mark.parametrize(
    ("operation", "mask", "rule"),
    [
        ("signal", "send term", "signal (send) set=(term),"), ("mount", "tmpfs", "mount fstype=tmpfs,"),
        ("mount", "", "mount,"), ("create", "inet raw", "network inet raw,"), ("connect", "unix stream",
        "network unix stream,"), ("capable", "sys_time", "capability sys_time,"), ("ptrace", "read", "ptrace (read),"),
        ("mknod", "c", "/etc/ssl/** w,"), ("exec", "x", "/etc/ssl/** ix,"),
    ],
)  # fmt: skip
def test_a_suggested_rule_is_in_apparmors_language(operation: str, mask: str, rule: str) -> None:
    """Each of these is taken by apparmor_parser 3.0."""
    row = DenialRow("n", "p", "u", "c", "web", Kind.APPARMOR, operation, mask, Outcome.REFUSED, "/etc/ssl", 1, 1.0, 1.0)
    assert suggestion(row) == rule


def test_watch_prints_new_rows_and_where_none_would_be_seen(still: Sandbox, refused: Staged) -> None:
    """Each row once, a count is none; of a node that cannot see silence would mean "none"."""
    kube = Kube(direct(still.url, token=still.token), node="watch")
    out = io.StringIO()
    session = Session(lambda: kube, "node-hardening", Form.TABLE, out, io.StringIO(), lambda: refused.now)
    options = parser(COMMANDS).parse_args(["denials", "--watch"])
    thread = threading.Thread(target=run, args=(options, session), daemon=True)
    thread.start()
    printed = wait_until(lambda: "node-3: denials are not visible" in out.getvalue(), 10)
    assert printed, out.getvalue()
    assert out.getvalue().count("node-1  ") == 3

    def more(node: dict[str, Any]) -> None:
        document = json.loads(node["metadata"]["annotations"][keys.DENIALS])
        first = document["rows"][0]
        counted = [[*row[:10], row[10] + 1, *row[11:]] for row in document["rows"]]
        document["rows"] = [[*first[:6], "ptrace", *first[7:]], *counted]
        node["metadata"]["annotations"][keys.DENIALS] = json.dumps(document)

    still.update("nodes", "node-1", more)
    assert wait_until(lambda: "ptrace" in out.getvalue(), 10)
    assert out.getvalue().count("node-1  ") == 4
    kube.stop()
    thread.join(10)
    assert not thread.is_alive()


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


# -- record ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def recorded(still: Sandbox) -> Staged:
    """Two replicas on two nodes."""
    staged = SCENES["recorded"]()
    staged.put_on(still)
    return staged


def profile_of(text: str) -> dict[str, set[str]]:
    """The names of each action."""
    found: dict[str, set[str]] = {}
    for rule in json.loads(text)["syscalls"]:
        found.setdefault(rule["action"], set()).update(rule["names"])
    return found


def test_the_union_of_replicas_is_exported_with_what_the_runtime_needs(still: Sandbox, recorded: Staged) -> None:
    """chmod was called by one replica only; capset by neither, and no container starts without."""
    shown = Screen(still, recorded).type("record export web -n shop")
    assert (shown.code, shown.err) == (0, "")
    allowed = profile_of(shown.out)["SCMP_ACT_ALLOW"]
    assert {"chmod", "accept4", "capset", "openat2"} <= allowed
    assert "ptrace" not in allowed
    assert json.loads(shown.out)["defaultAction"] == "SCMP_ACT_ERRNO"
    assert lint(shown.out, "web.json") == []


def test_an_existing_profile_is_kept(still: Sandbox, recorded: Staged, tmp_path: Path) -> None:
    """What it refuses stays refused although it was recorded; what it allows under a condition is not widened."""
    rules = [
        {"names": ["chmod"], "action": "SCMP_ACT_ERRNO"},
        {"names": ["read", "ptrace"], "action": "SCMP_ACT_ALLOW"},
    ]
    file = tmp_path / "web.json"
    file.write_text(json.dumps({"defaultAction": "SCMP_ACT_LOG", "syscalls": rules}))
    shown = Screen(still, recorded).type(f"record export web -n shop --merge {file}")
    document = json.loads(shown.out)
    assert document["defaultAction"] == "SCMP_ACT_LOG"
    assert document["syscalls"][:2] == rules
    added = {name for rule in document["syscalls"][2:] for name in rule["names"]}
    assert "write" in added
    assert not added & {"chmod", "read", "ptrace"}
    assert any("chmod" in line for line in document["comment"])


def test_an_older_form_is_kept_too(still: Sandbox, recorded: Staged, tmp_path: Path) -> None:
    """With `name` instead of `names`."""
    file = tmp_path / "old.json"
    rules = [{"name": "chmod", "action": "SCMP_ACT_KILL"}, {"name": "read", "action": "SCMP_ACT_ALLOW"}]
    file.write_text(json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": rules}))
    shown = Screen(still, recorded).type(f"record export web -n shop --merge {file}")
    assert (shown.code, json.loads(shown.out)["syscalls"][:2]) == (0, rules)
    added = {name for rule in json.loads(shown.out)["syscalls"][2:] for name in rule["names"]}
    assert not added & {"chmod", "read"}


@pytest.mark.parametrize(
    "text", ["{", "[]", '{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": 7}',
             '{"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": null, "action": "SCMP_ACT_ALLOW"}]}']
)  # fmt: skip
def test_an_existing_profile_that_is_invalid_is_named(
    still: Sandbox, recorded: Staged, tmp_path: Path, text: str
) -> None:
    """By its own file and line, before anything is added to it."""
    (tmp_path / "bad.json").write_text(text)
    shown = Screen(still, recorded).type(f"record export web -n shop --merge {tmp_path}/bad.json")
    assert (shown.code, shown.out, "bad.json:1" in shown.err) == (2, "", True)


def test_an_existing_profile_that_is_too_large_is_called_that(still: Sandbox, recorded: Staged, tmp_path: Path) -> None:
    """Not invalid where the reading of it ended."""
    large = tmp_path / "large.json"
    large.write_text('{"defaultAction": "SCMP_ACT_ERRNO"' + " " * (1 << 20) + "}")
    shown = Screen(still, recorded).type(f"record export web -n shop --merge {large}")
    assert (shown.code, shown.out, "more than 1 Mi characters" in shown.err) == (2, "", True)


def test_what_an_existing_profile_allows_under_a_condition_is_not_widened() -> None:
    """A recording has no arguments: `clone` was recorded, and may not make namespaces because of it."""
    row = RecordingRow("n", "shop", "web", "u", "c", "i", "SCMP_ARCH_X86_64", frozenset({"clone"}), 1, 0, 1.0, 2.0)
    no_namespaces = {"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}
    rule = {"names": ["clone"], "action": "SCMP_ACT_ALLOW", "args": [no_namespaces]}
    existing = {"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [rule]}
    document = json.loads(make([row], default="", existing=existing, by="test").text)
    assert [one for one in document["syscalls"] if "clone" in one["names"]] == [rule]
    assert "Recorded, and left as the existing profile has them: clone." in document["comment"]


def test_a_program_of_32_bit_arm_gets_what_it_starts_with() -> None:
    """Its own calls have numbers that no recording holds."""
    row = RecordingRow("n", "shop", "web", "u", "c", "i", "SCMP_ARCH_ARM", frozenset({"read"}), 1, 0, 1.0, 2.0)
    made = make([row], default="SCMP_ACT_ERRNO", existing=None, by="test")
    assert {"set_tls", "cacheflush"} <= profile_of(made.text)["SCMP_ACT_ALLOW"]


def test_nothing_recorded_where_no_agent_can_see(still: Sandbox, recorded: Staged) -> None:
    """It does not claim that no container logs."""
    blind = json.dumps({"v": 1, "state": "blind", "reason": "network-namespace"})
    for number in (1, 2, 3):
        notes = {keys.DENIALS: blind, keys.RECORDINGS: ""}
        still.update("nodes", f"node-{number}", lambda node: node["metadata"]["annotations"].update(notes))  # noqa: B023
    shown = Screen(still, recorded, 200).type("record status")
    assert shown.code == 1
    assert "no agent has reported a logged call" not in shown.out
    assert "network namespace" in shown.out


def test_lost_records_make_it_incomplete(still: Sandbox, recorded: Staged) -> None:
    """In the comment, on standard error, and in the exit code."""

    def lose(node: dict[str, Any]) -> None:
        notes = node["metadata"]["annotations"]
        document = json.loads(notes[keys.RECORDINGS])
        document["recordings"][0][8] = 12
        notes[keys.RECORDINGS] = json.dumps(document)

    still.update("nodes", "node-1", lose)
    shown = Screen(still, recorded).type("record export web -n shop")
    assert (shown.code, "incomplete" in shown.err) == (1, True)
    assert any(line.startswith("INCOMPLETE: 12") for line in json.loads(shown.out)["comment"])


@pytest.mark.parametrize("line", ["record export other", "record start web", "record start pod/web", "record stop a b"])
def test_what_cannot_be_done_is_a_usage_error(still: Sandbox, recorded: Staged, line: str) -> None:
    shown = Screen(still, recorded).type(line)
    assert (shown.code, shown.out) == (2, "")


def test_start_and_stop_print_a_patch_that_undo_each_other(still: Sandbox, recorded: Staged) -> None:
    """For a container of its own too, and for a CronJob's template."""
    screen = Screen(still, recorded)
    start = json.loads(screen.type("record start cronjob/report -n jobs -o json").out)["patch"]
    spec = start["spec"]["jobTemplate"]["spec"]["template"]["spec"]
    assert spec["securityContext"]["seccompProfile"] == {"type": "Localhost", "localhostProfile": "audit.json"}
    stop = json.loads(screen.type("record stop deployment/web -c nginx -o json").out)["patch"]
    (container,) = stop["spec"]["template"]["spec"]["containers"]
    assert container == {"name": "nginx", "securityContext": {"seccompProfile": None}}


@pytest.mark.parametrize("row", [[], [1] * 11, ["n", "p", "u", "c", "i", "zz", "ff", 1, 1, 1, 1],
                                 ["n", "p", "u", "c", "i", "c000003e", "f" * 9999, 1, 1, 1, 1]])  # fmt: skip
def test_a_forged_recording_is_left_out(still: Sandbox, recorded: Staged, row: list[Any]) -> None:
    text = json.dumps({"v": 1, "recordings": [row]})
    still.update("nodes", "node-1", lambda node: node["metadata"]["annotations"].update({keys.RECORDINGS: text}))
    document = json.loads(Screen(still, recorded).type("record status -o json").out)
    assert [one["node"] for one in document["recordings"]] == ["node-2"]


def test_a_filter_that_libseccomp_refuses_is_not_printed() -> None:
    with pytest.raises(ProfileRefused, match="no_such_call"):
        load(json.dumps({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [
            {"names": ["no_such_call"], "action": "SCMP_ACT_ALLOW"}]}))  # fmt: skip
