"""One node as on-call sees it: what `kubectl describe node` shows of it, shortened to what the agent has to do with.

Pure: objects in, text out. It does not show the agent's internal state (`reboot-state`).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from agent.annotations import PREFIX, REBOOT_HISTORY

Object = Mapping[str, Any]

_HIDDEN = ("reboot-state", "reboot-history")
_CONDITIONS = ("Ready", "NodeHardened", "PolicyCurrent", "RebootRequired")
_LONGEST = 96


def describe(node: Object, lease: Object, events: Sequence[Object]) -> str:
    """The node, its last reboots, the Events about it and about the lock (those that it sent), oldest first."""
    return "".join(f"   {line}\n" for line in _lines(node, lease, events))


def _lines(node: Object, lease: Object, events: Sequence[Object]) -> Iterator[str]:
    meta, info = node["metadata"], node["status"]["nodeInfo"]
    labels = [f"{key}={text}" for key, text in meta["labels"].items() if key.startswith(PREFIX)]
    notes = {key: text for key, text in meta["annotations"].items() if key.startswith(PREFIX)}
    yield f"Name:           {meta['name']}"
    yield f"Labels:         {', '.join(labels)}"
    lead = "Annotations:"
    for key, text in sorted(notes.items()):
        if key.removeprefix(PREFIX) not in _HIDDEN:
            yield f"{lead:<14}  {_cut(f'{key}: {text}')}"
            lead = ""
    yield f"Unschedulable:  {str(node['spec'].get('unschedulable', False)).lower()}"
    yield f"Kernel:         {info['kernelVersion']}, boot {info['bootID']}"
    yield "Conditions:"
    known = {condition["type"]: condition for condition in node["status"]["conditions"]}
    rows = [
        (kind, known[kind]["status"], known[kind]["reason"], known[kind]["message"])
        for kind in _CONDITIONS
        if kind in known
    ]
    yield from _table(("Type", "Status", "Reason", "Message"), rows)
    yield "Reboots:"
    yield from _table(
        ("At", "Took", "Kernel", "Why", "Drain"), map(_reboot, json.loads(notes.get(REBOOT_HISTORY, "[]")))
    )
    yield f"Lock:           {lease['metadata']['name']}: {lease['spec'].get('holderIdentity') or 'free'}"
    yield "Events, and those of the lock:"
    about = [(event["type"], event["reason"], event["message"]) for event in events]
    yield from _table(("Type", "Reason", "Message"), about)


def _reboot(entry: Mapping[str, Any]) -> tuple[str, ...]:
    kernels = f"{entry['kernelBefore']} -> {entry['kernelAfter']}"
    drain = f"{entry['pods']} pods" + (f", slowest {entry['slowestPod']}" if "slowestPod" in entry else "")
    return entry["at"], f"{entry['seconds']} s", kernels, entry["reason"], drain


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """The last column is as wide as it has to be."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head) - 1)]
    for line in lines:
        cells = [f"{cell:<{width}}" for cell, width in zip(line, widths, strict=False)]
        yield "  " + "  ".join([*cells, _cut(line[-1])])


def _cut(text: str) -> str:
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"
