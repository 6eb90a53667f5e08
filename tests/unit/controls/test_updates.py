"""Updates: on, recent, pending, kernel, reboots of others; on trees with the files and answers of each system."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent.config.node_sections import Updates
from agent.controls import base
from agent.controls.updates import UpdatesControl, kernels, systems
from agent.controls.updates.restarts import Restarts, Survey
from agent.host import Completed, Host, HostExec
from agent.model import Finding, Severity, Status

CAPTURES = Path(__file__).parent / "captures"
NOW = 1_800_000_000.0
DAY = 86400
APT_ON = (CAPTURES / "apt-config.txt").read_text()
APT_TOOLS = ("apt-get", "apt-config", "unattended-upgrade")
ACTIVE = "LoadState=loaded\nActiveState=active\n"


class Node(Host):
    """A tree with tools: answers by the program's name, and of systemctl by the unit's."""

    def __init__(self, root: Path, answers: Mapping[str, str], units: Mapping[str, str]) -> None:
        super().__init__(root, how=HostExec.NSENTER)
        self.answers, self.units, self.ran = answers, units, list[str]()

    def run(self, argv: Any, **named: Any) -> Completed:
        del named
        words = [word.rpartition("/")[2] for word in argv if word.startswith("/")]
        self.ran.append(words[-1])
        if words[0] == "systemctl":
            return Completed(
                tuple(argv), 0, self.units.get(argv[-1], "LoadState=not-found\nActiveState=inactive\n"), ""
            )
        output = self.answers.get(words[-1])
        return Completed(tuple(argv), 1, "", "broken") if output is None else Completed(tuple(argv), 0, output, "")


class Clock:
    """Time that only moves when told to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def wall(self) -> float:
        return NOW + self.now


def write(root: Path, path: str, text: str = "", *, age_days: float = 0) -> None:
    target = root / path
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(text)
    os.utime(target, (NOW - age_days * DAY, NOW - age_days * DAY))


def node(root: Path, tools: tuple[str, ...], answers: Mapping[str, str], *timers: str, **units: str) -> Node:
    for tool in (*tools, "systemctl", "systemd-run"):
        write(root, f"usr/bin/{tool}")
    (root / "run/systemd/system").mkdir(parents=True, exist_ok=True)
    write(root, "proc/sys/kernel/osrelease", "6.1.0-18-amd64\n")
    write(root, "proc/1/cgroup", "0::/init.scope\n")
    write(root, "proc/1/maps", "")
    named = {name.replace("__", "."): text for name, text in units.items()}
    return Node(root, answers, dict.fromkeys(timers, ACTIVE) | named)


def apt(root: Path, dump: str = APT_ON, *, ran_days: float = 1, lists_days: float = 1) -> Node:
    write(root, "var/lib/apt/periodic/upgrade-stamp", age_days=ran_days)
    write(root, "var/lib/apt/lists/deb.example_dists_bookworm-security_InRelease", age_days=lists_days)
    answers = {"apt-config": dump, "apt-get": (CAPTURES / "apt-get.txt").read_text()}
    return node(root, APT_TOOLS, answers, "apt-daily.timer", "apt-daily-upgrade.timer")


def judged(host: Host, clock: Clock | None = None, *, control: UpdatesControl | None = None) -> Mapping[str, Finding]:
    clock = clock or Clock()
    control = control or UpdatesControl(Updates(), host, clock=clock, wall=clock.wall)
    return {one.id.removeprefix("updates/"): one for one in base.audit(control).findings}


def test_apt_that_updates_itself_passes(tmp_path: Path) -> None:
    found = judged(apt(tmp_path))
    assert {name: one.status for name, one in found.items()} == {
        "automatic": Status.PASS, "reboots": Status.PASS, "last-run": Status.PASS, "pending": Status.INFO,
        "kernel": Status.NOT_APPLICABLE, "restart": Status.PASS,
    }  # fmt: skip
    assert {one.section for one in found.values()} == {"A4"}


