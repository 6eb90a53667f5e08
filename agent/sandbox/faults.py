"""What can go wrong between a client and an API server, on purpose and repeatable.

A fault hits the requests that it matches, by a seeded chance and a bounded number of times. Faults never change what
the server would have stored: ``LOSE_ANSWER`` is the one after which a write has happened and the client does not know.
"""

from __future__ import annotations

import random
import re
from dataclasses import dataclass
from enum import Enum

from agent.sandbox.routing import RequestInfo
from agent.sandbox.status_errors import ApiError


class FaultKind(Enum):
    """What happens to the request."""

    LATENCY = "latency"  # waits ``seconds``, then continues
    STATUS = "status"  # answered with ``code`` without being processed
    DROP = "drop"  # the connection is cut before anything is processed
    LOSE_ANSWER = "lose-answer"  # processed and stored; the connection is cut instead of the answer
    TRUNCATE = "truncate"  # processed; half of the body arrives
    CUT_WATCH = "cut-watch"  # a watch that has begun is cut after ``seconds``


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault and what it hits: every set condition must hold.

    ``verbs`` are authorization verbs (``patch``, ``watch`` …), ``path`` a regular expression searched in the path and
    ``agent`` one in the User-Agent. ``skip`` matching requests pass
    first; then at most ``count`` are hit (None: all), each by ``probability``. ``plain`` answers with text instead
    of a Status, as a proxy or the in-flight limit does. ``retry_after`` is in seconds; None sends no header.
    """

    kind: FaultKind
    verbs: frozenset[str] = frozenset()
    path: str = ""
    agent: str = ""
    probability: float = 1.0
    count: int | None = None
    skip: int = 0
    seconds: float = 0.0
    code: int = 500
    reason: str = ""
    message: str = ""
    retry_after: int | None = None
    plain: bool = False

    def matches(self, info: RequestInfo, agent: str) -> bool:
        """Whether the request is one of those."""
        if self.kind is FaultKind.CUT_WATCH and info.verb != "watch":
            return False
        return (
            (not self.verbs or info.verb in self.verbs)
            and re.search(self.path, info.path) is not None
            and re.search(self.agent, agent) is not None
        )

    def error(self) -> ApiError:
        """The Status of a ``STATUS`` fault."""
        reason, message = _STATUSES.get(self.code, ("InternalError", "an error on the server has prevented it"))
        error = ApiError(self.code, self.reason or reason, self.message or message)
        error.retry_after = self.retry_after or 0
        return error


_STATUSES = {
    401: ("Unauthorized", "Unauthorized"),
    403: ("Forbidden", "forbidden: by a fault"),
    404: ("NotFound", "the server could not find the requested resource"),
    409: ("Conflict", "the server reported a conflict"),
    410: ("Expired", "too old resource version"),
    429: ("TooManyRequests", "the server has received too many requests and has asked us to try again later"),
    500: ("InternalError", "Internal error occurred: by a fault"),
    502: ("", "bad gateway"),
    503: ("ServiceUnavailable", "the server is currently unable to handle the request"),
    504: ("Timeout", "the server was unable to return a response in the time allotted"),
}


@dataclass(slots=True)
class _Armed:
    fault: Fault
    seen: int = 0
    hits: int = 0


@dataclass(frozen=True, slots=True)
class Hit:
    """What one request suffers: a wait first, then at most one other fault."""

    latency_seconds: float = 0.0
    fault: Fault | None = None
    names: tuple[str, ...] = ()


class FaultBox:
    """The faults that are armed, in the order in which they were added: the first that hits wins."""

    def __init__(self) -> None:
        """The same requests give the same hits each time."""
        self._random = random.Random(0)  # noqa: S311 - chance for tests, no secret
        self._armed: dict[int, _Armed] = {}
        self._next = 1

    def add(self, fault: Fault) -> int:
        """Arm a fault; the number takes it out again."""
        number, self._next = self._next, self._next + 1
        self._armed[number] = _Armed(fault)
        return number

    def remove(self, number: int) -> None:
        """Disarm one; an unknown number is nothing to do."""
        self._armed.pop(number, None)

    def clear(self) -> None:
        """Disarm all."""
        self._armed.clear()

    def hits(self) -> dict[int, int]:
        """How many requests each armed fault has hit."""
        return {number: armed.hits for number, armed in self._armed.items()}

    def strike(self, info: RequestInfo, agent: str) -> Hit:
        """What happens to this request."""
        latency, chosen, names = 0.0, None, []
        for armed in self._armed.values():
            fault = armed.fault
            is_latency = fault.kind is FaultKind.LATENCY
            if (chosen is not None and not is_latency) or not fault.matches(info, agent):
                continue
            armed.seen += 1
            if armed.seen <= fault.skip or (fault.count is not None and armed.hits >= fault.count):
                continue
            if fault.probability < 1.0 and self._random.random() >= fault.probability:
                continue
            armed.hits += 1
            names.append(fault.kind.value)
            if is_latency:
                latency += fault.seconds
            else:
                chosen = fault
        return Hit(latency, chosen, tuple(names))
