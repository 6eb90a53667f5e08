"""AppArmor: raw profiles of a folder linted, loaded, verified in the kernel, taken out when they leave the folder."""

from __future__ import annotations

from pathlib import Path

from agent.controls.apparmor.control import ApparmorControl
from agent.controls.apparmor.parser import Parser, Tool
from agent.errors import Problem
from agent.host import Host

__all__ = ["ApparmorControl", "Tool", "lint"]


def lint(text: str, file: str, host: Host) -> list[Problem]:
    """Every problem of one profile file, in the parser's words; empty when it would load.

    file: what problems call it; where it is a path, subfolders beside it are searched for includes. Raises
    CommandMissing when there is no apparmor_parser: then nothing can be said.
    """
    return list(Parser(host, include=Path(file).parent).lint(text.encode(), file).problems)
