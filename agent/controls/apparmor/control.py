"""AppArmor profiles in the kernel: those of the folder, with the same content, and of the agent's no others.

Observes and acts; diff.py decides. It never loads what the parser did not accept, never replaces or removes what it did
not load, and changes nothing where AppArmor is off.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace
from pathlib import Path

from agent.config.choices import Mode
from agent.config.schema import Apparmor
from agent.controls.apparmor import profile_dir as sources
from agent.controls.apparmor import securityfs as kernels
from agent.controls.apparmor.deny_records import DenyRecordsParameter
from agent.controls.apparmor.diff import (
    Observation,
    ProfileFile,
    Refused,
    Removal,
    RemovedProfile,
    State,
    parent_of,
    removed_names,
    removed_profiles,
    resolve_clashes,
    tops,
    verdicts,
)
from agent.controls.apparmor.findings import CONTROL, RUNTIME_PARSER, judge
from agent.controls.apparmor.parser import Chooser, Linted, Parser, Tool
from agent.controls.apparmor.securityfs import Kernel, Lsm
from agent.controls.base import Step
from agent.controls.manifest import STATE_FOLDER, Entry, Installed, digest
from agent.errors import AgentError, CommandMissing, HostError, Problem
from agent.host import Host, read_or
from agent.model import Change, Finding

COPIES = f"{STATE_FOLDER}/{CONTROL}"
_LINT_SECONDS = 60.0  # of one pass; each file has a timeout of its own besides

_Stamp = tuple[tuple[str, int, int], ...]


class ApparmorControl:
    """The control for one node. tool: a parser to use instead of the one that is found. clock: monotonic seconds."""

    name = CONTROL

    def __init__(
        self, config: Apparmor, host: Host, *, tool: Tool | None = None, visible: bool = False, noquiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:  # fmt: skip
        """visible: what the shipped profiles refuse by a `deny` rule leaves a record. noquiet: by any profile."""
        self._clock, self._visible = clock, visible
        self._config = config
        self._host = host
        self._tool = tool
        self._chooser = Chooser(host, config.parser)
        self._installed = Installed(host, CONTROL)
        self._deny_records = DenyRecordsParameter(host, is_required=noquiet)
        # What was linted in the last pass, so that a pass over an unchanged folder starts no process.
        self._linted: dict[tuple[str, str, _Stamp], Linted] = {}

    # -- observe ---------------------------------------------------------------------------------------------------

    def watched(self) -> Sequence[str]:
        """The kernel's count of changes to its profiles: whoever replaces or removes one wakes the agent."""
        return (kernels.REVISION,)

    def observe(self) -> Observation:
        """Kernel, folder, manifest, and what comparing them needs. Raises HostError without a boot id."""
        seen, deny_records = self._observe(), self._deny_records.observe()
        return replace(seen, runtime_parser=self._host.exists(RUNTIME_PARSER), deny_records=deny_records)

    def _observe(self) -> Observation:
        kernel = kernels.read_kernel(self._host)
        entries, manifest_error = self._installed.read()
        try:
            source = sources.read(self._config.profiles, audited=self._visible)
        except AgentError as error:
            return Observation(kernel, blocked=str(error), entries=entries, manifest_error=manifest_error)
        try:
            linted, broken = self._lint(source)
        except CommandMissing as error:
            unlinted = tuple(file.name for file in source.files)
            return Observation(
                kernel, folder=source.folder, blocked=str(error), unlinted=unlinted, entries=entries,
                manifest_error=manifest_error,
            )  # fmt: skip
        good, clashing = resolve_clashes(linted, entries)
        refused = tuple(sorted((*broken, *clashing), key=lambda one: one.file))
        last_good = self._last_good(refused, good, entries) if kernel.lsm is Lsm.ON else ()
        desired = tuple(sorted((*good, *last_good), key=lambda unit: unit.file))
        users, users_error = self._users(kernel.profiles.keys() & removed_names(desired, refused, entries))
        copied = frozenset(name for unit in good for name in self._lost(unit, kernel, entries))
        return Observation(
            kernel,
            folder=source.folder,
            desired=desired,
            refused=refused,
            entries=entries,
            manifest_error=manifest_error,
            boot_id=self._host.boot_id() if kernel.lsm is Lsm.ON else "",
            hashes={name: kernels.hash_of(self._host, name) for name in entries if name in kernel.profiles},
            users=users,
            users_error=users_error,
            copied=copied,
            orphans=() if manifest_error else self._orphans(entries, refused),
        )

    def _parser(self, include: Path | None = None) -> Parser:
        own_includes = include is not None and sources.has_folders(include)
        tool = self._tool or self._chooser.tool(own_includes=own_includes)
        return Parser(self._host, include=include, tool=tool)

    def _lint(self, source: sources.Source) -> tuple[list[ProfileFile], list[Refused]]:
        if not source.files:
            return [], []
        parser = self._parser(source.folder)
        stamp = sources.stamp(parser.include_folders())
        before, self._linted = self._linted, {}
        units: list[ProfileFile] = []
        refused: list[Refused] = []
        deadline = self._clock() + _LINT_SECONDS
        for file in source.files:
            if file.problem is not None:
                refused.append(Refused(file.name, file.shown, (file.problem,)))
                continue
            key = (file.shown, digest(file.content), stamp)
            if key not in before and self._clock() > deadline:
                late = f"not checked: a pass checks profiles for at most {_LINT_SECONDS:g} s; the next checks the rest"
                refused.append(Refused(file.name, file.shown, (Problem(file.shown, 0, "", late),)))
                continue
            linted = before.get(key) or parser.lint(file.content, file.shown)
            self._linted[key] = linted
            if linted.problems:
                refused.append(Refused(file.name, file.shown, linted.problems))
            else:
                units.append(ProfileFile(file.name, file.shown, linted.names, linted.digest, linted.flat))
        return units, refused

    def _last_good(
        self, refused: Sequence[Refused], good: Sequence[ProfileFile], entries: Mapping[str, Entry]
    ) -> tuple[ProfileFile, ...]:
        """For each refused file that was loaded before: what was loaded, unless another file defines it now."""
        taken = {name for unit in good for name in unit.names}
        found = []
        for one in refused:
            own = {name: entry for name, entry in entries.items() if entry.notes.get("file") == one.file}
            names = tuple(sorted(name for name in own if name not in taken))
            if not names:
                continue
            expected = next((own[name].hashes[0] for name in names if own[name].hashes), "")
            flat = self._copy(one.file)
            intact = flat is not None and digest(flat) == expected and len(names) == len(own)
            found.append(ProfileFile(one.file, one.shown, names, expected, flat if intact else None, last_good=True))
        return tuple(found)

    def _lost(self, unit: ProfileFile, kernel: Kernel, entries: Mapping[str, Entry]) -> tuple[str, ...]:
        """Which of the unit's profiles our copy of its file defines, where the kernel knows more than the manifest."""
        if all(name in entries or name not in kernel.profiles for name in unit.names):
            return ()
        copy = self._copy(unit.file)
        return () if copy is None else self._parser().lint(copy, unit.shown).names

    def _copy(self, file: str) -> bytes | None:
        return read_or(None, self._host.read_bytes, f"{COPIES}/{file}")

    def _users(self, leaving: AbstractSet[str]) -> tuple[Mapping[str, tuple[int, ...]] | None, str]:
        try:
            return kernels.users_of(self._host, leaving) if leaving else {}, ""
        except HostError as error:
            return None, str(error)

    def _orphans(self, entries: Mapping[str, Entry], refused: Sequence[Refused]) -> tuple[str, ...]:
        """Copies without an entry: what a crash between two writes may leave behind."""
        named = {entry.notes.get("file") for entry in entries.values()} | {one.file for one in refused}
        return tuple(name for name in read_or((), self._host.names, COPIES) if name not in named)

    # -- judge, plan -----------------------------------------------------------------------------------------------

    def judge(self, seen: Observation) -> Sequence[Finding]:
        return judge(seen, self._config.mode)

    def plan(self, seen: Observation) -> Sequence[Step]:
        if seen.kernel.lsm is not Lsm.ON:
            return ()
        enforced = self._config.mode is Mode.ENFORCE
        parameter = tuple(self._deny_records.plan(seen.deny_records, is_enforced=enforced))
        if not enforced:
            return parameter
        stale: dict[str, tuple[ProfileFile, str, bool]] = {}
        for verdict in verdicts(seen):
            if verdict.state is State.LOAD and verdict.unit.file not in stale:
                stale[verdict.unit.file] = (verdict.unit, verdict.reason, bool(verdict.mode))
        steps = [self._loading(unit, reason, again, seen.boot_id) for unit, reason, again in stale.values()]
        leaving = removed_profiles(seen)
        steps += [self._leaving(removed, leaving) for removed in leaving if self._acts(removed, leaving)]
        fresh = {unit.file for unit, _, _ in stale.values()}
        return (*parameter, *steps, *(self._sweeping(file) for file in seen.orphans if file not in fresh))

    @staticmethod
    def _acts(removed: RemovedProfile, leaving: Sequence[RemovedProfile]) -> bool:
        """A child is removed with its parent, in one step, and stays while the parent stays."""
        if removed.decision not in (Removal.REMOVE, Removal.FORGET):
            return False
        parent = next((one for one in leaving if one.name == parent_of(removed.name)), None)
        return parent is None or parent.decision is Removal.FORGET

    # -- acts ------------------------------------------------------------------------------------------------------

    def _loading(self, unit: ProfileFile, reason: str, again: bool, boot_id: str) -> Step:
        why = f"{reason}; its file {unit.file} is broken, the last valid content is used" if unit.last_good else reason
        change = Change(CONTROL, "reload" if again else "load", ", ".join(tops(unit.names)), why)
        return Step(change, lambda: self._load(unit, boot_id))

    def _load(self, unit: ProfileFile, boot_id: str) -> None:
        """Copy, manifest, kernel, manifest: after a crash between any two the next pass loads again."""
        if unit.flat is None:
            raise HostError(f"{unit.file}: there is no valid content to load")
        before, _ = self._installed.read()
        self._host.write(f"{COPIES}/{unit.file}", unit.flat, mode=0o600)
        notes = {"file": unit.file, "boot": boot_id}
        for name in unit.names:
            old = before[name].hashes[:1] if name in before else ()
            hashes = (unit.digest, *(one for one in old if one != unit.digest))
            self._installed.remember(Entry(name, hashes, notes=notes))
        try:
            self._parser().load(unit.flat)
        except HostError:
            self._drop_unloaded(unit.names, before)
            raise
        after = kernels.read_kernel(self._host)
        if missing := [name for name in unit.names if name not in after.profiles]:
            raise HostError(
                f"apparmor_parser loaded {unit.file} without an error, but the kernel does not list "
                f"{', '.join(missing)}: {after.reason or 'another AppArmor namespace?'}"
            )
        for name in unit.names:
            held = {"mode": after.profiles[name], "kernel": kernels.hash_of(self._host, name)}
            self._installed.remember(Entry(name, (unit.digest,), notes=notes | held))
        self._drop_copies({entry.notes.get("file", "") for entry in before.values()})

    def _drop_unloaded(self, names: Sequence[str], before: Mapping[str, Entry]) -> None:
        """After a failed load: profiles that are not in the kernel are no longer recorded as the agent's."""
        kernel = kernels.read_kernel(self._host)
        if kernel.lsm is Lsm.ON:
            self._forget([name for name in names if name not in kernel.profiles and name not in before])

    def _leaving(self, removed: RemovedProfile, leaving: Sequence[RemovedProfile]) -> Step:
        names = [one.name for one in leaving if kernels.covers(removed.name, one.name)]
        if removed.decision is Removal.FORGET:
            change = Change(CONTROL, "forget", removed.name, removed.reason)
            return Step(change, lambda: self._forget([removed.name]))
        change = Change(CONTROL, "unload", removed.name, removed.reason)
        return Step(change, lambda: self._unload(removed.name, names))

    def _unload(self, name: str, names: Sequence[str]) -> None:
        # A process may have started under it since; the kernel would remove it anyway, so check again.
        if pids := kernels.users_of(self._host, {name})[name]:
            raise HostError(f"profile {name} is in use by PID {pids[0]} now; it stays")
        self._parser().remove(name)
        after = kernels.read_kernel(self._host)
        if after.lsm is not Lsm.ON or name in after.profiles:
            raise HostError(f"apparmor_parser removed {name} without an error, but the kernel still lists it")
        self._forget(names)

    def _forget(self, names: Sequence[str]) -> None:
        entries = self._installed.entries()
        for name in names:
            self._installed.forget(name)
        self._drop_copies({entries[name].notes.get("file", "") for name in names if name in entries})

    def _drop_copies(self, files: set[str]) -> None:
        """Removes the copies of files that no entry names any more."""
        named = {entry.notes.get("file") for entry in self._installed.entries().values()}
        for file in files - named - {""}:
            self._host.remove(f"{COPIES}/{Path(file).name}")

    def _sweeping(self, file: str) -> Step:
        path = f"{COPIES}/{file}"
        return Step(Change(CONTROL, "remove", path, "a copy without an entry"), lambda: self._host.remove(path))
