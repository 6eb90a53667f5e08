"""The kubelet's settings that are looked at: where each is in the configuration, its flag, its type and both defaults.

The tables are the kubelet's own (cmd/kubelet/app/options, pkg/kubelet/apis/config/v1beta1/defaults.go). A value of the
wrong type is refused as the kubelet refuses it, never bent into shape.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

from agent.controls.kubelet import flags as kubelet_flags
from agent.controls.kubelet.yaml_tree import Value, shown, to_json

_DURATION = re.compile(r"[-+]?(0|(([0-9]+(\.[0-9]*)?|\.[0-9]+)(ns|us|µs|μs|ms|s|m|h))+)")
_CSV = re.compile(r'(?:"(?:[^"]|"")*"|[^",]*)(?:,(?:"(?:[^"]|"")*"|[^",]*))*')


class Kind(Enum):
    """What kind of value it is, as a message names it."""

    BOOLEAN = "true or false"
    INT32 = "a whole number"
    INT64 = "a whole number up to 64 bits"
    TEXT = "text"
    DURATION = "a duration such as 4h0m0s"
    LIST = "a list of texts"
    GATES = "a mapping of feature names to true or false"
    TEXTS = "a mapping of names to texts"
    UINT32 = "a whole number from 0 on"
    NUMBER = "a number"
    OBJECTS = "a list of mappings with the right values"
    LISTS = "a mapping of names to lists of texts"


_RANGES = {Kind.INT32: range(-(1 << 31), 1 << 31), Kind.INT64: range(-(1 << 63), 1 << 63), Kind.UINT32: range(1 << 32)}
# What the values of a mapping are.
_MAPPINGS = {Kind.GATES: Kind.BOOLEAN, Kind.TEXTS: Kind.TEXT, Kind.LISTS: Kind.LIST}


class Wrong(ValueError):
    """The kubelet refuses the value; the message explains why, without naming the place."""


@dataclass(frozen=True, slots=True)
class Field:
    """One setting. path: dotted, in KubeletConfiguration; empty for what only a flag can set.

    default: of v1beta1. legacy: the default when there is no --config, None: the same one. zero_is_unset: an empty text
    or 0 in the file is replaced by the default (a Go field that is no pointer).
    """

    path: str
    flag: str
    kind: Kind
    default: Any
    legacy: Any = None
    zero_is_unset: bool = False


ANONYMOUS = Field("authentication.anonymous.enabled", "anonymous-auth", Kind.BOOLEAN, False, True)
WEBHOOK = Field("authentication.webhook.enabled", "authentication-token-webhook", Kind.BOOLEAN, True, False)
AUTHORIZATION = Field(
    "authorization.mode", "authorization-mode", Kind.TEXT, "Webhook", "AlwaysAllow", zero_is_unset=True
)
CLIENT_CA = Field("authentication.x509.clientCAFile", "client-ca-file", Kind.TEXT, "")
READ_ONLY_PORT = Field("readOnlyPort", "read-only-port", Kind.INT32, 0, 10255)
STREAMING = Field(
    "streamingConnectionIdleTimeout", "streaming-connection-idle-timeout", Kind.DURATION, "4h", zero_is_unset=True
)
IPTABLES = Field("makeIPTablesUtilChains", "make-iptables-util-chains", Kind.BOOLEAN, True)
HOSTNAME = Field("", "hostname-override", Kind.TEXT, "")
EVENT_QPS = Field("eventRecordQPS", "event-qps", Kind.INT32, 50)
CERTIFICATE = Field("tlsCertFile", "tls-cert-file", Kind.TEXT, "")
PRIVATE_KEY = Field("tlsPrivateKeyFile", "tls-private-key-file", Kind.TEXT, "")
ROTATE = Field("rotateCertificates", "rotate-certificates", Kind.BOOLEAN, False)
SERVER_TLS = Field("serverTLSBootstrap", "rotate-server-certificates", Kind.BOOLEAN, False)
CIPHERS = Field("tlsCipherSuites", "tls-cipher-suites", Kind.LIST, ())
PIDS = Field("podPidsLimit", "pod-max-pids", Kind.INT64, -1)
SECCOMP = Field("seccompDefault", "seccomp-default", Kind.BOOLEAN, False)
KERNEL_DEFAULTS = Field("protectKernelDefaults", "protect-kernel-defaults", Kind.BOOLEAN, False)
TLS_MINIMUM = Field("tlsMinVersion", "tls-min-version", Kind.TEXT, "")
SYSCTLS = Field("allowedUnsafeSysctls", "allowed-unsafe-sysctls", Kind.LIST, ())
PULL_POLICY = Field(
    "imagePullCredentialsVerificationPolicy", "", Kind.TEXT, "NeverVerifyPreloadedImages", zero_is_unset=True
)
LOG_QUERY = Field("enableSystemLogQuery", "", Kind.BOOLEAN, False)
PROFILING = Field("enableProfilingHandler", "", Kind.BOOLEAN, True)
DEBUG_FLAGS = Field("enableDebugFlagsHandler", "", Kind.BOOLEAN, True)
DEBUGGING = Field("enableDebuggingHandlers", "enable-debugging-handlers", Kind.BOOLEAN, True)
HEALTHZ = Field("healthzBindAddress", "healthz-bind-address", Kind.TEXT, "127.0.0.1", zero_is_unset=True)
HEALTHZ_PORT = Field("healthzPort", "healthz-port", Kind.INT32, 10248)
STATIC_PODS = Field("staticPodPath", "pod-manifest-path", Kind.TEXT, "")
STATIC_URL = Field("staticPodURL", "manifest-url", Kind.TEXT, "")
GATES = Field("featureGates", "feature-gates", Kind.GATES, {})
ADDRESS = Field("address", "address", Kind.TEXT, "0.0.0.0", zero_is_unset=True)  # noqa: S104 - the kubelet's default
PORT = Field("port", "port", Kind.INT32, 10250, zero_is_unset=True)
SERVER = Field("enableServer", "enable-server", Kind.BOOLEAN, True)
RUNTIME = Field(
    "containerRuntimeEndpoint",
    "container-runtime-endpoint",
    Kind.TEXT,
    "unix:///run/containerd/containerd.sock",
    zero_is_unset=True,
)
# Every field above, in that order.
FIELDS: tuple[Field, ...] = tuple(value for value in globals().values() if isinstance(value, Field))


# The other fields of v1beta1 with their types: the kubelet refuses a file with a wrong type anywhere in it.
# https://kubernetes.io/docs/reference/config-api/kubelet-config.v1beta1/
_OTHERS = {
    Kind.BOOLEAN: """cgroupsPerQOS cpuCFSQuota enableContentionProfiling enableControllerAttachDetach
        enableSystemLogHandler failCgroupV1 failSwapOn kernelMemcgNotification localStorageCapacityIsolation
        mergeDefaultEvictionSettings registerNode runOnce serializeImagePulls singleProcessOOMKill""",
    Kind.INT32: """containerLogMaxFiles containerLogMaxWorkers eventBurst evictionMaxPodGracePeriod
        imageGCHighThresholdPercent imageGCLowThresholdPercent iptablesDropBit iptablesMasqueradeBit kubeAPIBurst
        kubeAPIQPS maxParallelImagePulls maxPods nodeLeaseDurationSeconds nodeStatusMaxImages oomScoreAdj podsPerCore
        registryBurst registryPullQPS tracing.samplingRatePerMillion""",
    Kind.INT64: "maxOpenFiles userNamespaces.idsPerPod",
    Kind.TEXT: """cgroupDriver cgroupRoot clusterDomain configMapAndSecretChangeDetectionStrategy containerLogMaxSize
        contentType cpuManagerPolicy hairpinMode imageServiceEndpoint kubeReservedCgroup kubeletCgroups logging.format
        memoryManagerPolicy memorySwap.swapBehavior podCIDR podLogsDir providerID reservedSystemCPUs resolvConf
        showHiddenMetricsForVersion systemCgroups systemReservedCgroup topologyManagerPolicy
        topologyManagerScope tracing.endpoint volumePluginDir""",
    Kind.DURATION: """authentication.webhook.cacheTTL authorization.webhook.cacheAuthorizedTTL
        authorization.webhook.cacheUnauthorizedTTL containerLogMonitorInterval cpuCFSQuotaPeriod
        cpuManagerReconcilePeriod crashLoopBackOff.maxContainerRestartPeriod evictionPressureTransitionPeriod
        fileCheckFrequency httpCheckFrequency imageMaximumGCAge imageMinimumGCAge nodeStatusReportFrequency
        nodeStatusUpdateFrequency runtimeRequestTimeout shutdownGracePeriod shutdownGracePeriodCriticalPods
        syncFrequency volumeStatsAggPeriod""",
    Kind.LIST: "clusterDNS enforceNodeAllocatable preloadedImagesVerificationAllowlist",
    Kind.TEXTS: """cpuManagerPolicyOptions evictionHard evictionMinimumReclaim evictionSoft evictionSoftGracePeriod
        kubeReserved qosReserved systemReserved topologyManagerPolicyOptions""",
    Kind.UINT32: "logging.verbosity",
    Kind.NUMBER: "memoryThrottlingFactor",
    Kind.OBJECTS: "registerWithTaints reservedMemory shutdownGracePeriodByPodPriority logging.vmodule",
    Kind.LISTS: "staticPodURLHeader",
}
# What the mappings of Kind.OBJECTS hold, by key: no two of them give a key another type.
_IN_OBJECTS = {
    key: kind
    for kind, names in {
        Kind.TEXT: "key value effect filePattern",
        Kind.INT32: "numaNode priority",
        Kind.INT64: "shutdownGracePeriodSeconds",
        Kind.UINT32: "verbosity",
    }.items()
    for key in names.split()
}
TYPED: tuple[Field, ...] = (
    *(field for field in FIELDS if field.path),
    *(Field(path, "", kind, None) for kind, paths in _OTHERS.items() for path in paths.split()),
)


def from_file(field: Field, value: Value) -> Any:
    """The value as the kubelet decodes it from JSON; lists become tuples. Raises Wrong."""
    read = to_json(value)
    if not _fits(field.kind, read):
        raise Wrong(f"{field.path} is {shown(value)}, it has to be {field.kind.value}")
    return tuple(read) if isinstance(read, list) else read


def from_flags(field: Field, flags: kubelet_flags.Flags) -> Any:
    """What the command line sets, None when it does not set the field. Raises Wrong."""
    given = flags.all(field.flag) if field.flag else ()
    if not given:
        return None
    if field.kind is Kind.LIST:
        return tuple(item for flag in given for item in split_csv(flag.value))
    if field.kind is Kind.GATES:
        return _gates([flag.value for flag in given])
    text = given[-1].value
    parsed: Any = text
    if field.kind is Kind.BOOLEAN:
        parsed = kubelet_flags.boolean(text)
    elif field.kind in _RANGES:
        parsed = _number(text)
    if not _fits(field.kind, parsed):
        raise Wrong(f"--{field.flag}={text[:80]!r}, it has to be {field.kind.value}")
    return parsed


def deciding_gate(gates: Mapping[str, object], name: str) -> str:
    """The gate that decides about a feature which is beta: its own, whatever the order, else AllBeta where that is set.

    https://github.com/kubernetes/component-base/blob/master/featuregate/feature_gate.go (setUnsetBetaGates)
    """
    return "AllBeta" if name not in gates and "AllBeta" in gates else name


def spelled(value: Any) -> str:
    """A value as it is written in YAML, on one line."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, Mapping):
        return ", ".join(f"{key}={spelled(below)}" for key, below in sorted(value.items())) or "{}"
    if isinstance(value, list | tuple):
        return ", ".join(str(item) for item in value) or "[]"
    return str(value) if value != "" else '""'


