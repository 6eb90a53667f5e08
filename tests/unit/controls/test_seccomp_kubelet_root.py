"""Where profiles go, from a kubelet's command line; and which files of a folder are profiles."""

from __future__ import annotations

import os
import posixpath
from pathlib import Path

import pytest

from agent.bundled_profiles import shipped_profiles
from agent.controls.seccomp import kubelet_root
from agent.controls.seccomp.profile_dir import sources
from agent.host import Host
from tests.support.kubelets import StagedHost, plant, process

DEFAULT = "/var/lib/kubelet"
SNAP = "/var/snap/microk8s/current/args"


def where(root: Path, *argv: str, name: str = "kubelet", directory: str = "auto") -> kubelet_root.Place:
    """Where profiles go on a node with this process."""
    host = StagedHost(root, [process(*argv, name=name, cwd="/work")])
    return kubelet_root.find(directory, host, "")


@pytest.mark.parametrize(
    ("argv", "expected", "source"),
    [
        (["/usr/bin/kubelet"], DEFAULT, "default root directory"),
        (["kubelet", "--root-dir=/data/kubelet"], "/data/kubelet", "flag --root-dir"),
        (["kubelet", "--v=2", "--root-dir", "/data/kubelet", "--x"], "/data/kubelet", "flag --root-dir"),
        (["kubelet", "--root_dir=/data"], "/data", "flag --root-dir"),
        (["kubelet", "--root-dir=/a", "--root-dir=/b/"], "/b", "flag --root-dir"),
        (["kubelet", "--root-dir=data"], "/work/data", "flag --root-dir"),
        (["kubelet", "--root-dir"], DEFAULT, "default root directory"),
        (["kubelet", "--cert-dir=/x/--root-dir=/no"], DEFAULT, "default root directory"),
        (["/hyperkube", "kubelet", "--root-dir=/h"], "/h", "flag --root-dir"),
    ],
)
def test_the_kubelets_root_is_read_from_its_command_line(
    argv: list[str], expected: str, source: str, tmp_path: Path
) -> None:
    """Every spelling of the flag."""
    found = where(tmp_path, *argv)
    assert (found.path, found.found) == (f"{expected}/seccomp", True)
    assert found.source == f"kubelet (pid 812), {source}"


@pytest.mark.parametrize(
    ("files", "argv", "expected"),
    [
        ({}, ["k3s", "server", "--kubelet-arg=root-dir=/k"], "/k"),
        ({}, ["k3s", "agent", "--root-dir=/not-its-own", "-d", "/x"], DEFAULT),
        ({"/etc/rancher/k3s/config.yaml": "kubelet-arg: [root-dir=/from/config]\n"}, ["k3s", "server", "-v", "1"],
         "/from/config"),
        ({"/etc/rancher/k3s/config.yaml.d/a.yaml": "kubelet-arg+: root-dir=/d\n"}, ["k3s", "server", "-v", "1"], "/d"),
        ({"/etc/systemd/system/k3s.service": "[Service]\nExecStart=/bin/k3s server --kubelet-arg root-dir=/unit\n"},
         ["k3s", "server"], "/unit"),
        ({f"{SNAP}/kubelet": "--root-dir=${SNAP_COMMON}/var/lib/kubelet\n"}, ["/snap/kubelite"],
         "/var/snap/microk8s/common/var/lib/kubelet"),
        ({"/a/args": "--root-dir=/moved\n"}, ["/snap/kubelite", "--kubelet-args-file=/a/args"], "/moved"),
    ],
)  # fmt: skip
def test_the_root_of_a_kubelet_inside_another_program(
    files: dict[str, str], argv: list[str], expected: str, tmp_path: Path
) -> None:
    """k3s's configuration, its unit's ExecStart and MicroK8s' arguments, as the kubelet control reads them."""
    found = where(plant(tmp_path, files), *argv, name=posixpath.basename(argv[0]))
    assert (found.path, found.found, found.problem) == (f"{expected}/seccomp", True, "")


