"""Which processes are kubelets, and with which arguments each was really started.

A kubelet of its own (kubeadm, RKE2, k0s, EKS …) shows on its command line. K3s runs it inside `k3s server|agent`,
which wipes its own arguments from /proc, and MicroK8s inside `kubelite`, which reads them from a file: there the
arguments are put together as those programs do it. MicroShift gives its own a file that it writes. Where they cannot be
read nothing is believed.
https://github.com/k3s-io/k3s (pkg/daemons/agent, pkg/configfilearg, pkg/util/args.go), https://github.com/canonical/microk8s,
https://github.com/openshift/microshift (pkg/node/kubelet.go)
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from agent.controls.kubelet import flags as kubelet_flags
from agent.controls.kubelet import units, yaml_tree
from agent.controls.kubelet.flags import Argument, Flags
from agent.controls.kubelet.yaml_tree import DocumentRefused, Value
from agent.errors import HostError, HostFileMissing
from agent.host import Host, Process, ProcessTable, Program
from agent.host.budget import ARGUMENTS_BYTES, CONFIG_BYTES
from agent.host.identity import program_named

LOOKED_FOR = "kubelet, k3s server or agent, microshift run, MicroK8s' kubelite"
K3S_DATA = "/var/lib/rancher/k3s"
K3S_CONFIG = "/etc/rancher/k3s/config.yaml"
MICROSHIFT_CONFIG = "/etc/microshift/config.yaml"
MICROSHIFT_DATA = "/var/lib/microshift/resources/kubelet"
MICROK8S_ARGS = "/var/snap/microk8s/current/args"

_UNITS = {
    "kubelet.service": Program.KUBELET,
    "k3s.service": Program.K3S,
    "k3s-agent.service": Program.K3S,
    "microshift.service": Program.MICROSHIFT,
    "snap.microk8s.daemon-kubelite.service": Program.KUBELITE,
}
_K3S_VALUED = frozenset(
    ("config", "c", "data-dir", "d", "kubelet-arg", "kube-proxy-arg", "kube-apiserver-arg", "etcd-arg",
     "kube-controller-manager-arg", "kube-scheduler-arg")
)  # fmt: skip
_K3S_SWITCHES = frozenset(("disable-agent", "disable-kube-proxy", "protect-kernel-defaults"))
_K3S_SHORT = {"c": "config", "d": "data-dir"}
_K3S_GENERATED = ("00-k3s-defaults.conf", "10-cli-config.conf", "20-cli-config-dir")
_K3S_ENVIRONMENT = frozenset(("K3S_CONFIG_FILE", "K3S_DATA_DIR"))
_NODE_NAME = "<node name>"  # K3s and MicroShift always pass it to their kubelet, also the host's own
_VARIABLE = re.compile(r"\$\{(\w+)\}|\$(\w+)")


@dataclass(frozen=True, slots=True)
class Launch:
    """One kubelet and how it was started.

    kind: `kubelet`, `k3s`, `microshift` or `microk8s`. doubt: why the flags are not known, empty when they are. place:
    where its flags are set. unit: its systemd unit. generated: names of configuration files that it writes itself at
    each start. proxy: the flags of a kube-proxy in the same process, None where there is none or where proxy_problem
    names why they are unknown. flag_files: files that hold its flags.
    """

    process: Process
    kind: str
    flags: Flags
    place: str
    unit: str = ""
    doubt: str = ""
    generated: tuple[str, ...] = ()
    proxy: Flags | None = None
    proxy_problem: str = ""
    flag_files: tuple[str, ...] = ()

    @property
    def called(self) -> str:
        """The kubelet as `ps` shows it: `kubelet (pid 812)`, `the kubelet in k3s (pid 812)`."""
        named = "kubelet" if self.kind == "kubelet" else f"the kubelet in {self.kind}"
        return f"{named} ({f'pid {self.process.pid}' if self.runs else f'as {self.unit} would start it'})"

    @property
    def runs(self) -> bool:
        """Whether it is a process; false on a tree that no kernel runs on, where only the unit is known."""
        return self.process.pid != 0


@dataclass(frozen=True, slots=True)
class Search:
    """The node's kubelets. notes: what an operator should know about processes that were not taken for one."""

    launches: tuple[Launch, ...]
    notes: tuple[str, ...] = ()


