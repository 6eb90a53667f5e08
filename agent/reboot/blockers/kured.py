"""kured's lock, where kured runs in the same cluster: while a node holds it, ours do not reboot.

The lock is an annotation on kured's DaemonSet, in one of two forms. One holder: `{"nodeID", "created", "TTL", …}`.
Several: `{"maxOwners", "locks": [the same …]}`. TTL is in nanoseconds and 0 is none; an expired lock is free.
Source: kured pkg/daemonsetlock. It refuses to write to kured's DaemonSet, and to take a lock that it does not
understand for none. A lock that this node's own kured holds blocks too: kured is about to reboot this node itself.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from agent.config.schema import Lock as LockPolicy
from agent.errors import KubeError
from agent.kube import DAEMONSETS, Kube
from agent.kube.errors import Forbidden, NotFound
from agent.reboot.ports import Clock, Verdict
from agent.text import format_rfc3339, join_limited, parse_rfc3339, sanitize

# `created` comes from another node's clock: an expiry by a hair is none yet.
_SKEW_SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class KuredHolder:
    """One holder. expires: seconds since the epoch, None for never."""

    node: str
    expires: float | None = None


class KuredBlocker:
    """Asks for kured's DaemonSet; where there is none, nothing blocks."""

    name = "kured"
    late = True

    def __init__(self, policy: LockPolicy, kube: Kube, node: str, clock: Clock) -> None:
        self._namespace, _, self._daemonset = policy.kured_daemonset.partition("/")
        self._annotation = policy.kured_annotation
        self._kube = kube
        self._node = node
        self._clock = clock

    def check(self) -> Verdict:
        """One GET."""
        where = f"daemonsets/{self._daemonset} in {self._namespace}"
        try:
            found = self._kube.get(DAEMONSETS, self._daemonset, self._namespace)
        except NotFound as error:
            if error.names_object:
                return Verdict(blocked=False)
            return Verdict(blocked=True, by=f"kured's lock, which cannot be told: {error}")
        except Forbidden:
            by = f"kured's lock, which may not be read: allow get of {where}, or set reboot.lock.kured: off"
            return Verdict(blocked=True, by=by)
        except KubeError as error:
            return Verdict(blocked=True, by=f"kured's lock, which cannot be told: {error}")
        annotations = found.get("metadata", {}).get("annotations") or {}
        text = annotations.get(self._annotation, "")
        return judge(text, self._node, self._clock.wall(), f"annotation {self._annotation} of {where}")


def judge(text: str, node: str, now: float, where: str) -> Verdict:
    """What the annotation says to this node. Pure; where: for people who have to mend it."""
    try:
        holders = [one for one in parse(text) if one.expires is None or now < one.expires + _SKEW_SECONDS]
    except ValueError as error:
        return Verdict(blocked=True, by=f"kured's lock, which is not understood: {error}; see the {where}")
    if not holders:
        return Verdict(blocked=False)
    if any(one.node == node for one in holders):
        by = f"kured's lock, held by kured on this very node; where kured is gone for good, remove the {where}"
        return Verdict(blocked=True, by=by)
    ends = [one.expires for one in holders if one.expires is not None]
    until = f" until {format_rfc3339(max(ends))} at the latest" if len(ends) == len(holders) else ""
    return Verdict(blocked=True, by=f"kured's lock, held by {join_limited(one.node for one in holders)}{until}")


def parse(text: str) -> tuple[KuredHolder, ...]:
    """The holders in an annotation, expired ones too; empty text is a free lock. Raises ValueError."""
    if not text.strip():
        return ()
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{sanitize(text, 60)!r} is no JSON") from error
    if not isinstance(value, dict):
        raise ValueError(f"{sanitize(text, 60)!r} is no JSON object")  # noqa: TRY004 - a document's fault, not a caller's
    if "locks" in value or "maxOwners" in value:
        locks = value.get("locks")
        if locks is None:
            return ()
        if not isinstance(locks, list) or not all(isinstance(one, dict) for one in locks):
            raise ValueError("locks is no list of objects")
        return tuple(_holder(one) for one in locks)
    return (_holder(value),)


def _holder(value: Mapping[str, Any]) -> KuredHolder:
    node, ttl = value.get("nodeID"), value.get("TTL") or 0
    if not isinstance(node, str) or not node:
        raise ValueError("it has no nodeID")
    if not isinstance(ttl, int | float) or isinstance(ttl, bool) or ttl != ttl:  # noqa: PLR0124 - NaN is JSON to Python
        raise ValueError(f"its TTL is no number: {sanitize(str(ttl), 40)}")
    if ttl <= 0:
        return KuredHolder(node)
    created = value.get("created")
    if not isinstance(created, str):
        raise ValueError("it has a TTL and no time of creation")  # noqa: TRY004 - as above
    return KuredHolder(node, parse_rfc3339(created) + ttl / 1e9)
