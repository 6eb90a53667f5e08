"""What differs between the folder and the kernel, profile by profile. Pure; findings and steps both use it.

Two rules take precedence. A profile in the kernel that this agent did not load is never replaced and never
removed: it may confine the runtime or the distribution's services. And a profile that left the configuration stays
while processes run under it: the kernel would leave them unconfined (aa_label_remove() in
security/apparmor/label.c).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from agent.controls.apparmor.deny_records import NOT_REQUIRED, DenyRecords
from agent.controls.apparmor.securityfs import Kernel, Lsm, covers
from agent.controls.manifest import Entry
from agent.errors import Problem

ENFORCING = ("enforce", "kill")
_REPLACED = "replaced with other content"


@dataclass(frozen=True, slots=True)
class ProfileFile:
    """One file's profiles, loaded together. flat: its content with includes; None when lost.

    last_good: not the folder's content now but the copy of what was last loaded from there.
    """

    file: str
    shown: str
    names: tuple[str, ...]
    digest: str
    flat: bytes | None = None
    last_good: bool = False


@dataclass(frozen=True, slots=True)
class Refused:
    """A file that is not loaded, and why."""

    file: str
    shown: str
    problems: tuple[Problem, ...]


@dataclass(frozen=True, slots=True)
class Observation:
    """One observation.

    desired: valid files of the folder, and last valid copies of refused ones. entries: the manifest by profile
    name, empty when it cannot be read (manifest_error). hashes: the kernel's own of our profiles. users: PIDs by
    profile for what left the configuration, None when unknown (users_error). blocked: why the folder's profiles are
    unknown (no folder, or no parser for `unlinted`): then nothing is removed. copied: profiles that the manifest lost
    but of which the agent's copy exists, which only a load writes.
    """

    kernel: Kernel
    folder: Path | None = None
    blocked: str = ""
    runtime_parser: bool = True
    unlinted: tuple[str, ...] = ()
    desired: tuple[ProfileFile, ...] = ()
    refused: tuple[Refused, ...] = ()
    entries: Mapping[str, Entry] = field(default_factory=dict)
    manifest_error: str = ""
    boot_id: str = ""
    hashes: Mapping[str, str] = field(default_factory=dict)
    users: Mapping[str, tuple[int, ...]] | None = field(default_factory=dict)
    users_error: str = ""
    copied: frozenset[str] = frozenset()
    orphans: tuple[str, ...] = ()
    deny_records: DenyRecords = NOT_REQUIRED


class State(Enum):
    """The state of a profile of the folder."""

    HELD = "in the kernel as in the folder"
    LOAD = "to be loaded"
    FOREIGN = "not loaded by the agent"
    UNKNOWN = "unknown who loaded it, or with what content"
    LOST = "not in the kernel, and no valid copy to load"


@dataclass(frozen=True, slots=True)
class ProfileState:
    """A profile with its children. mode: the kernel's, empty when it is not loaded. reason: why not HELD."""

    name: str
    unit: ProfileFile
    state: State
    mode: str = ""
    reason: str = ""


class Removal(Enum):
    """What happens to a profile that left the configuration."""

    REMOVE = "to be removed"
    FORGET = "no longer the agent's in the kernel"
    IN_USE = "kept while processes run under it"
    UNKNOWN = "kept because it is unknown who runs under it"


@dataclass(frozen=True, slots=True)
class RemovedProfile:
    """A profile of the manifest that is no longer in the folder."""

    name: str
    decision: Removal
    reason: str = ""
    pids: tuple[int, ...] = ()


def resolve_clashes(
    linted: Sequence[ProfileFile], entries: Mapping[str, Entry]
) -> tuple[tuple[ProfileFile, ...], tuple[Refused, ...]]:
    """Refuses all but one of the files that define the same profile: the loaded one wins, else the first by name."""
    owner: dict[str, ProfileFile] = {}
    refused: dict[str, Refused] = {}
    loaded_from = {name: entry.notes.get("file", "") for name, entry in entries.items()}
    # Winners first: those that the manifest names, then by file name; a refused file claims nothing.
    ranked = sorted(linted, key=lambda unit: (not any(loaded_from.get(n) == unit.file for n in unit.names), unit.file))
    for unit in ranked:
        clashes = [name for name in unit.names if name in owner]
        if clashes:
            messages = (f"defines profile {name!r}, as does {owner[name].shown}; rename one" for name in clashes)
            problems = tuple(Problem(unit.shown, 0, "", message) for message in messages)
            refused[unit.file] = Refused(unit.file, unit.shown, problems)
        else:
            owner.update(dict.fromkeys(unit.names, unit))
    kept = tuple(unit for unit in linted if unit.file not in refused)
    return kept, tuple(refused[file] for file in sorted(refused))


def parent_of(name: str) -> str:
    """The parent profile of `parent//child`, empty for a profile of its own. A namespace's `://` is no child."""
    start = name.find("://") + 3 if name.startswith(":") and "://" in name else 0
    cut = name.rfind("//", start)
    return name[:cut] if cut > start else ""


