"""The policy as frozen values: one dataclass per section of the file, each key with its default and what it is for.

The loader, the JSON Schema and the configuration reference are made from these classes, so a key is described once.
The empty file is a sensible policy. Nothing here reads files or validates.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from agent.annotations import LABEL, PREFIX, TAINT
from agent.config.choices import (
    AuditMode,
    Kured,
    LogFormat,
    LogLevel,
    Mode,
    NotifyType,
    OnLostHolder,
    OnTimeout,
    ParserChoice,
    RebootMethod,
    Required,
    Weekday,
    WeekOfMonth,
)
from agent.config.fields import key, section
from agent.config.groups import Override, Rollout
from agent.config.node_sections import (
    Certificates,
    ControlPlane,
    Denials,
    MetadataAccess,
    Selinux,
    Sysctl,
    Updates,
    Version,
)
from agent.config.scalar_types import (
    Address,
    Bytes,
    Command,
    Count,
    CountOrPercent,
    Date,
    DateOrNone,
    ExitCode,
    LabelKey,
    LabelKeyOrNone,
    LabelSelector,
    LabelValue,
    Module,
    Name,
    Natural,
    ObjectNameOrNone,
    Path,
    PathOrAuto,
    PathOrNone,
    Regexp,
    Seconds,
    Template,
    TimeOfDay,
    Timezone,
    Url,
    Words,
)
from agent.config.selector import Selector
from agent.config.selector import parse as parse_selector
from agent.event_reasons import Reason

API_VERSION = f"{PREFIX}v1alpha1"
KIND = "AgentConfig"


@dataclass(frozen=True, slots=True, kw_only=True)
class Modprobe:
    """Denied kernel modules."""

    mode: Mode = key(Mode.ENFORCE, "enforce, audit or off")
    file: Path = key("/etc/modprobe.d/kubernetes-blacklist.conf", "the agent's file, in a folder modprobe.d")
    lists: tuple[Name, ...] = key(("kubernetes",), "named deny lists: files of profiles/modprobe")
    deny: tuple[Module, ...] = key((), "more modules to deny")
    allow: tuple[Module, ...] = key((), "modules exempted from the lists")
    force: tuple[Module, ...] = key((), "modules to deny even where the node runs on them")
    unload: bool = key(False, "unload a denied module that is loaded and unused")


@dataclass(frozen=True, slots=True, kw_only=True)
class Apparmor:
    """AppArmor profiles loaded into the kernel."""

    mode: Mode = key(Mode.ENFORCE, "enforce, audit or off")
    profiles: Path = key("/etc/node-hardening/apparmor", "folder of raw profiles; the shipped ones when it is absent")
    parser: ParserChoice = key(ParserChoice.NEWEST, "whose apparmor_parser: the image's, the node's or the newest")


@dataclass(frozen=True, slots=True, kw_only=True)
class Seccomp:
    """Seccomp profiles installed for the kubelet."""

    mode: Mode = key(Mode.ENFORCE, "enforce, audit or off")
    profiles: Path = key("/etc/node-hardening/seccomp", "folder of JSON profiles; the shipped ones when it is absent")
    directory: PathOrAuto = key(
        "auto", "where the kubelet reads them: auto (its --root-dir, then /seccomp) or an absolute path"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Kubelet:
    """Audit of the kubelet's configuration. Never changes it."""

    mode: AuditMode = key(AuditMode.AUDIT, "audit or off")
    probe: bool = key(True, "check what the running kubelet serves without credentials")
    skip: Mapping[Words, Words] = section(dict, "check's id: reason; shown as skipped, never as pass")


