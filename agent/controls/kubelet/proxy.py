"""kube-proxy's metrics address (CIS 4.3.1), and where its kubeconfig is.

Not finding a kube-proxy says nothing about the cluster: the CNI plugin may do its work. A configuration file makes
kube-proxy ignore its flags.
https://github.com/kubernetes/kubernetes/blob/master/cmd/kube-proxy/app/options.go
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass

from agent.controls.kubelet import flags as kubelet_flags
from agent.controls.kubelet import yaml_tree
from agent.controls.kubelet.check import CheckResult, Row
from agent.controls.kubelet.checks import is_loopback
from agent.controls.kubelet.discovery import Launch
from agent.controls.kubelet.flags import Flags
from agent.controls.kubelet.yaml_tree import DocumentRefused
from agent.errors import HostError
from agent.host import Host, Process
from agent.model import Finding, Severity, Status

_API_VERSION = "kubeproxy.config.k8s.io/v1alpha1"
_KIND = "KubeProxyConfiguration"
_DEFAULT = "127.0.0.1:10249"
_BOOLEAN = frozenset(("cleanup", "help", "masquerade-all", "profiling", "version", "bind-address-hard-fail"))
_VALUED = frozenset(("config", "kubeconfig", "metrics-bind-address", "v"))


ROW = Row("4.3.1", "kube-proxy's metrics are for this node only", Severity.MEDIUM, "a loopback address")


@dataclass(frozen=True, slots=True)
class ProxyObservation:
    """kube-proxy as found. address: None when there is no kube-proxy. kubeconfig: empty when unknown."""

    address: str | None = None
    source: str = ""
    problem: str = ""
    kubeconfig: str = ""


def observe(host: Host, processes: Sequence[Process], launches: Sequence[Launch]) -> ProxyObservation:
    """The first kube-proxy: a process of its own, else the one inside k3s or MicroK8s. Never raises."""
    for process in processes:
        if process.argv and "kube-proxy" in (process.name, posixpath.basename(process.argv[0])):
            try:
                view = host.view_of(process)
            except HostError:
                view = host
            flags = kubelet_flags.parse(kubelet_flags.arguments(process.argv[1:]), boolean=_BOOLEAN, valued=_VALUED)
            return _read(view, flags, process.cwd)
    for launch in launches:
        if launch.proxy is not None:
            return _read(host, launch.proxy, launch.process.cwd)
    return ProxyObservation()


def judge(seen: ProxyObservation) -> Finding:
    """Pure."""
    if seen.problem:
        return ROW.finding(CheckResult(Status.UNKNOWN, seen.problem, seen.source, "Mend what is named and look again."))
    if seen.address is None:
        none = "no process kube-proxy here, and none inside k3s or MicroK8s (the CNI plugin may do its work)"
        return ROW.finding(CheckResult(Status.NOT_APPLICABLE, none, "processes"))
    observed = f"metricsBindAddress: {seen.address or '(off)'}"
    loopback = is_loopback(seen.address) if seen.address else True
    if loopback is None:
        step = f"Set it to {_DEFAULT} and restart kube-proxy."
        return ROW.finding(CheckResult(Status.UNKNOWN, f"{observed} is not an address", seen.source, step))
    if loopback:
        return ROW.finding(CheckResult(Status.PASS, observed, seen.source))
    step = f"Set `metricsBindAddress: {_DEFAULT}` (or --metrics-bind-address) and restart kube-proxy."
    return ROW.finding(CheckResult(Status.FAIL, observed, seen.source, step))


def _read(view: Host, flags: Flags, cwd: str) -> ProxyObservation:
    def absolute(path: str) -> str:
        return posixpath.normpath(posixpath.join("/", cwd, path)) if path else ""

    config = absolute(flags.text("config"))
    if not config:
        given = flags.last("metrics-bind-address")
        kubeconfig = absolute(flags.text("kubeconfig"))
        if given is None:
            return ProxyObservation(_DEFAULT, "default", kubeconfig=kubeconfig)
        return ProxyObservation(given.value, given.source, kubeconfig=kubeconfig)
    try:
        tree = yaml_tree.load(view.read_text(config), config)
        yaml_tree.require_kind(tree, config, api_version=_API_VERSION, kind=_KIND)
    except (HostError, DocumentRefused) as error:
        return ProxyObservation(problem=f"kube-proxy's configuration cannot be read: {error}", source=config)
    named = yaml_tree.find(tree, "clientConnection.kubeconfig")
    kubeconfig = absolute(str(named.data)) if named is not None and isinstance(named.data, str) else ""
    found = yaml_tree.find(tree, "metricsBindAddress")
    if found is None or found.data == "":
        return ProxyObservation(_DEFAULT, "default (with --config)", kubeconfig=kubeconfig)
    if not isinstance(found.data, str):
        return ProxyObservation(
            problem=f"{found.source}: metricsBindAddress is {yaml_tree.shown(found)}, not text", source=config
        )
    return ProxyObservation(found.data, found.source, kubeconfig=kubeconfig)
