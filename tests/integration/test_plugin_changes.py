"""pause, resume, skip and reboot: shown, confirmed, swapped, recorded; on the emulator and a real kube-apiserver."""

from __future__ import annotations

import itertools
import json
import os
import pty
import select
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from agent.reboot.blockers.pause import judge
from agent.sandbox.faults import Fault, FaultKind
from tests.support.apiservers import ApiServer, Client
from tests.support.typed import Person

PREFIX = "node-hardening.io"
IDLE = '{"v":1,"phase":"idle","reason":"NotRequired","mode":"enforce","required":false,"message":"not required"}'


@pytest.fixture
def me(api: ApiServer) -> str:
    """What the API server calls its administrator."""
    return "admin" if api.is_real else "sandbox-admin"


@pytest.fixture(autouse=True)
def _agent_is_there(client: Client, node: str) -> Iterator[None]:
    """The node says what an agent would have it say."""
    annotate(client, node, version="0.2.0", status="hardened", reboot_status=IDLE)
    conditions = [
        {"type": "Ready", "status": "True", "reason": "KubeletReady", "message": ""},
        {"type": "RebootRequired", "status": "False", "reason": "NotRequired", "message": ""},
    ]
    answer = client.patch(f"/api/v1/nodes/{node}/status", {"status": {"conditions": conditions}}, "strategic")
    assert answer.status_code == 200, answer.text
    yield
    assert client.delete(f"/api/v1/nodes/{node}").status_code == 200


def annotate(client: Client, node: str, **notes: str | None) -> None:
    keys = {f"{PREFIX}/{key.replace('_', '-')}": value for key, value in notes.items()}
    answer = client.patch(f"/api/v1/nodes/{node}", {"metadata": {"annotations": keys}})
    assert answer.status_code == 200, answer.text


def note(client: Client, node: str, key: str) -> str | None:
    found = client.get(f"/api/v1/nodes/{node}").json()["metadata"].get("annotations", {})
    value: str | None = found.get(f"{PREFIX}/{key}")
    return value


def events_of(client: Client, name: str, namespace: str = "default", since: int = 0) -> list[tuple[str, str]]:
    """Reasons and messages of the Events about an object."""
    path = f"/api/v1/namespaces/{namespace}/events"
    found = client.get(path, fieldSelector=f"involvedObject.name={name}").json()["items"]
    known = sorted(found, key=lambda one: int(one["metadata"]["resourceVersion"]))
    return [(one["reason"], one["message"]) for one in known][since:]


def pause_of(client: Client, namespace: str) -> dict[str, Any]:
    answer = client.get(f"/api/v1/namespaces/{namespace}/configmaps/node-hardening-pause")
    found: dict[str, Any] = answer.json() if answer.status_code == 200 else {}
    return found


# -- pause and resume --------------------------------------------------------------------------------------------------


def test_a_pause_is_shown_asked_for_and_understood_by_the_agents(
    api: ApiServer, client: Client, namespace: str, me: str
) -> None:
    """What it writes is what the agents' own blocker reads; the Event says who and why."""
    person = Person(api, answers=["y"], now=lambda: datetime.fromisoformat("2026-12-31T18:00:00Z").timestamp())
    typed = person.types("-n", namespace, "pause", "--for", "4h", "--reason", "month's end")
    assert typed.code == 0
    assert person.asked == ["Continue? [y/N] "]
    assert "until 2026-12-31T22:00:00Z (in 4h)" in typed.err
    found = pause_of(client, namespace)
    assert found["data"] == {"until": "2026-12-31T22:00:00Z", "reason": "month's end", "by": me}
    at = datetime.fromisoformat("2026-12-31T21:00:00Z").timestamp()
    assert judge(found, at).blocked
    events = events_of(client, "node-hardening-pause", namespace)
    assert events == [
        ("RebootsPaused", f"{me} paused every reboot until 2026-12-31T22:00:00Z (in 4h), by {me}: month's end")
    ]


