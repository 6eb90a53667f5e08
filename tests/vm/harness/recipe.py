"""What a virtual node is made of, and how its disk is built: once, kept under the hash of this recipe.

A Debian 12 with Debian's own kernel, systemd, and the agent's dependencies from requirements/run.txt in a virtual
environment. Where packages come from is what this machine's apt is configured with; nothing is fetched when the image
is there.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.vm.harness import guestd

ROOT = Path(__file__).resolve().parents[3]
SUITE = "bookworm"
DISK_SIZE = "3G"
VENV = "/opt/node-hardening"
PACKAGES = (
    "linux-image-cloud-amd64", "systemd-sysv", "udev", "dbus", "apparmor", "kmod", "python3", "python3-venv", "runc",
    "libseccomp2", "busybox-static", "e2fsprogs", "ca-certificates", "tzdata", "procps", "nftables", "iproute2",
    "crun", "auditd",
)  # fmt: skip
# What the first seconds need: the disk, and the port that tests talk over.
_BOOT_MODULES = ("virtio_pci", "virtio_blk", "virtio_console", "virtio_net", "virtio_rng", "ext4", "crc32c_generic")
# Nothing that tests are about: it only takes time from two cores, forty times over.
_MASKED = (
    "getty.target", "serial-getty@ttyS0.service", "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer",
    "e2scrub_all.timer", "e2scrub_reap.service", "fstrim.timer", "systemd-timesyncd.service", "systemd-pstore.service",
    "systemd-networkd.service", "systemd-update-utmp.service", "systemd-update-utmp-runlevel.service",
    "systemd-binfmt.service", "proc-sys-fs-binfmt_misc.automount", "systemd-sysusers.service",
    "systemd-udev-trigger.service", "systemd-user-sessions.service", "dev-hugepages.mount", "dev-mqueue.mount",
    "systemd-modules-load.service", "systemd-sysctl.service", "systemd-random-seed.service",
    "kmod-static-nodes.service", "systemd-journal-flush.service",
    "sys-kernel-debug.mount", "sys-kernel-tracing.mount", "sys-kernel-config.mount", "sys-fs-fuse-connections.mount",
    *(f"modprobe@{name}.service" for name in ("configfs", "dm_mod", "drm", "efi_pstore", "fuse", "loop")),
)  # fmt: skip
# A test starts it: what is about records without it needs a kernel where auditing was never enabled.
_DISABLED = ("auditd.service",)
# Makers of units for what these machines have not: each is a process more before anything starts.
_GENERATORS = (
    "systemd-cryptsetup-generator", "systemd-getty-generator", "systemd-gpt-auto-generator",
    "systemd-hibernate-resume-generator", "systemd-integritysetup-generator", "systemd-rc-local-generator",
    "systemd-system-update-generator", "systemd-sysv-generator", "systemd-veritysetup-generator",
)  # fmt: skip
_FILES = {
    "/etc/systemd/system/vm-guest.service": """[Unit]
Description=Does what the tests ask for
DefaultDependencies=no
After=local-fs.target

[Service]
ExecStart=/usr/bin/python3 -I /usr/local/lib/guestd.py
Restart=always
RestartSec=200ms
OOMScoreAdjust=-1000

[Install]
WantedBy=sysinit.target
""",
    # User-mode networking gives every machine this address; the host's loopback is 10.0.2.2.
    "/etc/systemd/system/vm-network.service": """[Unit]
Description=The address that user-mode networking expects
DefaultDependencies=no
Before=network.target

[Service]
Type=oneshot
RemainAfterExit=yes
ExecStart=/bin/busybox ip link set lo up
ExecStart=/bin/busybox ip address add 10.0.2.15/24 dev eth0
ExecStart=/bin/busybox ip link set eth0 up
ExecStart=/bin/busybox ip route add default via 10.0.2.2

