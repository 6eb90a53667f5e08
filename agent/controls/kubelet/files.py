"""Modes and owners of the kubelet's files: CIS 4.1 and what it leaves out.

A file that is not there is not applicable, never a failure. A mode that is too open does no harm below a folder that
is closed to others; the finding names the folder.
"""

from __future__ import annotations

import posixpath
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from agent.controls.kubelet import fields, units
from agent.controls.kubelet.check import CONTROL, CheckResult, Row
from agent.controls.kubelet.effective import Effective
from agent.controls.kubelet.flags import Flag, Flags
from agent.errors import HostError, HostFileMissing
from agent.host import FileStat, Host, read_or
from agent.model import Finding, Severity, Status
from agent.text import join_limited

# As kubeadm starts a kubelet; where the files are when none runs.
_USUAL = Effective(
    Flags((
        Flag("kubeconfig", "/etc/kubernetes/kubelet.conf"),
        Flag("bootstrap-kubeconfig", "/etc/kubernetes/bootstrap-kubelet.conf"),
        Flag("client-ca-file", "/etc/kubernetes/pki/ca.crt"),
    )),
    config="/var/lib/kubelet/config.yaml",
)  # fmt: skip
PKI = "/var/lib/kubelet/pki"
_CNI = "/etc/cni/net.d"
_CNI_NUMBERS = ("1.1.9", "1.1.10")
_SOCKETS = (
    "/run/containerd/containerd.sock",
    "/run/crio/crio.sock",
    "/run/cri-dockerd.sock",
    "/run/docker.sock",
    "/run/k3s/containerd/containerd.sock",
    "/var/snap/microk8s/common/run/containerd.sock",
)
_SOCKET_MODE = 0o775
_MAX_LINKS = 40  # the kernel's own limit
_KEYS = (".key", ".pem")
_PLUGINS = (".conf", ".conflist", ".json", "kubeconfig")
_K3S_CNI = "/var/lib/rancher/k3s/agent/etc/cni/net.d"

_few = partial(join_limited, characters=400)

