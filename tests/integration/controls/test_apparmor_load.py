"""Profiles are loaded, verified, mended and taken out: the real apparmor_parser against a stand-in for the kernel.

What the kernel really does is proved on a real one (tests/vm); here every step runs as on a node, files and all.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from agent.config.choices import Mode
from agent.config.schema import Apparmor
from agent.controls import base
from agent.controls.apparmor import ApparmorControl, Tool
from agent.controls.base import Pass
from agent.host import Host, HostExec
from agent.model import Finding, Outcome, Status
from tests.support.apparmor_kernel import StandIn, cannot_load

pytestmark = pytest.mark.skipif(cannot_load() != "", reason=cannot_load())

GOOD = "profile app-one {\n  file,\n  deny /etc/shadow r,\n}\n"
OTHER = "profile app-one {\n  file,\n  deny /etc/gshadow r,\n}\n"
BROKEN = "profile app-one {\n  file,\n  deny /etc/shadow r\n}\n"


class Node:
    """A node with a folder of profiles, and the control that looks after it."""

    def __init__(self, tmp_path: Path) -> None:
        self.root = tmp_path / "node"
        self.folder = tmp_path / "profiles"
        self.work = tmp_path / "work"
        for path in (self.root, self.folder, self.work):
            path.mkdir()
        self.kernel = StandIn(self.root, self.work)
        self.state = self.root / "var/lib/node-hardening"

    def write(self, name: str, text: str) -> None:
        (self.folder / name).write_text(text)

    def control(self, mode: Mode = Mode.ENFORCE) -> ApparmorControl:
        config = Apparmor(mode=mode, profiles=str(self.folder))
        return ApparmorControl(config, Host(self.root), tool=Tool(str(self.kernel.parser), HostExec.DIRECT))

    def apply(self) -> Pass:
        return base.apply(self.control())

    def audit(self) -> Pass:
        return base.audit(self.control())


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def finding(passed: Pass, thing: str) -> Finding:
    return {one.id: one for one in passed.findings}[f"apparmor/{thing}"]


def acts(passed: Pass) -> list[tuple[str, str]]:
    assert all(change.outcome is Outcome.DONE for change in passed.changes), passed.changes
    return [(change.action, change.target) for change in passed.changes]


def test_a_node_whose_runtime_finds_no_parser_is_named(node: Node) -> None:
    """containerd and CRI-O then start pods without their default profile, silently."""
    (node.root / "sbin/apparmor_parser").unlink()
    one = finding(node.audit(), "runtime")
    assert (one.status, one.source) == (Status.FAIL, "/sbin/apparmor_parser")


def test_shipped_profiles_load_and_the_second_time_changes_nothing(node: Node) -> None:
    """With no folder configured the shipped profiles are loaded and verified; then no step is planned any more."""
    node.folder.rmdir()
    first = node.apply()
    assert len(first.changes) == 3
    assert {one.status for one in first.findings} == {Status.PASS}
    before = {path: path.stat() for path in node.state.rglob("*")}
    assert node.apply().changes == ()
    after = {path: path.stat() for path in node.state.rglob("*")}
    assert {p: (s.st_ino, s.st_mtime_ns) for p, s in before.items()} == {
        p: (s.st_ino, s.st_mtime_ns) for p, s in after.items()
    }
    assert "k8s-apparmor-example-deny-write" in node.kernel.profiles


def test_a_broken_file_is_refused_beside_good_ones_that_load(node: Node) -> None:
    """A syntax error costs one file: its finding has the line and the parser's words, the others are loaded."""
    node.write("bad", "profile bad-one {\n  file,\n  deny /x w\n}\n")
    node.write("good", GOOD)
    node.write("empty", "# nothing\n")
    passed = node.apply()
    assert acts(passed) == [("load", "app-one")]
    assert node.kernel.profiles == {"app-one": "enforce"}
    bad = finding(passed, "file/bad")
    assert bad.status is Status.FAIL
    assert bad.source == f"{node.folder}/bad:4"
    assert bad.observed == "line 4: syntax error, unexpected TOK_CLOSE, expecting TOK_END_OF_RULE"
    assert finding(passed, "file/empty").observed.startswith("defines no profile")
    assert finding(passed, "profile/app-one").status is Status.PASS


