"""ROOT UNTIL BUFFER EVENTS: observes denials on the node; prints what the Node would show, as one JSON document.

UNTIL is `end` (the file /run/observe-end), `state`, or `first` (a row). BUFFER: bytes of the socket, 0 for the default.
EVENTS is `no` where the kernel offers no process events.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any, cast

from agent import annotations as keys
from agent.config.choices import DenialsMode
from agent.config.node_sections import Denials
from agent.denials.netlink import AuditSocket, ProcessEvents
from agent.denials.observer import Observer, Sources
from agent.host import Host
from agent.report.metrics import Metrics
from agent.report.node_status import NodeView
from agent.report.publisher import NodePublisher

LONGEST_SECONDS = 600.0
BUFFER_BYTES = 4 << 20


class Shown:
    """Stands for the publisher: keeps what the Node would show last."""

    def __init__(self) -> None:
        self.view = NodeView()

    def offer(self, part: str, view: NodeView) -> None:
        """As the publisher's."""
        assert part
        self.view = view

    def event(self, *_: object) -> None:
        """As the publisher's."""

    def document(self, key: str) -> dict[str, Any]:
        """An annotation's JSON; empty where there is none."""
        found: dict[str, Any] = json.loads(self.view.annotations.get(key) or "{}")
        return found


def no_events() -> ProcessEvents:
    """A kernel without them."""
    raise OSError("removed")


def is_done(seen: dict[str, Any], until: str) -> bool:
    """Whether what is shown is what is waited for."""
    if until == "first":
        return bool(seen.get("rows")) or seen.get("state") == "blind"
    if until == "state":
        return seen.get("state") in ("seeing", "blind")
    if seen.get("state"):
        Path("/run/observing").write_text(seen["state"])
    return Path("/run/observe-end").exists()


def main(root: str, until: str, buffer: str, events: str) -> None:
    """See the module."""
    shown = Shown()
    sources = Sources(
        audit=lambda: AuditSocket(int(buffer) or BUFFER_BYTES), events=no_events if events == "no" else ProcessEvents
    )
    policy = Denials(mode=DenialsMode.OBSERVE)
    observer = Observer(Host(root), policy, cast("NodePublisher", shown), Metrics(), sources=sources)
    thread = threading.Thread(target=observer.run)
    thread.start()
    end = time.monotonic() + LONGEST_SECONDS
    while time.monotonic() < end and not is_done(shown.document(keys.DENIALS), until):
        time.sleep(0.2)
    before = None
    while until == "end" and before != (before := (observer._received, observer._serials.lost)):
        time.sleep(4)
    observer.stop()
    thread.join()
    observer._show()
    sys.stdout.write(
        json.dumps({"denials": shown.document(keys.DENIALS), "recordings": shown.document(keys.RECORDINGS)}) + "\n"
    )


if __name__ == "__main__":
    main(*sys.argv[1:])
