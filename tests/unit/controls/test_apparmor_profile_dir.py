"""Which files of the folder are profiles, and what is said of those that cannot be read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.bundled_profiles import shipped_profiles
from agent.controls.apparmor import profile_dir
from agent.errors import HostFileError


def test_a_configmaps_mount(tmp_path: Path) -> None:
    """Links through ..data are followed, the machinery of the mount is skipped, names are sorted."""
    data = tmp_path / "..2026_01_01"
    data.mkdir()
    (data / "b").write_text("profile b { }")
    (data / "a").write_text("profile a { }")
    (tmp_path / "..data").symlink_to(data.name)
    for name in ("a", "b"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    read = profile_dir.read(str(tmp_path))
    assert [(one.name, one.content, one.shown) for one in read.files] == [
        ("a", b"profile a { }", f"{tmp_path}/a"),
        ("b", b"profile b { }", f"{tmp_path}/b"),
    ]
    assert read.folder == tmp_path


def test_what_is_no_profile_is_skipped(tmp_path: Path) -> None:
    """Hidden files, leftovers of packages and editors, prose and folders are not linted."""
    for name in (".hidden", "a~", "a.dpkg-old", "a.orig", "README.md"):
        (tmp_path / name).write_text("x")
    (tmp_path / "abstractions").mkdir()
    assert profile_dir.read(str(tmp_path)).files == ()
    assert profile_dir.has_folders(tmp_path)
    assert not profile_dir.has_folders(tmp_path / "abstractions")


def test_files_that_cannot_be_read_are_problems_of_their_own(tmp_path: Path) -> None:
    """A dangling link, a FIFO and a file past the limit each get a reason; the others are read."""
    (tmp_path / "good").write_text("profile a { }")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "huge").write_bytes(b"#" * (profile_dir.BYTES_LIMIT + 1))
    said = {one.name: one.problem.message if one.problem else "" for one in profile_dir.read(str(tmp_path)).files}
    assert said == {
        "good": "",
        "dangling": "cannot be read: No such file or directory",
        "fifo": "not a regular file",
        "huge": f"larger than {profile_dir.BYTES_LIMIT} bytes",
    }


def test_absent_means_shipped_and_unreadable_means_unknown(tmp_path: Path) -> None:
    """Only a folder that is not there stands for the shipped profiles; one that cannot be listed is an error."""
    read = profile_dir.read(str(tmp_path / "absent"))
    assert read.folder == shipped_profiles("apparmor")
    assert [one.name for one in read.files] == ["deny-write", "hardened-default", "web-service"]
    (tmp_path / "file").write_text("")
    with pytest.raises(HostFileError, match="cannot list"):
        profile_dir.read(str(tmp_path / "file"))
    (tmp_path / "loop").symlink_to("loop")
    with pytest.raises(HostFileError, match="cannot list"):
        profile_dir.read(str(tmp_path / "loop"))


def test_too_many_files_are_refused_as_a_whole(tmp_path: Path) -> None:
    """A folder that is not one of profiles is said to be so rather than half read."""
    for number in range(profile_dir.FILES_LIMIT + 1):
        (tmp_path / f"{number}").touch()
    with pytest.raises(HostFileError, match="no more than"):
        profile_dir.read(str(tmp_path))


def test_a_stamp_sees_change(tmp_path: Path) -> None:
    """Equal while nothing changes; another one for new content, new files and files that went."""
    (tmp_path / "x").write_text("1")
    before = profile_dir.stamp([tmp_path])
    assert profile_dir.stamp([tmp_path]) == before
    (tmp_path / "x").write_text("22")
    changed = profile_dir.stamp([tmp_path])
    assert changed != before
    (tmp_path / "x").unlink()
    assert profile_dir.stamp([tmp_path]) == ()
