"""One thing that stands in a node's way, and how our commands are spelled in its next steps. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Reason:
    """One thing that stands in the way, or where a reboot is.

    code: a stable word for scripts. said: in words. next: what to type or do, the first first. short: for the headline,
    empty where `said` is short enough. until: epoch seconds when it ends by itself, 0 when it does not or nobody knows.
    """

    code: str
    said: str
    next: tuple[str, ...] = ()
    short: str = ""
    until: float = 0.0


def ask(command: str, *arguments: str) -> str:
    """A command of ours as people type it."""
    return " ".join(("kubectl node-hardening", command, *arguments))