@pytest.mark.parametrize(
    ("find", "replace", "named"),
    [
        ('Unattended-Upgrade "1"', 'Unattended-Upgrade "0"', "APT::Periodic::Unattended-Upgrade"),
        ('APT::Periodic::Update-Package-Lists "1";\n', "", "Update-Package-Lists is not set"),
        ('APT::Periodic "";', 'APT::Periodic::Enable "0";', "Enable is 0"),
    ],
)
def test_apt_settings_that_turn_it_off(tmp_path: Path, find: str, replace: str, named: str) -> None:
    assert find in APT_ON
    found = judged(apt(tmp_path, APT_ON.replace(find, replace)))["automatic"]
    assert (found.status, found.severity) == (Status.FAIL, Severity.HIGH)
    assert named in found.observed


def test_apt_without_the_program_or_with_a_masked_timer_is_off(tmp_path: Path) -> None:
    host = apt(tmp_path)
    (tmp_path / "usr/bin/unattended-upgrade").unlink()
    host.units = {**host.units, "apt-daily.timer": "LoadState=masked\nActiveState=inactive\n"}
    assert judged(host)["automatic"].observed == "unattended-upgrades is not installed; apt-daily.timer is masked"
    write(tmp_path, "etc/kubernetes/azure.json")
    found = judged(host)["automatic"]
    assert (found.status, "node OS upgrade channel" in found.observed) == (Status.INFO, True)


def test_a_reboot_of_its_own_is_high(tmp_path: Path) -> None:
    found = judged(apt(tmp_path, APT_ON + 'Unattended-Upgrade::Automatic-Reboot "true";\n'))["reboots"]
    assert (found.status, found.severity) == (Status.FAIL, Severity.HIGH)


@pytest.mark.parametrize(
    ("days", "status", "severity"),
    [(2.9, Status.PASS, Severity.MEDIUM), (4, Status.FAIL, Severity.MEDIUM), (15, Status.FAIL, Severity.HIGH)],
)
def test_the_last_run_ages(tmp_path: Path, days: float, status: Status, severity: Severity) -> None:
    found = judged(apt(tmp_path, ran_days=days))["last-run"]
    assert (found.status, found.severity) == (status, severity)


def test_a_run_that_failed_is_none(tmp_path: Path) -> None:
    """The stamp moves also on failure; an error of an earlier run is past."""
    host = apt(tmp_path)
    begin = "2026-11-27 06:11:01,446 INFO Starting unattended upgrades script\n"
    write(tmp_path, "var/log/unattended-upgrades/unattended-upgrades.log", f"{begin}2026 ERROR old\n{begin}x INFO No\n")
    assert judged(host)["last-run"].status is Status.PASS
    log = f"{begin}2026-11-28 06:11:03,1 ERROR Cache has broken packages, exiting\n"
    write(tmp_path, "var/log/unattended-upgrades/unattended-upgrades.log", log)
    found = judged(host)["last-run"]
    assert (found.status, "broken packages" in found.observed) == (Status.FAIL, True)


def test_pending_is_counted_by_a_unit_of_its_own_once_a_day(tmp_path: Path) -> None:
    host, clock = apt(tmp_path), Clock()
    control = UpdatesControl(Updates(), host, clock=clock, wall=clock.wall)

    def passed(seconds: float) -> Finding:
        """A pass, and the one after it, which has the count that the first began."""
        clock.now = seconds
        os.utime(tmp_path / "var/lib/apt/lists/deb.example_dists_bookworm-security_InRelease", (clock.wall(),) * 2)
        control.observe()
        if control._counting is not None:
            control._counting.join()
        return judged(host, control=control)["pending"]

    assert passed(0).status is Status.INFO
    assert "apt-get" not in host.ran
    found = passed(300)
    assert (found.status, found.observed.split()[0]) == (Status.INFO, "7")
    assert [passed(seconds).status for seconds in (600, 4000, 80_000)] == [Status.INFO] * 3
    assert host.ran.count("apt-get") == 1
    assert (passed(9 * DAY).status, passed(9 * DAY).severity) == (Status.FAIL, Severity.MEDIUM)
    assert passed(40 * DAY).severity is Severity.HIGH
    host.answers = {**host.answers, "apt-get": "Reading package lists...\n"}
    assert passed(42 * DAY).status is Status.PASS
    host.answers = {"apt-config": APT_ON}
    assert passed(44 * DAY).status is Status.UNKNOWN


