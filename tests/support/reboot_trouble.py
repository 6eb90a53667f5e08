"""What may go wrong in the simulated cluster, and the books that the invariants are checked against."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum, auto
from typing import TYPE_CHECKING

from agent.kube.errors import (
    CallFailed,
    Conflict,
    Forbidden,
    Invalid,
    NotFound,
    Operation,
    ServerError,
    TooManyRequests,
    Unreachable,
)
from agent.reboot.interfaces import (
    Announcement,
    CycleResult,
)

if TYPE_CHECKING:
    from tests.support.reboot_machine import SimMachine

_OPERATION = Operation("GET", "any", "any", "the simulated API server", "/")


class Crash(BaseException):
    """The agent's process dies at this very point."""


class Violation(AssertionError):
    """An invariant does not hold."""


class Trouble:
    """What goes wrong at a call. This one lets everything pass."""

    def before(self, machine: SimMachine, kind: str, *, write: bool) -> None:
        """Before the effect; raises what the caller gets instead."""

    def after(self, machine: SimMachine, kind: str, *, write: bool) -> None:
        """After the effect; what is raised here is a lost answer, or a crash that follows the effect."""

    def is_stale(self, machine: SimMachine) -> bool:
        """Whether a watched read is behind."""
        return machine.reads_late


def away(*, ambiguous: bool = False) -> Unreachable:
    """The API server does not answer."""
    return Unreachable(_OPERATION, "connection refused", ambiguous=ambiguous)


def conflict() -> Conflict:
    """A 409."""
    return Conflict(_OPERATION, "the object has been modified", status=409, reason="Conflict")


def not_found(what: str) -> NotFound:
    """A 404."""
    return NotFound(_OPERATION, what, status=404, reason="NotFound")


def refused(status: int) -> CallFailed:
    """A refusal for good: 403 of RBAC or admission, 422 of validation; for now: 429 of a webhook, 500 of the server."""
    kind = {403: Forbidden, 422: Invalid, 429: TooManyRequests, 500: ServerError}[status]
    return kind(_OPERATION, "denied by policy", status=status, reason=kind.__name__)


class CommandFate(Enum):
    """What the next reboot command does."""

    WORKS = auto()
    FAILS = auto()
    HANGS = auto()
    NOTHING = auto()


@dataclass(slots=True)
class Books:
    """What happened, as an outsider saw it."""

    cordons: list[tuple[float, str]] = field(default_factory=list)
    evictions: int = 0
    commands: list[tuple[float, str]] = field(default_factory=list)
    boots: list[tuple[float, str]] = field(default_factory=list)
    overridden: list[tuple[float, str]] = field(default_factory=list)  # a user removed the state, or requested a reboot
    events: dict[str, Announcement] = field(default_factory=dict)
    heard: list[tuple[float, str, Announcement]] = field(default_factory=list)
    ended: list[tuple[str, CycleResult]] = field(default_factory=list)
    requests: int = 0
    ticks: int = 0

    def reasons(self) -> list[str]:
        """Reasons of all Events as the API server has them (a key twice is one), in order."""
        return [announcement.reason.value for announcement in self.events.values()]
