"""The API calls of reporting, and nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from agent.kube import Kube, Patch
from agent.kube.errors import AlreadyExists
from agent.kube.resources import EVENTS, NODES


class KubeReport:
    """The agent's own Node and its Events. Every call raises KubeError; those on the Node return it as it is then."""

    def __init__(self, kube: Kube, node: str) -> None:
        self._kube = kube
        self._node = node

    def read(self) -> Mapping[str, Any]:
        return self._kube.get(NODES, self._node)

    def patch(
        self,
        annotations: Mapping[str, str | None],
        labels: Mapping[str, str | None],
        conditions: Sequence[Mapping[str, str]],
    ) -> Mapping[str, Any]:
        """Merges these keys (None removes one), and the conditions by type: all or nothing.

        The status subresource of a Node takes metadata too, as the kubelet's own patches use it.
        """
        metadata = {"annotations": dict(annotations), "labels": dict(labels)}
        body = {"metadata": metadata, "status": {"conditions": list(conditions)}}
        return self._kube.patch(NODES, self._node, body, how=Patch.STRATEGIC, subresource="status")

    def replace_taints(self, taints: list[Mapping[str, Any]], resource_version: str) -> Mapping[str, Any]:
        """Replaces the taints if the Node is still at that version; raises Conflict otherwise."""
        body = {"metadata": {"resourceVersion": resource_version}, "spec": {"taints": taints or None}}
        return self._kube.patch(NODES, self._node, body)

    def create_event(self, namespace: str, body: dict[str, Any]) -> bool:
        """Creates it; False when one of that name exists."""
        try:
            self._kube.create(EVENTS, body, namespace)
        except AlreadyExists:
            return False
        return True

    def patch_event(self, namespace: str, name: str, body: dict[str, Any]) -> dict[str, Any]:
        """Merge-patches it; the object afterwards. Raises NotFound when it no longer exists."""
        return self._kube.patch(EVENTS, name, body, namespace, how=Patch.MERGE)
