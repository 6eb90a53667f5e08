"""AppArmor in the node's kernel: whether it is on, which profiles are loaded, which processes run under them.

Reads securityfs and procfs and changes nothing. A file that cannot be read is "unknown", never "nothing loaded".
https://gitlab.com/apparmor/apparmor/-/wikis/AppArmorInterfaces
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from agent.errors import HostError, HostFileError, HostFileMissing
from agent.host import Host
from agent.host.budget import LIMITS, Resource

APPARMORFS = "/sys/kernel/security/apparmor"
REVISION = f"{APPARMORFS}/revision"
_ENABLED = "/sys/module/apparmor/parameters/enabled"
_PROFILES = f"{APPARMORFS}/profiles"
_POLICY = f"{APPARMORFS}/policy/profiles"
_STACK = "//&"


class Lsm(Enum):
    """Whether the kernel can hold profiles."""

    ON = "on"
    OFF = "off"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Kernel:
    """The kernel's state. reason, remediation: why it is not ON. profiles: mode by name, as the kernel has it."""

    lsm: Lsm
    reason: str = ""
    remediation: str = ""
    profiles: Mapping[str, str] = field(default_factory=dict)


def read_kernel(host: Host) -> Kernel:
    """AppArmor as the kernel shows it. Never raises: errors are in the result."""
    try:
        enabled = host.read_text(_ENABLED, limit_bytes=64).strip()
    except HostFileMissing:
        return _without_module(host)
    except HostFileError as error:
        return Kernel(Lsm.UNKNOWN, str(error), "Run the agent as root on the node, in the node's PID namespace.")
    if enabled != "Y":
        reason = f"AppArmor is in the kernel but not on ({_ENABLED} is {enabled!r})"
        step = "Boot with apparmor=1 and with apparmor in lsm=, or set apparmor.mode to off for such nodes."
        return Kernel(Lsm.OFF, reason, step)
    try:
        return Kernel(Lsm.ON, profiles=parse_profiles(host.read_text(_PROFILES)))
    except HostFileMissing:
        step = (
            "Mount securityfs: `mount -t securityfs securityfs /sys/kernel/security`; in a pod, the node's "
            "/sys/kernel/security has to be mounted below the host root."
        )
        return Kernel(Lsm.UNKNOWN, f"AppArmor is on, but there is no {_PROFILES}", step)
    except HostFileError as error:
        return Kernel(Lsm.UNKNOWN, str(error), "Run the agent as root, privileged and itself unconfined.")


def _without_module(host: Host) -> Kernel:
    try:
        sysfs = host.exists("/sys/module")
    except HostFileError as error:
        return Kernel(Lsm.UNKNOWN, str(error), "Run the agent as root on the node.")
    if not sysfs:
        reason = "there is no /sys/module: sysfs is not mounted"
        return Kernel(Lsm.UNKNOWN, reason, "Mount the node's /sys below the host root.")
    step = "Nothing to do where another security module is in use; set apparmor.mode to off for such nodes."
    return Kernel(Lsm.OFF, "the kernel has no AppArmor (no /sys/module/apparmor)", step)


def parse_profiles(text: str) -> dict[str, str]:
    """Mode by name from the text of securityfs' `profiles`.

    A line is `name (mode)`; the name may hold spaces and brackets, so the last ` (` counts. Children read
    `parent//child`. A name in a namespace reads `:ns:name` (seen on 6.1) and is returned as the parser spells it,
    `:ns://name`. A line of another form names nothing.
    """
    found: dict[str, str] = {}
    for line in text.split("\n"):
        name, bracket, mode = line.rpartition(" (")
        if bracket and name and mode.endswith(")") and len(mode) > 1:
            found[spelled(name)] = mode[:-1]
    return found


def spelled(name: str) -> str:
    """A kernel's name as apparmor_parser -N spells it: `:ns:name` is `:ns://name`."""
    namespace, colon, rest = name[1:].partition(":")
    if not name.startswith(":") or not colon or rest.startswith("//"):
        return name
    return f":{namespace}://{rest}"


def confined_by(current: str) -> tuple[str, ...]:
    """The profiles of one process from its attr/current: none when unconfined, several when stacked."""
    label = current.strip("\0\n")
    name, bracket, _ = label.rpartition(" (")
    names = (name if bracket else label).split(_STACK)
    return tuple(spelled(name) for name in names if name and name != "unconfined")


def covers(profile: str, name: str) -> bool:
    """Whether `name` is the profile or one of its children."""
    return name == profile or name.startswith(f"{profile}//")


def users_of(host: Host, profiles: AbstractSet[str]) -> dict[str, tuple[int, ...]]:
    """The processes (PIDs) under each of the profiles or their children. Raises HostError when unknown.

    A process that ends while being read is left out, kernel threads are unconfined.
    """
    found: dict[str, list[int]] = {profile: [] for profile in profiles}
    for pid, label in _labels(host):
        for profile in profiles:
            if any(covers(profile, name) for name in confined_by(label)):
                found[profile].append(pid)
    return {profile: tuple(sorted(pids)) for profile, pids in found.items()}


def _labels(host: Host) -> Iterator[tuple[int, str]]:
    listed = host.names("/proc", limit=LIMITS[Resource.PROCESSES])
    pids = [int(name) for name in listed if name.isascii() and name.isdecimal()]
    if not pids:
        raise HostError("no process in /proc: the node's procfs is not mounted below the host root")
    for pid in pids:
        # attr/apparmor/ since Linux 5.8; attr/current belongs to whichever module comes first there.
        for path in (f"/proc/{pid}/attr/apparmor/current", f"/proc/{pid}/attr/current"):
            try:
                yield pid, host.read_text(path, limit_bytes=1 << 16)
                break
            except HostFileMissing:
                continue
            except HostFileError as error:
                # EINVAL: no module answers there; ESRCH: the process has ended.
                if error.errno not in (22, 3):
                    raise


def hash_of(host: Host, name: str) -> str:
    """The kernel's own hash of a loaded profile, as `sha256:…` or `sha1:…`; empty where it keeps none or hides it.

    `policy` is a magic link that only the kernel can follow (readlink shows `apparmorfs:[N]`), so this one read goes
    past the host's walk. Nothing but the hash of a profile comes out of it, and a wrong one only means a reload.
    Kernels have sha256 from 6.8 on, sha1 before (CONFIG_SECURITY_APPARMOR_HASH). Not looked up for names in namespaces
    and for those that the kernel mangles byte by byte.
    """
    if name.startswith(":") or not name.isascii():
        return ""
    folder = Path(host.real_path(_POLICY))
    for part in name.split("//"):
        found = _profile_folder(folder, part)
        if found is None:
            return ""
        folder = found / "profiles"
    for kind in ("sha256", "sha1"):
        if value := _short(folder.parent / kind):
            return f"{kind}:{value}"
    return ""


def _profile_folder(parent: Path, name: str) -> Path | None:
    folder = _mangled(name)
    try:
        for entry in parent.iterdir():
            if entry.name.rpartition(".")[0] == folder and _short(entry / "name") == name:
                return entry
    except OSError:
        return None
    return None


def _mangled(name: str) -> str:
    """The folder's name without its number: mangle_name() in security/apparmor/apparmorfs.c."""
    plain = re.sub(r"\s", "_", name.lstrip("/.").replace("/", "."))
    return "".join(char for char in plain if char.isalnum() or char in "._-")


def _short(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return file.read(1 << 12).decode(errors="replace").rstrip("\n")
    except OSError:
        return ""
