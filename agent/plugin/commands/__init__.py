"""Every command, in the order in which help shows them. One module each; a new one is a line here."""

from __future__ import annotations

from agent.plugin.commands import (
    audit,
    completion,
    denials,
    diff,
    forecast,
    history,
    pause,
    policy,
    preflight,
    reboot,
    record,
    report,
    rollout,
    skip,
    status,
    unlock,
    why,
)
from agent.plugin.session import Command

COMMANDS: tuple[Command, ...] = (
    status.COMMAND,
    why.COMMAND,
    history.COMMAND,
    forecast.COMMAND,
    preflight.COMMAND,
    pause.PAUSE_COMMAND,
    pause.RESUME_COMMAND,
    skip.COMMAND,
    reboot.COMMAND,
    unlock.COMMAND,
    diff.COMMAND,
    audit.COMMAND,
    policy.COMMAND,
    rollout.COMMAND,
    denials.COMMAND,
    record.COMMAND,
    report.COMMAND,
    completion.COMMAND,
)  # fmt: skip
