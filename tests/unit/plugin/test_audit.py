"""The audit's pure parts: RBAC as the API server evaluates it, owners, selectors, and checks over a made-up view."""

from __future__ import annotations

import io
from dataclasses import replace
from typing import Any

import pytest

from agent.config.schema import AuditException, Pool
from agent.model import Report, Severity, Status
from agent.plugin.audit import collect, pods, rbac, view
from agent.plugin.audit.audit import CHECKS, judged
from agent.plugin.audit.check import KEPT
from agent.plugin.audit.node_reports import merged, report_of
from agent.plugin.audit.pods import Workload
from agent.plugin.audit.titles import title_of
from agent.plugin.audit.view import Token, View, Webhook
from agent.plugin.cluster.nodes import Keep, row
from agent.plugin.views.progress import Progress
from agent.report import benchmark
from tests.support.known_checks import known
from tests.support.plugin_fleet import SCENES

Object = dict[str, Any]
NOW = 1_800_000_000.0


def whole(**changes: Any) -> View:
    """A view in which everything was read, and nothing is there."""
    counts = dict.fromkeys(collect.NAMES, 0)
    metrics = {"kubernetes_feature_enabled": [({"name": "A", "stage": ""}, 1.0)]}
    return View(now=NOW, counts=counts, **{"version": "v1.36.2", "metrics": metrics, **changes})


def result(name: str, of: View) -> tuple[Status, str]:
    (found,) = [one.finding for one in judged(of, "c", ()).results if one.finding.id == f"cluster/{name}"]
    return found.status, found.observed


# -- RBAC --------------------------------------------------------------------------------------------------------------


def role(**rule: Any) -> frozenset[str]:
    return rbac.powers_of({"metadata": {"name": "r"}, "rules": [rule]})