def test_a_count_that_fails_once_does_not_make_old_updates_new(tmp_path: Path) -> None:
    host, clock = apt(tmp_path), Clock()
    control = UpdatesControl(Updates(), host, clock=clock, wall=clock.wall)
    answers = host.answers
    for day in (1, 9, 10, 11):
        clock.now = day * DAY
        os.utime(tmp_path / "var/lib/apt/lists/deb.example_dists_bookworm-security_InRelease", (clock.wall(),) * 2)
        host.answers = {"apt-config": APT_ON} if day == 10 else answers
        control.observe()
        assert control._counting is not None
        control._counting.join()
        status = judged(host, control=control)["pending"].status
        assert status is {1: Status.INFO, 10: Status.UNKNOWN}.get(day, Status.FAIL)


def test_what_lies_ahead_of_the_clock_passes_nothing(tmp_path: Path) -> None:
    """A clock that was set back: by these times everything would be recent for as long as it was ahead."""
    found = judged(apt(tmp_path, ran_days=-400, lists_days=-400))
    assert (found["last-run"].status, found["pending"].status) == (Status.UNKNOWN, Status.UNKNOWN)


def test_old_lists_make_a_count_unknown(tmp_path: Path) -> None:
    found = judged(apt(tmp_path, lists_days=4))["pending"]
    assert (found.status, "package lists are from" in found.observed) == (Status.UNKNOWN, True)


def test_commands_run_once_an_hour_or_when_a_setting_changes(tmp_path: Path) -> None:
    host, clock = apt(tmp_path), Clock()
    write(tmp_path, "etc/apt/apt.conf.d/20auto-upgrades")
    control = UpdatesControl(Updates(pending_interval=0), host, clock=clock, wall=clock.wall)
    judged(host, control=control)
    once = len(host.ran)
    clock.now = 3000
    judged(host, control=control)
    assert len(host.ran) == once
    write(tmp_path, "etc/apt/apt.conf.d/50other")
    judged(host, control=control)
    assert len(host.ran) == 2 * once
    clock.now = 7000
    judged(host, control=control)
    assert len(host.ran) == 3 * once


def test_what_cannot_be_asked_is_unknown(tmp_path: Path) -> None:
    host = apt(tmp_path)
    host.answers = {}
    found = judged(host)
    assert [found[name].status for name in ("automatic", "reboots")] == [Status.UNKNOWN] * 2
    (tmp_path / "usr/bin/systemctl").unlink()
    host.answers = {"apt-config": APT_ON}
    assert judged(host)["automatic"].status is Status.UNKNOWN


DNF = "[commands]\nupgrade_type = security\napply_updates = {}\nreboot = {}\n"


@pytest.mark.parametrize(
    ("timer", "applies", "reboot", "expected"),
    [
        ("dnf-automatic-install.timer", "no", "never", (Status.PASS, Status.PASS)),
        ("dnf-automatic.timer", "yes", "when-needed", (Status.PASS, Status.FAIL)),
        ("dnf-automatic.timer", "no", "never", (Status.FAIL, Status.PASS)),  # only notifies
        ("", "yes", "never", (Status.FAIL, Status.PASS)),
    ],
)
def test_dnf(tmp_path: Path, timer: str, applies: str, reboot: str, expected: tuple[Status, Status]) -> None:
    write(tmp_path, "etc/dnf/automatic.conf", DNF.format(applies, reboot))
    found = judged(node(tmp_path, ("dnf",), {}, *([timer] if timer else [])))
    assert (found["automatic"].status, found["reboots"].status) == expected


