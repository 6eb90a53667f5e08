"""AppArmor: raw profiles of a folder linted, loaded, verified in the kernel, removed when they leave the folder."""

from __future__ import annotations

import re
from pathlib import Path

from agent.controls.apparmor.control import ApparmorControl
from agent.controls.apparmor.parser import Parser, Tool
from agent.controls.base import FileType
from agent.errors import Problem
from agent.host import Host

__all__ = ["FILE_TYPE", "ApparmorControl", "Tool", "lint"]

_PROFILE_LINE = re.compile(
    r"""^[ \t]*(
        profile [ \t]+ ["@/:\w] [^=()\n]* \{ [ \t]*$         # profile NAME {
        | "? (/|@\{) [^=():\n]* \{ [ \t]*$                   # /usr/bin/foo {
        | abi [ \t]+ <
        | \#? include [ \t]+ < (abstractions|tunables)
    )""",
    re.MULTILINE | re.VERBOSE,
)


def lint(text: str, file: str, host: Host) -> list[Problem]:
    """Every problem of one profile file, in the parser's words; empty when it would load.

    file: its name in problems; where it is a path, subfolders beside it are searched for includes. Raises
    CommandMissing without an apparmor_parser.
    """
    return list(Parser(host, include=Path(file).parent).lint(text.encode(), file).problems)


def _matches(content: str, path: str) -> bool:
    if path.endswith((".yaml", ".yml", ".json")) or content.lstrip().startswith("{"):
        return False
    code = "\n".join(line for line in content.splitlines() if not line.lstrip().startswith("#"))
    return "profile" in code or "{" in code


def _is_certain(content: str, path: str) -> bool:
    return (Path(path).parent.name == "apparmor" and not Path(path).suffix) or bool(_PROFILE_LINE.search(content))


FILE_TYPE = FileType("AppArmor profile", _matches, lint, is_certain=_is_certain)
