"""A throw-away node: a folder with the files by which a real node is known, for `--host-root`.

Everything a control reads is there as a plain file: kernel release and boot id, loaded modules, a module tree, a
kubelet with its command line and configuration. Nothing of the machine underneath shows through, so a demo on a laptop
never reports the laptop. It refuses to write anywhere but below the folder it was given.
"""

from __future__ import annotations

import shutil
import time
import uuid
from dataclasses import dataclass
from pathlib import Path

from agent.sandbox import kernel_modules
from agent.sandbox.kernel_modules import RELEASE

KUBELET_PID = 812
_RUNNING_KERNEL = "/proc/sys/kernel/osrelease"
_NEXT_KERNEL = "/boot/next-kernel"
_STARTED_SECONDS = 12  # after the boot

_KUBELET_ARGV = (
    "/usr/bin/kubelet",
    "--bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf",
    "--kubeconfig=/etc/kubernetes/kubelet.conf",
    "--config=/var/lib/kubelet/config.yaml",
    "--container-runtime-endpoint=unix:///run/containerd/containerd.sock",
)
_KUBELET_CONFIG = """\
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication:
  anonymous:
    enabled: false
  webhook:
    enabled: true
  x509:
    clientCAFile: /etc/kubernetes/pki/ca.crt
authorization:
  mode: Webhook
eventRecordQPS: 50
makeIPTablesUtilChains: true
podPidsLimit: 4096
protectKernelDefaults: true
rotateCertificates: true
seccompDefault: true
serverTLSBootstrap: true
tlsCipherSuites:
  - TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
  - TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
enableDebugFlagsHandler: false
enableProfilingHandler: false
"""
_STAT_FIELDS_AFTER_START = "0 " * 30
# A throw-away CA, whose key exists nowhere: valid from 2020 on, without an end.
_CA = (
    "-----BEGIN CERTIFICATE-----\n"
    "MIHYMIGLoAMCAQICAQEwBQYDK2VwMBUxEzARBgNVBAMMCmt1YmVybmV0ZXMwIBcN\n"
    "MjAwMTAxMDAwMDAwWhgPOTk5OTEyMzEyMzU5NTlaMBUxEzARBgNVBAMMCmt1YmVy\n"
    "bmV0ZXMwKjAFBgMrZXADIQAgSMGIKflN71YGR3wVnxKq1yWdJnJvqCDgoS4+R7cn\n"
    "HTAFBgMrZXADQQDmZlGc91NF9p+oLcPfdLvyIp3zlRbWunmPimmo2e2MfMfa4Hlj\n"
    "b/pgQdNIhgzaj6WPBruWQUX6e54MkZ2/PZkL\n"
    "-----END CERTIFICATE-----\n"
)