[Install]
WantedBy=sysinit.target
""",
    "/etc/systemd/journald.conf.d/vm.conf": "[Journal]\nStorage=volatile\nForwardToConsole=no\n",
    "/etc/hosts": "127.0.0.1 localhost\n10.0.2.2 api\n",
}
_INIT = """#!/bin/busybox sh
/bin/busybox mount -t devtmpfs dev /dev
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t sysfs sys /sys
for module in /modules/*; do /bin/busybox insmod $module; done
tries=0
until /bin/busybox mount -t ext4 -o rw /dev/vda /root 2>/dev/null; do
    tries=$((tries + 1)); [ $tries -lt 100 ] || { echo "no root file system"; exit 1; }
    /bin/busybox usleep 100000
done
for folder in dev proc sys; do /bin/busybox mount -o move /$folder /root/$folder; done
exec /bin/busybox switch_root /root /sbin/init
"""


@dataclass(frozen=True, slots=True)
class Image:
    """A kernel, an initial file system, and the disk that machines write over."""

    kernel: Path
    initrd: Path
    disk: Path
    disk_format: str


def cache() -> Path:
    """Where images are kept: $XDG_CACHE_HOME, else .cache of the checkout."""
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) / "node-hardening-agent" if home else ROOT / ".cache") / "vm"


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One builder at a time; the others find what it made."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        yield


def base() -> Image:
    """The image without the agent, built when its recipe has none yet."""
    folder = cache() / f"base-{_key()}"
    with locked(cache()):
        if not folder.is_dir():
            _say(f"building the image {folder} (once; some minutes)")
            with tempfile.TemporaryDirectory(prefix="building-", dir=cache()) as made:
                _build(Path(made))
                (Path(made) / "image").rename(folder)
    return Image(folder / "kernel", folder / "initrd", folder / "disk.raw", "raw")


def _key() -> str:
    parts = (Path(__file__), Path(guestd.__file__), ROOT / "requirements" / "run.txt")
    return hashlib.sha256(b"\0".join(part.read_bytes() for part in parts)).hexdigest()[:16]


def _build(folder: Path) -> None:
    tree, image = folder / "tree", folder / "image"
    image.mkdir()
    mirror = _mirror()
    # INITRD=No: Debian's initial file system takes a minute to make here and is not used.
    _run(
        ["/usr/sbin/debootstrap", "--variant=minbase", f"--include={','.join(PACKAGES)}", SUITE, str(tree), *mirror],
        INITRD="No", DEBIAN_FRONTEND="noninteractive",
    )  # fmt: skip
    release = next((tree / "lib/modules").iterdir()).name
    shutil.copyfile(tree / "boot" / f"vmlinuz-{release}", image / "kernel")
    (image / "initrd").write_bytes(_initrd(folder / "initrd", tree, release))
    _install_dependencies(tree)
    for path, text in _FILES.items():
        target = tree / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    shutil.copyfile(guestd.__file__, tree / "usr/local/lib/guestd.py")
    _systemctl(tree, "enable", "vm-guest.service", "vm-network.service")
    _systemctl(tree, "set-default", "multi-user.target")
    _systemctl(tree, "mask", *_MASKED)
    _systemctl(tree, "disable", *_DISABLED)
    generators = tree / "etc/systemd/system-generators"
    generators.mkdir()
    for name in _GENERATORS:
        (generators / name).symlink_to("/dev/null")
    (tree / "usr/local/bin/node-hardening-agent").symlink_to(f"{VENV}/bin/node-hardening-agent")
    for heavy in ("usr/share/doc", "usr/share/man", "usr/share/locale", "var/cache/apt", "var/lib/apt/lists"):
        shutil.rmtree(tree / heavy, ignore_errors=True)
    _run(
        ["/usr/sbin/mke2fs", "-q", "-t", "ext4", "-E", "lazy_itable_init=0,lazy_journal_init=0", "-d", str(tree),
         str(image / "disk.raw"), DISK_SIZE]
    )  # fmt: skip


def _mirror() -> list[str]:
    """Where this machine's apt has the suite from; nothing when it does not know, then debootstrap's default counts."""
    fields = "$(CREATED_BY) $(CODENAME) $(COMPONENT) $(REPO_URI)"
    known = subprocess.run(
        ["/usr/bin/apt-get", "indextargets", "--format", fields], capture_output=True, text=True, check=False
    ).stdout
    found = [line.split()[3] for line in known.splitlines() if line.startswith(f"Packages {SUITE} main ")]
    return found[:1]


def _install_dependencies(tree: Path) -> None:
    wheels = tree / "var/tmp/wheels"
    requirements = ROOT / "requirements" / "run.txt"
    _run(
        [sys.executable, "-m", "pip", "--disable-pip-version-check", "download", "-q", "--require-hashes",
         "--only-binary", ":all:", "--python-version", "3.11", "-d", str(wheels), "-r", str(requirements)]
    )  # fmt: skip
    shutil.copyfile(requirements, wheels / "run.txt")
    chroot = ["/usr/sbin/chroot", str(tree)]
    _run([*chroot, "/usr/bin/python3", "-m", "venv", VENV])
    _run(
        [*chroot, f"{VENV}/bin/pip", "install", "-q", "--no-index", "--find-links", "/var/tmp/wheels",
         "--require-hashes", "-r", "/var/tmp/wheels/run.txt"]
    )  # fmt: skip
    shutil.rmtree(wheels)


def _initrd(folder: Path, tree: Path, release: str) -> bytes:
    """busybox, the modules in the order in which they load, and a script that mounts the disk."""
    for name in ("bin", "modules", "dev", "proc", "sys", "root"):
        (folder / name).mkdir(parents=True)
    shutil.copy(tree / "bin/busybox", folder / "bin/busybox")
    modules = tree / "lib/modules" / release
    needs = dict(line.split(":", 1) for line in (modules / "modules.dep").read_text().splitlines())
    paths = {Path(path).name.removesuffix(".ko").replace("-", "_"): path for path in needs}
    ordered: list[str] = []
    for name in _BOOT_MODULES:
        if name in paths:  # else built in
            ordered += [path for path in [*reversed(needs[paths[name]].split()), paths[name]] if path not in ordered]
    for number, path in enumerate(ordered):
        shutil.copyfile(modules / path, folder / "modules" / f"{number:02}-{Path(path).name}")
    (folder / "init").write_text(_INIT)
    (folder / "init").chmod(0o755)
    names = "\n".join(str(path.relative_to(folder)) for path in sorted(folder.rglob("*")))
    return subprocess.run(
        ["/usr/bin/cpio", "--quiet", "-o", "-H", "newc"], input=names.encode(), cwd=folder, check=True,
        capture_output=True,
    ).stdout  # fmt: skip


def _systemctl(tree: Path, *words: str) -> None:
    _run(["/usr/sbin/chroot", str(tree), "/usr/bin/systemctl", "-q", *words])


def _run(argv: list[str], **environment: str) -> None:
    done = subprocess.run(
        argv, capture_output=True, text=True, env={**os.environ, **environment}, stdin=subprocess.DEVNULL, check=False
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(argv)}: exit {done.returncode}\n{(done.stdout + done.stderr)[-4000:]}")


def _say(text: str) -> None:
    os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"\ntests/vm: {text}\n".encode())
