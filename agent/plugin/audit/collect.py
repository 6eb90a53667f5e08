"""Reads the cluster page by page into the view. A kind that may not be read is noted, and the rest is read anyway.

About forty requests for five thousand pods: lists of 500, each page dropped before the next. Secrets are requested as
metadata alone, so that no value ever leaves the API server.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from agent.annotations import CHECKS
from agent.errors import KubeError, UsageError
from agent.kube import NAMESPACES, NODES, PODS, Kube, Resource
from agent.kube.errors import Forbidden, NoCredentials, NotFound, Unauthorized, Unreachable
from agent.kube.questions import FLAGZ
from agent.model import Status
from agent.plugin.audit import pods, rbac
from agent.plugin.audit.view import Account, Namespace, NodeFacts, Token, View, Webhook, policy
from agent.plugin.cluster import values
from agent.plugin.cluster.nodes import PAGE_SIZE, checks, silent_since
from agent.plugin.session import user_info
from agent.text import sanitize

_RBAC = "rbac.authorization.k8s.io"
_ADMISSION = "admissionregistration.k8s.io"
_SECRETS = Resource("", "v1", "secrets", "Secret")
_SECCOMP = "kubelet/4.2.14"
_CONTROL_PLANE = ("node-role.kubernetes.io/control-plane", "node-role.kubernetes.io/master")
_KEEPS_AWAY = ("NoSchedule", "NoExecute")
_FLAGZ_SECONDS = 5.0
_OPTIONAL = ("API server flags", "metrics")
_CLIENT_SIGNER = "kubernetes.io/kube-apiserver-client"
# A view of more than this is not kept: the check is unknown, with the number as the reason.
LIMIT = 100_000
_METRICS_BYTES = 64 << 20
_METRICS = frozenset({
    "apiserver_audit_event_total", "apiserver_storage_transformation_operations_total", "kubernetes_feature_enabled",
    "authenticated_user_requests", "apiserver_request_total",
})  # fmt: skip
_SAMPLE = re.compile(
    rb"([a-z_]+)(?:\{([^}]*)\})? ([0-9]{1,15}(?:\.[0-9]{1,15})?(?:e[+-]?[0-9]{1,2})?)(?: -?[0-9]+)?\s*"
)
_LABEL = re.compile(r'([a-z_]+)="((?:[^"\\]|\\.)*)"')
_OTHER_POLICIES = (
    Resource("policy.networking.k8s.io", "v1alpha1", "adminnetworkpolicies", "AdminNetworkPolicy", namespaced=False),
    Resource("policy.networking.k8s.io", "v1alpha2", "clusternetworkpolicies", "ClusterNetworkPolicy",
             namespaced=False),
    Resource("cilium.io", "v2", "ciliumclusterwidenetworkpolicies", "CiliumClusterwideNetworkPolicy", namespaced=False),
    Resource("cilium.io", "v2", "ciliumnetworkpolicies", "CiliumNetworkPolicy"),
    Resource("crd.projectcalico.org", "v1", "globalnetworkpolicies", "GlobalNetworkPolicy", namespaced=False),
    Resource("crd.projectcalico.org", "v1", "networkpolicies", "calico NetworkPolicy"),
)  # fmt: skip
Object = Mapping[str, Any]
Progress = Callable[[str, int, int | None], None]


@dataclass(frozen=True, slots=True)
class Kind:
    """What is listed, in this order, and how an object enters the view."""

    name: str
    resource: Resource
    keep: Callable[[View, Object], None]
    field_selector: str = ""
    namespace: str = ""
    metadata_only: bool = False


def collect(kube: Kube, view: View, progress: Progress) -> None:
    """Fills the view; its `scope` decides which namespace. Raises what would fail every further request too."""
    for name, read in _READS.items():
        _noting(view, name, partial(read, kube, view))
    for kind in KINDS:
        _noting(view, kind.name, partial(_list, kube, view, kind, progress))
    for resource in _OTHER_POLICIES:
        if resource.api_version in view.groups:
            other = Kind(resource.kind, resource, _other_policy)
            _noting(view, "other policies", partial(_list, kube, view, other, progress))
    _noting(view, "metrics", partial(_metrics, kube, view))


def _noting(view: View, name: str, read: Callable[[], None]) -> None:
    try:
        read()
    except Forbidden:
        view.problems[name] = f"{name} may not be read with these rights"
    except NotFound:
        view.problems[name] = f"{name} are not served by this cluster"
    except KubeError as error:
        # A server that is away fails every further request too; what only some serve need not be there.
        if isinstance(error, Unreachable | Unauthorized | NoCredentials) and name not in _OPTIONAL:
            raise
        view.problems[name] = f"{name}: {values.text(str(error), 200)}"


def _list(kube: Kube, view: View, kind: Kind, progress: Progress) -> None:
    if view.scope and kind.name == "namespaces":
        # Whoever works in one namespace may rarely list all of them.
        try:
            kind.keep(view, kube.get(NAMESPACES, view.scope))
        except NotFound as error:
            raise UsageError(f"there is no namespace {view.scope!r}: kubectl get namespaces lists them") from error
        view.counts[kind.name] = 1
        return
    namespace = kind.namespace or (view.scope if kind.resource.namespaced else "")
    listing = kube.list(
        kind.resource, namespace, field_selector=kind.field_selector, page_size=PAGE_SIZE,
        metadata_only=kind.metadata_only,
    )  # fmt: skip
    done = 0
    for page in listing.pages():
        done += len(page)
        progress(kind.name, done, None if listing.remaining is None else done + listing.remaining)
        if done > LIMIT:
            view.problems[kind.name] = f"more than {LIMIT:,} {kind.name}; audit one namespace at a time: -n NAME"
            return
        page.reverse()
        while page:
            kind.keep(view, page.pop())
    view.counts[kind.name] = view.counts.get(kind.name, 0) + done


def _version(kube: Kube, view: View) -> None:
    found = kube.get_raw("/version")
    view.version = values.text(found.get("gitVersion"), 60)


def _user(kube: Kube, view: View) -> None:
    """Who runs the audit, and whether with a certificate. Source: KEP-4605, credential-id of X.509."""
    found = user_info(kube)
    view.user = values.text(found.get("username"), 253)
    ids = values.texts(values.part(found, "extra").get("authentication.kubernetes.io/credential-id"))
    view.by_certificate = any(one.startswith("X509SHA256=") for one in ids)
    if not view.user:
        view.problems["user"] = "the API server does not answer who runs this audit"


def _flags(kube: Kube, view: View) -> None:
    """Source: KEP-4828. Few serve it, so it is not waited for as for what all do."""
    found = kube.within(_FLAGZ_SECONDS).get_raw("/flagz", accept=FLAGZ)
    flags = values.part(found, "flags")
    view.flags = {values.text(key, 120): values.text(value, 253) for key, value in list(flags.items())[:1000]}


def _groups(kube: Kube, view: View) -> None:
    found = kube.get_raw("/apis")
    view.groups = tuple(
        values.text(version.get("groupVersion"), 120)
        for group in values.mappings(found.get("groups"))
        for version in values.mappings(group.get("versions"))
    )


def _metrics(kube: Kube, view: View) -> None:
    """The few that are needed, from a text of any size: it is read line by line and dropped."""
    size = 0
    for line in kube.get_lines("/metrics"):
        size += len(line)
        if size > _METRICS_BYTES:
            view.problems["metrics"] = f"metrics are more than {_METRICS_BYTES >> 20} MiB"
            return
        if (found := _SAMPLE.fullmatch(line)) and (name := found[1].decode()) in _METRICS:
            labels = dict(_LABEL.findall((found[2] or b"").decode(errors="replace")))
            kept = view.metrics.setdefault(name, [])
            if len(kept) < (1 if name == "apiserver_request_total" else 5000):
                kept.append((labels, float(found[3])))
    if "apiserver_request_total" not in view.metrics:
        view.problems["metrics"] = "metrics are not an API server's"


# -- one object of each kind -------------------------------------------------------------------------------------------


def _meta(found: Object, key: str, characters: int = 253) -> str:
    return sys.intern(values.text(values.part(found, "metadata").get(key), characters))


def _label(found: Object, key: str, part: str = "labels") -> str:
    return values.text(values.part(values.part(found, "metadata"), part).get(key), 120)


def _namespace(view: View, found: Object) -> None:
    name = _meta(found, "name")
    enforce = _label(found, "pod-security.kubernetes.io/enforce")
    selector = _label(found, "scheduler.alpha.kubernetes.io/node-selector", "annotations")
    view.namespaces[name] = Namespace(name, enforce, selector)


def _node(view: View, found: Object) -> None:
    name, labels = _meta(found, "name"), values.part(values.part(found, "metadata"), "labels")
    taints = values.mappings(values.part(found, "spec").get("taints"))
    is_tainted = any(one.get("key") in _CONTROL_PLANE and one.get("effect") in _KEEPS_AWAY for one in taints)
    note = values.part(values.part(found, "metadata"), "annotations").get(CHECKS)
    is_current = isinstance(note, str) and not silent_since(found)
    passed = {one.id for one in checks(note) if one.status is Status.PASS} if is_current else ()
    is_control_plane = any(key in labels for key in _CONTROL_PLANE)
    kept = {} if is_tainted or not is_control_plane else {key: values.text(value, 63) for key, value in labels.items()}
    view.nodes[name] = NodeFacts(name, is_control_plane, is_tainted, _SECCOMP in passed, kept)


def _pod(view: View, found: Object) -> None:
    key = pods.owner(found)
    workload = view.workloads.setdefault(key, pods.Workload(*key))
    node = view.nodes.get(values.text(values.part(found, "spec").get("nodeName"), 253))
    pods.add(workload, found, seccomp_default=node is not None and node.seccomp_default)


def _role(view: View, found: Object) -> None:
    view.roles[_meta(found, "namespace"), _meta(found, "name")] = rbac.powers_of(found)


def _binding(view: View, found: Object) -> None:
    view.grants += rbac.grants(found, view.roles)
    if len(view.grants) > LIMIT:
        view.problems["rolebindings"] = f"bindings have more than {LIMIT:,} subjects; audit one namespace: -n NAME"
        del view.grants[LIMIT:]


def _account(view: View, found: Object) -> None:
    automount = found.get("automountServiceAccountToken")
    chart = _label(found, "helm.sh/chart") or _label(found, "app.kubernetes.io/name")
    owner = chart or _label(found, "meta.helm.sh/release-name", "annotations")
    key = (_meta(found, "namespace"), _meta(found, "name"))
    view.accounts[key] = Account(automount if isinstance(automount, bool) else None, sys.intern(owner))


def _policy(view: View, found: Object) -> None:
    view.policies.setdefault(_meta(found, "namespace"), []).append(policy(found))


def _other_policy(view: View, found: Object) -> None:
    kind = values.text(found.get("kind"), 80) or "policy of another API"
    view.other_policies[kind] = view.other_policies.get(kind, 0) + 1


def _quota(view: View, found: Object) -> None:
    spec = values.part(found, "spec")
    if not spec.get("scopes") and not spec.get("scopeSelector"):  # a scoped one leaves other pods unlimited
        kept = view.quotas.setdefault(_meta(found, "namespace"), set())
        kept.update(sys.intern(values.text(key, 120)) for key in values.part(spec, "hard"))


def _limits(view: View, found: Object) -> None:
    for one in values.mappings(values.part(found, "spec").get("limits")):
        if one.get("type") == "Container" and "memory" in values.part(one, "default"):
            view.memory_defaults.add(_meta(found, "namespace"))


def _webhook(view: View, found: Object) -> None:
    for one in values.mappings(found.get("webhooks")):
        name = values.text(one.get("name"), 253)
        view.webhooks.append(Webhook(name, _meta(found, "name"), one.get("failurePolicy") == "Ignore"))


def _certificate(view: View, found: Object) -> None:
    spec = values.part(found, "spec")
    if spec.get("signerName") == _CLIENT_SIGNER and values.part(found, "status").get("certificate"):
        view.certificates.append((_meta(found, "name"), values.text(spec.get("username"), 253)))


def _admission_policy(view: View, found: Object) -> None:
    name = _meta(found, "name")
    view.admission.setdefault(name, False)
    rules = values.mappings(values.part(values.part(found, "spec"), "matchConstraints").get("resourceRules"))
    if any({"pods", "*"}.intersection(values.texts(rule.get("resources"))) for rule in rules):
        view.pod_policies.add(name)


def _admission_binding(view: View, found: Object) -> None:
    spec = values.part(found, "spec")
    name = values.text(spec.get("policyName"), 253)
    if name in view.admission and "Deny" in values.texts(spec.get("validationActions")):
        view.admission[name] = True


def _token(kept: list[Token], found: Object) -> None:
    # A date alone: the day on which it was last used.
    used = _label(found, "kubernetes.io/legacy-token-last-used")
    kept.append(Token(
        _meta(found, "namespace"), _meta(found, "name"),
        sanitize(_label(found, "kubernetes.io/service-account.name", "annotations"), 80),
        values.timestamp(_meta(found, "creationTimestamp")), values.timestamp(f"{used}T00:00:00Z" if used else 0),
    ))  # fmt: skip


KINDS: tuple[Kind, ...] = (
    Kind("namespaces", NAMESPACES, _namespace),
    Kind("nodes", NODES, _node),  # before pods: a pod's seccomp default is its node's
    Kind("pods", PODS, _pod),
    Kind("clusterroles", Resource(_RBAC, "v1", "clusterroles", "ClusterRole", namespaced=False), _role),
    Kind("roles", Resource(_RBAC, "v1", "roles", "Role"), _role),
    Kind("clusterrolebindings", Resource(_RBAC, "v1", "clusterrolebindings", "ClusterRoleBinding", namespaced=False),
         _binding),
    Kind("rolebindings", Resource(_RBAC, "v1", "rolebindings", "RoleBinding"), _binding),
    Kind("serviceaccounts", Resource("", "v1", "serviceaccounts", "ServiceAccount"), _account),
    Kind("networkpolicies", Resource("networking.k8s.io", "v1", "networkpolicies", "NetworkPolicy"), _policy),
    Kind("resourcequotas", Resource("", "v1", "resourcequotas", "ResourceQuota"), _quota),
    Kind("limitranges", Resource("", "v1", "limitranges", "LimitRange"), _limits),
    Kind("validating webhooks",
         Resource(_ADMISSION, "v1", "validatingwebhookconfigurations", "ValidatingWebhookConfiguration",
                  namespaced=False),
         _webhook),
    Kind("admission policies",
         Resource(_ADMISSION, "v1", "validatingadmissionpolicies", "ValidatingAdmissionPolicy", namespaced=False),
         _admission_policy),
    Kind("admission policy bindings",
         Resource(_ADMISSION, "v1", "validatingadmissionpolicybindings", "ValidatingAdmissionPolicyBinding",
                  namespaced=False),
         _admission_binding),
    Kind("certificate requests",
         Resource("certificates.k8s.io", "v1", "certificatesigningrequests", "CertificateSigningRequest",
                  namespaced=False), _certificate),
    Kind("service account tokens", _SECRETS, lambda view, found: _token(view.tokens, found),
         "type=kubernetes.io/service-account-token", metadata_only=True),
    Kind("bootstrap tokens", _SECRETS, lambda view, found: _token(view.bootstrap, found),
         "type=bootstrap.kubernetes.io/token", "kube-system", metadata_only=True),
)  # fmt: skip

_READS: Mapping[str, Callable[[Kube, View], None]] = {
    "version": _version, "groups": _groups, "user": _user, "API server flags": _flags,
}  # fmt: skip
# What a check may need.
NAMES: tuple[str, ...] = (*(kind.name for kind in KINDS), *_READS, "metrics", "other policies")