def test_dnf5_reads_the_distributions_own_settings_first(tmp_path: Path) -> None:
    write(tmp_path, "usr/share/dnf5/dnf5-plugins/automatic.conf", DNF.format("yes", "when-needed"))
    host = node(tmp_path, ("dnf5",), {}, "dnf5-automatic.timer")
    assert [judged(host)[name].status for name in ("automatic", "reboots")] == [Status.PASS, Status.FAIL]
    write(tmp_path, "etc/dnf/automatic.conf", "[commands]\nreboot = never\n")
    assert [judged(host)[name].status for name in ("automatic", "reboots")] == [Status.PASS, Status.PASS]


def test_dnf_whose_last_run_failed(tmp_path: Path) -> None:
    write(tmp_path, "var/lib/systemd/timers/stamp-dnf-automatic.timer", age_days=1)
    host = node(tmp_path, ("dnf",), {}, "dnf-automatic.timer")
    assert judged(host)["last-run"].status is Status.PASS
    host.units = {**host.units, "dnf-automatic.service": "Result=exit-code\n"}
    assert judged(host)["last-run"].observed == "the last run failed: dnf-automatic.service: exit-code"
    (tmp_path / "usr/bin/systemctl").unlink()
    assert judged(host)["last-run"].status is Status.UNKNOWN


REPODATA = "var/cache/dnf/baseos-0a1b2c3d4e5f6071/repodata"


def test_dnf_without_advisories_counts_nothing(tmp_path: Path) -> None:
    write(tmp_path, f"{REPODATA}/0a-primary.xml.gz")
    host, clock = node(tmp_path, ("dnf",), {"dnf": ""}), Clock()
    control = UpdatesControl(Updates(), host, clock=clock, wall=clock.wall)
    clock.now = 300
    assert judged(host, control=control)["pending"].status is Status.UNKNOWN
    assert "dnf" not in host.ran
    write(tmp_path, f"{REPODATA}/0b-updateinfo.xml.gz")
    clock.now = 4000
    control.observe()
    assert control._counting is not None
    control._counting.join()
    assert judged(host, control=control)["pending"].status is Status.PASS


def test_transactional_update_leaves_reboots_to_the_agent_or_not(tmp_path: Path) -> None:
    host = node(tmp_path, ("transactional-update", "zypper"), {}, "transactional-update.timer")
    # `auto`, the default, reboots: by rebootmgr where it runs, else by systemd.
    assert judged(host)["reboots"].status is Status.FAIL
    write(tmp_path, "usr/etc/transactional-update.conf", "REBOOT_METHOD=kured\n")
    write(tmp_path, "etc/transactional-update.conf", "# only what differs\n")
    assert [one.status for one in judged(host).values()][:2] == [Status.PASS, Status.PASS]
    host.units = {**host.units, "rebootmgr.service": ACTIVE}
    assert judged(host)["reboots"].status is Status.FAIL
    host.units = {}
    write(tmp_path, "etc/transactional-update.conf", "REBOOT_METHOD=systemd\n")
    assert [one.status for one in judged(host).values()][:2] == [Status.FAIL, Status.FAIL]


def test_zypper(tmp_path: Path) -> None:
    host = node(tmp_path, ("zypper",), {}, "os-update.timer")
    assert judged(host)["automatic"].status is Status.PASS
    assert judged(host)["reboots"].status is Status.FAIL  # os-update does, unless it is set otherwise
    write(tmp_path, "etc/os-update.conf", 'REBOOT_CMD="none"\n')
    assert judged(host)["reboots"].status is Status.PASS
    (tmp_path / "etc/os-update.conf").unlink()
    host.units = {}
    assert [one.status for one in judged(host).values()][:2] == [Status.FAIL, Status.PASS]
    write(tmp_path, "etc/sysconfig/automatic_online_update", 'AOU_ENABLE_CRONJOB="true"\n')
    assert judged(host)["automatic"].status is Status.PASS


