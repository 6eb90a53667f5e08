"""Which parts of a control plane run on this node, and with which settings each was really started.

A setting is the value that counts, with the place that decides it: the last of a repeated flag, the sum of a list flag,
the configuration file that makes etcd ignore everything else, what k3s and MicroK8s keep in files of their own, and the
default of the version that runs. What another process claims is never read (host/identity.py).
https://github.com/spf13/pflag, https://etcd.io/docs/latest/op-guide/configuration/
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from agent.controls.control_plane.flags import BOOLEANS, DEFAULTS, ETCD_FILE, Kind, kind_of
from agent.controls.kubelet import discovery, yaml_tree
from agent.controls.kubelet import flags as kubelet_flags
from agent.controls.kubelet.effective import Setting
from agent.controls.kubelet.fields import Wrong, split_csv
from agent.controls.kubelet.flags import Argument, Flags
from agent.errors import AgentError, HostError
from agent.host import Host, Process, Program

_MICROK8S = {
    Program.API_SERVER: ("apiserver-args-file", "kube-apiserver"),
    Program.CONTROLLER_MANAGER: ("controller-manager-args-file", "kube-controller-manager"),
    Program.SCHEDULER: ("scheduler-args-file", "kube-scheduler"),
}
_K3S = {
    Program.API_SERVER: "kube-apiserver-arg",
    Program.CONTROLLER_MANAGER: "kube-controller-manager-arg",
    Program.SCHEDULER: "kube-scheduler-arg",
    Program.ETCD: "etcd-arg",
}
# Read once, at the start. What is read again when it changes: authentication, authorization, certificates.
READ_ONCE = ("audit-policy-file", "admission-control-config-file", "encryption-provider-config", "config")
_RELOADED = "encryption-provider-config-automatic-reload"
_TOLERANCE_SECONDS = 2.0  # a file's time is the kernel's coarse clock, a process's is in ticks since boot
_CLASSIFIED = "CLASSIFIED"  # what /flagz has for secrets
_COMPONENT = re.compile("^(kube)?:")
_HIDDEN = "k3s wipes its arguments from /proc, and sets this itself where its configuration does not"
# What k3s sets itself to a value that depends on more than its configuration: pkg/daemons/control/server.go.
_SET_BY_K3S = frozenset((
    "secure-port", "bind-address", "tls-cert-file", "tls-private-key-file", "service-account-key-file",
    "client-ca-file",
    "service-account-signing-key-file", "kubelet-certificate-authority", "kubelet-client-certificate",
    "kubelet-client-key", "requestheader-client-ca-file", "requestheader-allowed-names", "etcd-servers",
    "etcd-certfile", "etcd-keyfile", "etcd-cafile", "encryption-provider-config", "tls-cipher-suites",
    "tls-min-version", "enable-bootstrap-token-auth", "allow-privileged", "service-account-private-key-file",
    "root-ca-file", "controllers", "kubeconfig", "cluster-signing-key-file",
))  # fmt: skip


@dataclass(frozen=True, slots=True)
class Component:
    """One part of the control plane.

    program: which one. view: the files as it sees them. place: where its flags are set. doubt: why its settings are not
    known at all. hidden: flags that may be set where that is not seen, so that one which is not among the flags is
    unknown. release: `1.36.2`, `3.6.5-0`, empty when unknown. flagz: what it reported itself. embedded: it shares its
    process.
    """

    program: Program
    process: Process
    view: Host
    flags: Flags
    place: str
    doubt: str = ""
    hidden: frozenset[str] = frozenset()
    release: str = ""
    flagz: Mapping[str, str] = field(default_factory=dict)
    embedded: bool = False

    @property
    def called(self) -> str:
        """`kube-apiserver (pid 812)`."""
        inside = f" in {self.process.program.value}" if self.embedded else ""
        return f"{self.program.value}{inside} (pid {self.process.pid})"

    @property
    def version(self) -> int:
        """The minor version, 0 when it is unknown."""
        return int(self.release.split(".")[1]) if self.release else 0

    def get(self, name: str) -> Setting:
        """The effective value: a bool, a tuple for lists, a mapping for gates, else text."""
        kind = kind_of(self.program, name)
        if (shown := self.flagz.get(name, _CLASSIFIED)) != _CLASSIFIED:
            # pflag shows lists in brackets, a flag that is text here and takes several among them.
            return self._parsed(
                kind, [shown[1:-1] if shown.startswith("[") and shown.endswith("]") else shown], "flagz"
            )
        if self.doubt:
            return Setting(None, "", self.doubt)
        if given := self.flags.all(name):
            return self._parsed(kind, [flag.value for flag in given], given[-1].source)
        if name in self.hidden:
            return Setting(None, "", f"--{name}: {_HIDDEN}")
        return self._default(name, kind)

    def text(self, name: str) -> str:
        """A text setting; empty when it is unset or unknown."""
        setting = self.get(name)
        return "" if setting.problem else str(setting.value)

    def path(self, name: str) -> str:
        """A setting that is a path, as the component opens it."""
        given = self.text(name)
        return posixpath.normpath(posixpath.join("/", self.process.cwd, given)) if given else ""

    def outdated(self, name: str) -> str:
        """Why what the file of a flag holds may not be what it runs with; empty when it is."""
        path = self.path(name) if name in READ_ONCE else ""
        if not path or (name == "encryption-provider-config" and self.get(_RELOADED).value is True):
            return ""
        return newer(self.view, self.process, path)

    def _default(self, name: str, kind: Kind) -> Setting:
        default = DEFAULTS[self.program].get(name, "")
        if isinstance(default, str):
            return self._parsed(kind, [default] if default else [], "default")
        since, before, after = default
        if not self.version:
            problem = f"--{name} is not set, and its default ({before} before 1.{since}, {after} from then on) "
            return Setting(None, "", problem + "depends on the version, which is unknown")
        return Setting(after if self.version >= since else before, f"default of 1.{self.version}")

    @staticmethod
    def _parsed(kind: Kind, texts: Iterable[str], source: str) -> Setting:
        given = list(texts)
        if kind is Kind.LIST:
            try:
                items = [item.strip() for text in given for item in split_csv(text)]
            except Wrong as error:
                return Setting(None, source, str(error))
            return Setting(tuple(item for item in items if item), source)
        if kind is Kind.MAP:
            pairs = (pair.partition("=") for text in given for pair in text.split(",") if pair.strip())
            # Since 1.31 a gate may have its component before it: `kube:AllAlpha=true`, `:AllAlpha=true` in /flagz.
            named = ((_COMPONENT.sub("", name.strip()), value.strip() or "true") for name, _, value in pairs)
            return Setting(dict(named), source)
        text = given[-1] if given else ""
        if kind is Kind.BOOLEAN:
            value = kubelet_flags.boolean(text) if text else False
            return Setting(value, source, "" if value is not None else f"{text[:80]!r} is neither true nor false")
        return Setting(text, source)


def find(host: Host, processes: Iterable[Process]) -> Iterator[Component]:
    """The components that these processes are."""
    for process in processes:
        match process.program:
            case Program.KUBELITE:
                yield from _microk8s(host, process)
            case Program.K3S:
                yield from _k3s(host, process)
            case program if program in DEFAULTS:
                yield _alone(host, process)


def _alone(host: Host, process: Process) -> Component:
    """A process of its own. What it names is never looked for among the node's files in place of its own."""
    words = process.argv[2:] if process.argv[1:2] == (process.program.value,) else process.argv[1:]
    try:
        view = host.view_of(process)
    except HostError as error:
        found = _process(host, process, process.program, kubelet_flags.arguments(words))
        return replace(found, doubt=f"its files cannot be seen: {error}")
    if process.program is Program.ETCD:
        return _etcd(host, view, process)
    return _process(view, process, process.program, kubelet_flags.arguments(words))


