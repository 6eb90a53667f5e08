"""Where profiles go, from a kubelet's command line; and which files of a folder are profiles."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.bundled_profiles import shipped_profiles
from agent.controls.seccomp import kubelet_root
from agent.controls.seccomp.profile_dir import sources
from agent.host import Host

DEFAULT = "/var/lib/kubelet"
NONE_GIVEN = "which has no --root-dir: the default"


@pytest.mark.parametrize(
    ("name", "argv", "expected"),
    [
        ("kubelet", ["/usr/bin/kubelet"], (DEFAULT, NONE_GIVEN)),
        ("kubelet", ["kubelet", "--root-dir=/data/kubelet"], ("/data/kubelet", "--root-dir")),
        ("kubelet", ["kubelet", "--v=2", "--root-dir", "/data/kubelet", "--x"], ("/data/kubelet", "--root-dir")),
        ("kubelet", ["kubelet", "--root_dir=/data"], ("/data", "--root-dir")),
        ("kubelet", ["kubelet", "--root-dir=/a", "--root-dir=/b/"], ("/b", "--root-dir")),
        ("kubelet", ["kubelet", "--root-dir=data"], ("/work/data", "--root-dir")),
        ("kubelet", ["kubelet", "--root-dir"], (DEFAULT, NONE_GIVEN)),
        ("kubelet", ["kubelet", "--cert-dir=/x/--root-dir=/no"], (DEFAULT, NONE_GIVEN)),
        ("hyperkube", ["/hyperkube", "kubelet", "--root-dir=/h"], ("/h", "--root-dir")),
        ("k3s-server", ["/usr/local/bin/k3s server"], (DEFAULT, NONE_GIVEN)),
        ("k3s", ["k3s", "agent", "--kubelet-arg=root-dir=/k"], ("/k", "--root-dir in --kubelet-arg")),
        ("k3s", ["k3s", "agent", "--kubelet-arg", "root-dir=/k"], ("/k", "--root-dir in --kubelet-arg")),
        ("k3s", ["k3s", "agent", "--root-dir=/not-its-own"], (DEFAULT, NONE_GIVEN)),
        ("kubelite", ["/snap/microk8s/1/kubelite"], ("/var/snap/microk8s/common/var/lib/kubelet", NONE_GIVEN)),
        ("kubelet-monitor", ["/bin/kubelet-monitor", "--root-dir=/x"], None),
        ("kworker/0:1", [], None),
        ("bash", ["bash", "-c", "kubelet"], None),
    ],
)
def test_the_kubelets_root_is_read_from_its_command_line(
    name: str, argv: list[str], expected: tuple[str, str] | None
) -> None:
    """Every spelling of the flag and every embedding; what only looks like a kubelet is none."""
    assert kubelet_root.root_of(name, argv, "/work") == expected


def test_a_configured_folder_is_taken_as_it_is(tmp_path: Path) -> None:
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
