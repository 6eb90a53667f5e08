"""Threads of the daemon: what one of them trips over ends neither it nor the others."""

from __future__ import annotations

import threading

from structlog.testing import capture_logs

from agent.daemon.main import supervise


def test_a_thread_that_crashed_runs_again_until_it_ends() -> None:
    left = [ValueError("forged"), OverflowError("9999")]
    ran = []

    def target() -> None:
        ran.append(1)
        if left:
            raise left.pop()

    with capture_logs() as logs:
        supervise(target, threading.Event(), first_seconds=0.01)
    assert len(ran) == 3
    assert [one["event"] for one in logs] == ["thread_crashed"] * 2


def test_a_crash_while_stopping_is_the_end() -> None:
    stop = threading.Event()

    def target() -> None:
        stop.set()
        raise ValueError("forged")

    with capture_logs():
        supervise(target, stop, first_seconds=60.0)


def test_after_a_long_run_the_delay_is_the_first_one_again() -> None:
    """Crashes that are days apart are no loop of crashes."""
    lasts = iter((0.0, 0.0, 3600.0, 0.0))
    now = [0.0]

    def target() -> None:
        if (seconds := next(lasts, None)) is not None:
            now[0] += seconds
            raise ValueError("forged")

    with capture_logs() as logs:
        supervise(target, threading.Event(), first_seconds=0.01, clock=lambda: now[0])
    assert [one["again_seconds"] for one in logs] == [0.01, 0.02, 0.01, 0.02]
