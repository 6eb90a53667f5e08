"""The seccomp control on a node's tree: installed once, mended when changed, removed when it left; others' stay."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from agent.config import choices, schema
from agent.controls import base
from agent.controls.seccomp import SeccompControl
from agent.controls.seccomp.resolver import Platform
from agent.host import Host
from agent.model import Finding, Outcome, Severity, Status

DIRECTORY = "/var/lib/kubelet/seccomp"
CHMOD = '{"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{"names": ["chmod"], "action": "SCMP_ACT_ERRNO"}]}'
CHOWN = CHMOD.replace("chmod", "chown")
BROKEN = CHMOD.replace('"chmod"', '\n"chmodd"')


@dataclass
class Node:
    """A node's tree and a folder of profiles."""

    root: Path
    profiles: Path

    def control(self, mode: choices.Mode = choices.Mode.ENFORCE, directory: str = DIRECTORY) -> SeccompControl:
        config = schema.Seccomp(mode=mode, profiles=str(self.profiles), directory=directory)
        return SeccompControl(config, Host(self.root))

    def apply(self) -> base.Pass:
        return base.apply(self.control())

    def finding(self, id_: str) -> Finding:
        return {finding.id: finding for finding in base.audit(self.control()).findings}[f"seccomp/{id_}"]

    def installed(self, name: str) -> Path:
        return self.root / DIRECTORY.lstrip("/") / name

    def write(self, name: str, text: str) -> None:
        path = self.profiles / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


@pytest.fixture
def node(tmp_path: Path) -> Node:
    """An empty node with one profile to install."""
    found = Node(tmp_path / "node", tmp_path / "profiles")
    found.root.mkdir()
    found.write("p.json", CHMOD)
    return found


def acts(done: base.Pass) -> list[tuple[str, str, Outcome]]:
    """What a pass did: verb, file name, outcome."""
    return [(change.action, Path(change.target).name, change.outcome) for change in done.changes]


def test_a_profile_is_installed_for_all_to_read(node: Node) -> None:
    """Under its own path, 0644, and the finding passes after the same pass."""
    node.write("team/prevent", CHOWN)
    done = node.apply()
    assert acts(done) == [("write", "p.json", Outcome.DONE), ("write", "prevent", Outcome.DONE)]
    for name in ("p.json", "team/prevent"):
        assert node.installed(name).stat().st_mode & 0o7777 == 0o644
        assert json.loads(node.installed(name).read_text())["architectures"]
        found = node.finding(f"profile/{name}")
        assert found.status is Status.PASS
        assert found.source == f"{DIRECTORY}/{name}"
        assert f"localhostProfile: {name}" in found.expected


def test_the_second_apply_changes_nothing(node: Node) -> None:
    """Same inode, same time, no step."""
    node.apply()
    before = node.installed("p.json").stat()
    done = node.apply()
    after = node.installed("p.json").stat()
    assert done.changes == ()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_audit_and_dry_run_write_nothing(node: Node) -> None:
    """Both say what is missing; only apply makes folders and files, and never in mode audit."""
    assert node.finding("profile/p.json").observed == "not installed"
    assert acts(base.dry_run(node.control())) == [("write", "p.json", Outcome.PLANNED)]
    audited = base.apply(node.control(choices.Mode.AUDIT))
    assert audited.changes == ()
    assert [one.remediation for one in audited.findings if one.id == "seccomp/profile/p.json"] == [
        "Set seccomp.mode to enforce, and the agent corrects it."
    ]
    assert list(node.root.iterdir()) == []


def test_drift_is_found_and_corrected(node: Node) -> None:
    """Content, mode, a symlink in its place, or nothing at all: each is named and put right."""
    node.apply()
    path = node.installed("p.json")
    good = path.read_bytes()

    def edited() -> None:
        path.write_text("{}")

    def by_mode() -> None:
        path.chmod(0o666)

    def by_symlink() -> None:
        path.rename(path.with_name("moved"))
        path.symlink_to("moved")

    for change, said in (
        (edited, "changed by another program or user"),
        (by_mode, "mode 0666"),
        (by_symlink, "a symlink stands in its place"),
        (path.unlink, "not installed"),
    ):
        change()
        found = node.finding("profile/p.json")
        assert (found.status, found.observed) == (Status.FAIL, said)
        assert [act[::2] for act in acts(node.apply())] == [("write", Outcome.DONE)]
        assert (path.read_bytes(), path.stat().st_mode & 0o7777, path.is_symlink()) == (good, 0o644, False)
        assert node.finding("profile/p.json").status is Status.PASS


