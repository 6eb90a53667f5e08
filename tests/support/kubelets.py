"""Staged kubelets for tests: a node's tree in a folder, and kubelets that are said to run on it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from agent.config import schema
from agent.controls.kubelet import KubeletControl, effective
from agent.controls.kubelet import flags as kubelet_flags
from agent.controls.kubelet.check import Facts
from agent.controls.kubelet.checks import CHECKS
from agent.controls.probe import Response
from agent.host import Host, Process, ProcessTable, Program, identity
from agent.host.identity import program_named
from agent.model import Finding, Status

HEADER = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n"
CONFIG = "/var/lib/kubelet/config.yaml"
DROP_INS = "/etc/kubernetes/kubelet.conf.d"


class StagedHost(Host):
    """A tree with processes that are only said to run and to be the node's own. `passes`: what each observation of the
    processes gives, the last for all later ones."""

    def __init__(self, root: Path, *passes: Sequence[Process]) -> None:
        super().__init__(root)
        self._passes = list(passes)

    def processes(self, _programs: frozenset[Program] = identity.NODE_PROGRAMS) -> ProcessTable:
        found = self._next()
        return ProcessTable(tuple(found), total=len(found))

    def still_running(self, started: Iterable[Process]) -> tuple[Process, ...]:
        now = self._next()
        return tuple(one for one in started if one in now)

    def _next(self) -> Sequence[Process]:
        return self._passes.pop(0) if len(self._passes) > 1 else self._passes[0]

    def view_of(self, process: Process) -> Host:
        """The kubelet sees the same tree."""
        del process
        return self


@dataclass(frozen=True, slots=True)
class StagedProber:
    """Answers that are said to come from the kubelet's ports."""

    to_secure: Response
    to_plain: Response

    def __call__(self, _address: str, _port: int, *, tls: bool) -> Response:
        return self.to_secure if tls else self.to_plain


def process(*args: str, name: str = "kubelet", pid: int = 812, started: float = 4e9, cwd: str = "/") -> Process:
    """A process of the node whose first argument is its program. It started so late that no file is newer."""
    program = program_named(name)
    assert program is not None
    return Process(pid, program, args, cwd, started)


def plant(root: Path, files: Mapping[str, str]) -> Path:
    """Writes a node's files below the root."""
    for path, content in files.items():
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
    return root


def config(body: str) -> str:
    """A kubelet configuration with its two headers, the body from line 3 on."""
    return HEADER + body


def settings(root: Path, args: Iterable[str], cwd: str = "/") -> dict[str, Finding]:
    """The findings of the settings' checks for a kubelet with these arguments, by id."""
    told = effective.read(Host(root), kubelet_flags.parse(kubelet_flags.arguments(args)), cwd)
    facts = Facts(told, "the kubelet's command line")
    return {check.id: check.finding(check.result(facts)) for check in CHECKS}


QUIET = StagedProber(Response(401), Response(error="refused"))
HARDENED = config(
    "authentication: {x509: {clientCAFile: ca.crt}}\nrotateCertificates: true\nserverTLSBootstrap: true\n"
    "podPidsLimit: 4096\nseccompDefault: true\nprotectKernelDefaults: true\nenableProfilingHandler: false\n"
    "enableDebugFlagsHandler: false\ntlsCipherSuites: [TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256]\n"
)


def audit(
    root: Path,
    *passes: list[Process],
    skip: Mapping[str, str] | None = None,
    prober: StagedProber = QUIET,
    configz: Any = None,
    probe: bool = True,
) -> dict[str, Finding]:
    """The control's findings by id, without its name. passes: what each look at the processes gives."""
    asked = None if configz is None else lambda _port, _run, _certificate: configz()
    if configz is not None:  # it is asked only by a certificate
        plant(root, {f"/var/lib/kubelet/pki/{name}": "PEM" for name in ("kubelet.crt", "kubelet-server-current.pem")})
    policy = schema.Kubelet(skip=skip or {}, probe=probe)
    control = KubeletControl(policy, StagedHost(root, *(passes or ([],))), configz=asked, prober=prober)
    seen = control.observe()
    found = list(control.judge(seen))
    assert control.plan(seen) == ()
    assert len({finding.id for finding in found}) == len(found)
    for finding in found:
        assert finding.control == "kubelet"
        assert finding.observed
        assert finding.status in (Status.PASS, Status.INFO, Status.NOT_APPLICABLE) or finding.remediation, finding
    return {finding.id.removeprefix("kubelet/"): finding for finding in found}
