"""Every request that arrived, for tests to count and read: who, what, how it ended, which fault hit it.

Tokens are never kept. The journal is bounded, so that a long demo does not grow.
"""

from __future__ import annotations

import time
from collections import deque
from dataclasses import asdict, dataclass

from agent.sandbox.routing import RequestInfo


@dataclass(slots=True)
class RequestRecord:
    """One request. ``status`` and ``duration_seconds`` are None while it runs (a watch), 0 when its answer was cut off.

    ``verb`` is the authorization verb (get, list, watch, create, update, patch, delete, deletecollection); ``at`` is
    monotonic seconds, ``body`` the request's body as text.
    """

    number: int
    at: float
    method: str
    path: str
    query: str
    verb: str
    group: str
    resource: str
    namespace: str
    name: str
    subresource: str
    user_agent: str
    user: str = ""
    status: int | None = None
    duration_seconds: float | None = None
    fault: str = ""
    body: str = ""
    version: str = ""

    def finish(self, status: int) -> None:
        """Note how it ended."""
        self.status = status
        self.duration_seconds = time.monotonic() - self.at


class Journal:
    """The requests in the order of their arrival."""

    def __init__(self, limit: int = 100_000) -> None:
        """Older ones than ``limit`` are forgotten."""
        self._records: deque[RequestRecord] = deque(maxlen=limit)
        self._count = 0

    def begin(self, method: str, info: RequestInfo, query: str, user_agent: str) -> RequestRecord:
        """Note an arrival."""
        self._count += 1
        record = RequestRecord(
            number=self._count, at=time.monotonic(), method=method, query=query, user_agent=user_agent, **asdict(info)
        )
        self._records.append(record)
        return record

    def records(self) -> list[RequestRecord]:
        """All that are kept, oldest first."""
        return list(self._records)

    def clear(self) -> None:
        """Forget them; the numbering continues."""
        self._records.clear()
