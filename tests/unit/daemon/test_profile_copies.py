"""Copies of the profile folders: what counts as a change, what is never copied, and what a crash leaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.config import loads
from agent.controls.registry import profile_folders
from agent.daemon import profile_copies
from agent.daemon.profile_copies import COPIES, ProfileCopies
from agent.errors import HostError
from agent.host import Host


class Site:
    """A folder of profiles as a ConfigMap's mount is made, and a node's disk."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.root = folder / "profiles", folder / "root"
        self.root.mkdir()
        self.copies = ProfileCopies(Host(self.root))

    def mount(self, version: int = 1, **files: str) -> None:
        """A new ConfigMap in place of the one before, as the kubelet swaps them."""
        data = self.folder / f"..{version}"
        data.mkdir(parents=True)
        for name, content in files.items():
            (data / name).write_text(content)
            if not (self.folder / name).is_symlink():
                (self.folder / name).symlink_to(f"..data/{name}")
        swapped = self.folder / "..data_tmp"
        swapped.symlink_to(data.name)
        swapped.rename(self.folder / "..data")

    def found(self) -> dict[str, str]:
        return {str(self.folder): profile_copies.digest(str(self.folder))}

    def place(self, found: dict[str, str]) -> Path:
        return Path(self.copies.places(found)[str(self.folder)])

    def kept(self) -> set[str]:
        return {one.name for one in (self.root / COPIES.lstrip("/")).iterdir()}


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_a_copy_holds_what_the_folder_held(site: Site) -> None:
    site.mount(a="one", b="two")
    (site.folder / "include").mkdir()
    (site.folder / "include/c").write_text("three")
    found = site.found()
    site.copies.keep(found)
    site.mount(2, a="changed", b="two")
    assert site.found() != found
    place = site.place(found)
    assert {path.name: path.read_text() for path in place.rglob("[a-z]*") if path.is_file()} == {
        "a": "one", "b": "two", "c": "three",
    }  # fmt: skip
    assert site.copies.accepted() == found


def test_the_same_content_in_another_mount_is_no_change(site: Site) -> None:
    site.mount(a="one")
    before = site.found()
    site.mount(2, a="one")
    assert site.found() == before


def test_no_folder_and_an_empty_one_differ(site: Site) -> None:
    """In place of the first the shipped profiles are used; the second has none. A copy keeps that."""
    absent = site.found()
    site.copies.keep(absent)
    assert not site.place(absent).exists()
    site.folder.mkdir()
    empty = site.found()
    assert empty != absent
    site.copies.keep(empty)
    assert site.place(empty).is_dir()
    assert not [one for one in site.place(empty).iterdir() if not one.name.startswith(".")]


def test_what_was_accepted_before_is_removed(site: Site) -> None:
    site.mount(a="one")
    (site.folder / "include").mkdir()
    (site.folder / "include/c").write_text("three")
    site.copies.keep(site.found())
    site.mount(2, a="two")
    site.copies.keep(site.found())
    assert site.kept() == {*site.found().values(), "accepted.json"}


def test_a_copy_that_a_crash_cut_short_or_a_user_changed_is_not_used_and_made_again(site: Site) -> None:
    site.mount(a="one", b="two")
    found = site.found()
    site.copies.keep(found)
    (site.place(found) / "b").unlink()
    (site.root / COPIES.lstrip("/") / found[str(site.folder)] / "c").write_text("extra")
    assert not site.copies.places(found)
    site.copies.keep(found)
    assert sorted(one.name for one in site.place(found).iterdir() if one.name[0] != ".") == ["a", "b"]


def test_a_folder_that_changed_since_is_not_copied_and_the_copies_of_before_stay(site: Site) -> None:
    site.mount(a="one")
    before = site.found()
    site.copies.keep(before)
    site.mount(2, a="two")
    found = site.found()
    site.mount(3, a="three")
    with pytest.raises(HostError, match="changed meanwhile"):
        site.copies.keep(found)
    assert site.copies.accepted() == before
    assert (site.place(before) / "a").read_text() == "one"


def test_a_fifo_neither_stops_the_agent_nor_is_copied(site: Site) -> None:
    site.mount(a="one")
    before = site.found()
    os.mkfifo(site.folder / "b")
    found = site.found()
    assert found != before
    with pytest.raises(HostError, match=r"/b: cannot be read"):
        site.copies.keep(found)


def test_folders_without_an_end_are_read_to_a_limit_and_not_copied(site: Site) -> None:
    site.mount(a="one")
    for name in ("x", "y"):
        (site.folder / name).symlink_to(".")
    found = site.found()
    assert list(profile_copies.contents(str(site.folder)))[-1] == ("", None)
    with pytest.raises(HostError, match="cannot be read"):
        site.copies.keep(found)


def test_a_file_in_the_place_of_the_folder_is_not_an_empty_folder(site: Site) -> None:
    site.folder.mkdir()
    empty = site.found()
    site.folder.rmdir()
    site.folder.write_text("x")
    assert site.found() not in (empty, {str(site.folder): ""})


def test_a_removal_never_follows_a_symlink(site: Site) -> None:
    site.mount(a="one")
    found = site.found()
    site.copies.keep(found)
    (site.root / "etc").mkdir()
    (site.root / "etc/passwd").write_text("root")
    (site.place(found) / "z").symlink_to("/etc")
    site.mount(2, a="two")
    site.copies.keep(site.found())
    assert (site.root / "etc/passwd").read_text() == "root"


@pytest.mark.parametrize("content", ["[]", '{"/a": "../../etc"}', '{"/a": 7}', "{", "", "[" * 100_000])
def test_a_record_that_this_agent_did_not_write_is_refused(site: Site, content: str) -> None:
    site.copies.keep({})
    (site.root / COPIES.lstrip("/") / "accepted.json").write_text(content)
    with pytest.raises(ValueError, match=r"."):
        site.copies.accepted()


def test_every_folder_that_some_node_uses_counts_on_all_nodes(tmp_path: Path) -> None:
    """Whatever a node's labels are, it has the same revision."""
    text = f"""
seccomp: {{profiles: {tmp_path}/base}}
apparmor: {{mode: "off"}}
overrides: [{{name: gpu, nodeSelector: pool=gpu, seccomp: {{profiles: {tmp_path}/gpu}}}}]
"""
    config = loads(text, "config.yaml")
    assert not {f"{tmp_path}/base", f"{tmp_path}/gpu"} - profile_copies.digests(config).keys()
    plain = profile_copies.revision(config, profile_copies.digests(config))
    assert len(plain) == 12
    (tmp_path / "gpu").mkdir()
    assert profile_copies.revision(config, profile_copies.digests(config)).startswith(f"{plain}-")
    assert f"{tmp_path}/gpu" not in profile_folders(config)
