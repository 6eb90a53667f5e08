"""The last few reboots of a node, on the node: what `kubectl node-hardening history` shows.

Bounded to five entries. A history that cannot be read is started again: it is for users, nothing depends on it.
"""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

from agent.reboot.state import Finished
from agent.text import format_rfc3339

_ENTRIES = 5
_ANNOTATION_LIMIT = 16 << 10


def with_entry(text: str, state: Finished, *, kernel: str) -> str:
    """The annotation's value with the reboot that `state` ends. kernel: running now."""
    return json.dumps([_entry(state, kernel), *_read(text)][:_ENTRIES], separators=(",", ":"), ensure_ascii=False)


def _entry(state: Finished, kernel: str) -> dict[str, Any]:
    """seconds: from cordon to uncordon; phases: seconds in each; both by wall clock."""
    marks = state.marks
    began = marks[0][1] if marks else 0.0
    ended = marks[-1][1] if marks else 0.0
    phases = {name.value: round(after[1] - at) for (name, at), after in pairwise(marks)}
    entry: dict[str, Any] = {
        "at": format_rfc3339(ended),
        "reason": state.requested or state.packages,
        "kernelBefore": state.kernel,
        "kernelAfter": kernel,
        "seconds": round(ended - began),
        "phases": phases,
        "pods": state.pods,
    }
    return entry | {"slowestPod": state.slowest} if state.slowest else entry


def _read(text: str) -> list[dict[str, Any]]:
    try:
        entries = json.loads(text) if 0 < len(text) <= _ANNOTATION_LIMIT else []
    except (ValueError, RecursionError):
        return []
    return [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
