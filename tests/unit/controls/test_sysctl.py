"""Kernel settings: running value and next boot judged together; enforce writes, audit restores."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.choices import Mode
from agent.config.node_sections import Sysctl
from agent.config.schema import Config
from agent.controls import base, registry
from agent.controls.sysctl import SysctlControl
from agent.controls.sysctl.settings import KEYS, SETTINGS
from agent.host import Completed, Host, HostExec, sysctl_d
from agent.model import Finding, Outcome, Status
from agent.report import node_status

OURS = "/etc/sysctl.d/99-node-hardening.conf"


class Node(Host):
    """A tree whose `sysctl` writes into the tree's own /proc/sys. refuses: keys that the kernel does not take."""

    refuses: tuple[str, ...] = ()

    def run(self, argv: Any, **named: Any) -> Completed:
        del named
        key, _, value = argv[-1].partition("=")
        if key in self.refuses:
            return Completed(tuple(argv), 255, "", f"sysctl: permission denied on key '{key}'")
        put(Path(self.root), key, value)
        return Completed(tuple(argv), 0, "", "")


def put(root: Path, key: str, value: str) -> None:
    path = root / "proc/sys" / key.translate(str.maketrans("./", "/."))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{value}\n")


def write(root: Path, path: str, text: str) -> None:
    (root / path).parent.mkdir(parents=True, exist_ok=True)
    (root / path).write_text(text)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A node on which every setting passes, and no file sets any."""
    for one in SETTINGS:
        put(tmp_path, one.key, one.accepted[0] if one.accepted else "63488")
    put(tmp_path, "net.ipv4.conf.eth0.send_redirects", "0")
    write(tmp_path, "usr/lib/systemd/systemd-sysctl", "")
    write(tmp_path, "usr/sbin/sysctl", "")
    return tmp_path


def audit(root: Path, **policy: Any) -> Mapping[str, Finding]:
    found = base.audit(SysctlControl(Sysctl(**policy), Host(root))).findings
    return {finding.id.removeprefix("sysctl/"): finding for finding in found}


def apply(root: Path, mode: Mode = Mode.ENFORCE, **policy: Any) -> base.Pass:
    return base.apply(SysctlControl(Sysctl(mode=mode, **policy), Node(root, how=HostExec.NSENTER)))


def test_each_setting_has_one_finding_and_what_runs_passes(root: Path) -> None:
    found = audit(root)
    assert tuple(found) == KEYS
    assert {one.status for one in found.values()} == {Status.PASS, Status.INFO}
    assert [one.key for one in SETTINGS if one.shown or one.one_way] == [
        k for k, f in found.items() if f.status is Status.INFO
    ]
    assert found["vm.overcommit_memory"].cis == ("4.2.6",)


def test_the_running_value_counts_and_not_the_file(root: Path) -> None:
    put(root, "kernel.kptr_restrict", "0")
    write(root, "etc/sysctl.d/50-a.conf", "kernel.kptr_restrict = 1\n")
    found = audit(root)["kernel.kptr_restrict"]
    assert (found.status, found.observed, found.source) == (Status.FAIL, "0", "/proc/sys/kernel/kptr_restrict")
    assert found.remediation.startswith("/etc/sysctl.d/50-a.conf:1 sets 1")


def test_a_file_that_wins_at_the_next_boot_fails(root: Path) -> None:
    """The last file by name, whatever its folder, with a line without wildcards before those that have some."""
    write(root, "etc/sysctl.d/50-a.conf", "kernel.kptr_restrict = 1\nnet.ipv4.conf.*.accept_redirects = 1\n")
    write(root, "usr/lib/sysctl.d/60-b.conf", "# all\n-kernel/kptr_restrict=0\n")
    write(root, "etc/sysctl.d/40-c.conf", "net.ipv4.conf.all.accept_redirects = 0\n")
    found = audit(root)
    first = found["kernel.kptr_restrict"]
    assert (first.status, first.source) == (Status.FAIL, "/usr/lib/sysctl.d/60-b.conf:2")
    assert first.observed == "1 now, 0 at the next boot"
    assert found["net.ipv4.conf.all.accept_redirects"].status is Status.PASS
    assert found["net.ipv4.conf.default.accept_redirects"].source == "/etc/sysctl.d/50-a.conf:2"


@pytest.mark.parametrize(
    ("files", "decides"),
    [
        ({"etc/sysctl.d/a.conf": "x.y=1", "usr/lib/sysctl.d/a.conf": "x.y=2"}, "/etc/sysctl.d/a.conf:1"),
        ({"etc/sysctl.d/a.conf": "x.*=1\n-x.y\n"}, None),
        ({"etc/sysctl.conf": "x.y=1"}, None),  # systemd does not read it
        ({"etc/sysctl.d/a.conf": ";x.y=1\nx.y 1\n"}, None),
        ({"etc/sysctl.d/a": "x.y=1"}, None),
        ({"etc/sysctl.d/a.conf": "*.z=1"}, None),  # a wildcard stays within its part
        ({"etc/sysctl.d/a.conf": "x.*=1\n-x.*\n"}, None),  # the later line replaces the earlier one
        ({"etc/sysctl.d/a.conf": "x.*=1\n*.y=2\nx.*=3\n"}, "/etc/sysctl.d/a.conf:3"),
        ({"etc/sysctl.d/a.conf": "# what was\x0cx.y=1\x85x.y=2\n"}, None),  # one line, and a comment
    ],
)
def test_files_are_read_as_systemd_does(root: Path, files: Mapping[str, str], decides: str | None) -> None:
    for path, text in files.items():
        write(root, path, text)
    line = sysctl_d.read(Host(root)).get("x.y")
    assert (line.source if line else None) == decides


def test_a_masked_file_sets_nothing_and_without_systemd_sysctl_conf_counts(root: Path) -> None:
    write(root, "usr/lib/sysctl.d/a.conf", "x.y=1")
    write(root, "etc/sysctl.conf", "x.z=1")
    (root / "etc/sysctl.d").mkdir()
    (root / "etc/sysctl.d/a.conf").symlink_to("/dev/null")
    (root / "usr/lib/systemd/systemd-sysctl").unlink()
    boot = sysctl_d.read(Host(root))
    assert boot.get("x.y") is None
    assert boot.get("x.z") is not None


def test_what_cannot_be_read_is_unknown_and_what_is_absent_not_applicable(root: Path) -> None:
    (root / "proc/sys/kernel/panic").unlink()
    (root / "proc/sys/kernel/panic").mkdir()
    (root / "proc/sys/kernel/yama/ptrace_scope").unlink()
    (root / "etc/sysctl.d/a.conf").mkdir(parents=True)
    found = audit(root)
    assert found["kernel.panic"].status is Status.UNKNOWN
    assert found["kernel.yama.ptrace_scope"].status is Status.NOT_APPLICABLE
    assert found["kernel.kptr_restrict"].status is Status.UNKNOWN
    assert "a.conf" in found["kernel.kptr_restrict"].observed


def test_a_tree_without_a_kernel_is_one_line(tmp_path: Path) -> None:
    assert [(key, one.status) for key, one in audit(tmp_path).items()] == [("kernel", Status.NOT_APPLICABLE)]


def test_an_interface_counts_together_with_all(root: Path) -> None:
    put(root, "net.ipv4.conf.eth0/100.send_redirects", "1")
    found = audit(root)["net.ipv4.conf.all.send_redirects"]
    assert (found.status, found.observed) == (Status.FAIL, "0, but not for net.ipv4.conf.eth0/100.send_redirects")
    done = apply(root)
    assert "net.ipv4.conf.eth0/100.send_redirects=0" in [change.target for change in done.changes]
    assert audit(root)["net.ipv4.conf.all.send_redirects"].status is Status.PASS
    changes = apply(root, Mode.AUDIT).changes
    assert "restore net.ipv4.conf.eth0/100.send_redirects=1" in [f"{one.action} {one.target}" for one in changes]


def test_a_stricter_value_stays(root: Path) -> None:
    """The agent's file must not weaken at the next boot what is stricter now."""
    put(root, "kernel.kptr_restrict", "2")
    write(root, "etc/sysctl.d/10-strict.conf", "kernel.kptr_restrict = 2\n")
    apply(root)
    assert "kernel.kptr_restrict = 2\n" in (root / OURS.lstrip("/")).read_text()
    assert [one.target for one in apply(root, Mode.AUDIT).changes] == [OURS]