def search(host: Host, table: ProcessTable) -> Search:
    """Every kubelet of the node, oldest first."""
    processes, unread = (table.processes, []) if host.has_processes or table.total else _stored(host)
    found = [launch for process in processes if (launch := _launch(host, process)) is not None]
    notes = unread + ([f"some processes could not be verified: {table.unverified}"] if table.unverified else [])
    if not found:
        if table.others:
            notes.append(f"{table.others} processes have such a name and are not the node's own (user, container)")
        notes += [
            f"rke2 (pid {process.pid}) runs without a kubelet below it"
            for process in table.processes
            if process.program is Program.RKE2
        ]
    return Search(tuple(sorted(found, key=lambda one: (one.process.started, one.process.pid))), tuple(notes))


def _stored(host: Host) -> tuple[tuple[Process, ...], list[str]]:
    """What the units of a tree without a /proc would start, never a process of this machine; and why that is unknown
    of others."""
    found, notes = list[Process](), list[str]()
    for unit, program in _UNITS.items():
        try:
            if units.files(host, unit).fragment:
                start = unit_starts(host, unit, program)
                found.append(Process(0, program, start.argv, start.folder, unit=unit))
        except HostError as error:
            notes.append(str(error))
    return tuple(found), notes


def unit_starts(host: Host, unit: str, program: Program) -> units.Command:
    """How a unit starts this program itself. Raises HostError where it starts another one, or that is unknown."""
    start = units.command(host, unit)
    name, words = posixpath.basename(start.argv[0]), start.argv[1:2]
    itself = program_named(name) is program and (name != "hyperkube" or words == ("kubelet",))
    if not (itself or (program is Program.KUBELITE and name == "snap")) or (program is Program.K3S and not words):
        raise HostError(f"{unit} starts {start.argv[0]}: with which arguments {program.value} runs is unknown")
    return start


def _launch(host: Host, process: Process) -> Launch | None:
    match process.program:
        case Program.KUBELET:
            flags = kubelet_flags.parse(kubelet_flags.arguments(_after_name(process.argv)))
            unit = process.unit or "kubelet.service"
            return Launch(process, "kubelet", flags, f"the kubelet's command line ({unit})", unit)
        case Program.KUBELITE:
            return _microk8s(host, process, kubelet_flags.parse(kubelet_flags.arguments(process.argv[1:])))
        case Program.MICROSHIFT if process.argv[1:2] == ("run",):
            own = (
                f"--config={MICROSHIFT_DATA}/config/config.yaml", f"--kubeconfig={MICROSHIFT_DATA}/kubeconfig",
                f"--hostname-override={_NODE_NAME}",
            )  # fmt: skip
            flags = kubelet_flags.parse(tuple(Argument(one, "set by MicroShift") for one in own))
            unit = process.unit or "microshift.service"
            place = f"`kubelet` in {MICROSHIFT_CONFIG}"
            return Launch(process, "microshift", flags, place, unit, generated=("config.yaml",))
        case Program.K3S:
            return _k3s(host, process, process.argv[1], process.argv[2:])
        case _:
            return None


def _after_name(argv: Sequence[str]) -> Sequence[str]:
    """The flags: what comes after `kubelet`, which an interpreter or hyperkube may stand before."""
    names = [posixpath.basename(word) for word in argv[:3]]
    return argv[names.index("kubelet") + 1 :] if "kubelet" in names else argv[1:]


# -- MicroK8s ----------------------------------------------------------------------------------------------------------


def _microk8s(host: Host, process: Process, own: Flags) -> Launch:
    path = own.text("kubelet-args-file", default=f"{MICROK8S_ARGS}/kubelet")
    proxy_path = own.text("proxy-args-file", default=f"{MICROK8S_ARGS}/kube-proxy")
    unit = process.unit or "snap.microk8s.daemon-kubelite.service"
    doubt, proxy_problem, flags, proxy = "", "", Flags(()), None
    try:
        flags = kubelet_flags.parse(tuple(args_file(host, path)))
    except HostError as error:
        doubt = f"the arguments of kubelite cannot be read: {error}"
    try:
        proxy = kubelet_flags.parse(tuple(args_file(host, proxy_path)))
    except HostFileMissing:
        pass  # MicroK8s runs without kube-proxy then
    except HostError as error:
        proxy_problem = f"kube-proxy's arguments cannot be read: {error}"
    return Launch(
        process, "microk8s", flags, path, unit, doubt, proxy=proxy, proxy_problem=proxy_problem, flag_files=(path,)
    )


