"""Audit records of seccomp and AppArmor as values. Pure.

Two types of record are parsed and every other one is dropped by its number: once auditing is enabled the kernel adds
records with arguments, working directories and whole command lines. Strings of a process are quoted, or hex where they
hold a quote, a blank or a byte beyond ASCII, so that no process can forge a field.
https://github.com/torvalds/linux/blob/v6.12/kernel/auditsc.c (audit_seccomp), security/apparmor/audit.c
"""

from __future__ import annotations

import re
from enum import StrEnum
from functools import lru_cache
from typing import Final, NamedTuple

SECCOMP: Final = 1326
APPARMOR: Final = 1400  # AUDIT_AVC, SELinux's too
LARGEST_BYTES: Final = 9000  # MAX_AUDIT_MESSAGE_LENGTH and the header
_TEXT_CHARACTERS = 128


class Kind(StrEnum):
    """Who refused."""

    SECCOMP = "seccomp"
    APPARMOR = "apparmor"


class Outcome(StrEnum):
    """What became of the call. LOGGED and ALLOWED went through: seccomp's LOG, AppArmor's complain mode."""

    REFUSED = "refused"
    KILLED = "killed"
    SIGNALLED = "signalled"
    TRACED = "traced"
    LOGGED = "logged"
    ALLOWED = "allowed"
    AUDITED = "audited"


# The call went through.
HARMLESS: Final = (Outcome.LOGGED, Outcome.ALLOWED, Outcome.AUDITED)


class Record(NamedTuple):
    """One record. pid: the process, in the initial PID namespace; 0 when it was cut off.

    operation: AppArmor's word, empty for seccomp, whose call is `arch` (AUDIT_ARCH_*) and `number`. mask: what of it:
    `w`, `sys_time`, `inet raw`. target: the file or the like, as the container names it.
    """

    kind: Kind
    pid: int
    comm: str
    profile: str
    operation: str
    mask: str
    outcome: Outcome
    target: str = ""
    arch: int = 0
    number: int = -1


_HEADER = re.compile(rb"audit\((\d{1,12})\.(\d{3}):(\d{1,10})\):")
_STRING = rb'(?:"([^"]*)"|([0-9A-F]*)|\(null\))'
_SECCOMP = re.compile(
    rb"auid=\d+ uid=\d+ gid=\d+ ses=\d+(?: subj=(.*?))? pid=(\d{1,10}) comm=" + _STRING + rb" exe=" + _STRING + rb" "
    rb"sig=\d+ arch=([0-9a-f]{1,8}) syscall=(\d{1,10}) compat=\d+ ip=0x[0-9a-f]+ code=0x([0-9a-f]{1,8})"
)
_FIELD = re.compile(rb'(?:^| )([a-z_]+)=(?:"([^"]*)"|([^ "]+))')
_MODE = re.compile(r" \((?:enforce|complain|kill|unconfined|user|mixed)\)$")
_UNPRINTABLE = re.compile(r"[^\x20-\x7e]")
# SECCOMP_RET_ACTION_FULL of the code: include/uapi/linux/seccomp.h.
_ACTIONS = {
    0x80000000: Outcome.KILLED, 0x00000000: Outcome.KILLED, 0x00030000: Outcome.SIGNALLED,
    0x00050000: Outcome.REFUSED, 0x7FF00000: Outcome.TRACED, 0x7FFC0000: Outcome.LOGGED,
}  # fmt: skip
_APPARMOR = {b"DENIED": Outcome.REFUSED, b"ALLOWED": Outcome.ALLOWED, b"AUDIT": Outcome.AUDITED}
# In the order in which a rule names them. A file's mask is the one that was denied, not all that was requested.
_MASKS = (b"capname", b"family", b"sock_type", b"denied_mask", b"signal", b"fstype")


def header(text: bytes) -> tuple[float, int] | None:
    """Time in epoch seconds and serial number of any record; None for what is none."""
    found = _HEADER.match(text)
    return (int(found[1]) + int(found[2]) / 1000, int(found[3])) if found else None


def parse(number: int, text: bytes) -> Record | None:
    """A record of one of the two types; None for a profile's load, for SELinux, and for what is malformed."""
    return _parsed(number, text.partition(b"): ")[2])


@lru_cache(maxsize=256)  # whoever is refused tries again, and only the header is another one
def _parsed(number: int, body: bytes) -> Record | None:
    return _seccomp(body) if number == SECCOMP else _apparmor(body) if number == APPARMOR else None


def _seccomp(text: bytes) -> Record | None:
    found = _SECCOMP.search(text)
    outcome = _ACTIONS.get(int(found[9], 16) & 0xFFFF0000) if found else None
    if found is None or outcome is None:
        return None
    profile, pid, quoted, coded = found[1], int(found[2]), found[3], found[4]
    label = "" if profile is None else label_of(profile.decode(errors="replace"))
    return Record(Kind.SECCOMP, pid, _text(quoted, coded), label, "", "", outcome, "", int(found[7], 16), int(found[8]))


def _apparmor(text: bytes) -> Record | None:
    # Reversed, so that the first of a name wins: what follows cannot replace it.
    fields = {name: (quoted, bare) for name, quoted, bare in reversed(_FIELD.findall(text))}
    outcome = _APPARMOR.get(fields.get(b"apparmor", (b"", b""))[0])
    if outcome is None or b"profile" not in fields:
        return None

    def string(name: bytes) -> str:
        return _text(*fields.get(name, (b"", b"")))

    names = [name for name in _MASKS if name in fields and not (name == b"denied_mask" and b"family" in fields)]
    words = [_clean((fields[name][0] or fields[name][1]).decode(errors="replace")) for name in names]
    pid = fields.get(b"pid", (b"", b""))[1]
    return Record(
        Kind.APPARMOR, int(pid) if pid.isdigit() and len(pid) <= 10 else 0, string(b"comm"),
        label_of(string(b"profile")), string(b"operation"), " ".join(words)[:_TEXT_CHARACTERS], outcome,
        string(b"name"),
    )  # fmt: skip


def label_of(label: str) -> str:
    """A profile's name without its mode, sanitized; empty for `unconfined`."""
    name = _clean(_MODE.sub("", label)).removeprefix("=")
    return "" if name == "unconfined" else name


def _text(quoted: bytes | None, coded: bytes | None) -> str:
    """A string of the kernel's: quoted as it is, or hex; half a digit at a cut is left out."""
    if quoted or not coded:
        return _clean((quoted or b"").decode(errors="replace"))
    try:
        return _clean(bytes.fromhex(coded[: len(coded) // 2 * 2].decode("ascii")).decode(errors="replace"))
    except ValueError:
        return _clean(coded.decode(errors="replace"))


def _clean(text: str) -> str:
    return _UNPRINTABLE.sub("?", text[:_TEXT_CHARACTERS])
