"""Each case in which kube-bench was tried on a real control plane, and the truth that was found there."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from agent.model import Status
from tests.support.control_planes import API_POD, API_SERVER, ETCD, MANAGER, PKI, SCHEDULER, ControlPlane

PASS, FAIL, UNKNOWN, INFO = Status.PASS, Status.FAIL, Status.UNKNOWN, Status.INFO
AUTHORIZATION = """
apiVersion: apiserver.config.k8s.io/v1
kind: AuthorizationConfiguration
authorizers: [{{type: Node, name: node}}, {{type: {second}, name: {name}}}]
"""
AUTHENTICATION = (
    "apiVersion: apiserver.config.k8s.io/v1\nkind: AuthenticationConfiguration\nanonymous: {enabled: false}\n"
)
POLICY = "apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: LEVEL}]\n"
ENCRYPTION = """
apiVersion: apiserver.config.k8s.io/v1
kind: EncryptionConfiguration
resources: RESOURCES
"""
AES, GCM, CLEAR = "aescbc: {keys: [{name: k1, secret: c2VjcmV0}]}", "aesgcm: {keys: []}", "identity: {}"
POD_SECURITY = """
apiVersion: apiserver.config.k8s.io/v1
kind: AdmissionConfiguration
plugins:
- name: PodSecurity
  configuration: {defaults: {enforce: restricted}, exemptions: {namespaces: [NAMESPACE]}}
"""
HTTP = "--listen-client-urls=http://127.0.0.1:2379"
ETCD_FILE = """
listen-client-urls: URL
listen-peer-urls: https://127.0.0.1:2380
client-transport-security: &tls
  {cert-file: /c, key-file: /k, client-cert-auth: true, trusted-ca-file: /etc/kubernetes/pki/etcd/ca.crt}
