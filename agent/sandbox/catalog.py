"""Which resources the emulator serves, and what the real server does differently between them.

A row here is all that a plain resource needs; it holds no behaviour of its own. Sources: the strategies under
kubernetes/kubernetes pkg/registry (AllowUnconditionalUpdate, ReturnDeletedObject, selectable fields) and the API
reference.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.sandbox.status_errors import Object, Who

RBAC_GROUP = "rbac.authorization.k8s.io"


@dataclass(frozen=True, slots=True)
class Resource:
    """One kind that is stored. ``fields`` are its selectable fields beside metadata.name and metadata.namespace."""

    group: str
    version: str
    plural: str
    kind: str
    namespaced: bool = True
    short: tuple[str, ...] = ()
    status: bool = False
    generation: bool = False
    unconditional_update: bool = True
    returns_deleted: bool = False
    fields: tuple[str, ...] = ()
    categories: tuple[str, ...] = ()

    @property
    def api_version(self) -> str:
        """``v1`` or ``apps/v1``."""
        return f"{self.group}/{self.version}" if self.group else self.version

    def typed(self, obj: Object) -> Object:
        """A stored object with its kind and apiVersion."""
        return {"kind": self.kind, "apiVersion": self.api_version, **obj}

    @property
    def who(self) -> Who:
        """How errors name it."""
        return Who(self.group, self.plural, self.kind)

    @property
    def singular(self) -> str:
        """The kind in lower case, as in the real discovery."""
        return self.kind.lower()


@dataclass(frozen=True, slots=True)
class Target:
    """What a request is about; ``subresource`` is empty or, for these verbs, ``status``."""

    resource: Resource
    namespace: str
    name: str
    subresource: str = ""


POD_FIELDS = (
    "spec.nodeName", "spec.restartPolicy", "spec.schedulerName", "spec.serviceAccountName", "spec.hostNetwork",
    "status.phase", "status.podIP", "status.nominatedNodeName",
)  # fmt: skip
EVENT_FIELDS = (
    *(f"involvedObject.{field}" for field in ("kind", "namespace", "name", "uid", "apiVersion", "resourceVersion",
                                              "fieldPath")),
    "reason", "reportingComponent", "type",
)  # fmt: skip


def _core() -> list[Resource]:
    return [
        Resource("", "v1", "nodes", "Node", False, ("no",), status=True, fields=("spec.unschedulable",)),
        Resource(
            "", "v1", "namespaces", "Namespace", False, ("ns",),
            status=True, returns_deleted=True, fields=("status.phase",),
        ),
        Resource(
            "", "v1", "pods", "Pod", True, ("po",),
            status=True, generation=True, returns_deleted=True, fields=POD_FIELDS, categories=("all",),
        ),
        Resource("", "v1", "events", "Event", True, ("ev",), fields=EVENT_FIELDS),
        Resource("", "v1", "configmaps", "ConfigMap", True, ("cm",)),
        Resource("", "v1", "secrets", "Secret", True, fields=("type",)),
        Resource(
            "", "v1", "services", "Service", True, ("svc",),
            status=True, returns_deleted=True, categories=("all",),
        ),
        Resource("", "v1", "resourcequotas", "ResourceQuota", True, ("quota",), status=True),
        Resource("", "v1", "limitranges", "LimitRange", True, ("limits",)),
        Resource("", "v1", "serviceaccounts", "ServiceAccount", True, ("sa",), returns_deleted=True),
    ]  # fmt: skip


def _groups() -> list[Resource]:
    coordination, admission = "coordination.k8s.io", "admissionregistration.k8s.io"
    return [
        Resource(
            coordination, "v1", "leases", "Lease", True, unconditional_update=False
        ),
        Resource(
            "policy", "v1", "poddisruptionbudgets", "PodDisruptionBudget", True, ("pdb",),
            status=True, generation=True, unconditional_update=False,
        ),
        *(
            Resource(
                "apps", "v1", f"{kind.lower()}s", kind, True, (short,),
                status=True, generation=True, fields=fields, categories=("all",),
            )
            for kind, short, fields in (
                ("DaemonSet", "ds", ()), ("Deployment", "deploy", ()), ("ReplicaSet", "rs", ("status.replicas",)),
                ("StatefulSet", "sts", ()),
            )
        ),
        Resource("", "v1", "persistentvolumes", "PersistentVolume", False, ("pv",), status=True),
        Resource("storage.k8s.io", "v1", "volumeattachments", "VolumeAttachment", False, status=True),
        Resource("batch", "v1", "jobs", "Job", True, status=True, generation=True, categories=("all",)),
        Resource(RBAC_GROUP, "v1", "clusterroles", "ClusterRole", False),
        Resource(RBAC_GROUP, "v1", "clusterrolebindings", "ClusterRoleBinding", False),
        Resource(RBAC_GROUP, "v1", "roles", "Role"),
        Resource(RBAC_GROUP, "v1", "rolebindings", "RoleBinding"),
        Resource(
            "certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest", False, ("csr",),
            status=True,
        ),
        Resource("scheduling.k8s.io", "v1", "priorityclasses", "PriorityClass", False, ("pc",)),
        *(
            Resource(
                admission, "v1", plural, kind, False,
                status=plural == "validatingadmissionpolicies", generation=True, unconditional_update=False,
            )
            for plural, kind in (
                ("validatingadmissionpolicies", "ValidatingAdmissionPolicy"),
                ("validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding"),
                ("mutatingadmissionpolicies", "MutatingAdmissionPolicy"),
                ("mutatingadmissionpolicybindings", "MutatingAdmissionPolicyBinding"),
            )
        ),
        *(
            Resource(admission, "v1", f"{kind.lower()}webhookconfigurations", f"{kind}WebhookConfiguration", False,
                     generation=True)
            for kind in ("Validating", "Mutating")
        ),
        Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy", True, ("netpol",), generation=True),
    ]  # fmt: skip


class Catalog:
    """The resources by their path and by their kind; built once for each server."""

    def __init__(self) -> None:
        """Every resource of the module's two tables."""
        self.all: tuple[Resource, ...] = tuple(_core() + _groups())
        self._by_path = {(item.group, item.version, item.plural): item for item in self.all}
        self._by_plural = {item.plural: item for item in self.all}

    def find(self, group: str, version: str, plural: str) -> Resource | None:
        """The resource at a path of the API, or None."""
        return self._by_path.get((group, version, plural))

    def named(self, plural: str) -> Resource:
        """The resource by its plural alone: unique here. Raises KeyError: the emulator has no such resource."""
        return self._by_plural[plural]

    def group_versions(self) -> list[tuple[str, str]]:
        """The named groups with their version, without the core one, in the order of the tables."""
        seen = {(item.group, item.version): None for item in self.all if item.group}
        return list(seen)
