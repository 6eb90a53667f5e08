"""Configuration: one YAML file in, one frozen Config out, or all of its problems."""

from __future__ import annotations

from agent.config.loader import load, loads, read, text_of
from agent.config.render import fingerprint, revision
from agent.config.schema import Config

__all__ = ["Config", "fingerprint", "load", "loads", "read", "revision", "text_of"]
