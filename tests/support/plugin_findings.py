"""What a pass over a staged node found: all well, but for the findings that a test names."""

from __future__ import annotations

from agent.model import Change, Finding, Report, Severity, Status


def report(node: str, *more: Finding, changes: tuple[Change, ...] = ()) -> Report:
    """One pass over a node on which all is well but for these findings."""
    passing = [
        _passing("modprobe/sctp", "Kernel module sctp is refused"),
        _passing("modprobe/dccp", "Kernel module dccp is refused"),
        _passing("apparmor/profile/k8s-hardened-default", "AppArmor profile k8s-hardened-default is loaded"),
        _passing("seccomp/profile/hardened.json", "Seccomp profile hardened.json is valid and installed"),
        _passing("kubelet/4.2.1", "Anonymous requests are refused"),
        _passing("kubelet/4.2.4", "The read-only port is closed"),
    ]
    named = {one.id for one in more}
    return Report(node, (*(one for one in passing if one.id not in named), *more), changes)


def _passing(name: str, title: str) -> Finding:
    return Finding(name, name.partition("/")[0], title, Status.PASS, Severity.HIGH)


SCTP = Finding(
    "modprobe/sctp",
    "modprobe",
    "Kernel module sctp is refused",
    Status.FAIL,
    Severity.HIGH,
    "it loads",
    "refused, and not in the running kernel",
    "modprobe",
    "Set modprobe.mode to enforce, and the agent corrects it.",
)
ANONYMOUS = Finding(
    "kubelet/4.2.1",
    "kubelet",
    "Anonymous requests are refused",
    Status.FAIL,
    Severity.CRITICAL,
    "true",
    "false",
    "/var/lib/kubelet/config.yaml",
    "Set authentication.anonymous.enabled: false in /var/lib/kubelet/config.yaml and restart the kubelet.",
)
NO_KUBELET = Finding(
    "kubelet/process",
    "kubelet",
    "The kubelet is found",
    Status.UNKNOWN,
    Severity.HIGH,
    "no process named kubelet, and no unit",
    "one running kubelet",
    "",
    "Name the kubelet's process in kubelet.process where it runs inside another one.",
)
