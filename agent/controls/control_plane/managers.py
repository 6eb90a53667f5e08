"""The checks of kube-controller-manager and kube-scheduler: CIS 1.3 and 1.4, and what they leave out. All pure."""

from __future__ import annotations

import ipaddress

from agent.controls.control_plane.check import Check, Facts, Line, flag, is_set, noted, shown, table
from agent.controls.control_plane.documents import mapping
from agent.controls.kubelet.check import CheckResult
from agent.controls.kubelet.checks import is_loopback
from agent.controls.kubelet.fields import deciding_gate
from agent.controls.kubelet.flags import boolean
from agent.host import Program
from agent.model import Severity, Status

HIGH, MEDIUM, LOW, INFO = Severity.HIGH, Severity.MEDIUM, Severity.LOW, Severity.INFO
_PPROF = "/debug/pprof/"
_INNER = ("/metrics", "/debug", "/configz", "/flagz", "/statusz")
_ROTATE = "RotateKubeletServerCertificate"


def _profiling(facts: Facts) -> CheckResult:
    """Its own answer where that decides: 404 is off, 200 is on for everybody, anything else decides nothing."""
    answers = facts.seen.answers(_PPROF)
    fix = facts.fix("Set --profiling=false")
    if facts.component.program is Program.SCHEDULER and facts.value("config"):
        fix = f"Set enableProfiling: false in {facts.component.path('config')}; --profiling is ignored beside --config."
    if opened := [url for url, answer in answers if answer.status == 200]:
        observed = f"GET {opened[0]} without credentials: 200"
        return CheckResult(Status.FAIL, observed, opened[0], fix, HIGH)
    if answers and all(answer.status == 404 for _, answer in answers):
        return CheckResult(Status.PASS, f"GET {answers[0][0]}: 404", answers[0][0])
    if facts.component.program is Program.SCHEDULER and facts.value("config"):
        path, document = facts.document("config")
        on = document.get("enableProfiling") is not False
        observed = f"enableProfiling: {'true' if on else 'false'}"
        return CheckResult(Status.FAIL if on else Status.PASS, observed, path, fix if on else "")
    return flag("profiling", False, "Set --profiling=false")(facts)


def _bind(facts: Facts) -> CheckResult:
    """By its own sockets where they are known: a flag that is left out means every address."""
    if facts.seen.sockets:
        outside = [str(one) for one in facts.seen.sockets if not ipaddress.ip_address(one.address).is_loopback]
        observed = f"listens on {', '.join(map(str, facts.seen.sockets))}"
        if not outside:
            return facts.passed(observed, "bind-address")
        return facts.failed(observed, "Set --bind-address=127.0.0.1", "bind-address")
    address, port = facts.value("bind-address"), facts.value("secure-port")
    if port == "0" or is_loopback(address):
        return facts.passed(f"{shown('bind-address', address)}, {shown('secure-port', port)}", "bind-address")
    return facts.failed(shown("bind-address", address), "Set --bind-address=127.0.0.1", "bind-address")


def _open_paths(facts: Facts) -> CheckResult:
    name = "authorization-always-allow-paths"
    paths = facts.value(name)
    fix = f"Set --{name}=/healthz,/readyz,/livez"
    opened = [url for path in ("/metrics", _PPROF) for url, answer in facts.seen.answers(path) if answer.status == 200]
    if opened:
        return facts.failed(f"without credentials: {', '.join(opened)} (200)", fix, name)
    if wide := [path for path in paths if "*" in path or path.startswith(_INNER)]:
        return facts.failed(f"open to everybody: {', '.join(wide)}", fix, name)
    return facts.passed(shown(name, paths), name)


def _rotate(facts: Facts) -> CheckResult:
    gates = facts.value("feature-gates")
    name = deciding_gate(gates, _ROTATE)
    gate = gates.get(name, "true")
    if boolean(gate) is False:
        return facts.failed(f"{name}={gate}", f"Take {name} out of --feature-gates", "feature-gates")
    return facts.passed(f"{name}={gate}", "feature-gates")


def _config_gates(facts: Facts) -> CheckResult:
    gates = dict(facts.value("feature-gates"))
    if facts.component.program is Program.SCHEDULER and facts.value("config"):
        path, document = facts.document("config")
        gates |= {key: str(on).lower() for key, on in mapping(document.get("featureGates") or {}, path).items()}
    if boolean(str(gates.get("AllAlpha", "false"))):
        return facts.failed("AllAlpha=true", "Name the few features that are needed", "feature-gates")
    return facts.passed("not every alpha feature is on", "feature-gates")


_BOTH: tuple[Line, ...] = (
    ("open-paths", "", "K3", HIGH, "Metrics and profiles need authorization", "no wildcard", _open_paths),
    ("alpha", "", "K13", MEDIUM, "Not every alpha feature is on", "no AllAlpha", _config_gates),
)
_MANAGER: tuple[Line, ...] = (
    ("pod-gc", "1.3.1", "K5", INFO, "Terminated pods are collected", "anything", noted("terminated-pod-gc-threshold")),
    ("profiling", "1.3.2", "K13", LOW, "Profiling is off", "false", _profiling),
    ("own-accounts", "1.3.3", "K3", MEDIUM, "Each controller has its own service account", "true",
     flag("use-service-account-credentials", True, "Set --use-service-account-credentials=true")),
    ("token-key", "1.3.4", "K14", MEDIUM, "Service accounts' tokens are signed with a key of their own", "set",
     is_set("service-account-private-key-file", fix="Set --service-account-private-key-file")),
    ("root-ca", "1.3.5", "K1", MEDIUM, "Pods get the API server's CA", "set",
     is_set("root-ca-file", fix="Set --root-ca-file")),
    ("kubelet-rotation", "1.3.6", "K14", MEDIUM, "Kubelets' serving certificates are rotated", "not false", _rotate),
    ("bind", "1.3.7", "K1", LOW, "It listens on loopback only", "127.0.0.1", _bind),
    ("signing-duration", "", "K14", INFO, "How long signed certificates are valid", "8760h0m0s or less",
     noted("cluster-signing-duration")),
    ("controllers", "", "K14", INFO, "Which controllers run", "anything", noted("controllers")),
    *_BOTH,
)  # fmt: skip
_SCHEDULER: tuple[Line, ...] = (
    ("profiling", "1.4.1", "K13", LOW, "Profiling is off", "false", _profiling),
    ("bind", "1.4.2", "K1", LOW, "It listens on loopback only", "127.0.0.1", _bind),
    *_BOTH,
)
CHECKS: tuple[Check, ...] = (*table(Program.CONTROLLER_MANAGER, *_MANAGER), *table(Program.SCHEDULER, *_SCHEDULER))
