"""How each operating system updates itself: what turns it on, when it ran last, and whether it reboots by itself.

One row a system in SYSTEMS, the first that is there counts. Timers are asked from systemd, settings are the effective
ones (`apt-config dump`, the file that dnf reads). Nothing is refreshed, installed or started.
"""

from __future__ import annotations

import contextlib
import posixpath
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass

from agent.errors import HostError, HostFileError, HostFileMissing
from agent.host import Host, systemd
from agent.host.budget import Budget
from agent.text import sanitize

_TIMEOUT_SECONDS = 20.0
_CONFIG_BYTES = 256 << 10
_LOG_BYTES = 4 << 20
_STAMPS = "/var/lib/systemd/timers"
_APT = "/var/lib/apt"
_AKS = "/etc/kubernetes/azure.json"


@dataclass(frozen=True, slots=True)
class Reading:
    """An answer with its evidence. good None: unknown, or what only the cloud knows (text has the reason)."""

    good: bool | None
    text: str
    source: str = ""
    fix: str = ""


@dataclass(frozen=True, slots=True)
class System:
    """One way to update. present: whether the node has it. automatic, reboots: `good` is what the node should have.

    stamps: files whose newest mtime is the last run. services: what runs them, for the result. lists: a folder, the
    files in it whose newest mtime is the age of the package lists, and one that has to be there (repositories of DNF
    without advisories count none). pending: the command that counts, and its format.
    """

    name: str
    present: Callable[[Host], bool]
    automatic: Callable[[Host], Reading]
    reboots: Callable[[Host], Reading]
    stamps: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    log: str = ""
    lists: tuple[str, str, str] | None = None
    pending: tuple[tuple[str, ...], str] | None = None


def _unit(host: Host, name: str) -> Mapping[str, str]:
    """What systemd knows of a unit. Raises HostError where it cannot be asked."""
    found = systemd.show(host, name, "LoadState", "ActiveState", "Result")
    if not found:
        raise HostError(f"{name}: systemd cannot be asked")
    return found


def timer(host: Host, name: str) -> str:
    """Why a timer does not run; empty when it does. Raises HostError where systemd cannot be asked."""
    found = _unit(host, name)
    if found.get("LoadState") != "loaded":
        return f"{name} is {sanitize(found.get('LoadState', 'unknown'), 40)}"
    return "" if found.get("ActiveState") == "active" else f"{name} is {sanitize(found.get('ActiveState', ''), 40)}"


def os_release(host: Host) -> Mapping[str, str]:
    """/etc/os-release; empty when it cannot be read."""
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            text = host.read_text(path, limit_bytes=_CONFIG_BYTES)
        except HostFileError:
            continue
        pairs = (line.partition("=") for line in text.splitlines())
        return {name.strip(): value.strip().strip("\"'") for name, equals, value in pairs if equals}
    return {}


def apt_settings(dump: str) -> dict[str, str]:
    """`apt-config dump`: keys in lower case, as APT compares them."""
    found = re.findall(r'^([\w:.-]+) "(.*)";$', dump, re.MULTILINE)
    return {key.lower(): value for key, value in found}


def ini(text: str) -> dict[str, str]:
    """`section.key` of an INI or TOML file of the simple kind that dnf, rebootmgr and Zincati read."""
    section, found = "", {}
    for raw in text.splitlines():
        line = raw.strip()
        if line.startswith("["):
            section = line.strip("[] ")
        elif line and line[0] not in "#;" and "=" in line:
            key, _, value = line.partition("=")
            found[f"{section}.{key.strip()}" if section else key.strip()] = value.strip().strip("\"'")
    return found


# -- APT -----------------------------------------------------------------------------------------------------------


def _apt_config(host: Host) -> dict[str, str]:
    tool = host.find_tool("apt-config")
    if tool is None:
        raise HostError("apt-config is not on this node")
    return apt_settings(host.run([tool, "dump"], timeout_seconds=_TIMEOUT_SECONDS).check().stdout)


def _apt_automatic(host: Host) -> Reading:
    """All of: the two settings, not disabled, the program, both timers."""
    settings, off = _apt_config(host), []
    if settings.get("apt::periodic::enable", "1") == "0":
        off.append("APT::Periodic::Enable is 0")
    for key in ("Update-Package-Lists", "Unattended-Upgrade"):
        value = settings.get(f"apt::periodic::{key.lower()}", "").strip()
        if value in ("", "0"):
            off.append(f"APT::Periodic::{key} is {value or 'not set'}")
    if host.find_tool("unattended-upgrade") is None:
        off.append("unattended-upgrades is not installed")
    off += [why for name in ("apt-daily.timer", "apt-daily-upgrade.timer") if (why := timer(host, name))]
    if not off:
        return Reading(True, "unattended-upgrades, both timers active", "apt-config dump")
    if host.is_file(_AKS):
        text = f"{'; '.join(off)}; on AKS the node OS upgrade channel updates nodes, and only the cloud's API shows it"
        return Reading(None, text, _AKS, "Check `az aks show --query autoUpgradeProfile.nodeOsUpgradeChannel`.")
    fix = "Install unattended-upgrades, set both to 1 in /etc/apt/apt.conf.d/20auto-upgrades, and enable both timers."
    return Reading(False, "; ".join(off), "apt-config dump", fix)


