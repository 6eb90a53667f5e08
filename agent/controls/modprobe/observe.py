"""What the node shows about its modules: configuration, kernel, what is loaded, what modprobe would do.

Only reads. Where something is unknown, its reason is kept beside it for the findings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from agent.controls.manifest import Entry, Installed
from agent.controls.modprobe import initramfs, kmod
from agent.controls.modprobe.initramfs import Initramfs
from agent.controls.modprobe.modprobe_d import FOLDERS, ConfigLine, Configuration, Hidden, in_order, parse
from agent.controls.modprobe.policy import Policy
from agent.controls.modprobe.show_depends import Verification, verify
from agent.errors import HostFileError, HostFileMissing
from agent.host import Host, if_there, read_or

MODULES = "/lib/modules"
_HELPER = "/proc/sys/kernel/modprobe"
_DISABLED = "/proc/sys/kernel/modules_disabled"
_BOOLEAN = "/sys/fs/selinux/booleans/domain_kernel_load_modules"
_SIGNS_OF_LIFE = ("/proc/modules", "/proc/sys/kernel", "/proc/self")
_INITCALLS = "initcall_blacklist="


@dataclass(frozen=True, slots=True)
class File:
    """The agent's file as it is. content: None when it is missing or unreadable; problem: why it is unreadable."""

    content: bytes | None = None
    mode: int = 0o644
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Kernel:
    """One kernel of the node; without a release for a tree that holds none.

    needs: modules.dep by name; builtin: modules.builtin; None where they cannot be read. softdeps: what the modules
    themselves bring (modules.softdep), which modprobe reads like a file of modprobe.d of that name.
    """

    release: str
    needs: Mapping[str, tuple[str, ...]] | None
    builtin: frozenset[str] | None
    softdeps: tuple[ConfigLine, ...]
    verification: Verification


@dataclass(frozen=True, slots=True)
class Running:
    """What the running kernel reports. None throughout for a tree without a running kernel.

    loaded: /proc/modules by name; None with `loaded_problem` when it cannot be read. builtin: names that have a folder
    in /sys/module without being loaded. helper: the program that the kernel runs to load modules, None when unknown.
    selinux: the boolean domain_kernel_load_modules. skipped: functions of initcall_blacklist=.
    """

    loaded: Mapping[str, kmod.Loaded] | None
    loaded_problem: str = ""
    without_modules: bool = False
    builtin: frozenset[str] = frozenset()
    disabled: bool = False
    helper: str | None = None
    selinux: bool | None = None
    skipped: frozenset[str] = frozenset()
    may_unload: bool = False


@dataclass(frozen=True, slots=True)
class Observation:
    """Everything that the findings need. initramfs: read only where a denied module is loaded."""

    policy: Policy
    file: File
    configuration: Configuration
    kernels: tuple[Kernel, ...]
    running: Running | None
    initramfs: Initramfs = field(default_factory=Initramfs)
    installed: Mapping[str, Entry] = field(default_factory=dict)
    manifest_problem: str = ""


def observe(host: Host, policy: Policy, path: str) -> Observation:
    """Reads the node. Raises HostError when what the kernel shows of itself is there and cannot be read."""
    installed, problem = Installed(host, "modprobe").read()
    running = _running(host, policy)
    loaded = running is not None and not policy.names.isdisjoint(running.loaded or {})
    return Observation(
        policy=policy,
        file=read_file(host, path),
        configuration=_configuration(host),
        kernels=_kernels(host, policy, running),
        running=running,
        initramfs=initramfs.read(host, host.kernel_release()) if loaded else Initramfs(),
        installed=installed,
        manifest_problem=problem,
    )


def read_file(host: Host, path: str) -> File:
    """The agent's file, as far as it can be read."""
    try:
        return File(host.read_bytes(path), host.stat(path).mode)
    except HostFileMissing:
        return File()
    except HostFileError as error:
        return File(problem=str(error))