def tops(names: Sequence[str]) -> tuple[str, ...]:
    """The names whose parent is not among them, sorted."""
    return tuple(sorted(name for name in names if parent_of(name) not in names))


def verdicts(seen: Observation) -> tuple[ProfileState, ...]:
    """One for each profile of the folder, by file and name; empty unless AppArmor is on."""
    if seen.kernel.lsm is not Lsm.ON:
        return ()
    return tuple(verdict for unit in seen.desired for verdict in _of_unit(unit, seen))


def _of_unit(unit: ProfileFile, seen: Observation) -> list[ProfileState]:
    known = seen.entries.keys() | seen.copied
    strangers = [name for name in unit.names if name in seen.kernel.profiles and name not in known]
    reasons = {name: _reason(name, unit, seen) for name in unit.names}
    found = []
    for top in tops(unit.names):
        mode = seen.kernel.profiles.get(top, "")
        own = [name for name in unit.names if covers(top, name)]
        reason = next((reasons[name] for name in own if reasons[name]), "")
        if strangers:
            state = State.UNKNOWN if seen.manifest_error else State.FOREIGN
            named = ", ".join(repr(name) for name in strangers)
            reason = f"profile {named} is in the kernel, and this agent did not load it"
        elif not reason:
            # A kernel that had a hash when it was loaded still has one.
            hidden = [name for name in own if _is_unread(name, seen)]
            state = State.UNKNOWN if hidden else State.HELD
            reason = f"the kernel's hash of {hidden[0]!r} cannot be read" if hidden else ""
        elif unit.flat is None:
            state = State.LOST
        else:
            state = State.LOAD
        found.append(ProfileState(top, unit, state, mode, reason))
    return found


def _reason(name: str, unit: ProfileFile, seen: Observation) -> str:
    """Why the profile has to be loaded (again); empty when it has not changed since it was loaded."""
    mode = seen.kernel.profiles.get(name)
    entry = seen.entries.get(name)
    if mode is None:
        was = entry is not None and entry.notes.get("boot") == seen.boot_id and "mode" in entry.notes
        return "no longer loaded" if was else "not loaded"
    if entry is None:
        return "the manifest has lost it"
    noted = entry.notes
    if "mode" not in noted:
        return "the last load was interrupted"
    checks = (
        (noted.get("boot") == seen.boot_id, "not loaded by the agent since the boot"),
        (entry.hashes[:1] == (unit.digest,), "its content has changed"),
        (noted.get("file") == unit.file, f"it moved here from {noted.get('file')}"),
        (noted["mode"] == mode, f"in {mode} mode; it was loaded in {noted['mode']} mode"),
        (not noted.get("kernel") or seen.hashes.get(name) in (None, "", noted["kernel"]), _REPLACED),
    )
    return next((reason for good, reason in checks if not good), "")


def _is_unread(name: str, seen: Observation) -> bool:
    """Whether the kernel's hash, which the manifest has, cannot be read now."""
    entry = seen.entries.get(name)
    return entry is not None and bool(entry.notes.get("kernel")) and not seen.hashes.get(name)


def removed_profiles(seen: Observation) -> tuple[RemovedProfile, ...]:
    """Profiles of the manifest that left the folder, children with their parents. Empty while anything is unknown."""
    if seen.kernel.lsm is not Lsm.ON or seen.manifest_error or seen.blocked:
        return ()
    gone = removed_names(seen.desired, seen.refused, seen.entries)
    return tuple(RemovedProfile(name, *_removal(name, seen)) for name in gone)


def removed_names(
    desired: Sequence[ProfileFile], refused: Sequence[Refused], entries: Mapping[str, Entry]
) -> tuple[str, ...]:
    """Names of the manifest that no valid file defines and that come from no refused file."""
    names = {name for unit in desired for name in unit.names}
    held = {one.file for one in refused}
    return tuple(
        sorted(name for name, entry in entries.items() if name not in names and entry.notes.get("file") not in held)
    )


def _removal(name: str, seen: Observation) -> tuple[Removal, str, tuple[int, ...]]:
    """What happens to it, why, and the processes under it."""
    noted = seen.entries[name].notes
    if name not in seen.kernel.profiles:
        return Removal.FORGET, "not in the kernel", ()
    if noted.get("boot") != seen.boot_id:
        return Removal.FORGET, "not loaded by the agent since the boot; left alone", ()
    if _is_unread(name, seen):
        return Removal.UNKNOWN, "the kernel's hash of it cannot be read", ()
    if noted.get("kernel") and noted["kernel"] != seen.hashes.get(name, ""):
        return Removal.FORGET, f"{_REPLACED}; left alone", ()
    if seen.users is None:
        return Removal.UNKNOWN, seen.users_error, ()
    if pids := seen.users.get(name, ()):
        return Removal.IN_USE, "processes run under it", pids
    return Removal.REMOVE, "left the configuration", ()