def test_a_pause_that_stands_is_shown_and_replaced_only_when_told(
    api: ApiServer, client: Client, namespace: str, me: str
) -> None:
    """Another user's pause with another end; no is no, and yes keeps its reason."""
    first = Person(api, answers=["y", "n", "yes"])
    first.types("-n", namespace, "pause", "--reason", "Black Friday")
    before = pause_of(client, namespace)
    refused = first.types("-n", namespace, "pause", "--for", "2h")
    assert refused.code == 1
    assert f"replaces the current pause: until resumed, by {me}: Black Friday" in refused.err
    assert refused.err.endswith("nothing was changed\n")
    assert pause_of(client, namespace) == before
    assert first.types("-n", namespace, "pause", "--for", "2h").code == 0
    after = pause_of(client, namespace)
    assert after["data"]["until"].endswith("Z")
    assert after["data"]["reason"] == "Black Friday"
    assert after["metadata"]["uid"] == before["metadata"]["uid"]


def test_pausing_twice_and_resuming_twice_change_nothing_the_second_time(
    api: ApiServer, client: Client, namespace: str
) -> None:
    """Nothing is asked, nothing is written, no Event; the exit code is 0."""
    person = Person(api)
    line = ("-n", namespace, "pause", "--yes", "--reason", "move")
    assert person.types(*line).code == 0
    before = pause_of(client, namespace)
    again = person.types(*line)
    assert (again.code, again.out.startswith("already paused: until resumed")) == (0, True)
    assert pause_of(client, namespace) == before
    lifted = person.types("-n", namespace, "resume", "--yes")
    assert (lifted.code, lifted.out) == (0, "reboots are resumed\n")
    assert pause_of(client, namespace) == {}
    assert person.types("-n", namespace, "resume").out == "not paused\n"
    reasons = [reason for reason, _ in events_of(client, "node-hardening-pause", namespace)]
    assert reasons == ["RebootsPaused", "RebootsResumed"]


def test_a_pause_that_somebody_else_changed_while_we_read_is_left_alone(
    api: ApiServer, client: Client, namespace: str
) -> None:
    """Compare-and-swap: three ways in which another one may have been faster."""
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    count = itertools.count(1)

    def create() -> str:
        body = {"metadata": {"name": "node-hardening-pause"}, "data": {"reason": "theirs", "by": "bob"}}
        assert client.post(path, body).status_code == 201
        return "y"

    def change() -> str:
        data = {"reason": f"theirs, the {next(count)}."}
        assert client.patch(f"{path}/node-hardening-pause", {"data": data}).status_code == 200
        return "y"

    person = Person(api, answers=[create, change, change, "y"])
    for line in (["pause"], ["pause", "--reason", "mine"], ["resume"]):
        typed = person.types("-n", namespace, *line)
        assert (typed.code, "another user changed the pause meanwhile" in typed.error) == (3, True)
        assert pause_of(client, namespace)["data"]["by"] == "bob"
    assert events_of(client, "node-hardening-pause", namespace) == []
    assert person.types("-n", namespace, "resume").code == 0


def test_a_pause_that_is_over_or_broken_can_be_lifted_and_replaced(
    api: ApiServer, client: Client, namespace: str
) -> None:
    """One that blocks nothing says so; one that is malformed is shown as it is."""
    path = f"/api/v1/namespaces/{namespace}/configmaps"
    for until, words in (("2020-01-01T00:00:00Z", "it blocks nothing"), ("tomorrow", "until tomorrow")):
        client.post(path, {"metadata": {"name": "node-hardening-pause"}, "data": {"until": until}})
        typed = Person(api, answers=["y"]).types("-n", namespace, "resume")
        assert (typed.code, words in typed.err) == (0, True)
        assert pause_of(client, namespace) == {}


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (["pause", "--for", "4"], "--for: 4 has no unit: write 4s or 4m"),
        (["pause", "--for", "0"], "--for 0: write 1s to 366d, or leave it out for no end"),
        (["pause", "--reason", "x" * 201], "--reason has 201 characters: write at most 200"),
        (["pause"], "not a terminal: pass --yes to confirm; nothing was changed"),
    ],
)
def test_what_cannot_be_meant_is_exit_2(
    api: ApiServer, client: Client, namespace: str, line: list[str], words: str
) -> None:
    """One message, and nothing was changed."""
    typed = Person(api).types("-n", namespace, *line)
    assert (typed.code, words in typed.error) == (2, True)
    assert pause_of(client, namespace) == {}