def test_audit_and_dry_run_change_nothing(node: Node) -> None:
    """audit says what is missing; dry-run names the step; mode audit plans none; kernel and disk stay as they are."""
    node.write("good", GOOD)
    assert finding(node.audit(), "profile/app-one").observed == "not loaded"
    assert [change.action for change in base.dry_run(node.control()).changes] == ["load"]
    assert base.apply(node.control(Mode.AUDIT)).changes == ()
    assert node.kernel.profiles == {}
    assert not node.state.exists()


def test_new_content_under_the_same_name_is_reloaded(node: Node) -> None:
    """A changed file is loaded again although a profile of that name is there."""
    node.write("good", GOOD)
    node.apply()
    node.write("good", OTHER)
    assert finding(node.audit(), "profile/app-one").observed == "its content has changed"
    assert acts(node.apply()) == [("reload", "app-one")]
    assert node.apply().changes == ()


def test_changed_include_is_new_content(node: Node) -> None:
    """What a profile includes from a subfolder of the folder is part of its content."""
    (node.folder / "abstractions").mkdir()
    node.write("abstractions/ours", "  deny /a r,\n")
    node.write("good", "profile app-one {\n  file,\n  include <abstractions/ours>\n}\n")
    control = node.control()
    assert acts(base.apply(control)) == [("load", "app-one")]
    assert base.apply(control).changes == ()
    node.write("abstractions/ours", "  deny /longer r,\n")
    assert acts(base.apply(control)) == [("reload", "app-one")]


def test_a_broken_new_version_leaves_the_good_one(node: Node) -> None:
    """The last good content stays loaded, and after a reboot it is loaded again from the copy; both are said."""
    node.write("good", GOOD)
    node.apply()
    loaded = (node.kernel.apparmorfs / "policy/profiles/app-one.0/sha1").read_text()
    node.write("good", BROKEN)
    passed = node.apply()
    assert passed.changes == ()
    assert finding(passed, "file/good").status is Status.FAIL
    assert "The last valid content of app-one stays loaded." in finding(passed, "file/good").remediation
    assert finding(passed, "profile/app-one").observed == "loaded (enforce); from the last valid content of good"
    node.kernel.reboot()
    passed = node.apply()
    assert acts(passed) == [("load", "app-one")]
    assert "its file good is broken" in passed.changes[0].reason
    assert (node.kernel.apparmorfs / "policy/profiles/app-one.0/sha1").read_text() == loaded


def test_a_damaged_copy_is_not_loaded(node: Node) -> None:
    """A last good copy that is not what was loaded is no good: the profile is reported as lost."""
    node.write("good", GOOD)
    node.apply()
    node.write("good", BROKEN)
    node.kernel.reboot()
    (node.state / "apparmor/good").write_text("profile app-one { }\n")
    passed = node.apply()
    assert passed.changes == ()
    assert finding(passed, "profile/app-one").status is Status.FAIL
    assert node.kernel.profiles == {}


@pytest.mark.parametrize(
    ("drift", "observed"),
    [
        (lambda kernel: kernel.unload("app-one"), "no longer loaded"),
        (lambda kernel: kernel.load(GOOD, "-C"), "in complain mode; it was loaded in enforce mode"),
        (lambda kernel: kernel.load("profile app-one { file, }"), "replaced with other content"),
        (lambda kernel: kernel.reboot(), "not loaded"),
    ],
    ids=["unloaded", "complain", "replaced", "rebooted"],
)
def test_drift_is_found_and_mended(node: Node, drift: Callable[[StandIn], None], observed: str) -> None:
    """Whatever somebody does to a profile in the kernel is said, and mended by the next apply."""
    node.write("good", GOOD)
    node.apply()
    drift(node.kernel)
    found = finding(node.audit(), "profile/app-one")
    assert (found.status, found.observed) == (Status.FAIL, observed)
    assert len(acts(node.apply())) == 1
    assert finding(node.audit(), "profile/app-one").observed == "loaded (enforce)"


def test_complain_mode_of_the_source_is_no_pass(node: Node) -> None:
    """A profile that only complains is loaded as asked, and it is said what that leaves of it."""
    node.write("soft", "profile soft flags=(complain) {\n  file,\n}\n")
    passed = node.apply()
    found = finding(passed, "profile/soft")
    told = "loaded (complain), as in its source: what it has no rule for is allowed and logged"
    assert (found.status, found.observed) == (Status.INFO, told)
    assert node.apply().changes == ()