def _apt_reboots(host: Host) -> Reading:
    value = _apt_config(host).get("unattended-upgrade::automatic-reboot", "false")
    off = value.strip().lower() in ("false", "no", "0", "off", "without", "disable", "")
    fix = "" if off else 'Set Unattended-Upgrade::Automatic-Reboot "false"; the agent reboots after a drain.'
    return Reading(off, f"Unattended-Upgrade::Automatic-Reboot {sanitize(value, 40)}", "apt-config dump", fix)


# -- DNF -----------------------------------------------------------------------------------------------------------

_DNF_FILES = ("/etc/dnf/automatic.conf", "/etc/dnf/dnf5-plugins/automatic.conf")
_DNF_INSTALLS = "dnf-automatic-install.timer"
_DNF_TIMERS = ("dnf-automatic.timer", "dnf5-automatic.timer")


def _first(host: Host, paths: tuple[str, ...]) -> tuple[dict[str, str], str]:
    """The first of the files that is there. Raises HostFileError."""
    for path in paths:
        try:
            return ini(host.read_text(path, limit_bytes=_CONFIG_BYTES)), path
        except HostFileMissing:
            continue
    return {}, ""


def _dnf_automatic(host: Host) -> Reading:
    """A timer that only notifies (Mariner's) installs nothing."""
    settings, path = _first(host, _DNF_FILES)
    if not timer(host, _DNF_INSTALLS):
        return Reading(True, f"{_DNF_INSTALLS} is active", "systemd")
    off = [why for name in _DNF_TIMERS if (why := timer(host, name))]
    applies = settings.get("commands.apply_updates", "no").lower() in ("yes", "true", "1", "on")
    if len(off) < len(_DNF_TIMERS) and applies:
        return Reading(True, "dnf-automatic's timer is active, apply_updates = yes", path)
    text = "; ".join(off[:1] if len(off) == len(_DNF_TIMERS) else ["apply_updates is not yes: it only notifies"])
    return Reading(False, text, path or "systemd", f"Install dnf-automatic and enable {_DNF_INSTALLS}.")


def _dnf_reboots(host: Host) -> Reading:
    settings, path = _first(host, _DNF_FILES)
    value = settings.get("commands.reboot", "never")
    fix = "" if value == "never" else f"Set reboot = never in {path}; the agent reboots after a drain."
    return Reading(value == "never", f"reboot = {sanitize(value, 40)}", path or "default", fix)


# -- SUSE ----------------------------------------------------------------------------------------------------------


def _by_timer(name: str) -> Callable[[Host], Reading]:
    def read(host: Host) -> Reading:
        why = timer(host, name)
        return Reading(not why, why or f"{name} is active", "systemd", f"Enable {name}." if why else "")

    return read


def _zypper_automatic(host: Host) -> Reading:
    settings, path = _first(host, ("/etc/sysconfig/automatic_online_update",))
    if settings.get("AOU_ENABLE_CRONJOB", "").lower() == "true":
        return Reading(True, 'AOU_ENABLE_CRONJOB="true"', path)
    reading = _by_timer("os-update.timer")(host)
    fix = "Enable os-update.timer (package os-update), or YaST's automatic online update."
    return reading if reading.good else Reading(False, reading.text, "systemd", fix)


def _merged(host: Host, paths: Iterable[str]) -> dict[str, str]:
    """The settings of those files that are there; the later ones count. Raises HostFileError."""
    found: dict[str, str] = {}
    for path in paths:
        with contextlib.suppress(HostFileMissing):
            found |= ini(host.read_text(path, limit_bytes=_CONFIG_BYTES))
    return found


def _transactional_reboots(host: Host) -> Reading:
    """`auto` is rebootmgr where it runs, else systemd, and both reboot: libtukit's Reboot.cpp."""
    fix = "Set REBOOT_METHOD=kured in /etc/transactional-update.conf: the agent sees /run/reboot-required."
    return _suse_reboots(host, "transactional-update", "REBOOT_METHOD", ("kured", "none", "notify"), fix)


