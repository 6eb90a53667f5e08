"""The cluster's pause: a ConfigMap in the agent's namespace that holds every reboot back while it exists.

It refuses to take a pause that it does not understand for none.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from agent.errors import KubeError
from agent.kube import CONFIGMAPS, Kube
from agent.kube.errors import Forbidden
from agent.reboot.interfaces import BlockerResult, Clock
from agent.text import format_rfc3339, parse_rfc3339, sanitize

PAUSE = "node-hardening-pause"
# A pause may end before its time, so only its last minute is slept through.
_LAST_MINUTE_SECONDS = 60.0


class PauseBlocker:
    """Reads the ConfigMap: `data.until` (RFC 3339, empty: until it is deleted), `data.reason`, `data.by`."""

    name = "pause"
    late = True

    def __init__(self, kube: Kube, namespace: str, clock: Clock) -> None:
        self._kube = kube
        self._namespace = namespace
        self._clock = clock

    def check(self) -> BlockerResult:
        """One small GET."""
        try:
            found = self._kube.find(CONFIGMAPS, PAUSE, self._namespace)
        except Forbidden:
            by = f"the cluster's pause is unknown: allow get of configmaps/{PAUSE} in {self._namespace}"
            return BlockerResult(blocked=True, by=by)
        except KubeError as error:
            return BlockerResult(blocked=True, by=f"the cluster's pause is unknown: {error}")
        return judge(found, self._clock.wall()) if found is not None else BlockerResult(blocked=False)


def judge(pause: Mapping[str, Any], now: float) -> BlockerResult:
    """What a ConfigMap means. Pure; now is in seconds since the epoch."""
    data = pause.get("data")
    data = data if isinstance(data, dict) else {}
    until = str(data.get("until") or "").strip()
    who, why = sanitize(str(data.get("by") or ""), 80), sanitize(str(data.get("reason") or ""))
    by = "the cluster's pause" + (f" by {who}" if who else "")
    again = 0.0
    if until:
        try:
            left = parse_rfc3339(until) - now
        except ValueError as error:
            return BlockerResult(blocked=True, by=f"{by}, whose end is not understood: {error}")
        if left <= 0:
            return BlockerResult(blocked=False)
        by += f" until {format_rfc3339(now + left)}"
        again = left if left < _LAST_MINUTE_SECONDS else 0.0
    return BlockerResult(blocked=True, by=f"{by}: {why}" if why else by, again_seconds=again)