def test_a_profile_of_somebody_else_is_left_alone(node: Node) -> None:
    """A name that is in the kernel but was not loaded by us is neither replaced nor removed, and nothing is written."""
    node.kernel.load("profile cri-containerd.apparmor.d { file, }")
    node.write("mine", "profile cri-containerd.apparmor.d { }\nprofile app-two { }\n")
    passed = node.apply()
    assert passed.changes == ()
    assert finding(passed, "profile/cri-containerd.apparmor.d").status is Status.FAIL
    assert finding(passed, "profile/app-two").status is Status.FAIL
    (node.folder / "mine").unlink()
    assert node.apply().changes == ()
    assert node.kernel.profiles == {"cri-containerd.apparmor.d": "enforce"}


def test_two_files_with_one_name(node: Node) -> None:
    """The file that the profile was loaded from keeps it; the other one is refused and both are named."""
    node.write("b", GOOD)
    node.apply()
    node.write("a", OTHER)
    passed = node.apply()
    assert passed.changes == ()
    refused = finding(passed, "file/a")
    assert refused.status is Status.FAIL
    assert refused.observed == f"defines profile 'app-one', as does {node.folder}/b; rename one"
    assert finding(passed, "profile/app-one").source == f"{node.folder}/b"


def test_what_leaves_the_folder_leaves_the_kernel(node: Node) -> None:
    """Removed files are unloaded, children too, with their copies; what others loaded stays."""
    node.kernel.load("profile theirs { file, }")
    node.write("kept", "profile kept { }\n")
    node.write("gone", "profile gone {\n  profile kid { }\n}\nprofile also { }\n")
    node.apply()
    (node.folder / "gone").unlink()
    assert acts(node.apply()) == [("unload", "also"), ("unload", "gone")]
    assert set(node.kernel.profiles) == {"theirs", "kept"}
    assert [path.name for path in (node.state / "apparmor").iterdir()] == ["kept"]
    assert [one["key"] for one in json.loads((node.state / "apparmor.json").read_text())["installed"]] == ["kept"]
    assert node.apply().changes == ()


def test_a_child_alone_can_leave(node: Node) -> None:
    """The kernel keeps children over a replacement, so one that left its file is unloaded by itself."""
    node.write("one", "profile one {\n  profile kid { }\n}\n")
    node.apply()
    node.write("one", "profile one { }\n")
    assert acts(node.apply()) == [("reload", "one"), ("unload", "one//kid")]
    assert set(node.kernel.profiles) == {"one"}


def test_a_profile_in_use_stays_until_its_last_process_ends(node: Node) -> None:
    """Removing it would leave running processes unconfined, so it stays and its users are named."""
    node.write("good", GOOD)
    node.apply()
    process = node.kernel.run_under("app-one//child (enforce)")
    (node.folder / "good").unlink()
    passed = node.apply()
    assert passed.changes == ()
    found = finding(passed, "profile/app-one")
    assert (found.status, "PID 4242" in found.observed) == (Status.INFO, True)
    shutil.rmtree(process)
    assert acts(node.apply()) == [("unload", "app-one")]


def test_removal_waits_when_processes_cannot_be_seen(node: Node) -> None:
    """No procfs below the host root: who runs under the profile is unknown, so it stays and that is said."""
    node.write("good", GOOD)
    node.apply()
    (node.folder / "good").unlink()
    shutil.rmtree(node.root / "proc/1")
    passed = node.apply()
    assert passed.changes == ()
    assert finding(passed, "profile/app-one").status is Status.UNKNOWN
    assert node.kernel.profiles == {"app-one": "enforce"}


def test_what_somebody_put_in_our_place_is_not_removed(node: Node) -> None:
    """A profile of ours that others replaced is theirs now: it leaves the manifest and stays in the kernel."""
    node.write("good", GOOD)
    node.apply()
    node.kernel.load("profile app-one { file, }")
    (node.folder / "good").unlink()
    assert acts(node.apply()) == [("forget", "app-one")]
    assert node.kernel.profiles == {"app-one": "enforce"}


def test_a_load_that_was_cut_short_is_done_again(node: Node) -> None:
    """Killed between manifest and kernel, or between kernel and manifest: the next apply loads and verifies."""
    node.write("good", GOOD)
    node.apply()
    manifest = node.state / "apparmor.json"
    document = json.loads(manifest.read_text())
    for name in ("mode", "kernel"):
        del document["installed"][0]["notes"][name]
    manifest.write_text(json.dumps(document))
    (node.state / "apparmor/stray").write_text("left behind")
    assert acts(node.apply()) == [("reload", "app-one"), ("remove", "/var/lib/node-hardening/apparmor/stray")]
    assert node.apply().changes == ()