def test_a_broken_version_never_replaces_the_good_one(node: Node) -> None:
    """The last good one stays, the finding says file, line, reason and that it stays, and others go on."""
    node.apply()
    good = node.installed("p.json").read_bytes()
    node.write("p.json", BROKEN)
    node.write("q.json", CHOWN)
    done = node.apply()
    assert acts(done) == [("write", "q.json", Outcome.DONE)]
    assert node.installed("p.json").read_bytes() == good
    found = node.finding("profile/p.json")
    assert found.status is Status.FAIL
    assert found.source == f"{node.profiles}/p.json:2"
    assert (
        f'{node.profiles}/p.json:2: syscalls[0].names[0]: "chmodd" is no syscall; did you mean chmod?' in found.observed
    )
    assert f"the last valid one stays at {DIRECTORY}/p.json" in found.observed
    node.write("p.json", CHMOD)
    assert node.apply().changes == ()


def test_a_broken_profile_that_never_was_good(node: Node) -> None:
    """Nothing is installed, and the finding says what that means for pods."""
    node.write("p.json", "{}")
    assert node.apply().changes == ()
    assert not node.installed("p.json").exists()
    assert "pods that name it do not start" in node.finding("profile/p.json").observed


def test_what_leaves_the_configuration_leaves_the_node(node: Node) -> None:
    """The agent's file goes; one that others put beside it stays, and so does theirs of the same content."""
    node.write("q.json", CHOWN)
    node.apply()
    others = node.installed("others.json")
    others.write_bytes(node.installed("q.json").read_bytes())
    (node.profiles / "q.json").unlink()
    left = node.finding(f"left/{DIRECTORY}/q.json")
    assert (left.status, left.observed) == (Status.FAIL, "still installed")
    assert acts(node.apply()) == [("remove", "q.json", Outcome.DONE)]
    assert sorted(path.name for path in others.parent.iterdir()) == ["others.json", "p.json"]
    assert node.apply().changes == ()


def test_what_left_the_configuration_and_cannot_be_read_is_unknown(node: Node) -> None:
    """Neither gone nor the agent's: nothing is removed."""
    node.write("q.json", CHOWN)
    node.apply()
    (node.profiles / "q.json").unlink()
    node.installed("q.json").unlink()
    node.installed("q.json").mkdir()
    left = node.finding(f"left/{DIRECTORY}/q.json")
    assert (left.status, "not a regular file" in left.observed) == (Status.UNKNOWN, True)
    assert node.apply().changes == ()


def test_what_was_changed_since_is_not_removed(node: Node) -> None:
    """A file that somebody made their own is left when its name leaves the configuration."""
    node.apply()
    node.installed("p.json").write_text("theirs")
    (node.profiles / "p.json").unlink()
    node.apply()
    assert node.installed("p.json").read_text() == "theirs"
    assert node.apply().changes == ()


def test_a_foreign_file_of_the_same_name_is_kept_and_put_back(node: Node) -> None:
    """What stood there before comes back when the profile leaves."""
    node.installed("p.json").parent.mkdir(parents=True)
    node.installed("p.json").write_text("before")
    assert "another owner" in node.finding("profile/p.json").observed
    node.apply()
    assert node.finding("profile/p.json").status is Status.PASS
    (node.profiles / "p.json").unlink()
    node.apply()
    assert node.installed("p.json").read_text() == "before"


def test_the_same_bytes_from_somebody_else_are_taken_over(node: Node) -> None:
    """Once the manifest knows them they leave with the policy, and no further step is planned."""
    node.apply()
    (node.root / "var/lib/node-hardening/seccomp.json").unlink()
    inode = node.installed("p.json").stat().st_ino
    assert acts(node.apply()) == [("write", "p.json", Outcome.DONE)]
    assert node.installed("p.json").stat().st_ino == inode
    assert node.apply().changes == ()


def test_a_broken_manifest_holds_back_only_removal(node: Node) -> None:
    """It is unknown what was installed: nothing is removed, what is missing is still written."""
    node.write("q.json", CHOWN)
    node.apply()
    manifest = node.root / "var/lib/node-hardening/seccomp.json"
    manifest.write_text("not a manifest")
    (node.profiles / "q.json").unlink()
    found = node.finding("manifest")
    assert found.status is Status.UNKNOWN
    assert base.dry_run(node.control()).changes == ()
    assert node.installed("q.json").exists()
    node.installed("p.json").unlink()
    assert acts(node.apply()) == [("write", "p.json", Outcome.DONE)]


def test_a_folder_that_cannot_be_read_removes_nothing(node: Node) -> None:
    """A mount that is broken is no empty policy."""
    node.apply()
    (node.profiles / "p.json").unlink()
    node.profiles.rmdir()
    node.profiles.write_text("a file in its place")
    assert node.apply().changes == ()
    assert node.installed("p.json").exists()
    assert node.finding("profiles").status is Status.UNKNOWN


