"""What the audit knows of a cluster, reduced while it is read: no object is kept whole."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from agent.config.selector import Selector, from_object
from agent.plugin.audit.pods import Labels, Workload, is_system
from agent.plugin.audit.rbac import Grant, Powers
from agent.plugin.cluster import values

_METADATA = ipaddress.ip_address("169.254.169.254")


@dataclass(frozen=True, slots=True)
class Namespace:
    """enforce: the level of Pod Security, empty without the label. node_selector: PodNodeSelector's annotation."""

    name: str
    enforce: str
    node_selector: str = ""


@dataclass(frozen=True, slots=True)
class NodeFacts:
    """One node: whether it is of the control plane and keeps other pods away, and the kubelet's seccomp default.

    labels: kept where it does not keep them away, for exceptions.
    """

    name: str
    is_control_plane: bool
    is_tainted: bool
    seccomp_default: bool
    labels: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """A policy's pods and directions. selector: None where it cannot be read. metadata: its egress rules let the
    cloud's metadata address through."""

    selector: Selector | None
    types: frozenset[str]
    metadata: bool

    def selects(self, labels: Mapping[str, str]) -> bool | None:
        """Whether pods with these labels are among its pods; None where that is unknown."""
        return self.selector.matches(labels) if self.selector is not None else None


@dataclass(frozen=True, slots=True)
class Account:
    """A service account. automount: as written, None: not. owner: the chart or application that it belongs to."""

    automount: bool | None
    owner: str


@dataclass(frozen=True, slots=True)
class Webhook:
    """One webhook of a validating admission configuration."""

    name: str
    configuration: str
    ignores_failure: bool


@dataclass(frozen=True, slots=True)
class Token:
    """A Secret that is a token, by its metadata alone. created, last_used: epoch seconds, 0 if unknown or never."""

    namespace: str
    name: str
    account: str
    created: float
    last_used: float


@dataclass(slots=True)
class View:
    """The cluster. scope: the one namespace that was read, empty for all. problems: why a kind could not be read.

    counts: how many objects of each kind were read. metrics: of the API server, by name the samples' labels and value.
    user: who runs the audit; by_certificate: with a client certificate. flags: of the API server, as it parsed them.
    certificates: requests for client certificates that were signed, and who made them.
    """

    scope: str = ""
    now: float = 0.0
    problems: dict[str, str] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)
    version: str = ""
    user: str = ""
    by_certificate: bool = False
    flags: dict[str, str] = field(default_factory=dict)
    certificates: list[tuple[str, str]] = field(default_factory=list)
    groups: tuple[str, ...] = ()
    namespaces: dict[str, Namespace] = field(default_factory=dict)
    nodes: dict[str, NodeFacts] = field(default_factory=dict)
    workloads: dict[tuple[str, str, str], Workload] = field(default_factory=dict)
    roles: dict[tuple[str, str], Powers] = field(default_factory=dict)
    grants: list[Grant] = field(default_factory=list)
    accounts: dict[tuple[str, str], Account] = field(default_factory=dict)
    policies: dict[str, list[NetworkPolicy]] = field(default_factory=dict)
    other_policies: dict[str, int] = field(default_factory=dict)
    quotas: dict[str, set[str]] = field(default_factory=dict)
    memory_defaults: set[str] = field(default_factory=set)
    webhooks: list[Webhook] = field(default_factory=list)
    admission: dict[str, bool] = field(default_factory=dict)  # ValidatingAdmissionPolicy: a binding denies
    pod_policies: set[str] = field(default_factory=set)  # those of them that are about pods
    tokens: list[Token] = field(default_factory=list)
    bootstrap: list[Token] = field(default_factory=list)
    metrics: dict[str, list[tuple[Mapping[str, str], float]]] = field(default_factory=dict)

    @property
    def user_namespaces(self) -> list[Namespace]:
        """Those for workloads; `default` too where nothing runs in it: whoever may create pods can use it."""
        return [one for one in self.namespaces.values() if not is_system(one.name)]

    @property
    def user_workloads(self) -> list[Workload]:
        """Those outside of Kubernetes' own namespaces."""
        return [one for one in self.workloads.values() if not is_system(one.namespace)]

    def judged(self, kind: str) -> str:
        """How many of a kind were judged, as evidence."""
        match kind:
            case "pods":
                return f"{len(self.user_workloads):,} workloads outside kube-* ({self.counts[kind]:,} pods)"
            case "namespaces":
                return f"{len(self.user_namespaces):,} namespaces outside kube-*"
            case "clusterrolebindings":
                return f"{self.counts[kind] + self.counts['rolebindings']:,} bindings"
            case "user":
                return f"{len(self.certificates) + 1:,} credentials that are visible here"
            case "metrics":
                gates = self.metrics.get("kubernetes_feature_enabled", [])
                return f"{len(gates):,} feature gates and {len(self.groups):,} API versions"
            case _:
                return f"{self.counts[kind]:,} {kind}"

    def uncovered(self, workload: Workload) -> list[str]:
        """The directions, Ingress and Egress, in which some of its pods are selected by no NetworkPolicy."""
        if workload.more_labels:
            return ["Ingress", "Egress"]
        policies = self.policies.get(workload.namespace, [])
        return [
            way for way in ("Ingress", "Egress") if not all(
                any(way in one.types and one.selects(dict(labels)) for one in policies)
                for labels in workload.label_sets
            )
        ]  # fmt: skip

    def denies_metadata(self, workload: Workload) -> bool:
        """Whether NetworkPolicies keep all of its pods from the cloud's metadata address."""
        some = () if workload.more_labels else workload.label_sets
        return bool(some) and all(self._denies(workload.namespace, one) for one in some)

    def _denies(self, namespace: str, labels: Labels) -> bool:
        chosen = [(one.selects(dict(labels)), one.metadata)
                  for one in self.policies.get(namespace, []) if "Egress" in one.types]  # fmt: skip
        # What may be about the pod must not let it through; what denies it has to be.
        return any(selected for selected, _ in chosen) and not any(
            reaches for selected, reaches in chosen if selected is not False
        )


def policy(found: Mapping[str, Any]) -> NetworkPolicy:
    """A NetworkPolicy object. Source of the types' default: kubernetes pkg/apis/networking/v1/defaults.go."""
    spec = values.part(found, "spec")
    egress = values.mappings(spec.get("egress"))
    default = {"Ingress", "Egress"} if egress else {"Ingress"}
    types = frozenset(values.texts(spec.get("policyTypes")) or default)
    peers = [one.get("to") for one in egress]
    reaches = any(not to or any(map(_holds_metadata, to)) for to in peers if to is None or isinstance(to, list))
    return NetworkPolicy(_selector(spec.get("podSelector")), types, reaches)


def _selector(found: object) -> Selector | None:
    try:
        return Selector() if found is None else from_object(found)
    except ValueError:
        return None


def _holds_metadata(peer: object) -> bool:
    block = values.part(peer, "ipBlock") if isinstance(peer, dict) else {}
    return _within(block.get("cidr")) and not any(map(_within, values.texts(block.get("except"))))


def _within(cidr: object) -> bool:
    try:
        return isinstance(cidr, str) and _METADATA in ipaddress.ip_network(cidr, strict=False)
    except ValueError:
        return False