def _configuration(host: Host) -> Configuration:
    listing: dict[str, tuple[str, ...]] = {}
    unreadable: dict[str, str] = {}
    for folder in FOLDERS:
        try:
            listing[folder] = host.names(folder)
        except HostFileMissing:
            continue
        except HostFileError as error:
            unreadable[folder] = str(error)
    files, hidden = in_order(listing)
    lines: list[ConfigLine] = []
    for file in files:
        try:
            lines += parse(host.read_text(file, missing=""), file)
        except HostFileError as error:
            found = read_or(None, host.stat, file)
            is_folder = found is not None and found.kind == "directory"  # which modprobe ignores
            if not is_folder and not host.is_mask(file):
                unreadable[file] = str(error)
    # /lib is a symlink to /usr/lib on most nodes: the same file found twice hides nothing.
    really_hidden = tuple(one for one in hidden if not read_or(False, _is_same, host, one))
    return Configuration(tuple(lines), really_hidden, unreadable)


def _is_same(host: Host, one: Hidden) -> bool:
    return host.read_bytes(one.file) == host.read_bytes(one.by)


def _kernels(host: Host, policy: Policy, running: Running | None) -> tuple[Kernel, ...]:
    """The running kernel; for a tree that none runs on, every kernel in it, or one without a name when it has none."""
    if running is not None:
        releases: tuple[str, ...] = (host.kernel_release(),)
    else:
        releases = if_there((), host.names, MODULES) or ("",)
    return tuple(_kernel(host, policy, release) for release in releases)


def _kernel(host: Host, policy: Policy, release: str) -> Kernel:
    paths = [f"{MODULES}/{release}/modules.{name}" for name in ("dep", "builtin", "softdep")]
    dep, built, softdep = (read_or(None, host.read_text, path) if release else "" for path in paths)
    needs = None if dep is None else kmod.dependencies(dep)
    builtin = None if built is None else kmod.builtin(built)
    names = [one.name for one in policy.denied]
    verification = verify(host, names, release, needs or {})
    return Kernel(release, needs, builtin, parse(softdep or "", paths[2]), verification)


def _running(host: Host, policy: Policy) -> Running | None:
    if not any(host.exists(sign) for sign in _SIGNS_OF_LIFE):
        return None
    problem, without = "", False
    loaded: Mapping[str, kmod.Loaded] | None = None
    try:
        loaded = kmod.loaded(host.read_text("/proc/modules"))
    except HostFileMissing as error:
        # A kernel built without CONFIG_MODULES has neither.
        without = host.exists("/proc/sys/kernel") and not host.exists(_HELPER)
        problem = str(error)
    except HostFileError as error:
        problem = str(error)
    helper = if_there(None, host.read_text, _HELPER)
    boolean = read_or("", host.read_text, _BOOLEAN)
    return Running(
        loaded={} if without else loaded,
        loaded_problem="" if without else problem,
        without_modules=without,
        builtin=_in_sysfs(host, policy, loaded if loaded is not None else {} if without else None),
        disabled=if_there("", host.read_text, _DISABLED).strip() == "1",
        helper=None if helper is None else helper.strip(),
        selinux=boolean.split()[0] == "1" if boolean.strip() else None,
        skipped=_skipped(host),
        may_unload=_is_this_kernel(host),
    )


def _in_sysfs(host: Host, policy: Policy, loaded: Mapping[str, kmod.Loaded] | None) -> frozenset[str]:
    """Denied modules with a folder in /sys/module that are not loaded: those are built in."""
    if loaded is None:
        return frozenset()
    names = (one.name for one in policy.denied if one.name not in loaded)
    return frozenset(name for name in names if host.exists(f"/sys/module/{name}"))


def _skipped(host: Host) -> frozenset[str]:
    line = if_there("", host.read_text, "/proc/cmdline")
    words = (word.removeprefix(_INITCALLS) for word in line.split() if word.startswith(_INITCALLS))
    return frozenset(name for word in words for name in word.split(",") if name)


def _is_this_kernel(host: Host) -> bool:
    """Whether a command here acts on the kernel whose /proc the tree shows: never unload for a copy of a node."""
    return host.can_start_programs or read_or("", host.boot_id) == read_or(None, Host("/").boot_id)
