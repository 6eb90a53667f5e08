"""`apply` as a process on a Debian tree: what the real modprobe says afterwards, and what a second one does."""

from __future__ import annotations

import os
import shutil
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from agent.sandbox import kernel_modules
from agent.sandbox.kernel_modules import RELEASE, tool
from agent.sandbox.noderoot import NodeRoot
from tests.support.cli import agent, document, policy

FILE = "etc/modprobe.d/kubernetes-blacklist.conf"
DENIED = ("dccp", "dccp_ipv4", "dccp_ipv6", "dccp_diag", "sctp", "sctp_diag")
ALIASES = {
    "net-pf-2-proto-132": "sctp",
    "net-pf-10-proto-132": "sctp",
    "net-pf-2-proto-33-type-6": "dccp_ipv4",
    "net-pf-16-proto-4-type-2-132": "sctp_diag",
}
OTHERS = {"etc/modprobe.d/local.conf": "blacklist pcspkr\n", "var/lib/kubelet/seccomp/mine.json": "{}\n"}
needs_kmod = pytest.mark.skipif(not tool("modprobe") or not tool("depmod"), reason="needs kmod (modprobe, depmod)")


def debian(folder: Path) -> Path:
    """A Debian tree: a copy of debootstrap's when NODE_HARDENING_TREE names one, else one made of real files."""
    root = folder / "debian"
    given = os.environ.get("NODE_HARDENING_TREE")
    for part in ("etc", "usr/lib/modprobe.d"):
        source = Path(given or "/") / part
        if given and source.is_dir():
            shutil.copytree(source, root / part, symlinks=True)
        (root / part).mkdir(parents=True, exist_ok=True)
    (root / "usr/lib").mkdir(exist_ok=True)
    (root / "lib").symlink_to("usr/lib")
    (root / "etc/os-release").unlink(missing_ok=True)
    (root / "etc/os-release").write_text('PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\n')
    (root / "etc/modprobe.d").mkdir(exist_ok=True)
    kernel_modules.build(root)
    for path, text in OTHERS.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text)
    return root


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """The Debian tree."""
    return debian(tmp_path)


@pytest.fixture
def modules(tmp_path: Path) -> Path:
    """A policy about modules and seccomp alone, so that a tree without a kubelet can comply."""
    return policy(tmp_path, "kubelet: {mode: off}\napparmor: {mode: off}\n")


def dry(root: Path, name: str) -> list[str]:
    """What `modprobe -d TREE -C TREE/etc/modprobe.d -n -v NAME` prints."""
    modprobe = tool("modprobe")
    assert modprobe is not None
    argv = [modprobe, "-d", str(root), "-S", RELEASE, "-C", str(root / "etc/modprobe.d"), "-n", "-v", name]
    return subprocess.run(argv, capture_output=True, text=True, check=True, timeout=300).stdout.splitlines()


def loads(printed: list[str], module: str) -> bool:
    """Whether that module's own object would be loaded."""
    return any(line.startswith("insmod") and f"/{module}.ko" in line for line in printed)