def test_a_namespace_without_an_agent_is_a_sentence(api: ApiServer, unique: str) -> None:
    """Not the API server's."""
    typed = Person(api).types("-n", unique, "pause", "--yes")
    assert typed.code == 3
    assert typed.error == f"there is no namespace {unique}: pass the agent's with --namespace"


# -- skip --------------------------------------------------------------------------------------------------------------


def test_a_node_is_opted_out_and_in_again(api: ApiServer, client: Client, node: str, namespace: str, me: str) -> None:
    """The annotation carries the reason and its author; both ways leave an Event on the Node; twice is once."""
    person = Person(api)
    line = ("-n", namespace, "skip", node, "--yes")
    assert person.types(*line, "--reason", "disk is\nreplaced").code == 0
    assert note(client, node, "reboot-skip") == f"disk is replaced (by {me})"
    again = person.types(*line, "--reason", "disk is replaced")
    assert (again.code, again.out) == (0, f"{node} is opted out already: disk is replaced (by {me})\n")
    off = person.types(*line, "--off")
    assert (off.code, note(client, node, "reboot-skip")) == (0, None)
    assert person.types(*line, "--off").out == f"{node} is not opted out\n"
    assert events_of(client, node) == [
        ("RebootSkipSet", f"{me} opted the node out of reboots: disk is replaced"),
        ("RebootSkipRemoved", f"{me} removed the opt-out (disk is replaced (by {me}))"),
    ]


def test_a_kubelet_that_writes_meanwhile_does_not_stop_a_change(
    api: ApiServer, client: Client, node: str, namespace: str
) -> None:
    """Another version of the Node alone is no reason; another opt-out is."""

    def beat() -> str:
        annotate(client, node, summary="modprobe: well")
        return "y"

    def other() -> str:
        annotate(client, node, reboot_skip="bob's")
        return "y"

    person = Person(api, answers=[beat, other])
    line = ("-n", namespace, "skip", node)
    assert person.types(*line, "--reason", "one").code == 0
    beaten = person.types(*line, "--reason", "two")
    assert (beaten.code, beaten.error.startswith(f"node {node} was changed by another writer meanwhile")) == (3, True)
    assert note(client, node, "reboot-skip") == "bob's"


def test_a_node_that_is_not_there_is_exit_2(api: ApiServer, namespace: str, unique: str) -> None:
    """For every command that names one."""
    other = f"{unique}-other"
    for line in (["skip", other, "--yes"], ["reboot", other, "--yes"], ["preflight", other]):
        typed = Person(api).types("-n", namespace, *line)
        assert (typed.code, f"there is no node '{other}'" in typed.error) == (2, True)


# -- reboot ------------------------------------------------------------------------------------------------------------


def test_a_reboot_is_asked_for_and_says_what_will_hold_it_up(
    api: ApiServer, client: Client, node: str, namespace: str, me: str
) -> None:
    """Pause, opt-out, a taken lock, the closed window and a node that is down, each in its own words."""
    config = {
        "reboot": {
            "windows": [{"days": ["sat"], "start": "10:00", "end": "11:00", "timezone": "UTC"}],
            "pool": {"label": "pool"},
        }
    }
    body = {"metadata": {"name": "node-hardening-config"}, "data": {"config.yaml": json.dumps(config)}}
    assert client.post(f"/api/v1/namespaces/{namespace}/configmaps", body).status_code == 201
    client.patch(f"/api/v1/nodes/{node}", {"metadata": {"labels": {"pool": node}}})
    annotate(client, node, reboot_skip="licence server")
    lease = {
        "metadata": {"name": f"node-hardening-reboot-{node}-0"},
        "spec": {"holderIdentity": "elsewhere/uid", "acquireTime": "2026-12-29T11:50:00.000000Z"},
    }
    path = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
    assert client.post(path, lease).status_code == 201
    noon = datetime.fromisoformat("2026-12-29T12:00:00Z").timestamp()  # a Tuesday
    person = Person(api, answers=["y"], now=lambda: noon)
    person.types("-n", namespace, "pause", "--yes")
    typed = person.types("-n", namespace, "reboot", node, "--reason", "new firmware")
    assert typed.code == 0
    for words in (
        "opted out on the node: licence server",
        "windows: the next opens Sat 2027-01-02 10:00 UTC",
        "the cluster's pause",
        f"lock {node}/0 is held by elsewhere for 10m",
    ):
        assert f"blocked now: {words}" in typed.err
    assert "expect it to begin" not in typed.err
    assert note(client, node, "reboot-request") == f"new firmware (by {me})"
    assert events_of(client, node) == [("RebootRequested", f"{me} requested a reboot: new firmware")]


