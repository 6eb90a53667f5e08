"""The daemon: what wakes it, what it does then, and how it says that it is alive."""

from __future__ import annotations

from agent.daemon.loop import Daemon, Sink

__all__ = ["Daemon", "Sink"]
