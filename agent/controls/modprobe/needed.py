"""What the node runs on, and so must not be denied unless the configuration forces it.

Read from what the kernel shows of mounted file systems and of the devices below them and below the network, and from
what the node loads at boot by name. Bounded: a device's parents and a few files.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from agent.config.essential_modules import ESSENTIAL_MODULES
from agent.controls.modprobe import kmod
from agent.controls.modprobe.denylists import normal_name
from agent.host import Host, if_there

_MOUNTS = "/proc/1/mountinfo"
_BOOT_FOLDERS = ("/etc/modules-load.d", "/run/modules-load.d", "/usr/lib/modules-load.d")
# File systems whose module has another name than their type: fs/isofs, fs/nfs.
_FILE_SYSTEMS = {"iso9660": "isofs", "nfs4": "nfsv4"}


def needed(host: Host) -> dict[str, str]:
    """Modules by name, each with what needs it.

    Raises HostError where any of it cannot be read: nothing is denied then that the node may run on.
    """
    found = dict(ESSENTIAL_MODULES)
    for name, why in (*_mounted(host), *_network(host), *_loaded_at_boot(host)):
        found.setdefault(name, why)
    dependencies = kmod.dependencies(if_there("", host.read_text, f"/lib/modules/{host.kernel_release()}/modules.dep"))
    for name in tuple(found):
        for below in dependencies.get(name, ()):
            found.setdefault(below, f"{name} needs it, and {found[name]}")
    return found


def _mounted(host: Host) -> Iterator[tuple[str, str]]:
    """File systems in use, and the drivers of the devices that hold them."""
    devices: dict[str, str] = {}
    # A tree on another machine has no processes, and no mounts either.
    for line in if_there("", host.read_text, _MOUNTS).splitlines():
        left, _, right = line.partition(" - ")
        words, kind = left.split(), right.partition(" ")[0]
        if len(words) > 4 and kind:
            yield _FILE_SYSTEMS.get(kind, normal_name(kind)), f"{words[4]} is a {kind} file system"
            devices.setdefault(words[2], words[4])
    for device, place in devices.items():
        for driver in _drivers(host, f"/sys/dev/block/{device}"):
            yield driver, f"it drives the disk of {place}"


def _network(host: Host) -> Iterator[tuple[str, str]]:
    for name in if_there((), host.names, "/sys/class/net"):
        for driver in _drivers(host, f"/sys/class/net/{name}"):
            yield driver, f"it drives the network interface {name}"


def _drivers(host: Host, device: str) -> Iterator[str]:
    """The modules of a device's driver and of what it is attached to: virtio_blk, then virtio_pci."""
    path = host.locate(device).removeprefix(host.root.rstrip("/"))
    for slave in if_there((), host.names, f"{path}/slaves"):  # device mapper, RAID
        yield from _drivers(host, f"/sys/class/block/{slave}")
    while path.startswith("/sys/devices/"):
        if module := if_there("", host.read_link, f"{path}/driver/module"):
            yield normal_name(posixpath.basename(module))
        path = posixpath.dirname(path)


def _loaded_at_boot(host: Host) -> Iterator[tuple[str, str]]:
    for path in ("/etc/modules", *host.overlaid(_BOOT_FOLDERS, ".conf")):
        for line in if_there("", host.read_text, path).splitlines():
            words = line.split()
            if words and words[0][0] not in "#;":
                yield normal_name(words[0]), f"{path} loads it at boot"
