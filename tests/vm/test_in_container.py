"""The agent as daemonset.yaml runs it: a privileged container, the node below /host, commands in PID 1's namespaces."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from tests.vm.harness import container
from tests.vm.harness.channel import MachineGone
from tests.vm.harness.machine import Machine
from tests.vm.harness.node import Said, policy

PROGRAMS = Path(__file__).parent / "programs"
DENY_FILE = "/etc/modprobe.d/kubernetes-blacklist.conf"
DENY_WRITE = "k8s-apparmor-example-deny-write"
# As in daemonset.yaml: the node read-only with what is mounted on it, and the four folders that are written.
MOUNTS: list[dict[str, Any]] = [
    {"destination": "/host", "type": "bind", "source": "/", "options": ["rbind", "rslave", "ro"]},
    {"destination": "/host/etc/modprobe.d", "type": "bind", "source": "/etc/modprobe.d", "options": ["bind", "rw"]},
    {"destination": "/host/etc/sysctl.d", "type": "bind", "source": "/etc/sysctl.d", "options": ["bind", "rw"]},
    {"destination": "/host/var/lib/kubelet/seccomp", "type": "bind", "source": "/var/lib/kubelet/seccomp",
     "options": ["bind", "rw"]},
    {"destination": "/host/var/lib/node-hardening", "type": "bind", "source": "/var/lib/node-hardening",
     "options": ["bind", "rw"]},
    # The container's own tree has no modules and denies nothing: who looks there instead of at the node is found out.
    {"destination": "/etc/modprobe.d", "type": "tmpfs", "source": "tmpfs"},
    {"destination": "/usr/lib/modules", "type": "tmpfs", "source": "tmpfs"},
]  # fmt: skip
AGENT = ["/opt/node-hardening/bin/node-hardening-agent"]
_PYTHON = "/opt/node-hardening/bin/python"
# docs/security.md says what each is used for.
CAPABILITIES = (
    "CAP_SYS_ADMIN", "CAP_SYS_PTRACE", "CAP_SYS_CHROOT", "CAP_MAC_ADMIN", "CAP_KILL", "CAP_SYS_MODULE",
    "CAP_DAC_OVERRIDE",
)  # fmt: skip


@pytest.fixture
def clean(node: Machine) -> Iterator[Machine]:
    """The folders that a DaemonSet makes, empty; nothing loaded."""

    def wipe() -> None:
        node.sh(
            "rm -rf /etc/modprobe.d/* /var/lib/kubelet /var/lib/node-hardening; "
            "mkdir -p /var/lib/kubelet/seccomp /var/lib/node-hardening; rmmod tipc 2>/dev/null; "
            "for name in $(sed -n 's/^\\(k8s-[^ ]*\\) .*/\\1/p' /sys/kernel/security/apparmor/profiles); do "
            'echo "profile $name { }" | apparmor_parser -K -R 2>/dev/null; done; true'
        )

    wipe()
    yield node
    wipe()


def contained(machine: Machine, *words: str, how: str = "nsenter", capabilities: tuple[str, ...] = ()) -> Said:
    """Runs the agent in a container of its own: privileged, or with these capabilities alone."""
    argv = [*AGENT, *words, "-o", "json", "--host-root", "/host", "--host-exec", how]
    done = container.run(machine, argv, mounts=MOUNTS, privileged=not capabilities, capabilities=capabilities)
    try:
        return Said(done.code, json.loads(done.out), done.err)
    except ValueError:
        raise AssertionError(f"exit {done.code}, no document:\n{done.text[-3000:]}") from None


@pytest.mark.parametrize("capabilities", [(), CAPABILITIES], ids=["privileged", "capabilities"])
def test_everything_is_done_on_the_node_and_nothing_in_the_container(
    clean: Machine, capabilities: tuple[str, ...]
) -> None:
    """One pass: the node's modprobe refuses, its loaded module is unloaded, its kernel enforces, its kubelet's folder
    has the profiles; the node's own files say so."""
    clean.sh("modprobe tipc")
    policy(clean, modprobe={"deny": ["tipc"], "unload": True}, apparmor={}, seccomp={})
    said = contained(clean, "apply", capabilities=capabilities)
    assert [one["id"] for one in said.document["findings"] if one["status"] in ("fail", "unknown")] == []
    assert said.status("modprobe/tipc") == "pass"
    assert clean.sh("test -d /sys/module/tipc", check=False).code != 0, "not unloaded"
    assert clean.run(["/sbin/modprobe", "sctp"], check=False).code != 0
    assert "install sctp /bin/false" in clean.get(DENY_FILE)
    assert f"{DENY_WRITE} (enforce)" in clean.get("/sys/kernel/security/apparmor/profiles")
    writes = ["/usr/bin/aa-exec", "-p", DENY_WRITE, "--", "/bin/sh", "-c", "echo x > /tmp/x"]
    assert clean.run(writes, check=False).code != 0
    assert clean.sh("test -s /var/lib/kubelet/seccomp/prevent-chmod.json", check=False).code == 0
    again = contained(clean, "apply", capabilities=capabilities)
    assert list(again.document.get("changes", [])) == []


