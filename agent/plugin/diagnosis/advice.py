"""One thing that blocks a node, or where its reboot is, and how commands are spelled in its next steps. Pure."""

from __future__ import annotations

import shlex
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Advice:
    """One thing that is in the way, and what to do about it.

    code: a stable word for scripts. message: for users. next: what to type or do, the first first. short: for the
    headline, empty where `message` is short enough. until: epoch seconds when it ends by itself, 0 when it does not or
    that is unknown.
    """

    code: str
    message: str
    next: tuple[str, ...] = ()
    short: str = ""
    until: float = 0.0


def kubectl(*arguments: str) -> str:
    """A command to paste: every argument is quoted for a shell."""
    return shlex.join(("kubectl", *arguments))


def command(name: str, *arguments: str) -> str:
    """One of the plugin's commands, to paste."""
    return kubectl("node-hardening", name, *arguments)
