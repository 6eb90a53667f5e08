"""Everything that `why` and `status NODE` need of one node, read with a handful of small requests.

What may not be read, or is not there, is left out with the reason; nothing is assumed in its place.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent import annotations as keys
from agent.errors import KubeError
from agent.kube import NODES, PODS, Kube, field_selector
from agent.plugin.cluster import get_or_none, locks, nodes, policy, values
from agent.plugin.cluster.denials import NodeDenials, denials_of
from agent.plugin.cluster.locks import Lock, Pause
from agent.plugin.cluster.nodes import Keep, NodeRow
from agent.plugin.cluster.policy import Policy
from agent.reboot.kube.views import node_view
from agent.rollout import reports
from agent.rollout.reports import Report

_APP = "app.kubernetes.io/name=node-hardening-agent"
_EVERYTHING = Keep(findings=True, history=True)
_SUMMARY_CHARACTERS = 1024


@dataclass(frozen=True, slots=True)
class AgentPod:
    """The agent's pod on a node. name: empty where there is none. ready: None when unknown (`trouble`: why).

    trouble: why it is not ready, in the API's words: `CrashLoopBackOff`, `ImagePullBackOff`, `Pending` …
    """

    name: str = ""
    ready: bool | None = None
    trouble: str = ""
    restarts: int = 0


@dataclass(frozen=True, slots=True)
class NodeContext:
    """One node and what is around it. locks: of its pool. holders: rows of the nodes that hold them, if they exist.

    rollout: what it reports about a policy that is held back.
    """

    row: NodeRow
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
    rollout: Report = field(default_factory=Report)
    denials: NodeDenials | None = None

    @property
    def own_lock(self) -> Lock | None:
        """The lock that this node holds, by its UID."""
        return next((lock for lock in self.locks if _holds(lock, self.row)), None)


def read(kube: Kube, namespace: str, name: str, now: float) -> NodeContext:
    """Raises UsageError when there is no such node, KubeError when it cannot be read."""
    found = nodes.get(kube, name)
    seen = node_view(found)
    rules = policy.read(kube, namespace).of_node(seen.labels)
    row = nodes.row(found, rules.pool, _EVERYTHING)
    notes = seen.annotations
    known, problem = locks.read_or_problem(kube, namespace)
    mine = tuple(lock for lock in known if row.pool == lock.pool or _holds(lock, row))
    return NodeContext(
        nodes.with_locks(row, mine),
        values.text(notes.get(keys.SUMMARY), _SUMMARY_CHARACTERS),
        values.text(notes.get(keys.LAST_CHANGE), _SUMMARY_CHARACTERS),
        rules,
        agent_pod(kube, namespace, row.name),
        mine,
        problem,
        _holders(kube, mine, rules, row),
        locks.pause(kube, namespace, now),
        now,
        namespace,
        reports.report(found),
        denials_of(found),
    )


def agent_pod(kube: Kube, namespace: str, node: str) -> AgentPod:
    """The newest agent's pod on a node. Never raises KubeError: it only explains."""
    try:
        selected = field_selector({"spec.nodeName": node})
        pods = list(kube.list(PODS, namespace, label_selector=_APP, field_selector=selected))
    except KubeError as error:
        return AgentPod(trouble=values.text(str(error)))
    if not pods:
        return AgentPod(ready=False)
    return pod_of(max(pods, key=lambda pod: values.text(values.part(pod, "metadata").get("creationTimestamp"))))


def pod_of(found: Mapping[str, Any]) -> AgentPod:
    """A Pod object of the agent's. Pure."""
    status = values.part(found, "status")
    containers = values.mappings(status.get("containerStatuses"))
    ready = bool(containers) and all(one.get("ready") is True for one in containers)
    waiting = [values.part(one, "state", "waiting") for one in containers]
    reasons = [reason for one in waiting if (reason := values.text(one.get("reason"), 80))]
    trouble = "" if ready else (reasons[0] if reasons else values.text(status.get("phase"), 80) or "Unknown")
    restarts = int(sum(values.number(one.get("restartCount")) for one in containers))
    return AgentPod(values.name(values.part(found, "metadata").get("name")), ready, trouble, restarts)


def _holds(lock: Lock, row: NodeRow) -> bool:
    return not lock.is_free and bool(lock.holder_uid) and lock.holder_uid == row.uid


def _holders(kube: Kube, some: tuple[Lock, ...], rules: Policy, row: NodeRow) -> Mapping[str, NodeRow]:
    found: dict[str, NodeRow] = {}
    for lock in some:
        if not lock.holder or _holds(lock, row) or lock.holder in found:
            continue
        node = get_or_none(kube, NODES, lock.holder)
        if node is not None and node_view(node).uid == lock.holder_uid:
            found[lock.holder] = nodes.with_locks(nodes.row(node, rules.pool), some)
    return found
