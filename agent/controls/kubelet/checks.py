"""The checks of the kubelet's settings: CIS 4.2 and what it leaves out. One row each, all pure.

Values are judged, never their presence; a default counts as the value that it is.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable
from dataclasses import replace

from agent.controls.kubelet import fields
from agent.controls.kubelet.check import AGAIN, Check, CheckResult, Facts, Unknown, known
from agent.controls.kubelet.fields import Field, spelled
from agent.model import Severity, Status

# The six with forward secrecy and AEAD, both spellings of ChaCha20; those of TLS 1.3 are always on and do no harm.
_STRONG = """
    TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
    TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384 TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384
    TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305 TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305_SHA256
    TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305 TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305_SHA256
    TLS_AES_128_GCM_SHA256 TLS_AES_256_GCM_SHA384 TLS_CHACHA20_POLY1305_SHA256
"""
STRONG_CIPHERS = frozenset(_STRONG.split())
# CIS 4.2.12 has these two as well, and so do AKS's nodes: AEAD, but a key exchange without forward secrecy.
_ACCEPTED = frozenset(("TLS_RSA_WITH_AES_128_GCM_SHA256", "TLS_RSA_WITH_AES_256_GCM_SHA384"))
WEAK_TLS = ("VersionTLS10", "VersionTLS11")
_TLS_VERSIONS = (*WEAK_TLS, "VersionTLS12", "VersionTLS13")
_ROTATE = "RotateKubeletServerCertificate"
_PULL_POLICIES = ("NeverVerify", "NeverVerifyPreloadedImages", "NeverVerifyAllowlistedImages", "AlwaysVerify")


def is_loopback(address: str) -> bool | None:
    """Whether an address, with or without a port, is this machine only; None when it is no address."""
    host = address.strip()
    if host.startswith("["):
        host = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        host = host.partition(":")[0]
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return None


def _set_to(field: Field, value: object) -> Callable[[Facts], CheckResult]:
    """The one value that passes."""
    return lambda facts: facts.passed(field) if facts.known(field).value == value else facts.failed(field, value)


def _positive(field: Field, example: int) -> Callable[[Facts], CheckResult]:
    """A number above 0."""
    return lambda facts: facts.passed(field) if facts.known(field).value > 0 else facts.failed(field, example)


def _client_ca(facts: Facts) -> CheckResult:
    setting, file = facts.known(fields.CLIENT_CA), facts.client_ca
    observed = facts.shown(fields.CLIENT_CA)
    if not setting.value:
        return facts.failed(fields.CLIENT_CA, "/etc/kubernetes/pki/ca.crt")
    if file.missing:
        step = f"Put the cluster's CA at {file.path}, or name the file where it is at {setting.source}."
        return CheckResult(Status.FAIL, f"{observed}, and {file.path} is not there", setting.source, step)
    if file.problem:
        return CheckResult(Status.UNKNOWN, f"{observed}: {file.problem}", setting.source, AGAIN)
    return facts.passed(fields.CLIENT_CA)


def _streaming(facts: Facts) -> CheckResult:
    source = facts.known(fields.STREAMING).source
    return CheckResult(Status.INFO, f"{facts.shown(fields.STREAMING)} (has no effect)", source)


def _hostname(facts: Facts) -> CheckResult:
    setting = facts.known(fields.HOSTNAME)
    if not setting.value:
        return CheckResult(Status.PASS, "--hostname-override is not set", setting.source)
    return CheckResult(Status.INFO, f"--hostname-override={setting.value}", setting.source)


def _certificate(facts: Facts) -> CheckResult:
    certificate, key, bootstrap = map(facts.known, (fields.CERTIFICATE, fields.PRIVATE_KEY, fields.SERVER_TLS))
    if certificate.value and key.value:
        return _given_certificate(facts)
    if bootstrap.value:
        return _gated_off(facts, _ROTATE) or facts.passed(fields.SERVER_TLS)
    half = "tlsCertFile alone" if certificate.value else "tlsPrivateKeyFile alone" if key.value else "no tlsCertFile"
    observed = f"self-signed ({half}, serverTLSBootstrap: false)"
    step = facts.remedy(fields.SERVER_TLS, value=True) + " Its certificate requests need an approver."
    return CheckResult(Status.FAIL, observed, bootstrap.source, step)


def _given_certificate(facts: Facts) -> CheckResult:
    observed, source, file = facts.shown(fields.CERTIFICATE), facts.known(fields.CERTIFICATE).source, facts.certificate
    if file.missing or file.problem:
        why = "is not there" if file.missing else file.problem
        step = "Fix the cause; the kubelet does not start without it."
        return CheckResult(Status.UNKNOWN, f"{observed}: {file.path} {why}", source, step)
    if file.self_signed:
        step = f"Put a certificate of the cluster's CA at {file.path}, or set `serverTLSBootstrap: true` instead."
        return CheckResult(Status.FAIL, f"{observed}, self-signed", source, step)
    return facts.passed(fields.CERTIFICATE, ", issued by a CA")


def _gated_off(facts: Facts, feature: str) -> CheckResult | None:
    """The failure of a check whose setting has no effect, since a feature gate disables the feature."""
    name, gate = facts.effective.beta_gate(feature)
    if known(gate).value is not False:
        return None
    observed = f"feature gate {name}: false{'' if name == feature else f', and with it {feature}'}"
    step = f"Take {name}=false out of the feature gates and restart the kubelet."
    return CheckResult(Status.FAIL, observed, gate.source, step)


def _server_rotation(facts: Facts) -> CheckResult:
    bootstrap, certificate, key = map(facts.known, (fields.SERVER_TLS, fields.CERTIFICATE, fields.PRIVATE_KEY))
    if off := _gated_off(facts, _ROTATE):
        return off
    if bootstrap.value:
        return facts.passed(fields.SERVER_TLS)
    if certificate.value and key.value:
        return facts.passed(fields.CERTIFICATE, ": a managed certificate")
    failed = facts.failed(fields.SERVER_TLS, value=True)
    return replace(failed, remediation=f"{failed.remediation} An approver has to sign.")


def _ciphers(facts: Facts) -> CheckResult:
    setting = facts.known(fields.CIPHERS)
    if not setting.value:
        observed = "tlsCipherSuites is not set: Go's own list"
        return CheckResult(Status.INFO, observed, setting.source, severity=Severity.INFO)
    weak = [name for name in setting.value if name not in STRONG_CIPHERS | _ACCEPTED]
    if not weak:
        accepted = [name for name in setting.value if name in _ACCEPTED]
        note = f"; CIS accepts {', '.join(accepted)}, which have no forward secrecy" if accepted else ""
        return facts.passed(fields.CIPHERS, note)
    kept = [name for name in setting.value if name in STRONG_CIPHERS] or ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]
    failed = facts.failed(fields.CIPHERS, f"[{', '.join(kept)}]")
    return replace(failed, observed=f"weak: {', '.join(weak)}")


def _kernel_defaults(facts: Facts) -> CheckResult:
    if facts.known(fields.KERNEL_DEFAULTS).value:
        return facts.passed(fields.KERNEL_DEFAULTS)
    failed = facts.failed(fields.KERNEL_DEFAULTS, value=True)
    return replace(failed, remediation=facts.kernel_advice + failed.remediation)


def _tls_minimum(facts: Facts) -> CheckResult:
    setting = facts.known(fields.TLS_MINIMUM)
    if setting.value and setting.value not in _TLS_VERSIONS:
        raise _refused(facts, fields.TLS_MINIMUM, f"none of {', '.join(_TLS_VERSIONS)}")
    if setting.value in WEAK_TLS:
        return facts.failed(fields.TLS_MINIMUM, "VersionTLS12")
    return facts.passed(fields.TLS_MINIMUM)


def _refused(facts: Facts, field: Field, what: str) -> Unknown:
    return Unknown(f"{facts.shown(field)} is {what}; the kubelet refuses it", facts.effective.get(field).source)


def _sysctls(facts: Facts) -> CheckResult:
    setting = facts.known(fields.SYSCTLS)
    if not setting.value:
        return facts.passed(fields.SYSCTLS)
    wild = any("*" in name for name in setting.value)
    return replace(facts.failed(fields.SYSCTLS, ()), severity=Severity.HIGH if wild else Severity.MEDIUM)


def _pull_policy(facts: Facts) -> CheckResult:
    setting = facts.known(fields.PULL_POLICY)
    if setting.value and setting.value not in _PULL_POLICIES:
        raise _refused(facts, fields.PULL_POLICY, f"none of {', '.join(_PULL_POLICIES)}")
    if setting.value != "NeverVerify":
        return _gated_off(facts, "KubeletEnsureSecretPulledImages") or facts.passed(fields.PULL_POLICY)
    return facts.failed(fields.PULL_POLICY, "NeverVerifyPreloadedImages")


def _profiling(facts: Facts) -> CheckResult:
    """Both handlers are only there while enableDebuggingHandlers is on (pkg/kubelet/server, PR 87273)."""
    if not facts.known(fields.DEBUGGING).value:
        return facts.passed(fields.DEBUGGING)
    handlers = {field: facts.known(field) for field in (fields.PROFILING, fields.DEBUG_FLAGS)}
    observed = ", ".join(map(facts.shown, handlers))
    source = ", ".join(dict.fromkeys(setting.source for setting in handlers.values()))
    steps = [facts.remedy(field, value=False) for field, setting in handlers.items() if setting.value]
    return CheckResult(Status.FAIL if steps else Status.PASS, observed, source, " ".join(steps))


def _healthz(facts: Facts) -> CheckResult:
    address, port = facts.known(fields.HEALTHZ), facts.known(fields.HEALTHZ_PORT)
    if port.value == 0:
        return facts.passed(fields.HEALTHZ_PORT, " (off)")
    loopback = is_loopback(address.value)
    if loopback is None:
        raise _refused(facts, fields.HEALTHZ, "not an address")
    return facts.passed(fields.HEALTHZ) if loopback else facts.failed(fields.HEALTHZ, "127.0.0.1")


def _gates(facts: Facts) -> CheckResult:
    setting = known(facts.effective.gate("AllAlpha"))
    observed = "AllAlpha is not set" if setting.value is None else f"AllAlpha: {spelled(setting.value)}"
    if not setting.value:
        return CheckResult(Status.PASS, observed, setting.source)
    step = "Take AllAlpha out of the feature gates, name the few that are needed, and restart the kubelet."
    return CheckResult(Status.FAIL, observed, setting.source, step)


CHECKS: tuple[Check, ...] = (
    Check("4.2.1", "Anonymous requests are refused", Severity.CRITICAL, "false", _set_to(fields.ANONYMOUS, False)),
    Check("webhook", "Bearer tokens are checked with the API server", Severity.HIGH, "true",
          _set_to(fields.WEBHOOK, True)),
    Check("4.2.2", "Requests are authorized by the API server", Severity.CRITICAL, "Webhook",
          _set_to(fields.AUTHORIZATION, "Webhook")),
    Check("4.2.3", "Client certificates are checked against a CA", Severity.HIGH, "set, and the file there",
          _client_ca),
    Check("4.2.4", "The read-only port is off", Severity.HIGH, "0", _set_to(fields.READ_ONLY_PORT, 0)),
    Check("4.2.5", "Idle streaming connections", Severity.INFO, "anything", _streaming),
    Check("4.2.6", "The kubelet keeps its iptables chains", Severity.LOW, "true", _set_to(fields.IPTABLES, True)),
    Check("4.2.7", "The node's name is not overridden", Severity.INFO, "not set", _hostname),
    Check("4.2.8", "Events are limited, not unbounded", Severity.LOW, "more than 0", _positive(fields.EVENT_QPS, 50)),
    Check("4.2.9", "The serving certificate is issued by a CA", Severity.MEDIUM,
          "a certificate from a CA, or serverTLSBootstrap: true", _certificate),
    Check("4.2.10", "The client certificate is rotated", Severity.MEDIUM, "true", _set_to(fields.ROTATE, True)),
    Check("4.2.11", "The serving certificate is rotated", Severity.MEDIUM, "true, or a managed certificate",
          _server_rotation),
    Check("4.2.12", "Only strong cipher suites", Severity.HIGH, "a subset of those that CIS lists", _ciphers),
    Check("4.2.13", "Processes of a pod are limited", Severity.MEDIUM, "more than 0", _positive(fields.PIDS, 4096)),
    Check("4.2.14", "Pods run under the runtime's seccomp profile", Severity.HIGH, "true",
          _set_to(fields.SECCOMP, True)),
    Check("defaults", "The kernel's settings are checked, not changed", Severity.MEDIUM, "true", _kernel_defaults),
    Check("tlsmin", "No TLS older than 1.2", Severity.LOW, "not set, VersionTLS12 or VersionTLS13", _tls_minimum),
    Check("sysctls", "No unsafe sysctls for pods", Severity.HIGH, "empty", _sysctls),
    Check("pullcreds", "Image pull credentials are verified", Severity.MEDIUM, "not NeverVerify", _pull_policy),
    Check("syslog", "The node's logs are not served", Severity.MEDIUM, "false", _set_to(fields.LOG_QUERY, False)),
    Check("profiling", "Profiling and debug flags are off", Severity.LOW, "false", _profiling),
    Check("healthz", "The health port is for this node only", Severity.LOW, "a loopback address", _healthz),
    Check("static", "No static pods from a URL", Severity.HIGH, "empty", _set_to(fields.STATIC_URL, "")),
    Check("gates", "Not every alpha feature is on", Severity.MEDIUM, "AllAlpha not true", _gates),
)  # fmt: skip