def args_file(host: Host, path: str) -> Iterator[Argument]:
    """One or more arguments a line; quotes are dropped, `#` begins a comment line, ${SNAP_DATA} is put in.

    Raises HostError.
    """
    data = posixpath.dirname(posixpath.dirname(path))
    known = {"SNAP_DATA": data, "SNAP_COMMON": posixpath.join(posixpath.dirname(data), "common")}
    for number, line in enumerate(host.read_text(path, limit_bytes=ARGUMENTS_BYTES).splitlines(), 1):
        if line.strip() and not line.lstrip().startswith("#"):
            for word in line.replace('"', "").replace("'", "").split():
                text = _VARIABLE.sub(lambda found: known.get(found[1] or found[2], found[0]), word)
                yield Argument(text, f"{path}:{number}")


# -- K3s ---------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class K3s:
    """What `k3s` was given. config: its configuration file; files: all those of it that are there.

    given: values by flag, from the command line or else from the files.
    """

    config: str = K3S_CONFIG
    files: tuple[str, ...] = ()
    given: Mapping[str, Sequence[Argument]] = field(default_factory=dict)

    def all(self, name: str) -> Sequence[Argument]:
        """Every value of a flag, in order."""
        return self.given.get(name, ())

    def is_on(self, name: str) -> bool:
        """Whether a switch is given and not false."""
        return kubelet_flags.boolean((self.all(name) or (Argument(""),))[-1].text) is True

    @property
    def data_dir(self) -> str:
        """Where k3s keeps what it makes."""
        return posixpath.normpath((self.all("data-dir") or (Argument(K3S_DATA),))[-1].text)


def _k3s(host: Host, process: Process, role: str, visible: Sequence[str]) -> Launch | None:
    unit = process.unit or ("k3s.service" if role == "server" else "k3s-agent.service")
    cli, doubt = _k3s_cli(host, unit, role, visible)
    k3s, flags = K3s(cli.text("config", "c", default=K3S_CONFIG), given=_on_command_line(cli)), Flags(())
    try:
        k3s = _k3s_given(host, cli)
        flags = _k3s_flags(host, k3s)
    except (HostError, DocumentRefused) as error:
        doubt = doubt or f"the configuration of k3s cannot be read: {error}"
    if k3s.is_on("disable-agent"):
        return None
    disabled = k3s.is_on("disable-kube-proxy")
    proxy = None if disabled or doubt else kubelet_flags.parse(put_together({}, k3s.all("kube-proxy-arg")))
    place = f"kubelet-arg in {k3s.config}, or a drop-in in {k3s.data_dir}/agent/etc/kubelet.conf.d"
    return Launch(
        process, "k3s", flags, place, unit, doubt, _K3S_GENERATED, proxy, "" if disabled else doubt, k3s.files
    )


def _k3s_cli(host: Host, unit: str, role: str, visible: Sequence[str]) -> tuple[Flags, str]:
    """k3s's own flags, and why they are not known."""
    doubt = ""
    own: Sequence[str] | None = visible or units.exec_start(host, unit)
    if own is None:
        doubt = f"k3s hides its arguments in /proc, and those of {unit} cannot be read"
        own = ()
    elif not visible:
        own = own[own.index(role) + 1 :] if role in own else ()
        doubt = (
            f"ExecStart of {unit} has variables that only systemd fills in" if any("$" in one for one in own) else ""
        )
    doubt = doubt or _k3s_moved(host, unit)
    return kubelet_flags.parse(kubelet_flags.arguments(own), boolean=_K3S_SWITCHES, valued=_K3S_VALUED), doubt


def _k3s_moved(host: Host, unit: str) -> str:
    """Why k3s may read other files than those that are read here; empty when it does not."""
    try:
        moved = _K3S_ENVIRONMENT & units.environment(host, unit).keys()
    except HostError as error:
        return f"the environment of {unit} is unknown: {error}"
    return f"{unit} sets {', '.join(sorted(moved))}, which this check does not follow" if moved else ""


def k3s_server(host: Host, process: Process) -> K3s:
    """What a `k3s server` was given. Raises AgentError."""
    cli, doubt = _k3s_cli(host, process.unit or "k3s.service", "server", process.argv[2:])
    if doubt:
        raise HostError(doubt)
    return _k3s_given(host, cli)


