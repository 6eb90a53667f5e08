"""Kernel settings: the running value and what the files set at the next boot, judged together.

In mode enforce one file in sysctl.d is written and the running values are set by the node's `sysctl`; what stood before
is kept in the manifest and restored in mode audit. It refuses to change other files, and to write what only a reboot
undoes unless `oneWay` is true.
"""

from __future__ import annotations

import fnmatch
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field
from functools import partial

from agent.config.choices import Mode
from agent.config.node_sections import Sysctl
from agent.controls.base import Step, correction
from agent.controls.manifest import Entry, Installed
from agent.controls.sysctl.settings import KEYS, SETTINGS, Setting
from agent.errors import CommandMissing, HostError, HostFileError, HostFileMissing
from agent.host import Host, read_or, sysctl_d
from agent.host.budget import Budget
from agent.model import Change, Finding, Severity, Status
from agent.text import join_limited, sanitize

CONTROL = "sysctl"
FILE = "/etc/sysctl.d/99-node-hardening.conf"
_PROC = "/proc/sys"
_VALUE_BYTES = 4096
_MODE = 0o644
_TIMEOUT_SECONDS = 10.0
_HEAD = "# Written by node-hardening-agent; what it sets and why: docs/controls/sysctl.md\n"


@dataclass(frozen=True, slots=True)
class Value:
    """What runs. text: None where the kernel has no such setting. interfaces: keys whose value does not pass."""

    text: str | None = None
    problem: str = ""
    interfaces: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Observation:
    """values: of the running kernel, empty on a tree without one. boot: None where a file cannot be read (problem)."""

    values: Mapping[str, Value]
    boot: sysctl_d.BootSettings | None
    boot_problem: str = ""
    installed: Mapping[str, Entry] = field(default_factory=dict)
    manifest_problem: str = ""


