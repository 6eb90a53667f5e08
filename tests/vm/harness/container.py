"""Containers as runc and crun start them, for what a container is refused and for the agent in one of its own."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from tests.vm.harness.channel import Done
from tests.vm.harness.machine import Machine

# What containerd's decoder keeps of a profile: it reads the file straight into the OCI type, and all else vanishes.
_KEPT = ("defaultAction", "defaultErrnoRet", "architectures", "flags", "listenerPath", "listenerMetadata")
_KEPT_OF_RULE = ("names", "action", "errnoRet", "args")


def as_containerd(profile: Mapping[str, Any]) -> dict[str, Any]:
    """A profile's file as it arrives in the container's specification."""
    rules = [{key: rule[key] for key in _KEPT_OF_RULE if key in rule} for rule in profile.get("syscalls", [])]
    # Go's nil slice of names is written as null, which runc reads as no name.
    rules = [{"names": None, **rule} for rule in rules]
    return {**{key: profile[key] for key in _KEPT if key in profile}, "syscalls": rules}


def run(
    machine: Machine,
    argv: Sequence[str],
    *,
    seccomp: Mapping[str, Any] | None = None,
    mounts: Sequence[Mapping[str, Any]] = (),
    before: str = "",
    privileged: bool = False,
    capabilities: Sequence[str] = (),
    network: bool = True,
    cgroup: str = "",
    no_new_privs: bool = False,
    runtime: str = "runc",
    seconds: float = 180.0,
) -> Done:
    """Runs argv in a container over the machine's own files, with a /tmp of its own; its output and exit code.

    privileged: all capabilities and the node's PID and network namespaces, as daemonset.yaml has it. capabilities:
    these alone and the same namespaces, with what a runtime masks and makes read-only. network: the node's, for these
    two, which are in a pod's cgroup. cgroup: another path, as a kubelet would give it. runtime: the program that
    starts it. before: a line of shell that runs when the root file system is there.
    """
    bundle = "/run/container"
    machine.sh(
        f"mkdir -p {bundle}/rootfs && mount --bind / {bundle}/rootfs && cd {bundle} && rm -f config.json && runc spec "
        f"{'&& ' + before if before else ''}"
    )
    try:
        spec = json.loads(machine.get(f"{bundle}/config.json"))
        spec["root"] = {"path": "rootfs", "readonly": False}
        spec["process"].update(terminal=False, args=list(argv), noNewPrivileges=no_new_privs)
        spec["mounts"] = [*spec["mounts"], {"destination": "/tmp", "type": "tmpfs", "source": "tmpfs"}, *mounts]
        if seccomp is not None:
            spec["linux"]["seccomp"] = dict(seccomp)
        if privileged:
            _privileged(spec, machine)
        elif capabilities:
            _on_the_node(spec, capabilities)
        if not network:
            spec["linux"]["namespaces"].append({"type": "network"})
        if cgroup:
            spec["linux"]["cgroupsPath"] = cgroup
        machine.put(f"{bundle}/config.json", json.dumps(spec))
        return machine.sh(f"cd {bundle} && exec {runtime} run agent", check=False, seconds=seconds)
    finally:
        machine.sh(f"umount -R {bundle}/rootfs", check=False)


def _privileged(spec: dict[str, Any], machine: Machine) -> None:
    last = int(machine.get("/proc/sys/kernel/cap_last_cap"))
    _on_the_node(spec, _CAPABILITIES.split()[: last + 1])
    spec["linux"]["maskedPaths"] = spec["linux"]["readonlyPaths"] = []
    for mount in spec["mounts"]:
        if mount["destination"] in ("/sys", "/sys/fs/cgroup"):
            mount["options"] = [word for word in mount.get("options", []) if word != "ro"]


def _on_the_node(spec: dict[str, Any], capabilities: Sequence[str]) -> None:
    # runc's own choice is beside the node's services, which from there look like what is in the agent's own pod.
    spec["linux"]["cgroupsPath"] = _CGROUP
    for kind in ("bounding", "effective", "permitted"):
        spec["process"]["capabilities"][kind] = list(capabilities)
    spec["process"]["env"] = ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"]
    spec["linux"]["namespaces"] = [one for one in spec["linux"]["namespaces"] if one["type"] not in ("pid", "network")]


_CGROUP = "/kubepods.slice/kubepods-pod5f0c1d52_8b1e_4b57_9d53_0a6f3c1be7a4.slice/cri-containerd-agent.scope"
_CAPABILITIES = """
CAP_CHOWN CAP_DAC_OVERRIDE CAP_DAC_READ_SEARCH CAP_FOWNER CAP_FSETID CAP_KILL CAP_SETGID CAP_SETUID CAP_SETPCAP
CAP_LINUX_IMMUTABLE CAP_NET_BIND_SERVICE CAP_NET_BROADCAST CAP_NET_ADMIN CAP_NET_RAW CAP_IPC_LOCK CAP_IPC_OWNER
CAP_SYS_MODULE CAP_SYS_RAWIO CAP_SYS_CHROOT CAP_SYS_PTRACE CAP_SYS_PACCT CAP_SYS_ADMIN CAP_SYS_BOOT CAP_SYS_NICE
CAP_SYS_RESOURCE CAP_SYS_TIME CAP_SYS_TTY_CONFIG CAP_MKNOD CAP_LEASE CAP_AUDIT_WRITE CAP_AUDIT_CONTROL CAP_SETFCAP
CAP_MAC_OVERRIDE CAP_MAC_ADMIN CAP_SYSLOG CAP_WAKE_ALARM CAP_BLOCK_SUSPEND CAP_AUDIT_READ CAP_PERFMON CAP_BPF
CAP_CHECKPOINT_RESTORE
"""
