"""The six kernel settings that the kubelet wants, and which of them the node would not have after a reboot.

Without protectKernelDefaults the kubelet sets them itself; with it the kubelet does not start where one differs. What
the kernel has now is no evidence, since the kubelet has set it: what counts is sysctl.d, else the kernel's default.
https://github.com/kubernetes/kubernetes/blob/master/pkg/kubelet/cm/container_manager_linux.go (setupKernelTunables)
"""

from __future__ import annotations

import posixpath

from agent.errors import HostError
from agent.host import Host, sysctl_d

# name: (what the kubelet wants, the kernel's own default)
_SETTINGS = {
    "vm.overcommit_memory": ("1", "0"),
    "vm.panic_on_oom": ("0", "0"),
    "kernel.panic": ("10", "0"),
    "kernel.panic_on_oops": ("1", "0"),
    "kernel.keys.root_maxkeys": ("1000000", "1000000"),
    "kernel.keys.root_maxbytes": ("25000000", "25000000"),
}


def advice(host: Host) -> str:
    """What has to be done before protectKernelDefaults, empty when nothing has to."""
    try:
        files = sysctl_d.read(host)
    except HostError as error:
        return f"First check the six kernel settings that the kubelet then only compares ({error}). "
    lines = [f"{name}={value}" for name, (value, default) in _SETTINGS.items()
             if (line.value if (line := files.get(name)) else default) != value]  # fmt: skip
    if not lines:
        return ""
    file = posixpath.join(sysctl_d.FOLDERS[0], "90-kubelet.conf")
    return (
        f"First write {', '.join(lines)} into {file} and run `sysctl --system`: with it the kubelet does not start "
        "after a reboot where these differ. "
    )
