"""Counts of security updates, from what the real programs print, and the age of the lists that they count from.

The captures are those of DNF 4.14.0 and zypper 1.14.42 (Debian 12) on a repository with three older packages installed,
two security advisories for them and one bug fix; `none`: all installed; `left-out`: beside a repository without a list.
"""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from agent.controls.updates import pending
from agent.controls.updates.pending import Pending
from agent.errors import HostError
from agent.host import Completed, Host

CAPTURES = Path(__file__).parent / "captures"
DNF_REPODATA = "var/cache/dnf/demo-75e2d22aff45be01/repodata"
DNF5_REPODATA = "var/cache/libdnf5/demo-75e2d22aff45be01/repodata"
ZYPPER_REPODATA = "var/cache/zypp/raw/demo/repodata"
APT_LISTS = "var/lib/apt/lists"
FILES = ("repomd.xml", "1789eee5-updateinfo.xml.gz", "d2ac89ae-primary.xml.gz")


def capture(name: str) -> str:
    return (CAPTURES / name).read_text()


def count(package_manager: Pending, code: int, stdout: str, stderr: str = "") -> int:
    return package_manager.parse(Completed(("/usr/bin/x",), code, stdout, stderr))


@pytest.mark.parametrize(
    ("package_manager", "code", "output", "number"),
    [
        (pending.APT, 0, capture("apt-get.txt"), 7),
        (pending.DNF, 0, capture("dnf-updateinfo.txt"), 2),
        (pending.DNF, 0, capture("dnf-none.txt"), 0),
        (pending.ZYPPER, 101, capture("zypper-patch-check.txt"), 2),
        (pending.ZYPPER, 0, capture("zypper-none.txt"), 0),
        (pending.DNF, 0, "RHSA-2026:1 Important/Sec. openssl-3.0\nRHSA-2026:1 Important/Sec. libssl\n", 1),
        (pending.DNF, 0, "RHBA-2026:2 bugfix x\n", 0),
        (pending.DNF, 0, "Name     Type     Severity  Package Issued\nFEDORA-1 security Important openssl 2026-1\n", 1),
        (pending.DNF, 0, "", 0),
        (pending.ZYPPER, 101, "1 patch needed (1 security patch)\n", 1),
        (pending.ZYPPER, 100, "2 patches needed\n", 0),
    ],
)
def test_advisories_are_counted(package_manager: Pending, code: int, output: str, number: int) -> None:
    assert count(package_manager, code, output) == number


def test_a_repository_without_a_list_makes_zero_unknown_and_leaves_what_others_have() -> None:
    left_out = capture("dnf-left-out.txt")
    assert count(pending.DNF, 0, capture("dnf-updateinfo.txt"), left_out) == 2
    with pytest.raises(HostError, match="other"):
        count(pending.DNF, 0, capture("dnf-none.txt"), left_out)
    with pytest.raises(HostError, match="106"):
        count(pending.ZYPPER, 106, capture("zypper-left-out.txt"))


@pytest.mark.parametrize("package_manager", [pending.APT, pending.ZYPPER])
def test_output_of_another_kind_is_no_count(package_manager: Pending) -> None:
    with pytest.raises(HostError, match="not the output"):
        count(package_manager, 0, "Killed\n")


def touched(root: Path, folder: str, *names: str, at: float) -> None:
    (root / folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        (root / folder / name).touch()
        os.utime(root / folder / name, (at, at))


@pytest.mark.parametrize(
    ("package_manager", "folder", "touches"),
    [
        (pending.DNF, DNF_REPODATA, "d2ac89ae-primary.xml.gz"),
        (pending.DNF, DNF5_REPODATA, "d2ac89ae-primary.xml.zst"),
        (pending.ZYPPER, ZYPPER_REPODATA, "repomd.xml"),
    ],
)
def test_lists_are_as_old_as_what_the_package_manager_touches(
    tmp_path: Path, package_manager: Pending, folder: str, touches: str
) -> None:
    host = Host(tmp_path)
    assert package_manager.listed_at(host) is None
    touched(tmp_path, folder, *FILES, at=1000)
    touched(tmp_path, folder, touches, at=5000)
    assert package_manager.listed_at(host) == 5000


def test_only_repositories_with_advisories_count(tmp_path: Path) -> None:
    """One without is current every hour, and says nothing of what is pending."""
    host = Host(tmp_path)
    touched(tmp_path, "var/cache/dnf/kubernetes-0a/repodata", "repomd.xml", "x-primary.xml.gz", at=9000)
    touched(tmp_path, "var/cache/dnf", "demo.solv", "demo-updateinfo.solvx", at=9000)
    assert pending.DNF.listed_at(host) is None
    touched(tmp_path, DNF_REPODATA, *FILES, at=1000)
    touched(tmp_path, "var/cache/dnf", "expired_repos.json", at=9000)  # by each run, also by one that loads nothing
    assert pending.DNF.listed_at(host) == 1000


def test_distributions_of_snapshots_publish_no_advisories(tmp_path: Path) -> None:
    touched(tmp_path, ZYPPER_REPODATA, *FILES, at=1000)
    touched(tmp_path, "etc", "os-release", at=1000)
    for name, expected in (("sle-micro", 1000), ("opensuse-microos", None)):
        (tmp_path / "etc/os-release").write_text(f'ID="{name}"\n')
        assert pending.ZYPPER.listed_at(Host(tmp_path)) == expected


def test_endless_caches_are_unknown(tmp_path: Path) -> None:
    for number in range(600):
        (tmp_path / f"var/cache/dnf/{number}/repodata").mkdir(parents=True)
    with pytest.raises(HostError, match="directories"):
        pending.DNF.listed_at(Host(tmp_path))


def test_lists_of_apt(tmp_path: Path) -> None:
    host = Host(tmp_path)
    touched(tmp_path, "var/lib/apt/periodic", "update-success-stamp", at=9000)
    assert pending.APT.listed_at(host) is None
    touched(tmp_path, APT_LISTS, "deb.example_dists_bookworm_main_binary-amd64_Packages", at=9000)
    assert pending.APT.listed_at(host) is None
    touched(tmp_path, APT_LISTS, "deb.example_dists_bookworm_InRelease", at=1000)
    assert pending.APT.listed_at(host) == 9000
