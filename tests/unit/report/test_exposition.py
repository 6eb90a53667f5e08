"""The text that Prometheus scrapes: byte for byte what prometheus_client itself would write."""

from __future__ import annotations

import math
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, Counter, Enum, Gauge, Histogram, Info, Summary, generate_latest
from prometheus_client import disable_created_metrics as without_created
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from agent.report import exposition
from agent.report.metrics import Metrics
from tests.support.report import finding, report

NUMBERS = st.one_of(st.floats(), st.integers(-(10**20), 10**20).map(float), st.sampled_from([0.0, 1e6, 1e21, math.inf]))


@pytest.fixture(autouse=True)
def _no_created() -> None:
    """As agent/report/metrics.py has it."""
    without_created()  # type: ignore[no-untyped-call]


class _Still(Collector):
    """What a registry says at one moment: what the agent costs is another at each look."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._families = list(registry.collect())

    def collect(self) -> Iterable[Metric]:
        return self._families


def _still(metrics: Metrics) -> CollectorRegistry:
    registry = CollectorRegistry()
    registry.register(_Still(metrics.registry))
    return registry


def test_the_agents_own_metrics() -> None:
    """All of them, empty and after a pass."""
    metrics = Metrics()
    still = _still(metrics)
    assert exposition.exposition(still) == generate_latest(still)
    metrics.observe(report(finding()), seconds=0.25, now=1.7e9, drift=True)
    metrics.policy.info({"hash": 'a"b\\c'})
    metrics.api_errors.labels("Unreachable").inc()
    still = _still(metrics)
    assert exposition.exposition(still) == generate_latest(still)
    assert b"node_hardening_process_cpu_seconds_total" in exposition.exposition(still)


@given(NUMBERS, st.text(), st.text())
def test_any_number_label_and_help(value: float, label: str, told: str) -> None:
    """Infinity, NaN, quotes, backslashes, line ends, any character."""
    registry = CollectorRegistry()
    Gauge("nha_test", told, ["name", "a"], registry=registry).labels(label, "x").set(value)
    assert exposition.exposition(registry) == generate_latest(registry)


@pytest.mark.parametrize("kind", [Counter, Gauge, Histogram, Summary])
def test_every_kind(kind: type) -> None:
    """The kinds differ in name, suffix and samples."""
    registry = CollectorRegistry()
    kind("nha_test", "told", registry=registry)
    Info("nha_about", "told", registry=registry).info({"b": "2", "a": "1"})
    assert exposition.exposition(registry) == generate_latest(registry)


def test_states_are_gauges() -> None:
    """What OpenMetrics alone knows is called what the older format knows."""
    registry = CollectorRegistry()
    Enum("nha_state", "told", states=["idle", "draining"], registry=registry).state("draining")
    assert exposition.exposition(registry) == generate_latest(registry)
