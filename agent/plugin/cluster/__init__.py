"""What the plugin reads from the API: Nodes, Leases, ConfigMaps and Pods as small rows of sanitized values.

Every string that a command, a page or an export shows has passed agent.plugin.cluster.values on its way into a row.
"""

from __future__ import annotations

from typing import Any

from agent.kube import Kube, Resource
from agent.kube.errors import NotFound


def get_or_none(kube: Kube, resource: Resource, name: str, namespace: str = "") -> dict[str, Any] | None:
    """An object, None when it does not exist. Raises KubeError, also for a path that the server does not serve."""
    try:
        return kube.get(resource, name, namespace)
    except NotFound as error:
        if not error.names_object:
            raise
        return None