@pytest.mark.parametrize(
    ("rule", "power", "has"),
    [
        ({"apiGroups": [""], "resources": ["*"], "verbs": ["get"]}, rbac.SECRETS, True),
        ({"apiGroups": ["*"], "resources": ["secrets"], "verbs": ["watch"]}, rbac.SECRETS, True),
        ({"apiGroups": ["apps"], "resources": ["secrets"], "verbs": ["*"]}, rbac.SECRETS, False),
        ({"apiGroups": [""], "resources": ["secrets"], "verbs": ["create"]}, rbac.SECRETS, False),
        ({"apiGroups": [""], "resources": ["secrets"], "verbs": ["get"], "resourceNames": ["a"]}, rbac.SECRETS, False),
        ({"apiGroups": [""], "resources": ["*"], "verbs": ["get"]}, rbac.NODE_PROXY, True),
        ({"apiGroups": [""], "resources": ["nodes"], "verbs": ["*"]}, rbac.NODE_PROXY, False),
        ({"apiGroups": [""], "resources": ["nodes/*"], "verbs": ["*"]}, rbac.NODE_PROXY, False),
        ({"apiGroups": ["authentication.k8s.io"], "resources": ["userextras/scopes"], "verbs": ["impersonate"]},
         rbac.ESCALATE, True),
        ({"apiGroups": ["authentication.k8s.io"], "resources": ["uids"], "verbs": ["impersonate:user-info"]},
         rbac.ESCALATE, True),
        ({"apiGroups": [""], "resources": ["users"], "verbs": ["*"]}, rbac.ESCALATE, True),
        ({"apiGroups": ["authentication.k8s.io"], "resources": ["users"], "verbs": ["impersonate:user-info"]},
         rbac.ESCALATE, True),
        ({"apiGroups": ["authentication.k8s.io"], "resources": ["users"], "verbs": ["impersonate"]}, rbac.ESCALATE,
         False),
        ({"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list"]}, rbac.ADMIN, False),
        ({"apiGroups": ["*"], "resources": ["*"], "verbs": ["*"]}, rbac.ADMIN, True),
        ({"nonResourceURLs": ["/healthz/*", "/version"], "verbs": ["get"]}, rbac.PUBLIC, True),
        ({"nonResourceURLs": ["/*"], "verbs": ["get"]}, rbac.PUBLIC, False),
        ({"nonResourceURLs": ["/metrics"], "verbs": ["get"]}, rbac.DISCOVERY, False),
        ({"nonResourceURLs": ["/healthz"], "verbs": ["*"]}, rbac.PUBLIC, False),
        ({"nonResourceURLs": ["/apis/*"], "verbs": ["get"]}, rbac.DISCOVERY, True),
        ({"nonResourceURLs": ["/apis/*"], "verbs": ["get"]}, rbac.PUBLIC, False),
        ({"apiGroups": ["authorization.k8s.io"], "resources": ["selfsubjectaccessreviews"], "verbs": ["create"]},
         rbac.DISCOVERY, True),
        ({"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["cluster-info"], "verbs": ["get"]},
         rbac.PUBLIC, True),
        ({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}, rbac.PUBLIC, False),
        # kubeadm's roles for nodes that join.
        ({"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests"],
          "verbs": ["create", "get", "list", "watch"]}, rbac.JOIN, True),
        ({"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests/nodeclient"],
          "verbs": ["create"]}, rbac.JOIN, True),
        ({"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["kubeadm-config"], "verbs": ["get"]},
         rbac.JOIN, True),
        ({"apiGroups": [""], "resources": ["nodes"], "verbs": ["get"]}, rbac.JOIN, True),
        ({"apiGroups": [""], "resources": ["secrets"], "resourceNames": ["kubeadm-certs"], "verbs": ["get"]},
         rbac.JOIN, True),
        ({"apiGroups": [""], "resources": ["configmaps"], "verbs": ["get"]}, rbac.JOIN, False),
        ({"apiGroups": [""], "resources": ["nodes"], "verbs": ["patch"]}, rbac.JOIN, False),
        ({"apiGroups": ["certificates.k8s.io"], "resources": ["certificatesigningrequests/approval"],
          "verbs": ["update"]}, rbac.JOIN, False),
        ({"resources": "secrets", "verbs": 7, "apiGroups": None}, rbac.SECRETS, False),
        # The empty name is what list and create ask for; and one group, role or webhook by name can be enough.
        ({"apiGroups": [""], "resources": ["secrets"], "verbs": ["list"], "resourceNames": [""]}, rbac.SECRETS, True),
        ({"apiGroups": [""], "resources": ["groups"], "verbs": ["impersonate"], "resourceNames": ["system:masters"]},
         rbac.ESCALATE, True),
        ({"apiGroups": ["rbac.authorization.k8s.io"], "resources": ["clusterroles"], "verbs": ["bind"],
          "resourceNames": ["cluster-admin"]}, rbac.ESCALATE, True),
        ({"apiGroups": ["admissionregistration.k8s.io"], "resources": ["mutatingwebhookconfigurations"],
          "verbs": ["patch"], "resourceNames": ["injector"]}, rbac.WEBHOOKS, True),
        ({"apiGroups": [""], "resources": ["configmaps"], "resourceNames": ["cluster-info"], "verbs": ["update"]},
         rbac.PUBLIC, False),
    ],
)  # fmt: skip
def test_a_rule_lets_what_the_api_server_says_it_lets(rule: Object, power: str, has: bool) -> None:
    """Source: kubernetes pkg/apis/rbac/v1/evaluation_helpers.go."""
    assert (power in role(**rule)) is has


def test_one_harmless_rule_does_not_make_a_role_harmless() -> None:
    """PUBLIC and DISCOVERY are about all rules of a role."""
    rules = [{"nonResourceURLs": ["/version"], "verbs": ["get"]}, {"nonResourceURLs": ["/debug/*"], "verbs": ["get"]}]
    assert rbac.PUBLIC not in rbac.powers_of({"metadata": {"name": "r"}, "rules": rules})


