"""The kubelet of a machine, as the API server sees it: heartbeats and Ready while it runs, with its real boot id.

It runs on the host and asks the machine itself which boot runs, so the Node shows what happened and not what was meant
to. When the machine does not answer, nothing is posted, and the node controller finds out as it does in a cluster.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Self

from tests.vm.harness.channel import MachineGone
from tests.vm.harness.cluster import Speaker
from tests.vm.harness.machine import Machine

_BEAT_SECONDS = 0.5
_ANSWER_SECONDS = 20.0


class StandInKubelet:
    """One thread for one machine. `with` it."""

    def __init__(self, speaker: Speaker, machine: Machine, booted: Callable[[str], None] = lambda _: None) -> None:
        """booted: told each boot id that the machine has had, when it is first seen."""
        self._speaker = speaker
        self._machine = machine
        self.booted = booted
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"kubelet {machine.name}", daemon=True)
        self.boots: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        running = True  # the emulator starts every kubelet
        while not self._stop.wait(_BEAT_SECONDS):
            boot = self._ask()
            if boot and boot not in self.boots:
                self.boots.append(boot)
                self.booted(boot)
                self._speaker.set_boot_id(self._machine.name, boot)
            if bool(boot) is not running:
                running = bool(boot)
                (self._speaker.start_kubelet if running else self._speaker.stop_kubelet)(self._machine.name)

    def _ask(self) -> str:
        """The running boot's id, empty when the machine does not say."""
        try:
            return self._machine.get("/proc/sys/kernel/random/boot_id", seconds=_ANSWER_SECONDS).strip()
        except (MachineGone, TimeoutError, RuntimeError):
            return ""
