"""Configuration: one YAML file in, one frozen Config out, or every problem found at once."""

from __future__ import annotations

from agent.config.schema import Config

__all__ = ["Config"]
