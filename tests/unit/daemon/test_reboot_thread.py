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
from agent.kube import Kube, direct
from agent.report.metrics import Metrics
from agent.report.publisher import NodePublisher


class Recorder:
    waiting = False


def test_a_tick_that_crashes_begins_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stop, ran = threading.Event(), list[Reboot]()

    def coordinate(_self: Reboots, policy: Reboot) -> None:
        ran.append(policy)
        if len(ran) == 3:
            stop.set()
            return
        raise OverflowError("a forged time")

    monkeypatch.setattr(Reboots, "_coordinate", coordinate)
    kube = Kube(direct("http://127.0.0.1:1"), node="n")
    recorder: Any = Recorder()
    publisher = NodePublisher(recorder, recorder, "n", wall=lambda: 0.0, stop=stop)
    reboots = Reboots(Host(tmp_path), kube, publisher, Metrics(), node="n", namespace="ns", stop=stop, delivered=set())
    reboots.configure(Config())
    reboots.on_pass(0)
    supervise(reboots.run, stop, first_seconds=0.01)
    assert len(ran) == 3
