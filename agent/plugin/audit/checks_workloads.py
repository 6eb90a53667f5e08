"""What runs, and what would be let in: effective pod fields by owner, Pod Security, networks, quotas and placement."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from agent.model import Severity, Status
from agent.plugin.audit.check import Affected, Check, PlainResult
from agent.plugin.audit.pods import Workload
from agent.plugin.audit.view import View

_PODS = ("pods",)
_ENGINES = ("kyverno", "gatekeeper", "kubewarden", "opa", "jspolicy", "polaris")
# DaemonSets that enforce NetworkPolicies, and one that is known not to. A CNI inside another process shows neither.
_NETWORK_ENGINES = (
    "calico-node", "canal", "cilium", "antrea-agent", "kube-router", "ovnkube-node", "kube-ovn-cni", "weave-net",
    "azure-npm", "anetd", "kube-network-policies", "kindnet",
)  # fmt: skip
_WITHOUT = ("kube-flannel-ds", "kube-flannel")
_QUOTA = (("cpu", "requests.cpu", "limits.cpu"), ("memory", "requests.memory", "limits.memory"), ("pods", "count/pods"))
_EXPOSING = (("services.nodeports",), ("services.loadbalancers",))


def _of(workload: Workload, detail: str) -> Affected:
    return Affected(workload.kind, workload.namespace, workload.name, detail)


def _flagged(flag: str) -> Callable[[View], Iterator[Affected]]:
    def judge(view: View) -> Iterator[Affected]:
        for one in view.user_workloads:
            if flag in one.flags:
                yield _of(one, ", ".join(filter(None, one.flags[flag])))

    return judge


def _pod_security(view: View) -> Iterator[Affected] | PlainResult:
    bare = [one for one in view.user_namespaces if one.enforce not in ("baseline", "restricted")]
    engines = sorted({one.configuration for one in view.webhooks if any(
        name in one.configuration.lower() for name in _ENGINES)})  # fmt: skip
    engines += sorted(name for name, denies in view.admission.items() if denies and name in view.pod_policies)
    if bare and engines:
        names = ", ".join(engines[:3])
        observed = f"{len(bare):,} of {view.judged('namespaces')} have no enforce label (first {bare[0].name})"
        return PlainResult(Status.UNKNOWN, f"{observed}; what {names} admits there is not evaluated")
    return (
        Affected("Namespace", "", one.name, f"enforce: {one.enforce}" if one.enforce else "no enforce label")
        for one in bare
    )


def _network_policies(view: View) -> Iterator[Affected] | PlainResult:
    missing = [(one, ways) for one in view.user_workloads if one.label_sets and (ways := view.uncovered(one))]
    others = [f"{number} {kind}" for kind, number in sorted(view.other_policies.items())]
    others += [view.problems[name] for name in ("groups", "other policies") if name in view.problems]
    if missing and others:
        first = f"{missing[0][0].kind} {missing[0][0].namespace}/{missing[0][0].name}"
        observed = f"{len(missing):,} workloads are in no NetworkPolicy (first {first})"
        more = ", ".join(others)
        return PlainResult(Status.UNKNOWN, f"{observed}; policies of others may, and are not evaluated: {more}")
    return (
        _of(one, "more sets of labels than are judged" if one.more_labels else f"no policy for {' and '.join(ways)}")
        for one, ways in missing
    )


def _network_engine(view: View) -> PlainResult:
    # Anyone can name an owner so; a network plugin's pods use the node's network, which admission guards.
    some = [one for one in view.workloads.values() if one.kind == "DaemonSet"]
    names = {one.name for one in some}
    if found := sorted({one.name for one in some if one.name in _NETWORK_ENGINES and "hostNetwork" in one.flags}):
        return PlainResult(Status.PASS, f"DaemonSet {found[0]} enforces them")
    if without := sorted(name for name in names if name in _WITHOUT):
        return PlainResult(Status.FAIL, f"DaemonSet {without[0]} alone does not enforce them")
    if "aws-node" in names:
        return PlainResult(Status.UNKNOWN, "DaemonSet aws-node enforces them only where enableNetworkPolicy is true")
    return PlainResult(
        Status.UNKNOWN, "no known network plugin runs as a DaemonSet; k3s and some clouds have it built in"
    )


def _metadata(view: View) -> PlainResult:
    some = [one for one in view.user_workloads if one.label_sets]
    denied = sum(map(view.denies_metadata, some))
    observed = f"NetworkPolicies deny 169.254.169.254 to {denied:,} of {len(some):,} workloads"
    return PlainResult(Status.INFO, f"{observed}; what a pod reaches is checked on the nodes (metadata-access)")


def _quotas(resources: tuple[tuple[str, ...], ...]) -> Callable[[View], Iterator[Affected]]:
    def judge(view: View) -> Iterator[Affected]:
        for one in view.user_namespaces:
            hard = view.quotas.get(one.name, set())
            if missing := [names[0] for names in resources if not hard.intersection(names)]:
                yield Affected("Namespace", "", one.name, f"no limit of {', '.join(missing)}")

    return judge


def _limits(view: View) -> Iterator[Affected]:
    for one in view.user_namespaces:
        if one.name not in view.memory_defaults:
            yield Affected("Namespace", "", one.name, "no LimitRange with a default of memory")


def _default_namespace(view: View) -> Iterator[Affected]:
    return (_of(one, "") for one in view.workloads.values() if one.namespace == "default")


def _control_plane(view: View) -> Iterator[Affected] | PlainResult:
    control = [one for one in view.nodes.values() if one.is_control_plane]
    if not control:
        return PlainResult(Status.NOT_APPLICABLE, "no node of the control plane is a Node here")
    if len(control) == len(view.nodes):
        return PlainResult(Status.NOT_APPLICABLE, "every node is of the control plane")
    return (Affected("Node", "", one.name, "no NoSchedule taint", labels=one.labels)
            for one in control if not one.is_tainted)  # fmt: skip


def _tolerations(view: View) -> Iterator[Affected]:
    return (_of(one, "tolerates every taint") for one in view.user_workloads
            if one.kind != "DaemonSet" and "tolerates-all" in one.flags)  # fmt: skip


def _selectors(view: View) -> PlainResult:
    held = [one.name for one in view.user_namespaces if one.node_selector]
    return PlainResult(Status.INFO, f"{len(held):,} of {view.judged('namespaces')} have PodNodeSelector's annotation")


_ADMIT = "Then let Pod Security keep it so: label the namespace pod-security.kubernetes.io/enforce."
_H, _M, _L = Severity.HIGH, Severity.MEDIUM, Severity.LOW
CHECKS: tuple[Check, ...] = (
    Check("pod-security", "Every namespace enforces a Pod Security level", _H, "K6", ("5.2.1",),
          ("namespaces", "validating webhooks", "admission policies", "admission policy bindings"), _pod_security,
          "baseline or restricted",
          "kubectl label namespace NAME pod-security.kubernetes.io/enforce=baseline; with warn first."),
    Check("privileged", "No container is privileged", _H, "K6", ("5.2.2",), _PODS, _flagged("privileged"), "not true",
          f"Grant the capability or device that is needed instead. {_ADMIT}"),
    Check("host-pid", "No pod uses the node's process namespace (hostPID)", _H, "K6", ("5.2.3",), _PODS,
          _flagged("hostPID"), "not true", _ADMIT),
    Check("host-ipc", "No pod uses the node's IPC namespace (hostIPC)", _H, "K6", ("5.2.4",), _PODS,
          _flagged("hostIPC"), "not true", _ADMIT),
    Check("host-network", "No pod uses the node's network namespace (hostNetwork)", _H, "K6", ("5.2.5",), _PODS,
          _flagged("hostNetwork"), "not true",
          f"NetworkPolicies do not hold for such a pod, and it reaches the cloud's metadata. {_ADMIT}"),
    Check("privilege-escalation", "No container allows privilege escalation", _M, "A2", ("5.2.6", "5.6.3"), _PODS,
          _flagged("escalation"), "allowPrivilegeEscalation: false",
          "Set it in every container; a pod has no such field."),
    Check("root", "No container runs as root", _M, "K6", ("5.2.7", "5.6.3"), _PODS, _flagged("root"),
          "runAsNonRoot: true, or a runAsUser",
          "Set runAsNonRoot: true; hostUsers: false makes root harmless where the image needs it."),
    Check("net-raw", "Containers drop NET_RAW", _L, "A2", ("5.2.8",), _PODS, _flagged("NET_RAW"), "drop: [ALL]",
          "Set capabilities.drop: [ALL]."),
    Check("capabilities", "No container adds capabilities", _M, "A2", ("5.2.9",), _PODS, _flagged("capabilities"),
          "NET_BIND_SERVICE at most", "Remove what the program does not need."),
    Check("drop-all", "Containers drop all capabilities", _L, "A2", ("5.2.9",), _PODS, _flagged("assigned"),
          "drop: [ALL]", "Set capabilities.drop: [ALL], and add what the program needs."),
    Check("host-process", "No Windows container runs on the host", _H, "K6", ("5.2.10",), _PODS,
          _flagged("hostProcess"), "not true", _ADMIT),
    Check("host-path", "No pod has a hostPath volume", _M, "K6", ("5.2.11",), _PODS, _flagged("hostPath"),
          "no hostPath volume", f"Use a volume of the cluster. {_ADMIT}"),
    Check("host-path-sensitive", "No pod mounts system folders of the node", _H, "K6", ("5.2.11",), _PODS,
          _flagged("hostPath-sensitive"), "no system path",
          f"Such a path holds credentials or programs of the node. {_ADMIT}"),
    Check("host-port", "No container has a hostPort", _L, "K6", ("5.2.12",), _PODS, _flagged("hostPort"), "no hostPort",
          "Use a Service."),
    Check("proc-mount", "No container has an unmasked /proc", _M, "K6", (), _PODS, _flagged("procMount"), "Default",
          _ADMIT),
    Check("sysctls", "No pod sets unsafe sysctls", _M, "K6", (), _PODS, _flagged("sysctl"), "safe sysctls alone",
          "Set them on the node instead."),
    Check("seccomp", "Containers run under a seccomp profile", _M, "A2", ("5.6.2",), _PODS, _flagged("seccomp"),
          "RuntimeDefault or Localhost",
          "Set seccompProfile.type: RuntimeDefault in the pod, or seccompDefault in every kubelet (kubelet/4.2.14)."),
    Check("apparmor", "No container switches AppArmor off", _M, "A2", (), _PODS, _flagged("apparmor"), "not Unconfined",
          "Remove the profile Unconfined: the runtime's default then holds."),
    Check("secrets-in-environment", "Secrets are files, not environment variables", _L, "K14", ("5.4.1",), _PODS,
          _flagged("secret-env"), "no secretKeyRef or secretRef",
          "Mount the Secret: the environment shows in dumps and child processes."),
    Check("default-namespace", "Nothing runs in the namespace default", _L, "K3", ("5.6.4", "5.6.1"), _PODS,
          _default_namespace, "empty", "Give each application or team a namespace."),
    Check("network-policies", "Every pod is selected by a NetworkPolicy in both directions", _H, "K8", ("5.3.2",),
          ("pods", "networkpolicies"), _network_policies, "Ingress and Egress",
          "Begin with a policy of podSelector {} and both policyTypes in the namespace, and allow what is needed."),
    Check("network-engine", "NetworkPolicies are enforced by the network plugin", _H, "K8", ("5.3.1",), _PODS,
          _network_engine, "a plugin that enforces them",
          "Run a plugin that does, beside flannel for example kube-router; for a built-in one see its own "
          "documentation."),
    Check("metadata-policies", "NetworkPolicies and the cloud's metadata address", Severity.INFO, "K9", (),
          ("pods", "networkpolicies"), _metadata, "denied", ""),
    Check("quotas", "Every namespace has a quota of CPU, memory and pods", _L, "K5", (),
          ("namespaces", "resourcequotas"), _quotas(_QUOTA), "a ResourceQuota without scopes",
          "Create a ResourceQuota with cpu, memory and pods: one namespace can then not take the cluster."),
    Check("service-quotas", "Every namespace has a quota of node ports and load balancers", _L, "K8", (),
          ("namespaces", "resourcequotas"), _quotas(_EXPOSING), "quotas of node ports and load balancers",
          "Add services.nodeports and services.loadbalancers to the quota, 0 where nothing is exposed."),
    Check("limits", "Every namespace has a default memory limit", _L, "K5", (), ("namespaces", "limitranges"), _limits,
          "a default of memory", "Create a LimitRange of type Container with default.memory."),
    Check("control-plane-taint", "Control plane nodes have a NoSchedule taint", _M, "K10", (), ("nodes",),
          _control_plane, "NoSchedule", "kubectl taint node NAME node-role.kubernetes.io/control-plane:NoSchedule"),
    Check("tolerations", "Workloads do not tolerate every taint", _L, "K10", (), _PODS, _tolerations, "named taints",
          "Name the taints: a toleration of everything also enters nodes that are kept for others."),
    Check("node-selectors", "Namespaces with a node selector of their own", Severity.INFO, "K10", (), ("namespaces",),
          _selectors, "where tenants are separated", ""),
)  # fmt: skip
