"""A node in trouble: read-only and full disks, tools that are not there, files that cannot be read, no kubelet.

Each ends in findings or in exit 3 with one clear line, never in a traceback, and takes the rest down with it nowhere.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from agent.sandbox.kernel_modules import tool
from agent.sandbox.noderoot import NodeRoot
from tests.support.cli import agent, can_unshare, document, policy, shell, without_tools

FILE = "etc/modprobe.d/kubernetes-blacklist.conf"
BROKEN_APPARMOR = "profile broken flags=(attach_disconnected) {\n  file,\n  deny nonsense\n}\n"
needs_mounts = pytest.mark.skipif(not can_unshare(), reason="needs root and mounts of its own")


@pytest.fixture
def node(tmp_path: Path) -> NodeRoot:
    """A sandboxed node."""
    return NodeRoot.make(tmp_path / "node")


@pytest.fixture
def quiet(tmp_path: Path) -> Path:
    """The default policy, but that no port of the sandboxed kubelet is asked."""
    return policy(tmp_path)


@pytest.fixture
def mounted(node: NodeRoot) -> Iterator[Path]:
    """The node's /etc/modprobe.d as a file system of its own, full after two more pages."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount")
    folder = node.at("/etc/modprobe.d")
    argv = ["mount", "-t", "tmpfs", "-o", "size=8k", "tmpfs", str(folder)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=300)
    if done.returncode != 0:
        pytest.skip(f"cannot mount a tmpfs here: {done.stderr.strip()}")
    yield folder
    subprocess.run(["umount", str(folder)], check=True, timeout=300)


def by_id(done: subprocess.CompletedProcess[str]) -> dict[str, dict[str, str]]:
    """The findings of `-o json`."""
    return {one["id"]: one for one in document(done)["findings"]}


def apply(node: NodeRoot, config: Path, *more: str) -> subprocess.CompletedProcess[str]:
    """`apply -o json` on the node."""
    return agent("apply", "--config", config, "--host-root", node.path, "-o", "json", *more)


def test_a_read_only_etc(node: NodeRoot, quiet: Path, mounted: Path) -> None:
    """Exit 3; the failed change in the document and as a finding; the profiles are installed all the same."""
    subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True, timeout=300)
    done = apply(node, quiet)
    assert (done.returncode, done.stderr) == (3, "")
    found = by_id(done)
    failed = found["modprobe/write//etc/modprobe.d/kubernetes-blacklist.conf"]
    assert (failed["status"], "Read-only file system" in failed["observed"]) == ("fail", True)
    assert found["seccomp/profile/prevent-chmod.json"]["status"] == "pass"


def test_a_full_disk(node: NodeRoot, quiet: Path, mounted: Path) -> None:
    """The old file stays whole, no half of the new one is left, and the reason is said."""
    old = "install sctp /bin/false\n"
    node.write(f"/{FILE}", old)
    (mounted / "filler").write_bytes(b"x" * 4096)
    done = apply(node, quiet)
    assert (done.returncode, done.stderr) == (3, "")
    assert "No space left on device" in next(c["error"] for c in document(done)["changes"] if c["outcome"] == "failed")
    assert node.at(f"/{FILE}").read_text() == old
    assert sorted(path.name for path in mounted.iterdir()) == ["filler", "kubernetes-blacklist.conf"]
    (mounted / "filler").unlink()
    apply(node, quiet)
    assert "dccp" in node.at(f"/{FILE}").read_text()


@needs_mounts
def test_without_modprobe(node: NodeRoot, quiet: Path) -> None:
    """The file is written; nothing is claimed of what nobody can prove."""
    argv = ("apply", "--config", quiet, "--host-root", node.path, "-o", "json")
    done = shell(without_tools("modprobe", "depmod", "rmmod", "kmod"), *argv)
    assert (done.returncode, done.stderr) == (1, "")
    found = by_id(done)["modprobe/sctp"]
    assert (found["status"], "neither on the node nor beside the agent" in found["observed"]) == ("unknown", True)
    assert "Install kmod" in found["remediation"]
    assert "install sctp /bin/false" in node.at(f"/{FILE}").read_text()
    if tool("modprobe"):
        assert by_id(apply(node, quiet))["modprobe/sctp"]["status"] == "pass"


