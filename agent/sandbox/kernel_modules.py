"""Small real kernel modules for throw-away nodes: objects that kmod and depmod read like any other, byte by byte.

A module here is an ELF object with the three sections that depmod reads: .modinfo (aliases, softdeps),
__ksymtab_strings (what it exports) and .symtab (what it needs). It could not be loaded, and nothing here tries.
https://refspecs.linuxfoundation.org/elf/elf.pdf, kmod's libkmod/libkmod-elf.c
"""

from __future__ import annotations

import shutil
import struct
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

RELEASE = "6.1.0-18-amd64"

_HEADER = "<16sHHIQQQIHHHHHH"
_SECTION = "<IIQQQQIIQQ"
_SYMBOL = "<IBBHQQ"
_PROGBITS, _SYMTAB, _STRTAB = 1, 2, 3
_GLOBAL_UNDEFINED = 0x10


@dataclass(frozen=True, slots=True)
class Module:
    """What one module declares about itself."""

    name: str
    aliases: tuple[str, ...] = ()
    exports: tuple[str, ...] = ()
    needs: tuple[str, ...] = ()
    softdep: str = ""
    folder: str = "kernel/net"

    @property
    def path(self) -> str:
        """The object's path below lib/modules/RELEASE."""
        return f"{self.folder}/{self.name}.ko"

    def write(self, modules: Path) -> None:
        """Writes the object below lib/modules/RELEASE."""
        path = modules / self.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(self.object())

    def object(self) -> bytes:
        """The module as an ELF64 relocatable object."""
        info = [f"name={self.name.replace('-', '_')}", *(f"alias={alias}" for alias in self.aliases)]
        info += [f"softdep={self.softdep}"] if self.softdep else []
        names, offsets = _strings(self.needs)
        symbols = struct.pack(_SYMBOL, 0, 0, 0, 0, 0, 0) + b"".join(
            struct.pack(_SYMBOL, offset, _GLOBAL_UNDEFINED, 0, 0, 0, 0) for offset in offsets
        )
        return _elf(
            (
                (".modinfo", _PROGBITS, _nul_ended(info), 0),
                ("__ksymtab_strings", _PROGBITS, _nul_ended(self.exports), 0),
                (".symtab", _SYMTAB, symbols, 4),  # linked with the section after it
                (".strtab", _STRTAB, names, 0),
            )
        )


# As a kernel has them (`modinfo`): dccp_ipv4 and not dccp holds the alias; sctp holds its own.
DCCP_AND_SCTP = (
    Module("dccp", exports=("dccp_init_sock", "dccp_sendmsg")),
    Module("dccp_ipv4", ("net-pf-2-proto-0-type-6", "net-pf-2-proto-33-type-6"), needs=("dccp_init_sock",)),
    Module("dccp_ipv6", ("net-pf-10-proto-0-type-6", "net-pf-10-proto-33-type-6"), needs=("dccp_init_sock",)),
    Module("dccp_diag", ("net-pf-16-proto-4-type-2-33",), needs=("dccp_sendmsg",)),
    Module("libcrc32c", ("crypto-crc32c",), exports=("crc32c",)),
    Module("sctp", ("net-pf-2-proto-132", "net-pf-10-proto-132"), exports=("sctp_hash",), needs=("crc32c",)),
    Module("sctp_diag", ("net-pf-16-proto-4-type-2-132",), needs=("sctp_hash",)),
    Module("bridge", ("rtnl-link-bridge",)),
)


def build(
    root: Path, modules: Iterable[Module] = DCCP_AND_SCTP, *, builtin: Sequence[str] = (), release: str = RELEASE
) -> Path:
    """Makes ROOT/lib/modules/RELEASE and lets depmod index it, where there is one. Returns the folder of the release.

    builtin: names that modules.builtin lists. Without depmod (no kmod on this machine) this module writes the two text
    indexes that the agent reads; modprobe's own are missing, but then there is no modprobe either.
    """
    made = tuple(modules)
    folder = root / "lib/modules" / release
    folder.mkdir(parents=True)
    for module in made:
        module.write(folder)
    (folder / "modules.order").write_text("".join(f"{module.path}\n" for module in made))
    (folder / "modules.builtin").write_text("".join(f"kernel/net/{name}.ko\n" for name in builtin))
    depmod = tool("depmod")
    if depmod is not None:
        subprocess.run([depmod, "-b", str(root), release], check=True, capture_output=True, timeout=30)
    else:
        (folder / "modules.dep").write_text("".join(_dependencies(made)))
        aliases = (f"alias {alias} {module.name}\n" for module in made for alias in module.aliases)
        (folder / "modules.alias").write_text("".join(aliases))
    return folder


def _dependencies(modules: Sequence[Module]) -> Iterator[str]:
    """Lines of modules.dep."""
    exporters = {symbol: module for module in modules for symbol in module.exports}
    for module in modules:
        needed = [exporters[symbol].path for symbol in module.needs if symbol in exporters]
        yield " ".join([f"{module.path}:", *needed]) + "\n"


def tool(name: str) -> str | None:
    """Where a tool of kmod is, None when it is not installed."""
    return shutil.which(name, path="/usr/sbin:/sbin:/usr/bin:/bin")


def _nul_ended(texts: Iterable[str]) -> bytes:
    return b"".join(text.encode() + b"\0" for text in texts)


def _strings(texts: Sequence[str]) -> tuple[bytes, list[int]]:
    """A string table and where each text begins in it."""
    table = b"\0"
    offsets = []
    for text in texts:
        offsets.append(len(table))
        table += text.encode() + b"\0"
    return table, offsets


def _elf(sections: Sequence[tuple[str, int, bytes, int]]) -> bytes:
    names, offsets = _strings([*(name for name, *_ in sections), ".shstrtab"])
    everything = [*sections, (".shstrtab", _STRTAB, names, 0)]
    body = b""
    headers = struct.pack(_SECTION, *([0] * 10))
    start = struct.calcsize(_HEADER)
    for (_, kind, content, link), offset in zip(everything, offsets, strict=True):
        entry = struct.calcsize(_SYMBOL) if kind == _SYMTAB else 0
        headers += struct.pack(
            _SECTION, offset, kind, 0, 0, start + len(body), len(content), link, 1 if entry else 0, 8, entry
        )
        body += content + b"\0" * (-len(content) % 8)
    ident = b"\x7fELF" + bytes((2, 1, 1)) + b"\0" * 9
    relocatable, x86_64 = 1, 62
    header = struct.pack(
        _HEADER, ident, relocatable, x86_64, 1, 0, 0, start + len(body), 0,
        start, 0, 0, struct.calcsize(_SECTION), len(everything) + 1, len(everything),
    )  # fmt: skip
    return header + body + headers