def test_kubernetes_own_bindings_are_no_findings_and_their_names_protect_no_one_else() -> None:
    """A subject is Kubernetes' own, or kubeadm's group in kubeadm's binding; the name of a binding is nothing."""
    roles = {("", "cluster-admin"): frozenset({rbac.ADMIN})}

    def bound(name: str, kind: str, who: str) -> list[rbac.Grant]:
        reference = {"kind": "ClusterRole", "name": "cluster-admin"}
        subject = {"kind": kind, "name": who, "namespace": "kube-system"}
        return list(rbac.grants({"metadata": {"name": name}, "roleRef": reference, "subjects": [subject]}, roles))

    of = whole(grants=[
        *bound("cluster-admin", "Group", "system:masters"), *bound("kubeadm:cluster-admins", "Group",
                                                                  "kubeadm:cluster-admins"),
        *bound("system:evil", "User", "eve"), *bound("kubeadm:cluster-admins", "User", "kubeadm:other"),
        *bound("tiller", "ServiceAccount", "tiller"), *bound("x", "User", "system:authenticated"),
        *bound("y", "Group", "system:serviceaccounts"), *bound("z", "ServiceAccount", "cronjob-controller"),
    ])  # fmt: skip
    found = {one.finding.id: one for one in judged(of, "c", ()).results}["cluster/cluster-admin"]
    assert {one.subject for one in found.affected} == {
        "User eve", "User kubeadm:other", "ServiceAccount kube-system/tiller", "User system:authenticated",
        "Group system:serviceaccounts", "ServiceAccount kube-system/cronjob-controller",
    }  # fmt: skip


def granted(subject: Object, powers: set[str], *, namespace: str = "", role: str = "r") -> list[rbac.Grant]:
    """A binding of a role with these powers, in a namespace or in the whole cluster."""
    known = {("", role): frozenset(powers)}
    bound = {"metadata": {"name": "b", "namespace": namespace}, "roleRef": {"kind": "ClusterRole", "name": role},
             "subjects": [subject]}  # fmt: skip
    return list(rbac.grants(bound, known))


def test_an_administrator_of_one_namespace_is_in_every_check_that_is_about_it() -> None:
    """Bindings of the whole cluster are listed once; a RoleBinding of cluster-admin in kube-system is none of them."""
    everything = {rbac.ADMIN, rbac.WILDCARD, rbac.SECRETS, rbac.WORKLOADS, rbac.ESCALATE, rbac.NODE_PROXY}
    of = whole(grants=granted({"kind": "User", "name": "eve"}, everything, namespace="kube-system"))
    found = {one.finding.id for one in judged(of, "c", ()).results if one.affected}
    assert {f"cluster/{name}" for name in ("wildcards", "secrets-readers", "escalation", "kube-pods")} <= found
    # Nodes are in no namespace: a RoleBinding does not reach them.
    assert "cluster/node-proxy" not in found


@pytest.mark.parametrize(
    ("kind", "name", "role", "powers"),
    [
        ("Group", "system:nodes", "cluster-admin", {rbac.ADMIN}),
        ("Group", "system:nodes", "system:node", {rbac.SECRETS}),
        ("User", "system:kube-scheduler", "cluster-admin", {rbac.ADMIN}),
        ("User", "system:kube-proxy", "reader", {rbac.SECRETS}),
        ("User", "system:masters", "cluster-admin", {rbac.ADMIN}),
        ("User", "system:node:worker-1", "reader", {rbac.SECRETS}),
    ],
)
def test_a_component_has_its_own_role_and_no_other(kind: str, name: str, role: str, powers: set[str]) -> None:
    """Every kubelet as administrator is a finding, whatever Kubernetes calls the group."""
    of = whole(grants=granted({"kind": kind, "name": name}, powers, role=role))
    assert "fail" in {result("cluster-admin", of)[0], result("secrets-readers", of)[0]}


def test_what_is_bound_to_administrators_besides_gives_them_nothing() -> None:
    """system:masters passes every authorizer: another binding of theirs is no finding, and is named where they are."""
    of = whole(grants=granted({"kind": "Group", "name": "system:masters"}, {rbac.ADMIN}))
    assert result("cluster-admin", of)[0] is Status.PASS
    assert "ClusterRoleBinding b" in result("masters", of)[1]


