"""Every check of the kubelet's settings: how it was started, where the value is set, what has to be said of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import pytest

from agent.controls.kubelet.checks import CHECKS, is_loopback
from agent.model import Severity, Status
from tests.support.kubelets import CONFIG, DROP_INS, config, plant, settings

FLAGS_ONLY = "default (flags only)"
WITH_CONFIG = "default (with --config)"
C = f"--config={CONFIG}"
D = f"--config-dir={DROP_INS}"
PASS, FAIL, UNKNOWN, INFO = Status.PASS, Status.FAIL, Status.UNKNOWN, Status.INFO


@dataclass(frozen=True)
class Case:
    """args: of the kubelet. body: of the config file, from line 3 on; None: there is none. drop_ins: name to body."""

    check: str
    status: Status
    source: str
    args: tuple[str, ...] = ()
    body: str | None = None
    drop_ins: dict[str, str] = field(default_factory=dict)
    observed: str = ""
    severity: Severity | None = None

    def __str__(self) -> str:
        shape = [*self.args, "config" * (self.body is not None), *self.drop_ins]
        return f"{self.check}-{self.status}-{' '.join(filter(None, shape))}"


def at(line: int) -> str:
    return f"{CONFIG}:{line}"


def drop_in(name: str, line: int) -> str:
    return f"drop-in {DROP_INS}/{name}:{line}"


CASES = [
    # -- nothing but the program: the legacy defaults of the flags
    Case("4.2.1", FAIL, FLAGS_ONLY, severity=Severity.CRITICAL),
    Case("webhook", FAIL, FLAGS_ONLY, severity=Severity.HIGH),
    Case("4.2.2", FAIL, FLAGS_ONLY, observed="authorization.mode: AlwaysAllow", severity=Severity.CRITICAL),
    Case("4.2.3", FAIL, FLAGS_ONLY, severity=Severity.HIGH),
    Case("4.2.4", FAIL, FLAGS_ONLY, observed="readOnlyPort: 10255", severity=Severity.HIGH),
    Case("4.2.5", INFO, FLAGS_ONLY, severity=Severity.INFO),
    Case("4.2.6", PASS, FLAGS_ONLY, severity=Severity.LOW),
    Case("4.2.7", PASS, "default", severity=Severity.INFO),
    Case("4.2.8", PASS, FLAGS_ONLY, observed="eventRecordQPS: 50", severity=Severity.LOW),
    Case("4.2.9", FAIL, FLAGS_ONLY, severity=Severity.MEDIUM),
    Case("4.2.10", FAIL, FLAGS_ONLY, severity=Severity.MEDIUM),
    Case("4.2.11", FAIL, FLAGS_ONLY, severity=Severity.MEDIUM),
    Case("4.2.12", INFO, FLAGS_ONLY, severity=Severity.INFO),
    Case("4.2.13", FAIL, FLAGS_ONLY, observed="podPidsLimit: -1", severity=Severity.MEDIUM),
    Case("4.2.14", FAIL, FLAGS_ONLY, severity=Severity.HIGH),
    Case("defaults", FAIL, FLAGS_ONLY, severity=Severity.MEDIUM),
    Case("tlsmin", PASS, FLAGS_ONLY, severity=Severity.LOW),
    Case("sysctls", PASS, FLAGS_ONLY),
    Case("pullcreds", PASS, FLAGS_ONLY, observed="imagePullCredentialsVerificationPolicy: NeverVerifyPreloadedImages"),
    Case("syslog", PASS, FLAGS_ONLY, severity=Severity.MEDIUM),
    Case("profiling", FAIL, FLAGS_ONLY, severity=Severity.LOW),
    Case("healthz", PASS, FLAGS_ONLY, severity=Severity.LOW),
    Case("static", PASS, FLAGS_ONLY, severity=Severity.HIGH),
    Case("gates", PASS, FLAGS_ONLY, severity=Severity.MEDIUM),
    # -- --config with nothing set: the defaults of v1beta1
    Case("4.2.1", PASS, WITH_CONFIG, (C,), ""),
    Case("webhook", PASS, WITH_CONFIG, (C,), ""),
    Case("4.2.2", PASS, WITH_CONFIG, (C,), ""),
    Case("4.2.3", FAIL, WITH_CONFIG, (C,), ""),
    Case("4.2.4", PASS, WITH_CONFIG, (C,), ""),
    Case("4.2.13", FAIL, WITH_CONFIG, (C,), ""),
    Case("4.2.14", FAIL, WITH_CONFIG, (C,), ""),
    # -- --config-dir alone keeps the legacy defaults
    Case("4.2.1", FAIL, FLAGS_ONLY, (D,), None, {"10-a.conf": "podPidsLimit: 10\n"}),
    Case("4.2.4", FAIL, FLAGS_ONLY, (D,), None, {"10-a.conf": "podPidsLimit: 10\n"}),
    Case("4.2.13", PASS, drop_in("10-a.conf", 3), (D,), None, {"10-a.conf": "podPidsLimit: 10\n"}),
    Case("4.2.4", PASS, drop_in("10-a.conf", 3), (D,), None, {"10-a.conf": "readOnlyPort: 0\n"}),
    Case(
        "4.2.1",
        PASS,
        "default (v1beta1, a null took the value out)",
        (D,),
        None,
        {"10-a.conf": "authentication: {anonymous: null}\n"},
    ),
    # -- flags in every spelling
    Case("4.2.1", PASS, "flag --anonymous-auth", ("--anonymous-auth=false",)),
    Case("4.2.1", FAIL, "flag --anonymous-auth", ("--anonymous-auth",)),
    Case(
        "4.2.1",
        FAIL,
        "flag --anonymous-auth",
        ("--anonymous-auth", "false"),
        observed="authentication.anonymous.enabled: true",
    ),
    Case("4.2.1", PASS, "flag --anonymous-auth", ("--anonymous_auth=F",)),
    Case("4.2.1", PASS, "flag --anonymous-auth", ("--anonymous-auth=true", "--anonymous-auth=0")),
    Case("4.2.1", UNKNOWN, "flag --anonymous-auth", ("--anonymous-auth=maybe",)),
    Case("4.2.1", FAIL, FLAGS_ONLY, ("--", "--anonymous-auth=false")),
    Case("webhook", PASS, "flag --authentication-token-webhook", ("--authentication-token-webhook", "--v", "2")),
    Case("4.2.2", PASS, "flag --authorization-mode", ("--authorization-mode", "Webhook")),
    Case("4.2.4", PASS, "flag --read-only-port", ("--anonymous-auth", "--read-only-port", "0")),
    Case("4.2.4", PASS, "flag --read-only-port", ("--some-new-flag", "value", "--read-only-port=0")),
    Case("4.2.4", PASS, "flag --read-only-port", ("--some-new-switch", "--read-only-port=0")),
    Case("4.2.4", UNKNOWN, "flag --read-only-port", ("--read-only-port=none",)),
    Case("4.2.13", FAIL, "flag --pod-max-pids", ("--pod-max-pids", "-1")),
    Case("4.2.13", PASS, "flag --pod-max-pids", ("--pod-max-pids", "100")),
    Case("4.2.6", FAIL, "flag --make-iptables-util-chains", ("--make-iptables-util-chains=false",)),
    Case("4.2.7", INFO, "flag --hostname-override", ("--hostname-override=n1",)),
    Case("4.2.8", FAIL, "flag --event-qps", ("--event-qps=0",)),
    Case("4.2.10", PASS, "flag --rotate-certificates", ("--rotate-certificates",)),
    Case("4.2.11", PASS, "flag --rotate-server-certificates", ("--rotate-server-certificates",)),
    Case("4.2.9", PASS, "flag --rotate-server-certificates", ("--rotate-server-certificates",)),
    Case(
        "4.2.12",
        FAIL,
        "flag --tls-cipher-suites",
        ("--tls-cipher-suites=TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256", "--tls-cipher-suites=TLS_RSA_WITH_RC4_128_SHA"),
    ),
    Case("4.2.14", PASS, "flag --seccomp-default", ("--seccomp-default",)),
    Case("static", FAIL, "flag --manifest-url", ("--manifest-url=http://x/pods",)),
    Case(
        "sysctls",
        FAIL,
        "flag --allowed-unsafe-sysctls",
        ("--allowed-unsafe-sysctls", "net.core.somaxconn"),
        severity=Severity.MEDIUM,
    ),
    Case("healthz", FAIL, "flag --healthz-bind-address", ("--healthz-bind-address=0.0.0.0",)),
    Case("healthz", PASS, "flag --healthz-port", ("--healthz-bind-address=0.0.0.0", "--healthz-port", "0")),
    Case("tlsmin", FAIL, "flag --tls-min-version", ("--tls-min-version=VersionTLS11",)),
    Case("profiling", PASS, "flag --enable-debugging-handlers", ("--enable-debugging-handlers=false",)),
    # -- the file
    Case("4.2.1", FAIL, at(5), (C,), "authentication:\n  anonymous:\n    enabled: true\n"),
    Case("4.2.1", PASS, at(5), ("--config", CONFIG), "authentication:\n  anonymous:\n    enabled: off\n"),
    Case("4.2.1", PASS, WITH_CONFIG, (C,), "authentication:\n  anonymous:\n    enabled: null\n"),
    Case("4.2.1", UNKNOWN, "", (C,), 'authentication: {anonymous: {enabled: "false"}}\n'),
    Case("4.2.2", FAIL, at(4), (C,), "authorization:\n  mode: AlwaysAllow\n"),
    Case("4.2.2", PASS, WITH_CONFIG, (C,), 'authorization: {mode: ""}\n'),
    Case("4.2.4", FAIL, at(3), (C,), "readOnlyPort: 10255\n"),
    Case("4.2.5", INFO, at(3), (C,), "streamingConnectionIdleTimeout: 5m\n"),
    Case("4.2.5", UNKNOWN, "", (C,), "streamingConnectionIdleTimeout: 300\n"),
    Case("4.2.6", FAIL, at(3), (C,), "makeIPTablesUtilChains: false\n"),
    Case("4.2.8", FAIL, at(3), (C,), "eventRecordQPS: 0\n"),
    Case("4.2.10", PASS, at(3), (C,), "rotateCertificates: true\n"),
    # -- a gate's stage: RotateKubeletServerCertificate and KubeletEnsureSecretPulledImages are beta
    Case(
        "4.2.11",
        FAIL,
        at(4),
        (C,),
        "serverTLSBootstrap: true\nfeatureGates: {AllBeta: false}\n",
        observed="feature gate AllBeta: false, and with it RotateKubeletServerCertificate",
    ),
    Case(
        "4.2.11",
        PASS,
        at(3),
        (C, "--feature-gates=RotateKubeletServerCertificate=true,AllBeta=false"),
        "serverTLSBootstrap: true\n",
    ),
    Case("4.2.11", PASS, at(3), (C,), "serverTLSBootstrap: true\nfeatureGates: {AllAlpha: false, AllBeta: true}\n"),
    Case("4.2.9", FAIL, "flag --feature-gates", (C, "--feature-gates=AllBeta=false"), "serverTLSBootstrap: true\n"),
    Case("pullcreds", FAIL, at(3), (C,), "featureGates: {KubeletEnsureSecretPulledImages: false}\n"),
    Case("pullcreds", FAIL, at(3), (C,), "featureGates: {AllBeta: false}\n"),
    Case(
        "pullcreds", PASS, WITH_CONFIG, (C,), "featureGates: {AllBeta: false, KubeletEnsureSecretPulledImages: true}\n"
    ),
    Case(
        "4.2.11", FAIL, at(4), (C,), "serverTLSBootstrap: true\nfeatureGates: {RotateKubeletServerCertificate: false}\n"
    ),
    Case("4.2.11", PASS, at(3), (C,), "tlsCertFile: /a.crt\ntlsPrivateKeyFile: /a.key\n"),
    Case("4.2.12", PASS, at(3), (C,), "tlsCipherSuites: [TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305]\n"),
    Case("4.2.12", UNKNOWN, "", (C,), "tlsCipherSuites: TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305\n"),
    Case("4.2.12", INFO, at(3), (C,), "tlsCipherSuites: []\n"),
    Case("4.2.13", FAIL, at(3), (C,), "podPidsLimit: 0\n"),
    Case("4.2.13", PASS, at(3), (C,), "podPidsLimit: 4096\n"),
    Case("4.2.14", FAIL, at(3), (C,), "seccompDefault: false\n"),
    Case("4.2.14", PASS, at(3), (C, "--seccomp-default=false"), "seccompDefault: true\n"),
    Case("defaults", PASS, at(3), (C,), "protectKernelDefaults: true\n"),
    Case("tlsmin", PASS, at(3), (C,), "tlsMinVersion: VersionTLS13\n"),
    Case("tlsmin", UNKNOWN, at(3), (C,), "tlsMinVersion: TLSv1.3\n"),
    Case("sysctls", FAIL, at(3), (C,), "allowedUnsafeSysctls: ['net.*']\n", severity=Severity.HIGH),
    Case("pullcreds", FAIL, at(3), (C,), "imagePullCredentialsVerificationPolicy: NeverVerify\n"),
    Case("pullcreds", PASS, at(3), (C,), "imagePullCredentialsVerificationPolicy: AlwaysVerify\n"),
    Case("syslog", FAIL, at(3), (C,), "enableSystemLogQuery: true\n"),
    Case(
        "profiling", PASS, f"{at(3)}, {at(4)}", (C,), "enableProfilingHandler: false\nenableDebugFlagsHandler: false\n"
    ),
    Case("profiling", FAIL, f"{at(3)}, {WITH_CONFIG}", (C,), "enableProfilingHandler: false\n"),
    Case("healthz", FAIL, at(3), (C,), 'healthzBindAddress: "::"\n'),
    Case("healthz", PASS, at(3), (C,), 'healthzBindAddress: "::1"\n'),
    Case("static", FAIL, at(3), (C,), "staticPodURL: http://x/\n"),
    Case("gates", FAIL, at(4), (C,), "featureGates:\n  AllAlpha: true\n"),
    Case("4.2.4", PASS, at(3), (C,), "readOnlyPort: 0.0\n"),
    Case("4.2.4", FAIL, at(3), (C,), "readOnlyPort: 0x27ff\n", observed="readOnlyPort: 10239"),
    Case("4.2.13", PASS, at(3), (C,), "podPidsLimit: 010\n", observed="podPidsLimit: 8"),
    Case("4.2.13", PASS, at(3), (C,), "podPidsLimit: 08\n", observed="podPidsLimit: 8"),
    Case("4.2.13", UNKNOWN, "", (C,), "podPidsLimit: .inf\n"),
    Case("4.2.13", UNKNOWN, "flag --pod-max-pids", ("--pod-max-pids=08",)),
    Case("4.2.13", PASS, "flag --pod-max-pids", ("--pod-max-pids=+010",), observed="podPidsLimit: 8"),
    Case("sysctls", UNKNOWN, "flag --allowed-unsafe-sysctls", ('--allowed-unsafe-sysctls=a"b',)),
    Case("sysctls", PASS, "flag --allowed-unsafe-sysctls", ("--allowed-unsafe-sysctls=",)),
    Case("healthz", UNKNOWN, at(3), (C,), "healthzBindAddress: here\n"),
    Case("pullcreds", UNKNOWN, at(3), (C,), "imagePullCredentialsVerificationPolicy: Never\n"),
    Case("4.2.14", PASS, at(3), (C,), "x: &on {seccompDefault: true}\n<<: *on\n"),
    Case("4.2.14", FAIL, at(5), (C,), "x: &on {seccompDefault: true}\n<<: [*on]\nseccompDefault: false\n"),
    Case("4.2.14", FAIL, at(3), (C,), "x: &off {seccompDefault: false}\nseccompDefault: true\n<<: *off\n"),
    Case("4.2.14", PASS, at(4), (C,), "x: &off {seccompDefault: false}\n<<: [{seccompDefault: true}, *off]\n"),
    Case("4.2.14", FAIL, at(4), (C,), "seccompDefault: true\n!!merge <<: {seccompDefault: false}\n"),
    Case("4.2.14", UNKNOWN, "", (C,), "seccompDefault: true\n<<: true\n"),
    Case("4.2.14", UNKNOWN, "", (C,), "x: &list [{seccompDefault: true}]\n<<: *list\n"),
    Case(
        "4.2.1",
        FAIL,
        at(4),
        (C,),
        "authentication: {anonymous: {enabled: false}}\n<<: {authentication: {anonymous: {enabled: true}}}\n",
    ),
    Case(
        "4.2.14",
        FAIL,
        drop_in("1.conf", 4),
        (D,),
        drop_ins={"1.conf": "seccompDefault: true\n<<: {seccompDefault: false}\n"},
    ),
    Case("4.2.4", FAIL, at(3), (C,), "readOnlyPort: 10255\n---\nreadOnlyPort: 0\n"),
    Case("4.2.4", PASS, at(4), (C,), "readOnlyPort: 10255\nreadOnlyPort: 0\n"),
    Case("gates", UNKNOWN, "", (C, "--feature-gates=A=true"), "featureGates: {AllAlpha: 1}\n"),
    # -- flags over the file; gates merge by key
    Case(
        "4.2.1",
        FAIL,
        "flag --anonymous-auth",
        (C, "--anonymous-auth"),
        "authentication: {anonymous: {enabled: false}}\n",
    ),
    Case("4.2.4", PASS, "flag --read-only-port", ("--read-only-port=0", C), "readOnlyPort: 10255\n"),
    Case(
        "gates", PASS, "flag --feature-gates", (C, "--feature-gates=AllAlpha=false"), "featureGates: {AllAlpha: true}\n"
    ),
    Case("gates", FAIL, at(3), (C, "--feature-gates=Other=true"), "featureGates: {AllAlpha: true}\n"),
    Case("gates", FAIL, "flag --feature-gates", ("--feature-gates=A=false", "--feature-gates=AllAlpha=1")),
    Case("gates", UNKNOWN, "flag --feature-gates", ("--feature-gates=AllAlpha",)),
    # -- drop-ins over the file, in path order
    Case("4.2.4", FAIL, drop_in("10-a.conf", 3), (C, D), "readOnlyPort: 0\n", {"10-a.conf": "readOnlyPort: 10255\n"}),
    Case(
        "4.2.4",
        PASS,
        drop_in("20-b.conf", 3),
        (C, D),
        "",
        {"20-b.conf": "readOnlyPort: 0\n", "10-a.conf": "readOnlyPort: 10255\n"},
    ),
    Case(
        "4.2.4",
        FAIL,
        drop_in("sub/10-y.conf", 3),
        (C, D),
        "",
        {"sub/10-y.conf": "readOnlyPort: 10255\n", "20-x.conf": "readOnlyPort: 0\n"},
    ),
    Case("4.2.4", PASS, WITH_CONFIG, (C, D), "", {"10-a.yaml": "readOnlyPort: 10255\n", "10-a.conf.bak": "x: ["}),
    Case("4.2.4", PASS, WITH_CONFIG, (C, D), "readOnlyPort: 10255\n", {"10-a.conf": "readOnlyPort: null\n"}),
    Case(
        "webhook",
        FAIL,
        at(4),
        (C, D),
        "authentication:\n  webhook: {enabled: false}\n",
        {"10-a.conf": "authentication: {anonymous: {enabled: false}}\n"},
    ),
    Case(
        "sysctls",
        PASS,
        drop_in("10-a.conf", 3),
        (C, D),
        "allowedUnsafeSysctls: ['a*']\n",
        {"10-a.conf": "allowedUnsafeSysctls: []\n"},
    ),
    Case("gates", FAIL, at(3), (C, D), "featureGates: {AllAlpha: true}\n", {"10-a.conf": "featureGates: {B: true}\n"}),
    Case("4.2.4", PASS, "flag --read-only-port", (C, D, "--read-only-port=0"), "", {"10-a.conf": "readOnlyPort: 1\n"}),
    Case("4.2.4", UNKNOWN, "", (C, D), "", {"10-a.conf": "readonlyport: 10255\n"}),
]


@pytest.mark.parametrize("case", CASES, ids=str)
def test_the_effective_value_is_judged_and_its_source_named(case: Case, tmp_path: Path) -> None:
    """What the kubelet runs with decides, whatever way it was told, and the finding says where it comes from."""
    files = {f"{DROP_INS}/{name}": config(body) for name, body in case.drop_ins.items()}
    if case.body is not None:
        files[CONFIG] = config(case.body)
    finding = settings(plant(tmp_path, files), case.args)[case.check]
    assert (finding.status, finding.source) == (case.status, case.source), finding
    assert case.observed in finding.observed
    assert case.severity in (None, finding.severity)
    assert (finding.remediation == "") == (finding.status in (PASS, INFO)), finding


def test_every_check_passes_fails_and_is_unknown_in_the_table() -> None:
    """No check of a setting is without a case that fails it, unless it cannot fail."""
    failing = {case.check for case in CASES if case.status is FAIL}
    assert failing == {check.id for check in CHECKS} - {"4.2.5", "4.2.7"}


REFUSED = {
    "no kind": "apiVersion: kubelet.config.k8s.io/v1beta1\n",
    "no apiVersion": "kind: KubeletConfiguration\n",
    "another version": "apiVersion: kubelet.config.k8s.io/v1alpha1\nkind: KubeletConfiguration\n",
    "another kind": "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeProxyConfiguration\n",
    "empty": "",
    "a list": "- a\n",
    "not YAML": "a: [\n",
    "a wrong type": config("podPidsLimit: many\n"),
    "a mapping in place of a value": config("podPidsLimit: {a: 1}\n"),
    "a value in place of a mapping": config("authentication: false\n"),
    "too large a number": config("readOnlyPort: 4294967296\n"),
    "nested without end": config("a: " + "[" * 300_000),
    "aliases without end": config("a: &a [x, x, x, x, x, x, x, x, x, x]\n")
    + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}' if n else '*a'] * 10)}]\n" for n in range(9)),
    "inside itself": config("a: &a [*a]\n"),
    "a key that is a list": config("[a]: b\n"),
    "control characters": config("a: \x00\n"),
    "a value of null in a list": config("tlsCipherSuites: [null]\n"),
}


@pytest.mark.parametrize("text", REFUSED.values(), ids=REFUSED)
@pytest.mark.parametrize("where", [CONFIG, f"{DROP_INS}/10-a.conf"])
def test_a_file_that_the_kubelet_would_refuse_leaves_only_flags_believed(text: str, where: str, tmp_path: Path) -> None:
    """The running kubelet was not started with what is on disk: unknown, with the file named, whatever else it says."""
    files = plant(tmp_path, {CONFIG: config("readOnlyPort: 0\n"), f"{DROP_INS}/00-none.conf": config(""), where: text})
    found = settings(files, (C, D, "--anonymous-auth=false"))
    assert found["4.2.1"].status is PASS
    for check in ("4.2.4", "4.2.2", "4.2.14", "gates"):
        assert found[check].status is UNKNOWN
        assert where in found[check].observed
        assert found[check].remediation


# AKS's own list, which is CIS 4.2.12's.
AKS = (
    "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,"
    "TLS_ECDHE_ECDSA_WITH_CHACHA20_POLY1305,TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384,TLS_ECDHE_RSA_WITH_CHACHA20_POLY1305,"
    "TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384,TLS_RSA_WITH_AES_256_GCM_SHA384,TLS_RSA_WITH_AES_128_GCM_SHA256"
)


def test_the_list_of_cis_passes_and_the_stricter_view_is_a_note(tmp_path: Path) -> None:
    """Two suites without forward secrecy are named; one with CBC fails."""
    one = settings(tmp_path, (f"--tls-cipher-suites={AKS}",))["4.2.12"]
    assert one.status is PASS
    assert one.observed.endswith(
        "CIS accepts TLS_RSA_WITH_AES_256_GCM_SHA384, TLS_RSA_WITH_AES_128_GCM_SHA256, which have no forward secrecy"
    )
    assert settings(tmp_path, (f"--tls-cipher-suites={AKS},TLS_RSA_WITH_AES_128_CBC_SHA",))["4.2.12"].status is FAIL


@pytest.mark.parametrize(
    ("path", "where"),
    [
        ("/etc/kubernetes/kubelet/config.json", "`readOnlyPort: 0` in spec.kubelet.config of the node's NodeConfig"),
        ("/etc/kubernetes/kubelet/config.json.d/40-nodeadm.conf", "`readOnlyPort: 0` in spec.kubelet.config"),
        ("/etc/kubernetes/kubelet/config", "the setting of settings.kubernetes for `readOnlyPort: 0`"),
        (
            "/home/kubernetes/kubelet-config.yaml",
            "`readOnlyPort: 0` in the node pool's --system-config-from-file (GKE)",
        ),
        ("/etc/default/kubeletconfig.json", "`readOnlyPort: 0` in the node pool's --kubelet-config (AKS)"),
        ("/var/lib/k0s/kubelet-config.yaml", "`readOnlyPort: 0` in spec.workerProfiles of k0s's configuration"),
        (
            "/var/lib/microshift/resources/kubelet/config/config.yaml",
            "`kubelet: {readOnlyPort: 0}` in /etc/microshift/config.yaml",
        ),
        (
            "/var/lib/rancher/rke2/agent/etc/kubelet.conf.d/00-rke2-defaults.conf",
            "`kubelet-arg: ['read-only-port=0']` in /etc/rancher/rke2/config.yaml",
        ),
        (
            "/data/k3s/agent/etc/kubelet.conf.d/10-cli-config.conf",
            "`kubelet-arg: ['read-only-port=0']` in /etc/rancher/k3s/config.yaml",
        ),
    ],
)
def test_advice_names_no_file_that_the_distribution_writes(path: str, where: str, tmp_path: Path) -> None:
    """Whether the line is there, or is to be added to the file that is read."""
    flag = f"--config-dir={Path(path).parent}" if path.endswith(".conf") else f"--config={path}"
    for body in ("readOnlyPort: 10255\n", "") if flag.startswith("--config=") else ("readOnlyPort: 10255\n",):
        plant(tmp_path, {path: config(body)})
        args = (flag,) if body else (flag, "--read-only-port=10255")
        assert where in settings(tmp_path, args)["4.2.4"].remediation


def test_a_drop_in_of_the_operators_own_is_named_itself(tmp_path: Path) -> None:
    """Beside those that RKE2 writes."""
    folder = "/var/lib/rancher/rke2/agent/etc/kubelet.conf.d"
    plant(tmp_path, {f"{folder}/99-site.conf": config("readOnlyPort: 10255\n")})
    remedy = settings(tmp_path, (f"--config-dir={folder}",))["4.2.4"].remediation
    assert remedy == f"Set `readOnlyPort: 0` at drop-in {folder}/99-site.conf:3 and restart the kubelet."


def test_a_wrong_value_is_named_with_its_line(tmp_path: Path) -> None:
    """`"yes"` in quotes is no boolean: the finding shows the text, the line and what it has to be."""
    files = plant(tmp_path, {CONFIG: config('readOnlyPort: 0\nprotectKernelDefaults: "yes"\n')})
    observed = settings(files, (C,))["defaults"].observed
    assert f"{CONFIG}:4: protectKernelDefaults is 'yes', it has to be true or false" in observed


def test_a_missing_file_or_folder_is_unknown(tmp_path: Path) -> None:
    """The running kubelet has read a file that is gone: nothing of it is guessed."""
    for args in ((C,), (D,)):
        finding = settings(tmp_path, args)["4.2.2"]
        assert finding.status is UNKNOWN
        assert "cannot" in finding.observed


def test_too_many_drop_ins_or_folders_are_unknown(tmp_path: Path) -> None:
    """A folder without end (a wrong path, a bind mount of the root) costs a bounded amount of work."""
    for number in range(201):
        plant(tmp_path, {f"/many/{number}.conf": config("")})
    for number in range(51):
        plant(tmp_path, {f"/deep/{number}/x.conf": config("")})
    for folder, what in (("/many", "200 drop-ins"), ("/deep", "50 folders")):
        finding = settings(tmp_path, (C.replace(CONFIG, "/c"), f"--config-dir={folder}"))["4.2.2"]
        assert finding.status is UNKNOWN
        plant(tmp_path, {"/c": config("")})
        finding = settings(tmp_path, ("--config=/c", f"--config-dir={folder}"))["4.2.2"]
        assert what in finding.observed


def test_a_flag_that_is_in_the_way_of_no_field_is_named(tmp_path: Path) -> None:
    """An empty --config is none, arguments without a value and lone dashes are passed over."""
    found = settings(tmp_path, ("--config=", "-", "-v4", "-", "--", "--read-only-port=0"))
    assert found["4.2.4"].source == FLAGS_ONLY
    assert settings(tmp_path, ("---x", "--=1", "--pod-max-pids"))["4.2.13"].source == FLAGS_ONLY
    assert settings(tmp_path, ("-v", "4", "--pod-max-pids", "5"))["4.2.13"].status is PASS


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:10249", True),
        ("127.8.0.1", True),
        ("[::1]:10249", True),
        ("::1", True),
        ("localhost:1", True),
        ("0.0.0.0:10249", False),
        ("10.0.0.1", False),
        ("[::]:1", False),
        ("", None),
        ("here:1", None),
    ],
)
def test_loopback_is_told_by_address(address: str, expected: bool | None) -> None:
    """With and without a port, both families."""
    assert is_loopback(address) is expected


@pytest.mark.parametrize(
    ("body", "check", "status", "dropped"),
    [
        ('"readOnlyPort": 0, "readOnlyPort": 10255', "4.2.4", FAIL, FAIL),
        # Two mappings of one name come together in the file; in a drop-in the last counts as a whole.
        ('"authentication": {"anonymous": {"enabled": true}}, "authentication": {"x509": {}}', "4.2.1", FAIL, PASS),
        ('"featureGates": {"AllAlpha": true}, "featureGates": {"AllAlpha": false}', "gates", PASS, PASS),
        ('"featureGates": {"AllAlpha": true}, "featureGates": {"A": false}', "gates", FAIL, PASS),
        # Whether null takes away what is there depends on the field's type in Go.
        ('"readOnlyPort": 10255, "readOnlyPort": null', "4.2.4", UNKNOWN, PASS),
        ('"<<": {"readOnlyPort": 10255}', "4.2.4", PASS, PASS),
    ],
)
def test_repeated_names_of_json_count_as_go_decodes_them(
    body: str, check: str, status: Status, dropped: Status, tmp_path: Path
) -> None:
    """encoding/json into a struct, and into a map for drop-ins."""
    text = f'{{"apiVersion": "kubelet.config.k8s.io/v1beta1", "kind": "KubeletConfiguration", {body}}}'
    plant(tmp_path, {CONFIG: text})
    assert settings(tmp_path, [C])[check].status is status
    plant(tmp_path, {CONFIG: config(""), f"{DROP_INS}/1.conf": text})
    assert settings(tmp_path, [C, D])[check].status is dropped


def test_json_counts_as_well(tmp_path: Path) -> None:
    """JSON with tabs, as machines write it."""
    head = '{\n\t"apiVersion": "kubelet.config.k8s.io/v1beta1",\n'
    text = head + '\t"kind": "KubeletConfiguration",\n\t"readOnlyPort": 10255\n}'
    finding = settings(plant(tmp_path, {CONFIG: text}), (C,))["4.2.4"]
    assert (finding.status, finding.source) == (FAIL, at(4))


def test_relative_paths_start_where_the_kubelet_does(tmp_path: Path) -> None:
    """--config in the working directory of the process."""
    plant(tmp_path, {"/srv/k/kubelet.yaml": config("readOnlyPort: 10255\n")})
    finding = settings(tmp_path, ("--config=kubelet.yaml",), cwd="/srv/k")["4.2.4"]
    assert (finding.status, finding.source) == (FAIL, "/srv/k/kubelet.yaml:3")
    assert settings(tmp_path, ("--config=kubelet.yaml",), cwd="")["4.2.4"].status is UNKNOWN


def test_a_symlinked_drop_in_folder_is_passed_over_like_the_kubelet_does(tmp_path: Path) -> None:
    """filepath.WalkDir does not follow a symlink at its root, unless a slash makes it a folder."""
    plant(tmp_path, {CONFIG: config(""), "/srv/d/10-a.conf": config("readOnlyPort: 10255\n")})
    (tmp_path / "etc/link").parent.mkdir(parents=True)
    (tmp_path / "etc/link").symlink_to("/srv/d")
    assert settings(tmp_path, (C, "--config-dir=/etc/link"))["4.2.4"].status is PASS


def test_remedies_name_the_line_or_the_flag_to_change(tmp_path: Path) -> None:
    """An SRE can type what the finding says."""
    plant(tmp_path, {CONFIG: config("readOnlyPort: 10255\n")})
    found = settings(tmp_path, (C, "--anonymous-auth"))
    assert found["4.2.4"].remediation == f"Set `readOnlyPort: 0` at {at(3)} and restart the kubelet."
    assert found["4.2.1"].remediation == (
        "Remove --anonymous-auth from the kubelet's command line, set `authentication.anonymous.enabled: false` in "
        f"{CONFIG}, and restart the kubelet."
    )
    assert found["4.2.14"].remediation == f"Set `seccompDefault: true` in {CONFIG} and restart the kubelet."
    assert "--config" in settings(tmp_path, ())["4.2.1"].remediation


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"authentication: {anonymous: {enabled: y}}\n", Status.FAIL),
        (b"authentication: {anonymous: {enabled: Y}}\n", Status.FAIL),
        (b"authentication: {anonymous: {enabled: on}}\n", Status.FAIL),
        (b"authentication: {anonymous: {enabled: n}}\n", Status.PASS),
        (b"authentication: {anonymous: {enabled: 'y'}}\n", Status.UNKNOWN),
        (b"# caf\xe9\n", Status.UNKNOWN),
        (b"maxPods: many\n", Status.UNKNOWN),
        (b"maxPods: '110'\n", Status.UNKNOWN),
        (b"systemReserved: {cpu: 1}\n", Status.UNKNOWN),
        (b"systemReserved: {cpu: '1'}\n", Status.PASS),
        (b"clusterDNS: 10.0.0.10\n", Status.UNKNOWN),
        (b"syncFrequency: 60\n", Status.UNKNOWN),
        (b"memorySwap: LimitedSwap\n", Status.UNKNOWN),
        (b"unheardOf: {a: [1]}\nmaxPods: null\n", Status.PASS),
        (b"registerWithTaints: gpu\n", Status.UNKNOWN),
        (b"registerWithTaints: [{key: a, value: 1, effect: NoSchedule}]\n", Status.UNKNOWN),
        (b"registerWithTaints: [{key: a, value: '1', effect: NoSchedule, timeAdded: null}]\n", Status.PASS),
        (b"reservedMemory: {numaNode: 0}\n", Status.UNKNOWN),
        (b"reservedMemory: [{numaNode: 0, limits: {memory: 1Gi}}]\n", Status.PASS),
        (b"shutdownGracePeriodByPodPriority: [{priority: high}]\n", Status.UNKNOWN),
        (b"logging: {verbosity: -1}\n", Status.UNKNOWN),
        (b"logging: {verbosity: 4, vmodule: [{filePattern: x, verbosity: 2}]}\n", Status.PASS),
        (b"memoryThrottlingFactor: high\n", Status.UNKNOWN),
        (b"memoryThrottlingFactor: 0.9\n", Status.PASS),
        (b"staticPodURLHeader: {X: y}\n", Status.UNKNOWN),
        (b"staticPodURLHeader: {X: [z]}\n", Status.PASS),
    ],
)
def test_a_file_is_read_as_the_kubelet_reads_it(content: bytes, status: Status, tmp_path: Path) -> None:
    """`y` is true, and a wrong type anywhere or a byte that is not UTF-8 makes the kubelet refuse the whole file."""
    plant(tmp_path, {CONFIG: ""})
    (tmp_path / CONFIG.lstrip("/")).write_bytes(config("").encode() + content)
    assert settings(tmp_path, [f"--config={CONFIG}"])["4.2.1"].status is status


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ('"authentication": {"anonymous": {"enabled": true}}', Status.FAIL),
        ('"authentication": {"anonymous": {"enabled": y}}', Status.UNKNOWN),
        ('"authentication": {"anonymous": {"enabled": true}}, "maxPods": 110.0', Status.UNKNOWN),
        ('"authentication": {"anonymous": {"enabled": true},}', Status.UNKNOWN),
        ('"authentication": {"anonymous": {"enabled": false}}, "maxPods": NaN', Status.UNKNOWN),
        ("authentication: {anonymous: {enabled: false}}", Status.UNKNOWN),
    ],
)
def test_what_begins_with_a_brace_is_json(body: str, status: Status, tmp_path: Path) -> None:
    """YAML in braces is refused; a tab is white space."""
    head = '\t{"apiVersion": "kubelet.config.k8s.io/v1beta1",\t"kind": "KubeletConfiguration", '
    plant(tmp_path, {CONFIG: f"{head}{body}}}\n"})
    assert settings(tmp_path, [f"--config={CONFIG}"])["4.2.1"].status is status
