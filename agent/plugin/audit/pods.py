"""Pods reduced to workloads: what the containers of one owner may effectively do. Pure.

Fields are judged as the kubelet reads them: a container's own before its pod's, init and ephemeral containers too. Five
thousand pods are a few hundred workloads, so owners are judged, not pods.
"""

from __future__ import annotations

import posixpath
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.plugin.cluster import values

Labels = frozenset[tuple[str, str]]

# Labels that controllers add to single pods; without them the pods of one owner are alike.
_OF_ONE_POD = frozenset({
    "pod-template-hash", "controller-revision-hash", "pod-template-generation", "statefulset.kubernetes.io/pod-name",
    "apps.kubernetes.io/pod-index", "job-name", "batch.kubernetes.io/job-name", "controller-uid",
    "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-completion-index",
})  # fmt: skip
# https://kubernetes.io/docs/tasks/administer-cluster/sysctl-cluster/#safe-and-unsafe-sysctls
_SAFE_SYSCTLS = frozenset({
    "kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range",
    "net.ipv4.ip_unprivileged_port_start", "net.ipv4.ip_local_reserved_ports", "net.ipv4.tcp_keepalive_time",
    "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl", "net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
})  # fmt: skip
# With these a container reads the node's credentials, or runs what it likes on it.
_SENSITIVE = (
    "/bin", "/boot", "/dev", "/etc", "/home", "/lib", "/lib64", "/opt", "/proc", "/root", "/run", "/sbin", "/snap",
    "/sys", "/usr", "/var/lib", "/var/log", "/var/run", "/var/snap", "/var/spool",
)  # fmt: skip
_WHOLE = ("/", "/var")
_KINDS = ("containers", "initContainers", "ephemeralContainers")
_DETAILS_KEPT = 4
_LABEL_SETS_KEPT = 200
_DETAIL_CHARACTERS = 160


@dataclass(slots=True)
class Workload:
    """The pods of one owner. flags: what they may do that they need not, by name, each with a few details.

    label_sets: of its pods, as NetworkPolicies select them; empty where all use the node's network. more_labels: some
    did not fit.
    """

    namespace: str
    kind: str
    name: str
    flags: dict[str, tuple[str, ...]] = field(default_factory=dict)
    label_sets: set[Labels] = field(default_factory=set)
    account: str = ""
    more_labels: bool = False


def is_system(namespace: str) -> bool:
    """Kubernetes' own namespaces: the prefix is reserved."""
    return namespace.startswith("kube-")


def owner(pod: Mapping[str, Any]) -> tuple[str, str, str]:
    """Namespace, kind and name of what made the pod; a ReplicaSet's Deployment and a Job's CronJob by their names."""
    meta = values.part(pod, "metadata")
    namespace, name = (sys.intern(values.text(meta.get(key), 253)) for key in ("namespace", "name"))
    found = next((one for one in values.mappings(meta.get("ownerReferences")) if one.get("controller")), {})
    kind, above = (values.text(found.get(key), 253) for key in ("kind", "name"))
    made = values.text(values.part(meta, "labels").get("pod-template-hash"), 63)
    if kind == "ReplicaSet" and made and above.endswith(f"-{made}"):
        kind, above = "Deployment", above.removesuffix(f"-{made}")
    elif kind == "Job" and (cron := re.fullmatch(r"(.+)-\d{7,}", above)):
        kind, above = "CronJob", cron[1]
    elif kind == "Node":
        kind, above = "static Pod", name.removesuffix(f"-{above}")
    return namespace, sys.intern(kind or "Pod"), sys.intern(above or name)


def add(workload: Workload, pod: Mapping[str, Any], *, seccomp_default: bool) -> None:
    """One more pod of the workload. seccomp_default: its node's kubelet gives pods without a profile RuntimeDefault."""
    spec = values.part(pod, "spec")
    workload.account = sys.intern(values.text(spec.get("serviceAccountName"), 253) or "default")
    if spec.get("hostNetwork") is not True:
        labels = values.part(values.part(pod, "metadata"), "labels").items()
        one = frozenset(
            (sys.intern(values.text(key, 317)), sys.intern(values.text(value, 63)))
            for key, value in labels if key not in _OF_ONE_POD
        )  # fmt: skip
        if len(workload.label_sets) < _LABEL_SETS_KEPT:
            workload.label_sets.add(one)
        workload.more_labels |= one not in workload.label_sets
    for flag, detail in _flags(pod, spec, seccomp_default=seccomp_default):
        known = workload.flags.get(flag, ())
        if detail not in known and len(known) < _DETAILS_KEPT:
            workload.flags[flag] = (*known, sys.intern(values.text(detail, _DETAIL_CHARACTERS)))


def _flags(pod: Mapping[str, Any], spec: Mapping[str, Any], *, seccomp_default: bool) -> Iterator[tuple[str, str]]:
    above = values.part(spec, "securityContext")
    for name in ("hostPID", "hostIPC", "hostNetwork"):
        if spec.get(name) is True:
            yield name, f"{name}: true"
    for one in values.mappings(above.get("sysctls")):
        if (name := values.text(one.get("name"), 253)) not in _SAFE_SYSCTLS:
            yield "sysctl", name
    automount = spec.get("automountServiceAccountToken")
    yield ("token" if automount is None else "token-asked" if automount else "token-off"), ""
    for one in values.mappings(spec.get("tolerations")):
        if one.get("operator") == "Exists" and not one.get("key"):
            yield "tolerates-all", "tolerates every taint"
    is_windows = "windows" in (values.part(spec, "os").get("name"),
                               values.part(spec, "nodeSelector").get("kubernetes.io/os"))  # fmt: skip
    containers = [one for kind in _KINDS for one in values.mappings(spec.get(kind))]
    yield from _host_paths(spec, containers)
    for one in containers:
        name = values.text(one.get("name"), 63)
        for flag, detail in _container(one, above, spec, seccomp_default=seccomp_default, is_windows=is_windows):
            yield flag, f"{name}: {detail}"
    yield from _annotated(pod, len(containers))