@dataclass(frozen=True, slots=True)
class NodeRoot:
    """One sandboxed node. `path` is what `--host-root` is given."""

    path: Path
    name: str

    @classmethod
    def make(cls, folder: Path, name: str = "node-1") -> NodeRoot:
        """Makes the tree; the folder must be empty or missing."""
        folder.mkdir(parents=True, exist_ok=True)
        node = cls(folder, name)
        for path, content in _files(name).items():
            node.write(path, content)
        for path, mode in _MODES.items():
            node.at(path).chmod(mode)
        for empty in ("etc/modprobe.d", "run", "var/lib/node-hardening", "var/lib/kubelet/pki", "tmp"):
            node.at(f"/{empty}").mkdir(parents=True, exist_ok=True)
        node.at("/var/run").symlink_to("/run")
        kernel_modules.build(folder, builtin=["ext4"])
        node._start(1, ("/sbin/init",), "0::/init.scope")
        node.start_kubelet()
        node.reboot()
        return node

    def at(self, path: str) -> Path:
        """Where the node's path is on this machine."""
        return self.path / path.lstrip("/")

    def write(self, path: str, content: str) -> None:
        """Writes one of the node's files, as a user on the node would."""
        target = self.at(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)

    def require_reboot(self, *packages: str) -> None:
        """Does what unattended-upgrades does after a new kernel."""
        self.write("/run/reboot-required.pkgs", "".join(f"{package}\n" for package in packages))
        self.write("/run/reboot-required", "*** System restart required ***\n")

    def install_kernel(self, release: str) -> None:
        """Does what a new kernel's package does: its modules now, the kernel itself with the next boot."""
        kernel_modules.build(self.path, builtin=["ext4"], release=release)
        self.write(_NEXT_KERNEL, f"{release}\n")

    def reboot(self) -> str:
        """Another boot id, an empty /run and the kernel installed last, as after a reboot; answers the boot id."""
        for leftover in self.at("/run").iterdir():
            leftover.unlink()
        if self.at(_NEXT_KERNEL).exists():
            self.at(_NEXT_KERNEL).replace(self.at(_RUNNING_KERNEL))
        boot_id = str(uuid.uuid4())
        self.write("/proc/sys/kernel/random/boot_id", f"{boot_id}\n")
        self._processes_start_now()
        return boot_id

    def boot_id(self) -> str:
        """The boot id that the node shows now."""
        return self.at("/proc/sys/kernel/random/boot_id").read_text().strip()

    def start_kubelet(self, argv: tuple[str, ...] = _KUBELET_ARGV) -> None:
        """Puts the kubelet's process into the node's /proc; no file has changed since it started."""
        self._start(KUBELET_PID, argv, "0::/system.slice/kubelet.service")
        self._processes_start_now()

    def _processes_start_now(self) -> None:
        """By the time of the boot, because all of them started so long after it."""
        booted = int(time.time()) - _STARTED_SECONDS
        self.write("/proc/stat", f"cpu  1 0 1 1 0 0 0 0 0 0\nbtime {booted}\n")

    def _start(self, pid: int, argv: tuple[str, ...], cgroup: str) -> None:
        """A process as the kernel shows one that is the node's own: root's, with PID 1's root and mounts."""
        folder, name = f"/proc/{pid}", argv[0].rpartition("/")[2]
        self.write(argv[0], "")
        self.write(f"{folder}/cmdline", "".join(f"{word}\0" for word in argv))
        self.write(f"{folder}/comm", f"{name}\n")
        self.write(f"{folder}/cgroup", f"{cgroup}\n")
        self.write(
            f"{folder}/stat",
            f"{pid} ({name}) S 1 {'0 ' * 17}{_STARTED_SECONDS * 100} {_STAT_FIELDS_AFTER_START.strip()}\n",
        )
        self.write(f"{folder}/status", f"Name:\t{name}\nState:\tS\nPPid:\t1\nUid:\t0\t0\t0\t0\nGid:\t0\t0\t0\t0\n")
        self.at(f"{folder}/ns").mkdir()
        for link, target in (("root", "../.."), ("cwd", "/"), ("exe", argv[0]), ("ns/mnt", "mnt:[4026531841]")):
            self.at(f"{folder}/{link}").symlink_to(target)

    def stop_kubelet(self) -> None:
        """Removes the kubelet's process."""
        shutil.rmtree(self.at(f"/proc/{KUBELET_PID}"))


_MODES = {
    "/etc/systemd/system/kubelet.service": 0o600,
    "/etc/kubernetes/kubelet.conf": 0o600,
    "/etc/kubernetes/pki/ca.crt": 0o644,
    "/var/lib/kubelet/config.yaml": 0o600,
}


def _files(name: str) -> dict[str, str]:
    return {
        "/etc/os-release": 'PRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\nID=debian\nVERSION_ID="12"\n',
        "/etc/hostname": f"{name}\n",
        "/etc/kubernetes/kubelet.conf": "apiVersion: v1\nkind: Config\n",
        "/etc/kubernetes/pki/ca.crt": _CA,
        "/etc/systemd/system/kubelet.service": "[Service]\nExecStart=/usr/bin/kubelet\n",
        "/var/lib/kubelet/config.yaml": _KUBELET_CONFIG,
        _RUNNING_KERNEL: f"{RELEASE}\n",
        "/proc/sys/kernel/modules_disabled": "0\n",
        "/proc/modules": "overlay 163840 3 - Live 0x0000000000000000\nbr_netfilter 32768 0 - Live 0x0000000000000000\n",
        "/proc/uptime": "4242.00 8000.00\n",
        "/sys/module/apparmor/parameters/enabled": "N\n",
    }
