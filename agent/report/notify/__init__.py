"""Notifications to chat, pagers and alert managers, by event reason and urgency.

    notifier = Notifier(config.notify, DeliveryContext(run=partial(host.run, how=HostExec.DIRECT)))
    notifier.send(Notification(Reason.REBOOT_FAILED, "the reboot command failed", "worker-1", key=announcement.key))

It never raises, never waits and never decides: a receiver that is down costs nothing but its own notifications. URLs
and keys are secrets: read from their files for each attempt, and never logged.
"""

from __future__ import annotations

from agent.report.notify.message import Notification
from agent.report.notify.notifier import Notifier
from agent.report.notify.receivers import DeliveryContext

__all__ = ["DeliveryContext", "Notification", "Notifier"]