@pytest.mark.parametrize("last", ["", "/old/seccomp"])
def test_a_root_that_is_not_known_moves_nothing(last: str, tmp_path: Path) -> None:
    """Arguments that cannot be read, or two kubelets with different roots: the last directory stays, and no pass."""
    stay = last or f"{DEFAULT}/seccomp"
    for processes in (
        [process("/snap/kubelite", name="kubelite")],
        [process("kubelet", "--root-dir=/a"), process("kubelet", "--root-dir=/b", pid=9)],
    ):
        found = kubelet_root.find("auto", StagedHost(tmp_path, processes), last)
        assert (found.path, found.found) == (stay, False)
        assert found.problem
    same = [process("kubelet", "--root-dir=/a"), process("kubelet", "--root-dir=/a/", pid=9)]
    assert kubelet_root.find("auto", StagedHost(tmp_path, same), last).path == "/a/seccomp"


def test_a_configured_directory_is_taken_as_it_is(tmp_path: Path) -> None:
    """An absolute path in the configuration needs no kubelet."""
    found = kubelet_root.find("/data/seccomp/", Host(tmp_path), "/old/seccomp")
    assert (found.path, found.found) == ("/data/seccomp", True)


def test_profiles_are_json_files_and_files_without_an_ending(tmp_path: Path) -> None:
    """As the old documentation names one; notes, hidden files and other endings are told apart."""
    for name in (
        "prevent-chmod",
        "b.json",
        "README",
        "README.md",
        "notes.txt",
        ".hidden.json",
        "old.json.bak",
        "x.yaml",
    ):
        (tmp_path / name).write_text(name)
    (tmp_path / "team" / "deeper").mkdir(parents=True)
    (tmp_path / "team" / "deeper" / "x.json").write_text("x")
    found = sources(tmp_path)
    assert [(file.name, file.content) for file in found.files] == [
        ("b.json", b"b.json"),
        ("prevent-chmod", b"prevent-chmod"),
        ("team/deeper/x.json", b"x"),
    ]
    assert found.skipped == ("old.json.bak", "x.yaml")
    assert found.error == ""


def test_a_configmaps_mount_is_read_once(tmp_path: Path) -> None:
    """Names are symlinks through ..data into a dated folder; each profile is there once."""
    dated = tmp_path / "..2026_01_01"
    (dated / "team").mkdir(parents=True)
    (dated / "p.json").write_text("p")
    (dated / "team" / "q.json").write_text("q")
    (tmp_path / "..data").symlink_to("..2026_01_01")
    (tmp_path / "p.json").symlink_to("..data/p.json")
    (tmp_path / "team").symlink_to("..data/team")
    assert [file.name for file in sources(tmp_path).files] == ["p.json", "team/q.json"]


def test_what_cannot_be_read_is_a_file_with_an_error(tmp_path: Path) -> None:
    """A FIFO, a dangling symlink and a name that no pod can use: each is named, none holds the agent up."""
    os.mkfifo(tmp_path / "fifo.json")
    (tmp_path / "gone.json").symlink_to("nowhere")
    (tmp_path / "a b.json").write_text("{}")
    assert {file.name: file.error.split(":")[0].split(" may")[0] for file in sources(tmp_path).files} == {
        "a b.json": "a name",
        "fifo.json": "is not a regular file",
        "gone.json": "cannot be read",
    }


def test_a_folder_that_is_none_says_so(tmp_path: Path) -> None:
    """Nothing is taken for an empty policy that could not be read."""
    (tmp_path / "file").write_text("")
    assert sources(tmp_path / "file").error == f"cannot list {tmp_path / 'file'}: Not a directory"


def test_a_circle_of_symlinks_ends(tmp_path: Path) -> None:
    """A folder inside itself is left at a fixed depth."""
    (tmp_path / "p.json").write_text("p")
    (tmp_path / "again").symlink_to(".")
    assert [file.name for file in sources(tmp_path).files][:2] == ["again/again/again/p.json", "again/again/p.json"]


def test_the_shipped_folder_holds_three_profiles() -> None:
    """The README beside them is no profile."""
    found = sources(shipped_profiles("seccomp"))
    assert [file.name for file in found.files] == ["audit.json", "hardened.json", "prevent-chmod.json"]
    assert (found.skipped, found.error) == ((), "")
