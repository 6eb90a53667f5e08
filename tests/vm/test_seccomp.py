"""seccomp: a container that runc starts with the installed profile, as the kubelet hands it over, on a real kernel."""

from __future__ import annotations

import json
from typing import Any

from tests.vm.harness import container
from tests.vm.harness.machine import Machine
from tests.vm.harness.node import apply, policy

INSTALLED = "/var/lib/kubelet/seccomp"
# By number, past whatever a libc makes of chmod(): 90, 91, 268 and 452 on x86_64. And what the shell's chmod does.
CHMODS = """
import ctypes, errno, json, os, subprocess
open("/tmp/f", "w").close()
fd = os.open("/tmp/f", os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
def call(number, *words):
    ctypes.set_errno(0)
    return "done" if libc.syscall(number, *words) == 0 else errno.errorcode[ctypes.get_errno()]
print(json.dumps({
    "chmod": call(90, b"/tmp/f", 0o600),
    "fchmod": call(91, fd, 0o640),
    "fchmodat": call(268, -100, b"/tmp/f", 0o644),
    "fchmodat2": call(452, -100, b"/tmp/f", 0o600, 0),
    "program": subprocess.run(["/bin/chmod", "600", "/tmp/f"], capture_output=True).returncode,
    "mode": oct(os.stat("/tmp/f").st_mode & 0o777),
}))
"""
REFUSED = dict.fromkeys(("chmod", "fchmod", "fchmodat", "fchmodat2"), "EPERM")
OLD_FORM = {
    "defaultAction": "SCMP_ACT_ALLOW",
    "syscalls": [{"name": name, "action": "SCMP_ACT_ERRNO"} for name in ("chmod", "fchmod", "fchmodat", "fchmodat2")],
}


def chmods(machine: Machine, profile: dict[str, Any] | None) -> dict[str, Any]:
    """What each form of chmod came to in a container under that profile."""
    handed = container.as_containerd(profile) if profile is not None else None
    done = container.run(machine, ["/usr/bin/python3", "-I", "-c", CHMODS], seccomp=handed)
    assert done.code == 0, done.text
    result: dict[str, Any] = json.loads(done.out)
    return result


def test_chmod_is_refused_in_all_its_forms_and_without_the_profile_in_none(node: Machine) -> None:
    """The shipped profile of the mission. 6.1 has no fchmodat2: its EPERM is the filter's, ENOSYS is the kernel's."""
    policy(node, seccomp={})
    assert apply(node).status("seccomp/profile/prevent-chmod.json") == "pass"
    seen = chmods(node, json.loads(node.get(f"{INSTALLED}/prevent-chmod.json")))
    assert {name: seen[name] for name in REFUSED} == REFUSED
    assert (seen["program"], seen["mode"]) == (1, "0o644")
    free = chmods(node, None)
    assert (free["chmod"], free["fchmod"], free["fchmodat"], free["program"]) == ("done", "done", "done", 0)
    assert free["fchmodat2"] in ("ENOSYS", "done")


def test_the_old_form_is_enforced_only_as_the_agent_writes_it(node: Machine) -> None:
    """`name` reaches runc as no name at all and refuses nothing; installed by the agent the same file refuses."""
    given = "/etc/node-hardening/seccomp/prevent-chmod"
    node.put(given, json.dumps(OLD_FORM))
    policy(node, seccomp={})
    said = apply(node)
    assert said.status("seccomp/profile/prevent-chmod") == "pass"
    seen = chmods(node, json.loads(node.get(f"{INSTALLED}/prevent-chmod")))
    assert {name: seen[name] for name in REFUSED} == REFUSED
    untouched = chmods(node, OLD_FORM)
    assert untouched["chmod"] == "done", "runc reads the old form after all"
    node.sh("rm -r /etc/node-hardening/seccomp")


def test_every_shipped_profile_starts_a_container(node: Machine) -> None:
    """What is installed is taken by this runc and libseccomp, and an ordinary program runs under it."""
    policy(node, seccomp={})
    assert apply(node).code == 0
    names = node.sh(f"cd {INSTALLED} && find . -type f").out.split()
    assert len(names) >= 3
    for name in names:
        handed = container.as_containerd(json.loads(node.get(f"{INSTALLED}/{name}")))
        done = container.run(node, ["/bin/cat", "/etc/hostname"], seccomp=handed)
        assert done.code == 0, f"{name}: {done.text}"