def _zypper_reboots(host: Host) -> Reading:
    """os-update's `auto` is rebootmgr where it runs, else `systemctl reboot`: https://github.com/openSUSE/os-update"""
    fix = "Set REBOOT_CMD=none in /etc/os-update.conf: the agent reboots after a drain."
    quiet = ("none",) if not timer(host, "os-update.timer") else None
    return _suse_reboots(host, "os-update", "REBOOT_CMD", quiet, fix)


def _suse_reboots(host: Host, program: str, key: str, quiet: Collection[str] | None, fix: str) -> Reading:
    """quiet: the values with which the program does not reboot; None where it does not run at all."""
    method = _merged(host, (f"/usr/etc/{program}.conf", f"/etc/{program}.conf")).get(key, "auto")
    if quiet is not None and method not in quiet:
        return Reading(False, f"{key}={sanitize(method, 40)}", f"/etc/{program}.conf", fix)
    stop = "Disable rebootmgr.service: the agent reboots the node."
    return _by_service("rebootmgr.service", stop, runs=False)(host)


def _by_service(unit: str, fix: str, *, runs: bool = True) -> Callable[[Host], Reading]:
    """runs: whether it should; a service that reboots nodes must not run beside the agent."""

    def read(host: Host) -> Reading:
        active = _unit(host, unit).get("ActiveState") == "active"
        text = f"{unit} {'is active' if active else 'does not run'}"
        return Reading(active == runs, text, unit, "" if active == runs else fix)

    return read


# -- images --------------------------------------------------------------------------------------------------------

_ZINCATI = ("/run/zincati/config.d", "/etc/zincati/config.d", "/usr/lib/zincati/config.d")


def _zincati_reboots(host: Host) -> Reading:
    """Every strategy but fleet_lock's reboots without a drain. https://coreos.github.io/zincati/usage/configuration"""
    host = host.within(Budget())
    merged = _merged(host, host.overlaid(_ZINCATI, ".toml"))
    strategy, enabled = merged.get("updates.strategy", "immediate"), merged.get("updates.enabled", "true")
    good = strategy == "fleet_lock" or enabled == "false"
    fix = "" if good else 'Set [updates] strategy = "fleet_lock" in /etc/zincati/config.d, or enabled = false.'
    return Reading(good, f"Zincati's strategy is {sanitize(strategy, 40)}", "/etc/zincati/config.d", fix)


_IMAGES = ("bottlerocket", "talos", "cos", "ubuntu-core", "azurecontainerlinux")
_IMAGE_TEXT = Reading(None, "the image is replaced as a whole")


def _is_image(host: Host) -> bool:
    return os_release(host).get("ID", "").lower() in _IMAGES


def _has(*tools: str) -> Callable[[Host], bool]:
    return lambda host: any(host.find_tool(tool) is not None for tool in tools)


IMAGE = System("image", _is_image, lambda _: _IMAGE_TEXT, lambda _: _IMAGE_TEXT)
SYSTEMS: tuple[System, ...] = (
    IMAGE,
    System(
        "Fedora CoreOS", lambda host: host.exists("/run/ostree-booted") and bool(_exists(host, "/usr/libexec/zincati")),
        _by_service("zincati.service", "Enable zincati.service."), _zincati_reboots, services=("zincati.service",),
    ),
    System(
        "Flatcar", lambda host: os_release(host).get("ID") == "flatcar",
        _by_service("update-engine.service", "Enable update-engine.service."),
        _by_service("locksmithd.service", "Mask locksmithd.service: the agent reboots the node.", runs=False),
        services=("update-engine.service",),
    ),
    System(
        "transactional-update", _has("transactional-update"), _by_timer("transactional-update.timer"),
        _transactional_reboots, services=("transactional-update.service",),
        stamps=(f"{_STAMPS}/stamp-transactional-update.timer",),
        pending=(("zypper", "--non-interactive", "--no-refresh", "patch-check"), "zypper"),
    ),
    System(
        "zypper", _has("zypper"), _zypper_automatic, _zypper_reboots, services=("os-update.service",),
        stamps=(f"{_STAMPS}/stamp-os-update.timer",),
        pending=(("zypper", "--non-interactive", "--no-refresh", "patch-check"), "zypper"),
    ),
    System(
        "dnf", _has("dnf", "dnf5"), _dnf_automatic, _dnf_reboots,
        services=("dnf-automatic-install.service", "dnf-automatic.service", "dnf5-automatic.service"),
        stamps=tuple(f"{_STAMPS}/stamp-{name}" for name in (_DNF_INSTALLS, *_DNF_TIMERS)),
        lists=("/var/cache/dnf", r".*\.solvx?|expired_repos\.json", r".*-updateinfo\.solvx"),
        pending=(("dnf", "-C", "-q", "updateinfo", "list", "--security"), "dnf"),
    ),
    System(
        "APT", _has("apt-get"), _apt_automatic, _apt_reboots,
        stamps=(f"{_APT}/periodic/upgrade-stamp", f"{_STAMPS}/stamp-apt-daily-upgrade.timer"),
        log="/var/log/unattended-upgrades/unattended-upgrades.log",
        lists=(f"{_APT}/lists", ".*_(InRelease|Release)", ".*_(InRelease|Release)"),
        pending=(("apt-get", "-s", "-o", "Debug::NoLocking=true", "dist-upgrade"), "apt"),
    ),
)  # fmt: skip


