"""The kernel's parameter for silent `deny` rules: with `denials.noquiet` those of every profile leave a record.

It is of the whole node and lasts until the next boot. A manifest of its own has what it was before, which is set again
when the option is removed or the control is off. It refuses to change a parameter that the agent did not set, except to
`noquiet`.
https://github.com/torvalds/linux/blob/v6.12/security/apparmor/lsm.c (param_set_audit), audit.c (aa_audit)
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from agent.controls.base import Step
from agent.controls.manifest import Entry, Installed
from agent.errors import HostError
from agent.host import Host, read_or
from agent.model import Change, Finding
from agent.text import sanitize

PARAMETER: Final = "/sys/module/apparmor/parameters/audit"
NOQUIET: Final = "noquiet"
_CONTROL = "apparmor"
_MANIFEST = "apparmor-audit"
_RECORDING = (NOQUIET, "all")  # with each of them a `deny` rule leaves a record


@dataclass(frozen=True, slots=True)
class DenyRecords:
    """The parameter. problem: why its value is unknown; then nothing is changed. before: what the agent replaced since
    this boot; empty when it did not."""

    is_required: bool
    value: str = ""
    problem: str = ""
    before: str = ""

    @property
    def is_on(self) -> bool:
        """Whether `deny` rules leave records."""
        return self.value in _RECORDING


NOT_REQUIRED: Final = DenyRecords(is_required=False)


class DenyRecordsParameter:
    """Reads the parameter of one node, and plans its changes."""

    def __init__(self, host: Host, *, is_required: bool) -> None:
        """is_required: the policy has `denials.noquiet`."""
        self._host, self._is_required = host, is_required
        self._installed = Installed(host, _MANIFEST)

    def observe(self) -> DenyRecords:
        """Never raises: errors are in the result."""
        try:
            missing = None if self._is_required else ""  # without AppArmor there is nothing to restore
            value = sanitize(self._host.read_text(PARAMETER, limit_bytes=64, missing=missing).strip())
            entry = self._installed.entries().get(PARAMETER)
            ours = entry is not None and entry.notes.get("boot") == self._host.boot_id()
        except HostError as error:
            return DenyRecords(self._is_required, problem=str(error))
        return DenyRecords(self._is_required, value, before=entry.notes.get("before", "") if entry and ours else "")

    def plan(self, seen: DenyRecords, *, is_enforced: bool) -> Iterator[Step]:
        """Sets it, or what was there before."""
        if seen.problem or (seen.is_required and is_enforced and seen.is_on):
            return
        if seen.is_required and is_enforced:
            change = Change(_CONTROL, "set", f"audit={NOQUIET}", f"was {seen.value}: deny rules refused in silence")
            yield Step(change, lambda: self._set(seen.value))
        elif seen.before:
            change = Change(_CONTROL, "restore", f"audit={seen.before}", "as it was before the agent set it")
            yield Step(change, lambda: self._restore(seen))

    def _set(self, before: str) -> None:
        self._installed.remember(Entry(PARAMETER, notes={"before": before, "boot": self._host.boot_id()}))
        self._write(NOQUIET)

    def _restore(self, seen: DenyRecords) -> None:
        """Unless another value was set since: that is another's."""
        if seen.value == NOQUIET:
            self._write(seen.before)
        self._installed.forget(PARAMETER)

    def _write(self, value: str) -> None:
        self._host.write_in_place(PARAMETER, value)  # with a newline the kernel refuses it
        if (now := self._host.read_text(PARAMETER, limit_bytes=64).strip()) != value:
            raise HostError(f"{PARAMETER} is {sanitize(now)!r} after {value!r} was written")


class DenyRecordsRestored:
    """The control in mode off, on a node whose parameter the agent has set at some time: restores it, nothing else."""

    name = _CONTROL
    is_off = True  # nothing is judged

    def __init__(self, host: Host) -> None:
        self._parameter = DenyRecordsParameter(host, is_required=False)

    def watched(self) -> Sequence[str]:
        """Nothing."""
        return ()

    def observe(self) -> DenyRecords:
        """Raises HostError where it is unknown whether there is something to restore."""
        seen = self._parameter.observe()
        if seen.problem:
            raise HostError(seen.problem)
        return seen

    def judge(self, _seen: DenyRecords) -> Sequence[Finding]:
        """None: the control is off."""
        return ()

    def plan(self, seen: DenyRecords) -> Sequence[Step]:
        """What was there before."""
        return tuple(self._parameter.plan(seen, is_enforced=False))


def restored(host: Host) -> DenyRecordsRestored | None:
    """The control for a policy with the mode off; None on a node whose parameter was never set."""
    is_known = read_or(True, host.exists, Installed(host, _MANIFEST).path)
    return DenyRecordsRestored(host) if is_known else None
