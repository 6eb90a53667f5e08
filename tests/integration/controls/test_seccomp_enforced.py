"""What the seccomp control installs, loaded with the real libseccomp: the kernel itself says what is refused."""

from __future__ import annotations

import ctypes.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from agent.bundled_profiles import shipped_profiles
from agent.config import schema
from agent.controls import base
from agent.controls.seccomp import SeccompControl
from agent.host import Host
from agent.model import Finding, Status

if ctypes.util.find_library("seccomp") is None:
    pytest.skip("libseccomp.so.2 is not on this machine", allow_module_level=True)

CHILD = Path(__file__).with_name("seccomp_child.py")
DIRECTORY = "/var/lib/kubelet/seccomp"
NORMAL = ("files", "threads", "programs", "web")
CHMODS = ("chmod", "fchmod", "fchmodat", "fchmodat2")
# The founding document's own file: old form, no ending.
SEED = """{
  "defaultAction": "SCMP_ACT_ALLOW",
  "syscalls": [
    {
      "name": "chmod",
      "action": "SCMP_ACT_ERRNO"
    }
  ]
}
"""


def install(tmp_path: Path, profiles: Path) -> tuple[Path, dict[str, Finding]]:
    """One apply on an empty node; the folder that the kubelet reads, and the findings by id."""
    root = tmp_path / "node"
    root.mkdir()
    config = schema.Seccomp(profiles=str(profiles), directory=DIRECTORY)
    done = base.apply(SeccompControl(config, Host(root)))
    return root / DIRECTORY.lstrip("/"), {finding.id: finding for finding in done.findings}


def under(profile: Path, folder: Path, *probes: str) -> dict[str, str]:
    """What came of each probe in a process that runs under the profile."""
    folder.mkdir()
    done = subprocess.run(
        [sys.executable, str(CHILD), str(profile), str(folder), *probes],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    answers: dict[str, str] = json.loads(done.stdout)
    return answers


def everywhere(probes: tuple[str, ...], answer: str) -> dict[str, str]:
    """The same answer for each probe."""
    return dict.fromkeys(probes, answer)


@pytest.mark.parametrize("name", sorted(path.name for path in shipped_profiles("seccomp").glob("*.json")))
def test_a_normal_program_runs_under_every_shipped_profile(tmp_path: Path, name: str) -> None:
    """Files, threads, fork and exec of sh, ls and others, a threaded web server: all run under what was installed."""
    installed, found = install(tmp_path, shipped_profiles("seccomp"))
    assert found[f"seccomp/profile/{name}"].status is Status.PASS
    assert under(installed / name, tmp_path / "work", *NORMAL) == everywhere(NORMAL, "ok")


def test_prevent_chmod_refuses_chmod_and_its_equivalents(tmp_path: Path) -> None:
    """chmod, fchmod, fchmodat and fchmodat2 are refused under the shipped profile, and no twin is warned of."""
    installed, found = install(tmp_path, shipped_profiles("seccomp"))
    assert under(installed / "prevent-chmod.json", tmp_path / "work", *CHMODS) == everywhere(CHMODS, "EPERM")
    assert "seccomp/gaps/prevent-chmod.json" not in found


def test_the_same_probes_succeed_without_the_profile(tmp_path: Path) -> None:
    """The refusals above are the profile's doing: where it only logs, all four change the mode."""
    installed, _ = install(tmp_path, shipped_profiles("seccomp"))
    assert under(installed / "audit.json", tmp_path / "work", *CHMODS) == everywhere(CHMODS, "ok")


def test_the_old_form_is_enforced_and_its_gaps_are_named(tmp_path: Path) -> None:
    """The founding document's file refuses chmod once installed; its gaps are in a finding, and they are open."""
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    (profiles / "prevent-chmod").write_text(SEED)
    installed, found = install(tmp_path, profiles)
    answers = under(installed / "prevent-chmod", tmp_path / "work", *CHMODS, *NORMAL)
    assert answers == {"chmod": "EPERM"} | everywhere((*CHMODS[1:], *NORMAL), "ok")
    assert found["seccomp/profile/prevent-chmod"].status is Status.PASS
    assert "old `name` written as `names`" in found["seccomp/profile/prevent-chmod"].observed
    gaps = found["seccomp/gaps/prevent-chmod"]
    assert gaps.status is Status.INFO
    assert "denies chmod and not fchmod, fchmodat, fchmodat2" in gaps.observed


def test_hardened_refuses_what_pods_rarely_need(tmp_path: Path) -> None:
    """Namespaces, io_uring, tracing, keys, foreign sockets and device nodes are refused even to root."""
    if os.geteuid() != 0:
        pytest.skip("only root would be let through by the kernel itself, so only for root the refusal proves anything")
    installed, _ = install(tmp_path, shipped_profiles("seccomp"))
    refused = {
        **everywhere(
            (
                "unshare",
                "ptrace",
                "keyctl",
                "bpf",
                "userfaultfd",
                "perf_event_open",
                "mount",
                "setns",
                "process_vm_readv",
                "open_by_handle_at",
            ),
            "EPERM",
        ),
        **everywhere(
            (
                "clone(newuser)",
                "clone3",
                "io_uring_setup",
                "personality(no randomisation)",
                "mknod(device)",
                "socket(netfilter)",
                "socket(vsock)",
                "socket(alg)",
                "socket(packet)",
                "socket(sctp)",
                "socket(dccp)",
                "socket(tipc)",
            ),
            "ENOSYS",
        ),
    }
    allowed = ("personality(asked)", "socket(unix)", "socket(tcp)", "socket(udp6)", "socket(route)", *CHMODS)
    answers = under(installed / "hardened.json", tmp_path / "work", *refused, *allowed)
    assert answers == refused | everywhere(allowed, "ok")


def test_dockers_form_is_enforced(tmp_path: Path) -> None:
    """archMap, includes and excludes as Docker writes them come out as what this machine enforces."""
    document = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "archMap": [
            {"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86", "SCMP_ARCH_X32"]},
            {"architecture": "SCMP_ARCH_AARCH64", "subArchitectures": ["SCMP_ARCH_ARM"]},
        ],
        "syscalls": [
            {"names": ["chmod"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13, "includes": {"minKernel": "3.0"}},
            {"names": ["fchmod"], "action": "SCMP_ACT_ERRNO", "excludes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["fchmodat"], "action": "SCMP_ACT_ERRNO", "includes": {"arches": ["s390x"]}},
        ],
    }
    profiles = tmp_path / "profiles"
    profiles.mkdir()
    (profiles / "docker.json").write_text(json.dumps(document))
    installed, _ = install(tmp_path, profiles)
    answers = under(installed / "docker.json", tmp_path / "work", *CHMODS)
    assert answers == {"chmod": "EACCES", "fchmod": "EPERM", "fchmodat": "ok", "fchmodat2": "ok"}