@pytest.mark.parametrize("group", ["system:serviceaccounts", "system:serviceaccounts:shop"])
def test_a_right_of_all_service_accounts_is_one_of_the_default_ones(group: str) -> None:
    """What the API server binds to them itself, the issuer's public keys, is not."""
    subject = {"kind": "Group", "name": group}
    assert result("default-accounts", whole(grants=granted(subject, set())))[0] is Status.FAIL
    assert result("default-accounts", whole(grants=granted(subject, {rbac.DISCOVERY})))[0] is Status.PASS


# -- pods --------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path", ["//etc/kubernetes", "/./etc", "/" + "./" * 80 + "root/.ssh", "/lib64", "/var/spool/cron"]
)
def test_a_path_of_the_node_is_one_however_it_is_written(path: str) -> None:
    """The API server refuses `..` and nothing else."""
    one = Workload("n", "Pod", "p")
    pods.add(one, {"spec": {"volumes": [{"name": "v", "hostPath": {"path": path}}]}}, seccomp_default=True)
    assert "hostPath-sensitive" in one.flags


def test_pods_of_one_owner_with_countless_labels_are_not_called_covered() -> None:
    """Whatever does not fit is not judged, and said to be so."""
    one = Workload("a", "Job", "j")
    for number in range(300):
        pods.add(one, {"metadata": {"labels": {"n": str(number)}}, "spec": {}}, seccomp_default=True)
    every = view.policy({"spec": {"podSelector": {"matchExpressions": [{"key": "n", "operator": "Exists"}]},
                                  "policyTypes": ["Ingress", "Egress"]}})  # fmt: skip
    status, observed = result("network-policies", whole(workloads={("a", "Job", "j"): one}, policies={"a": [every]}))
    assert (status, "more sets of labels" in observed) == (Status.FAIL, True)


@pytest.mark.parametrize(
    ("owner", "labels", "expected"),
    [
        ({"kind": "ReplicaSet", "name": "web-7d"}, {"pod-template-hash": "7d"}, ("Deployment", "web")),
        ({"kind": "ReplicaSet", "name": "web-7d"}, {}, ("ReplicaSet", "web-7d")),
        ({"kind": "Job", "name": "nightly-28900000"}, {}, ("CronJob", "nightly")),
        ({"kind": "Job", "name": "import-2"}, {}, ("Job", "import-2")),
        ({"kind": "Node", "name": "cp-1"}, {}, ("static Pod", "kube-apiserver")),
        ({"kind": "DaemonSet", "name": "agent"}, {}, ("DaemonSet", "agent")),
        ({}, {}, ("Pod", "kube-apiserver-cp-1")),
    ],
)
def test_a_pod_belongs_to_what_made_it(owner: Object, labels: Object, expected: tuple[str, str]) -> None:
    """Without a request for the ReplicaSet or the Job."""
    owners = [{**owner, "controller": True}] if owner else []
    meta = {"namespace": "n", "name": "kube-apiserver-cp-1", "labels": labels, "ownerReferences": owners}
    assert pods.owner({"metadata": meta}) == ("n", *expected)


@pytest.mark.parametrize("default", [True, False])
def test_a_pod_without_a_profile_has_its_kubelets_default(default: bool) -> None:
    """What the agent of its node verified; without an agent there is none."""
    one = Workload("n", "Pod", "p")
    pods.add(one, {"spec": {"containers": [{"name": "c"}]}}, seccomp_default=default)
    assert ("seccomp" in one.flags) is not default


def test_countless_subjects_are_unknown_rather_than_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """One binding of a megabyte names tens of thousands."""
    monkeypatch.setattr(collect, "LIMIT", 10)
    of = whole()
    subjects = [{"kind": "User", "name": f"u{number}"} for number in range(50)]
    collect._binding(of, {"metadata": {"name": "b"}, "roleRef": {"kind": "ClusterRole", "name": "r"},
                          "subjects": subjects})  # fmt: skip
    assert len(of.grants) == 10
    assert result("groups", of)[0] is Status.UNKNOWN


