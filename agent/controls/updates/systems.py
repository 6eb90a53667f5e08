"""How each operating system updates itself: what turns it on, when it ran last, and whether it reboots by itself.

One row a system in SYSTEMS, the first that is there counts. Timers are asked from systemd, settings are the effective
ones (`apt-config dump`, the file that dnf reads). Nothing is refreshed, installed or started.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass

from agent.controls.updates import pending
from agent.controls.updates.files import merged, mtime, os_release
from agent.controls.updates.pending import Pending
from agent.errors import HostError
from agent.host import Host, read_or, systemd
from agent.host.budget import Budget
from agent.text import sanitize

_TIMEOUT_SECONDS = 20.0
_LOG_BYTES = 4 << 20
_STAMPS = "/var/lib/systemd/timers"
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

    stamps: files whose newest mtime is the last run. services: what runs them, for the result. pending: what counts
    security updates, None where they come as one image.
    """

    name: str
    present: Callable[[Host], bool]
    automatic: Callable[[Host], Reading]
    reboots: Callable[[Host], Reading]
    stamps: tuple[str, ...] = ()
    services: tuple[str, ...] = ()
    log: str = ""
    pending: Pending | None = None


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


def apt_settings(dump: str) -> dict[str, str]:
    """`apt-config dump`: keys in lower case, as APT compares them."""
    found = re.findall(r'^([\w:.-]+) "(.*)";$', dump, re.MULTILINE)
    return {key.lower(): value for key, value in found}


# -- APT -----------------------------------------------------------------------------------------------------------


def _apt_config(host: Host) -> dict[str, str]:
    tool = host.find_tool("apt-config")
    if tool is None:
        raise HostError("apt-config is not on this node")
    return apt_settings(host.run([tool, "dump"], timeout_seconds=_TIMEOUT_SECONDS).whole().stdout)


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

_DNF_FILE = "/etc/dnf/automatic.conf"
# DNF 5 reads the distribution's own first: https://dnf5.readthedocs.io/en/latest/dnf5_plugins/automatic.8.html
_DNF_FILES = ("/usr/share/dnf5/dnf5-plugins/automatic.conf", "/etc/dnf/dnf5-plugins/automatic.conf", _DNF_FILE)
_DNF_INSTALLS = "dnf-automatic-install.timer"
_DNF_TIMERS = ("dnf-automatic.timer", "dnf5-automatic.timer")


def _dnf_automatic(host: Host) -> Reading:
    """A timer that only notifies (Mariner's) installs nothing."""
    settings = merged(host, _DNF_FILES)
    if not timer(host, _DNF_INSTALLS):
        return Reading(True, f"{_DNF_INSTALLS} is active", "systemd")
    off = [why for name in _DNF_TIMERS if (why := timer(host, name))]
    applies = settings.get("commands.apply_updates", "no").lower() in ("yes", "true", "1", "on")
    if len(off) < len(_DNF_TIMERS) and applies:
        return Reading(True, "dnf-automatic's timer is active, apply_updates = yes", _DNF_FILE)
    text = "; ".join(off[:1] if len(off) == len(_DNF_TIMERS) else ["apply_updates is not yes: it only notifies"])
    return Reading(False, text, _DNF_FILE, f"Install dnf-automatic and enable {_DNF_INSTALLS}.")


def _dnf_reboots(host: Host) -> Reading:
    value = merged(host, _DNF_FILES).get("commands.reboot", "never")
    fix = "" if value == "never" else f"Set reboot = never in {_DNF_FILE}; the agent reboots after a drain."
    return Reading(value == "never", f"reboot = {sanitize(value, 40)}", _DNF_FILE, fix)


# -- SUSE ----------------------------------------------------------------------------------------------------------


def _by_timer(name: str) -> Callable[[Host], Reading]:
    def read(host: Host) -> Reading:
        why = timer(host, name)
        return Reading(not why, why or f"{name} is active", "systemd", f"Enable {name}." if why else "")

    return read


def _zypper_automatic(host: Host) -> Reading:
    path = "/etc/sysconfig/automatic_online_update"
    if merged(host, (path,)).get("AOU_ENABLE_CRONJOB", "").lower() == "true":
        return Reading(True, 'AOU_ENABLE_CRONJOB="true"', path)
    reading = _by_timer("os-update.timer")(host)
    fix = "Enable os-update.timer (package os-update), or YaST's automatic online update."
    return reading if reading.good else Reading(False, reading.text, "systemd", fix)


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
    method = merged(host, (f"/usr/etc/{program}.conf", f"/etc/{program}.conf")).get(key, "auto")
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


def _zincati(host: Host) -> Mapping[str, str]:
    """https://coreos.github.io/zincati/usage/configuration"""
    host = host.within(Budget())
    return merged(host, host.overlaid(_ZINCATI, ".toml"))


def _flatcar(host: Host) -> Mapping[str, str]:
    """https://www.flatcar.org/docs/latest/setup/releases/update-conf/"""
    return merged(host, ("/usr/share/flatcar/update.conf", "/etc/flatcar/update.conf"))