def test_a_manifest_that_is_not_one(node: Node) -> None:
    """An unreadable manifest is unknown and blocks removal; our copies tell what is ours, so loading goes on."""
    node.write("good", GOOD)
    node.write("gone", "profile gone { }\n")
    node.apply()
    (node.folder / "gone").unlink()
    (node.state / "apparmor.json").write_text("{")
    audited = node.audit()
    assert finding(audited, "manifest").status is Status.UNKNOWN
    assert acts(node.apply()) == [("reload", "app-one")]
    assert set(node.kernel.profiles) == {"app-one", "gone"}
    assert (node.state / "apparmor.json.unreadable").read_text() == "{"


def test_an_empty_folder_asks_for_nothing(node: Node) -> None:
    """An empty folder is not a missing one: nothing is loaded, what was loaded leaves, and that is said."""
    node.write("good", GOOD)
    node.apply()
    (node.folder / "good").unlink()
    node.apply()
    assert node.kernel.profiles == {}
    assert finding(node.audit(), "source").status is Status.INFO


def test_a_folder_that_cannot_be_read_changes_nothing(node: Node) -> None:
    """A file in the folder's place is no empty folder: unknown, and what is loaded stays."""
    node.write("good", GOOD)
    node.apply()
    (node.folder / "good").unlink()
    node.folder.rmdir()
    node.folder.write_text("not a folder")
    passed = node.apply()
    assert passed.changes == ()
    assert finding(passed, "source").status is Status.UNKNOWN
    assert node.kernel.profiles == {"app-one": "enforce"}


def test_a_parser_that_is_not_there(node: Node) -> None:
    """Without apparmor_parser nothing can be said of the files: unknown with a next step, and nothing is touched."""
    node.write("good", GOOD)
    node.apply()
    config = Apparmor(profiles=str(node.folder))
    control = ApparmorControl(config, Host(node.root), tool=Tool("/nonexistent/apparmor_parser", HostExec.DIRECT))
    passed = base.apply(control)
    assert passed.changes == ()
    assert finding(passed, "parser").status is Status.UNKNOWN
    assert "package apparmor" in finding(passed, "parser").remediation
    assert finding(passed, "file/good").status is Status.UNKNOWN
    assert node.kernel.profiles == {"app-one": "enforce"}


def test_a_kernel_that_refuses(node: Node) -> None:
    """A load that fails is a failed change with its reason and claims nothing: what others load later is theirs."""
    node.write("good", GOOD)
    (node.kernel.apparmorfs / ".replace").unlink()
    passed = node.apply()
    assert [change.outcome for change in passed.changes] == [Outcome.FAILED]
    assert ".replace" in passed.changes[0].error
    assert finding(passed, "profile/app-one").observed == "not loaded"
    assert list((node.state / "apparmor").iterdir()) == []
    (node.kernel.apparmorfs / ".replace").touch()
    node.kernel.load("profile app-one { file, }")
    assert node.apply().changes == ()
    assert "did not load it" in finding(node.audit(), "profile/app-one").observed


def test_a_symlink_out_of_the_tree_leads_nowhere(node: Node, tmp_path: Path) -> None:
    """The tree's securityfs may be an absolute symlink: it stays inside the tree, never this machine's kernel."""
    outside = tmp_path / "outside"
    shutil.move(node.kernel.apparmorfs, outside)
    node.kernel.apparmorfs.symlink_to(outside)
    node.write("good", GOOD)
    passed = node.apply()
    assert finding(passed, "kernel").status is Status.UNKNOWN
    assert (outside / ".replace").read_bytes() == b""


def test_a_full_disk(node: Node) -> None:
    """No room for the copy: nothing is loaded that could not be kept, and the change says why."""
    if os.geteuid() != 0:
        pytest.skip("mounting a small tmpfs needs root")
    node.state.mkdir(parents=True)
    host = Host("/")
    mounted = host.run(["/usr/bin/mount", "-t", "tmpfs", "-o", "size=4k", "tmpfs", str(node.state)], timeout_seconds=10)
    if mounted.code != 0:
        pytest.skip(f"cannot mount a tmpfs here: {mounted.stderr}")
    try:
        (node.state / "filler").write_bytes(b"x" * 4096)
        node.write("good", GOOD)
        passed = node.apply()
    finally:
        host.run(["/usr/bin/umount", str(node.state)], timeout_seconds=10)
    assert [change.outcome for change in passed.changes] == [Outcome.FAILED]
    assert "No space left" in passed.changes[0].error
    assert node.kernel.profiles == {}