IDS = (
    "4.1.1", "4.1.2", "4.1.3", "4.1.4", "4.1.5", "4.1.6", "4.1.7", "4.1.8", "4.1.9", "4.1.10", "file/drop-ins",
    "file/bootstrap", "file/pki", "file/cni", "file/socket",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class FoundFile:
    """One file as found. closed_by: the nearest folder above that neither group nor others get through."""

    path: str
    stat: FileStat | None = None
    missing: bool = False
    problem: str = ""
    closed_by: str = ""


@dataclass(frozen=True, slots=True)
class Group:
    """Files that are judged alike. paths: those to look at; trouble: why not all of them are known; found: once seen.

    mode_id, owner_id: ids of the two findings; an empty owner_id puts both into one. any_group: the group is free.
    owners: users who may own them. control, cis, section: of the findings, where they are not the kubelet's.
    """

    mode_id: str
    owner_id: str
    title: str
    severity: Severity
    maximum: int
    paths: tuple[str, ...]
    trouble: str = ""
    any_group: bool = False
    owners: tuple[int, ...] = (0,)
    control: str = CONTROL
    cis: tuple[str, ...] = ()
    section: str = "K4"
    found: tuple[FoundFile, ...] = ()


def groups(host: Host, view: Host, unit: str = "", config: Effective = _USUAL) -> tuple[Group, ...]:
    """What there is to look at, by the kubelet's own flags and configuration where one runs, else the usual places."""

    def named(default: str, *names: str) -> str:
        given = config.flags.text(*names)
        return config.absolute(given) if given else default

    unit_files, unit_trouble = _unit(host, unit or "kubelet.service")
    file = config.absolute(config.config) if config.config else ""
    drop_ins = tuple(path for path in config.files if path != file)
    bootstrap = named("", "bootstrap-kubeconfig", "experimental-bootstrap-kubeconfig")
    runtime, sockets = config.get(fields.RUNTIME), _SOCKETS
    if not runtime.problem and runtime.value.startswith(("unix://", "/")):
        sockets = tuple(dict.fromkeys((runtime.value.removeprefix("unix://"), *_SOCKETS)))
    keys, keys_trouble = _below(view, (named(PKI, "cert-dir"),), _KEYS)
    plugins, plugins_trouble = _below(view, (named(_CNI, "cni-conf-dir"), _K3S_CNI), _PLUGINS)
    key = config.path(fields.PRIVATE_KEY)
    high, medium = Severity.HIGH, Severity.MEDIUM
    return (
        Group("4.1.1", "4.1.2", "The kubelet's unit and its drop-ins", medium, 0o600, unit_files, unit_trouble),
        Group("4.1.5", "4.1.6", "The kubelet's kubeconfig", high, 0o600, _some(named("", "kubeconfig"))),
        Group("4.1.7", "4.1.8", "The client CA", medium, 0o644, _some(config.path(fields.CLIENT_CA))),
        Group("4.1.9", "4.1.10", "The kubelet's configuration", medium, 0o600, _some(file)),
        Group("file/drop-ins", "", "The drop-ins of the configuration", medium, 0o600, drop_ins),
        Group("file/bootstrap", "", "The bootstrap kubeconfig", high, 0o600, _some(bootstrap)),
        Group("file/pki", "", "The kubelet's private keys", high, 0o600, (*keys, *_some(key)), keys_trouble),
        Group("file/cni", "", "The CNI configuration", medium, 0o600, plugins, plugins_trouble, cis=_CNI_NUMBERS),
        Group("file/socket", "", "The runtime's sockets", high, _SOCKET_MODE, sockets, any_group=True),
    )


def proxy_group(kubeconfigs: Sequence[str]) -> Group:
    """kube-proxy's kubeconfig, or those of several; empty where it is not known."""
    return Group("4.1.3", "4.1.4", "kube-proxy's kubeconfig", Severity.HIGH, 0o600, tuple(filter(None, kubeconfigs)))


def look(view: Host, group: Group) -> Group:
    """With each file of the group as it is. Never raises."""
    return replace(group, found=tuple(look_at(view, path) for path in dict.fromkeys(group.paths)))


def judge(group: Group) -> tuple[Finding, ...]:
    """One finding for the modes and one for the owners, or one for both. Pure."""
    if not group.owner_id:
        return (_finding(group, group.mode_id, mode=True, owner=True),)
    return (
        _finding(group, group.mode_id, mode=True, owner=False),
        _finding(group, group.owner_id, mode=False, owner=True),
    )


def _finding(group: Group, id_: str, *, mode: bool, owner: bool) -> Finding:
    owned = ("root" if group.owners == (0,) else "its user") if group.any_group else "root:root"
    allowed = "not world-writable" if group.maximum == _SOCKET_MODE else f"{group.maximum:04o} or less"
    expected = ", ".join([allowed] * mode + [f"owned by {owned}"] * owner)
    what = " and ".join(["mode"] * mode + ["owner"] * owner)
    row = Row(id_, f"{group.title}: {what}", group.severity, expected,
              control=group.control, cis=group.cis, section=group.section)  # fmt: skip
    return row.finding(_verdict(group, mode=mode, owner=owner))


def _verdict(group: Group, *, mode: bool, owner: bool) -> CheckResult:
    wrong: list[str] = []
    closed: list[str] = []
    good: list[str] = []
    steps: list[str] = []
    problems = [group.trouble] if group.trouble else []
    for one in group.found:
        if one.stat is None:
            problems += [one.problem] if one.problem else []
            continue
        excess = one.stat.mode & ~group.maximum & 0o777
        if mode and excess and one.closed_by:
            closed.append(f"{one.path} is {one.stat.mode:04o}, but {one.closed_by} is closed to others")
        elif mode and excess:
            wrong.append(f"{one.path} is {one.stat.mode:04o}")
            steps.append(f"chmod {one.stat.mode & group.maximum:04o} {one.path}")
        foreign = one.stat.uid not in group.owners or (one.stat.gid != 0 and not group.any_group)
        if owner and foreign:
            wrong.append(f"{one.path} is owned by {one.stat.uid}:{one.stat.gid}")
            steps.append(f"chown {'root' if group.any_group else 'root:root'} {one.path}")
        if not (mode and excess) and not (owner and foreign):
            good.append(f"{one.path} is {one.stat.mode:04o}" if mode else f"{one.path} is root's")
    if wrong:
        return CheckResult(Status.FAIL, _few([*wrong, *problems]), "stat", "; ".join(steps[:8]))
    if problems:
        return CheckResult(Status.UNKNOWN, _few(problems), "stat", "Run the agent as root, or fix the cause.")
    if closed or good:
        return CheckResult(Status.PASS, _few([*closed, *good]), "stat")
    missing = [one.path for one in group.found if one.missing]
    return CheckResult(Status.NOT_APPLICABLE, f"not there: {_few(missing)}" if missing else "none is in use", "stat")


def look_at(view: Host, path: str) -> FoundFile:
    """A file as it is. Never raises."""
    try:
        found = view.stat(path)
        return FoundFile(path, found, closed_by=_closed_by(view, path))
    except HostFileMissing:
        return FoundFile(path, missing=True)
    except HostError as error:
        return FoundFile(path, problem=str(error))


def _closed_by(view: Host, path: str) -> str:
    """A folder of root's above the file through which only root, or root and its group, can reach it.

    The folder of a link closes nothing: what it leads to can be reached where it is.
    """
    folder = posixpath.dirname(_followed(view, path))
    while folder not in ("/", ""):
        folder = _followed(view, folder)
        found = view.stat(folder)
        if found.uid == 0 and not found.mode & 0o001 and (not found.mode & 0o010 or found.gid == 0):
            return f"{folder} ({found.mode:04o})"
        folder = posixpath.dirname(folder)
    return ""


def _followed(view: Host, path: str) -> str:
    """What a link leads to; any other path itself."""
    for _ in range(_MAX_LINKS):
        if not (target := read_or("", view.read_link, path)):
            break
        path = posixpath.normpath(posixpath.join(posixpath.dirname(path), target))
    return path


def _unit(host: Host, unit: str) -> tuple[tuple[str, ...], str]:
    try:
        found = units.files(host, unit)
    except HostError as error:
        return (), str(error)
    return (*_some(found.fragment), *found.drop_ins), ""


def _below(view: Host, folders: Sequence[str], endings: tuple[str, ...]) -> tuple[tuple[str, ...], str]:
    """Files in the folders that end so; a missing folder holds none."""
    found: list[str] = []
    for folder in folders:
        try:
            paths = [f"{folder}/{name}" for name in view.names(folder) if name.endswith(endings)]
        except HostFileMissing:
            continue
        except HostError as error:
            return tuple(found), str(error)
        found += [path for path in paths if (stat := look_at(view, path).stat) is None or stat.kind == "file"]
    return tuple(found), ""


def _some(path: str) -> tuple[str, ...]:
    return (path,) if path else ()