def test_hundreds_of_thousands_of_objects_keep_their_count_and_not_their_names() -> None:
    """Whatever a cluster is like, a check keeps so many objects and counts the others."""
    loads = {("n", "Pod", f"p{number}"): Workload("n", "Pod", f"p{number}", {"hostPID": ("x",)})
             for number in range(KEPT + 500)}  # fmt: skip
    found = {one.finding.id: one for one in judged(whole(workloads=loads), "c", ()).results}["cluster/host-pid"]
    assert (len(found.affected), found.total) == (KEPT, KEPT + 500)
    assert "500 not listed" in found.finding.observed
    accepted = (AuditException(id="cluster/host-pid", reason="r", owner="o", expires="2099-01-01"),)
    found = {one.finding.id: one for one in judged(whole(workloads=loads), "c", accepted).results}["cluster/host-pid"]
    assert (len(found.excepted), found.document()["exceptedTotal"]) == (KEPT, KEPT + 500)
    assert "; 1,500 excepted until" in found.finding.observed


def test_a_network_policy_whose_selector_cannot_be_read_passes_nothing() -> None:
    """It covers no pod, and what it allows may be allowed to every pod: another one that denies is not enough."""
    pod = Workload("n", "Pod", "p", label_sets={frozenset({("a", "b")})})
    denies = {"spec": {"podSelector": {}, "policyTypes": ["Egress"]}}
    allows = {"spec": {"podSelector": {"matchExpressions": [7]}, "policyTypes": ["Egress"], "egress": [{}]}}
    unreadable: tuple[Any, ...] = ({"matchExpressions": [7]}, [], {"matchLabels": {"a": 7}}, {"matchLabel": {}})
    for selector in unreadable:
        unread = view.policy({"spec": {"podSelector": selector, "policyTypes": ["Ingress", "Egress"]}})
        assert whole(policies={pod.namespace: [unread]}).uncovered(pod) == ["Ingress", "Egress"]
    assert whole(policies={pod.namespace: [view.policy(denies)]}).denies_metadata(pod)
    assert not whole(policies={pod.namespace: [view.policy(denies), view.policy(allows)]}).denies_metadata(pod)


@pytest.mark.parametrize(
    ("egress", "reaches"),
    [
        ([], False),
        ([{}], True),
        ([{"to": []}], True),
        ([{"to": [{"ipBlock": {"cidr": "0.0.0.0/0"}}]}], True),
        ([{"to": [{"ipBlock": {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}}]}], False),
        ([{"to": [{"ipBlock": {"cidr": "10.0.0.0/8"}}, {"podSelector": {}}]}], False),
    ],
)
def test_a_policy_lets_the_metadata_address_through_or_not(egress: list[Object], reaches: bool) -> None:
    """By its address blocks; pods and namespaces are not it."""
    spec = {"podSelector": {}, "policyTypes": ["Egress"], "egress": egress}
    assert view.policy({"spec": spec}).metadata is reaches


# -- what only some clusters show --------------------------------------------------------------------------------------

_BARE = {("a", "Pod", "p"): Workload("a", "Pod", "p", label_sets={frozenset()})}
_JOINING = {"kind": "Group", "name": "system:bootstrappers:kubeadm:default-node-token"}
_HOST: dict[str, tuple[str, ...]] = {"hostNetwork": ("",)}
_WRITTEN = "apiserver_storage_transformation_operations_total"


def written(*prefixes: str) -> Object:
    label = {"transformation_type": "to_storage", "status": "OK", "resource": "secrets"}
    return {_WRITTEN: [({**label, "transformer_prefix": prefix}, 3.0) for prefix in prefixes]}


