"""What a key of the policy is made of: its default, the line that the reference shows, its bounds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import field
from typing import Any


def key(default: Any, about: str, *, least: float | None = None, most: float | None = None) -> Any:
    """A field of a section: its default, the line that the reference shows, and bounds for numbers and durations."""
    return field(default=default, metadata={"about": about, "least": least, "most": most})


def section(make: Callable[[], Any], about: str) -> Any:
    """A field that is a section or a mapping of its own."""
    return field(default_factory=make, metadata={"about": about, "least": None, "most": None})
