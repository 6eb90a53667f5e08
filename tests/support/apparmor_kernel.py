"""A stand-in for AppArmor's part of the kernel: a tree of regular files, and a parser that brings them to life.

The parser is the real apparmor_parser, with its real command line; it compiles and writes its policy to the tree's
`.replace` and `.remove` as it would to securityfs. When it is done, this wrapper does what the kernel does with that:
keeps `profiles` and `policy/profiles/*/{name,sha1}`, with the kernel's own way to hash (checked on Linux 6.1).
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

PARSER = "/usr/sbin/apparmor_parser"
# The parser loads for root alone. What it loads into is files here, so that root of a user namespace of its own does.
_AS_ROOT = () if os.geteuid() == 0 else ("/usr/bin/unshare", "--user", "--map-root-user", "--")
BOOT_ID = "11111111-2222-3333-4444-555555555555"
_HEADER = b"\x04\x08\x00version\x00\x02"
_PROFILE = re.compile(rb"\x04\x08\x00profile\x00\x07\x05(..)", re.DOTALL)
_MODE = re.compile(rb"\x04\x06\x00flags\x00\x07\x02....\x02(.)", re.DOTALL)


class StandIn:
    """A node's tree with AppArmor on. `parser` is the program to give to the control."""

    def __init__(self, root: Path, work: Path) -> None:
        self.root = root
        self.apparmorfs = root / "sys/kernel/security/apparmor"
        files = {
            "sys/module/apparmor/parameters/enabled": "Y\n",
            "sbin/apparmor_parser": "",
            "proc/sys/kernel/random/boot_id": f"{BOOT_ID}\n",
            "proc/1/attr/current": "unconfined\n",
            "sys/kernel/security/apparmor/features/policy/set_load": "yes\n",
            "sys/kernel/security/apparmor/features/policy/versions/v8": "yes\n",
            "sys/kernel/security/apparmor/features/file/mask": "create read write exec append mmap_exec link lock\n",
            "sys/kernel/security/apparmor/features/mount/mask": "mount umount pivot_root\n",
            "sys/kernel/security/apparmor/features/ptrace/mask": "read trace\n",
            "sys/kernel/security/apparmor/features/caps/mask": "chown net_raw sys_admin\n",
            "sys/kernel/security/apparmor/features/domain/version": "1.2\n",
            "sys/kernel/security/apparmor/features/network_v8/af_mask": "unspec unix inet inet6 netlink packet\n",
        }
        files |= {f"sys/kernel/security/apparmor/{name}": "" for name in (".load", ".replace", ".remove", "profiles")}
        for name, content in files.items():
            path = root / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(content)
        self.parser = work / "apparmor_parser"
        self.parser.write_text(f'#!/bin/sh\nexec {sys.executable} {Path(__file__).resolve()} "$@"\n')
        self.parser.chmod(0o755)

    @property
    def profiles(self) -> dict[str, str]:
        """What the kernel lists: mode by name."""
        lines = (self.apparmorfs / "profiles").read_text().splitlines()
        return {line.rpartition(" (")[0]: line.rpartition(" (")[2][:-1] for line in lines}

    def load(self, text: str, *options: str) -> None:
        """Somebody else loads a profile."""
        argv = [str(self.parser), "-K", "-r", "--kernel-features", str(self.apparmorfs / "features")]
        argv += ["-f", str(self.apparmorfs), *options, "/proc/self/fd/0"]
        subprocess.run(argv, input=text.encode(), check=True, capture_output=True)

    def unload(self, name: str) -> None:
        """Somebody else takes a profile out."""
        _keep(self.apparmorfs, {}, {name})

    def reboot(self) -> None:
        """The kernel forgets everything and has another boot id."""
        _keep(self.apparmorfs, {}, set(self.profiles))
        (self.root / "proc/sys/kernel/random/boot_id").write_text("66666666-7777-8888-9999-000000000000\n")

    def run_under(self, label: str, pid: int = 4242) -> Path:
        """A process under a profile, as /proc shows it. Returns its folder, to be removed when it ends."""
        folder = self.root / f"proc/{pid}"
        (folder / "attr").mkdir(parents=True)
        (folder / "attr/current").write_text(f"{label}\n")
        return folder


def cannot_load() -> str:
    """Why profiles cannot be loaded into a stand-in here; empty where they can."""
    if not Path(PARSER).exists():
        return "needs Debian's apparmor (apparmor_parser)"
    done = subprocess.run([*_AS_ROOT, "/bin/true"], capture_output=True, text=True, check=False)
    return done.stderr and f"not root, and no user namespace: {done.stderr.strip()}"


def _compiled(blob: bytes) -> Iterator[tuple[str, str, str]]:
    """Name, mode and the kernel's hash of every profile in the parser's binary output."""
    starts = [match.start() for match in re.finditer(re.escape(_HEADER), blob)]
    for start, end in zip(starts, [*starts[1:], len(blob)], strict=True):
        part = blob[start:end]
        body = part[len(_HEADER) + 4 :]
        name, mode = _PROFILE.search(part), _MODE.search(part)
        assert name is not None
        assert mode is not None
        text = part[name.end() : name.end() + int.from_bytes(name[1], "little") - 1].decode()
        hashed = hashlib.sha1(part[len(_HEADER) : len(_HEADER) + 4] + body).hexdigest()
        yield text, "complain" if mode[1] == b"\x01" else "enforce", hashed


def _keep(apparmorfs: Path, loaded: dict[str, tuple[str, str]], removed: set[str]) -> None:
    path = apparmorfs / "profiles"
    held = {line.rpartition(" (")[0]: line.rpartition(" (")[2][:-1] for line in path.read_text().splitlines()}
    held |= {name: mode for name, (mode, _) in loaded.items()}
    held = {name: mode for name, mode in held.items() if not any(f"{name}//".startswith(f"{r}//") for r in removed)}
    path.write_text("".join(f"{name} ({mode})\n" for name, mode in held.items()))
    for name, (_, hashed) in loaded.items():
        folder = apparmorfs / "policy"
        for part in name.split("//"):
            folder = folder / "profiles" / f"{part.lstrip('/').replace('/', '.').replace(' ', '_')}.0"
            folder.mkdir(parents=True, exist_ok=True)
            (folder / "name").write_text(f"{part}\n")
        (folder / "sha1").write_text(f"{hashed}\n")


def main(argv: list[str]) -> int:
    """The parser's command line: runs the real one, then is the kernel."""
    content = sys.stdin.buffer.read()
    loading = "-r" in argv or "-R" in argv
    apparmorfs = Path(argv[argv.index("-f") + 1]) if loading else Path()
    if loading:
        for name in (".replace", ".remove"):
            os.truncate(apparmorfs / name, 0)
    real = subprocess.run([*_AS_ROOT, PARSER, *argv], input=content, check=False)
    if real.returncode or not loading:
        return real.returncode
    if "-R" in argv:
        _keep(apparmorfs, {}, set((apparmorfs / ".remove").read_bytes().decode().strip("\0").split("\0")))
        return 0
    assert (apparmorfs / ".replace").read_bytes().startswith(_HEADER), "the real parser wrote no policy"
    compiling = ["-S" if one == "-r" else one for one in argv]
    compiled = subprocess.run([PARSER, *compiling], input=content, check=True, capture_output=True).stdout
    _keep(apparmorfs, {name: (mode, hashed) for name, mode, hashed in _compiled(compiled)}, set())
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
