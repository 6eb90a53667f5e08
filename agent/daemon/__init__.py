"""The daemon: what wakes it, what it does then, and how it says that it is alive."""

from __future__ import annotations

from agent.daemon.config_store import PolicyStore
from agent.daemon.loop import Daemon, Sink
from agent.daemon.main import serve

__all__ = ["Daemon", "PolicyStore", "Sink", "serve"]
