"""The coordinator's port to the API server: the few objects it reads and the two that it writes, as frozen values.

Every write carries the resourceVersion that was seen, so that a change by others in between is a Conflict and a new
decision. Reads may come from a watch; they are never older than this process's own last write. It refuses to offer a
write without a version. The implementation is agent/reboot/kube/cluster.py.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Protocol

from agent.model import Condition

# Nodes with fifty images each take half of what an answer may (bounded_http).
MEMBERS_A_PAGE = 250

_NOTHING: Mapping[str, Any] = {}
_PREFER_NO_SCHEDULE = "PreferNoSchedule"


@dataclass(frozen=True, slots=True)
class NodeView:
    """A Node.

    version: resourceVersion. unschedulable_by: the field manager that owns spec.unschedulable, empty when the server
    does not tell. ready: None when there is no such condition or it is Unknown. boot_id: of status.nodeInfo. taints:
    spec.taints as they are. removal: why the Node is about to go away, empty when it is not. runs_agent: this agent
    can run there (see availability.py).
    """

    name: str
    uid: str
    version: str
    unschedulable: bool = False
    unschedulable_by: str = ""
    ready: bool | None = None
    boot_id: str = ""
    labels: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    annotations: Mapping[str, str] = field(default_factory=lambda: _NOTHING)
    taints: tuple[Mapping[str, Any], ...] = ()
    removal: str = ""
    runs_agent: bool = True

    def taints_with(self, key: str, ours: Collection[str]) -> tuple[Mapping[str, Any], ...] | None:
        """spec.taints whose only PreferNoSchedule taint among our keys is this one, or none; None when that is so."""
        found = [one for one in self.taints if one.get("key") in ours and one.get("effect") == _PREFER_NO_SCHEDULE]
        if {one["key"] for one in found} == ({key} if key else set()):
            return None
        others = tuple(one for one in self.taints if one not in found)
        return (*others, {"key": key, "effect": _PREFER_NO_SCHEDULE}) if key else others


@dataclass(frozen=True, slots=True)
class NodePatch:
    """What changes on the Node, in one request. None as a value removes the key; None as a part leaves it alone.

    A condition is only in a patch that leaves the spec alone: the API server takes those two apart.
    """

    annotations: Mapping[str, str | None] = field(default_factory=lambda: _NOTHING)
    labels: Mapping[str, str | None] = field(default_factory=lambda: _NOTHING)
    unschedulable: bool | None = None
    taints: tuple[Mapping[str, Any], ...] | None = None
    condition: Condition | None = None

    @property
    def changes_spec(self) -> bool:
        """Whether it is one for the Node itself; all others go to its status, with the condition."""
        return self.unschedulable is not None or self.taints is not None


class LeasePhase(StrEnum):
    """What the holder is doing. REBOOTING is never taken over only because the holder is silent."""

    NONE = ""
    HELD = "held"
    REBOOTING = "rebooting"


@dataclass(frozen=True, slots=True)
class LeaseView:
    """One slot of a pool's lock.

    version: empty for a lease that does not exist yet. holder: `<node>/<uid>`, empty when free. renewed: as the holder
    wrote it; only ever compared with itself. cycle, boot: of the holder. taken_from: the holder that this one
    replaced. last_reboot: wall seconds of some node, 0 for never. pool_size: nodes that the last taker counted. waited:
    seconds that the last taker had waited. stuck: which node first reported that the holder does not come back.
    """

    name: str
    version: str = ""
    holder: str = ""
    phase: LeasePhase = LeasePhase.NONE
    renewed: str = ""
    acquired: str = ""
    duration_seconds: int = 0
    transitions: int = 0
    cycle: str = ""
    boot: str = ""
    taken_from: str = ""
    last_reboot: float = 0.0
    pool_size: int = 0
    waited: float = 0.0
    stuck: str = ""


class Cluster(Protocol):
    """All of them raise KubeError; a write's may be ambiguous: look again before the next step."""

    def node(self) -> NodeView | None:
        """This node, None when its object is gone."""

    def patch_node(self, patch: NodePatch, version: str) -> NodeView:
        """One patch of the Node. Raises Conflict when the version is no longer the newest, NotFound."""

    def leases(self, names: Sequence[str], *, follow: bool) -> tuple[LeaseView, ...]:
        """Those leases in that order; one that does not exist has no version. follow: worth a watch from now on."""

    def put_lease(self, lease: LeaseView) -> LeaseView:
        """Creates it (no version) or replaces exactly that version. Raises Conflict, NotFound."""

    def mark_lease(self, lease: LeaseView, by: str) -> LeaseView:
        """Marks exactly that version as stuck and leaves all else as it is stored. Raises Conflict, NotFound."""

    def can_patch_lease(self, name: str) -> bool:
        """Whether RBAC lets this agent patch a Lease that may not exist yet. Raises KubeError."""

    def members(self) -> Iterable[NodeView]:
        """Every node of the cluster, read page by page. Only a node about to acquire the lock reads it."""

    def count(self) -> int:
        """How many nodes the cluster has, about; one small request."""

    def uid_of(self, node: str) -> str | None:
        """Another node's UID, None when it is gone. Never from a cache."""

    def heartbeat(self) -> str:
        """renewTime of this node's lease in kube-node-lease, empty when there is none. Never from a cache."""
