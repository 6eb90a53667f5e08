"""Pending security updates, counted by the real DNF and zypper from a repository of three packages."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent.controls.updates import pending
from agent.controls.updates.pending import Pending
from agent.errors import HostError
from agent.host import Completed, Host

MISSING = [
    tool for tool in ("rpm", "rpmbuild", "createrepo_c", "modifyrepo_c", "dnf", "zypper") if not shutil.which(tool)
]
pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="needs root: another root folder for rpm"),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]

_SPEC = """Name: {name}
Version: {version}
Release: 1
Summary: A package for tests
License: MIT
BuildArch: noarch
%description
A package for tests.
%files
"""
_PACKAGE = '<package name="{0}" version="1.1" release="1" epoch="0" arch="noarch"><filename>x.rpm</filename></package>'
_ADVISORY = (
    '<update from="a@demo.example" status="final" type="{kind}" version="1"><id>{id}</id><title>{id}</title>{severity}'
    '<issued date="2026-11-01 10:00:00"/><pkglist><collection short="demo"><name>demo</name>{packages}</collection>'
    "</pkglist></update>"
)
_ADVISORIES = (
    ("DEMO-2026:0001", "security", "<severity>Important</severity>", ("libdemo", "demo-tools")),
    ("DEMO-2026:0002", "security", "", ("plain",)),
    ("DEMO-2026:0003", "bugfix", "", ("plain",)),
)
OLD = 1_000_000_000


@dataclass(frozen=True)
class Machine:
    """A root folder with three old packages, and the repository that has newer ones."""

    folder: Path

    @property
    def root(self) -> Path:
        return self.folder / "root"

    def command(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "HOME": str(self.folder)}
        return subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=300, check=check)

    def manage(self, package_manager: Pending, *words: str) -> Completed:
        """What the package manager does below the root folder; without words, the very command that counts."""
        name, *counting = package_manager.argv
        where = {
            "dnf": ("--installroot", str(self.root), "--releasever=12"),
            "zypper": ("--root", str(self.root), "--non-interactive"),
        }[name]
        done = self.command(name, *where, *(words or counting), check=False)
        return Completed(tuple(done.args), done.returncode, done.stdout, done.stderr)

    def count(self, package_manager: Pending) -> int:
        return package_manager.parse(self.manage(package_manager))

    def install(self, version: str) -> None:
        packages = map(str, (self.folder / "repository").glob(f"*-{version}-1.noarch.rpm"))
        self.command("rpm", "--root", str(self.root), "-U", "--nodeps", "--nosignature", *packages)

    def add_repository(self, name: str, folder: Path) -> None:
        text = f"[{name}]\nname={name}\nbaseurl=file://{folder}\nenabled=1\ngpgcheck=0\n"
        for place in ("etc/yum.repos.d", "etc/zypp/repos.d"):
            (self.root / place).mkdir(parents=True, exist_ok=True)
            (self.root / place / f"{name}.repo").write_text(text)

    def make_lists_old(self) -> None:
        for path in (self.root / "var/cache").rglob("*"):
            os.utime(path, (OLD, OLD), follow_symlinks=False)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    machine = Machine(tmp_path_factory.mktemp("rpm"))
    # Debian's rpm keeps its database in the home folder unless it is set otherwise.
    (machine.folder / ".rpmmacros").write_text(f"%_topdir {machine.folder}/build\n%_dbpath /var/lib/rpm\n")
    repository = machine.folder / "repository"
    repository.mkdir()
    for name in ("libdemo", "demo-tools", "plain"):
        for version in ("1.0", "1.1"):
            spec = machine.folder / f"{name}-{version}.spec"
            spec.write_text(_SPEC.format(name=name, version=version))
            machine.command("rpmbuild", "-bb", "--quiet", str(spec))
    for package in (machine.folder / "build/RPMS/noarch").iterdir():
        package.rename(repository / package.name)
    advisories = "".join(
        _ADVISORY.format(id=key, kind=kind, severity=severity, packages="".join(map(_PACKAGE.format, packages)))
        for key, kind, severity, packages in _ADVISORIES
    )
    (machine.folder / "updateinfo.xml").write_text(f'<?xml version="1.0"?><updates>{advisories}</updates>')
    machine.command("createrepo_c", "-q", str(repository))
    machine.command("modifyrepo_c", f"{machine.folder}/updateinfo.xml", f"{repository}/repodata")
    return machine


@pytest.fixture
def machine(built: Machine) -> Iterator[Machine]:
    (built.root / "var/lib/rpm").mkdir(parents=True)
    built.add_repository("demo", built.folder / "repository")
    built.install("1.0")
    built.manage(pending.DNF, "makecache")
    built.manage(pending.ZYPPER, "refresh")
    yield built
    shutil.rmtree(built.root)


BOTH = pytest.mark.parametrize("package_manager", [pending.DNF, pending.ZYPPER], ids=lambda one: one.argv[0])


@BOTH
def test_security_updates_are_counted_until_they_are_installed(machine: Machine, package_manager: Pending) -> None:
    assert machine.count(package_manager) == 2
    machine.install("1.1")
    assert machine.count(package_manager) == 0


@BOTH
def test_the_age_of_the_lists_is_that_of_their_last_refresh(machine: Machine, package_manager: Pending) -> None:
    """A refresh that finds nothing new is one; a count is none (but zypper's, of lists whose times have changed)."""
    host = Host(machine.root)
    machine.manage(package_manager)
    machine.make_lists_old()
    machine.manage(package_manager)
    if package_manager is pending.DNF:
        assert package_manager.listed_at(host) == OLD
    machine.make_lists_old()
    machine.manage(package_manager, *(("makecache",) if package_manager is pending.DNF else ("refresh",)))
    assert (package_manager.listed_at(host) or 0) > OLD


@BOTH
def test_a_repository_without_a_list_is_seen(machine: Machine, package_manager: Pending) -> None:
    machine.add_repository("other", machine.folder / "nothing")
    assert machine.count(package_manager) == 2
    machine.install("1.1")
    with pytest.raises(HostError, match=r"other|106"):
        machine.count(package_manager)


@BOTH
def test_without_lists_their_age_is_unknown(machine: Machine, package_manager: Pending) -> None:
    """Both count nothing then and exit with 0, or load lists: so nothing is counted."""
    shutil.rmtree(machine.root / "var/cache")
    assert package_manager.listed_at(Host(machine.root)) is None


def test_dnfs_packages_are_those_of_the_advisories(machine: Machine) -> None:
    listed = machine.manage(pending.DNF).stdout
    checked = machine.manage(pending.DNF, "-C", "check-update", "--security")
    assert checked.code == 100
    names = set(re.findall(r"^([\w-]+)\.noarch ", checked.stdout, re.MULTILINE))
    assert names == set(re.findall(r"^DEMO-\S+ +\S+ +([\w-]+)-1\.1-1", listed, re.MULTILINE))
    assert names == {"libdemo", "demo-tools", "plain"}
