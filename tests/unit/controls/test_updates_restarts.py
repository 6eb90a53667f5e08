"""Services that run what an update has replaced: which processes count, which files, and what cannot be read."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest

from agent.controls.updates.restarts import Restarts, Survey
from agent.errors import HostError
from agent.host import Host
from agent.host.processes import ProcessEntry

LINE = "7f1c8a226000-7f1c8a37b000 {} 00026000 fe:01 1311    {}\n"
OPENSSL = LINE.format("r-xp", "/usr/lib/x86_64-linux-gnu/libssl.so.3 (deleted)")


def process(root: Path, pid: int, cgroup: str, maps: str = "") -> Path:
    folder = root / f"proc/{pid}"
    folder.mkdir(parents=True)
    (folder / "cgroup").write_text(cgroup if "\n" in cgroup else f"0::{cgroup}\n")
    (folder / "maps").write_text(maps)
    return folder


@pytest.fixture
def host(tmp_path: Path) -> Host:
    (tmp_path / "proc/sys/kernel").mkdir(parents=True)
    process(tmp_path, 1, "/init.scope", LINE.format("r-xp", "/usr/lib/systemd/systemd"))
    return Host(tmp_path)


@pytest.mark.parametrize(
    ("path", "found"),
    [
        ("/usr/lib/x86_64-linux-gnu/libssl.so.3 (deleted)", ("libssl.so.3",)),
        ("/lib64/libc.so.6 (deleted)", ("libc.so.6",)),
        ("/opt/bin/kubelet (deleted)", ("kubelet",)),
        ("/usr/lib/a file (deleted) (deleted)", ("a file (deleted)",)),
        ("/usr/lib/libssl.so.3", None),
        ("/tmp/ffiQ1x (deleted)", None),
        ("/memfd:jit (deleted)", None),
        ("/dev/zero (deleted)", None),
        ("/SYSV00000000 (deleted)", None),
        ("[vdso]", None),
        ("", None),
    ],
)
def test_files_that_a_package_installs_count(tmp_path: Path, host: Host, path: str, found: tuple[str, ...]) -> None:
    process(tmp_path, 7, "/system.slice/kubelet.service", LINE.format("r-xp", path) * 2)
    assert Survey(host).read().outdated.get("kubelet.service") == found


def test_data_files_do_not_count(tmp_path: Path, host: Host) -> None:
    process(tmp_path, 7, "/system.slice/a.service", OPENSSL.replace("r-xp", "r--p"))
    assert Survey(host).read() == Restarts(2, {}, {})


@pytest.mark.parametrize(
    ("cgroup", "service"),
    [
        ("/init.scope", "init.scope"),
        ("/runtime.slice/containerd.service", "containerd.service"),
        ("/system.slice/a.service/forged-by-a.service", "a.service"),
        ("4:memory:/\n1:name=systemd:/system.slice/ssh.service\n", "ssh.service"),  # cgroup v1
        ("/user.slice/user-1000.slice/user@1000.service/app.slice/x.service", ""),
        ("/user.slice/user-1000.slice/session-3.scope", ""),
        ("/kubepods.slice/kubepods-burstable.slice/cri-containerd-0a.scope/system.slice/cron.service", ""),
        ("/", ""),  # kernel threads
        ("/../../outside.service", ""),
    ],
)
def test_only_services_of_the_node_count(tmp_path: Path, host: Host, cgroup: str, service: str) -> None:
    process(tmp_path, 7, cgroup, OPENSSL)
    assert Survey(host).read().outdated == ({service: ("libssl.so.3",)} if service else {})


def test_paths_are_relative_to_the_agents_own_pod(tmp_path: Path, host: Host) -> None:
    (tmp_path / "proc/1/cgroup").write_text("0::/../../../init.scope\n")
    process(tmp_path, 7, "/../../../system.slice/ssh.service", OPENSSL)
    process(tmp_path, 8, "/", OPENSSL)  # the agent itself
    process(tmp_path, 9, "/../../kubepods-besteffort.slice/cri-containerd-0a.scope/a.service", OPENSSL)
    assert Survey(host).read() == Restarts(2, {"ssh.service": ("libssl.so.3",)}, {})


def test_services_beside_an_agent_that_docker_started_count(tmp_path: Path, host: Host) -> None:
    (tmp_path / "proc/1/cgroup").write_text("0::/../../init.scope\n")
    process(tmp_path, 7, "/../cron.service", OPENSSL)
    process(tmp_path, 8, f"/../docker-{'1' * 64}.scope/system.slice/cron.service", OPENSSL)
    assert Survey(host).read().outdated == {"cron.service": ("libssl.so.3",)}


def test_what_cannot_be_read_is_named_and_hides_nothing(tmp_path: Path, host: Host) -> None:
    process(tmp_path, 7, "/system.slice/endless.service", OPENSSL * 20_000)
    process(tmp_path, 8, "/system.slice/ssh.service", OPENSSL)
    (process(tmp_path, 9, "/system.slice/odd.service") / "maps").unlink()
    (tmp_path / "proc/9/maps").mkdir()
    (process(tmp_path, 10, "/system.slice/ended.service") / "maps").unlink()
    found = Survey(host).read()
    assert list(found.outdated) == ["ssh.service"]
    assert sorted(found.unread) == ["endless.service", "odd.service"]
    assert "larger than" in found.unread["endless.service"]


def test_one_reading_has_a_budget(tmp_path: Path, host: Host) -> None:
    for pid in range(7, 18):
        process(tmp_path, pid, "/system.slice/many.service", OPENSSL * 10_000)
    with pytest.raises(HostError, match="mapped files of many"):
        Survey(host).read()


def test_a_process_that_hangs_does_not_hold_the_pass(host: Host, monkeypatch: pytest.MonkeyPatch) -> None:
    """And its reading is not begun again before it has ended."""
    begun, released, asked = threading.Event(), threading.Event(), list[int]()

    def hang(entry: ProcessEntry) -> bytes:
        asked.append(entry.pid)
        begun.set()
        released.wait(60)
        return b""

    monkeypatch.setattr(ProcessEntry, "mappings", hang)
    survey = Survey(host, wait_seconds=0.05)
    try:
        with pytest.raises(HostError, match="hangs"):
            survey.read()
        assert begun.wait(60)
        with pytest.raises(HostError, match="/proc/1 takes longer"):
            survey.read()
    finally:
        released.set()
    assert asked == [1]
    assert Survey(host).read() == Restarts(1, {}, {})


def test_no_processes_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "proc/sys/kernel").mkdir(parents=True)
    with pytest.raises(HostError, match="cannot list the services"):
        Survey(Host(tmp_path)).read()