@dataclass(frozen=True, slots=True, kw_only=True)
class Sentinel:
    """What requests a reboot: a file, or a command."""

    file: Path = key("/var/run/reboot-required", "its presence requests a reboot; FILE.pkgs names the packages")
    command: Command = key((), "instead of the file: its exit code is looked up in exitCodes")
    exit_codes: Mapping[ExitCode, Required] = section(
        lambda: {0: Required.REQUIRED, 1: Required.NONE},
        "what each exit code means; any other is unknown, 126 and 127 (it could not be started) always",
    )
    interval: Seconds = key(60.0, "how often the command runs (the file is watched, not polled)", least=1)
    timeout: Seconds = key(60.0, "the command is killed after this, and its result unknown", least=0.001)
    settle: Seconds = key(30.0, "no reboot until the sentinel has been unchanged for this long")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pool:
    """Nodes that reboot one after another. The control plane is always its own pool."""

    label: LabelKeyOrNone = key("", "nodes with the same value of this label share a pool; empty: all workers are one")
    control_plane_max_unavailable: Count = key(
        1, "control-plane nodes down at the same time, instead of maxUnavailable; at most what etcd tolerates", least=1
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """When a reboot may begin. An end before the start means the next day."""

    days: tuple[Weekday, ...] = key(tuple(Weekday), "days on which the window opens")
    start: TimeOfDay = key("00:00", "opens at")
    end: TimeOfDay = key("00:00", "closes at; start and end both 00:00: the whole day")
    timezone: Timezone = key("UTC", "IANA time zone")
    weeks: tuple[WeekOfMonth, ...] = key((), "only such days of a month: first (Tuesday) … fifth, last; empty: all")
    days_of_month: tuple[Count, ...] = key((), "only these days of a month, 1 to 31; empty: all")


@dataclass(frozen=True, slots=True, kw_only=True)
class Blackout:
    """Dates on which no reboot begins, windows or not."""

    start: DateOrNone = key("", "the first day, such as 2026-12-20, or 12-20 each year")
    end: DateOrNone = key("", "the last day, in the same form; empty: the first day only")
    timezone: Timezone = key("UTC", "IANA time zone")
    reason: str = key("", "shown while it holds")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prometheus:
    """Alerts that block reboots. A Prometheus that cannot be reached blocks too."""

    url: Url = key("", "base URL; empty: not used")
    query: str = key("", "PromQL instead of the alerts API: any series in the result blocks")
    ignore: Regexp = key("^(Watchdog|NodeHardening.*)$", "alerts whose name matches do not block; ours must not")
    only: Regexp = key("", "when set, only alerts whose name matches block")
    labels: LabelSelector = key(Selector(), "only alerts with these labels block")
    firing_only: bool = key(True, "pending alerts do not block")
    token_file: PathOrNone = key("", "file with a bearer token")
    ca_file: PathOrNone = key("", "file with the CA of an https URL")
    timeout: Seconds = key(10.0, "for one request", least=0.001)
    basic_auth_file: PathOrNone = key("", "file with `user:password` for basic authentication")
    header_files: Mapping[Words, Path] = section(dict, "more headers, each with the file that holds its value")


@dataclass(frozen=True, slots=True, kw_only=True)
class Blockers:
    """What blocks a reboot, checked before the lock and again before the reboot."""

    prometheus: Prometheus = section(Prometheus, "alerts")
    pods: tuple[LabelSelector, ...] = key((), "a running pod on this node with such labels blocks")
    minimum_gap: Seconds = key(0.0, "least time between two reboots in one pool")
    package_manager: bool = key(True, "dpkg, APT, unattended-upgrades, RPM, DNF or Zypper at work blocks")
    inhibitors: bool = key(True, "a systemd block inhibitor of a shutdown blocks")


@dataclass(frozen=True, slots=True, kw_only=True)
class WaitFor:
    """Pods that finish by themselves on the cordoned node before anything is evicted."""

    pods: tuple[LabelSelector, ...] = key((), "running pods with such labels are waited for")
    annotations: Mapping[LabelKey, Words] = section(
        dict, 'running pods with such an annotation are waited for, e.g. karpenter.sh/do-not-disrupt: "true"'
    )
    timeout: Seconds = key(0.0, "evicted after this like others; 0: waited for until drain.timeout")


@dataclass(frozen=True, slots=True, kw_only=True)
class Drain:
    """How the node is emptied."""

    timeout: Seconds = key(1800.0, "for the whole drain", least=1)
    on_timeout: OnTimeout = key(OnTimeout.ABORT, "abort (roll back), delete (what is left) or force (reboot anyway)")
    grace_period: Seconds | None = key(None, "for each pod; null: the pod's own")
    delete_empty_dir_data: bool = key(True, "pods with emptyDir volumes may be evicted")
    force: bool = key(True, "pods without a controller may be evicted")
    pod_selector: LabelSelector = key(Selector(), "only pods with these labels are evicted")
    skip_wait_for_delete_timeout: Seconds = key(0.0, "pods terminating for longer are not waited for; 0: wait")
    delay: Seconds = key(0.0, "between cordon and the first eviction")
    wait_for: WaitFor = section(WaitFor, "pods that must finish before anything is evicted")
    evict_last: tuple[LabelSelector, ...] = key(
        (parse_selector("app in (rook-ceph-mon,rook-ceph-osd)"), parse_selector("longhorn.io/component")),
        "storage pods: evicted when all others are gone, together with system-critical pods",
    )
    volume_timeout: Seconds = key(
        0.0, "after the last pod, how long to wait for the node's VolumeAttachments to go; 0: do not wait"
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Hook:
    """A command on the node. One that fails aborts the reboot (preDrain, preReboot) or the release (postReboot)."""

    command: Command = key((), "what runs on the node")
    timeout: Seconds = key(300.0, "killed after this, which counts as failed", least=0.001)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """Commands on the node around a reboot."""

    pre_drain: tuple[Hook, ...] = key((), "after cordon, before the first eviction")
    pre_reboot: tuple[Hook, ...] = key((), "after the drain, before the reboot")
    post_reboot: tuple[Hook, ...] = key((), "after verification, before uncordon")


@dataclass(frozen=True, slots=True, kw_only=True)
class Lock:
    """The Lease that lets one node at a time reboot."""

    lease_duration: Seconds = key(60.0, "a holder without renewal for longer counts as lost", least=5, most=3600)
    release_delay: Seconds = key(0.0, "kept this long after the node is back, for workloads to settle")
    on_lost_holder: OnLostHolder = key(OnLostHolder.HOLD, "hold (on-call decides) or release")
    kured: Kured = key(Kured.AUTO, "respect kured's lock: auto or off")
    kured_daemonset: ObjectNameOrNone = key("", "kured's DaemonSet, namespace/name; empty: found by its annotation")
    kured_annotation: LabelKey = key("weave.works/kured-node-lock", "the annotation that holds kured's lock")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeLabels:
    """Labels set on the node around a reboot (kured's pre- and post-reboot node labels)."""

    before: Mapping[LabelKey, LabelValue] = section(dict, "set when the cycle begins, removed when it ends")
    after: Mapping[LabelKey, LabelValue] = section(dict, "set when the cycle succeeded")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeAnnotations:
    """Annotations set on the node around a reboot, such as an autoscaler's "do not scale down"."""

    before: Mapping[LabelKey, Words] = section(dict, "set when the cycle begins, removed when it ends")
    after: Mapping[LabelKey, Words] = section(dict, "set when the cycle succeeded")


@dataclass(frozen=True, slots=True, kw_only=True)
class Reboot:
    """Reboots, one node at a time."""

    mode: Mode = key(Mode.ENFORCE, "enforce, audit (reports what it would do) or off")
    sentinel: Sentinel = section(Sentinel, "what requests a reboot")
    pool: Pool = section(Pool, "which nodes wait for each other")
    concurrency: Count = key(1, "nodes of a pool that may be down at the same time", most=1000)
    max_unavailable: CountOrPercent = key("1", "nodes of a pool that may be not Ready or cordoned, this one included")
    windows: tuple[Window, ...] = key((), "when a reboot may begin; empty: at any time")
    blackouts: tuple[Blackout, ...] = key((), "dates on which no reboot begins")
    blockers: Blockers = section(Blockers, "what blocks a reboot")
    drain: Drain = section(Drain, "how the node is emptied")
    hooks: Hooks = section(Hooks, "commands on the node around a reboot")
    lock: Lock = section(Lock, "the Lease that lets one node at a time reboot")
    prefer_no_schedule_taint: LabelKeyOrNone = key("", "PreferNoSchedule taint while a reboot is pending; empty: none")
    node_labels: NodeLabels = section(NodeLabels, "labels set on the node around a reboot")
    node_annotations: NodeAnnotations = section(NodeAnnotations, "annotations set on the node around a reboot")
    method: RebootMethod = key(RebootMethod.COMMAND, "command or signal")
    command: Command = key(("/usr/bin/systemctl", "reboot"), "what reboots the node")
    delay: Seconds = key(0.0, "between the drain and the reboot")
    reboot_timeout: Seconds = key(600.0, "the boot id has to change within this", least=1)
    verify_timeout: Seconds = key(900.0, "the node must be verified within this after it is back", least=1)
    retry_after: Seconds = key(600.0, "back-off after a failure; doubles up to a day", least=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Notify:
    """One receiver of events."""

    type: NotifyType = key(NotifyType.WEBHOOK, "the kind of receiver")
    url_file: PathOrNone = key("", "file with the URL (it is a secret)")
    key_file: PathOrNone = key("", "file with PagerDuty's routing key")
    events: tuple[Reason, ...] = key((), "Event reasons that are sent; empty: those that on-call must see")
    template: Template = key("", "the message's text; empty: the default one")
    cluster: str = key("", "name of this cluster in messages")
    timeout: Seconds = key(10.0, "for one attempt", least=0.001)
    retries: Natural = key(3, "attempts after the first one", most=100)


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeStatus:
    """What is written on the Node beside annotations and conditions."""

    label: bool = key(True, f"label {LABEL}=true|false")
    startup_taint: bool = key(True, f"remove the taint {TAINT} once the node is verified")
    keep_taint_until_reboot: bool = key(
        False, "keep that taint also while a reboot is all that is missing: a denied module that was loaded before"
    )
    findings_limit: Bytes = key(
        4096, "largest findings annotation; what does not fit is counted", least=256, most=65536
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Metrics:
    """Where /metrics, /healthz and /readyz are served."""

    address: Address = key("0.0.0.0:9105", "an empty string serves nothing")


@dataclass(frozen=True, slots=True, kw_only=True)
class Log:
    """The agent's own log."""

    level: LogLevel = key(LogLevel.INFO, "debug, info, warning or error")
    format: LogFormat = key(LogFormat.AUTO, "auto (text on a terminal, else JSON), json or text")


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditException:
    """A finding that is accepted for a time: shown as information with this reason until the date, then back."""

    id: str = key("", "the check's id, such as kubelet/4.2.6 or cluster/privileged")
    selector: Mapping[Words, Words] = section(
        dict,
        "what it holds for, all of them: node (with * and ?), or for cluster/… namespace, kind, name, subject; "
        "labels is a selector of the Node's labels",
    )
    reason: str = key("", "why it is accepted; shown with the finding")
    owner: str = key("", "who answers for it")
    expires: Date = key("", "its last day, such as 2027-06-30; at most a year ahead")


@dataclass(frozen=True, slots=True, kw_only=True)
class Config:
    """The whole policy."""

    interval: Seconds = key(300.0, "between full passes; folders are watched in between", least=1)
    modprobe: Modprobe = section(Modprobe, "denied kernel modules")
    apparmor: Apparmor = section(Apparmor, "AppArmor profiles")
    seccomp: Seccomp = section(Seccomp, "seccomp profiles")
    kubelet: Kubelet = section(Kubelet, "the kubelet's configuration")
    control_plane: ControlPlane = section(ControlPlane, "the control plane, on its own nodes")
    certificates: Certificates = section(Certificates, "certificates and private keys")
    version: Version = section(Version, "versions of Kubernetes: support and skew")
    sysctl: Sysctl = section(Sysctl, "kernel settings")
    updates: Updates = section(Updates, "the operating system's updates")
    selinux: Selinux = section(Selinux, "SELinux")
    metadata_access: MetadataAccess = section(MetadataAccess, "what pods reach of the cloud's metadata service")
    exceptions: tuple[AuditException, ...] = key((), "findings that are accepted for a time; all keys are required")
    denials: Denials = section(Denials, "what profiles refuse")
    reboot: Reboot = section(Reboot, "reboots, one node at a time")
    notify: tuple[Notify, ...] = key((), "receivers of events")
    status: NodeStatus = section(NodeStatus, "what the Node shows")
    metrics: Metrics = section(Metrics, "the agent's own HTTP port")
    log: Log = section(Log, "the agent's log")
    overrides: tuple[Override, ...] = key((), "what differs on some nodes, merged in order over the rest")
    rollout: Rollout = section(Rollout, "which nodes take a changed policy first")
