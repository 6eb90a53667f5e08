"""Puts a command where a pod's container would be: `python -m bench.inpod FOLDER COMMAND…`, in namespaces of its own.

FOLDER takes the place of /var/run, with secrets/kubernetes.io/serviceaccount in it, and the command takes this
process's place. It refuses to do so in the machine's first mount namespace, where everybody would see it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path


def main() -> None:
    """Comes back only to refuse."""
    folder, *command = sys.argv[1:]
    # PID 1 of a PID namespace whose /proc is its own: what `unshare --mount --pid --fork --mount-proc` makes.
    if os.getpid() != 1 or Path("/proc/self").readlink() != Path("1"):
        sys.exit("bench.inpod: not in namespaces of its own")
    subprocess.run([shutil.which("mount") or "mount", "--bind", folder, str(Path("/var/run").resolve())], check=True)
    os.execv(command[0], command)


if __name__ == "__main__":
    main()
