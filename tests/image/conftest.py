"""The image, built once for all tests here: a base made by debootstrap, no image registry, storage of its own.

Needs root, buildah, podman, runc and debootstrap (`make image-test` installs them) and Debian's and PyPI's archives.
Nothing outside of the storage folder changes; it is removed afterwards. The base tree stays in .cache for the next run.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from agent import __version__

ROOT = Path(__file__).resolve().parents[2]
SUITE = "bookworm"
# What the tree is made of; another value makes another tree.
DEBOOTSTRAP = ("--variant=minbase", SUITE)
TAG = "node-hardening-agent:test"
BASE = "nha-base:test"
EPOCH = 1_767_225_600  # 2026-01-01T00:00:00Z, for what would otherwise be the time of the build
TOOLS = ("buildah", "podman", "runc", "debootstrap")
PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class Engine:
    """Where images are kept, and the commands that know it."""

    storage: Path
    driver: str

    @property
    def where(self) -> list[str]:
        """The options that buildah and podman share."""
        return [
            "--root", str(self.storage / "root"), "--runroot", str(self.storage / "run"),
            "--storage-driver", self.driver,
        ]  # fmt: skip

    def buildah(self, *words: str) -> str:
        """Runs buildah; answers what it printed."""
        return _run(["buildah", *self.where, *words])

    def podman(self, *words: str) -> list[str]:
        """The command line of podman with runc, without cgroups of systemd."""
        return [
            "podman", *self.where, "--runtime", shutil.which("runc", path=PATH) or "runc",
            "--cgroup-manager", "cgroupfs", *words,
        ]  # fmt: skip


@dataclass(frozen=True)
class Image:
    """The built image, and the SBOM that was written beside it."""

    engine: Engine
    sbom: Path

    def command(self, *words: str, options: tuple[str, ...] = ()) -> list[str]:
        """A container as daemonset.yaml runs it: privileged, in the host's PID and network, its root read-only."""
        return self.engine.podman(
            "run", "--network=host", "--pid=host", "--privileged", "--read-only",
            "--ulimit", "nofile=1024:4096", "--ulimit", "nproc=1000:1000", *options, TAG, *words,
        )  # fmt: skip

    def run(self, *words: str, options: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        """Runs a container to its end."""
        command = self.command(*words, options=("--rm", *options))
        return subprocess.run(command, capture_output=True, text=True, timeout=180, check=False, env=_environment())

    def python(self, code: str) -> str:
        """What code prints in the image's interpreter."""
        done = self.run("-c", code, options=("--entrypoint", "/usr/bin/python3"))
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="session")
def engine() -> Iterator[Engine]:
    """Storage for images, or a skip that says what is missing."""
    if os.geteuid() != 0:
        pytest.skip("not root: images are built and run as root here")
    missing = [tool for tool in TOOLS if not shutil.which(tool, path=PATH)]
    if missing:
        pytest.skip(f"missing: {', '.join(missing)}; `make image-test` installs them as root")
    # Overlays do not stack: /var/tmp is a disk more often than /tmp.
    storage = Path(tempfile.mkdtemp(prefix="nha-image-", dir="/var/tmp"))
    try:
        yield Engine(storage, _driver(storage))
    finally:
        _remove(storage)


@pytest.fixture(scope="session")
def image(engine: Engine) -> Image:
    """The image, built by tools/image as `make image` does."""
    container = engine.buildah("from", "scratch").strip()
    engine.buildah("copy", "--quiet", container, str(_base_tree()), "/")
    engine.buildah("commit", "--quiet", "--rm", container, BASE)
    flags = {
        "BUILDER": "buildah",
        "BUILDER_GLOBAL": " ".join(engine.where),
        "BUILDER_FLAGS": "--isolation chroot",
        "BASE": f"localhost/{BASE}",
        "SOURCE_DATE_EPOCH": str(EPOCH),
    }
    _run([str(ROOT / "tools" / "image"), str(Path(sys.executable).parent), TAG], flags)
    return Image(engine, ROOT / "dist" / f"node-hardening-agent-{__version__}.cdx.json")


def _base_tree() -> Path:
    """A minimal Debian, made once."""
    key = hashlib.sha256(" ".join(DEBOOTSTRAP).encode()).hexdigest()[:12]
    tree = ROOT / ".cache" / "image" / f"base-{key}"
    if not tree.is_dir():
        tree.parent.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix="base-", dir=tree.parent))
        try:
            _run(["debootstrap", *DEBOOTSTRAP, str(fresh)])
        except subprocess.CalledProcessError as error:
            shutil.rmtree(fresh)
            pytest.skip(f"debootstrap makes no base here: {error.output.strip().splitlines()[-1:]}")
        for archive in (fresh / "var/cache/apt/archives").glob("*.deb"):
            archive.unlink()
        fresh.chmod(0o755)
        fresh.rename(tree)
    return tree


def _driver(storage: Path) -> str:
    """overlay where the kernel and the disk take it, else vfs, which copies every layer."""
    probe = Engine(storage, "overlay")
    try:
        probe.buildah("rm", probe.buildah("from", "scratch").strip())
    except subprocess.CalledProcessError:
        return "vfs"
    return "overlay"


def _run(argv: list[str], environment: dict[str, str] | None = None) -> str:
    """Standard output. Raises CalledProcessError with all that was said; a failed build shows its end."""
    done = subprocess.run(
        argv, capture_output=True, text=True, timeout=900, check=False, cwd=ROOT, env=_environment(environment)
    )
    if done.returncode:
        said = f"{done.stdout}\n{done.stderr}"
        sys.stderr.write(f"{' '.join(argv)}: {done.returncode}\n{said[-4000:]}\n")
        raise subprocess.CalledProcessError(done.returncode, argv, said)
    return done.stdout


def _environment(more: dict[str, str] | None = None) -> dict[str, str]:
    """This process's, with every folder of root's tools; proxies and archives' settings stay."""
    return {**os.environ, "PATH": PATH, "DEBIAN_FRONTEND": "noninteractive", **(more or {})}


def _remove(storage: Path) -> None:
    """Unmounts what is mounted below, innermost first, and removes it all."""
    mounts = [line.split()[1] for line in Path("/proc/self/mounts").read_text().splitlines()]
    for mounted in reversed([mount for mount in mounts if mount.startswith(f"{storage}/")]):
        subprocess.run(["umount", "-l", mounted], check=False, timeout=60, env=_environment())
    shutil.rmtree(storage, ignore_errors=True)