def _container(
    one: Mapping[str, Any], above: Mapping[str, Any], spec: Mapping[str, Any], *, seccomp_default: bool,
    is_windows: bool,
) -> Iterator[tuple[str, str]]:  # fmt: skip
    own = values.part(one, "securityContext")
    windows = {**values.part(above, "windowsOptions"), **values.part(own, "windowsOptions")}
    if windows.get("hostProcess") is True:
        yield "hostProcess", "windowsOptions.hostProcess: true"
    for port in values.mappings(one.get("ports")):
        # With the node's network the API server fills in hostPort itself.
        if port.get("hostPort") and spec.get("hostNetwork") is not True:
            yield "hostPort", f"hostPort {values.text(str(port['hostPort']), 6)}"
    refs = [values.part(values.part(env, "valueFrom"), "secretKeyRef") for env in values.mappings(one.get("env"))]
    refs += [values.part(env, "secretRef") for env in values.mappings(one.get("envFrom"))]
    for ref in filter(None, refs):
        yield "secret-env", f"Secret {values.text(ref.get('name'), 80)}"
    if not is_windows:
        yield from _linux(own, above, spec, seccomp_default=seccomp_default)


def _linux(
    own: Mapping[str, Any], above: Mapping[str, Any], spec: Mapping[str, Any], *, seccomp_default: bool
) -> Iterator[tuple[str, str]]:
    is_privileged = own.get("privileged") is True
    if is_privileged:
        yield "privileged", "privileged: true"
    if own.get("procMount") not in (None, "Default"):
        yield "procMount", "procMount: Unmasked"
    capabilities = values.part(own, "capabilities")
    added, dropped = ({_capability(name) for name in values.texts(capabilities.get(key))} for key in ("add", "drop"))
    if extra := sorted(added - {"NET_BIND_SERVICE"}):
        yield "capabilities", f"adds {', '.join(extra)}"
    if is_privileged or added & {"NET_RAW", "ALL"} or not dropped & {"NET_RAW", "ALL"}:
        yield "NET_RAW", "NET_RAW is not dropped"
    if is_privileged or "ALL" not in dropped:
        yield "assigned", "keeps the runtime's default capabilities"
    # The kubelet sets no_new_privs only where this is false, and never for these.
    if own.get("allowPrivilegeEscalation") is not False or is_privileged or "SYS_ADMIN" in added:
        yield "escalation", "allowPrivilegeEscalation is not false"
    user, not_root = (own[key] if own.get(key) is not None else above.get(key) for key in ("runAsUser", "runAsNonRoot"))
    if spec.get("hostUsers") is not False and (user == 0 or (user is None and not_root is not True)):
        yield "root", "runAsUser: 0" if user == 0 else "neither runAsUser nor runAsNonRoot"
    profile = values.part(own, "seccompProfile").get("type") or values.part(above, "seccompProfile").get("type")
    if profile == "Unconfined" or is_privileged or (profile is None and not seccomp_default):
        yield "seccomp", "privileged" if is_privileged else "Unconfined" if profile else "no seccompProfile"
    apparmor = values.part(own, "appArmorProfile").get("type") or values.part(above, "appArmorProfile").get("type")
    if apparmor == "Unconfined":
        yield "apparmor", "appArmorProfile: Unconfined"


def _annotated(pod: Mapping[str, Any], containers: int) -> Iterator[tuple[str, str]]:
    """AppArmor's annotation, which counted before 1.30 and still does where the field is not set."""
    prefix = "container.apparmor.security.beta.kubernetes.io/"
    notes = values.part(values.part(pod, "metadata"), "annotations")
    for key, value in list(notes.items())[: 100 + containers]:
        if key.startswith(prefix) and value == "unconfined":
            yield "apparmor", f"{values.text(key.removeprefix(prefix), 63)}: unconfined by annotation"


def _host_paths(spec: Mapping[str, Any], containers: Sequence[Mapping[str, Any]]) -> Iterator[tuple[str, str]]:
    mounted = [one for one in values.mappings(spec.get("volumes")) if "hostPath" in one]
    # The API server refuses `..` in them; slashes and `.` mean nothing.
    paths = {
        values.text(one.get("name"), 63):
            posixpath.normpath("//" + values.text(values.part(one, "hostPath").get("path"), 4096))
        for one in mounted
    }  # fmt: skip
    if not paths:
        return
    mounts = [mount for one in containers for mount in values.mappings(one.get("volumeMounts"))]
    writable = {values.text(mount.get("name"), 63) for mount in mounts if mount.get("readOnly") is not True}
    for name, path in paths.items():
        detail = f"{values.text(path, 120)} ({'read-write' if name in writable else 'read-only'})"
        yield "hostPath", detail
        if path in _WHOLE or any(path == one or path.startswith(f"{one}/") for one in _SENSITIVE):
            yield "hostPath-sensitive", detail


def _capability(name: str) -> str:
    return name.upper().removeprefix("CAP_")
