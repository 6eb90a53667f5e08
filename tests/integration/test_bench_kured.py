"""kured beside our agents: what stands in the way is said at once, and both rolls are read by the same measure.

kured itself is not there; a script in its place shows that it would find what a pod finds.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import requests
from hypothesis import given as forall
from hypothesis import settings
from hypothesis import strategies as st

from agent.sandbox.journal import RequestRecord
from agent.sandbox.server import Sandbox
from agent.sandbox.settings import Settings
from bench import protobuf
from bench.cost import LockChange, changes, cost
from bench.kured import CannotRun, given
from bench.kured_nodes import Given, Stage, lock_changes

LOCK = "weave.works/kured-node-lock"
_POD = """
import os, ssl, subprocess, sys, time, urllib.request
account = "{account}"
print("arguments:", *sys.argv[1:])
entered = ["/usr/bin/nsenter", "-m/proc/1/ns/mnt", "--", "cat", account + "/namespace"]
print("namespace:", subprocess.check_output(entered, text=True), flush=True)
address = "https://{{KUBERNETES_SERVICE_HOST}}:{{KUBERNETES_SERVICE_PORT}}/api/v1/nodes/{{KURED_NODE_ID}}"
request = urllib.request.Request(address.format(**os.environ))
request.add_header("Authorization", "Bearer " + open(account + "/token").read())
urllib.request.urlopen(request, context=ssl.create_default_context(cafile=account + "/ca.crt")).read()
time.sleep(600)
"""


@pytest.fixture
def binary(tmp_path: Path) -> Path:
    """A file that can be run."""
    found = tmp_path / "kured"
    found.write_text("#!/bin/sh\n")
    found.chmod(0o755)
    return found


@pytest.fixture
def namespaces() -> None:
    """Skips where nobody may make them."""
    if os.geteuid() != 0:
        pytest.skip("mount namespaces need root")
    tried = subprocess.run(
        ["/usr/bin/unshare", "--mount", "--pid", "--fork", "--mount-proc", "/bin/true"],
        check=False, capture_output=True, timeout=300,
    )  # fmt: skip
    if tried.returncode:
        pytest.skip(f"no mount namespaces here: {tried.stderr.decode().strip()}")


# -- what stands in the way --------------------------------------------------------------------------------------------


def test_kured_is_taken_as_it_is_given(binary: Path) -> None:
    """The path and the period; a period of one minute when none is given."""
    assert given({"KURED": str(binary)}, root=True) == Given(binary, "1m", 60.0)
    assert given({"KURED": str(binary), "KURED_PERIOD": "1h1m1.5s"}, root=True).period_seconds == 3661.5


@pytest.mark.parametrize(
    ("variables", "said"),
    [
        ({}, "KURED is not set"),
        ({"KURED": "/nowhere/kured"}, "KURED=/nowhere/kured: no such file"),
        ({"KURED": "/etc"}, "KURED=/etc: no such file"),
        ({"KURED": "/bin/true", "KURED_PERIOD": "a minute"}, "KURED_PERIOD=a minute is no duration"),
    ],
)
def test_what_is_wrong_with_kured_is_said(variables: Mapping[str, str], said: str) -> None:
    """Before anything runs: the variable, its value, and what would be right."""
    with pytest.raises(CannotRun) as raised:
        given(variables, root=True)
    assert said in str(raised.value)


def test_a_kured_that_is_not_executable_is_told(binary: Path) -> None:
    """As a download is before its mode was set."""
    binary.chmod(0o644)
    with pytest.raises(CannotRun) as raised:
        given({"KURED": str(binary)}, root=True)
    assert str(raised.value) == f"KURED={binary} is not executable: chmod +x it"


def test_everything_that_stands_in_the_way_is_said_at_once() -> None:
    """A missing binary, a period that is none, and no root."""
    with pytest.raises(CannotRun) as raised:
        given({"KURED": "/nowhere/kured", "KURED_PERIOD": "soon"}, root=False)
    assert [part.split(" ")[0] for part in str(raised.value).split("; ") if "=" in part] == [
        "KURED=/nowhere/kured:", "KURED_PERIOD=soon",
    ]  # fmt: skip
    assert "this is not root" in str(raised.value)


def test_the_bench_does_not_begin_with_a_kured_that_cannot_run() -> None:
    """Nobody waits for the other figures first."""
    run = subprocess.run(
        [sys.executable, "-m", "bench"], cwd=Path(__file__).parents[2], env={**os.environ, "KURED": "/nowhere/kured"},
        check=False, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert (run.returncode, run.stdout) == (2, "")
    assert "error: KURED=/nowhere/kured: no such file" in run.stderr


@pytest.mark.usefixtures("namespaces")
def test_a_kured_that_ends_by_itself_is_told_with_its_last_lines(binary: Path) -> None:
    """Instead of a roll that never ends."""
    binary.write_text("#!/bin/sh\necho cannot do this >&2\nexit 1\n")
    with Stage(Given(binary, "1m", 60.0), ["kured"]) as stage, pytest.raises(RuntimeError) as raised:
        stage.wait_for_first_look()
    assert "kured ended by itself on node-1; its last lines:\n    cannot do this" in str(raised.value)


@pytest.mark.usefixtures("namespaces")
def test_kured_finds_what_a_pod_finds(binary: Path) -> None:
    """A token and an authority that the API server takes, its address, and a PID 1 whose namespace can be entered;
    the machine's own /var/run has none of it."""
    account = "/var/run/secrets/kubernetes.io/serviceaccount"
    before = Path(account).exists()
    binary.write_text(f"#!{sys.executable}\n{_POD.format(account=account)}")
    with Stage(Given(binary, "7m", 420.0), ["kured", "kured"], replicas=2, may_miss=1) as stage:
        stage.wait_for_first_look()
        said = stage.machines[0].log.read_text()
        assert {one.user for one in stage.sandbox.requests} == {"node-1", "node-2"}
        assert not stage.is_over()
    assert "namespace: kube-system" in said
    assert "--period=7m --ds-namespace=kube-system --ds-name=kured --reboot-sentinel=" in said
    assert Path(account).exists() == before


