"""The CIS Kubernetes Benchmark 1.12 by number: what checks each recommendation here, or why nothing does.

One row a number: `number | what it is about | checks`, the checks as ids of findings, or the reason after `=`. Findings
that are read from a Node carry no numbers; they get them here. Titles are ours, the numbers are the benchmark's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from agent.model import Finding, Report, Status, worst_first

VERSION = "cis-1.12"
CHAPTERS: Mapping[str, tuple[str, str]] = {
    "1": ("Control plane components", "master"),
    "2": ("etcd", "etcd"),
    "3": ("Control plane configuration", "controlplane"),
    "4": ("Worker nodes", "node"),
    "5": ("Policies", "policies"),
}
SECTIONS: Mapping[str, str] = {
    "1.1": "Files of the control plane", "1.2": "API server", "1.3": "Controller manager", "1.4": "Scheduler",
    "2.1": "etcd", "2.2": "etcd", "2.3": "etcd", "2.4": "etcd", "2.5": "etcd", "2.6": "etcd", "2.7": "etcd",
    "3.1": "Authentication and authorization", "3.2": "Logging", "4.1": "Files of the node", "4.2": "Kubelet",
    "4.3": "kube-proxy", "5.1": "RBAC and service accounts", "5.2": "Pod Security", "5.3": "Network policies",
    "5.4": "Secrets", "5.5": "Admission", "5.6": "General policies",
}  # fmt: skip

_TABLE = """
1.1.1 | API server manifest: mode 600 | control-plane/file/manifest/kube-apiserver
1.1.2 | API server manifest: owner root | control-plane/file/manifest/kube-apiserver
1.1.3 | Controller manager manifest: mode 600 | control-plane/file/manifest/kube-controller-manager
1.1.4 | Controller manager manifest: owner root | control-plane/file/manifest/kube-controller-manager
1.1.5 | Scheduler manifest: mode 600 | control-plane/file/manifest/kube-scheduler
1.1.6 | Scheduler manifest: owner root | control-plane/file/manifest/kube-scheduler
1.1.7 | etcd manifest: mode 600 | control-plane/file/manifest/etcd
1.1.8 | etcd manifest: owner root | control-plane/file/manifest/etcd
1.1.9 | CNI files: mode 600 | kubelet/file/cni
1.1.10 | CNI files: owner root | kubelet/file/cni
1.1.11 | etcd data directory: mode 700 | control-plane/file/etcd-data
1.1.12 | etcd data directory: owner | control-plane/file/etcd-data
1.1.13 | Administrators' kubeconfigs: mode 600 | certificates/admin
1.1.14 | Administrators' kubeconfigs: owner root | certificates/admin
1.1.15 | Scheduler kubeconfig: mode 600 | control-plane/file/kubeconfig/kube-scheduler
1.1.16 | Scheduler kubeconfig: owner root | control-plane/file/kubeconfig/kube-scheduler
1.1.17 | Controller manager kubeconfig: mode 600 | control-plane/file/kubeconfig/kube-controller-manager
1.1.18 | Controller manager kubeconfig: owner root | control-plane/file/kubeconfig/kube-controller-manager
1.1.19 | PKI folder and files: owner root | certificates/keys certificates/files
1.1.20 | PKI certificates: mode 644 | certificates/files
1.1.21 | PKI keys: mode 600 | certificates/keys
1.2.1 | API server: anonymous requests | control-plane/apiserver/anonymous
1.2.2 | API server: no static token file | control-plane/apiserver/token-file
1.2.3 | API server: DenyServiceExternalIPs | control-plane/apiserver/external-ips
1.2.4 | API server: client certificate for kubelets | control-plane/apiserver/kubelet-client
1.2.5 | API server: CA of the kubelets' certificates | control-plane/apiserver/kubelet-ca
1.2.6 | API server: not AlwaysAllow | control-plane/apiserver/always-allow
1.2.7 | API server: authorizer Node | control-plane/apiserver/authorizer-node
1.2.8 | API server: authorizer RBAC | control-plane/apiserver/authorizer-rbac
1.2.9 | API server: EventRateLimit | control-plane/apiserver/event-rate-limit
1.2.10 | API server: not AlwaysAdmit | control-plane/apiserver/always-admit
1.2.11 | API server: AlwaysPullImages | control-plane/apiserver/always-pull
1.2.12 | API server: admission ServiceAccount | control-plane/apiserver/service-account
1.2.13 | API server: admission NamespaceLifecycle | control-plane/apiserver/namespace-lifecycle
1.2.14 | API server: admission NodeRestriction | control-plane/apiserver/node-restriction
1.2.15 | API server: profiling off | control-plane/apiserver/profiling
1.2.16 | API server: audit log | control-plane/apiserver/audit
1.2.17 | API server: audit log's age | control-plane/apiserver/audit-maxage
1.2.18 | API server: audit log's backups | control-plane/apiserver/audit-maxbackup
1.2.19 | API server: audit log's size | control-plane/apiserver/audit-maxsize
1.2.20 | API server: request timeout | control-plane/apiserver/request-timeout
1.2.21 | API server: service account lookup | control-plane/apiserver/token-lookup
1.2.22 | API server: service account key | control-plane/apiserver/token-key
1.2.23 | API server: client certificate for etcd | control-plane/apiserver/etcd
1.2.24 | API server: serving certificate | control-plane/apiserver/serving-certificate
1.2.25 | API server: client CA | control-plane/apiserver/client-ca
1.2.26 | API server: CA of etcd | control-plane/apiserver/etcd
1.2.27 | API server: encryption at rest | control-plane/apiserver/encryption cluster/encryption-at-rest
1.2.28 | API server: providers of encryption | control-plane/apiserver/encryption cluster/encryption-at-rest
1.2.29 | API server: strong ciphers | control-plane/apiserver/ciphers
1.2.30 | API server: tokens not extended | control-plane/apiserver/token-expiration
1.3.1 | Controller manager: garbage collection of pods | control-plane/controller-manager/pod-gc
1.3.2 | Controller manager: profiling off | control-plane/controller-manager/profiling
1.3.3 | Controller manager: credentials per controller | control-plane/controller-manager/own-accounts
1.3.4 | Controller manager: service account key | control-plane/controller-manager/token-key
1.3.5 | Controller manager: root CA | control-plane/controller-manager/root-ca
1.3.6 | Controller manager: kubelet certificate rotation | control-plane/controller-manager/kubelet-rotation
1.3.7 | Controller manager: bound to loopback | control-plane/controller-manager/bind
1.4.1 | Scheduler: profiling off | control-plane/scheduler/profiling
1.4.2 | Scheduler: bound to loopback | control-plane/scheduler/bind
2.1 | etcd: serving certificate | control-plane/etcd/tls
2.2 | etcd: client certificates required | control-plane/etcd/client-certificates
2.3 | etcd: no self-signed certificates | control-plane/etcd/auto-tls
2.4 | etcd: peer certificate | control-plane/etcd/peer-tls
2.5 | etcd: peer client certificates required | control-plane/etcd/peer-certificates
2.6 | etcd: no self-signed peer certificates | control-plane/etcd/peer-auto-tls
2.7 | etcd: a CA of its own | control-plane/etcd/own-ca
3.1.1 | Users without client certificates | cluster/certificate-users
3.1.2 | Users without service account tokens | cluster/token-users
3.1.3 | Users without bootstrap tokens | cluster/bootstrap-users
3.2.1 | Audit policy | control-plane/apiserver/audit-policy cluster/audit-events
3.2.2 | Audit policy covers what matters | control-plane/apiserver/audit-policy
4.1.1 | kubelet unit: mode 600 | kubelet/4.1.1
4.1.2 | kubelet unit: owner root | kubelet/4.1.2
4.1.3 | kube-proxy kubeconfig: mode 600 | kubelet/4.1.3
4.1.4 | kube-proxy kubeconfig: owner root | kubelet/4.1.4
4.1.5 | kubelet kubeconfig: mode 600 | kubelet/4.1.5
4.1.6 | kubelet kubeconfig: owner root | kubelet/4.1.6
4.1.7 | Client CA: mode 644 | kubelet/4.1.7
4.1.8 | Client CA: owner root | kubelet/4.1.8
4.1.9 | kubelet configuration: mode 600 | kubelet/4.1.9
4.1.10 | kubelet configuration: owner root | kubelet/4.1.10
4.2.1 | kubelet: no anonymous requests | kubelet/4.2.1
4.2.2 | kubelet: not AlwaysAllow | kubelet/4.2.2
4.2.3 | kubelet: client CA | kubelet/4.2.3
4.2.4 | kubelet: read-only port off | kubelet/4.2.4
4.2.5 | kubelet: idle streams end | kubelet/4.2.5
4.2.6 | kubelet: iptables chains | kubelet/4.2.6
4.2.7 | kubelet: hostname not overridden | kubelet/4.2.7
4.2.8 | kubelet: events captured | kubelet/4.2.8
4.2.9 | kubelet: serving certificate | kubelet/4.2.9
4.2.10 | kubelet: client certificate rotated | kubelet/4.2.10
4.2.11 | kubelet: serving certificate rotated | kubelet/4.2.11
4.2.12 | kubelet: strong ciphers | kubelet/4.2.12
4.2.13 | kubelet: limit of PIDs | kubelet/4.2.13
4.2.14 | kubelet: seccomp default | kubelet/4.2.14
4.3.1 | kube-proxy: metrics on loopback | kubelet/4.3.1
5.1.1 | cluster-admin where required | cluster/cluster-admin
5.1.2 | Access to Secrets | cluster/secrets-readers
5.1.3 | Wildcards in roles | cluster/wildcards
5.1.4 | Access to create pods | cluster/create-workloads
5.1.5 | Default service accounts unused | cluster/default-accounts
5.1.6 | Tokens mounted where necessary | cluster/token-mounts
5.1.7 | Group system:masters | cluster/masters
5.1.8 | bind, impersonate, escalate | cluster/escalation
5.1.9 | Access to create PersistentVolumes | cluster/persistent-volumes
5.1.10 | Access to nodes/proxy | cluster/node-proxy
5.1.11 | Access to approve certificates | cluster/certificate-approval
5.1.12 | Access to webhook configurations | cluster/webhook-writers
5.1.13 | Access to create tokens | cluster/token-creation
5.2.1 | A policy control is active | cluster/pod-security
5.2.2 | Privileged containers | cluster/privileged
5.2.3 | Host PID namespace | cluster/host-pid
5.2.4 | Host IPC namespace | cluster/host-ipc
5.2.5 | Host network namespace | cluster/host-network
5.2.6 | Privilege escalation | cluster/privilege-escalation
5.2.7 | Root containers | cluster/root
5.2.8 | NET_RAW | cluster/net-raw
5.2.9 | Assigned capabilities | cluster/capabilities cluster/drop-all
5.2.10 | Windows HostProcess | cluster/host-process
5.2.11 | HostPath volumes | cluster/host-path cluster/host-path-sensitive
5.2.12 | HostPorts | cluster/host-port
5.3.1 | The CNI supports NetworkPolicies | cluster/network-engine
5.3.2 | Every namespace has NetworkPolicies | cluster/network-policies
5.4.1 | Secrets as files | cluster/secrets-in-environment
5.4.2 | External storage of Secrets | = an organisation's choice: no object shows where a Secret came from
5.5.1 | Image provenance | = ImagePolicyWebhook is one of many ways; what a webhook verifies is not visible to others
5.6.1 | Boundaries by namespaces | cluster/default-namespace
5.6.2 | seccomp profiles of pods | cluster/seccomp
5.6.3 | Security contexts | cluster/privilege-escalation cluster/root
5.6.4 | Namespace default unused | cluster/default-namespace
"""


@dataclass(frozen=True, slots=True)
class Recommendation:
    """One number. checks: ids of findings that answer it. why_not: the reason where there are none."""

    number: str
    title: str
    checks: tuple[str, ...] = ()
    why_not: str = ""


def _read(line: str) -> Recommendation:
    number, title, rest = (part.strip() for part in line.split("|"))
    if rest.startswith("="):
        return Recommendation(number, title, why_not=rest[1:].strip())
    return Recommendation(number, title, tuple(rest.split()))


RECOMMENDATIONS: tuple[Recommendation, ...] = tuple(_read(line) for line in _TABLE.strip().splitlines())


def numbers_of(check: str) -> tuple[str, ...]:
    """The numbers that a check answers."""
    return tuple(one.number for one in RECOMMENDATIONS if check in one.checks)


def title_of(check: str) -> str:
    """The title of the first recommendation that a check answers; empty for none."""
    return next((one.title for one in RECOMMENDATIONS if check in one.checks), "")


def numbered(finding: Finding) -> Finding:
    """A finding that was read from a Node, with its numbers."""
    return replace(finding, cis=numbers_of(finding.id))


def by_number(findings: Iterable[Finding]) -> dict[str, Finding]:
    """The worst finding of each number that the findings answer, in the benchmark's order."""
    found: dict[str, Finding] = {}
    for finding in worst_first(findings):
        for number in finding.cis:
            found.setdefault(number, finding)
    return dict(sorted(found.items(), key=lambda one: [int(part) for part in one[0].split(".")]))


