"""The words that keys of the policy may have, one enum per kind of key. Nothing here has behaviour."""

from __future__ import annotations

from enum import StrEnum
from typing import Self


class Mode(StrEnum):
    """enforce: apply and verify. audit: only report. off: do nothing."""

    ENFORCE = "enforce"
    AUDIT = "audit"
    OFF = "off"


class ParserChoice(StrEnum):
    """Whose apparmor_parser is used. newest: the newer of the agent's image's and the node's own."""

    NEWEST = "newest"
    IMAGE = "image"
    NODE = "node"


class AuditMode(StrEnum):
    """For controls that never change the node."""

    AUDIT = "audit"
    OFF = "off"


class DenialsMode(StrEnum):
    """observe: read the kernel's records of what profiles refuse. off: load nothing of it."""

    OBSERVE = "observe"
    OFF = "off"


class Required(StrEnum):
    """What an exit code of the sentinel command means."""

    REQUIRED = "required"
    NONE = "none"


class OnTimeout(StrEnum):
    """A drain that timed out. abort: roll back. delete: delete what is left. force: reboot anyway."""

    ABORT = "abort"
    DELETE = "delete"
    FORCE = "force"


class OnLostHolder(StrEnum):
    """A holder that did not come back from its reboot. hold: on-call decides. release: after the timeouts."""

    HOLD = "hold"
    RELEASE = "release"


class Kured(StrEnum):
    """Whether kured's lock is respected. auto: where a DaemonSet carries it."""

    AUTO = "auto"
    OFF = "off"


class RebootMethod(StrEnum):
    """command: runs `reboot.command`. signal: SIGRTMIN+5 to PID 1, for nodes without systemctl in reach."""

    COMMAND = "command"
    SIGNAL = "signal"


class Weekday(StrEnum):
    """Days of a window."""

    MON = "mon"
    TUE = "tue"
    WED = "wed"
    THU = "thu"
    FRI = "fri"
    SAT = "sat"
    SUN = "sun"


class WeekOfMonth(StrEnum):
    """Which of its weekday's days in a month: the second Tuesday is `weeks: [second], days: [tue]`."""

    FIRST = "first"
    SECOND = "second"
    THIRD = "third"
    FOURTH = "fourth"
    FIFTH = "fifth"
    LAST = "last"


class NotifyType(StrEnum):
    """Where a notification goes. apprise: any of its services, in a short-lived child (extra `notify`).

    secret: the key whose file a receiver of this type needs.
    """

    secret: str

    def __new__(cls, value: str, secret: str = "urlFile") -> Self:  # noqa: S107 - the name of a key, not a secret
        """A plain string wherever it is compared or printed."""
        member = str.__new__(cls, value)
        member._value_ = value
        member.secret = secret
        return member

    SLACK = "slack"
    TEAMS = "teams"
    PAGERDUTY = "pagerduty", "keyFile"
    ALERTMANAGER = "alertmanager"
    WEBHOOK = "webhook"
    APPRISE = "apprise"


class LogLevel(StrEnum):
    """Least important line that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class LogFormat(StrEnum):
    """auto: text on a terminal, JSON elsewhere."""

    AUTO = "auto"
    JSON = "json"
    TEXT = "text"