def _process(view: Host, process: Process, program: Program, words: Iterable[Argument]) -> Component:
    place = process.unit or f"its manifest or command line ({program.value})"
    flags = parse(program, words)
    doubt = ""
    if flags.text("openshift-config"):
        doubt = f"its settings are in {flags.text('openshift-config')}, OpenShift's own format"
    return Component(program, process, view, flags, place, doubt)


def parse(program: Program, words: Iterable[Argument]) -> Flags:
    """The flags of a component, as pflag reads them."""
    valued = frozenset(name for name in DEFAULTS[program] if kind_of(program, name) is not Kind.BOOLEAN)
    return kubelet_flags.parse(tuple(words), boolean=BOOLEANS, valued=valued)


def newer(view: Host, process: Process, *paths: str) -> str:
    """Which of the files changed after the process had started, or may have, as a reason; empty when none did."""
    for path in paths:
        try:
            changed = view.stat(path).changed_ns / 1e9
        except HostError as error:
            return f"unknown whether {path} changed after it started: {error}"
        if changed > process.started + _TOLERANCE_SECONDS:
            return f"{path} changed after it started; unknown whether it runs with that content"
    return ""


# -- etcd --------------------------------------------------------------------------------------------------------------


def _etcd(host: Host, view: Host, process: Process) -> Component:
    """Its command line and environment; with a configuration file that alone."""
    # Go's own package flag takes `-name` for `--name`.
    given = [f"-{word}" if word.startswith("-") and word[1:2] != "-" else word for word in process.argv[1:]]
    one = _process(view, process, Program.ETCD, kubelet_flags.arguments(given))
    try:
        with host.entry_of(process) as entry:
            environment = entry.environment("ETCD_")
    except (OSError, HostError) as error:
        return replace(one, doubt=f"its environment (ETCD_*) cannot be read: {error}")
    by_environment = {name[5:].lower().replace("_", "-"): value for name, value in environment.items()}
    if path := one.flags.text("config-file") or by_environment.get("config-file", ""):
        path = posixpath.join("/", process.cwd, path)
        read = from_etcd_file(one, path)
        return replace(read, doubt=read.doubt or newer(view, process, path))
    unset = [name for name in by_environment if not one.flags.all(name)]
    words = (*kubelet_flags.arguments(given),
             *(Argument(f"--{name}={by_environment[name]}", "environment") for name in unset))  # fmt: skip
    return replace(one, flags=parse(Program.ETCD, words))