def files(root: Path) -> dict[str, tuple[int, int, bytes]]:
    """Inode, mtime and content of every file but the lock, which is opened and not written."""
    return {
        str(path.relative_to(root)): (path.stat().st_ino, path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_symlink() and path.name != "lock"
    }


@needs_kmod
def test_apply_refuses_by_name_and_by_alias(tree: Path, modules: Path) -> None:
    """dccp, dccp_ipv4 and sctp load before and are refused after, says the real modprobe; other modules still load."""
    for name in DENIED:
        assert loads(dry(tree, name), name)
    for alias, name in ALIASES.items():
        assert loads(dry(tree, alias), name)
    done = agent("apply", "--config", modules, "--host-root", tree, "-o", "json")
    assert (done.returncode, done.stderr) == (0, "")
    for name in DENIED:
        printed = dry(tree, name)
        assert "install /bin/false" in [line.strip() for line in printed], name
        assert not any(loads(printed, one) for one in DENIED), name
    for alias in ALIASES:
        assert dry(tree, alias) == [], alias
    assert loads(dry(tree, "bridge"), "bridge")
    said = {one["id"]: one for one in document(done)["findings"]}
    assert {said[f"modprobe/{name}"]["status"] for name in DENIED} == {"pass"}
    assert "refused by name and by" in said["modprobe/dccp_ipv4"]["observed"]


@needs_kmod
def test_a_second_apply_changes_nothing_and_says_so(tree: Path, modules: Path) -> None:
    """Same inode and mtime everywhere below the tree; for eyes one sentence, for scripts an empty list."""
    first = agent("apply", "--config", modules, "--host-root", tree)
    assert first.returncode == 0
    assert first.stdout.rstrip().endswith("4 changes made.")
    before = files(tree)
    second = agent("apply", "--config", modules, "--host-root", tree)
    assert second.returncode == 0
    assert second.stdout.rstrip().endswith("Nothing to change.")
    assert document(agent("apply", "--config", modules, "--host-root", tree, "-o", "json"))["changes"] == []
    assert files(tree) == before


def test_it_applies_the_policy_of_the_labels_that_the_daemon_knew(tree: Path, tmp_path: Path) -> None:
    """A manual apply must not undo what an override set."""
    labels = tree / "var/lib/node-hardening/labels.json"
    labels.parent.mkdir(parents=True)
    labels.write_text('{"pool": "gpu"}')
    override = "overrides: [{name: gpu, nodeSelector: pool=gpu, modprobe: {deny: [cramfs]}}]\n"
    config = policy(tmp_path, f"kubelet: {{mode: off}}\napparmor: {{mode: off}}\n{override}")
    agent("apply", "--config", config, "--host-root", tree)
    assert "cramfs" in (tree / FILE).read_text()


@needs_kmod
def test_a_dry_run_writes_nothing_at_all(tree: Path, modules: Path) -> None:
    """It says what apply would do, and the tree is byte for byte, name for name as it was."""
    before, names = files(tree), sorted(tree.rglob("*"))
    done = agent("apply", "--dry-run", "--config", modules, "--host-root", tree)
    assert done.returncode == 1
    assert done.stdout.startswith("would  modprobe: write /etc/modprobe.d/kubernetes-blacklist.conf")
    assert done.stdout.rstrip().endswith("Apply would make 4 changes.")
    planned = document(agent("apply", "--dry-run", "--config", modules, "--host-root", tree, "-o", "json"))["changes"]
    assert {one["outcome"] for one in planned} == {"planned"}
    assert (files(tree), sorted(tree.rglob("*"))) == (before, names)
    agent("apply", "--config", modules, "--host-root", tree)
    done = agent("apply", "--dry-run", "--config", modules, "--host-root", tree)
    assert done.returncode == 0
    assert done.stdout.rstrip().endswith("Apply would change nothing.")


@needs_kmod
def test_what_leaves_the_configuration_leaves_the_node(tree: Path, tmp_path: Path) -> None:
    """A module, the whole list, a profile; what others installed stays to the byte."""
    profiles = tmp_path / "seccomp"
    profiles.mkdir()
    for name in ("one", "two"):
        (profiles / f"{name}.json").write_text(
            '{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"names":["reboot"],"action":"SCMP_ACT_ERRNO"}]}'
        )
    base = f"kubelet: {{mode: off}}\napparmor: {{mode: off}}\nseccomp: {{profiles: {profiles}}}\n"
    full = policy(tmp_path, base + "modprobe: {force: [bridge]}\n")
    assert agent("apply", "--config", full, "--host-root", tree).returncode == 0
    assert not loads(dry(tree, "bridge"), "bridge")
    installed = tree / "var/lib/kubelet/seccomp"
    assert sorted(path.name for path in installed.iterdir()) == ["mine.json", "one.json", "two.json"]

    (profiles / "two.json").unlink()
    less = policy(tmp_path, base)
    assert agent("apply", "--config", less, "--host-root", tree).returncode == 0
    assert loads(dry(tree, "bridge"), "bridge")
    assert not loads(dry(tree, "sctp"), "sctp")
    assert sorted(path.name for path in installed.iterdir()) == ["mine.json", "one.json"]

    (profiles / "one.json").unlink()
    nothing = policy(tmp_path, base + "modprobe: {lists: []}\n")
    done = agent("apply", "--config", nothing, "--host-root", tree, "-o", "json")
    assert {(one["action"], one["target"]) for one in document(done)["changes"]} == {
        ("remove", f"/{FILE}"),
        ("remove", "/var/lib/kubelet/seccomp/one.json"),
    }
    assert not (tree / FILE).exists()
    assert loads(dry(tree, "sctp"), "sctp")
    assert {path: (tree / path).read_text() for path in OTHERS} == OTHERS


def test_two_applies_at_once_take_turns(tree: Path, modules: Path) -> None:
    """A person's and the daemon's: both end well, and the files are whole."""
    argv = ("apply", "--config", modules, "--host-root", tree)
    with ThreadPoolExecutor(3) as pool:
        codes = [done.returncode for done in pool.map(lambda _: agent(*argv), range(3))]
    assert set(codes) <= {0, 1}
    assert (tree / FILE).read_text().startswith("#")
    done = agent(*argv)
    assert done.stdout.rstrip().endswith("Nothing to change.")


def test_an_audit_before_and_after(tree: Path, modules: Path) -> None:
    """1 while something does not comply, and audit itself leaves no trace on the node."""
    names = sorted(tree.rglob("*"))
    assert agent("audit", "--config", modules, "--host-root", tree).returncode == 1
    assert sorted(tree.rglob("*")) == names


@needs_kmod
def test_a_sandboxed_node_is_denied_by_alias_too(tmp_path: Path) -> None:
    """The demo's node has indexes that modprobe reads, so its story is about the real thing."""
    root = NodeRoot.make(tmp_path / "node").path
    config = policy(tmp_path)
    said = {
        one["id"]: one
        for one in document(agent("audit", "--config", config, "--host-root", root, "-o", "json"))["findings"]
    }
    assert said["modprobe/sctp"]["observed"] == "it loads"
    done = agent("apply", "--config", config, "--host-root", root, "-o", "json")
    assert (done.returncode, document(done)["status"]) == (0, "pass")
    said = {one["id"]: one for one in document(done)["findings"]}
    assert said["modprobe/sctp"]["observed"] == "refused by name and by 3 aliases; not loaded"