def _by_service_unless(
    unit: str, settings: Callable[[Host], Mapping[str, str]], key: str, off: str
) -> Callable[[Host], Reading]:
    """A service that runs and updates nothing where a setting turns it off."""

    def read(host: Host) -> Reading:
        if settings(host).get(key) == off:
            return Reading(False, f"{unit}: {key} is {off}", unit, f"Remove {key} = {off} from its configuration.")
        return _by_service(unit, f"Enable {unit}.")(host)

    return read


def _zincati_reboots(host: Host) -> Reading:
    """Every strategy but fleet_lock's reboots without a drain."""
    settings = _zincati(host)
    strategy, enabled = settings.get("updates.strategy", "immediate"), settings.get("updates.enabled", "true")
    good = strategy == "fleet_lock" or enabled == "false"
    fix = "" if good else 'Set [updates] strategy = "fleet_lock" in /etc/zincati/config.d, or enabled = false.'
    return Reading(good, f"Zincati's strategy is {sanitize(strategy, 40)}", "/etc/zincati/config.d", fix)


_IMAGES = ("bottlerocket", "talos", "cos", "ubuntu-core", "azurecontainerlinux")
_IMAGE_TEXT = Reading(None, "the image is replaced as a whole")


def _is_image(host: Host) -> bool:
    return os_release(host).get("ID", "").lower() in _IMAGES


def _has(*tools: str) -> Callable[[Host], bool]:
    return lambda host: any(host.find_tool(tool) is not None for tool in tools)


def _updated_by(*tools: str) -> Callable[[Host], bool]:
    """Debian has the programs of other distributions as packages, to build their images: they update nothing there."""
    return lambda host: not _is_debian(host) and _has(*tools)(host)


def _is_debian(host: Host) -> bool:
    release = os_release(host)
    return not {"debian", "ubuntu"}.isdisjoint((release.get("ID", ""), *release.get("ID_LIKE", "").split()))


IMAGE = System("image", _is_image, lambda _: _IMAGE_TEXT, lambda _: _IMAGE_TEXT)
SYSTEMS: tuple[System, ...] = (
    IMAGE,
    System(
        "Fedora CoreOS",
        lambda host: host.exists("/run/ostree-booted") and read_or(False, host.exists, "/usr/libexec/zincati"),
        _by_service_unless("zincati.service", _zincati, "updates.enabled", "false"), _zincati_reboots,
        services=("zincati.service",),
    ),
    System(
        "Flatcar", lambda host: os_release(host).get("ID") == "flatcar",
        _by_service_unless("update-engine.service", _flatcar, "SERVER", "disabled"),
        _by_service("locksmithd.service", "Mask locksmithd.service: the agent reboots the node.", runs=False),
        services=("update-engine.service",),
    ),
    System(
        "transactional-update", _updated_by("transactional-update"), _by_timer("transactional-update.timer"),
        _transactional_reboots, services=("transactional-update.service",),
        stamps=(f"{_STAMPS}/stamp-transactional-update.timer",), pending=pending.ZYPPER,
    ),
    System(
        "zypper", _updated_by("zypper"), _zypper_automatic, _zypper_reboots, services=("os-update.service",),
        stamps=(f"{_STAMPS}/stamp-os-update.timer",), pending=pending.ZYPPER,
    ),
    System(
        "dnf", _updated_by("dnf", "dnf5"), _dnf_automatic, _dnf_reboots,
        services=("dnf-automatic-install.service", "dnf-automatic.service", "dnf5-automatic.service"),
        stamps=tuple(f"{_STAMPS}/stamp-{name}" for name in (_DNF_INSTALLS, *_DNF_TIMERS)),
        pending=pending.DNF,
    ),
    System(
        "APT", _has("apt-get"), _apt_automatic, _apt_reboots,
        stamps=("/var/lib/apt/periodic/upgrade-stamp", f"{_STAMPS}/stamp-apt-daily-upgrade.timer"),
        log="/var/log/unattended-upgrades/unattended-upgrades.log", pending=pending.APT,
    ),
)  # fmt: skip


def system_of(host: Host) -> System | None:
    """The node's way to update; None when it has none of the table."""
    return next((one for one in SYSTEMS if one.present(host)), None)


def last_run(host: Host, system: System) -> float | None:
    """When the updates ran last, in seconds since the epoch. Raises HostFileError."""
    return max((at for path in system.stamps if (at := mtime(host, path)) is not None), default=None)


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


def evidence(system: System) -> Iterator[str]:
    """Paths whose change makes another reading worth while."""
    yield from ("/etc/apt/apt.conf.d", "/etc/dnf", "/etc/transactional-update.conf", "/etc/os-update.conf")
    yield from ("/etc/zincati/config.d", "/etc/flatcar/update.conf")
    yield from ("/etc/systemd/system", "/etc/systemd/system/timers.target.wants", *system.stamps)
