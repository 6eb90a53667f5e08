"""Kernel modules: what an unprivileged socket loads, and that it no longer does; asked of a real kernel and kmod.

sctp and dccp_ipv4 hold themselves once they are loaded (their own control sockets count as users): only a boot takes
them out. So tests that let them in go through one.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.vm.conftest import Boot
from tests.vm.harness.machine import Machine
from tests.vm.harness.node import apply, audit, policy

DENY_FILE = "/etc/modprobe.d/kubernetes-blacklist.conf"
DENIED = ("dccp", "dccp_ipv4", "dccp_ipv6", "dccp_diag", "sctp", "sctp_diag")
# What a container's process does: no right is needed for it.
SOCKET = """
import socket, sys
family, kind, protocol = (int(word) for word in sys.argv[1:])
try:
    socket.socket(family, kind, protocol)
except OSError as error:
    sys.exit(f"refused: {error.strerror}")
"""
SCTP = ("2", "1", "132")
DCCP = ("2", "6", "33")
NOBODY = 65534


@pytest.fixture
def clean(node: Machine) -> Iterator[Machine]:
    """Nothing denied, nothing of it loaded, as after the installation; the same again afterwards."""
    yield node
    node.sh("rm -rf /etc/modprobe.d/* /var/lib/node-hardening; rmmod tipc ksmbd; true")
    if any(loaded(node, name) for name in DENIED):
        boot_again(node)


def boot_again(machine: Machine) -> None:
    """A clean reboot of the same disk."""
    before = machine.boot
    machine.sh("systemctl reboot")
    machine.await_up(other_than=before)


def loaded(machine: Machine, name: str) -> bool:
    """Whether the kernel has that module."""
    return machine.sh(f"test -d /sys/module/{name}", check=False).code == 0


def test_an_unprivileged_socket_loads_sctp_until_it_is_denied(clean: Machine) -> None:
    """The mission's own case: before apply nobody's socket() brings sctp into the kernel. After it the module is said
    to be loaded still, and from the next boot on the socket is refused and nothing is loaded."""
    assert clean.python(SOCKET, *SCTP, user=NOBODY).code == 0
    assert loaded(clean, "sctp")
    policy(clean, modprobe={"unload": True})
    said = apply(clean)
    assert (said.code, said.status("modprobe/sctp"), said.status("modprobe/dccp")) == (1, "fail", "pass")
    assert "loaded; in use" in said.finding("modprobe/sctp")["observed"]
    assert "reboot" in said.finding("modprobe/sctp")["remediation"]
    boot_again(clean)
    assert audit(clean).status("modprobe/sctp") == "pass"
    refused = clean.python(SOCKET, *SCTP, user=NOBODY, check=False)
    assert (refused.code, refused.text.strip()) == (1, "refused: Protocol not supported")
    assert not loaded(clean, "sctp")


def test_a_dccp_socket_loads_dccp_where_the_alias_is_kept_until_it_is_denied(clean: Machine) -> None:
    """Debian took the alias out, others keep it: it belongs to dccp_ipv4, which a blacklist of dccp does not stop. The
    agent's file stops it."""
    aliases = "alias net-pf-2-proto-33 dccp_ipv4\nalias net-pf-2-proto-33-type-6 dccp_ipv4\n"
    clean.put("/etc/modprobe.d/dccp-aliases.conf", aliases)
    clean.put("/etc/modprobe.d/other.conf", "blacklist dccp\n")
    assert clean.python(SOCKET, *DCCP, user=NOBODY).code == 0, "a blacklist of dccp alone would do"
    assert loaded(clean, "dccp_ipv4")
    boot_again(clean)
    assert not loaded(clean, "dccp_ipv4")
    policy(clean, modprobe={})
    said = apply(clean)
    assert [said.status(f"modprobe/{name}") for name in DENIED] == ["pass"] * len(DENIED)
    refused = clean.python(SOCKET, *DCCP, user=NOBODY, check=False)
    assert refused.text.startswith("refused: ")
    assert not loaded(clean, "dccp_ipv4")
    assert not loaded(clean, "dccp")


def test_by_name_nothing_denied_is_loaded_either(clean: Machine) -> None:
    """root's modprobe is refused for every denied module, and the exit code says so."""
    policy(clean, modprobe={})
    assert apply(clean).code == 0
    for name in DENIED:
        assert clean.run(["/sbin/modprobe", name], check=False).code != 0, name
        assert not loaded(clean, name), name


