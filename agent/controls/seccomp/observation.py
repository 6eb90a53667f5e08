"""What one observation of the node holds: the values that the control judges and plans from."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from agent.controls.manifest import Entry
from agent.controls.seccomp.kubelet_root import Place
from agent.controls.seccomp.profile_dir import Sources
from agent.controls.seccomp.refusal_records import Visibility
from agent.controls.seccomp.resolver import Platform, Resolved
from agent.controls.seccomp.runtimes import Version
from agent.errors import Problem

MODE: Final = 0o644  # runtimes read as root; users may read it too


@dataclass(frozen=True, slots=True)
class Present:
    """What stands at a path on the node. content None: nothing. error: why that is unknown."""

    content: bytes | None = None
    mode: int = MODE
    uid: int = 0
    link: bool = False
    error: str = ""


@dataclass(frozen=True, slots=True)
class Item:
    """One profile of the policy. resolved: as it should be installed, None when `problems` names why not."""

    name: str
    file: str
    path: str
    resolved: Resolved | None
    problems: tuple[Problem, ...]
    present: Present
    entry: Entry | None
    is_ours: bool


@dataclass(frozen=True, slots=True)
class Stale:
    """What was installed and is not used any more. there: whether our file still stands. error: why that is unknown.

    moved_to: the profile that takes its place where the kubelet reads now; None: it left the policy.
    """

    entry: Entry
    there: bool
    moved_to: Item | None = None
    error: str = ""

    @property
    def reason(self) -> str:
        """Why it is removed."""
        return "left the configuration" if self.moved_to is None else f"moved to {self.moved_to.path}"


@dataclass(frozen=True, slots=True)
class Observation:
    """One observation of the node."""

    place: Place
    sources: Sources
    items: tuple[Item, ...]
    stale: tuple[Stale, ...]
    platform: Platform
    manifest_error: str = ""
    library: tuple[Version, str] | None = None
    visibility: Visibility | None = None


def drift(item: Item) -> str:
    """How the installed file differs from what it should be, in words; empty when it does not."""
    if item.resolved is None:
        return ""
    if item.present.content is None:
        return "not installed"
    if item.present.link:
        return "a symlink stands in its place"
    if item.present.content != item.resolved.content:
        if item.is_ours:
            return "another version is installed"
        return "changed by another program or user" if item.entry else "a file of another owner; it is kept aside"
    return f"mode {item.present.mode:04o}" if item.present.mode != MODE else ""
