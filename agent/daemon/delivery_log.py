"""Which notifications and Events were delivered, in a file on the node: a restarted agent does not send them again.

The newest few hundred digests. A file that cannot be read or written costs repetitions, never a notification.
"""

from __future__ import annotations

import re
import threading

import structlog

from agent.controls.manifest import STATE_FOLDER
from agent.errors import HostError
from agent.host import Host

PATH = f"{STATE_FOLDER}/delivered-notifications"
_REMEMBERED = 512
_LIMIT_BYTES = 64 << 10
_DIGEST = re.compile(r"^[0-9a-f]{16}$", re.MULTILINE)


class DeliveryLog:
    """See agent.report.notify.message.Delivered. Read when it is first asked."""

    def __init__(self, host: Host) -> None:
        self._host = host
        self._lock = threading.Lock()
        self._digests: dict[str, None] | None = None
        self._log = structlog.get_logger()

    def __contains__(self, digest: object) -> bool:
        """Whether it was delivered, by this process or an earlier one."""
        with self._lock:
            return digest in self._loaded()

    def add(self, digest: str) -> None:
        """Writes it down before the next message is sent."""
        with self._lock:
            digests = self._loaded()
            digests[digest] = None
            if len(digests) > _REMEMBERED:
                del digests[next(iter(digests))]
            try:
                self._host.write(PATH, "".join(f"{one}\n" for one in digests), mode=0o600)
            except HostError as error:
                self._log.warning("delivery_log_not_written", path=PATH, error=str(error))

    def _loaded(self) -> dict[str, None]:
        if self._digests is None:
            text = ""
            try:
                text = self._host.read_text(PATH, limit_bytes=_LIMIT_BYTES, missing="")
            except HostError as error:
                self._log.warning("delivery_log_unreadable", path=PATH, error=str(error))
            self._digests = dict.fromkeys(_DIGEST.findall(text)[-_REMEMBERED:])
        return self._digests
