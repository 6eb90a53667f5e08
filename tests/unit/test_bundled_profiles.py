"""The shipped profiles are found from a checkout, and what is not shipped is said to be missing."""

from __future__ import annotations

import importlib
import zipfile
from pathlib import Path

import pytest

from agent.bundled_profiles import data_file, shipped_profiles
from agent.errors import AgentError


@pytest.mark.parametrize(
    ("kind", "name"), [("apparmor", "deny-write"), ("seccomp", "prevent-chmod.json"), ("modprobe", "kubernetes.yaml")]
)
def test_each_kind_has_its_folder(kind: str, name: str) -> None:
    """With the profile that the documentation names."""
    assert (shipped_profiles(kind) / name).is_file()


def test_a_missing_kind_is_an_error_with_a_next_step() -> None:
    """A wheel that lost its data must not look like a folder without profiles."""
    with pytest.raises(
        AgentError, match=r"the bundled selinux profiles are missing beside .*: install the wheel again"
    ):
        shipped_profiles("selinux")


def test_tables_are_read_from_inside_of_the_plugins_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """kubectl-node_hardening of a release is a zip archive; `record` names syscalls and lints there."""
    with zipfile.ZipFile(tmp_path / "plugin", "w") as archive:
        archive.writestr("nha_zipped/__init__.py", "")
        archive.writestr("nha_zipped/names.py", "")
        archive.writestr("nha_zipped/names.txt", "read write\n")
    monkeypatch.syspath_prepend(tmp_path / "plugin")
    importlib.import_module("nha_zipped.names")
    assert data_file("nha_zipped.names", "names.txt") == "read write\n"
    assert "fchmodat2" in data_file("agent.controls.seccomp.syscalls", "syscalls.txt")
