"""The sandbox's audit records: what a kernel would log and refuse under each profile, with containers' own names."""

from __future__ import annotations

import contextlib
import json
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

from agent.denials import syscall_names
from agent.denials.attribution import ContainerNames, Names, place_of
from agent.denials.records import Outcome, Record, parse
from agent.host import Host
from agent.sandbox import builders
from agent.sandbox.audit import AuditedMachine, Containers, sources
from agent.sandbox.noderoot import NodeRoot

LOG_FLAG = {"flags": ["SECCOMP_FILTER_FLAG_LOG"]}


@dataclass
class Node:
    """A machine without its agent, and what its agent would read."""

    root: NodeRoot
    name: str = "node-1"
    now: float = 0.0

    def __post_init__(self) -> None:
        self.inbox, self.outbox = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.outbox.setblocking(False)
        self.kernel = sources(self.inbox.fileno(), self.outbox.fileno())
        self.audit = self.kernel.audit()
        self.containers = Containers(lambda: self.now)

    def records(self, *pods: dict[str, Any]) -> list[Record]:
        """Of one step."""
        self.now += 10
        self.containers.step([cast("AuditedMachine", self)], lambda: pods)
        return [record for found in iter(self.audit.read, None) if (record := parse(*found)) is not None]

    def install(self, name: str, **profile: Any) -> None:
        self.root.write(f"/var/lib/kubelet/seccomp/{name}", json.dumps(profile))


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    made = Node(NodeRoot.make(tmp_path / "root"))
    with contextlib.closing(made.inbox), contextlib.closing(made.outbox), contextlib.closing(made.audit):
        yield made


def pod(profile: str = "", calls: str = "") -> dict[str, Any]:
    made = builders.pod("web-0", namespace="shop", node="node-1")
    made["metadata"]["uid"] = "0a1b2c3d-0000-1111-2222-333344445555"
    made["status"] = {"phase": "Running"}
    if profile:
        chosen = {"type": "Localhost", "localhostProfile": profile}
        made["spec"]["securityContext"] = {"seccompProfile": chosen}
    made["spec"]["containers"][0]["env"] = [{"name": "SYSCALLS", "value": calls}]
    return made


def called(records: list[Record], outcome: Outcome) -> set[str]:
    return {syscall_names.name_of(one.arch, one.number) for one in records if one.outcome is outcome}


@pytest.mark.parametrize(
    ("profile", "outcome", "calls"),
    [
        ({"defaultAction": "SCMP_ACT_ALLOW"}, None, set()),
        ({"defaultAction": "SCMP_ACT_ERRNO"}, None, set()),
        ({"defaultAction": "SCMP_ACT_ERRNO", **LOG_FLAG}, Outcome.REFUSED, {"execve", "chmod"}),
        ({"defaultAction": "SCMP_ACT_KILL_PROCESS"}, Outcome.KILLED, {"execve", "chmod"}),
        ({"defaultAction": "SCMP_ACT_LOG"}, Outcome.LOGGED, {"execve", "chmod"}),
    ],
)
def test_a_record_is_made_where_a_kernel_makes_one(
    node: Node, profile: dict[str, Any], outcome: Outcome | None, calls: set[str]
) -> None:
    """For the default, and not for what a rule allows."""
    node.install("p.json", **profile, syscalls=[{"names": ["read"], "action": "SCMP_ACT_ALLOW"}])
    found = node.records(pod("p.json", "chmod no_such_call"))
    assert {one.outcome for one in found} == ({outcome} if outcome else set())
    assert outcome is None or called(found, outcome) & {"execve", "chmod", "read"} == calls


def test_a_record_leads_to_its_container(node: Node) -> None:
    """By the process's cgroup and the log's name, as on a node; both processes and records end with the pod."""
    node.install("log.json", defaultAction="SCMP_ACT_LOG")
    (pid,) = {one.pid for one in node.records(pod("log.json"))}
    process = node.root.at(f"/proc/{pid}")
    place = place_of((process / "cgroup").read_bytes())
    assert place.uid == "0a1b2c3d-0000-1111-2222-333344445555"
    assert ContainerNames(Host(node.root.path), lambda: 100.0).of(place) == Names("shop", "web-0", "main")
    assert (node.records(), process.exists()) == ([], False)


def test_no_profile_and_no_agent_make_no_records(node: Node) -> None:
    """A missing file neither. A queue that nothing reads is full one day, which stops nothing."""
    assert node.records(pod(), pod("missing.json")) == []
    node.install("log.json", defaultAction="SCMP_ACT_LOG")
    for _ in range(200):
        node.now += 10
        node.containers.step([cast("AuditedMachine", node)], lambda: [pod("log.json")])
    with contextlib.closing(node.kernel.audit()) as opened:  # it reads from now on
        assert opened.read() is None


def test_the_test_record_comes_back(node: Node) -> None:
    node.kernel.own_record("nha-1")
    found = node.audit.read()
    assert found is not None
    record = parse(*found)
    assert record is not None
    assert (record.comm, record.outcome) == ("nha-1", Outcome.LOGGED)
