"""`denials.noquiet`: the node's parameter is set while the policy has it, restored after, and otherwise left alone."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from agent.config import loads
from agent.config.choices import Mode
from agent.config.schema import Apparmor
from agent.controls import base, registry
from agent.controls.apparmor import ApparmorControl
from agent.controls.base import Pass
from agent.errors import ConfigError, HostFileError
from agent.host import Host
from agent.model import Outcome, Status

PARAMETER = "sys/module/apparmor/parameters/audit"
BOOT_ID = "proc/sys/kernel/random/boot_id"


class Node:
    """AppArmor's files of a node with no profile to load; the parameter is a plain file."""

    def __init__(self, root: Path, value: str = "normal") -> None:
        self.root, self.folder = root / "node", root / "profiles"
        self.root.mkdir()
        self.host = Host(self.root)
        self.folder.mkdir()
        for name, content in {
            "sys/module/apparmor/parameters/enabled": "Y\n", PARAMETER: value, "sbin/apparmor_parser": "",
            "sys/kernel/security/apparmor/profiles": "", "proc/1/attr/current": "unconfined\n",
            BOOT_ID: "11111111-2222-3333-4444-555555555555\n",
        }.items():  # fmt: skip
            (self.root / name).parent.mkdir(parents=True, exist_ok=True)
            (self.root / name).write_text(content)

    @property
    def value(self) -> str:
        return (self.root / PARAMETER).read_text()

    def apply(self, *, noquiet: bool, mode: Mode = Mode.ENFORCE) -> Pass:
        config = Apparmor(mode=mode, profiles=str(self.folder))
        return base.apply(ApparmorControl(config, self.host, noquiet=noquiet))


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def status(done: Pass) -> tuple[Status, str] | None:
    """Of the parameter's finding."""
    return next(((one.status, one.observed) for one in done.findings if one.id == "apparmor/noquiet"), None)


def changes(done: Pass) -> list[tuple[str, str, Outcome]]:
    return [(one.action, one.target, one.outcome) for one in done.changes]


@pytest.mark.parametrize("before", ["normal", "quiet"])
def test_it_is_set_once_and_restored_when_the_option_is_removed(tmp_path: Path, before: str) -> None:
    """Without a newline, which the kernel refuses. Off by default."""
    node = Node(tmp_path, before)
    assert (changes(node.apply(noquiet=False)), node.value) == ([], before)
    done = node.apply(noquiet=True)
    assert changes(done) == [("set", "audit=noquiet", Outcome.DONE)]
    assert (status(done), node.value) == ((Status.PASS, "audit is noquiet"), "noquiet")
    assert changes(node.apply(noquiet=True)) == []
    done = node.apply(noquiet=False)
    assert changes(done) == [("restore", f"audit={before}", Outcome.DONE)]
    assert (status(done), node.value) == (None, before)
    assert changes(node.apply(noquiet=False)) == []


@pytest.mark.parametrize("value", ["noquiet", "all"])
def test_what_another_set_is_left(tmp_path: Path, value: str) -> None:
    """It records already, so there is nothing to set and nothing to restore."""
    node = Node(tmp_path, value)
    done = node.apply(noquiet=True)
    assert (changes(done), status(done)) == ([], (Status.PASS, f"audit is {value}"))
    assert (changes(node.apply(noquiet=False)), node.value) == ([], value)


def test_what_another_set_since_is_left(node: Node) -> None:
    """And is another's from then on."""
    node.apply(noquiet=True)
    (node.root / PARAMETER).write_text("all")
    node.apply(noquiet=False)
    assert node.value == "all"
    (node.root / PARAMETER).write_text("noquiet")
    assert (changes(node.apply(noquiet=False)), node.value) == ([], "noquiet")


def test_a_boot_ends_it(node: Node) -> None:
    """The kernel starts with its own value again: it is set again, or what another set in this boot is left."""
    node.apply(noquiet=True)
    (node.root / BOOT_ID).write_text("66666666-7777-8888-9999-000000000000\n")
    assert (changes(node.apply(noquiet=False)), node.value) == ([], "noquiet")
    (node.root / PARAMETER).write_text("normal")
    assert changes(node.apply(noquiet=True)) == [("set", "audit=noquiet", Outcome.DONE)]