def test_without_nsenter_it_would_be_the_container_that_is_asked(clean: Machine) -> None:
    """The proof that the test above can fail: as a plain child the agent unloads nothing of the node in its name, and a
    rule in the container's own modprobe.d is not taken for the node's."""
    clean.put("/etc/modprobe.d/00-theirs.conf", "install sctp /sbin/modprobe --ignore-install sctp\n")
    policy(clean, modprobe={})
    assert contained(clean, "apply").status("modprobe/sctp") == "fail"
    assert contained(clean, "audit", how="direct").status("modprobe/sctp") == "fail"


def test_a_module_that_is_loaded_later_is_seen_from_the_container(clean: Machine) -> None:
    """The node's /proc/modules, through /host."""
    policy(clean, modprobe={"deny": ["tipc"]})
    assert contained(clean, "apply").code == 0
    clean.run(["/sbin/modprobe", "--ignore-install", "tipc"])
    told = contained(clean, "audit").finding("modprobe/tipc")
    assert (told["status"], "loaded" in told["observed"]) == ("fail", True)


_HOOKS = (PROGRAMS / "run_hooks.py").read_text()
# Of what hooks on a node do; and what a container without the capability for it is refused.
_OF_ROOT = ("/bin/chown 1:1 /run/owned", "/bin/busybox ip link set lo mtu 65000", "/bin/mknod /run/null c 1 3")


@pytest.mark.parametrize("capabilities", [(), CAPABILITIES], ids=["privileged", "capabilities"])
def test_a_hook_is_roots_only_in_a_privileged_container(clean: Machine, capabilities: tuple[str, ...]) -> None:
    """PID 1's namespaces give nothing back of what the container's bounding set has not: why the container stays
    privileged."""
    clean.sh("touch /run/owned; rm -f /run/null")
    argv = [_PYTHON, "-c", _HOOKS, *_OF_ROOT]
    done = container.run(clean, argv, mounts=MOUNTS, privileged=not capabilities, capabilities=capabilities)
    assert done.out.splitlines() == [f"{not capabilities} {line}" for line in _OF_ROOT], done.text


_REBOOT = (PROGRAMS / "reboot.py").read_text()


@pytest.mark.parametrize("method", ["command", "signal"])
def test_the_node_reboots(clean: Machine, method: str) -> None:
    """`systemctl reboot` in PID 1's namespaces, and a signal to PID 1: both with these capabilities alone."""
    before = clean.boot
    argv = [_PYTHON, "-c", _REBOOT, method]
    with suppress(MachineGone):  # it may be down before the container's end is seen
        done = container.run(clean, argv, mounts=MOUNTS, capabilities=CAPABILITIES)
        assert "Traceback" not in done.text
    assert clean.await_up(before) != before


def test_kernel_settings_are_the_nodes_own(clean: Machine) -> None:
    """Set by the node's sysctl, kept by the node's systemd-sysctl at a boot, and restored in mode audit."""
    clean.sh("sysctl -q -w kernel.kptr_restrict=0 net.ipv4.conf.all.send_redirects=1")
    policy(clean, sysctl={"mode": "enforce"})
    said = contained(clean, "apply")
    assert [one["id"] for one in said.document["findings"] if one["status"] in ("fail", "unknown")] == []
    assert clean.get("/proc/sys/kernel/kptr_restrict").strip() == "1"
    clean.sh("sysctl -q -w kernel.kptr_restrict=0; /lib/systemd/systemd-sysctl")
    assert clean.get("/proc/sys/kernel/kptr_restrict").strip() == "1"
    assert list(contained(clean, "apply").document.get("changes", [])) == []
    policy(clean, sysctl={"mode": "audit"})
    assert "remove" in [one["action"] for one in contained(clean, "apply").document["changes"]]
    read = "cat /proc/sys/kernel/kptr_restrict /proc/sys/net/ipv4/conf/all/send_redirects; ls /etc/sysctl.d"
    assert clean.sh(read).out.split()[:2] == ["0", "1"]
    assert "99-node-hardening.conf" not in clean.sh(read).out


