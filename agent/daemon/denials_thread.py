"""`denials` of the policy in force: a thread that observes, or nothing of it in memory."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from agent.annotations import DENIALS, RECORDINGS
from agent.config.choices import DenialsMode
from agent.config.node_sections import Denials
from agent.config.schema import Config
from agent.host import Host
from agent.report.metrics import Metrics
from agent.report.node_status import NodeView
from agent.report.publisher import NodePublisher

if TYPE_CHECKING:
    from agent.denials.observer import Observer, Sources

_PART = "denials"  # of what the Node shows; its thread's name
_END_SECONDS = 3.0


class DenialsThread:
    """Starts and ends the observer as the policy has it. `configure` and `check` are called by the loop's thread."""

    def __init__(
        self, host: Host, publisher: NodePublisher, metrics: Metrics, supervise: Callable[[Callable[[], None]], None],
        kernel: Callable[[], Sources] | None = None,
    ) -> None:  # fmt: skip
        """supervise: runs a target to its end, and again when it crashes. kernel: None for the node's own."""
        self._host, self._supervise, self._kernel = host, supervise, kernel
        self._publisher, self._metrics = publisher, metrics
        self._policy: Denials | None = None
        self._observer: Observer | None = None
        self._thread: threading.Thread | None = None

    def configure(self, config: Config) -> None:
        """The policy that is in force from now on."""
        if config.denials == self._policy:
            return
        before, thread = self._observer, self._thread
        self.stop(time.monotonic() + _END_SECONDS)
        if before is not None and thread is not None and not thread.is_alive():
            before.close()
        if config.denials.mode is DenialsMode.OFF:
            self._publisher.offer(_PART, NodeView({DENIALS: None, RECORDINGS: None}))
            self._metrics.denials_visible.set(0)
        else:
            self._start(config.denials)
        self._policy = config.denials

    def _start(self, policy: Denials) -> None:
        from agent.denials import observer  # noqa: PLC0415 - nodes without it do not pay for it

        kernel = self._kernel or (observer.Sources if self._host.can_start_programs else observer.no_kernel)
        made = observer.Observer(self._host, policy, self._publisher, self._metrics, sources=kernel())
        thread = threading.Thread(target=self._supervise, args=(made.run,), name=_PART, daemon=True)
        try:
            thread.start()
        except RuntimeError:
            made.close()
            raise
        self._observer, self._thread = made, thread

    def check(self) -> None:
        """After each pass: verifies that records still arrive, when that is due."""
        if (observer := self._observer) is not None:  # `stop` may come from another thread
            observer.check()

    def stop(self, deadline: float) -> None:
        """Ends the observer, with its last checkpoint written. deadline: monotonic; it is not waited for any longer."""
        if self._observer is not None and self._thread is not None:
            self._observer.stop()
            self._thread.join(max(deadline - time.monotonic(), 0.0))
        self._observer = self._thread = None
