"""The loop where the kernel has no inotify instance left to give: changes wait for the interval, and are seen then."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping
from pathlib import Path

import pytest

from agent.config import Config
from agent.controls.kubelet import KubeletControl
from agent.daemon import loop
from agent.daemon.config_store import PolicyStore
from agent.daemon.loop import Daemon
from agent.daemon.main import supervise
from agent.event_reasons import Reason
from agent.host import Host
from agent.report.metrics import Metrics
from agent.report.node_status import NodeView

OFF = "kubelet: {mode: 'off'}\napparmor: {mode: 'off'}\nmodprobe: {mode: 'off'}\nseccomp: {mode: 'off'}\n"


class Blind:
    """Stands for FolderWatch without an inotify instance; waiting moves the clock."""

    now = 0.0
    problem = "inotify_init1: Too many open files"

    def __init__(self, _paths: Mapping[str, Iterable[str]]) -> None: ...

    def watch(self, paths: Mapping[str, Iterable[str]]) -> None: ...

    def wake(self) -> None: ...

    def close(self) -> None: ...

    def wait(self, timeout_seconds: float) -> frozenset[str]:
        Blind.now += timeout_seconds
        return frozenset()


class Sink:
    """Changes the policy after the first pass, and ends the loop after the second."""

    def __init__(self, file: Path) -> None:
        self.file, self.passes, self.events = file, 0, list[str]()
        self.daemon: Daemon | None = None

    def offer(self, part: str, _shown: NodeView) -> None:
        self.passes += part == "hardening"
        if part == "hardening" and self.passes == 1:
            self.file.write_text(f"{OFF}interval: 7m\n")
        elif part == "hardening" and self.daemon is not None:
            self.daemon.stop()

    def event(self, reason: Reason, _message: str) -> None:
        self.events.append(reason.value)


def test_a_changed_policy_is_read_at_the_next_interval(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loop, "FolderWatch", Blind)
    file = tmp_path / "config.yaml"
    file.write_text(OFF)
    (tmp_path / "root").mkdir()
    host, sink = Host(tmp_path / "root"), Sink(file)
    store = PolicyStore(file, host, explicit=True)
    sink.daemon = Daemon(host, "n", store, sink, Metrics(), clock=lambda: Blind.now)
    sink.daemon.run()
    assert sink.passes == 2
    assert "ConfigReloaded" in sink.events
    assert 200 < Blind.now < 400  # the interval of before, 5m


def test_a_policy_that_one_part_could_not_take_is_given_to_it_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No thread can be started for a moment: else reboots and denials would follow the policy of before for good."""
    monkeypatch.setattr(loop, "FolderWatch", Blind)
    monkeypatch.setattr(loop, "_MANY_PROBLEMS_PAUSE_SECONDS", 0.0)
    file = tmp_path / "config.yaml"
    file.write_text(OFF)
    (tmp_path / "root").mkdir()
    host, sink, taken, passes = Host(tmp_path / "root"), Sink(file), list[float](), list[int]()

    def on_config(config: Config) -> None:
        taken.append(config.interval)
        if len(taken) == 2:
            raise RuntimeError("can't start new thread")

    def on_pass(failing: int) -> None:
        passes.append(failing)
        file.write_text(f"{OFF}interval: 7m\n")
        if len(passes) == 4:  # the one that failed is reported too
            daemon.stop()

    store = PolicyStore(file, host, explicit=True)
    daemon = Daemon(host, "n", store, sink, Metrics(), clock=lambda: Blind.now, on_config=on_config, on_pass=on_pass)
    daemon.run()
    assert taken == [300.0, 420.0, 420.0]


def test_a_first_policy_that_no_part_could_take_is_read_again_by_the_next_run(tmp_path: Path) -> None:
    """The thread runs again after it crashed, and what it waits with is still open."""
    file = tmp_path / "config.yaml"
    file.write_text(OFF)
    (tmp_path / "root").mkdir()
    host, sink, taken, passes, stop = Host(tmp_path / "root"), Sink(file), list[float](), list[int](), threading.Event()

    def on_config(config: Config) -> None:
        taken.append(config.interval)
        if len(taken) == 1:
            raise RuntimeError("can't start new thread")

    def on_pass(failing: int) -> None:
        passes.append(failing)
        if len(passes) == 2:
            stop.set()
            daemon.stop()
        file.write_text(f"{OFF}interval: 7m\n")

    store = PolicyStore(file, host, explicit=True)
    daemon = Daemon(host, "n", store, sink, Metrics(), on_config=on_config, on_pass=on_pass)
    thread = threading.Thread(target=supervise, args=(daemon.run, stop), kwargs={"first_seconds": 0.01}, daemon=True)
    thread.start()
    thread.join(20.0)
    daemon.stop()
    assert (thread.is_alive(), taken, passes) == (False, [300.0, 300.0, 420.0], [0, 0])


def test_a_pass_with_a_defect_in_a_control_that_only_audits_is_not_verified(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is counted as one, whatever the control's mode is."""
    monkeypatch.setattr(loop, "FolderWatch", Blind)
    monkeypatch.setattr(KubeletControl, "observe", lambda _: dict[str, int]()["z"])
    file = tmp_path / "config.yaml"
    file.write_text(OFF.replace("kubelet: {mode: 'off'}", "kubelet: {mode: audit}"))
    (tmp_path / "root").mkdir()
    host, sink, passes = Host(tmp_path / "root"), Sink(file), list[int]()
    store = PolicyStore(file, host, explicit=True)
    sink.daemon = Daemon(host, "n", store, sink, Metrics(), clock=lambda: Blind.now, on_pass=passes.append)
    sink.daemon.run()
    assert passes[0] == 1
