"""Keeps seccomp profiles in the folder that the kubelet reads, in the form that every runtime enforces.

A profile that does not validate never replaces the one that is installed, and what is installed leaves only when its
file leaves the configuration. It refuses to touch what others put into the same folder.
"""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Final

from agent.bundled_profiles import profiles_folder
from agent.config import choices, schema
from agent.controls.base import Step, correction
from agent.controls.manifest import Entry, Installed
from agent.controls.seccomp import kubelet_root, profile_dir, runtimes
from agent.controls.seccomp.equivalent_syscalls import unknown_to
from agent.controls.seccomp.findings import findings
from agent.controls.seccomp.observation import MODE, Item, Observation, Present, Stale, drift
from agent.controls.seccomp.parser import read
from agent.controls.seccomp.refusal_records import RuntimeFlags, with_flags
from agent.controls.seccomp.resolver import Platform, Resolved, resolve
from agent.errors import ConfigError, HostError, HostFileError, HostFileMissing, Problem
from agent.host import Host
from agent.model import Change, Finding

_NOTE: Final = "directory"  # in the manifest: the folder that an entry was installed for


class SeccompControl:
    """The seccomp control. host: the node. config.profiles is a folder where the agent runs, not of the node."""

    name = "seccomp"

    def __init__(self, config: schema.Seccomp, host: Host, *, visible: bool = False) -> None:
        """visible: what the shipped profiles refuse leaves a record, where the node's runtimes take the flag for it."""
        self._config = config
        self._host = host
        self._installed = Installed(host, self.name)
        self._flags = RuntimeFlags(host) if visible else None

    def watched(self) -> Sequence[str]:
        """The kubelet's directory of profiles."""
        return (kubelet_root.find(self._config.directory, self._host, "").path,)

    def observe(self) -> Observation:
        """Reads the profiles and what is installed. Raises AgentError when the shipped profiles are gone."""
        entries, manifest_error = self._installed.read()
        found = profile_dir.sources(profiles_folder(self._config.profiles, self.name))
        where = kubelet_root.find(self._config.directory, self._host, self._last_directory(entries))
        platform = Platform.of(self._host.machine(), self._host.kernel_release())
        visibility = self._flags.visibility() if self._flags is not None else None
        logged = visibility is not None and not visibility.problem
        files = [with_flags(source) if logged else source for source in found.files]
        items = tuple(self._item(source, where, platform, entries) for source in files)
        stale = () if found.error else self._stale(entries, items, where)
        young = any(item.resolved and unknown_to(item.resolved, platform, None) for item in items)
        library = runtimes.libseccomp_of(self._host) if young else None
        return Observation(where, found, items, stale, platform, manifest_error, library, visibility)

    def judge(self, seen: Observation) -> Sequence[Finding]:
        """A finding for the folder, one a profile, and one for each that can be walked around."""
        return findings(seen, correction(self.name, self._config.mode))

    def plan(self, seen: Observation) -> Sequence[Step]:
        """Writes what is missing or differs, then removes what left. Nothing in audit mode."""
        if self._config.mode is not choices.Mode.ENFORCE:
            return ()
        writes = [
            self._step("write", item.path, why, partial(self._install, item, item.resolved, seen.place.path))
            for item in seen.items
            if item.resolved is not None and (why := self._reason(item, seen))
        ]
        removals = [
            self._step("remove", one.entry.key, one.reason, partial(self._uninstall, one))
            for one in seen.stale
            if not one.error and (one.moved_to is None or one.moved_to.resolved is not None)
        ]
        return (*writes, *removals)

    # -- looking ---------------------------------------------------------------------------------------------------

    def _item(
        self, source: profile_dir.Source, where: kubelet_root.Place, platform: Platform, entries: dict[str, Entry]
    ) -> Item:
        path = posixpath.join(where.path, source.name)
        resolved: Resolved | None = None
        problems: tuple[Problem, ...] = ()
        if source.error:
            problems = (Problem(source.file, 0, "", source.error),)
        else:
            try:
                resolved = resolve(read(source.content, source.file), platform, source.file)
            except ConfigError as error:
                problems = error.problems
        present = self._look(path)
        entry = entries.get(path)
        ours = present.content is not None and self._installed.is_ours(entry, present.content)
        return Item(source.name, source.file, path, resolved, problems, present, entry, ours)

    def _last_directory(self, entries: Mapping[str, Entry]) -> str:
        """Where profiles were installed before: the directory in which one still stands comes first."""
        noted = [entry for entry in entries.values() if entry.notes.get(_NOTE)]
        return min(((not self._stands(entry), entry.notes[_NOTE]) for entry in noted), default=(False, ""))[1]

    def _stale(
        self, entries: Mapping[str, Entry], items: Sequence[Item], where: kubelet_root.Place
    ) -> tuple[Stale, ...]:
        """What the policy does not install, or installs elsewhere now. While no kubelet answers nothing has moved."""
        paths = {item.path for item in items}
        by_name = {item.name: item for item in items}
        found = []
        for entry in (one for one in entries.values() if one.key not in paths):
            directory = entry.notes.get(_NOTE, where.path)
            name = posixpath.relpath(entry.key, directory)
            moved_to = by_name.get(name) if directory != where.path else None
            if moved_to is None or where.found:
                found.append(Stale(entry, self._stands(entry), moved_to, self._look(entry.key).error))
        return tuple(found)

    def _stands(self, entry: Entry) -> bool:
        present = self._look(entry.key)
        return present.error != "" or self._installed.is_ours(entry, present.content or b"")

    def _look(self, path: str) -> Present:
        try:
            content = self._host.read_bytes(path)
            found = self._host.stat(path)
        except HostFileMissing:
            return Present()
        except HostFileError as error:
            return Present(error=str(error))
        try:
            self._host.read_link(path)
        except HostFileError:
            return Present(content, found.mode, found.uid)
        return Present(content, found.mode, found.uid, link=True)

    # -- acting ----------------------------------------------------------------------------------------------------

    @staticmethod
    def _reason(item: Item, seen: Observation) -> str:
        """Why the file is to be written; empty when it is as it should be, or when that is unknown."""
        if item.present.error:
            return ""
        if difference := drift(item):
            return difference
        # The same bytes were there before: the manifest has to record them, so that they are removed with the policy.
        return "not yet in the manifest" if not item.is_ours and not seen.manifest_error else ""

    def _install(self, item: Item, resolved: Resolved, directory: str) -> None:
        self._installed.install(item.path, resolved.content, mode=MODE, notes={_NOTE: directory})

    def _uninstall(self, one: Stale) -> None:
        """What has moved goes only when the new file is good, and not when both are one file. Raises HostError."""
        old, new = one.entry.key, one.moved_to
        if new is not None and (new.resolved is None or self._look(new.path).content != new.resolved.content):
            raise HostError(f"kept, because {new.path} is not installed")
        if new is not None and kubelet_root.same_file(self._host, old, new.path):
            self._installed.forget(old)
        else:
            self._installed.uninstall(old)

    def _step(self, action: str, target: str, reason: str, run: Callable[[], None]) -> Step:
        return Step(Change(self.name, action, target, reason), run)