def split_csv(text: str) -> Sequence[str]:
    """pflag's StringSlice: one line of CSV, quotes only around a whole item. Raises Wrong."""
    if not _CSV.fullmatch(text):
        raise Wrong(f"{text[:80]!r} is not a comma-separated list")
    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as error:
        raise Wrong(f"{text[:80]!r} is not a comma-separated list: {error}") from error
    return rows[0] if rows else ()


def _gates(texts: Sequence[str]) -> Mapping[str, bool]:
    """MapStringBool: `A=true,B=false`; a later one wins, repeated flags add up."""
    gates: dict[str, bool] = {}
    for pair in (pair for text in texts for pair in text.split(",") if pair.strip()):
        name, equals, value = pair.partition("=")
        parsed = kubelet_flags.boolean(value.strip())
        if not equals or parsed is None:
            raise Wrong(f"--feature-gates has {pair.strip()[:80]!r}, it has to be NAME=true or NAME=false")
        gates[name.strip()] = parsed
    return gates


def _number(text: str) -> int | None:
    """As Go's strconv.ParseInt reads it with base 0."""
    if not re.fullmatch(r"[-+]?(0[xX][0-9a-fA-F]{1,16}|0[oO]?[0-7]{1,22}|[0-9]{1,20})", text):
        return None
    digits = text.lstrip("+-")
    base = 8 if len(digits) > 1 and digits[0] == "0" and digits[1].isdigit() else 0
    try:
        return int(digits, base) * (-1 if text[0] == "-" else 1)
    except ValueError:  # 08
        return None


def _fits(kind: Kind, read: Any) -> bool:
    """Whether a value of JSON is of that kind."""
    if kind in _RANGES:
        return isinstance(read, int) and not isinstance(read, bool) and read in _RANGES[kind]
    if kind in _MAPPINGS:
        return isinstance(read, dict) and all(_fits(_MAPPINGS[kind], value) for value in read.values())
    if kind is Kind.LIST:
        return isinstance(read, list) and all(isinstance(item, str) for item in read)
    if kind is Kind.OBJECTS:
        return isinstance(read, list) and all(isinstance(item, dict) and _is_object(item) for item in read)
    if kind is Kind.NUMBER:
        return isinstance(read, int | float) and not isinstance(read, bool)
    if kind is Kind.DURATION:
        return isinstance(read, str) and _DURATION.fullmatch(read) is not None
    return isinstance(read, bool if kind is Kind.BOOLEAN else str)


def _is_object(item: Mapping[str, Any]) -> bool:
    return all(value is None or key not in _IN_OBJECTS or _fits(_IN_OBJECTS[key], value) for key, value in item.items())
