"""One node as on-call sees it: `kubectl describe node` in kubectl's form, without the sections on capacity and pods.

Pure: objects in, text out. It does not show the agent's internal state (`reboot-state`).
Source: kubernetes/kubectl pkg/describe/describe.go, describeNode, printAnnotationsMultiline and DescribeEvents.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime

from agent.annotations import PREFIX
from agent.sandbox.status_errors import Object
from agent.sandbox.tables import age, roles

_HIDDEN = f"{PREFIX}reboot-state"
_COLUMN = 20
_ANNOTATION = 140


def describe(node: Object, events: Sequence[Object], now: datetime) -> str:
    """The node and the Events about it, oldest first, indented as a part of the demo."""
    return "".join(f"   {line}\n" for line in _lines(node, events, now))


def _lines(node: Object, events: Sequence[Object], now: datetime) -> Iterator[str]:
    meta, spec = node["metadata"], node["spec"]
    labels, notes = meta.get("labels") or {}, meta.get("annotations") or {}
    yield from _field("Name", [meta["name"]])
    yield from _field("Roles", [roles(node)])
    yield from _field("Labels", [f"{key}={labels[key]}" for key in sorted(labels)] or ["<none>"])
    shown = [line for key in sorted(notes) if key != _HIDDEN for line in _annotation(key, notes[key])]
    yield from _field("Annotations", shown or ["<none>"])
    yield from _field("CreationTimestamp", [_date(meta["creationTimestamp"])])
    taints = [_taint(taint) for taint in spec.get("taints") or []]
    yield from _field("Taints", taints or ["<none>"])
    yield from _field("Unschedulable", [str(spec.get("unschedulable", False)).lower()])
    yield "Conditions:"
    yield from _table(
        ("Type", "Status", "LastHeartbeatTime", "LastTransitionTime", "Reason", "Message"),
        (
            (
                one["type"], one["status"], _date(one["lastHeartbeatTime"]), _date(one["lastTransitionTime"]),
                one["reason"], one["message"],
            )
            for one in node["status"]["conditions"]
        ),
    )  # fmt: skip
    yield "Events:"
    yield from _table(
        ("Type", "Reason", "Age", "From", "Message"),
        (
            (one["type"], one["reason"], age(one["lastTimestamp"], now), one["source"]["component"], one["message"])
            for one in events
        ),
    )


def _field(title: str, lines: Sequence[str]) -> Iterator[str]:
    yield f"{title + ':':<{_COLUMN}}{lines[0]}"
    yield from (f"{'':{_COLUMN}}{line}" for line in lines[1:])


def _annotation(key: str, value: str) -> list[str]:
    """Long ones are on a line of their own, and cut."""
    if len(value) < _ANNOTATION - 2 - len(key) and "\n" not in value:
        return [f"{key}: {value}"]
    most = _ANNOTATION - len("  ")
    return [f"{key}:", f"  {value if len(value) <= most else value[:most] + '...'}"]


def _taint(taint: Object) -> str:
    value = f"={taint['value']}" if taint.get("value") else ""
    return f"{taint['key']}{value}:{taint['effect']}"


def _date(text: str) -> str:
    return f"{datetime.fromisoformat(text):%a, %d %b %Y %H:%M:%S %z}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """kubectl's, with a rule below the head; the last column is as wide as it has to be."""
    lines = [head, ["-" * len(title) for title in head], *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head) - 1)]
    for line in lines:
        cells = [f"{cell:<{width}}" for cell, width in zip(line, widths, strict=False)]
        yield "  " + "  ".join([*cells, line[-1]])