def test_flatcar_and_coreos_reboot_by_themselves_unless_told(tmp_path: Path) -> None:
    write(tmp_path, "etc/os-release", "ID=flatcar\n")
    host = node(tmp_path, (), {}, "update-engine.service", "locksmithd.service")
    found = judged(host)
    assert (found["automatic"].status, found["reboots"].status) == (Status.PASS, Status.FAIL)
    assert found["pending"].status is Status.NOT_APPLICABLE
    write(tmp_path, "etc/flatcar/update.conf", "GROUP=stable\nSERVER=disabled\n")
    assert judged(host)["automatic"].observed == "update-engine.service: SERVER is disabled"
    core = tmp_path / "core"
    write(core, "run/ostree-booted")
    write(core, "usr/libexec/zincati")
    host = node(core, (), {}, "zincati.service")
    assert judged(host)["reboots"].status is Status.FAIL
    write(core, "etc/zincati/config.d/55.toml", '[updates]\nstrategy = "fleet_lock"\n')
    assert [judged(host)[name].status for name in ("automatic", "reboots")] == [Status.PASS, Status.PASS]
    write(core, "etc/zincati/config.d/55.toml", "[updates]\nenabled = false\n")
    assert [judged(host)[name].status for name in ("automatic", "reboots")] == [Status.FAIL, Status.PASS]


@pytest.mark.parametrize(
    ("files", "status"),
    [
        ({"usr/lib": "90-a.toml"}, Status.FAIL),  # the last by name, whatever its folder
        ({"usr/lib": "50-a.toml"}, Status.PASS),
        ({"usr/lib": "55-b.toml"}, Status.PASS),  # hidden by its namesake in /etc
        ({"usr/lib": "90-a.conf"}, Status.PASS),  # not read
        ({"run": "55-b.toml"}, Status.FAIL),  # the first of the folders
    ],
)
def test_zincati_reads_its_folders_as_one(tmp_path: Path, files: Mapping[str, str], status: Status) -> None:
    write(tmp_path, "run/ostree-booted")
    write(tmp_path, "usr/libexec/zincati")
    write(tmp_path, "etc/zincati/config.d/55-b.toml", '[updates]\nstrategy = "fleet_lock"\n')
    for folder, name in files.items():
        write(tmp_path, f"{folder}/zincati/config.d/{name}", '[updates]\nstrategy = "immediate"\n')
    assert judged(node(tmp_path, (), {}, "zincati.service"))["reboots"].status is status


def test_endless_settings_of_zincati_are_unknown(tmp_path: Path) -> None:
    write(tmp_path, "run/ostree-booted")
    write(tmp_path, "usr/libexec/zincati")
    for number in range(50):
        write(tmp_path, f"etc/zincati/config.d/{number}.toml", "#" * (200 << 10))
    assert judged(node(tmp_path, (), {}, "zincati.service"))["reboots"].status is Status.UNKNOWN


@pytest.mark.parametrize("name", ["bottlerocket", "talos", "cos"])
def test_images_are_not_applicable(tmp_path: Path, name: str) -> None:
    write(tmp_path, "etc/os-release", f'ID={name}\nVERSION_ID="1.20"\n')
    found = judged(node(tmp_path, (), {}))
    assert (found["automatic"].status, "1.20" in found["automatic"].observed) == (Status.NOT_APPLICABLE, True)


def test_a_system_of_another_kind_is_unknown_and_a_tree_not_applicable(tmp_path: Path) -> None:
    assert judged(node(tmp_path, (), {}))["automatic"].status is Status.UNKNOWN
    assert [one.status for one in judged(Host(tmp_path)).values()] == [Status.NOT_APPLICABLE]


@pytest.mark.parametrize(
    ("running", "installed", "newest"),
    [
        ("6.1.0-9-amd64", ("6.1.0-18-amd64", "6.1.0-20-cloud-amd64"), "6.1.0-18-amd64"),
        ("5.14.0-362.el9.x86_64", ("5.14.0-362.8.1.el9_3.x86_64",), "5.14.0-362.8.1.el9_3.x86_64"),
        ("6.8.0-1015-aws", ("6.8.0-45-generic", "6.8.0-1015-aws"), "6.8.0-1015-aws"),
        ("6.1.0-9-amd64", ("6.1.0-9-cloud-amd64",), None),
    ],
)
def test_kernels_rank_within_their_flavour(running: str, installed: tuple[str, ...], newest: str | None) -> None:
    assert kernels.newest_like(running, (*installed, running) if newest == running else installed) == newest
    assert newest is None or kernels.rank(newest) >= kernels.rank(running)