def test_enforce_writes_what_is_missing_and_a_second_pass_nothing(root: Path) -> None:
    put(root, "kernel.dmesg_restrict", "0")
    put(root, "net.ipv4.conf.all.rp_filter", "2")
    put(root, "kernel.kexec_load_disabled", "0")
    done = apply(root)
    assert [(one.action, one.target) for one in done.changes] == [
        ("write", OURS), ("set", "kernel.dmesg_restrict=1"),
    ]  # fmt: skip
    assert not [one.id for one in done.findings if one.status in (Status.FAIL, Status.UNKNOWN)]
    text = (root / OURS.lstrip("/")).read_text()
    assert "kernel.dmesg_restrict = 1\n" in text
    never = ("rp_filter", "forward", "userns", "user_namespaces", "kexec", "io_uring", "jit_harden", "route_localnet")
    assert not [word for word in never if word in text]
    assert apply(root).changes == ()


def test_one_way_settings_only_when_asked(root: Path) -> None:
    put(root, "kernel.kexec_load_disabled", "0")
    put(root, "kernel.unprivileged_bpf_disabled", "0")
    assert audit(root)["kernel.kexec_load_disabled"].status is Status.INFO
    assert audit(root, one_way=True)["kernel.kexec_load_disabled"].status is Status.FAIL
    targets = [change.target for change in apply(root, one_way=True).changes]
    # 2 is the value that can be taken back.
    assert targets == [OURS, "kernel.unprivileged_bpf_disabled=2", "kernel.kexec_load_disabled=1"]


