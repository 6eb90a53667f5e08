"""The thread of the denials observer: how it ends."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import cast

from agent.config import loads
from agent.daemon.denials_thread import DenialsThread
from agent.host import Host
from agent.report.metrics import Metrics
from agent.report.publisher import NodePublisher


def test_an_observer_that_does_not_end_is_waited_for_until_the_deadline(tmp_path: Path) -> None:
    """The process ends within five seconds whichever of its threads is stuck."""
    released = threading.Event()

    def stuck(_target: Callable[[], None]) -> None:
        released.wait()

    denials = DenialsThread(Host(tmp_path), cast("NodePublisher", None), Metrics(), stuck)
    denials.configure(loads("denials: {mode: observe}", "policy.yaml"))
    began = time.monotonic()
    denials.stop(began + 0.1)
    took_seconds = time.monotonic() - began
    released.set()
    assert 0.05 < took_seconds < 2.0
