"""Telling people: chat, pagers and alert managers, by what happened and to whom it matters.

    notifier = Notifier(config.notify, Means(run=partial(host.run, how=HostExec.DIRECT)))
    notifier.send(Notice(Reason.REBOOT_FAILED, "the reboot command failed", "worker-1", key=announcement.key))

It never raises, never waits and never decides: a receiver that is away costs nothing but its own notifications. URLs
and keys are secrets: read from their files for each try, and never in a log.
"""

from __future__ import annotations

from agent.report.notify.notice import Notification
from agent.report.notify.notifier import Delivery, DeliveryContext, Notifier

__all__ = ["Delivery", "DeliveryContext", "Notification", "Notifier"]