class SysctlControl:
    """One node's kernel settings."""

    name = CONTROL

    def __init__(self, config: Sysctl, host: Host) -> None:
        self._config = config
        self._host = host
        self._installed = Installed(host, CONTROL)

    def watched(self) -> Sequence[str]:
        """Every sysctl.d: a line in any of them may win at the next boot."""
        return sysctl_d.FOLDERS

    def observe(self) -> Observation:
        """Reads running values and files."""
        runs = self._host.exists(f"{_PROC}/vm") or self._host.exists(f"{_PROC}/fs")
        values = {one.key: self._value(one) for one in SETTINGS} if runs else {}
        boot, boot_problem = None, ""
        try:
            boot = sysctl_d.read(self._host.within(Budget()))
        except HostError as error:
            boot_problem = str(error)
        return Observation(values, boot, boot_problem, *self._installed.read())

    def judge(self, seen: Observation) -> Sequence[Finding]:
        """One finding a setting; one line where no kernel runs."""
        if not seen.values:
            no_kernel = "no kernel runs on this tree"
            title = "Kernel settings are as they should be"
            return (Finding(f"{CONTROL}/kernel", CONTROL, title, Status.NOT_APPLICABLE, Severity.INFO, no_kernel),)
        return (*(self._judge(one, seen) for one in SETTINGS), *self._misspelt(), *self._manifest(seen))

    def plan(self, seen: Observation) -> Sequence[Step]:
        """What is no longer demanded gets its old value, then the file, then what runs. Audit reverts all of it."""
        enforced = self._config.mode is Mode.ENFORCE
        required = [one for one in SETTINGS if self._is_ours(one)] if enforced else []
        kept = {one.key for one in required}
        return (
            *(step for entry in seen.installed.values() for step in self._restore(seen, entry, kept)),
            *self._write(seen, required),
            *((self._remove(),) if FILE in seen.installed and not required else ()),
            *self._set(seen, required),
        )

    # -- reading ---------------------------------------------------------------------------------------------------

    def _value(self, one: Setting) -> Value:
        try:
            text = self._read(one.key)
            folder, _, _ = one.key.replace(".", "/").rpartition("/all/")
            names = self._host.names(f"{_PROC}/{folder}") if one.interfaces else ()
            keys = [one.key.replace(".all.", f".{n.replace('.', '/')}.") for n in names if n not in ("all", "default")]
            own = {key: value for key in keys if (value := self._read_or(key, "0")) not in one.accepted}
        except HostFileMissing:
            return Value()
        except HostFileError as error:
            return Value(problem=str(error))
        return Value(text, interfaces=own)

    def _read(self, key: str) -> str:
        path = key.translate(str.maketrans("./", "/."))
        return " ".join(self._host.read_text(f"{_PROC}/{path}", limit_bytes=_VALUE_BYTES).split())

    def _read_or(self, key: str, otherwise: str) -> str:
        """An interface that has gone since it was listed has no value."""
        try:
            return self._read(key)
        except HostFileMissing:
            return otherwise

    # -- judging ---------------------------------------------------------------------------------------------------

    def _is_left(self, one: Setting) -> bool:
        return any(fnmatch.fnmatchcase(one.key, pattern) for pattern in self._config.leave)

    def _is_ours(self, one: Setting) -> bool:
        """Whether the policy demands this setting, and so enforce writes it."""
        return not one.shown and not self._is_left(one) and (not one.one_way or self._config.one_way)

    def _judge(self, one: Setting, seen: Observation) -> Finding:
        status, observed, source, step = self._verdict(one, seen)
        return Finding(
            f"{CONTROL}/{one.key}", CONTROL, f"{one.key}: {one.why}", status, one.severity, sanitize(observed, 400),
            " or ".join(one.accepted), sanitize(source, 400), sanitize(step, 600), cis=one.cis, section=one.section,
        )  # fmt: skip

    def _verdict(self, one: Setting, seen: Observation) -> tuple[Status, str, str, str]:
        value, running = seen.values[one.key], f"{_PROC}/{one.key.replace('.', '/')}"
        if value.problem:
            return Status.UNKNOWN, value.problem, running, "Fix what the error names; the next pass reads it again."
        if value.text is None:
            return Status.NOT_APPLICABLE, "this kernel has no such setting", running, ""
        if not self._is_ours(one):
            reason = "left by sysctl.leave" if self._is_left(one) else "shown only" if one.shown else _ONE_WAY
            return Status.INFO, f"{value.text} ({reason})", running, ""
        line = seen.boot.get(one.key) if seen.boot is not None else None
        if value.text not in one.accepted:
            return Status.FAIL, value.text, running, self._step(one, line)
        if value.interfaces:
            names = join_limited(value.interfaces, characters=120)
            return Status.FAIL, f"{value.text}, but not for {names}", running, self._step(one, line)
        return self._at_boot(value.text, one, line, seen, running)

    def _at_boot(
        self, text: str, one: Setting, line: sysctl_d.Assignment | None, seen: Observation, running: str
    ) -> tuple[Status, str, str, str]:
        """The running value passes; the next boot may change that."""
        if seen.boot is None:
            step = "Fix the file that the error names; it may set this at the next boot."
            return Status.UNKNOWN, f"{text} now; at the next boot unknown: {seen.boot_problem}", running, step
        if line is None or line.value in one.accepted:
            return Status.PASS, text, line.source if line else running, ""
        observed = f"{text} now, {line.value} at the next boot"
        if self._config.mode is Mode.ENFORCE:
            step = f"Remove the line: until the agent has started, a boot has {line.value}."
            return Status.INFO, observed, line.source, step
        return Status.FAIL, observed, line.source, f"Change the line to {one.key} = {one.accepted[0]}."

    def _step(self, one: Setting, line: sysctl_d.Assignment | None) -> str:
        if self._config.mode is Mode.ENFORCE:
            return correction(CONTROL, self._config.mode)
        if line is not None and line.value in one.accepted:
            return f"{line.source} sets {line.value}: find out what changed it, and run `sysctl --system`."
        where = f"at {line.source}" if line else f"in a file of {sysctl_d.FOLDERS[0]}"
        return f"Set {one.key} = {one.accepted[0]} {where} and run `sysctl --system`; or set sysctl.mode to enforce."

    def _misspelt(self) -> Iterator[Finding]:
        for pattern in self._config.leave:
            if not any(fnmatch.fnmatchcase(key, pattern) for key in KEYS):
                yield Finding(
                    f"{CONTROL}/leave/{pattern}", CONTROL, "What is left names a setting", Status.UNKNOWN, Severity.LOW,
                    f"{sanitize(pattern, 120)!r} is none that is judged: nothing is left by it", "a key of the table",
                    "sysctl.leave", "Write a key as this control's findings have it.",
                )  # fmt: skip

    def _manifest(self, seen: Observation) -> Iterator[Finding]:
        if seen.manifest_problem:
            yield Finding(
                f"{CONTROL}/manifest", CONTROL, "What the agent installed is known", Status.UNKNOWN, Severity.MEDIUM,
                seen.manifest_problem, "readable", self._installed.path, "Fix it; until then nothing is restored.",
            )  # fmt: skip

    # -- changing --------------------------------------------------------------------------------------------------

    def _write(self, seen: Observation, required: Sequence[Setting]) -> Iterator[Step]:
        """The file; the values that ran before the agent's are noted with it, and never noted again."""
        path, entry = FILE, seen.installed.get(FILE)
        if not required:
            return
        content = (_HEAD + "".join(f"{one.key} = {self._best(one, seen)}\n" for one in required)).encode()
        old = dict(entry.notes) if entry else {}
        values = {one.key: seen.values.get(one.key, Value()) for one in required}
        notes = {key: value.text for key, value in values.items() if value.text is not None}
        for value in values.values():
            notes |= value.interfaces
        kept = [one for one in required if one.interfaces]
        notes |= {key: text for key, text in old.items() if key in values or any(_is_of(key, one) for one in kept)}
        try:
            same = self._host.read_bytes(path) == content and self._host.stat(path).mode == _MODE
        except HostFileError:
            same = False  # missing; or install reports what is wrong with it
        recorded = entry is not None and self._installed.is_ours(entry, content) and notes == old
        if not same or not (recorded or seen.manifest_problem):
            reason = "in place already; recorded" if same else f"sets {len(required)} kernel settings"
            install = partial(self._installed.install, path, content, mode=_MODE, notes=notes)
            yield Step(Change(CONTROL, "remember" if same else "write", path, reason), install)

    def _remove(self) -> Step:
        change = Change(CONTROL, "remove", FILE, "no longer in the configuration")
        return Step(change, partial(self._installed.uninstall, FILE))

    def _set(self, seen: Observation, required: Sequence[Setting]) -> Iterator[Step]:
        for one in required if self._host.can_start_programs else ():
            value = seen.values.get(one.key, Value())
            if value.text is not None and value.text not in one.accepted:
                yield self._assign("set", one.key, one.accepted[0], f"was {value.text}")
            for key in value.interfaces:
                yield self._assign("set", key, one.accepted[0], "counts together with all")

    def _restore(self, seen: Observation, entry: Entry, kept: AbstractSet[str]) -> Iterator[Step]:
        """What the agent had set gets the value from before, where nothing else has changed it since."""
        written = {line.key: line.value for line in sysctl_d.parse(read_or("", self._host.read_text, FILE), FILE)}
        for key, before in entry.notes.items() if self._host.can_start_programs and seen.values else ():
            one = next((one for one in SETTINGS if one.key == key or _is_of(key, one)), None)
            if one is None or one.key in kept or one.one_way:
                continue
            if self._read_or(key, before) == written.get(key, one.accepted[0]) != before:
                yield self._assign("restore", key, before, "as it was before the agent set it")

    @staticmethod
    def _best(one: Setting, seen: Observation) -> str:
        """What passes already stays: a stricter value must not become less strict at the next boot."""
        line = seen.boot.get(one.key) if seen.boot is not None else None
        known = (seen.values.get(one.key, Value()).text, line.value if line else None)
        return next((text for text in known if text in one.accepted), None) or one.accepted[0]

    def _assign(self, action: str, key: str, value: str, reason: str) -> Step:
        return Step(Change(CONTROL, action, f"{key}={value}", reason), partial(self._sysctl, f"{key}={value}"))

    def _sysctl(self, assignment: str) -> None:
        tool = self._host.find_tool("sysctl")
        if tool is None:
            raise CommandMissing(["sysctl"], "not on this node: the file takes effect at the next boot")
        self._host.run([tool, "-q", "-w", "--", assignment], timeout_seconds=_TIMEOUT_SECONDS).check()


_ONE_WAY = "not demanded: only a reboot undoes it; sysctl.oneWay demands it"


def _is_of(key: str, one: Setting) -> bool:
    """Whether a key is an interface's own value of a setting."""
    return one.interfaces and fnmatch.fnmatchcase(key, one.key.replace(".all.", ".*."))
