"""The checks of the kubelet's settings: CIS 4.2 and what it leaves out. One row each, all pure.

Values are judged, never their presence; a default counts as the value that it is.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping

from agent.controls.kubelet import fields
from agent.controls.kubelet.check import Check, CheckResult, Facts, FileFact, remedy, setting_check, shown, unknown
from agent.controls.kubelet.effective import Setting
from agent.controls.kubelet.fields import spelled
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
_TLS_VERSIONS: Mapping[str, bool] = {
    "VersionTLS10": False,
    "VersionTLS11": False,
    "VersionTLS12": True,
    "VersionTLS13": True,
}
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


def _client_ca(facts: Facts) -> CheckResult:
    field, setting = fields.CLIENT_CA, facts.effective.get(fields.CLIENT_CA)
    fix = "authentication.x509.clientCAFile: /etc/kubernetes/pki/ca.crt"
    if setting.problem:
        return unknown(setting)
    if not setting.value:
        return CheckResult(Status.FAIL, shown(field, setting), setting.source, remedy(facts, field, setting, fix))
    file = facts.client_ca
    if file.missing:
        step = f"Put the cluster's CA at {file.path}, or name the file where it is at {setting.source}."
        return CheckResult(Status.FAIL, f"{shown(field, setting)}, and {file.path} is not there", setting.source, step)
    if file.problem:
        step = "Fix the cause; the next pass checks again."
        return CheckResult(Status.UNKNOWN, f"{shown(field, setting)}: {file.problem}", setting.source, step)
    return CheckResult(Status.PASS, shown(field, setting), setting.source)


def _streaming(facts: Facts) -> CheckResult:
    setting = facts.effective.get(fields.STREAMING)
    if setting.problem:
        return unknown(setting)
    return CheckResult(Status.INFO, f"{shown(fields.STREAMING, setting)} (has no effect)", setting.source)


def _hostname(facts: Facts) -> CheckResult:
    setting = facts.effective.get(fields.HOSTNAME)
    if setting.problem:
        return unknown(setting)
    if not setting.value:
        return CheckResult(Status.PASS, "--hostname-override is not set", setting.source)
    return CheckResult(Status.INFO, f"--hostname-override={setting.value}", setting.source)


def _certificate(facts: Facts) -> CheckResult:
    certificate, key, bootstrap = (
        facts.effective.get(field) for field in (fields.CERTIFICATE, fields.PRIVATE_KEY, fields.SERVER_TLS)
    )
    fix = "serverTLSBootstrap: true"
    for setting in (certificate, key, bootstrap):
        if setting.problem:
            return unknown(setting)
    if certificate.value and key.value:
        return _given_certificate(certificate, facts.certificate)
    if bootstrap.value:
        return CheckResult(Status.PASS, shown(fields.SERVER_TLS, bootstrap), bootstrap.source)
    half = "tlsCertFile alone" if certificate.value else "tlsPrivateKeyFile alone" if key.value else "no tlsCertFile"
    observed = f"self-signed ({half}, serverTLSBootstrap: false)"
    step = remedy(facts, fields.SERVER_TLS, bootstrap, fix) + " Its certificate requests need an approver."
    return CheckResult(Status.FAIL, observed, bootstrap.source, step)


def _given_certificate(setting: Setting, file: FileFact) -> CheckResult:
    observed = shown(fields.CERTIFICATE, setting)
    if file.missing or file.problem:
        why = "is not there" if file.missing else file.problem
        step = "Fix the cause; the kubelet does not start without it."
        return CheckResult(Status.UNKNOWN, f"{observed}: {file.path} {why}", setting.source, step)
    if file.self_signed:
        step = f"Put a certificate of the cluster's CA at {file.path}, or set `serverTLSBootstrap: true` instead."
        return CheckResult(Status.FAIL, f"{observed}, self-signed", setting.source, step)
    return CheckResult(Status.PASS, f"{observed}, issued by a CA", setting.source)


def _server_rotation(facts: Facts) -> CheckResult:
    bootstrap, certificate, key = (
        facts.effective.get(field) for field in (fields.SERVER_TLS, fields.CERTIFICATE, fields.PRIVATE_KEY)
    )
    gate = facts.effective.gate("RotateKubeletServerCertificate")
    for setting in (bootstrap, certificate, key, gate):
        if setting.problem:
            return unknown(setting)
    if gate.value is False:
        step = "Take RotateKubeletServerCertificate=false out of the feature gates and restart the kubelet."
        return CheckResult(Status.FAIL, "feature gate RotateKubeletServerCertificate: false", gate.source, step)
    if bootstrap.value:
        return CheckResult(Status.PASS, shown(fields.SERVER_TLS, bootstrap), bootstrap.source)
    if certificate.value and key.value:
        observed = f"{shown(fields.CERTIFICATE, certificate)}: a managed certificate"
        return CheckResult(Status.PASS, observed, certificate.source)
    step = remedy(facts, fields.SERVER_TLS, bootstrap, "serverTLSBootstrap: true") + " An approver has to sign."
    return CheckResult(Status.FAIL, shown(fields.SERVER_TLS, bootstrap), bootstrap.source, step)


def _ciphers(facts: Facts) -> CheckResult:
    setting = facts.effective.get(fields.CIPHERS)
    if setting.problem:
        return unknown(setting)
    if not setting.value:
        observed = "tlsCipherSuites is not set: Go's own list"
        return CheckResult(Status.INFO, observed, setting.source, severity=Severity.INFO)
    weak = [name for name in setting.value if name not in STRONG_CIPHERS | _ACCEPTED]
    if not weak:
        accepted = [name for name in setting.value if name in _ACCEPTED]
        note = f"; CIS accepts {', '.join(accepted)}, which have no forward secrecy" if accepted else ""
        return CheckResult(Status.PASS, shown(fields.CIPHERS, setting) + note, setting.source)
    kept = [name for name in setting.value if name in STRONG_CIPHERS] or ["TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256"]
    step = remedy(facts, fields.CIPHERS, setting, f"tlsCipherSuites: [{', '.join(kept)}]")
    return CheckResult(Status.FAIL, f"weak: {', '.join(weak)}", setting.source, step)


def _kernel_defaults(facts: Facts) -> CheckResult:
    field, setting = fields.KERNEL_DEFAULTS, facts.effective.get(fields.KERNEL_DEFAULTS)
    if setting.problem:
        return unknown(setting)
    if setting.value:
        return CheckResult(Status.PASS, shown(field, setting), setting.source)
    step = facts.kernel_advice + remedy(facts, field, setting, "protectKernelDefaults: true")
    return CheckResult(Status.FAIL, shown(field, setting), setting.source, step)


def _tls_minimum(facts: Facts) -> CheckResult:
    setting = facts.effective.get(fields.TLS_MINIMUM)
    if setting.problem:
        return unknown(setting)
    good = _TLS_VERSIONS.get(setting.value) if setting.value else True
    if good is None:
        problem = f"{shown(fields.TLS_MINIMUM, setting)} is none of {', '.join(_TLS_VERSIONS)}; the kubelet refuses it"
        return unknown(Setting(None, setting.source, problem))
    if good:
        return CheckResult(Status.PASS, shown(fields.TLS_MINIMUM, setting), setting.source)
    step = remedy(facts, fields.TLS_MINIMUM, setting, "tlsMinVersion: VersionTLS12")
    return CheckResult(Status.FAIL, shown(fields.TLS_MINIMUM, setting), setting.source, step)


def _sysctls(facts: Facts) -> CheckResult:
    setting = facts.effective.get(fields.SYSCTLS)
    if setting.problem:
        return unknown(setting)
    if not setting.value:
        return CheckResult(Status.PASS, shown(fields.SYSCTLS, setting), setting.source)
    wild = any("*" in name for name in setting.value)
    step = remedy(facts, fields.SYSCTLS, setting, "allowedUnsafeSysctls: []")
    severity = Severity.HIGH if wild else Severity.MEDIUM
    return CheckResult(Status.FAIL, shown(fields.SYSCTLS, setting), setting.source, step, severity)


def _pull_policy(facts: Facts) -> CheckResult:
    field, setting = fields.PULL_POLICY, facts.effective.get(fields.PULL_POLICY)
    if setting.problem:
        return unknown(setting)
    if setting.value and setting.value not in _PULL_POLICIES:
        problem = f"{shown(field, setting)} is none of {', '.join(_PULL_POLICIES)}; the kubelet refuses it"
        return unknown(Setting(None, setting.source, problem))
    if setting.value != "NeverVerify":
        return CheckResult(Status.PASS, shown(field, setting), setting.source)
    step = remedy(facts, field, setting, f"{field.path}: NeverVerifyPreloadedImages")
    return CheckResult(Status.FAIL, shown(field, setting), setting.source, step)


def _profiling(facts: Facts) -> CheckResult:
    """Both handlers are only there while enableDebuggingHandlers is on (pkg/kubelet/server, PR 87273)."""
    debugging = facts.effective.get(fields.DEBUGGING)
    if debugging.problem:
        return unknown(debugging)
    if not debugging.value:
        return CheckResult(Status.PASS, shown(fields.DEBUGGING, debugging), debugging.source)
    handlers = [(field, facts.effective.get(field)) for field in (fields.PROFILING, fields.DEBUG_FLAGS)]
    for _, setting in handlers:
        if setting.problem:
            return unknown(setting)
    observed = ", ".join(shown(field, setting) for field, setting in handlers)
    source = ", ".join(dict.fromkeys(setting.source for _, setting in handlers))
    on = [(field, setting) for field, setting in handlers if setting.value]
    if not on:
        return CheckResult(Status.PASS, observed, source)
    step = " ".join(remedy(facts, field, setting, f"{field.path}: false") for field, setting in on)
    return CheckResult(Status.FAIL, observed, source, step)


def _healthz(facts: Facts) -> CheckResult:
    address, port = facts.effective.get(fields.HEALTHZ), facts.effective.get(fields.HEALTHZ_PORT)
    for setting in (address, port):
        if setting.problem:
            return unknown(setting)
    if port.value == 0:
        return CheckResult(Status.PASS, "healthzPort: 0 (off)", port.source)
    loopback = is_loopback(address.value)
    if loopback is None:
        problem = f"{shown(fields.HEALTHZ, address)} is not an address; the kubelet refuses it"
        return unknown(Setting(None, address.source, problem))
    if loopback:
        return CheckResult(Status.PASS, shown(fields.HEALTHZ, address), address.source)
    step = remedy(facts, fields.HEALTHZ, address, "healthzBindAddress: 127.0.0.1")
    return CheckResult(Status.FAIL, shown(fields.HEALTHZ, address), address.source, step)


def _gates(facts: Facts) -> CheckResult:
    setting = facts.effective.gate("AllAlpha")
    if setting.problem:
        return unknown(setting)
    observed = "AllAlpha is not set" if setting.value is None else f"AllAlpha: {spelled(setting.value)}"
    if not setting.value:
        return CheckResult(Status.PASS, observed, setting.source)
    step = "Take AllAlpha out of the feature gates, name the few that are needed, and restart the kubelet."
    return CheckResult(Status.FAIL, observed, setting.source, step)


def _positive(value: object) -> bool:
    return isinstance(value, int) and value > 0


def _true(value: object) -> bool:
    return value is True


def _false(value: object) -> bool:
    return value is False


CHECKS: tuple[Check, ...] = (
    setting_check(
        "4.2.1", "Anonymous requests are refused", Severity.CRITICAL, "false",
        field=fields.ANONYMOUS, fix="authentication.anonymous.enabled: false", good=_false,
    ),
    setting_check(
        "webhook", "Bearer tokens are checked with the API server", Severity.HIGH, "true",
        field=fields.WEBHOOK, fix="authentication.webhook.enabled: true", good=_true,
    ),
    setting_check(
        "4.2.2", "Requests are authorized by the API server", Severity.CRITICAL, "Webhook",
        field=fields.AUTHORIZATION, fix="authorization.mode: Webhook", good=lambda mode: mode == "Webhook",
    ),
    Check(
        "4.2.3", "Client certificates are checked against a CA", Severity.HIGH, "set, and the file there", _client_ca
    ),
    setting_check(
        "4.2.4", "The read-only port is off", Severity.HIGH, "0",
        field=fields.READ_ONLY_PORT, fix="readOnlyPort: 0", good=lambda port: port == 0,
    ),
    Check("4.2.5", "Idle streaming connections", Severity.INFO, "anything", _streaming),
    setting_check(
        "4.2.6", "The kubelet keeps its iptables chains", Severity.LOW, "true",
        field=fields.IPTABLES, fix="makeIPTablesUtilChains: true", good=_true,
    ),
    Check("4.2.7", "The node's name is not overridden", Severity.INFO, "not set", _hostname),
    setting_check(
        "4.2.8", "Events are limited, not unbounded", Severity.LOW, "more than 0",
        field=fields.EVENT_QPS, fix="eventRecordQPS: 50", good=_positive,
    ),
    Check(
        "4.2.9", "The serving certificate is issued by a CA", Severity.MEDIUM,
        "a certificate from a CA, or serverTLSBootstrap: true", _certificate,
    ),
    setting_check(
        "4.2.10", "The client certificate is rotated", Severity.MEDIUM, "true",
        field=fields.ROTATE, fix="rotateCertificates: true", good=_true,
    ),
    Check(
        "4.2.11", "The serving certificate is rotated", Severity.MEDIUM, "true, or a managed certificate",
        _server_rotation,
    ),
    Check("4.2.12", "Only strong cipher suites", Severity.HIGH, "a subset of those that CIS lists", _ciphers),
    setting_check(
        "4.2.13", "Processes of a pod are limited", Severity.MEDIUM, "more than 0",
        field=fields.PIDS, fix="podPidsLimit: 4096", good=_positive,
    ),
    setting_check(
        "4.2.14", "Pods run under the runtime's seccomp profile", Severity.HIGH, "true",
        field=fields.SECCOMP, fix="seccompDefault: true", good=_true,
    ),
    Check("defaults", "The kernel's settings are checked, not changed", Severity.MEDIUM, "true", _kernel_defaults),
    Check("tlsmin", "No TLS older than 1.2", Severity.LOW, "not set, VersionTLS12 or VersionTLS13", _tls_minimum),
    Check("sysctls", "No unsafe sysctls for pods", Severity.HIGH, "empty", _sysctls),
    Check("pullcreds", "Image pull credentials are verified", Severity.MEDIUM, "not NeverVerify", _pull_policy),
    setting_check(
        "syslog", "The node's logs are not served", Severity.MEDIUM, "false",
        field=fields.LOG_QUERY, fix="enableSystemLogQuery: false", good=_false,
    ),
    Check("profiling", "Profiling and debug flags are off", Severity.LOW, "false", _profiling),
    Check("healthz", "The health port is for this node only", Severity.LOW, "a loopback address", _healthz),
    setting_check(
        "static", "No static pods from a URL", Severity.HIGH, "empty",
        field=fields.STATIC_URL, fix='staticPodURL: ""', good=lambda url: url == "",
    ),
    Check("gates", "Not every alpha feature is on", Severity.MEDIUM, "AllAlpha not true", _gates),
)  # fmt: skip
