"""The modprobe control: kernel modules denied by name, by alias and as a dependency, and verified.

Writes one file below a modprobe.d, runs the real modprobe to see what it would do, and reports for each module whether
it is refused, loaded, built in or absent. It never changes other files and never unloads a module in use.
"""

from __future__ import annotations

from collections.abc import Sequence

from agent.bundled_profiles import shipped_profiles
from agent.config.choices import Mode
from agent.config.schema import Modprobe
from agent.controls.base import Step
from agent.controls.manifest import Entry, Installed, digest
from agent.controls.modprobe.denylists import FILE_TYPE, DeniedModule, load_list
from agent.controls.modprobe.environment import CONTROL, leftovers
from agent.controls.modprobe.findings import findings
from agent.controls.modprobe.kmod import unload_order
from agent.controls.modprobe.modprobe_d import FOLDERS, denied_by, file_problem, parse
from agent.controls.modprobe.needed import needed
from agent.controls.modprobe.observe import Observation, observe, read_file
from agent.controls.modprobe.policy import render, resolve
from agent.errors import CommandMissing, HostError
from agent.host import Host
from agent.model import Change, Finding

__all__ = ["FILE_TYPE", "DeniedModule", "ModprobeControl", "load_list"]

_MODE = 0o644
_TIMEOUT_SECONDS = 20.0


class ModprobeControl:
    """One node's denied modules."""

    name = CONTROL

    def __init__(self, config: Modprobe, host: Host) -> None:
        self._config = config
        self._host = host
        self._installed = Installed(host, CONTROL)

    def watched(self) -> Sequence[str]:
        """Every modprobe.d: a line in any of them may take precedence. A new kernel comes with a boot or a pass."""
        return FOLDERS

    def observe(self) -> Observation:
        """Reads policy and node. Raises AgentError when the bundled lists are missing."""
        policy = resolve(self._config, shipped_profiles(CONTROL), self._denied_now(), needed(self._host))
        return observe(self._host, policy, self._config.file)

    def _denied_now(self) -> Sequence[str]:
        """What the agent's files on the node deny, this configuration's or an earlier one's."""
        try:
            paths = [self._config.file, *self._installed.entries()]
        except HostError:
            paths = [self._config.file]
        contents = ((path, read_file(self._host, path).content or b"") for path in dict.fromkeys(paths))
        return tuple(name for path, text in contents for name in denied_by(parse(text.decode(errors="replace"), path)))

    def judge(self, seen: Observation) -> Sequence[Finding]:
        """A finding for each denied module, and for what makes a denial ineffective."""
        return tuple(findings(self._config, seen))

    def plan(self, seen: Observation) -> Sequence[Step]:
        """The new file first, then what it replaces, then unloading: never less denied than before."""
        if self._config.mode is not Mode.ENFORCE:
            return ()
        return (*self._write(seen), *self._remove(seen), *self._unload(seen))

    def _write(self, seen: Observation) -> Sequence[Step]:
        path = self._config.file
        if not seen.policy.denied or file_problem(path):
            return ()
        content = render(seen.policy)
        known = (entry := seen.installed.get(path)) is not None and digest(content) in entry.hashes[:1]
        same = seen.file.content == content and not seen.file.mode & 0o022
        if same and (known or seen.manifest_problem):
            return ()
        reason = f"denies {len(seen.policy.denied)} modules" if not same else "in place already; recorded"
        return (
            Step(
                Change(CONTROL, "write" if not same else "remember", path, reason),
                lambda: self._installed.install(path, content, mode=_MODE),
            ),
        )

    def _remove(self, seen: Observation) -> Sequence[Step]:
        return tuple(self._remove_one(path, seen.installed[path]) for path in leftovers(self._config, seen))

    def _remove_one(self, path: str, entry: Entry) -> Step:
        content = read_file(self._host, path).content
        if content is not None and not self._installed.is_ours(entry, content):
            change = Change(CONTROL, "forget", path, "changed since it was installed: left as it is")
        else:
            change = Change(CONTROL, "remove", path, "no longer in the configuration")

        return Step(change, lambda: self._installed.uninstall(path))

    def _unload(self, seen: Observation) -> Sequence[Step]:
        if not self._config.unload or seen.running is None or not seen.running.may_unload or seen.running.disabled:
            return ()
        return tuple(self._unload_one(name) for name in unload_order(seen.running.loaded or {}, seen.policy.names))

    def _unload_one(self, name: str) -> Step:
        return Step(Change(CONTROL, "unload", name, "denied and unused"), lambda: self._rmmod(name))

    def _rmmod(self, name: str) -> None:
        # Not `modprobe -r`: it unloads the module's dependencies as well, and runs `remove` lines.
        tool = self._host.find_tool("rmmod")
        if tool is None:
            raise CommandMissing(["rmmod"], "not on this node; install kmod or reboot the node")
        self._host.run([tool, name], timeout_seconds=_TIMEOUT_SECONDS).check()
