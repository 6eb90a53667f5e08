"""kured's lock, where kured runs in the same cluster: while a node holds it, ours do not reboot.

The lock is an annotation on kured's DaemonSet, whatever its namespace and name, in one of two forms. One holder:
`{"nodeID", "created", "TTL", …}`. Several: `{"maxOwners", "locks": [the same …]}`. TTL is in nanoseconds and 0 is none;
an expired lock is free, and so is one of a node that has been gone for a while. Source: kured pkg/daemonsetlock. It
refuses to write to kured's DaemonSet, and to take a lock that it does not understand for none. A lock that this node's
own kured holds blocks too: kured is about to reboot this node itself.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from agent.config.schema import Lock as LockPolicy
from agent.errors import KubeError
from agent.kube import DAEMONSETS, NODES, Kube, Object
from agent.kube.errors import Forbidden, NotFound
from agent.reboot.interfaces import BlockerResult, Clock
from agent.text import format_rfc3339, join_limited, parse_rfc3339, sanitize

# `created` comes from another node's clock: an expiry by a hair is none yet.
_SKEW_SECONDS = 30.0
# A Node may be deleted and registered again under its name, by a user or by its cloud, while its machine reboots.
GONE_SECONDS = 30.0
_TTL_LIMIT = 2**63  # Go's time.Duration
_HOLDERS_LIMIT = 100  # each costs a request


@dataclass(frozen=True, slots=True)
class KuredHolder:
    """One holder. expires: seconds since the epoch, None for never."""

    node: str
    expires: float | None = None


class KuredBlocker:
    """Searches for the annotation on every DaemonSet, or on the one that `lock.kuredDaemonset` names."""

    name = "kured"
    late = True

    def __init__(self, policy: LockPolicy, kube: Kube, node: str, clock: Clock) -> None:
        self._daemonset = policy.kured_daemonset
        self._annotation = policy.kured_annotation
        self._kube = kube
        self._node = node
        self._clock = clock
        self._gone_since: dict[str, float] = {}

    def check(self) -> BlockerResult:
        """One GET or LIST, and one GET for each node that holds the lock."""
        if len(self._gone_since) > _HOLDERS_LIMIT:
            self._gone_since.clear()
        try:
            for found in self._daemonsets():
                verdict = self._judge(found)
                if verdict.blocked:
                    return verdict
        except Forbidden as error:
            verb = "get" if self._daemonset else "list"
            what = f"allow {verb} of daemonsets and get of nodes, or set reboot.lock.kured: off"
            return BlockerResult(blocked=True, by=f"kured's lock unknown: {error.operation} is forbidden: {what}")
        except KubeError as error:
            return BlockerResult(blocked=True, by=f"kured's lock unknown: {error}")
        return BlockerResult(blocked=False)

    def _daemonsets(self) -> Iterable[Object]:
        """Raises KubeError, also where the DaemonSet that the policy names does not exist."""
        if not self._daemonset:
            return self._kube.list(DAEMONSETS)
        namespace, _, name = self._daemonset.partition("/")
        try:
            return (self._kube.get(DAEMONSETS, name, namespace),)
        except NotFound as error:
            advice = "correct reboot.lock.kuredDaemonset, or leave it empty to find kured in any namespace"
            raise KubeError(f"there is no DaemonSet {self._daemonset}: {advice}") from error

    def _judge(self, daemonset: Object) -> BlockerResult:
        """Raises KubeError."""
        meta = daemonset.get("metadata") or {}
        text = (meta.get("annotations") or {}).get(self._annotation, "")
        where = f"annotation {self._annotation} of daemonsets/{meta.get('name', '')} in {meta.get('namespace', '')}"
        try:
            holders = holders_at(text, self._clock.wall())
        except ValueError as error:
            return BlockerResult(blocked=True, by=f"kured's lock is not understood: {error}; see the {where}")
        there = [one for one in holders if self._exists(one.node)]
        if not there and holders:
            return self._holders_without_node([one.node for one in holders])
        return judge(there, self._node, where)

    def _holders_without_node(self, names: list[str]) -> BlockerResult:
        """Only holders without a Node are left: their lock counts for a while longer, until the last one's is over."""
        holder = max(names, key=lambda name: self._gone_since[name])
        since = self._gone_since[holder]
        rest = GONE_SECONDS - (self._clock.monotonic() - since)
        if rest <= 0:
            return BlockerResult(blocked=False)
        by = f"kured's lock, held by {sanitize(holder, 63)}, whose Node does not exist; ignored after {GONE_SECONDS:g}s"
        return BlockerResult(blocked=True, by=by, again_seconds=rest)

    def _exists(self, node: str) -> bool:
        """Whether a holder's Node exists; since when it does not is noted. Raises KubeError."""
        if node != self._node and self._kube.find(NODES, node) is None:
            self._gone_since.setdefault(node, self._clock.monotonic())
            return False
        self._gone_since.pop(node, None)
        return True


def judge(holders: Iterable[KuredHolder], node: str, where: str) -> BlockerResult:
    """What the lock's holders mean for this node. Pure. where: the annotation, for whoever has to remove it."""
    found = list(holders)
    if not found:
        return BlockerResult(blocked=False)
    if any(one.node == node for one in found):
        by = f"kured's lock, held by kured on this node; where kured was removed, remove the {where}"
        return BlockerResult(blocked=True, by=by)
    ends = [one.expires for one in found if one.expires is not None]
    until = f" until {format_rfc3339(max(ends))} at the latest" if len(ends) == len(found) else ""
    return BlockerResult(blocked=True, by=f"kured's lock, held by {join_limited(one.node for one in found)}{until}")


def holders_at(text: str, now: float) -> tuple[KuredHolder, ...]:
    """The holders whose lock has not expired. Raises ValueError."""
    return tuple(one for one in parse(text) if one.expires is None or now < one.expires + _SKEW_SECONDS)


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
        if len(locks) > _HOLDERS_LIMIT:
            raise ValueError(f"it has {len(locks)} holders; at most {_HOLDERS_LIMIT} are read")
        return tuple(_holder(one) for one in locks)
    return (_holder(value),)


def _holder(value: Mapping[str, Any]) -> KuredHolder:
    node, ttl = value.get("nodeID"), value.get("TTL") or 0
    if not isinstance(node, str) or not node:
        raise ValueError("it has no nodeID")
    if not isinstance(ttl, int | float) or isinstance(ttl, bool) or not -_TTL_LIMIT <= ttl < _TTL_LIMIT:
        raise ValueError("its TTL is no number of nanoseconds")
    if ttl <= 0:
        return KuredHolder(node)
    created = value.get("created")
    if not isinstance(created, str):
        raise ValueError("it has a TTL and no time of creation")  # noqa: TRY004 - as above
    return KuredHolder(node, parse_rfc3339(created) + ttl / 1e9)
