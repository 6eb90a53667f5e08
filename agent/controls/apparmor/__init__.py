"""AppArmor: raw profiles of a folder linted, loaded, verified in the kernel, removed when they leave the folder."""

from __future__ import annotations

import re
from pathlib import Path

from agent.config.recognition import Claim
from agent.controls.apparmor.control import ApparmorControl
from agent.controls.apparmor.deny_records import restored
from agent.controls.apparmor.parser import Parser, Tool
from agent.controls.base import FileType
from agent.errors import Problem
from agent.host import Host

__all__ = ["FILE_TYPE", "ApparmorControl", "Tool", "lint", "restored"]

# What begins a file of profiles; see apparmor.d(5). The first three belong to AppArmor alone.
_PREAMBLE = re.compile(
    r"""[ \t]*(?:
        abi [ \t]+ [<"]
        | \#? include [ \t]+ (?: if [ \t]+ exists [ \t]+ )? [<"] (?:abstractions|tunables|local|abi)/ [^>".]*[>"]
        | [@$] \{? \w+ \}? [ \t]* \+?=
        | alias [ \t]+ /\S* [ \t]* ->
        | (?:profile|hat) [ \t]+ ["@/:\w]
        | "? (?:/|@\{) [^=:()\n]* (?:flags [^{\n]*)? \{ [ \t]*(?:\#.*)?$
    )""",
    re.VERBOSE,
)
_OWN_WORDS = re.compile(
    r"""^[ \t]*(?:
        abi [ \t]+ [<"] | \#? include [ \t] [^\n]* (?:abstractions|tunables)/
        | include [ \t]+ if [ \t]+ exists [ \t]+ [<"]
        | (?:profile\b|["/@]) [^\n]* flags [ \t]* = | @\{\w+\} [ \t]* \+?=
        | alias [ \t]+ /\S* [ \t]* -> [^;{}\n]+ , [ \t]* $
        | (?:deny|audit|owner|link) [ \t]+ (?:["/@]|owner|file|capability|network|signal|ptrace|unix|dbus|u?mount)
          [^;{}\n]* $
        | (?:capability(?:[ \t]+[a-z_]+)*|file|network(?:[ \t]+(?:inet6?|unix|netlink|packet|stream|dgram|raw|tcp|udp))*
          |(?:signal|ptrace|unix|dbus|mount|umount|change_profile) [ \t]* [("/@][^{};=\n]*) [ \t]* ,? [ \t]* $
        | (?:network|signal|ptrace|unix|dbus|mount|remount|pivot_root|mqueue) [ \t]+ (?![=:]) [^{};\n]* , [ \t]* $
        | (?:file [ \t]+)? ["/@][^\n;]*? [ \t] [rwaxmklpiuPUCc]+ (?:[ \t]*->[^\n]*)? ,? [ \t]* (?:\#.*)? $
    )""",
    re.MULTILINE | re.VERBOSE,
)
_MODELINE = re.compile(r"^#\s*(?:vim|ex):.*apparmor", re.MULTILINE)
# A comment with the name; a header of a profile in a file without assignments, which other languages would have.
_NAMED = re.compile(
    r"^#.*\bAppArmor\b|\A(?:\s|#.*\n)*profile[ \t][^\n]*\{[ \t]*\n(?![\s\S]*^[ \t]*\w+[ \t]*[=:])",
    re.MULTILINE | re.IGNORECASE,
)
# Source code, but for files that are named after a program as apparmor.d's are: `usr.bin.php`.
_CODE = re.compile(
    r"(?!(?:usr|s?bin|opt|etc|snap|var|lib\w*)\.).*\.(?:[ch]|cc|cpp|go|java|js|ts|lua|php|pl|pm|py|rb|rs|sh|tf|hcl)"
)
_BLOCK = re.compile(r"^[ \t]*(?:profile\b.*|.*\{|\})[ \t]*$", re.MULTILINE)


def lint(text: str, file: str, host: Host) -> list[Problem]:
    """Every problem of one profile file, in the parser's words; empty when it would load.

    file: its name in problems; where it is a path, subfolders beside it are searched for includes. Raises
    CommandMissing without an apparmor_parser.
    """
    return list(Parser(host, include=Path(file).parent).lint(text.encode(), file).problems)


def _claim(content: str, path: str) -> Claim:
    """By the first line that is no comment, and words that only AppArmor has; what profiles include is none."""
    if path.endswith((".yaml", ".yml", ".json")) or Path(path).parent.name in ("abstractions", "tunables", "abi"):
        return Claim.NONE
    if _CODE.fullmatch(Path(path).name):
        return Claim.POSSIBLE
    lines = [line for line in content.splitlines() if _PREAMBLE.match(line) or line.strip()[:1] not in ("", "#")]
    if not any(map(_PREAMBLE.match, lines)):
        return Claim.NONE
    begins = _PREAMBLE.match(lines[0]) or _MODELINE.search(content)
    if not begins or not _BLOCK.search(content):
        return Claim.POSSIBLE
    in_place = Path(path).parent.name in ("apparmor", "apparmor.d")
    certain = in_place or _OWN_WORDS.search(content) or _NAMED.search(content)
    return Claim.CERTAIN if certain else Claim.POSSIBLE


FILE_TYPE = FileType("AppArmor profile", _claim, lint)
