"""The daemon: what starts a pass, the pass itself, and the probes."""

from __future__ import annotations

from agent.daemon.config_store import PolicyStore
from agent.daemon.main import serve

__all__ = ["PolicyStore", "serve"]