def test_asking_twice_asks_once_and_never_during_a_reboot(
    api: ApiServer, client: Client, node: str, namespace: str, me: str
) -> None:
    """A second request behind one that is under way would reboot the node again."""
    person = Person(api)
    line = ("-n", namespace, "reboot", node, "--yes")
    assert person.types(*line, "--reason", "one").code == 0
    again = person.types(*line, "--reason", "two")
    assert (again.code, again.out) == (0, f"requested already: one (by {me}); now: not required\n")
    assert note(client, node, "reboot-request") == f"one (by {me})"
    stamp = {"boot": "b", "mono": 1.0, "wall": 1.0}
    state = {"v": 1, "phase": "draining", "cycle": "c", "boot": "b", "entered": stamp}
    status = {"v": 1, "phase": "draining", "reason": "Draining", "mode": "enforce", "required": True}
    annotate(client, node, reboot_request=None, reboot_state=json.dumps(state), reboot_status=json.dumps(status))
    busy = person.types(*line)
    assert (busy.code, "is draining already" in busy.out) == (0, True)
    assert note(client, node, "reboot-request") is None


# -- every change ------------------------------------------------------------------------------------------------------


def test_a_dry_run_asks_the_server_and_changes_nothing(
    api: ApiServer, client: Client, node: str, namespace: str
) -> None:
    """Nothing is asked; neither object nor Event is there afterwards."""
    before = client.get(f"/api/v1/nodes/{node}").json()
    for line in (["pause"], ["skip", node], ["reboot", node]):
        typed = Person(api).types("-n", namespace, *line, "--dry-run")
        assert (typed.code, typed.out.startswith("dry run, nothing was changed")) == (0, True)
    assert client.get(f"/api/v1/nodes/{node}").json() == before
    assert pause_of(client, namespace) == {}
    assert events_of(client, node) == []


def test_programs_get_one_document(api: ApiServer, client: Client, node: str, namespace: str, me: str) -> None:
    """On standard output, and nothing else there."""
    person = Person(api)
    documents = [
        json.loads(person.types("-n", namespace, "-o", "json", *line).out)
        for line in (
            ["pause", "--yes", "--reason", "why"], ["resume", "--yes"], ["skip", node, "--yes"],
            ["reboot", node, "--yes", "--dry-run"],
        )
    ]  # fmt: skip
    paused, resumed, skipped, asked = documents
    assert paused == {
        "changed": True, "dryRun": False, "paused": True, "until": "", "reason": "why", "by": me,
    }  # fmt: skip
    assert (resumed["changed"], resumed["paused"]) == (True, False)
    assert (skipped["node"], skipped["skip"]) == (node, f"by {me}")
    assert (asked["changed"], asked["dryRun"], asked["request"]) == (False, True, f"by {me}")


@pytest.mark.emulator_only
def test_an_event_that_cannot_be_delivered_undoes_nothing(
    api: ApiServer, client: Client, node: str, namespace: str
) -> None:
    """It is reported, and the change stands."""
    assert api.sandbox is not None
    number = api.sandbox.add_fault(Fault(FaultKind.STATUS, frozenset({"create"}), ".*/events", code=403))
    typed = Person(api).types("-n", namespace, "skip", node, "--yes")
    api.sandbox.remove_fault(number)
    assert typed.code == 0
    assert "the change was made, but its Event was not" in typed.err
    assert note(client, node, "reboot-skip")


