"""Everything that `why` and `status NODE` know of one node, read with a handful of small requests.

What may not be read, or is not there, is left out with the reason why; nothing is taken for granted in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.errors import KubeError
from agent.kube import NODES, PODS, Kube, field_selector
from agent.kube.errors import NotFound
from agent.plugin.cluster import locks, policy
from agent.plugin.cluster import nodes as fleet
from agent.plugin.cluster.locks import Lock, Pause
from agent.plugin.cluster.nodes import Keep, NodeRow
from agent.plugin.cluster.policy import Policy
from agent.reboot.state import NodeState
from agent.report import node_status

_APP = "app.kubernetes.io/name=node-hardening-agent"
_WHOLE = Keep(findings=True, history=True)


@dataclass(frozen=True, slots=True)
class AgentPod:
    """The agent's pod on a node. name: empty where there is none. ready: None when it cannot be told (`trouble`: why).

    trouble: why it is not ready, in the API's words: `CrashLoopBackOff`, `ImagePullBackOff`, `Pending` …
    """

    name: str = ""
    ready: bool | None = None
    trouble: str = ""
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class Facts:
    """One node and what is around it. state: its note; None where it cannot be read.

    locks: of its pool. holders: the rows of the nodes that hold them; one that is gone is not there.
    """

    row: NodeRow
    state: NodeState | None
    summary: str
    last_change: str
    rules: Policy
    pod: AgentPod
    locks: tuple[Lock, ...] = ()
    locks_problem: str = ""
    holders: Mapping[str, NodeRow] = field(default_factory=dict)
    pause: Pause = field(default_factory=lambda: Pause(active=False))
    now: float = 0.0
    namespace: str = ""

    @property
    def own_lock(self) -> Lock | None:
        """The lock that this very node holds, by its UID."""
        return next((lock for lock in self.locks if lock.holder_uid == self.row.uid and not lock.is_free), None)


def read(kube: Kube, namespace: str, name: str, now: float) -> Facts:
    """Raises UsageError when there is no such node, KubeError when it cannot be read."""
    found = fleet.get(kube, name)
    rules = policy.read(kube, namespace)
    row = fleet.row(found, rules.pool, _WHOLE)
    mine: tuple[Lock, ...] = ()
    problem = ""
    try:
        mine = tuple(lock for lock in locks.read(kube, namespace) if row.pool == lock.pool or _holds(lock, row))
    except KubeError as error:
        problem = str(error)
    return Facts(
        row,
        fleet.state_of(node_view(found).annotations),
        _note(found, node_status.SUMMARY),
        _note(found, node_status.LAST_CHANGE),
        rules,
        agent_pod(kube, namespace, name),
        mine,
        problem,
        _holders(kube, mine, rules, row),
        locks.pause(kube, namespace, now),
        now,
        namespace,
    )


def agent_pod(kube: Kube, namespace: str, node: str) -> AgentPod:
    """The newest agent's pod on a node. Never raises KubeError: it only explains."""
    try:
        selected = field_selector({"spec.nodeName": node})
        pods = list(kube.list(PODS, namespace, label_selector=_APP, field_selector=selected))
    except KubeError as error:
        return AgentPod(trouble=str(error))
    if not pods:
        return AgentPod(ready=False)
    return pod_of(max(pods, key=lambda pod: str(pod.get("metadata", {}).get("creationTimestamp", ""))))


def pod_of(found: Mapping[str, Any]) -> AgentPod:
    """A Pod object of the agent's. Pure."""
    status = found.get("status") or {}
    containers = [one for one in status.get("containerStatuses") or () if isinstance(one, dict)]
    ready = bool(containers) and all(one.get("ready") is True for one in containers)
    waiting = [(one.get("state") or {}).get("waiting") or {} for one in containers]
    reasons = [str(one.get("reason")) for one in waiting if one.get("reason")]
    trouble = "" if ready else (reasons[0] if reasons else str(status.get("phase") or "Unknown"))
    restarts = sum(one.get("restartCount", 0) for one in containers)
    return AgentPod(str((found.get("metadata") or {}).get("name", "")), ready, trouble, restarts)


def _holds(lock: Lock, row: NodeRow) -> bool:
    return bool(lock.holder_uid) and lock.holder_uid == row.uid


def _holders(kube: Kube, some: tuple[Lock, ...], rules: Policy, row: NodeRow) -> Mapping[str, NodeRow]:
    found: dict[str, NodeRow] = {}
    for lock in some:
        if lock.is_free or _holds(lock, row) or lock.holder in found:
            continue
        try:
            holder = fleet.row(kube.get(NODES, lock.holder), rules.pool)
        except NotFound:
            continue
        if holder.uid == lock.holder_uid:
            found[lock.holder] = holder
    return found


def _note(found: Mapping[str, Any], key: str) -> str:
    return node_view(found).annotations.get(key, "")
