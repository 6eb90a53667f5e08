"""How machines run: KVM when a kernel really starts under it, else QEMU's own translation.

/dev/kvm may be there and not work (a nested machine whose host refuses), so the answer is tried, once.
"""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

# Left out is what only costs under translation: a fifth level of page tables, checks at every change between kernel and
# user, and string instructions, which are fast in silicon and go byte by byte here.
_TCG = ("-accel", "tcg,thread=multi,tb-size=256", "-cpu", "max,-la57,-smap,-smep,-erms,-fsrm")
_KVM = ("-accel", "kvm", "-cpu", "host")
_TRY_SECONDS = 15


def arguments(kernel: Path, remembered: Path) -> tuple[str, ...]:
    """QEMU's words for it. The answer is kept in `remembered`; NHA_VM_ACCEL=kvm or tcg decides otherwise."""
    chosen = os.environ.get("NHA_VM_ACCEL")
    if chosen is None:
        if not remembered.exists():
            remembered.write_text("kvm" if _kvm_works(kernel) else "tcg")
        chosen = remembered.read_text()
    return _KVM if chosen == "kvm" else _TCG


def _kvm_works(kernel: Path) -> bool:
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return False
    argv = [
        "/usr/bin/qemu-system-x86_64", *_KVM, "-m", "256", "-nodefaults", "-no-user-config", "-display", "none",
        "-serial", "stdio", "-no-reboot", "-kernel", str(kernel), "-append", "console=ttyS0 panic=-1",
    ]  # fmt: skip
    try:
        done = subprocess.run(argv, stdin=subprocess.DEVNULL, capture_output=True, timeout=_TRY_SECONDS, check=False)
    except subprocess.TimeoutExpired:
        return False
    # Without a root file system it panics and restarts, which -no-reboot makes an end.
    return b"Kernel panic" in done.stdout
