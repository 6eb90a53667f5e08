"""The node's folders as a container's runtime mounts them where they are symlinks on the node."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

NAMESPACES = ("unshare", "--user", "--map-root-user", "--mount")

# runc puts the mount of /host/var/lib/kubelet/seccomp where the node's symlink leads inside the container.
CONTAINER = """
set -e
mount -t tmpfs none "$1"
mkdir -p "$1/node/var/lib" "$1/node$2/seccomp" "$1/host" "$2/seccomp"
ln -s "$2" "$1/node/var/lib/kubelet"
mount --bind "$1/node" "$1/host"
mount -o remount,ro,bind "$1/host"
[ -z "$4" ] || mount --bind "$1/node$2/seccomp" "$2/seccomp"
exec "$3" -c '
import sys
from agent.errors import HostFileError
from agent.host import Host
host = Host(sys.argv[1] + "/host")
try:
    host.write("/var/lib/kubelet/seccomp/sub/a.json", b"{}", mode=0o600)
    print(open(sys.argv[1] + "/node" + sys.argv[2] + "/seccomp/sub/a.json").read())
    again = host.write("/var/lib/kubelet/seccomp/sub/a.json", b"{}", mode=0o600)
    print(again, host.remove("/var/lib/kubelet/seccomp/sub/a.json"))
except HostFileError as error:
    print(error)
' "$1" "$2"
"""


def run(tmp_path: Path, *, mounted: bool) -> list[str]:
    """What writing a profile below the symlinked folder gives, line by line."""
    data = tmp_path / "data/kubelet"
    data.mkdir(parents=True)
    root = tmp_path / "container"
    root.mkdir()
    argv = [*NAMESPACES, "sh", "-c", CONTAINER, "sh", str(root), str(data), sys.executable, "yes" if mounted else ""]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=300, check=False)
    if "unshare failed" in done.stderr or "permission denied" in done.stderr:
        pytest.skip("no mount namespaces here")
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_symlinked_folder_is_written_through_the_mount_that_the_runtime_made(tmp_path: Path) -> None:
    """A folder is made, a file is written once, and removed: on the node, by way of the mount outside of the root."""
    assert run(tmp_path, mounted=True) == ["{}", "False True"]


def test_a_folder_that_is_mounted_nowhere_names_what_to_mount(tmp_path: Path) -> None:
    """The node's real folder, and where the container needs it."""
    (line,) = run(tmp_path, mounted=False)
    data = tmp_path / "data/kubelet/seccomp"
    assert f"mount the node's folder {data} writable at {tmp_path}/container/host{data}" in line