@pytest.mark.parametrize(
    ("changes", "check", "status"),
    [
        ({"metrics": {}}, "encryption-at-rest", Status.FAIL),
        ({"metrics": written("k8s:enc:aescbc:v1:")}, "encryption-at-rest", Status.PASS),
        ({"metrics": written("k8s:enc:aescbc:v1:", "")}, "encryption-at-rest", Status.FAIL),
        ({"metrics": {_WRITTEN: [({"transformation_type": "from_storage"}, 1.0)]}}, "encryption-at-rest",
         Status.UNKNOWN),
        ({"metrics": {_WRITTEN: [({"transformation_type": "to_storage", "transformer_prefix": "k8s:enc:aescbc:v1:"},
                                  1.0)]}}, "encryption-at-rest", Status.UNKNOWN),
        ({"metrics": {_WRITTEN: [({"transformation_type": "to_storage", "transformer_prefix": "k8s:enc:aescbc:v1:",
                                   "resource": "configmaps"}, 1.0)]}}, "encryption-at-rest", Status.UNKNOWN),
        ({"metrics": {}, "version": "v1.35.1-gke.100"}, "encryption-at-rest", Status.UNKNOWN),
        ({"problems": {"metrics": "no"}}, "encryption-at-rest", Status.UNKNOWN),
        ({"metrics": {}}, "audit-events", Status.UNKNOWN),
        ({"metrics": {"apiserver_audit_event_total": [({}, 0.0)]}}, "audit-events", Status.FAIL),
        ({"metrics": {"apiserver_audit_event_total": [({}, 9.0)]}}, "audit-events", Status.PASS),
        ({"metrics": {}}, "alpha-features", Status.UNKNOWN),
        ({"metrics": {"kubernetes_feature_enabled": [({"name": "A", "stage": "ALPHA"}, 1.0)]}}, "alpha-features",
         Status.FAIL),
        ({"groups": ("apps/v1", "crd.example/v1alpha1")}, "alpha-features", Status.PASS),
        ({"groups": ("resource.k8s.io/v1alpha3",)}, "alpha-features", Status.FAIL),
        ({"groups": ("policy.networking.k8s.io/v1alpha1", "snapshot.storage.k8s.io/v1alpha1")}, "alpha-features",
         Status.PASS),
        ({"metrics": {"authenticated_user_requests": [({"username": "admin"}, 2.0)]}}, "static-users", Status.INFO),
        ({}, "network-engine", Status.UNKNOWN),
        ({"workloads": {("k", "DaemonSet", "cilium"): Workload("k", "DaemonSet", "cilium", _HOST)}},
         "network-engine", Status.PASS),
        ({"workloads": {("k", "DaemonSet", "cilium"): Workload("k", "DaemonSet", "cilium")}}, "network-engine",
         Status.UNKNOWN),
        ({"workloads": {("k", "DaemonSet", "aws-node"): Workload("k", "DaemonSet", "aws-node", _HOST)}},
         "network-engine", Status.UNKNOWN),
        ({"workloads": {("k", "DaemonSet", "kube-flannel-ds"): Workload("k", "DaemonSet", "kube-flannel-ds")}},
         "network-engine", Status.FAIL),
        ({}, "webhook-failures", Status.NOT_APPLICABLE),
        ({"webhooks": [Webhook("b", "b", False)]}, "webhook-failures",
         Status.PASS),
        ({"webhooks": [Webhook("b", "b", True)]}, "webhook-failures", Status.FAIL),
        ({}, "admission-policies", Status.NOT_APPLICABLE),
        ({"admission": {"a": False}}, "admission-policies", Status.INFO),
        ({"user": "alice", "by_certificate": True}, "certificate-users", Status.FAIL),
        ({"user": "system:node:a", "by_certificate": True}, "certificate-users", Status.INFO),
        ({"user": "alice", "certificates": [("csr-1", "bob")]}, "certificate-users", Status.FAIL),
        ({"user": "alice"}, "certificate-users", Status.INFO),
        ({"user": "alice", "problems": {"certificate requests": "no"}}, "certificate-users", Status.UNKNOWN),
        ({"user": "alice", "by_certificate": True, "problems": {"certificate requests": "no"}}, "certificate-users",
         Status.FAIL),
        ({"problems": {"user": "no"}}, "certificate-users", Status.UNKNOWN),
        ({"user": "alice", "flags": {"client-ca-file": ""}}, "certificate-users", Status.PASS),
        ({"user": "alice", "flags": {"client-ca-file": "/ca.crt"}}, "certificate-users", Status.INFO),
        ({"tokens": [Token("n", "t", "ci", NOW - 9e6, NOW - 9e4)]}, "token-users", Status.FAIL),
        ({"tokens": [Token("n", "t", "ci", NOW - 9e6, 0)]}, "token-users", Status.INFO),
        ({"tokens": [Token("n", "t", "ci", NOW - 9e6, NOW - 9e4)],
          "workloads": {("n", "Job", "j"): Workload("n", "Job", "j", account="ci")}}, "token-users", Status.INFO),
        ({}, "token-users", Status.INFO),
        ({}, "bootstrap-users", Status.PASS),
        ({"grants": granted(_JOINING, {rbac.JOIN})}, "bootstrap-users", Status.PASS),
        ({"grants": granted(_JOINING, set())}, "bootstrap-users", Status.FAIL),
        ({"grants": granted({"kind": "User", "name": "system:bootstrap:abcdef"}, set())}, "bootstrap-users",
         Status.FAIL),
        ({"grants": granted(_JOINING, set()), "flags": {"enable-bootstrap-token-auth": "false"}}, "bootstrap-users",
         Status.PASS),
        ({"bootstrap": [Token("kube-system", "t", "", NOW - 3600, 0)]}, "bootstrap-tokens", Status.PASS),
        ({"bootstrap": [Token("kube-system", "t", "", NOW - 90000, 0)]}, "bootstrap-tokens", Status.FAIL),
        ({"bootstrap": [Token("kube-system", "t", "", 0, 0)]}, "bootstrap-tokens", Status.FAIL),
        ({"namespaces": {"a": view.Namespace("a", "")}}, "pod-security", Status.FAIL),
        ({"namespaces": {"a": view.Namespace("a", "")}, "admission": {"p": True},
          "pod_policies": {"p"}}, "pod-security", Status.UNKNOWN),
        ({"namespaces": {"a": view.Namespace("a", "")}, "admission": {"of-nodes": True}}, "pod-security", Status.FAIL),
        ({"namespaces": {"a": view.Namespace("a", "restricted")}}, "pod-security", Status.PASS),
        ({"nodes": {"a": view.NodeFacts("a", True, False, False)}}, "control-plane-taint", Status.NOT_APPLICABLE),
        ({"nodes": {"a": view.NodeFacts("a", True, False, False), "b": view.NodeFacts("b", False, False, False)}},
         "control-plane-taint", Status.FAIL),
        ({"other_policies": {"GlobalNetworkPolicy": 2},
          "workloads": _BARE}, "network-policies", Status.UNKNOWN),
        ({"workloads": _BARE}, "network-policies", Status.FAIL),
        ({"problems": {"other policies": "no"}, "workloads": _BARE}, "network-policies", Status.UNKNOWN),
        ({"problems": {"groups": "no"}, "workloads": _BARE}, "network-policies", Status.UNKNOWN),
    ],
)  # fmt: skip
def test_absent_is_unknown_and_never_a_pass(changes: Object, check: str, status: Status) -> None:
    """Passing, failing, unknown and not applicable, each with something observed."""
    found, observed = result(check, whole(**changes))
    assert found is status, observed
    assert observed