def test_a_newer_kernel_waits_for_a_boot(tmp_path: Path) -> None:
    """Only what has its image is installed: modules alone are left over."""
    host = apt(tmp_path)
    for release in ("6.1.0-18-amd64", "6.1.0-25-amd64", "6.1.0-31-amd64"):
        (tmp_path / "lib/modules" / release).mkdir(parents=True)
    write(tmp_path, "boot/vmlinuz-6.1.0-18-amd64")
    assert judged(host)["kernel"].status is Status.PASS
    write(tmp_path, "boot/vmlinuz-6.1.0-25-amd64")
    found = judged(host)["kernel"]
    assert (found.status, found.needs_reboot) == (Status.FAIL, True)
    assert found.observed == "6.1.0-18-amd64 runs, 6.1.0-25-amd64 is installed"


@pytest.mark.parametrize(
    ("release", "name"),
    [
        ("ID=debian\n", "APT"),
        ("ID=ubuntu\nID_LIKE=debian\n", "APT"),
        ('ID=pop\nID_LIKE="ubuntu debian"\n', "APT"),
        ('ID="amzn"\nID_LIKE="fedora"\n', "zypper"),
        ("", "zypper"),
    ],
)
def test_debian_with_the_programs_of_others_is_debian(tmp_path: Path, release: str, name: str) -> None:
    write(tmp_path, "etc/os-release", release)
    found = systems.system_of(node(tmp_path, ("dnf", "zypper", *APT_TOOLS), {}))
    assert found is not None
    assert found.name == name


def test_an_os_release_that_cannot_be_read_is_unknown_and_no_other_distribution(tmp_path: Path) -> None:
    (tmp_path / "etc/os-release").mkdir(parents=True)
    found = judged(node(tmp_path, ("dnf", "zypper", *APT_TOOLS), {}))
    assert [one.status for one in found.values()] == [Status.UNKNOWN]


def test_settings_of_apt_that_are_cut_are_not_judged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What decides may be in the rest."""
    run = Node.run
    monkeypatch.setattr(Node, "run", lambda self, argv, **named: replace(run(self, argv, **named), cut=True))
    found = judged(apt(tmp_path))
    assert {found[name].status for name in ("automatic", "reboots")} == {Status.UNKNOWN}


def test_services_that_run_replaced_libraries_need_a_restart(tmp_path: Path) -> None:
    host = apt(tmp_path)
    assert judged(host)["restart"].observed == "services checked: 1"
    line = "7f00-7f01 r-xp 00001000 fe:01 13 /usr/lib/libssl.so.3 (deleted)\n"
    write(tmp_path, "proc/7/cgroup", "0::/system.slice/ssh.service\n")
    write(tmp_path, "proc/7/maps", "x" * (2 << 20))
    found = judged(host)["restart"]
    assert (found.status, found.observed.partition(":")[0]) == (Status.UNKNOWN, "ssh.service")
    write(tmp_path, "proc/7/maps", line)
    found = judged(host)["restart"]
    assert (found.status, found.severity, found.needs_reboot) == (Status.FAIL, Severity.LOW, False)
    assert found.observed == "ssh.service (libssl.so.3)"
    for pid in (1, 7):
        write(tmp_path, f"proc/{pid}/cgroup", "0::/\n")
    assert judged(host)["restart"].status is Status.NOT_APPLICABLE  # another init than systemd
    (tmp_path / "proc/1/cgroup").unlink()
    assert judged(host)["restart"].status is Status.UNKNOWN


def test_processes_are_read_once_an_hour(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = list[Survey]()

    def survey(one: Survey) -> Restarts:
        read.append(one)
        return Restarts(1, {}, {})

    monkeypatch.setattr(Survey, "read", survey)
    host, clock = apt(tmp_path), Clock()
    control = UpdatesControl(Updates(pending_interval=0), host, clock=clock, wall=clock.wall)
    for clock.now in (0, 60, 3000, 3700):
        judged(host, control=control)
    assert len(read) == 2
