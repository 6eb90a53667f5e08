"""The coordinator's port to the API server, on agent.kube: see agent/reboot/cluster.py for what is promised.

The own Node is watched all the time, the pool's leases only while they are read again and again; an idle node
makes no request. It refuses to send anything without the resourceVersion that was seen.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from agent.annotations import FIELD_MANAGER
from agent.errors import UsageError
from agent.kube import ACCESS_REVIEWS, LEASES, NODES, Kube, Patch, field_selector
from agent.kube.errors import CallFailed, Conflict, NotFound
from agent.reboot.cluster import MEMBERS_A_PAGE, LeaseView, NodePatch, NodeView
from agent.reboot.kube.informer import FollowedObjects, ObjectCache
from agent.reboot.kube.views import lease_body, lease_view, mark_body, node_patch, node_view, without_nulls

Object = dict[str, Any]

_CALL_SECONDS = 20.0  # a tick must not hang for longer than the lease lasts
_NODE_READS_BEFORE_UNWATCHING = 20
_HEARTBEATS = "kube-node-lease"


class KubeCluster:
    """One node's view of the cluster; `close` ends its watch. For one thread."""

    def __init__(
        self, kube: Kube, *, node: str, nodes: ObjectCache, namespace: str, wake: Callable[[], None],
        on_patch: Callable[[Object], None] = lambda _node: None,
    ) -> None:  # fmt: skip
        """nodes: given every change of the own Node by the caller's watch. namespace: the agent's own, of the Leases.

        wake: called in a thread when a Lease changed. on_patch: given the Node as each patch left it.
        """
        self._on_patch = on_patch
        self._kube = kube.within(_CALL_SECONDS)
        self._node = node
        self._namespace = namespace
        self._wake = wake
        self._nodes = nodes
        self._leases: FollowedObjects | None = None
        self._leases_names: tuple[str, ...] = ()
        self._node_reads = 0

    def close(self) -> None:
        """Ends the watch of the Leases; the next that is worth it begins another."""
        if self._leases is not None:
            self._leases.close()
        self._leases, self._leases_names = None, ()

    # -- the Node ------------------------------------------------------------------------------------------------------

    def node(self) -> NodeView | None:
        """See cluster.Cluster."""
        self._node_reads += 1
        if self._node_reads > _NODE_READS_BEFORE_UNWATCHING:
            self.close()
        is_known, found = self._nodes.get(self._node)
        if not is_known:
            found = self._kube.find(NODES, self._node)
            self._nodes.put(self._node, found)
        return node_view(found) if found is not None else None

    def patch_node(self, patch: NodePatch, version: str) -> NodeView:
        """See cluster.Cluster."""
        body = node_patch(patch, version, self._nodes.get(self._node)[1] or {}, time.time())
        how, part = (Patch.MERGE, "") if patch.changes_spec else (Patch.STRATEGIC, "status")
        with self._nodes.writing(self._node):
            try:
                found = self._kube.patch(NODES, self._node, body, how=how, subresource=part, manager=FIELD_MANAGER)
            except Conflict:
                self._nodes.outdate(self._node, version)
                raise
            except CallFailed as error:
                if error.ambiguous or isinstance(error, NotFound):
                    self._nodes.forget(self._node)
                raise
            self._nodes.put(self._node, found)
        self._on_patch(found)
        return node_view(found)

    # -- leases --------------------------------------------------------------------------------------------------------

    def leases(self, names: Sequence[str], *, follow: bool) -> tuple[LeaseView, ...]:
        """See cluster.Cluster."""
        if follow:
            self._watch(tuple(names))
        return tuple(self._lease(name) for name in names)

    def _watch(self, names: tuple[str, ...]) -> None:
        self._node_reads = 0
        if self._leases is not None and self._leases_names != names:
            self.close()
        if self._leases is None:
            # One name is a watch that RBAC can restrict to it.
            selector = field_selector({"metadata.name": names[0]}) if len(names) == 1 else ""
            follow = self._kube.follow(LEASES, self._namespace, field_selector=selector)
            self._leases = FollowedObjects(follow, self._wake, without_ballast)
            self._leases_names = names

    def _lease(self, name: str) -> LeaseView:
        is_known, found = self._leases.get(name) if self._leases is not None else (False, None)
        if not is_known:
            found = self._kube.find(LEASES, name, self._namespace)
            if self._leases is not None:
                self._leases.put(name, found)
        return lease_view(found) if found is not None else LeaseView(name)

    def put_lease(self, lease: LeaseView) -> LeaseView:
        """See cluster.Cluster."""
        return self._write_lease(lease, lease_body(lease, self._namespace))

    def mark_lease(self, lease: LeaseView, by: str) -> LeaseView:
        """See cluster.Cluster."""
        return self._write_lease(lease, mark_body(lease, by))

    def _write_lease(self, lease: LeaseView, body: Object) -> LeaseView:
        try:
            if lease.version:
                found = self._kube.patch(LEASES, lease.name, body, self._namespace, how=Patch.MERGE)
            else:
                found = self._kube.create(LEASES, without_nulls(body), self._namespace)
        except CallFailed as error:
            if self._leases is not None and (error.ambiguous or isinstance(error, Conflict | NotFound)):
                self._leases.forget(lease.name)
            raise
        if self._leases is not None:
            self._leases.put(lease.name, found)
        return lease_view(found)

    # -- others --------------------------------------------------------------------------------------------------------

    def members(self) -> Iterator[NodeView]:
        """See cluster.Cluster."""
        return (node_view(found) for found in self._kube.list(NODES, page_size=MEMBERS_A_PAGE))

    def count(self) -> int:
        """See cluster.Cluster. The server reports how many a page of one leaves out."""
        answer = self._kube.get_raw(f"{NODES.path()}?limit=1")
        meta = answer.get("metadata")
        remaining = meta.get("remainingItemCount") if isinstance(meta, dict) else None
        return 1 + (remaining if isinstance(remaining, int) else 0)

    def can_patch_lease(self, name: str) -> bool:
        """See cluster.Cluster. https://kubernetes.io/docs/reference/kubernetes-api/authorization-resources/"""
        attributes = {"namespace": self._namespace, "verb": "patch", "group": "coordination.k8s.io"}
        attributes |= {"resource": "leases", "name": name}
        body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SelfSubjectAccessReview"}
        answer = self._kube.create(ACCESS_REVIEWS, {**body, "spec": {"resourceAttributes": attributes}})
        status = answer.get("status")
        return not isinstance(status, dict) or status.get("allowed") is not False

    def uid_of(self, node: str) -> str | None:
        """See cluster.Cluster."""
        try:
            found = self._kube.find(NODES, node) if node else None
        except UsageError:
            return None  # a forged holder: no Node has such a name
        return node_view(found).uid if found is not None else None

    def heartbeat(self) -> str:
        """See cluster.Cluster."""
        found = self._kube.find(LEASES, self._node, _HEARTBEATS)
        return lease_view(found).renewed if found is not None else ""


def without_ballast(found: Object) -> Object:
    """What views.py reads: a Node's images and volumes are most of it."""
    meta = {key: value for key, value in found.get("metadata", {}).items() if key in _META}
    status = {key: value for key, value in (found.get("status") or {}).items() if key in _STATUS}
    return {"metadata": meta, "spec": found.get("spec", {}), "status": status}


_META = frozenset({"name", "deletionTimestamp", "uid", "resourceVersion", "labels", "annotations", "managedFields"})
_STATUS = frozenset({"conditions", "nodeInfo"})