def test_what_is_left_is_shown_and_restored(root: Path) -> None:
    put(root, "kernel.kptr_restrict", "0")
    put(root, "kernel.dmesg_restrict", "0")
    apply(root)
    done = apply(root, leave=("kernel.kptr_*",))
    assert [(one.action, one.target) for one in done.changes] == [
        ("restore", "kernel.kptr_restrict=0"), ("write", OURS),
    ]  # fmt: skip
    assert {one.id: one.status for one in done.findings}["sysctl/kernel.kptr_restrict"] is Status.INFO
    assert "kptr" not in (root / OURS.lstrip("/")).read_text()
    assert apply(root, leave=("kernel.kptr_*",)).changes == ()


def test_audit_reverts_what_enforce_did_and_nothing_else(root: Path) -> None:
    put(root, "kernel.kptr_restrict", "0")
    put(root, "kernel.dmesg_restrict", "0")
    write(root, OURS.lstrip("/"), "# an operator's\n")
    apply(root)
    put(root, "kernel.dmesg_restrict", "2")  # somebody else's since
    done = apply(root, Mode.AUDIT)
    assert [(one.action, one.target, one.outcome) for one in done.changes] == [
        ("restore", "kernel.kptr_restrict=0", Outcome.DONE), ("remove", OURS, Outcome.DONE),
    ]  # fmt: skip
    assert (root / OURS.lstrip("/")).read_text() == "# an operator's\n"
    assert (root / "proc/sys/kernel/kptr_restrict").read_text() == "0\n"
    assert (root / "proc/sys/kernel/dmesg_restrict").read_text() == "2\n"
    assert apply(root, Mode.AUDIT).changes == ()


def test_values_from_before_survive_a_reboot(root: Path) -> None:
    """After a boot with the file the running value is the agent's: the noted one stays the one from before."""
    put(root, "kernel.kptr_restrict", "0")
    apply(root)
    (root / OURS.lstrip("/")).write_text("")  # drift
    apply(root)
    assert "restore kernel.kptr_restrict=0" in [f"{c.action} {c.target}" for c in apply(root, Mode.AUDIT).changes]


def test_a_refused_value_is_a_failed_change_and_the_rest_goes_on(root: Path) -> None:
    put(root, "kernel.kptr_restrict", "0")
    put(root, "kernel.dmesg_restrict", "0")
    node = Node(root, how=HostExec.NSENTER)
    node.refuses = ("kernel.kptr_restrict",)
    done = base.apply(SysctlControl(Sysctl(mode=Mode.ENFORCE), node))
    outcomes = {change.target: change.outcome for change in done.changes}
    assert outcomes["kernel.kptr_restrict=1"] is Outcome.FAILED
    assert outcomes["kernel.dmesg_restrict=1"] is Outcome.DONE


def test_another_file_that_wins_is_info_where_the_agent_sets_it_again(root: Path) -> None:
    """The agent must not keep its own start-up taint because of a file that it may not change."""
    write(root, "etc/sysctl.d/99-zz.conf", "kernel.kptr_restrict = 0\n")
    found = {one.id: one for one in apply(root).findings}["sysctl/kernel.kptr_restrict"]
    assert (found.status, found.source) == (Status.INFO, "/etc/sysctl.d/99-zz.conf:1")


def test_a_tree_gets_the_file_and_this_machine_keeps_its_values(root: Path) -> None:
    put(root, "kernel.kptr_restrict", "0")
    done = base.apply(SysctlControl(Sysctl(mode=Mode.ENFORCE), Host(root)))
    assert [change.target for change in done.changes] == [OURS]


def test_a_misspelt_key_is_named(root: Path) -> None:
    assert audit(root, leave=("kernel.kptr",))["leave/kernel.kptr"].status is Status.UNKNOWN


def test_what_is_only_audited_keeps_no_taint(root: Path) -> None:
    """A node that was hardened before these settings were audited stays free of its start-up taint, and reboots."""
    put(root, "kernel.kptr_restrict", "0")
    config = Config()
    report = registry.run("node-1", [SysctlControl(config.sysctl, Host(root))], registry.Act.APPLY)
    assert report.status is Status.FAIL
    assert node_status.failing(report, registry.enforced(config)) == 0


@pytest.mark.parametrize("text", ["a=1\n" * 50_000, "#" * 300_000, "x" * 5])
def test_endless_files_are_unknown_and_garbage_is_skipped(root: Path, text: str) -> None:
    write(root, "etc/sysctl.d/50-a.conf", text)
    status = audit(root)["kernel.kptr_restrict"].status
    assert status is (Status.PASS if len(text) == 5 else Status.UNKNOWN)


@given(st.text())
def test_any_text_is_lines_or_nothing(text: str) -> None:
    boot = sysctl_d.BootSettings(sysctl_d.parse(text, "f"))
    found = boot.get("kernel.kptr_restrict")
    assert found is None or found.source.startswith("f:")