def test_mode_audit_sets_nothing_and_reverts_what_enforce_set(node: Node) -> None:
    done = node.apply(noquiet=True, mode=Mode.AUDIT)
    assert (changes(done), status(done)) == ([], (Status.INFO, "audit is normal"))
    node.apply(noquiet=True)
    assert changes(node.apply(noquiet=True, mode=Mode.AUDIT)) == [("restore", "audit=normal", Outcome.DONE)]
    assert node.value == "normal"


def test_without_apparmor_it_cannot_be_set(node: Node) -> None:
    """The finding says so; nothing is tried."""
    (node.root / "sys/module/apparmor/parameters/enabled").write_text("N\n")
    done = node.apply(noquiet=True)
    found = status(done)
    assert found is not None
    assert (found[0], found[1].startswith("cannot be set on this node: AppArmor is")) == (Status.NOT_APPLICABLE, True)
    assert (changes(done), node.value) == ([], "normal")


def test_an_unreadable_parameter_is_unknown(node: Node) -> None:
    (node.root / PARAMETER).unlink()
    done = node.apply(noquiet=True)
    assert changes(done) == []
    assert [one.status for one in done.findings if one.id == "apparmor/noquiet"] == [Status.UNKNOWN]
    assert not (node.root / PARAMETER).exists()


def test_a_kernel_that_refuses_is_named(node: Node, monkeypatch: pytest.MonkeyPatch) -> None:
    """Profiles' own work goes on; nothing is restored that was not set."""

    def refuse(path: str, content: str) -> None:
        raise HostFileError("write", path, OSError(errno.EPERM, "Operation not permitted"))

    with monkeypatch.context() as patched:
        patched.setattr(node.host, "write_in_place", refuse)
        done = node.apply(noquiet=True)
    assert changes(done) == [("set", "audit=noquiet", Outcome.FAILED)]
    assert status(done) == (Status.FAIL, "audit is normal")
    assert any("Operation not permitted" in one.observed for one in done.findings)
    node.apply(noquiet=False)
    assert node.value == "normal"


def test_the_policy_sets_it_for_apparmor_and_not_while_that_is_off(tmp_path: Path) -> None:
    """A new policy makes the control again."""
    policy = loads(f"denials: {{noquiet: true}}\napparmor: {{profiles: {tmp_path}}}", "c")
    made = {one.name: one for one in registry.controls_of(policy, Host(tmp_path))}
    assert "apparmor" not in registry.unchanged(loads(f"apparmor: {{profiles: {tmp_path}}}", "c"), policy)
    control = made["apparmor"]
    assert isinstance(control, ApparmorControl)
    assert control.observe().deny_records.is_required
    with pytest.raises(ConfigError, match=r"denials\.noquiet.*apparmor\.mode is off"):
        loads("denials: {noquiet: true}\napparmor: {mode: off}", "c")


def test_writing_in_place_keeps_the_file(tmp_path: Path) -> None:
    """A file of sysfs cannot be replaced. Nothing is made, and no symlink at the end is followed."""
    file, host = tmp_path / "value", Host(tmp_path)
    file.write_text("a longer one")
    inode = file.stat().st_ino
    host.write_in_place("/value", "short")
    assert (file.read_text(), file.stat().st_ino) == ("short", inode)
    (tmp_path / "link").symlink_to("value")
    for path in ("/link", "/missing"):
        with pytest.raises(HostFileError, match="cannot write"):
            host.write_in_place(path, "x")
    assert (file.read_text(), (tmp_path / "missing").exists()) == ("short", False)


def test_mode_off_restores_what_was_there_before(node: Node) -> None:
    """The parameter is of the whole node and would last; on a node where it was never set nothing is read."""
    off = loads("{apparmor: {mode: off}, modprobe: {mode: off}}", "c")
    names = [one.name for one in registry.controls_of(off, node.host)]
    assert "apparmor" not in names
    node.apply(noquiet=True)
    for expected in ([("restore", "audit=normal", Outcome.DONE)], []):
        (control,) = [one for one in registry.controls_of(off, node.host) if one.name == "apparmor"]
        report = registry.run("n", [control], registry.Act.APPLY)
        assert [(one.action, one.target, one.outcome) for one in report.changes] == expected
        assert [(one.id, one.status) for one in report.findings] == [("policy/off", Status.UNKNOWN)]
    assert node.value == "normal"
    (node.root / "var/lib/node-hardening/apparmor-audit.json").write_text("{")
    assert [one.status for one in base.audit(control).findings] == [Status.UNKNOWN]
