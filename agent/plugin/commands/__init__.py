"""Every command, in the order in which help shows them. One module each; a new one is a line here."""

from __future__ import annotations

from agent.plugin.command import Command
from agent.plugin.commands import status

COMMANDS: tuple[Command, ...] = (
    status.COMMAND,
)  # fmt: skip