# Not kubepods.slice itself: a cgroup with processes of its own has no controllers to give to the pods below.
_POD_CGROUP = "/sys/fs/cgroup/kubepods.slice/kubepods-podb21f7c3a_44d8_4f0e_a1ce_6d0e95b0c8d2.slice"
# A pod's network behind the node, and the metadata service behind that; the firmware's tables of an EC2 instance.
_POD = """
set -e
for name in pod meta; do
    ip netns add $name
    ip link add to-$name type veth peer eth0 netns $name
    ip link set to-$name up
    ip -n $name link set lo up
    ip -n $name link set eth0 up
done
ip addr add 10.8.1.1/24 dev to-pod; ip -n pod addr add 10.8.1.2/24 dev eth0; ip -n pod route add default via 10.8.1.1
ip addr add 10.8.2.1/24 dev to-meta; ip -n meta addr add 10.8.2.2/24 dev eth0; ip -n meta route add default via 10.8.2.1
ip -n meta addr add 169.254.169.254/32 dev eth0
ip route add 169.254.169.254/32 via 10.8.2.2
sysctl -q -w net.ipv4.ip_forward=1
echo Amazon EC2 > /run/vendor
mount --bind /run/vendor /sys/devices/virtual/dmi/id/sys_vendor
mkdir -p POD
systemd-run -q --unit=meta ip netns exec meta python3 -m http.server --bind 169.254.169.254 80
systemd-run -q --unit=pod sh -c 'echo 0 > POD/cgroup.procs; exec ip netns exec pod sleep 600'
""".replace("POD", _POD_CGROUP)
_NO_POD = """
systemctl stop meta pod; umount /sys/devices/virtual/dmi/id/sys_vendor
ip netns del pod; ip netns del meta; ip route del 169.254.169.254/32
sleep 0.2; rmdir POD; true
""".replace("POD", _POD_CGROUP)
_REACH = "timeout 3 bash -c 'exec 3<>/dev/tcp/169.254.169.254/80'"


@pytest.fixture
def pod(clean: Machine) -> Iterator[Machine]:
    """A pod and the metadata service of its cloud."""
    clean.sh(_POD)
    clean.eventually(f"grep -q . {_POD_CGROUP}/cgroup.procs")
    clean.eventually(f"ip netns exec pod {_REACH}")
    yield clean
    clean.sh(_NO_POD)


def test_pods_are_kept_from_the_metadata_service_and_the_node_is_not(pod: Machine) -> None:
    """From the agent's container: the pod's network entered, the node's nft, its forward hook."""
    policy(pod, metadataAccess={})
    found = contained(pod, "audit").finding("metadata-access/imds")
    assert (found["status"], found["observed"][:18]) == ("info", "1 of 1 pods asked:"), found
    policy(pod, metadataAccess={"mode": "enforce"})
    said = contained(pod, "apply")
    assert said.status("metadata-access/rules") == "pass"
    assert said.finding("metadata-access/imds")["observed"] == "1 of 1 pods asked: 1 refused", said.document
    assert said.status("metadata-access/imds") == "pass"
    assert pod.sh(f"ip netns exec pod {_REACH}", check=False).code != 0
    assert pod.sh(_REACH, check=False).code == 0
    pod.sh("nft flush ruleset")
    assert pod.sh(f"ip netns exec pod {_REACH}", check=False).code == 0
    assert [one["action"] for one in contained(pod, "apply").document["changes"]] == ["write"]
    assert pod.sh(f"ip netns exec pod {_REACH}", check=False).code != 0
    policy(pod, metadataAccess={})
    assert [one["action"] for one in contained(pod, "apply").document["changes"]] == ["remove"]
    assert pod.sh(f"ip netns exec pod {_REACH}", check=False).code == 0