@pytest.mark.parametrize("kind", collect.NAMES)
def test_whatever_cannot_be_read_makes_what_needs_it_unknown(kind: str) -> None:
    """Every check, by its own row."""
    found = {one.finding.id: one.finding for one in judged(whole(problems={kind: f"no {kind}"}), "c", ()).results}
    for check in CHECKS:
        if kind in check.needs:
            assert (found[check.id].status, found[check.id].observed) == (Status.UNKNOWN, f"no {kind}")


def test_rows_are_sound() -> None:
    """Ids once, known kinds, numbers of the benchmark, sections of the documents, a step for what fails."""
    names = [one.id for one in CHECKS]
    assert len(names) == len(set(names))
    sections = {f"K{number}" for number in range(1, 18)} | {f"A{number}" for number in range(1, 5)}
    for one in CHECKS:
        assert set(one.needs) <= set(collect.NAMES)
        assert one.section in sections
        numbers = [row.number for row in benchmark.RECOMMENDATIONS if one.id in row.checks]
        assert one.cis == tuple(sorted(numbers, key=one.cis.index)), one.id
        assert bool(one.remediation) or one.severity is Severity.INFO


@pytest.mark.parametrize(("labels", "status"), [("pool=edge", Status.INFO), ("pool=web", Status.FAIL)])
def test_an_exception_of_the_cluster_selects_nodes_by_their_labels(labels: str, status: Status) -> None:
    """What a Node shows, of the nodes that a check is about."""
    of = whole()
    for name, role in (("a", "node-role.kubernetes.io/control-plane"), ("b", "worker")):
        collect._node(of, {"metadata": {"name": name, "labels": {role: "", "pool": "edge"}}})
    one = AuditException(id="cluster/control-plane-taint", selector={"labels": labels}, reason="edge site",
                         owner="team-edge", expires="2027-06-30")  # fmt: skip
    found = {one.finding.id: one for one in judged(of, "c", [one]).results}["cluster/control-plane-taint"]
    assert found.finding.status is status
    assert ("edge site (team-edge)" in found.finding.observed) is (status is Status.INFO)


