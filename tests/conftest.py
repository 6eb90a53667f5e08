"""For every tier: how hard property tests try.

HYPOTHESIS_PROFILE=dev is the default (200 examples); ci tries 500 and always the same ones (a gate gives one answer for
one commit; finding new cases is the work of everybody's own runs); deep tries 10,000 (half an hour and more). What
comes from outside is tried with ten thousand inputs in every run, by tests/fuzz. There are no deadlines: a slow machine
is not a failing test.
"""

from __future__ import annotations

import os
import signal

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.database import DirectoryBasedExampleDatabase


def pytest_configure() -> None:
    """Registers the profiles before any test module is read."""
    database = DirectoryBasedExampleDatabase(".hypothesis/examples")
    settings.register_profile("dev", max_examples=200, deadline=None, print_blob=True, database=database)
    for name, examples, same in (("ci", 500, True), ("deep", 10_000, False)):
        settings.register_profile(
            name,
            max_examples=examples,
            deadline=None,
            print_blob=not same,
            derandomize=same,
            database=None if same else database,
            suppress_health_check=[HealthCheck.too_slow],
        )
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))
    # A shell starts what runs in the background with Ctrl-C ignored, and every child inherits that.
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The slow tests first, spread over the workers: each begins with an equal share of all tests in order."""
    workers = int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1"))
    slow = [item for item in items if item.get_closest_marker("slow")]
    rest = [item for item in items if not item.get_closest_marker("slow")]
    size = -(-len(rest) // workers)
    items[:] = [
        item
        for worker in range(workers)
        for item in (*slow[worker::workers], *rest[worker * size : (worker + 1) * size])
    ]
