"""A registry in the text format of Prometheus, version 0.0.4.

prometheus_client's own module imports two web servers and urllib's client: 0.7 MiB on every node. This one leaves out
what the agent does not use: exemplars, timestamps, names outside of [a-zA-Z_:][a-zA-Z0-9_:]*.
Source: https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry
from prometheus_client.metrics_core import Metric
from prometheus_client.utils import floatToGoString

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
# What the format calls a metric of each kind, and what is added to its name.
_KINDS = {
    "counter": ("counter", "_total"),
    "info": ("gauge", "_info"),
    "stateset": ("gauge", ""),
    "unknown": ("untyped", ""),
}


def exposition(registry: CollectorRegistry) -> bytes:
    """Every metric with its help, kind and samples."""
    return "".join(line for metric in registry.collect() for line in _lines(metric)).encode()


def _lines(metric: Metric) -> Iterator[str]:
    kind, suffix = _KINDS.get(metric.type, (metric.type, ""))
    name = metric.name + suffix
    yield f"# HELP {name} {_escaped(metric.documentation)}\n"
    yield f"# TYPE {name} {kind}\n"
    for sample in metric.samples:
        labels = ",".join(f'{key}="{_quoted(value)}"' for key, value in sorted(sample.labels.items()))
        yield f"{sample.name}{f'{{{labels}}}' if labels else ''} {_number(sample.value)}\n"


def _number(value: float) -> str:
    return str(floatToGoString(value))  # type: ignore[no-untyped-call] # it has no types


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n")


def _quoted(text: str) -> str:
    return _escaped(text).replace('"', r"\"")