def test_unload_takes_out_what_is_unused_when_it_is_asked_for(clean: Machine) -> None:
    """Off, a loaded module stays and fails. On, it stays while a socket of it is open, and goes when it is unused."""
    policy(clean, modprobe={"deny": ["tipc"]})
    clean.sh("modprobe tipc")
    said = apply(clean)
    assert (said.code, said.status("modprobe/tipc"), loaded(clean, "tipc")) == (1, "fail", True)
    hold = "import socket, time; held = socket.socket(30, socket.SOCK_SEQPACKET); time.sleep(600)"
    clean.sh(f"systemd-run -q --unit hold /usr/bin/python3 -I -c '{hold}'")
    clean.eventually("test $(cat /sys/module/tipc/refcnt) -gt 0")
    policy(clean, modprobe={"deny": ["tipc"], "unload": True})
    said = apply(clean)
    assert (said.code, said.status("modprobe/tipc"), loaded(clean, "tipc")) == (1, "fail", True)
    clean.sh("systemctl stop hold")
    clean.eventually("test $(cat /sys/module/tipc/refcnt) -eq 0")
    said = apply(clean)
    assert (said.code, said.status("modprobe/tipc"), loaded(clean, "tipc")) == (0, "pass", False)
    assert clean.run(["/sbin/modprobe", "tipc"], check=False).code != 0


def test_a_foreign_rule_that_wins_is_found_out(clean: Machine) -> None:
    """An install line that sorts before ours loads the module in spite of us: the finding fails and names file and
    line, and the kernel agrees."""
    clean.put("/etc/modprobe.d/00-theirs.conf", "# theirs\ninstall sctp /sbin/modprobe --ignore-install sctp\n")
    policy(clean, modprobe={})
    said = apply(clean)
    assert (said.code, said.status("modprobe/sctp"), said.status("modprobe/dccp")) == (1, "fail", "pass")
    told = said.finding("modprobe/sctp")
    assert "/etc/modprobe.d/00-theirs.conf:2" in told["observed"] + told["source"]
    clean.run(["/sbin/modprobe", "sctp"])
    assert loaded(clean, "sctp")


def test_a_module_with_soft_dependencies_is_refused_too(clean: Machine) -> None:
    """ksmbd brings softdeps, and kmod passes over an install line of such a module: the line alone lets it load, the
    agent's file does not."""
    clean.put("/etc/modprobe.d/kubernetes-blacklist.conf", "blacklist ksmbd\ninstall ksmbd /bin/false\n")
    clean.run(["/sbin/modprobe", "ksmbd"])
    assert loaded(clean, "ksmbd"), "kmod has mended it: the softdep line is no longer needed"
    clean.sh("rmmod ksmbd; rm /etc/modprobe.d/*")
    policy(clean, modprobe={"deny": ["ksmbd"]})
    said = apply(clean)
    assert said.status("modprobe/ksmbd") == "pass"
    assert clean.run(["/sbin/modprobe", "ksmbd"], check=False).code != 0
    assert not loaded(clean, "ksmbd")


def test_a_module_in_the_initramfs_stays_out_after_the_command_that_is_named(boot: Boot, tmp_path: Path) -> None:
    """initramfs-tools loads sctp before the root file system is there, from a modprobe.d of its own: the agent's file
    alone does not keep it out, a reboot alone does not either, and the advised command and a reboot do."""
    machine = boot("initramfs")
    machine.put("/etc/initramfs-tools/conf.d/small", "MODULES=list\nCOMPRESS=gzip\n")
    # No udev coldplugs these machines: what the tests talk through has to be there as well.
    needed = ("virtio_pci", "virtio_blk", "virtio_console", "virtio_net", "virtio_rng", "ext4", "crc32c_generic")
    machine.put("/etc/initramfs-tools/modules", "\n".join((*needed, "sctp", "")))
    machine.sh("update-initramfs -c -k $(uname -r)", seconds=600)
    boot_own_initramfs(machine, tmp_path)
    assert loaded(machine, "sctp")
    policy(machine, modprobe={})
    said = apply(machine)
    assert (said.code, said.status("modprobe/sctp"), said.status("modprobe/dccp")) == (1, "fail", "pass")
    advice = said.finding("modprobe/sctp")["remediation"]
    boot_own_initramfs(machine, tmp_path)
    assert loaded(machine, "sctp"), "a reboot alone is enough on this system"
    command = re.search(r"`(update-initramfs .+?)`", advice)
    assert command is not None, advice
    machine.sh(command[1], seconds=600)
    after = audit(machine).finding("modprobe/sctp")
    assert (after["status"], "update-initramfs" in after["remediation"]) == ("fail", False), after
    boot_own_initramfs(machine, tmp_path)
    assert not loaded(machine, "sctp")
    assert audit(machine).status("modprobe/sctp") == "pass"


def boot_own_initramfs(machine: Machine, folder: Path) -> None:
    """A clean boot with the initramfs that the machine itself has made, as its boot loader would do it."""
    initrd = folder / "initrd"
    initrd.write_bytes(machine.get_bytes(f"/boot/initrd.img-{machine.sh('uname -r').out.strip()}"))
    machine.sh("sync; systemctl poweroff")
    machine.await_off()
    machine.start(append="root=/dev/vda rw", initrd=initrd)