def test_without_a_folder_the_shipped_profiles_are_installed(node: Node) -> None:
    """The default path is usually absent: then what comes with the agent is the policy."""
    (node.profiles / "p.json").unlink()
    node.profiles.rmdir()
    assert [name for _, name, _ in acts(node.apply())] == ["audit.json", "hardened.json", "prevent-chmod.json"]
    assert {finding.status for finding in base.audit(node.control()).findings} <= {Status.PASS, Status.INFO}


def test_an_empty_folder_is_said(node: Node) -> None:
    """An empty policy is possible and visible; a file that looks like a mistake is named."""
    (node.profiles / "p.json").rename(node.profiles / "p.jsn")
    found = node.finding("profiles")
    assert (found.status, found.observed) == (Status.INFO, "no profiles; not profiles: p.jsn")


def test_a_folder_in_place_of_the_file_is_unknown(node: Node) -> None:
    """What cannot be read is neither pass nor replaced."""
    node.installed("p.json").mkdir(parents=True)
    assert node.apply().changes == ()
    found = node.finding("profile/p.json")
    assert (found.status, "not a regular file" in found.observed) == (Status.UNKNOWN, True)


def test_a_directory_that_cannot_be_made_is_a_finding(node: Node) -> None:
    """A file where the kubelet's folder should be: the step fails with the reason, nothing is raised."""
    (node.root / "var/lib").mkdir(parents=True)
    (node.root / "var/lib/kubelet").write_text("")
    done = node.apply()
    assert acts(done) == [("write", "p.json", Outcome.FAILED)]
    failed = next(finding for finding in done.findings if finding.id == f"seccomp/write/{DIRECTORY}/p.json")
    assert failed.status is Status.FAIL
    assert "/var/lib/kubelet" in failed.observed


def test_a_symlink_never_leads_out_of_the_node(node: Node, tmp_path: Path) -> None:
    """The kubelet's folder may be a symlink; absolute ones stay inside the host root."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (node.root / "var/lib").mkdir(parents=True)
    (node.root / "var/lib/kubelet").symlink_to(outside)
    node.apply()
    assert list(outside.iterdir()) == []


def test_another_owner_is_a_failure_that_says_what_to_do(node: Node) -> None:
    """Who owns the file can change it: named, not silently rewritten."""
    if os.geteuid() != 0:
        pytest.skip("only root can give a file away")
    node.apply()
    os.chown(node.installed("p.json"), 1234, 1234)
    found = node.finding("profile/p.json")
    assert found.status is Status.FAIL
    assert "owned by uid 1234" in found.observed
    assert found.remediation == f"chown root:root {DIRECTORY}/p.json"


def test_gaps_are_a_finding_of_their_own(node: Node) -> None:
    """The profile is installed as it is written, so it passes; the way around it is said beside it, high."""
    node.apply()
    assert node.finding("profile/p.json").status is Status.PASS
    gaps = node.finding("gaps/p.json")
    assert (gaps.status, gaps.severity) == (Status.INFO, Severity.HIGH)
    assert gaps.observed == "changing a file's mode: denies chmod and not fchmod, fchmodat, fchmodat2"
    assert gaps.remediation.endswith("p.json: fchmod, fchmodat, fchmodat2.")


@pytest.mark.parametrize(
    ("library", "severity", "said"),
    [
        (None, Severity.LOW, "unknown whether the runtime's libseccomp knows fchmodat2"),
        (((2, 5, 4), "/usr/bin/runc"), Severity.MEDIUM, "runc has libseccomp 2.5.4, which does not know"),
        (((2, 5, 5), "/usr/bin/runc"), None, ""),
    ],
)
def test_a_runtime_that_may_skip_a_rule_is_said(
    node: Node, library: tuple[tuple[int, int, int], str] | None, severity: Severity | None, said: str
) -> None:
    """A denied syscall that an old libseccomp does not know stays open under it: information, with what to update."""
    node.write("p.json", CHMOD.replace('"chmod"', '"chmod", "fchmodat2"'))
    control = node.control()
    seen = replace(control.observe(), platform=Platform("x86_64", (6, 6)), library=library)
    found = {finding.id: finding for finding in control.judge(seen)}.get("seccomp/runtime/p.json")
    assert (found.severity if found else None) is severity
    assert found is None or said in found.observed
    assert found is None or found.status is Status.INFO


def test_ids_are_unique(node: Node) -> None:
    """Even for profiles that are called like other findings."""
    for name in ("directory", "manifest.json", "profile/p.json", "gaps/p.json"):
        node.write(name, CHMOD)
    ids = [finding.id for finding in node.apply().findings]
    assert len(ids) == len(set(ids))