# -- one measure for both ----------------------------------------------------------------------------------------------


def record(at: float, verb: str, resource: str, *, name: str = "", status: int = 200, **more: Any) -> RequestRecord:
    """One request of a roll."""
    made = RequestRecord(0, at, "", "", "", verb, "", resource, "", name, more.get("subresource", ""), "")
    made.status, made.body = status, more.get("body", "")
    return made


def locked(at: float, holder: str, status: int = 200) -> RequestRecord:
    """kured's write of its lock."""
    note = {LOCK: json.dumps({"nodeID": holder})} if holder else {}
    body = json.dumps({"metadata": {"annotations": note}})
    return record(at, "update", "daemonsets", name="kured", status=status, body=body)


def evicted(at: float, status: int = 201) -> RequestRecord:
    """An eviction."""
    return record(at, "create", "pods", subresource="eviction", status=status)


def test_a_roll_is_read_from_the_requests() -> None:
    """Every request counts for the sum; what a drain asked for is told apart, and kured's lock is none of it."""
    asked = [
        record(1.0, "get", "daemonsets", name="kured"), locked(2.0, "b", status=409), locked(2.5, "a"),
        record(3.0, "list", "pods"), evicted(3.5), evicted(3.6, status=429), evicted(4.0),
        record(4.5, "get", "daemonsets", name="logs"), record(5.0, "get", "pods"),
        locked(10.0, ""), locked(11.0, "b"), evicted(12.0), locked(20.0, ""),
    ]  # fmt: skip
    locks = lock_changes(asked, "kured")
    assert locks == [LockChange(2.5, "a"), LockChange(10.0, ""), LockChange(11.0, "b"), LockChange(20.0, "")]
    found = cost(asked, locks, began=0.5, ended=21.0)
    assert (found.seconds, found.requests, found.evicted, found.refused) == (20.5, 13, 3, 1)
    assert (found.first_lock_seconds, found.release_to_drain) == (2.0, (2.0,))
    assert found.drain_requests == 7
    assert found.per_pod == 2.0
    assert found.kinds.startswith("5 update daemonsets, 4 create eviction, ")


def test_a_lock_that_is_renewed_has_not_changed_hands() -> None:
    """Nor one that is given back twice."""
    renewed = [
        LockChange(1.0, ""),
        LockChange(2.0, "a"),
        LockChange(3.0, "a"),
        LockChange(4.0, ""),
        LockChange(5.0, ""),
    ]
    assert changes(renewed) == [LockChange(2.0, "a"), LockChange(4.0, "")]


def test_what_was_no_roll_is_not_measured() -> None:
    """Nothing evicted, or no lock taken."""
    for asked in ([evicted(1.0)], [locked(1.0, "a")]):
        with pytest.raises(RuntimeError, match="no roll"):
            cost(asked, lock_changes(asked, "kured"), began=0.0, ended=2.0)