def _exists(host: Host, path: str) -> bool:
    try:
        return host.exists(path)
    except HostFileError:
        return False


def system_of(host: Host) -> System | None:
    """The node's way to update; None when it has none of the table."""
    return next((one for one in SYSTEMS if one.present(host)), None)


def last_run(host: Host, system: System) -> float | None:
    """When the updates ran last, in seconds since the epoch. Raises HostFileError."""
    return max((at for path in system.stamps if (at := _mtime(host, path)) is not None), default=None)


def lists_age(host: Host, system: System) -> float | None:
    """When the package lists were made, in seconds since the epoch; None where there are none. Raises HostFileError."""
    times = [_mtime(host, f"{_APT}/periodic/update-success-stamp")] if system.name == "APT" else []
    if system.lists is not None:
        folder, names, needed = system.lists
        there = host.names(folder) if host.exists(folder) else ()
        if not any(re.fullmatch(needed, name) for name in there):
            return None
        times += [_mtime(host, posixpath.join(folder, name)) for name in there if re.fullmatch(names, name)]
    return max((at for at in times if at is not None), default=None)


def trouble(host: Host, system: System) -> str:
    """Why the last run did not succeed; empty when nothing is known against it. Raises HostError."""
    if system.log and host.exists(system.log):
        return failed_run(host.read_text(system.log, limit_bytes=_LOG_BYTES))
    results = {name: _unit(host, name).get("Result", "success") for name in system.services}
    return next((f"{name}: {sanitize(result, 40)}" for name, result in results.items() if result != "success"), "")


def failed_run(log: str) -> str:
    """The first error of the last run in unattended-upgrades.log."""
    last = log.rpartition("Starting unattended upgrades script")[2]
    return next((sanitize(line, 200) for line in last.splitlines() if " ERROR " in line), "")


def _mtime(host: Host, path: str) -> float | None:
    try:
        return host.stat(path).mtime_ns / 1e9
    except HostFileMissing:
        return None


def count_security(form: str, output: str) -> int:
    """How many pending security updates a command listed. Raises ValueError where it lists something else."""
    return _COUNTS[form](output)


def _apt_count(output: str) -> int:
    """`Inst openssl [3.0.17-1] (3.0.18-1 Debian-Security:12/oldstable-security [amd64])`"""
    if "Reading package lists" not in output:
        raise ValueError("not the output of apt-get")
    lines = (line for line in output.splitlines() if line.startswith("Inst "))
    return sum(bool(re.search(r"\([^)]*-security\b", line, re.IGNORECASE)) for line in lines)


def _dnf_count(output: str) -> int:
    """Advisories, not packages: `RHSA-2026:1234 Important/Sec. openssl-…`, or `… security Important …` by DNF 5."""
    lines = (line.split() for line in output.splitlines())
    return len(
        {words[0] for words in lines if len(words) > 2 and (words[1].endswith("/Sec.") or words[1] == "security")}
    )


def _zypper_count(output: str) -> int:
    """`5 patches needed (3 security patches)`"""
    found = re.search(r"^([0-9]+) patch(?:es)? needed(?: \(([0-9]+) security patch(?:es)?\))?", output, re.MULTILINE)
    if found is None:
        raise ValueError("not the output of zypper patch-check")
    return int(found[2] or 0)


_COUNTS: Mapping[str, Callable[[str], int]] = {"apt": _apt_count, "dnf": _dnf_count, "zypper": _zypper_count}


def evidence(system: System) -> Iterator[str]:
    """Paths whose change makes another reading worth while."""
    yield from ("/etc/apt/apt.conf.d", "/etc/dnf", "/etc/transactional-update.conf", "/etc/os-update.conf")
    yield "/etc/zincati/config.d"
    yield from ("/etc/systemd/system", "/etc/systemd/system/timers.target.wants", *system.stamps)