peer-transport-security: *tls
"""


def _without(args: tuple[str, ...], *names: str) -> tuple[str, ...]:
    return tuple(arg for arg in args if arg.removeprefix("--").partition("=")[0] not in names)


def _server(*extra: str, without: tuple[str, ...] = (), **files: str) -> Callable[[ControlPlane], None]:
    def stage(node: ControlPlane) -> None:
        node.pki()
        node.files({f"/etc/kubernetes/{name}.yaml": content for name, content in files.items()})
        node.run("kube-apiserver", *_without(API_SERVER, *without), *extra)

    return stage


def _program(name: str, *args: str, **files: str) -> Callable[[ControlPlane], None]:
    def stage(node: ControlPlane) -> None:
        node.pki()
        node.files({f"/etc/kubernetes/{file}.yaml": content for file, content in files.items()})
        node.run("kube-apiserver", *API_SERVER)
        node.run(name, *args)

    return stage


def _encrypted(resources: str) -> Callable[[ControlPlane], None]:
    return _server(
        "--encryption-provider-config=/etc/kubernetes/enc.yaml", enc=ENCRYPTION.replace("RESOURCES", resources)
    )


_AUDIT = ("--audit-log-path=/var/log/audit.log", "--audit-policy-file=/etc/kubernetes/policy.yaml")
_SECRETS = (
    "{level: Metadata, resources: [{group: '', resources: [secrets, configmaps]}, {group: authentication.k8s.io}]}"
)


def _rules(*rules: str) -> str:
    """An audit policy that logs what these rules leave."""
    return POLICY.replace("{level: LEVEL}", ", ".join((*rules, "{level: Metadata}")))


_AUTHZ = "--authorization-config=/etc/kubernetes/authz.yaml"
_SCHEDULER_FILE = "apiVersion: kubescheduler.config.k8s.io/v1\nkind: KubeSchedulerConfiguration\n"
_VERSIONED = {"kube-apiserver": "spec: {containers: [{image: 'registry.k8s.io/kube-apiserver:v1.36.2', command: []}]}"}

CASES: Mapping[str, tuple[Callable[[ControlPlane], None], Mapping[str, Status]]] = {
    "baseline": (_server(), {
        "apiserver/anonymous": PASS, "apiserver/always-allow": PASS, "apiserver/authorizer-node": PASS,
        "apiserver/authorizer-rbac": PASS, "apiserver/kubelet-ca": PASS, "apiserver/etcd": PASS,
        "apiserver/node-restriction": PASS, "apiserver/serving-certificate": PASS, "apiserver/client-ca": PASS,
        "apiserver/proxy-ca": PASS, "apiserver/proxy-names": PASS, "apiserver/audit": FAIL,
        "apiserver/encryption": FAIL, "apiserver/audit-maxsize": PASS, "apiserver/audit-maxage": UNKNOWN}),
    "repeated authorization-mode adds AlwaysAllow": (
        _server("--authorization-mode=AlwaysAllow"), {"apiserver/always-allow": FAIL}),
    "no authorization-mode is AlwaysAllow": (
        _server(without=("authorization-mode",)), {"apiserver/always-allow": FAIL, "apiserver/authorizer-rbac": FAIL}),
    "the last anonymous-auth wins: on": (_server("--anonymous-auth=true"), {"apiserver/anonymous": FAIL}),
    "the last anonymous-auth wins: off": (
        _server("--anonymous-auth=true", "--anonymous-auth=false"), {"apiserver/anonymous": PASS}),
    "anonymous-auth=0": (_server("--anonymous-auth=0", without=("anonymous-auth",)), {"apiserver/anonymous": PASS}),
    "the authentication file switches it off": (
        _server("--authentication-config=/etc/kubernetes/authn.yaml", without=("anonymous-auth",),
                authn=AUTHENTICATION), {"apiserver/anonymous": PASS}),
    "an authorization file with Node and RBAC": (
        _server(_AUTHZ, without=("authorization-mode",), authz=AUTHORIZATION.format(second="RBAC", name="rbac")),
        {"apiserver/always-allow": PASS, "apiserver/authorizer-node": PASS, "apiserver/authorizer-rbac": PASS}),
    "AlwaysAllow in that file": (
        _server(_AUTHZ, without=("authorization-mode", "anonymous-auth"),
                authz=AUTHORIZATION.format(second="AlwaysAllow", name="alwaysallow")),
        {"apiserver/always-allow": FAIL, "apiserver/anonymous": FAIL}),
    "two authorization-modes add up": (
        _server("--authorization-mode=Node", "--authorization-mode=RBAC", without=("authorization-mode",)),
        {"apiserver/authorizer-node": PASS, "apiserver/authorizer-rbac": PASS, "apiserver/always-allow": PASS}),
    "a log path without a policy": (_server(_AUDIT[0]), {"apiserver/audit": FAIL, "apiserver/audit-policy": FAIL}),
    "a policy of level None": (_server(*_AUDIT, policy=POLICY.replace("LEVEL", "None")),
                               {"apiserver/audit": FAIL, "apiserver/audit-policy": FAIL}),
    "a policy without a backend": (_server(_AUDIT[1], policy=POLICY.replace("LEVEL", "Metadata")),
                                   {"apiserver/audit": FAIL, "apiserver/audit-policy": FAIL}),
    "a policy with a backend": (_server(*_AUDIT, policy=POLICY.replace("LEVEL", "Metadata")),
                                {"apiserver/audit": PASS, "apiserver/audit-policy": PASS}),
    "a policy that logs the content of secrets": (_server(*_AUDIT, policy=POLICY.replace("LEVEL", "RequestResponse")),
                                                  {"apiserver/audit": PASS, "apiserver/audit-policy": FAIL}),
    "audit logs kept without limit": (
        _server("--audit-log-maxage=0", "--audit-log-maxbackup=0", "--audit-log-maxsize=0"),
        {"apiserver/audit-maxage": FAIL, "apiserver/audit-maxbackup": FAIL, "apiserver/audit-maxsize": FAIL}),
    "a controller-manager without bind-address": (
        _program("kube-controller-manager", *_without(MANAGER, "bind-address")), {"controller-manager/bind": FAIL}),
    "a scheduler without bind-address": (
        _program("kube-scheduler", *_without(SCHEDULER, "bind-address")), {"scheduler/bind": FAIL}),
    "the last profiling wins": (
        _program("kube-controller-manager", *MANAGER, "--profiling=true"), {"controller-manager/profiling": FAIL}),
    "the scheduler ignores --profiling beside --config": (
        _program("kube-scheduler", *SCHEDULER, "--config=/etc/kubernetes/s.yaml", s=_SCHEDULER_FILE),
        {"scheduler/profiling": FAIL}),
    "enableProfiling: false in that file": (
        _program("kube-scheduler", "--config=/etc/kubernetes/s.yaml", s=_SCHEDULER_FILE + "enableProfiling: false\n"),
        {"scheduler/profiling": PASS}),
    "enableProfiling: null in that file, which is not set": (
        _program("kube-scheduler", "--config=/etc/kubernetes/s.yaml", s=_SCHEDULER_FILE + "enableProfiling: null\n"),
        {"scheduler/profiling": FAIL}),
    "always-allow-paths=/*": (
        _program("kube-controller-manager", *MANAGER, "--authorization-always-allow-paths=/*"),
        {"controller-manager/open-paths": FAIL}),
    "a good etcd": (_program("etcd", *ETCD), {
        "etcd/tls": PASS, "etcd/client-certificates": PASS, "etcd/peer-tls": PASS, "etcd/peer-certificates": PASS,
        "etcd/auto-tls": PASS, "etcd/own-ca": PASS, "etcd/metrics": PASS}),
    "etcd in the clear beside certificates": (_program("etcd", *ETCD, HTTP), {"etcd/tls": FAIL}),
    "etcd's file makes good flags void": (
        _program("etcd", *ETCD, "--config-file=/etc/kubernetes/e.yaml",
                 e=ETCD_FILE.replace("URL", "http://127.0.0.1:2379")), {"etcd/tls": FAIL}),
    "etcd by a good file alone": (
        _program("etcd", "--config-file=/etc/kubernetes/e.yaml", e=ETCD_FILE.replace("URL", "https://127.0.0.1:2379")),
        {"etcd/tls": PASS, "etcd/client-certificates": PASS, "etcd/peer-tls": PASS, "etcd/peer-certificates": PASS,
         "etcd/own-ca": PASS}),
    "etcd trusts the cluster's CA": (
        _program("etcd", *ETCD, f"--trusted-ca-file={PKI}/ca.crt"), {"etcd/own-ca": FAIL}),
    "client-cert-auth=false with a CA still asks": (
        _program("etcd", *ETCD, "--client-cert-auth=false"), {"etcd/client-certificates": PASS}),
    "encryption for configmaps only": (
        _encrypted(f"[{{resources: [configmaps], providers: [{{{AES}}}]}}]"), {"apiserver/encryption": FAIL}),
    "identity for secrets, aescbc for configmaps": (
        _encrypted(f"[{{resources: [secrets], providers: [{{{CLEAR}}}]}}, {{resources: [configmaps], providers: "
                   f"[{{{AES}}}]}}]"), {"apiserver/encryption": FAIL}),
    "identity first": (_encrypted(f"[{{resources: [secrets], providers: [{{{CLEAR}}}, {{{AES}}}]}}]"),
                       {"apiserver/encryption": FAIL}),
    "aescbc first": (_encrypted(f"[{{resources: [secrets], providers: [{{{AES}}}, {{{CLEAR}}}]}}]"),
                     {"apiserver/encryption": PASS}),
    "aesgcm": (_encrypted(f"[{{resources: [secrets], providers: [{{{GCM}}}]}}]"), {"apiserver/encryption": PASS}),
    "anonymous requests reach another path": (
        _server("--authentication-config=/etc/kubernetes/authn.yaml", without=("anonymous-auth",), authn=(
            AUTHENTICATION.replace("false", "true, conditions: [{path: /livez}, {path: /metrics}]"))),
        {"apiserver/anonymous": FAIL}),
    "a beta feature off with all others": (
        _program("kube-controller-manager", *MANAGER, "--feature-gates=AllBeta=false"),
        {"controller-manager/kubelet-rotation": FAIL}),
    "a beta feature on, all others off": (
        _program("kube-controller-manager", *MANAGER, "--feature-gates=RotateKubeletServerCertificate=1,AllBeta=0"),
        {"controller-manager/kubelet-rotation": PASS}),
    "every alpha feature by the component's name": (
        _server("--feature-gates=kube:AllAlpha=true"), {"apiserver/alpha": FAIL}),
    "etcd for events in the clear": (
        _server("--etcd-servers-overrides=/events#https://10.0.0.1:2379;http://10.0.0.2:1"), {"apiserver/etcd": FAIL}),
    "secrets are logged before the rule that protects them": (
        _server(*_AUDIT, policy=_rules("{level: RequestResponse, verbs: [create, update]}", _SECRETS)),
        {"apiserver/audit-policy": FAIL}),
    "secrets are logged by a rule for their subresources": (
        _server(*_AUDIT, policy=_rules("{level: Request, resources: [{group: '', resources: ['secrets/*']}]}")),
        {"apiserver/audit-policy": FAIL}),
    "one secret is logged by its name": (
        _server(*_AUDIT, policy=_rules(
            "{level: Request, resources: [{group: '', resources: [secrets], resourceNames: [one]}]}", _SECRETS)),
        {"apiserver/audit-policy": FAIL}),
    "secrets are protected by a rule for no group": (
        _server(*_AUDIT, policy=_rules(
            "{level: Metadata, resources: [{group: '*'}]}", "{level: Request, resources: [{group: ''}]}")),
        {"apiserver/audit-policy": FAIL}),
    "a rule for what has no content comes before": (
        _server(*_AUDIT, policy=_rules("{level: Request, verbs: [get, list]}", _SECRETS)),
        {"apiserver/audit-policy": PASS}),
    "no user's requests are logged": (
        _server(*_AUDIT, policy=_rules("{level: None, userGroups: ['system:authenticated']}")),
        {"apiserver/audit-policy": FAIL}),
    "changes of bindings are not logged": (
        _server(*_AUDIT, policy=_rules("{level: None, resources: [{group: rbac.authorization.k8s.io}]}")),
        {"apiserver/audit-policy": FAIL}),
    "exec is not logged": (
        _server(*_AUDIT, policy=_rules("{level: None, resources: [{group: '', resources: ['pods/*']}]}")),
        {"apiserver/audit-policy": FAIL}),
    "noise is not logged": (
        _server(*_AUDIT, policy=_rules(
            "{level: None, users: ['system:kube-proxy']}", "{level: None, nonResourceURLs: ['/healthz*']}",
            "{level: None, resources: [{group: '', resources: [events]}]}", "{level: None, verbs: [get, watch]}")),
        {"apiserver/audit-policy": PASS}),
    "both stages of an answered request are left out": (
        _server(*_AUDIT, policy=_rules() + "omitStages: [RequestReceived, ResponseComplete]\n"),
        {"apiserver/audit": FAIL, "apiserver/audit-policy": FAIL}),
    "etcd's flags with one dash": (
        _program("etcd", *ETCD, "-auto-tls", "-listen-client-urls", "http://127.0.0.1:2379"),
        {"etcd/auto-tls": FAIL, "etcd/tls": FAIL, "etcd/client-certificates": FAIL}),
    "etcd serves HTTP alone in the clear": (
        _program("etcd", *ETCD, "--listen-client-http-urls=http://0.0.0.0:2382"),
        {"etcd/tls": FAIL, "etcd/client-certificates": FAIL}),
    "PodSecurity disabled": (_server("--disable-admission-plugins=PodSecurity"), {"apiserver/pod-security": FAIL}),
    "namespaces exempt from PodSecurity": (
        _server("--admission-control-config-file=/etc/kubernetes/adm.yaml",
                adm=POD_SECURITY.replace("NAMESPACE", "team-a")), {"apiserver/pod-security-defaults": FAIL}),
}  # fmt: skip


@pytest.fixture
def node(tmp_path: Path) -> ControlPlane:
    return ControlPlane(tmp_path / "node")


@pytest.mark.parametrize(("stage", "expected"), CASES.values(), ids=CASES.keys())
def test_what_is_found_is_the_truth(
    node: ControlPlane, stage: Callable[[ControlPlane], None], expected: Mapping[str, Status]
) -> None:
    stage(node)
    found = node.audit()
    assert {id_: found[id_].status for id_ in expected} == expected, [found[id_].observed for id_ in expected]


@pytest.mark.parametrize(
    ("stage", "file", "check"),
    [
        (_server(*_AUDIT, policy=_rules()), "policy", "apiserver/audit"),
        (_encrypted(f"[{{resources: [secrets], providers: [{{{AES}}}]}}]"), "enc", "apiserver/encryption"),
        (_program("kube-scheduler", "--config=/etc/kubernetes/s.yaml", s=_SCHEDULER_FILE + "enableProfiling: false\n"),
         "s", "scheduler/profiling"),
        (_program("etcd", "--config-file=/etc/kubernetes/e.yaml",
                  e=ETCD_FILE.replace("URL", "https://127.0.0.1:2379")), "e", "etcd/tls"),
    ],
)  # fmt: skip
def test_a_file_that_changed_after_the_start_decides_nothing(
    node: ControlPlane, stage: Callable[[ControlPlane], None], file: str, check: str
) -> None:
    """It is read once: the process runs with what was in it then."""
    stage(node)
    component = check.partition("/")[0]
    before = node.audit()
    assert (before[check].status, before[f"{component}/drift"].status) == (PASS, PASS)
    os.utime(node.root / f"etc/kubernetes/{file}.yaml", (3e9, 3e9))
    after = node.audit()
    assert (after[check].status, after[f"{component}/drift"].status) == (UNKNOWN, UNKNOWN)
    assert "changed after it started" in after[check].observed


def test_encryption_that_is_reloaded_decides_at_any_time(node: ControlPlane) -> None:
    resources = f"[{{resources: [secrets], providers: [{{{AES}}}]}}]"
    _server("--encryption-provider-config=/etc/kubernetes/enc.yaml", "--encryption-provider-config-automatic-reload",
            enc=ENCRYPTION.replace("RESOURCES", resources))(node)  # fmt: skip
    os.utime(node.root / "etc/kubernetes/enc.yaml", (3e9, 3e9))
    found = node.audit()
    assert (found["apiserver/encryption"].status, found["apiserver/drift"].status) == (PASS, PASS)


def test_the_defaults_of_audit_logs_comply_from_1_36_on(node: ControlPlane) -> None:
    _server()(node)
    node.files({"/etc/kubernetes/manifests/kube-apiserver.yaml": _VERSIONED["kube-apiserver"]})
    found = node.audit()
    assert [found[f"apiserver/audit-{one}"].status for one in ("maxage", "maxbackup", "maxsize")] == [PASS] * 3
    older = _VERSIONED["kube-apiserver"].replace("1.36.2", "1.35.9")
    node.files({"/etc/kubernetes/manifests/kube-apiserver.yaml": older})
    found = node.audit()
    assert [found[f"apiserver/audit-{one}"].status for one in ("maxage", "maxbackup", "maxsize")] == [FAIL, FAIL, PASS]


@pytest.mark.parametrize(
    "flags", [("--profiling=false", "--anonymous-auth=false"), ("--authorization-mode=Node,RBAC",)]
)
def test_a_process_of_another_user_changes_nothing(node: ControlPlane, flags: tuple[str, ...]) -> None:
    """Of nobody on the node, and of root in a pod that came from the API server."""
    _server("--authorization-mode=AlwaysAllow", "--profiling=true", "--anonymous-auth=true")(node)
    before = {id_: finding.status for id_, finding in node.audit().items()}
    node.run("kube-apiserver", *flags, uid=65534, cgroup="0::/user.slice\n", mounts="mnt:[4026531841]")
    node.run("kube-apiserver", *flags, cgroup=API_POD)
    after = node.audit()
    assert {id_: finding.status for id_, finding in after.items()} == before
    assert before["apiserver/always-allow"] is FAIL
    assert "2 processes with such a name are not the node's own" in after["apiserver/process"].observed


@pytest.mark.parametrize("missing", ["kube-scheduler", "kube-controller-manager"])
def test_a_component_that_is_down_changes_no_other_finding(node: ControlPlane, missing: str) -> None:
    """Nor one that is a zombie, which has no words any more."""
    _server()(node)
    arguments = {"kube-scheduler": SCHEDULER, "kube-controller-manager": MANAGER, "etcd": ETCD}
    pids = {name: node.run(name, *args) for name, args in arguments.items()}
    short = missing.removeprefix("kube-")
    before = node.audit()
    (node.root / f"proc/{pids[missing]}/cmdline").write_bytes(b"")
    zombie = node.audit()
    node.node.remove(pids[missing])
    gone = node.audit()
    rest = {id_: finding.status for id_, finding in before.items() if not id_.startswith((f"{short}/", "file/"))}
    assert rest == {id_: finding.status for id_, finding in zombie.items() if id_ in rest}
    assert rest == {id_: finding.status for id_, finding in gone.items() if id_ in rest}
    assert gone[f"{short}/process"].status is Status.NOT_APPLICABLE
    assert f"{short}/profiling" not in gone