# -- what Go clients write ---------------------------------------------------------------------------------------------


def varint(value: int) -> bytes:
    """A number as protobuf has it."""
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes((*out, value))


def field(number: int, value: bytes | str | int) -> bytes:
    """A field of a message."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(raw)) + raw


def message(kind: str, version: str, raw: bytes) -> bytes:
    """What is sent of an object."""
    return b"k8s\0" + field(1, field(1, version) + field(2, kind)) + field(2, raw) + field(3, "") + field(4, "")


def daemonset(annotations: Mapping[str, str], version: str = "7") -> bytes:
    """The kured DaemonSet, as kured writes it."""
    notes = b"".join(field(12, field(1, key) + field(2, value)) for key, value in annotations.items())
    meta = field(1, "kured") + field(3, "kube-system") + field(6, version) + field(7, 3) + field(8, field(1, 1)) + notes
    return message("DaemonSet", "apps/v1", field(1, meta) + field(2, b"spec, which is not read") + field(3, b""))


@forall(st.dictionaries(st.text(), st.text(), max_size=4))
@settings(max_examples=50)
def test_a_lock_is_read_from_protobuf(annotations: dict[str, str]) -> None:
    """Whatever it says; the spec is the one that was told."""
    found = json.loads(protobuf.as_json(daemonset(annotations), {"spec": {"a": 1}}))
    assert found["metadata"].get("annotations", {}) == annotations
    assert found["metadata"]["creationTimestamp"] == "1970-01-01T00:00:01Z"
    assert {key: found[key] for key in ("kind", "apiVersion", "spec")} == {
        "kind": "DaemonSet", "apiVersion": "apps/v1", "spec": {"a": 1},
    }  # fmt: skip


def test_an_eviction_is_read_from_protobuf() -> None:
    """With its options, and nothing of what other objects have."""
    options = field(1, 30) + field(2, field(1, "uid-1"))
    raw = message("Eviction", "policy/v1", field(1, field(1, "web-1") + field(3, "shop")) + field(2, options))
    assert json.loads(protobuf.as_json(raw, {"spec": {}})) == {
        "kind": "Eviction", "apiVersion": "policy/v1", "metadata": {"name": "web-1", "namespace": "shop"},
        "deleteOptions": {"gracePeriodSeconds": 30, "preconditions": {"uid": "uid-1"}},
    }  # fmt: skip


@forall(st.binary(max_size=40) | st.integers(0, 200).map(lambda size: daemonset({"a": "b"})[: 4 + size]))
@settings(max_examples=100)
def test_what_is_no_such_body_is_refused(raw: bytes) -> None:
    """With ValueError, whatever it is, or read as far as it is whole."""
    try:
        json.loads(protobuf.as_json(raw, {}))
    except ValueError:
        return
    assert raw.startswith(b"k8s\0")


@pytest.fixture
def reading() -> Iterator[Sandbox]:
    """An emulator that reads protobuf."""
    spec = {"selector": {"matchLabels": {"a": "b"}}, "template": {"metadata": {"labels": {"a": "b"}}, "spec": {}}}
    readers = {protobuf.MEDIA: partial(protobuf.as_json, rest={"spec": spec})}
    with Sandbox(Settings(readers=readers, controllers=False)) as sandbox:  # nobody else writes its status meanwhile
        made = {"metadata": {"name": "kured", "namespace": "kube-system"}, "spec": spec}
        sandbox.create("daemonsets", {"kind": "DaemonSet", "apiVersion": "apps/v1", **made})
        yield sandbox


def test_the_emulator_takes_what_kured_writes(reading: Sandbox) -> None:
    """Compare-and-swap included; what cannot be read is a 400, and the journal has it as JSON."""
    url = f"{reading.url}/apis/apps/v1/namespaces/kube-system/daemonsets/kured"
    headers = {"Authorization": f"Bearer {reading.token}", "Content-Type": protobuf.MEDIA}
    version = str((reading.get("daemonsets", "kured", "kube-system") or {})["metadata"]["resourceVersion"])
    lock = {LOCK: '{"nodeID": "node-1"}'}
    answers = [
        requests.put(url, body, headers=headers, timeout=10).status_code
        for body in (daemonset(lock, version), daemonset({}, version), b"no protobuf")
    ]
    assert answers == [200, 409, 400]
    assert [one.holder for one in lock_changes(reading.requests, "kured")] == ["node-1"]
    assert (reading.get("daemonsets", "kured", "kube-system") or {})["metadata"]["annotations"] == lock
