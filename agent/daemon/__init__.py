"""The daemon: what starts a pass, the pass itself, and the probes."""

from __future__ import annotations

from agent.daemon.config_store import PolicyStore
from agent.daemon.loop import Daemon, Sink
from agent.daemon.main import serve

__all__ = ["Daemon", "PolicyStore", "Sink", "serve"]
