"""What a metadata service's answer means, and that a pod which cannot be asked is never one that was refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from agent.controls.metadata_access import Reach, probe
from agent.controls.metadata_access.clouds import CLOUDS, Cloud
from agent.errors import HostError
from agent.host import Host, containers, netns
from agent.host.budget import Budget
from agent.host.netns import Connection, Result
from agent.model import Severity, Status

AWS = next(one for one in CLOUDS if one.name == "AWS")
EC2 = "HTTP/1.1 {} x\r\nServer: EC2ws\r\n\r\n"


def reached(monkeypatch: pytest.MonkeyPatch, cloud: Cloud, *answers: Connection) -> Reach:
    """What one pod reaches whose connections go like this, in order."""
    found = iter(answers)
    monkeypatch.setattr(netns, "exchange", lambda paths, *_a, **_n: dict.fromkeys(paths, next(found)))
    monkeypatch.setattr(Host, "containers", lambda _: (containers.Container(7, "net:[7]", "/proc/7/ns/net", ""),))
    return probe.reach(Host("/"), Cloud(cloud.name, (), cloud.services[:1]))["imds"]


def header(code: int) -> Connection:
    return Connection(Result.OPEN, EC2.format(code).encode())


@pytest.mark.parametrize(
    ("answers", "status", "severity"),
    [
        ([header(200)], Status.FAIL, Severity.CRITICAL),
        ([header(403)], Status.PASS, None),  # the instance's metadata options turn the service off
        ([header(503)], Status.FAIL, None),  # it is reached, and nothing shows version 1
        ([header(401), header(200)], Status.FAIL, Severity.HIGH),
        ([header(401), header(403)], Status.PASS, None),
        ([header(401), Connection(Result.OPEN)], Status.PASS, None),  # the answer dies at the first hop
        ([header(401), Connection(Result.ERROR, error="Too many open files")], Status.UNKNOWN, None),
    ],
)
def test_answers_of_aws(
    monkeypatch: pytest.MonkeyPatch, answers: list[Connection], status: Status, severity: Severity | None
) -> None:
    found = reached(monkeypatch, AWS, *answers)
    assert (found.status, found.severity) == (status, severity)


def test_pods_that_ended_since_they_were_listed_are_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    assert netns.exchange(["/proc/0/ns/net"], "127.0.0.1", 9, b"", timeout_seconds=1) == {}
    monkeypatch.setattr(Host, "containers", lambda _: (containers.Container(0, "net:[7]", "/proc/0/ns/net", ""),))
    assert {one.status for one in probe.reach(Host("/"), AWS).values()} == {Status.NOT_APPLICABLE}


def process(procfs: Path, pid: int, cgroup: str) -> Path:
    folder = procfs / str(pid)
    (folder / "ns").mkdir(parents=True)
    (folder / "cgroup").write_text(f"0::{cgroup}\n")
    (folder / "ns/net").symlink_to(f"net:[{pid}]")
    return folder


def test_containers_are_listed_once_and_processes_that_ended_are_none(tmp_path: Path) -> None:
    process(tmp_path, 1, "/init.scope")
    process(tmp_path, 2, "/system.slice/cron.service")
    for pid in (3, 4):
        process(tmp_path, pid, "/kubepods/pod1/a")
    (process(tmp_path, 5, "/kubepods/pod2/b") / "ns/net").unlink()
    assert [one.pid in (3, 4) for one in containers.survey(str(tmp_path), Budget())] == [True]


@pytest.mark.parametrize("wrong", ["cgroup", "ns"])
def test_a_process_that_cannot_be_read_hides_no_container(tmp_path: Path, wrong: str) -> None:
    """A container may make the path of its cgroup longer than is read; that it is not listed would be a pass."""
    process(tmp_path, 1, "/init.scope")
    hidden = process(tmp_path, 2, "/kubepods/pod1/a" + "/x" * 10_000 * (wrong == "cgroup"))
    if wrong == "ns":
        (hidden / "ns/net").unlink()
        (hidden / "ns/net").write_text("no link")
    with pytest.raises(HostError, match="process 2"):
        containers.survey(str(tmp_path), Budget())
