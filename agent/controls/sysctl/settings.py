"""Which kernel settings are judged, what passes, and which of them the agent may write.

What pods' networks and runtimes need is not in the table as a demand: CIS' `ip_forward=0`, any `rp_filter` (Cilium
needs 0, Calico refuses 2) and `max_user_namespaces=0` (hostUsers: false, rootless builds) break nodes. Such rows are
shown, and never set. https://docs.kernel.org/admin-guide/sysctl/
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.model import Severity

_KUBELET = "the kubelet sets it at its start, and with protectKernelDefaults compares it"


@dataclass(frozen=True, slots=True)
class Setting:
    """One kernel setting. accepted: the values that pass, the one that the agent writes first.

    one_way: the kernel refuses another value until the next boot. interfaces: `all` counts together with the value of
    each interface, so each has to pass too. shown: reported as info whatever it is, never written. why: in the title.
    """

    key: str
    accepted: tuple[str, ...]
    severity: Severity
    why: str
    one_way: bool = False
    interfaces: bool = False
    shown: bool = False
    cis: tuple[str, ...] = ()
    section: str = "K6"


def _kubelet(key: str, value: str) -> Setting:
    return Setting(key, (value,), Severity.MEDIUM, _KUBELET, cis=("4.2.6",), section="K4")


_LOW, _MEDIUM, _INFO = Severity.LOW, Severity.MEDIUM, Severity.INFO

SETTINGS: tuple[Setting, ...] = (
    _kubelet("vm.overcommit_memory", "1"),
    _kubelet("vm.panic_on_oom", "0"),
    _kubelet("kernel.panic", "10"),
    _kubelet("kernel.panic_on_oops", "1"),
    _kubelet("kernel.keys.root_maxkeys", "1000000"),
    _kubelet("kernel.keys.root_maxbytes", "25000000"),
    Setting("kernel.kptr_restrict", ("1", "2"), _LOW, "kernel addresses are hidden from containers"),
    Setting("kernel.dmesg_restrict", ("1",), _LOW, "the kernel's log is root's"),
    # 2 can be changed again, 1 cannot: so 2 is written.
    Setting("kernel.unprivileged_bpf_disabled", ("2", "1"), _MEDIUM, "only privileged processes load BPF programs"),
    Setting("kernel.yama.ptrace_scope", ("1", "2", "3"), _LOW, "a process traces only its children"),
    Setting("kernel.perf_event_paranoid", ("2", "3", "4"), _LOW, "no kernel profiling by unprivileged users"),
    Setting("kernel.randomize_va_space", ("2",), _MEDIUM, "address space layout is random, the heap's too"),
    Setting("fs.suid_dumpable", ("0",), _MEDIUM, "setuid programs leave no core dump"),
    Setting("fs.protected_symlinks", ("1",), _MEDIUM, "no foreign symlinks in sticky folders"),
    Setting("fs.protected_hardlinks", ("1",), _MEDIUM, "no hard links to foreign files"),
    Setting("fs.protected_fifos", ("1", "2"), _MEDIUM, "no foreign FIFOs in sticky folders"),
    Setting("fs.protected_regular", ("1", "2"), _MEDIUM, "no foreign files in sticky folders"),
    Setting("vm.unprivileged_userfaultfd", ("0",), _LOW, "userfaultfd is root's"),
    Setting("dev.tty.ldisc_autoload", ("0",), _LOW, "no line discipline loads by itself", section="K7"),
    Setting("net.ipv4.conf.all.accept_redirects", ("0",), _LOW, "ICMP redirects are ignored", section="K8"),
    Setting("net.ipv4.conf.default.accept_redirects", ("0",), _LOW, "ICMP redirects are ignored", section="K8"),
    Setting("net.ipv4.conf.all.send_redirects", ("0",), _LOW, "no ICMP redirects", interfaces=True, section="K8"),
    Setting("net.ipv4.conf.default.send_redirects", ("0",), _LOW, "no ICMP redirects", section="K8"),
    Setting("net.ipv4.conf.all.accept_source_route", ("0",), _LOW, "no source routing", section="K8"),
    Setting("net.ipv4.conf.default.accept_source_route", ("0",), _LOW, "no source routing", section="K8"),
    Setting("kernel.kexec_load_disabled", ("1",), _LOW, "no other kernel is started (but kdump's)", one_way=True),
    Setting("net.core.bpf_jit_harden", ("1", "2"), _INFO, "2 slows eBPF networks, both blind profilers", shown=True),
    Setting("kernel.io_uring_disabled", ("1", "2"), _INFO, "databases use io_uring", shown=True),
    Setting("net.ipv4.ip_forward", ("1",), _INFO, "pods need it: CIS Linux's 0 is not for nodes", shown=True),
    Setting("net.ipv4.conf.all.rp_filter", ("0", "1", "2"), _INFO, "the network plugin's to choose", shown=True),
    Setting("net.ipv4.conf.all.route_localnet", ("0",), _INFO, "kube-proxy sets 1 for NodePorts", shown=True),
    Setting("user.max_user_namespaces", (), _INFO, "0 breaks pods with hostUsers: false", shown=True),
)  # fmt: skip
KEYS = tuple(setting.key for setting in SETTINGS)
