"""Everything that is read about the node's kubelets in one pass. It refuses to judge.

A kubelet may end at any moment: what was read of one that is not there any more afterwards is discarded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from agent.controls.kubelet import discovery, effective, fields, files, http_findings, kernel_defaults, proxy, units
from agent.controls.kubelet.check import Facts, FileFact
from agent.controls.kubelet.discovery import Launch, Search
from agent.controls.kubelet.effective import Effective
from agent.controls.kubelet.files import Group
from agent.controls.kubelet.http_findings import Prober
from agent.controls.x509 import NotACertificate, is_self_signed
from agent.errors import AgentError, HostError, HostFileMissing
from agent.host import Host, Program
from agent.host.budget import CERTIFICATE_BYTES, Budget

# Requests /configz: from the port, for the run of the kubelet that the text names, trusting this certificate (PEM).
Configz = Callable[[int, str, bytes], Mapping[str, Any] | None]

# kubeadm's, which every unit of its packages reads; a kubelet started before it was changed does not have the change.
_ENVIRONMENT = "/var/lib/kubelet/kubeadm-flags.env"
# The file's time is the kernel's coarse clock, the process's is in clock ticks since boot.
_TOLERANCE_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Changes:
    """Files newer than the kubelet's process. certain: it was started with something else. doubtful: whether
    it was is unknown. undated: files whose time is unknown."""

    certain: tuple[str, ...] = ()
    doubtful: tuple[str, ...] = ()
    undated: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Kubelet:
    """One kubelet.

    ended: it was gone when everything had been read. answers: None when it was not to be probed. configz: why its own
    answer is missing, empty when it is there or was not requested.
    """

    launch: Launch
    facts: Facts
    files: tuple[Group, ...]
    changes: Changes = field(default_factory=Changes)
    answers: http_findings.ProbeResults | None = None
    ended: bool = False
    configz: str = ""


@dataclass(frozen=True, slots=True)
class Observation:
    """The node's kubelets, kube-proxies, and files. files: those in the usual places, when no kubelet runs."""

    search: Search
    processes: int
    kubelets: tuple[Kubelet, ...]
    proxies: tuple[proxy.ProxyObservation, ...]
    files: tuple[Group, ...] = ()


def observe(node: Host, *, prober: Prober | None, configz: Configz | None) -> Observation:
    """One pass over the node, within one budget. prober: None when ports are not probed. Raises HostError."""
    host = node.within(Budget())
    table = host.processes()
    search = discovery.search(host, table)
    one_runs = len(search.launches) == 1 and search.launches[0].runs
    ask = configz if one_runs else None  # of several, the answer could be any one's
    kubelets = tuple(_kubelet(host, launch, prober, ask) for launch in search.launches)
    running = host.still_running(one.launch.process for one in kubelets if one.launch.runs)
    kubelets = tuple(one if not one.launch.runs or one.launch.process in running else _ended(one) for one in kubelets)
    proxies = proxy.observe(host, table, search.launches)
    groups = [files.proxy_group([one.kubeconfig for one in proxies])]
    if all(one.ended for one in kubelets):
        groups += files.groups(host, host)
    found_files = tuple(files.look(host, group) for group in groups)
    return Observation(search, table.total, kubelets, proxies, found_files)


def _kubelet(host: Host, launch: Launch, prober: Prober | None, configz: Configz | None) -> Kubelet:
    view = _view(host, launch)
    config = effective.read(view, launch.flags, launch.process.cwd, doubt=launch.doubt)
    config, refused = _with_configz(configz, view, launch, config)
    facts = Facts(
        config,
        launch.place,
        _file(view, config.path(fields.CLIENT_CA), certificate=False),
        _file(view, config.path(fields.CERTIFICATE), certificate=True),
        kernel_defaults.advice(host),
    )
    groups = files.groups(host, view, launch.unit, config)
    # Units are systemd's, everything else is the kubelet's.
    found_files = tuple(files.look(host if group.mode_id == "4.1.1" else view, group) for group in groups)
    changes = _changes(host, view, launch, config) if launch.runs else Changes()
    answers = http_findings.ask(config, prober, host.addresses()) if prober is not None and launch.runs else None
    return Kubelet(launch, facts, found_files, changes, answers, configz=refused)