def _k3s_given(host: Host, cli: Flags) -> K3s:
    """Raises HostError, DocumentRefused."""
    config = cli.text("config", "c", default=K3S_CONFIG)
    files = _k3s_files(host, config)
    return K3s(config, files, {**_k3s_config(host, files), **_on_command_line(cli)})


def _on_command_line(cli: Flags) -> dict[str, Sequence[Argument]]:
    return {_K3S_SHORT.get(name, name): tuple(Argument(flag.value) for flag in cli.all(name)) for name in cli.names}


def _k3s_files(host: Host, path: str) -> tuple[str, ...]:
    """config.yaml, then what is in config.yaml.d. Raises HostError."""
    own = [path] if host.exists(path) else []
    names = host.names(f"{path}.d") if host.exists(f"{path}.d") else ()
    return (*own, *(f"{path}.d/{name}" for name in names if name.lower().endswith((".yaml", ".yml"))))


def _k3s_config(host: Host, files: Sequence[str]) -> Mapping[str, Sequence[Argument]]:
    """What the files set: a later key replaces, `key+` appends. Raises HostError, DocumentRefused."""
    found: dict[str, tuple[Argument, ...]] = {}
    for file in files:
        content = host.read_bytes(file, limit_bytes=CONFIG_BYTES)
        for key, value in yaml_tree.load(content, file, budget=host.budget).items() if content.strip() else ():
            texts = tuple(_texts(value))
            name = key.removesuffix("+")
            found[name] = (*found.get(name, ()), *texts) if key.endswith("+") else texts
    return found


def _texts(value: Value) -> Iterator[Argument]:
    for item in value.data if isinstance(value.data, tuple) else (value,):
        if not isinstance(item.data, Mapping | tuple) and item.data is not None:
            text = str(item.data).lower() if isinstance(item.data, bool) else str(item.data)
            yield Argument(text, item.source)


def _k3s_flags(host: Host, k3s: K3s) -> Flags:
    """The kubelet's flags as k3s builds them: its own defaults, each replaced by a kubelet-arg of that name."""
    agent, extra = f"{k3s.data_dir}/agent", k3s.all("kubelet-arg")
    own = {"kubeconfig": f"{agent}/kubelet.kubeconfig", "read-only-port": "0", "hostname-override": _NODE_NAME}
    drop_ins = f"{agent}/etc/kubelet.conf.d"
    if host.exists(f"{drop_ins}/{_K3S_GENERATED[0]}"):
        own["config-dir"] = drop_ins
        # From 1.32 on both are copied into that folder instead (10-cli-config.conf, 20-cli-config-dir).
        names = ("config", "config-dir")
        extra = [
            one for one in extra if kubelet_flags.normal(one.text.removeprefix("--").partition("=")[0]) not in names
        ]
    else:
        own |= {
            "anonymous-auth": "false",
            "authentication-token-webhook": "true",
            "authorization-mode": "Webhook",
            "client-ca-file": f"{agent}/client-ca.crt",
            "healthz-bind-address": "127.0.0.1",
            "tls-cert-file": f"{agent}/serving-kubelet.crt",
            "tls-private-key-file": f"{agent}/serving-kubelet.key",
        }
        if k3s.is_on("protect-kernel-defaults"):  # from 1.32 on it is in the file above
            own["protect-kernel-defaults"] = "true"
    return kubelet_flags.parse(put_together(own, extra))


def put_together(own: Mapping[str, str], extra: Sequence[Argument]) -> tuple[Argument, ...]:
    """util.GetArgs: `name=value` replaces the default, `name+=` comes after it, `name-=` before it."""
    values: dict[str, list[Argument]] = {
        name: [Argument(f"--{name}={value}", "set by k3s")] for name, value in own.items()
    }
    touched: set[str] = set()
    for argument in extra:
        name, equals, value = argument.text.removeprefix("--").partition("=")
        cleaned = name.rstrip("-+")
        origin = argument.origin or "kubelet-arg of k3s"
        made = Argument(f"--{cleaned}={value if equals else 'true'}", origin)
        if name.endswith("-"):
            values[cleaned] = [made, *values.get(cleaned, [])]
        elif name.endswith("+") or cleaned in touched:
            values[cleaned] = [*values.get(cleaned, []), made]
        else:
            values[cleaned] = [made]
        touched.add(cleaned)
    return tuple(argument for _, several in sorted(values.items()) for argument in several)
