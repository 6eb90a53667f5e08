"""kube-proxy's metrics address (CIS 4.3.1), and where its kubeconfig is.

A configuration file makes kube-proxy ignore its flags. It refuses to read anything of a kube-proxy in a container.
https://github.com/kubernetes/kubernetes/blob/master/cmd/kube-proxy/app/options.go
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from agent.controls.kubelet import flags as kubelet_flags
from agent.controls.kubelet import yaml_tree
from agent.controls.kubelet.check import AGAIN, CheckResult, Row
from agent.controls.kubelet.checks import is_loopback
from agent.controls.kubelet.discovery import Launch
from agent.controls.kubelet.flags import Flags
from agent.controls.kubelet.yaml_tree import DocumentRefused
from agent.errors import HostError
from agent.host import Host, ProcessTable, Program
from agent.model import Finding, Severity, Status

_API_VERSION = "kubeproxy.config.k8s.io/v1alpha1"
_KIND = "KubeProxyConfiguration"
_PORT = 10249
_DEFAULT = f"127.0.0.1:{_PORT}"
_BOOLEAN = frozenset(("cleanup", "help", "masquerade-all", "profiling", "version", "bind-address-hard-fail"))
_VALUED = frozenset(("config", "kubeconfig", "metrics-bind-address", "v"))


ROW = Row("4.3.1", "kube-proxy's metrics are for this node only", Severity.MEDIUM, "a loopback address")


@dataclass(frozen=True, slots=True)
class ProxyObservation:
    """One kube-proxy as found. kubeconfig: empty when unknown."""

    address: str = ""
    source: str = ""
    problem: str = ""
    kubeconfig: str = ""


def observe(host: Host, table: ProcessTable, launches: Sequence[Launch]) -> tuple[ProxyObservation, ...]:
    """Every kube-proxy of the node: processes of its own, those inside k3s or MicroK8s, else what serves its port.

    kubeadm runs it in a container, whose arguments any container could have; but the kernel knows which addresses are
    open on its port. Never raises.
    """
    found = []
    for process in table.processes:
        if process.program is Program.KUBE_PROXY:
            try:
                view = host.view_of(process)
            except HostError:
                view = host
            flags = kubelet_flags.parse(kubelet_flags.arguments(process.argv[1:]), boolean=_BOOLEAN, valued=_VALUED)
            found.append(_read(view, flags, process.cwd))
    for one in launches:
        if one.proxy_problem:
            found.append(ProxyObservation(problem=one.proxy_problem, source=one.place))
        elif one.proxy is not None:
            found.append(_read(host, one.proxy, one.process.cwd))
    return tuple(found) or _listening(host)


def judge(seen: Sequence[ProxyObservation]) -> tuple[Finding, ...]:
    """One finding for each kube-proxy, or one that there is none. Pure."""
    none = "kube-proxy does not run on this node (the CNI plugin may do its work)"
    if not seen:
        return (ROW.finding(CheckResult(Status.NOT_APPLICABLE, none, "processes, listening sockets")),)
    return tuple(ROW.finding(_result(one)) for one in seen)


def _result(seen: ProxyObservation) -> CheckResult:
    if seen.problem:
        return CheckResult(Status.UNKNOWN, seen.problem, seen.source, AGAIN)
    observed = f"metricsBindAddress: {seen.address or '(off)'}"
    loopback = is_loopback(seen.address) if seen.address else True
    if loopback is None:
        step = f"Set it to {_DEFAULT} and restart kube-proxy."
        return CheckResult(Status.UNKNOWN, f"{observed} is not an address", seen.source, step)
    if loopback:
        return CheckResult(Status.PASS, observed, seen.source)
    step = f"Set `metricsBindAddress: {_DEFAULT}` (or --metrics-bind-address) and restart kube-proxy."
    return CheckResult(Status.FAIL, observed, seen.source, step)


def _listening(host: Host) -> tuple[ProxyObservation, ...]:
    source = "listening sockets (/proc/1/net/tcp)"
    try:
        addresses = host.listening(_PORT)
    except HostError as error:
        return (ProxyObservation(problem=f"whether kube-proxy listens is unknown: {error}", source=source),)
    return tuple(ProxyObservation(f"{f'[{one}]' if ':' in one else one}:{_PORT}", source) for one in addresses)


def _read(view: Host, flags: Flags, cwd: str) -> ProxyObservation:
    def absolute(path: str) -> str:
        return posixpath.normpath(posixpath.join("/", cwd, path)) if path else ""

    config = absolute(flags.text("config"))
    if not config:
        given = flags.last("metrics-bind-address")
        address, source = (given.value, given.source) if given else (_DEFAULT, "default")
        return ProxyObservation(address, source, kubeconfig=absolute(flags.text("kubeconfig")))
    try:
        tree = yaml_tree.read(view, config)
        yaml_tree.require_kind(tree, config, api_version=_API_VERSION, kind=_KIND)
    except (HostError, DocumentRefused) as error:
        return ProxyObservation(problem=f"kube-proxy's configuration cannot be read: {error}", source=config)
    named = yaml_tree.find(tree, "clientConnection.kubeconfig")
    kubeconfig = absolute(str(named.data)) if named is not None and isinstance(named.data, str) else ""
    found = yaml_tree.find(tree, "metricsBindAddress")
    if found is None or found.data == "":
        return ProxyObservation(_DEFAULT, "default (with --config)", kubeconfig=kubeconfig)
    if not isinstance(found.data, str):
        problem = f"{found.source}: metricsBindAddress is {yaml_tree.shown(found)}, not text"
        return ProxyObservation(problem=problem, source=config)
    return ProxyObservation(found.data, found.source, kubeconfig=kubeconfig)