def _view(host: Host, launch: Launch) -> Host:
    """The files as the kubelet sees them; the node's own where another process's may not be looked at."""
    if not launch.runs:
        return host
    try:
        view = host.view_of(launch.process)
        view.names("/")
    except HostError:
        return host
    return view


def _file(view: Host, path: str, *, certificate: bool) -> FileFact:
    if not path:
        return FileFact()
    try:
        if not certificate:
            view.stat(path)
            return FileFact(path)
        return FileFact(path, self_signed=is_self_signed(view.read_bytes(path, limit_bytes=CERTIFICATE_BYTES)))
    except HostFileMissing:
        return FileFact(path, missing=True)
    except (HostError, NotACertificate) as error:
        return FileFact(path, problem=str(error))


def _changes(host: Host, view: Host, launch: Launch, config: Effective) -> Changes:
    """What changed since the kubelet started, by content: a newer file alone may have the same content."""
    own = [path for path in config.files if not any(name in path.split("/") for name in launch.generated)]
    newer, undated = _newer(view, own, launch, missing=True)
    flags, undated_flags = _newer(host, launch.flag_files, launch)
    starting, undated_units = _newer(host, (*_unit_files(host, launch.unit), _ENVIRONMENT), launch)
    command = _argv(host, launch.unit) if starting and launch.kind == "kubelet" else None
    differs = command is not None and command[1:] != launch.process.argv[1:]
    # The running kubelet's own answer is compared value by value: Effective.differences().
    doubtful = [] if config.configz is not None else [*newer, *flags]
    doubtful += starting if command is None else []
    return Changes(tuple(starting if differs else ()), tuple(doubtful), (*undated, *undated_flags, *undated_units))


def _argv(host: Host, unit: str) -> Sequence[str] | None:
    """How the unit would start the kubelet now; None where it starts something else, or that is unknown."""
    try:
        return discovery.unit_starts(host, unit, Program.KUBELET).argv
    except HostError:
        return None


def _unit_files(host: Host, unit: str) -> Sequence[str]:
    try:
        found = units.files(host, unit)
    except HostError:
        return [unit]  # no path: its time is unknown
    return [path for path in (found.fragment, *found.drop_ins) if path]


def _newer(view: Host, paths: Iterable[str], launch: Launch, *, missing: bool = False) -> tuple[list[str], list[str]]:
    """Files with a later time than the process, and those of unknown time. missing: whether they have to exist."""
    newer, undated = [], []
    for path in paths:
        try:
            changed = view.stat(path).changed_ns / 1e9
        except HostFileMissing:
            undated += [path] if missing else []
        except HostError:
            undated.append(path)
        else:
            newer += [path] if changed > launch.process.started + _TOLERANCE_SECONDS else []
    return newer, undated


def _ended(one: Kubelet) -> Kubelet:
    return Kubelet(one.launch, one.facts, (), ended=True)


def _with_configz(configz: Configz | None, view: Host, launch: Launch, config: Effective) -> tuple[Effective, str]:
    """With the running kubelet's own answer, or why it is missing."""
    if configz is None:
        return config, ""
    port = config.get(fields.PORT)
    number = fields.PORT.default if port.problem else port.value
    try:
        certificate = view.read_bytes(_serving_certificate(config), limit_bytes=CERTIFICATE_BYTES)
        answer = configz(int(number), f"{launch.process.pid} since {launch.process.started}", certificate)
        return effective.with_configz(config, answer), ""
    except AgentError as error:
        return config, str(error)


def _serving_certificate(config: Effective) -> str:
    """Where the kubelet keeps the certificate that it serves with: given, signed by the cluster, or made by itself.

    https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/certificate/kubelet.go, cmd/kubelet/app/server.go
    """
    if given := config.path(fields.CERTIFICATE):
        return given
    folder = config.absolute(config.flags.text("cert-dir", default=files.PKI))
    return f"{folder}/{'kubelet-server-current.pem' if config.get(fields.SERVER_TLS).value else 'kubelet.crt'}"
