"""The reboot command of a sandboxed node: `python -m agent.sandbox.fake_reboot [ROOT]` marks it as going down.

Without ROOT it is the node of the agent that ran it, whose working folder is the machine's: one policy for several.
As with systemctl, the command returns immediately and the machine goes down a moment later: agent.sandbox.machines does
that part. It refuses a folder that is no sandboxed node.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

MARK = ".going-down"


def main() -> int:
    """0: the machine is going down. 1: the folder is none of ours."""
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path(f"/proc/{os.getppid()}/cwd").resolve() / "root"
    if not (root / "proc/sys/kernel/random/boot_id").is_file():
        sys.stderr.write(f"{root} is no sandboxed node\n")
        return 1
    (root / MARK).touch()
    return 0


if __name__ == "__main__":
    sys.exit(main())
