"""AppArmor: what a profile that the agent loaded refuses a process, on a kernel that enforces it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.vm.conftest import Boot
from tests.vm.harness.machine import Machine
from tests.vm.harness.node import Said, apply, audit, policy

FOLDER = "/etc/node-hardening/apparmor"
DENY_WRITE = "k8s-apparmor-example-deny-write"
MINE = "vm-mine"
ONE, TWO = "/tmp/one", "/tmp/two"


def profile(allowed: str, flags: str = "") -> str:
    """A profile that lets one file be written; by omission, because a `deny` refuses in complain mode as well."""
    return f"""abi <abi/3.0>,
profile {MINE} {flags} {{
  /** rmix,
  / r,
  {allowed} w,
  /dev/null w,
  unix,
  capability,
  signal,
}}
"""


@pytest.fixture
def clean(node: Machine) -> Iterator[Machine]:
    """None of our profiles in the kernel, none configured; the same afterwards."""

    def wipe() -> None:
        node.sh(
            f"rm -rf {FOLDER} /var/lib/node-hardening {ONE} {TWO}; mkdir -p {FOLDER}; "
            f"for p in {DENY_WRITE} k8s-hardened-default k8s-web-service {MINE}; do "
            'echo "profile $p { }" | apparmor_parser -K -R 2>/dev/null; done; true'
        )

    wipe()
    policy(node, apparmor={"profiles": FOLDER})
    yield node
    wipe()


def writes(machine: Machine, path: str, under: str = "unconfined") -> bool:
    """Whether a process under that profile can write the file."""
    confined = ["/usr/bin/aa-exec", "-p", under, "--"] if under != "unconfined" else []
    done = machine.run([*confined, "/bin/sh", "-c", f"echo x > {path}"], check=False)
    assert done.code == 0 or "Permission denied" in done.err, done.text
    return done.code == 0


def load(machine: Machine, text: str) -> Said:
    """Puts it into the folder and applies."""
    machine.put(f"{FOLDER}/mine", text)
    return apply(machine)


def test_a_process_under_deny_write_cannot_write_and_its_neighbour_can(clean: Machine) -> None:
    """The shipped profile of the mission, loaded by apply and asked of the kernel."""
    clean.sh(f"rmdir {FOLDER}")
    policy(clean, apparmor={})
    assert clean.run(["/usr/bin/aa-exec", "-p", DENY_WRITE, "--", "/bin/true"], check=False).code != 0
    said = apply(clean)
    assert (said.code, said.status(f"apparmor/profile/{DENY_WRITE}")) == (0, "pass")
    assert not writes(clean, ONE, DENY_WRITE)
    assert clean.sh(f"test -e {ONE}", check=False).code != 0
    assert writes(clean, ONE)
    reads = ["/usr/bin/aa-exec", "-p", DENY_WRITE, "--", "/bin/cat", ONE]
    assert clean.run(reads).out == "x\n"


def test_changed_content_under_the_same_name_takes_effect(clean: Machine) -> None:
    """The new rule refuses, the old one no longer does."""
    load(clean, profile(TWO))
    assert (writes(clean, ONE, MINE), writes(clean, TWO, MINE)) == (False, True)
    said = load(clean, profile(ONE))
    assert said.code == 0
    assert (writes(clean, ONE, MINE), writes(clean, TWO, MINE)) == (True, False)


def test_complain_mode_is_never_called_enforced(clean: Machine) -> None:
    """Asked for, it is info and refuses nothing; set by somebody else, it is drift: audit fails, apply mends it."""
    said = load(clean, profile(TWO, "flags=(complain)"))
    assert said.status(f"apparmor/profile/{MINE}") == "info"
    assert writes(clean, ONE, MINE), "complain mode refuses"
    load(clean, profile(TWO))
    assert not writes(clean, ONE, MINE)
    clean.sh(f"apparmor_parser -K -r -C {FOLDER}/mine")
    assert writes(clean, ONE, MINE)
    assert audit(clean).status(f"apparmor/profile/{MINE}") == "fail"
    assert apply(clean).status(f"apparmor/profile/{MINE}") == "pass"
    assert not writes(clean, ONE, MINE)


def test_a_profile_that_left_the_folder_leaves_the_kernel(clean: Machine) -> None:
    """Removed, and nobody else's with it."""
    clean.sh("echo 'profile vm-theirs { file, }' | apparmor_parser -K -r")
    load(clean, profile(TWO))
    assert not writes(clean, ONE, MINE)
    clean.sh(f"rm {FOLDER}/mine")
    apply(clean)
    names = clean.get("/sys/kernel/security/apparmor/profiles")
    assert f"{MINE} (" not in names
    assert "vm-theirs (" in names
    assert clean.run(["/usr/bin/aa-exec", "-p", MINE, "--", "/bin/true"], check=False).code != 0


def test_a_broken_profile_leaves_the_old_one_enforcing(clean: Machine) -> None:
    """It is refused with file and line, and what was good goes on refusing."""
    load(clean, profile(TWO))
    said = load(clean, profile(ONE).replace(f"{ONE} w,", f"{ONE} w"))
    assert said.code != 0
    assert said.status("apparmor/file/mine") == "fail"
    assert (writes(clean, ONE, MINE), writes(clean, TWO, MINE)) == (False, True)


def test_a_profile_of_a_newer_abi_loads_with_the_nodes_parser_or_is_refused_for_it(clean: Machine) -> None:
    """Ubuntu 24.04's form: where the node's parser knows `abi <abi/4.0>` it is enforced, else refused with the parser's
    reason, and what was loaded before stays."""
    load(clean, profile(TWO))
    newer = profile(ONE).replace("abi <abi/3.0>,", "abi <abi/4.0>,").replace("  unix,", "  unix,\n  userns,")
    clean.put("/tmp/newer", newer)
    parser = clean.run(["/usr/sbin/apparmor_parser", "-Q", "-K", "/tmp/newer"], check=False)
    said = load(clean, newer)
    if parser.code == 0:
        assert said.status(f"apparmor/profile/{MINE}") == "pass"
        assert (writes(clean, ONE, MINE), writes(clean, TWO, MINE)) == (True, False)
        return
    finding = said.finding("apparmor/file/mine")
    assert (said.code != 0, finding["status"], "abi/4.0" in finding["observed"]) == (True, "fail", True), finding
    assert (writes(clean, ONE, MINE), writes(clean, TWO, MINE)) == (False, True)


def test_without_apparmor_in_the_kernel_it_is_not_applicable(boot: Boot) -> None:
    """apparmor=0 on the kernel's command line: no crash, no pass, the reason is said, and the rest is done."""
    machine = boot("no-apparmor", append="apparmor=0")
    policy(machine, apparmor={}, modprobe={})
    said = apply(machine)
    assert said.code == 0
    assert said.status("apparmor/kernel") == "not-applicable"
    passes = [one["id"] for one in said.document["findings"] if one["status"] == "pass"]
    assert [one for one in passes if one.startswith("apparmor/")] == []
    assert "modprobe/sctp" in passes