# -- the nodes' own findings -------------------------------------------------------------------------------------------


def reports(scene: str) -> list[Report]:
    keep = Keep(findings=True, checks=True)
    return [report_of(row(node, Pool(), keep)) for node in SCENES[scene]().nodes()]


def test_the_nodes_findings_are_grouped_with_the_nodes_that_have_them() -> None:
    """A check that passes here and fails there is both."""
    found = {(one.id, one.status): one for one in merged(reports("non-compliant")).findings}
    assert "1 of 3 nodes: node-2" in found["kubelet/4.2.1", Status.FAIL].observed
    assert "2 of 3 nodes: node-1, node-3" in found["kubelet/4.2.1", Status.PASS].observed
    assert found["kubelet/4.2.1", Status.PASS].cis == ("4.2.1",)


@pytest.mark.parametrize("silent", [False, True])
def test_what_passed_has_a_title_and_evidence_and_counts_while_the_agent_reports(silent: bool) -> None:
    """A pass of an agent that is silent is unknown, as the node itself is."""
    (node,) = [row(one, Pool(), Keep(findings=True, checks=True)) for one in SCENES["non-compliant"]().nodes()
               if one["metadata"]["name"] == "node-1"]  # fmt: skip
    report = report_of(replace(node, silent_since=NOW if silent else 0.0))
    passed = [one for one in report.findings if one.id != "agent/report" and one.status is not Status.FAIL]
    assert passed
    assert {one.status for one in passed} == {Status.UNKNOWN if silent else Status.PASS}
    assert all(one.title and f"by agent {node.version}" in one.observed for one in passed), passed


def test_a_node_without_an_agent_is_unknown() -> None:
    """Whatever else is on it."""
    (found,) = [one for one in reports("without-agent") if not any(f.control == "kubelet" for f in one.findings)]
    assert [(one.id, one.status) for one in found.findings] == [("agent/report", Status.UNKNOWN)]


@pytest.mark.parametrize(
    ("check", "title"),
    [
        ("modprobe/sctp", "Kernel module sctp is refused"),
        ("seccomp/profile/a/b.json", "seccomp profile a/b.json is installed"),
        ("sysctl/kernel.kptr_restrict", "Kernel setting kernel.kptr_restrict"),
        ("control-plane/file/etcd-data", "etcd data directory: mode 700"),
        ("no/such-check", ""),
    ],
)
def test_a_check_of_nodes_has_a_title_by_its_id(check: str, title: str) -> None:
    assert title_of(check) == title


def test_every_row_has_a_title() -> None:
    assert [name for name in known() if not name.startswith("cluster/") and not title_of(name)] == []


def test_progress_names_what_is_read() -> None:
    """On a terminal alone, and gone at the end."""
    err = io.StringIO()
    with Progress(err, live=True) as bar:
        bar.of("pods", 500, 2000)
        bar.of("roles", 500, None)
    assert "500 of 2,000 pods" in err.getvalue()
    assert "500 roles" in err.getvalue()
    assert err.getvalue().endswith("\r\x1b[K")