@needs_mounts
def test_without_apparmor_parser(node: NodeRoot, quiet: Path) -> None:
    """On a node with AppArmor profiles are unknown and the next step is named; modules and seccomp are done."""
    node.write("/sys/module/apparmor/parameters/enabled", "Y\n")
    node.write("/sys/kernel/security/apparmor/profiles", "docker-default (enforce)\n")
    argv = ("apply", "--config", quiet, "--host-root", node.path, "-o", "json")
    done = shell(without_tools("apparmor_parser"), *argv)
    assert done.returncode in (1, 3)
    assert done.stderr == ""
    found = by_id(done)
    theirs = [one for one in found.values() if one["control"] == "apparmor" and "apparmor_parser" in one["observed"]]
    assert theirs
    assert {one["status"] for one in theirs} <= {"fail", "unknown"}
    assert any("apparmor" in one["remediation"] for one in theirs)
    assert found["seccomp/profile/prevent-chmod.json"]["status"] == "pass"


@needs_mounts
@pytest.mark.skipif(not Path("/usr/sbin/apparmor_parser").exists(), reason="needs apparmor_parser")
def test_validate_without_apparmor_parser(tmp_path: Path) -> None:
    """Not checked is not passed: exit 3, and the others are linted."""
    (tmp_path / "web").write_text("profile web {\n  file,\n}\n")
    (tmp_path / "ok.json").write_text(
        '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["reboot"],"action":"SCMP_ACT_ERRNO"}]}'
    )
    done = shell(without_tools("apparmor_parser"), "validate", tmp_path, "-o", "json")
    assert (done.returncode, done.stderr) == (3, "")
    assert document(done)["status"] == "unknown"
    assert "apparmor_parser" in document(done)["unchecked"][0]
    assert len(document(done)["checked"]) == 2


@pytest.mark.parametrize("form", ["folder", "bytes", "broken", "gone", "huge"])
def test_an_unreadable_kubelet_configuration(node: NodeRoot, quiet: Path, form: str) -> None:
    """What it says cannot be told: unknown, with the file's name; modules and profiles are done."""
    config = node.at("/var/lib/kubelet/config.yaml")
    match form:
        case "folder":
            config.unlink()
            config.mkdir()
        case "bytes":
            config.write_bytes(b"\xff\xfe\0\0")
        case "broken":
            config.write_text("apiVersion: kubelet.config.k8s.io/v1beta1\nkind: [\n")
        case "gone":
            config.unlink()
        case _:
            config.write_bytes(b"# much\n" * (2 << 20))
    done = apply(node, quiet)
    assert (done.returncode, done.stderr) == (1, "")
    found = by_id(done)
    assert found["kubelet/4.2.1"]["status"] == "unknown"
    assert found["kubelet/config"]["status"] in ("unknown", "fail")
    assert "/var/lib/kubelet/config.yaml" in found["kubelet/config"]["observed"]
    assert found["seccomp/profile/prevent-chmod.json"]["status"] == "pass"


def test_a_node_without_a_kubelet(node: NodeRoot, quiet: Path) -> None:
    """Unknown, with what was looked for."""
    node.stop_kubelet()
    node.write("/proc/1/comm", "init\n")
    found = by_id(apply(node, quiet))
    assert found["kubelet/process"]["status"] == "unknown"
    assert "MicroK8s" in found["kubelet/process"]["observed"]


def test_a_procfs_without_processes(node: NodeRoot, quiet: Path) -> None:
    """Not mounted below the host root: said in so many words, and the seccomp profiles go to the default folder."""
    node.stop_kubelet()
    shutil.rmtree(node.at("/proc/1"))
    done = apply(node, quiet)
    assert (done.returncode, done.stderr) == (1, "")
    found = by_id(done)
    assert found["kubelet/observe"]["status"] == "unknown"
    assert "procfs is not mounted" in found["kubelet/observe"]["observed"]
    assert found["seccomp/profile/prevent-chmod.json"]["status"] == "pass"
    assert "procfs is not mounted" in found["seccomp/directory"]["source"]


