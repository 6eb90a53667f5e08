"""The resources that the agent uses, and their paths.

Only what the agent needs is here; it refuses to use discovery. A name that could lead to another path is refused.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import quote

from agent.errors import UsageError


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind by its plural. group is empty for the core group. kind is what an object of it is called."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True

    @property
    def api_version(self) -> str:
        """`v1`, `apps/v1`."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def path(self, name: str = "", namespace: str = "", subresource: str = "") -> str:
        """The URL's path to one object, or without a name to the collection (of all namespaces without one).

        Raises UsageError for a name or namespace that is no path segment, and where a needed one is missing.
        Source: https://kubernetes.io/docs/reference/using-api/api-concepts/#resource-uris
        """
        parts = ["/apis", self.group, self.version] if self.group else ["/api", self.version]
        if namespace:
            if not self.namespaced:
                raise UsageError(f"{self.plural} are not namespaced, so not in {namespace!r}")
            parts += ["namespaces", segment(namespace)]
        elif self.namespaced and name:
            raise UsageError(f"{self.plural}/{name} needs a namespace")
        parts.append(self.plural)
        if name:
            parts.append(segment(name))
        if subresource:
            parts.append(subresource)
        return "/".join(parts)


NODES = Resource("", "v1", "nodes", "Node", namespaced=False)
NAMESPACES = Resource("", "v1", "namespaces", "Namespace", namespaced=False)
PODS = Resource("", "v1", "pods", "Pod")
EVENTS = Resource("", "v1", "events", "Event")
CONFIGMAPS = Resource("", "v1", "configmaps", "ConfigMap")
ACCESS_REVIEWS = Resource(
    "authorization.k8s.io", "v1", "selfsubjectaccessreviews", "SelfSubjectAccessReview", namespaced=False
)
LEASES = Resource("coordination.k8s.io", "v1", "leases", "Lease")
DAEMONSETS = Resource("apps", "v1", "daemonsets", "DaemonSet")
VOLUME_ATTACHMENTS = Resource("storage.k8s.io", "v1", "volumeattachments", "VolumeAttachment", namespaced=False)
PERSISTENT_VOLUMES = Resource("", "v1", "persistentvolumes", "PersistentVolume", namespaced=False)
PDBS = Resource("policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget")


def segment(name: str) -> str:
    """A name as one segment of a path.

    Raises UsageError for what the API server calls no path segment name (`.`, `..`, or with `/` or `%`): a client
    library would otherwise fold `..` and reach another object. Source: apimachinery IsValidPathSegmentName.
    """
    if not name or name in (".", "..") or "/" in name or "%" in name or not name.isprintable():
        raise UsageError(f"{name!r} is not the name of a Kubernetes object")
    return quote(name, safe="")


def field_selector(fields: Mapping[str, str]) -> str:
    """A selector for objects with all of these fields: `spec.nodeName=worker-1`. Values are escaped."""
    return ",".join(f"{key}={_escaped(value)}" for key, value in fields.items())


def _escaped(value: str) -> str:
    """Source: apimachinery pkg/fields EscapeValue."""
    return value.replace("\\", "\\\\").replace(",", "\\,").replace("=", "\\=")
