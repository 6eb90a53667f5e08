"""For every tier: how hard property tests try.

HYPOTHESIS_PROFILE=dev is the default (200 examples), ci tries 10,000. There are no deadlines: a slow machine is not a
failing test. A failure prints the blob that repeats it.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings
from hypothesis.database import DirectoryBasedExampleDatabase


def pytest_configure() -> None:
    """Registers the profiles before any test module is read."""
    database = DirectoryBasedExampleDatabase(".hypothesis/examples")
    settings.register_profile("dev", max_examples=200, deadline=None, print_blob=True, database=database)
    settings.register_profile(
        "ci",
        max_examples=10_000,
        deadline=None,
        print_blob=True,
        database=database,
        suppress_health_check=[HealthCheck.too_slow],
    )
    settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))