def test_a_broken_profile_takes_nothing_down(node: NodeRoot, tmp_path: Path) -> None:
    """Broken files beside good ones: their findings name file and line, the last good ones stay."""
    seccomp, apparmor = tmp_path / "seccomp", tmp_path / "apparmor"
    for folder in (seccomp, apparmor):
        folder.mkdir()
    good = '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["reboot"],"action":"SCMP_ACT_ERRNO"}]}'
    for name in ("good", "turns-bad"):
        (seccomp / f"{name}.json").write_text(good)
    config = policy(
        tmp_path, f"kubelet: {{probe: false}}\nseccomp: {{profiles: {seccomp}}}\napparmor: {{profiles: {apparmor}}}\n"
    )
    apply(node, config)
    before = node.at("/var/lib/kubelet/seccomp/turns-bad.json").read_bytes()
    (seccomp / "turns-bad.json").write_text(
        '{"defaultAction": "SCMP_ACT_ALLOW",\n "syscalls": [{"names": ["chmodd"]}]}'
    )
    (seccomp / "never-good.json").write_text("{}")
    (apparmor / "broken").write_text(BROKEN_APPARMOR)
    done = apply(node, config)
    assert (done.returncode, done.stderr) == (1, "")
    found = by_id(done)
    assert found["seccomp/profile/good.json"]["status"] == "pass"
    assert found["seccomp/profile/turns-bad.json"]["status"] == "fail"
    assert "chmodd" in found["seccomp/profile/turns-bad.json"]["observed"]
    assert "turns-bad.json:2" in str(found["seccomp/profile/turns-bad.json"])
    assert node.at("/var/lib/kubelet/seccomp/turns-bad.json").read_bytes() == before
    assert not node.at("/var/lib/kubelet/seccomp/never-good.json").exists()
    if Path("/usr/sbin/apparmor_parser").exists():
        broken = found["apparmor/file/broken"]
        assert broken["status"] == "fail"
        assert "line 4" in broken["observed"]


@pytest.mark.parametrize("place", ["etc", "var/lib/node-hardening", "etc/modprobe.d", "var/lib/kubelet"])
def test_a_file_in_a_folders_place(node: NodeRoot, quiet: Path, place: str) -> None:
    """Nothing can be written there, and that is said."""
    shutil.rmtree(node.at(f"/{place}"))
    node.write(f"/{place}", "not a folder\n")
    done = apply(node, quiet)
    assert (done.returncode, done.stderr) == (3, "")
    errors = [one["error"] for one in document(done)["changes"] if one["outcome"] == "failed"]
    assert errors
    assert node.at(f"/{place}").read_text() == "not a folder\n"


def test_symlinks_that_lead_out_are_not_written_through(node: NodeRoot, quiet: Path, tmp_path: Path) -> None:
    """The folder's and the file's own: the canary outside is untouched."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "canary").write_text("not the node's\n")
    node.at("/etc/modprobe.d").rmdir()
    node.at("/etc/modprobe.d").symlink_to(outside)
    node.at("/var/lib/kubelet/seccomp").mkdir()
    node.at("/var/lib/kubelet/seccomp/audit.json").symlink_to(outside / "canary")
    apply(node, quiet)
    assert [path.name for path in outside.iterdir()] == ["canary"]
    assert (outside / "canary").read_text() == "not the node's\n"


@needs_mounts
def test_the_demo_on_a_machine_without_kmod_and_apparmor(tmp_path: Path) -> None:
    """The story holds on a fresh machine too, and what could not be told there is said."""
    script = without_tools("modprobe", "depmod", "rmmod", "kmod", "apparmor_parser")
    done = shell(script, "demo", "--nodes", "2", env={"TMPDIR": str(tmp_path)}, patience_seconds=250)
    assert (done.returncode, done.stderr) == (0, ""), done.stdout
    assert re.search(r"unknown: \d+ checks", done.stdout)
    assert "Install kmod" in done.stdout
    assert "NOT SO" not in done.stdout
