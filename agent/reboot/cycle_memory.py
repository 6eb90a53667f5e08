"""What one process remembers of the running cycle: shortcuts only, each of which a new process can do without.

A new process continues the drain with what it observes, runs hooks again, and takes a reboot command that it knows
nothing of as given.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from agent.reboot.interfaces import HookProgress, HookStage, Progress
from agent.reboot.machine.decisions import Write
from agent.reboot.machine.inputs import Command
from agent.reboot.refused_keys import Key


@dataclass(slots=True)
class CycleMemory:
    """Of one cycle in one boot; thrown away with it. Moments are monotonic seconds."""

    cycle: str = ""
    boot: str = ""
    progress: Progress | None = None
    drain_again_at: float = 0.0
    drained_at: float | None = None
    hooks: dict[HookStage, HookProgress] = field(default_factory=dict)
    hooks_failed_at: float = 0.0
    command: Command = Command.UNKNOWN
    command_error: str = ""
    command_at: float | None = None
    fence_refused: bool = False
    first_heartbeat: str | None = None
    cordon_refused: str = ""
    heartbeat_at: float = float("-inf")
    refused_keys: set[Key] = field(default_factory=set)

    def without_refused_keys(self, write: Write) -> Write:
        """The write as the API server takes it."""
        refused = self.refused_keys
        labels = {key: text for key, text in write.labels.items() if ("label", key) not in refused}
        notes = {key: text for key, text in write.annotations.items() if ("annotation", key) not in refused}
        return replace(write, labels=labels, annotations=notes)