def from_etcd_file(one: Component, path: str) -> Component:
    """The component with what its configuration file sets, and nothing else."""
    try:
        tree = yaml_tree.read(one.view, path)
    except AgentError as error:
        return replace(one, doubt=f"its configuration file cannot be read: {error}", place=path)
    words = []
    for key, flag in ETCD_FILE.items():
        value = yaml_tree.find(tree, key)
        if value is not None and value.data is not None:
            data = yaml_tree.to_json(value)
            text = ",".join(map(str, data)) if isinstance(data, list) else _spelled(data)
            words.append(Argument(f"--{flag}={text}", value.source))
    return replace(one, flags=parse(Program.ETCD, words), place=path)


def _spelled(data: Any) -> str:
    return ("true" if data else "false") if isinstance(data, bool) else str(data)


# -- MicroK8s and k3s --------------------------------------------------------------------------------------------------


def _microk8s(host: Host, process: Process) -> Iterator[Component]:
    own = kubelet_flags.parse(kubelet_flags.arguments(process.argv[1:]))
    if kubelet_flags.boolean(own.text("start-control-plane", default="true")) is False:
        return
    for program, (flag, file) in _MICROK8S.items():
        path = own.text(flag, default=f"{discovery.MICROK8S_ARGS}/{file}")
        try:
            words, doubt = tuple(discovery.args_file(host, path)), newer(host, process, path)
        except HostError as error:
            words, doubt = (), f"its arguments cannot be read: {error}"
        yield Component(program, process, host, parse(program, words), path, doubt, embedded=True)


def _k3s(host: Host, process: Process) -> Iterator[Component]:
    """`k3s server`: what its configuration passes on. What it sets itself is known for few flags only."""
    if process.argv[1:2] != ("server",):
        return
    k3s = discovery.K3s()
    try:
        k3s = discovery.k3s_server(host, process)
        doubt = newer(host, process, *k3s.files)
    except AgentError as error:
        doubt = f"the configuration of k3s cannot be read: {error}"
    for program, key in _K3S.items():
        words = discovery.put_together(_K3S_DEFAULTS.get(program, {}), k3s.all(key))
        one = Component(program, process, host, parse(program, words), f"{key} in {k3s.config}", doubt, _SET_BY_K3S,
                        embedded=True)  # fmt: skip
        etcd_file = f"{k3s.data_dir}/server/db/etcd/config"
        if program is not Program.ETCD:
            yield one
        else:
            try:
                if host.exists(etcd_file):
                    yield from_etcd_file(replace(one, doubt=""), etcd_file)
            except HostError as error:
                yield replace(one, doubt=f"unknown whether it runs: {error}")


# https://docs.k3s.io/security/hardening-guide, pkg/daemons/control/server.go
_K3S_DEFAULTS: Mapping[Program, Mapping[str, str]] = {
    Program.API_SERVER: {
        "anonymous-auth": "false", "profiling": "false", "authorization-mode": "Node,RBAC",
        "enable-admission-plugins": "NodeRestriction",
    },
    Program.CONTROLLER_MANAGER: {"profiling": "false", "use-service-account-credentials": "true"},
    Program.SCHEDULER: {"profiling": "false"},
}  # fmt: skip