@pytest.mark.emulator_only
def test_an_older_server_knows_people_by_their_kubeconfig(
    api: ApiServer, client: Client, node: str, namespace: str
) -> None:
    """SelfSubjectReview came with 1.28; without it the kubeconfig's user, or unknown."""
    assert api.sandbox is not None
    for user, who in (("ann", "ann"), ("", "unknown")):
        number = api.sandbox.add_fault(Fault(FaultKind.STATUS, path=".*/selfsubjectreviews", code=404))
        assert Person(api, user=user).types("-n", namespace, "skip", node, "--yes").code == 0
        api.sandbox.remove_fault(number)
        assert note(client, node, "reboot-skip") == f"by {who}"
        annotate(client, node, reboot_skip=None)


# -- at a real terminal ------------------------------------------------------------------------------------------------

PROGRAM = Path(sys.executable).parent / "kubectl-node_hardening"
CTRL_C = b"\x03"
SLOWEST_SECONDS = 240  # a bound for what never comes; only a failing test waits so long


def at_a_terminal(kubeconfig: Path, line: list[str], keys: bytes) -> tuple[int, str]:
    """The exit code and everything on the screen of a user who types these keys at the question."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [PROGRAM, "--kubeconfig", kubeconfig, *line],
        stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(kubeconfig.parent), "TERM": "xterm", "LANG": "C.UTF-8"},
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    try:
        while chunk := _read(ours):
            seen += chunk
            if b"[y/N] " in seen and keys:
                if (
                    keys == CTRL_C
                ):  # the terminal is not the process's own, so that nothing turns the key into the signal
                    process.send_signal(signal.SIGINT)
                else:
                    os.write(ours, keys)
                keys = b""
        return process.wait(SLOWEST_SECONDS), seen.decode().replace("\r\n", "\n")
    finally:
        process.kill()
        process.wait()
        os.close(ours)


def _read(descriptor: int) -> bytes:
    """What there is to read; nothing more comes from a terminal that its process has left."""
    ready, _, _ = select.select([descriptor], [], [], SLOWEST_SECONDS)
    try:
        return os.read(descriptor, 65536) if ready else b""
    except OSError:
        return b""


def test_a_person_is_asked_at_their_terminal(
    api: ApiServer, client: Client, node: str, namespace: str, tmp_path: Path
) -> None:
    """Yes changes it, no and the end of the input do not, Ctrl-C ends quietly with 130."""
    kubeconfig = api.kubeconfig(tmp_path / "kubeconfig")
    line = ["-n", namespace, "skip", node, "--reason", "disk"]
    for keys, code in ((b"n\n", 1), (b"\x04", 1), (CTRL_C, 130)):
        found, screen = at_a_terminal(kubeconfig, line, keys)
        assert (found, "Traceback" in screen, note(client, node, "reboot-skip")) == (code, False, None)
    found, screen = at_a_terminal(kubeconfig, line, b"y\n")
    assert (found, f"{node} is opted out; opt it in again with" in screen) == (0, True)
    assert note(client, node, "reboot-skip")


def test_a_script_without_yes_is_exit_2(
    api: ApiServer, client: Client, node: str, namespace: str, tmp_path: Path
) -> None:
    """With the sentence that says what is missing; with --yes it goes through."""
    kubeconfig = api.kubeconfig(tmp_path / "kubeconfig")
    argv = [str(PROGRAM), "--kubeconfig", str(kubeconfig), "-n", namespace, "skip", node]
    for more, code in (([], 2), (["--yes"], 0)):
        ran = subprocess.run(
            [*argv, *more], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=300, check=False,
            env={"PATH": "/usr/bin:/bin", "HOME": str(tmp_path)},
        )  # fmt: skip
        assert (ran.returncode, "pass --yes to confirm; nothing was changed" in ran.stderr) == (code, code == 2)
    assert note(client, node, "reboot-skip")
