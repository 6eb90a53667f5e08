"""The coordinator's thread: a tick that crashes is a coordinator begun again, as after a restart of the process."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import Any

import pytest

from agent.config import Config
from agent.config.schema import Reboot
from agent.daemon.main import supervise
from agent.daemon.reboot_thread import Reboots
from agent.host import Host
from agent.kube import Kube
from agent.report.metrics import Metrics
from agent.report.publisher import NodePublisher
from tests.support.access import direct


class Recorder:
    waiting = False


def made(root: Path, stop: threading.Event) -> Reboots:
    """With a policy, after the first pass."""
    kube = Kube(direct("http://127.0.0.1:1"), node="n")
    recorder: Any = Recorder()
    publisher = NodePublisher(recorder, recorder, "n", wall=lambda: 0.0, stop=stop)
    reboots = Reboots(Host(root), kube, publisher, Metrics(), node="n", namespace="ns", stop=stop, delivered=set())
    reboots.configure(Config())
    reboots.on_pass(0)
    return reboots


def test_a_tick_that_crashes_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop, ran = threading.Event(), list[Reboot]()

    def coordinate(_self: Reboots, policy: Reboot) -> None:
        ran.append(policy)
        if len(ran) == 3:
            stop.set()
            return
        raise OverflowError("a forged time")

    monkeypatch.setattr(Reboots, "_coordinate", coordinate)
    supervise(made(tmp_path, stop).run, stop, first_seconds=0.01)
    assert len(ran) == 3


def test_a_coordinator_that_could_not_be_made_is_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No thread can be started for a moment: what the loop waits with is still open, and nothing waits for a change."""
    stop, tries, ended = threading.Event(), list[int](), list[str]()

    def dependencies(_self: Reboots, parts: Any, _cluster: Any) -> Any:
        tries.append(1)
        parts.drain.reset = lambda: ended.append("drain")
        parts.hooks.reset = lambda: ended.append("hooks")
        if len(tries) == 2:
            stop.set()
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(Reboots, "_dependencies", dependencies)
    reboots = made(tmp_path, stop)
    thread = threading.Thread(target=supervise, args=(reboots.run, stop), kwargs={"first_seconds": 0.01}, daemon=True)
    thread.start()
    thread.join(20.0)
    assert (thread.is_alive(), len(tries), ended) == (False, 2, ["drain", "hooks"])