@dataclass(frozen=True, slots=True)
class Row:
    """One line of `--benchmark`. findings: of this run. status: the worst of them, None where the run has none."""

    recommendation: Recommendation
    status: Status | None
    findings: tuple[Finding, ...]

    def document(self) -> dict[str, object]:
        """For programs."""
        one = self.recommendation
        return {
            "number": one.number, "title": one.title, "status": self.status.value if self.status else None,
            "checks": list(one.checks), "notChecked": one.why_not or None,
            "findings": [finding.document() for finding in self.findings],
        }  # fmt: skip


def rows(findings: Sequence[Finding]) -> list[Row]:
    """Every number of the benchmark."""
    ordered = worst_first(findings)
    made = []
    for one in RECOMMENDATIONS:
        found = tuple(finding for finding in ordered if one.number in finding.cis)
        made.append(Row(one, found[0].status if found else None, found))
    return made


def document(report: Report) -> dict[str, object]:
    """`--benchmark` for programs."""
    return {
        "node": report.node,
        "benchmark": VERSION,
        "recommendations": [row.document() for row in rows(report.findings)],
    }


def table(findings: Sequence[Finding]) -> str:
    """`--benchmark`: a line for each number, with what checks it and its result, or why nothing does."""
    lines = [f"{'CIS':<7} {'RESULT':<15} {'RECOMMENDATION':<52} CHECKED BY"]
    for row in rows(findings):
        one = row.recommendation
        result = row.status.value if row.status else "not checked" if one.why_not else "not in this run"
        by = ", ".join(finding.id for finding in row.findings[:4]) or ", ".join(one.checks) or one.why_not
        lines.append(f"{one.number:<7} {result:<15} {one.title:<52} {by}")
    return "\n".join(lines) + "\n"
