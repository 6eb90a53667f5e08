"""Which denied modules may be unloaded, and in which order. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from collections.abc import Set as AbstractSet

from agent.controls.modprobe.kmod import Loaded


def unload_order(loaded: Mapping[str, Loaded], denied: AbstractSet[str]) -> tuple[str, ...]:
    """Denied modules that nothing uses once those before them are gone: dccp_ipv4 first, then dccp.

    A module whose references are more than its holders is in use by a process or a mount, and stays.
    """
    order: list[str] = []
    gone: set[str] = set()
    while True:
        free = sorted(
            name
            for name in denied - gone
            if (module := loaded.get(name)) is not None
            and module.references == len(module.holders)
            and set(module.holders) <= gone
        )
        if not free:
            return tuple(order)
        order += free
        gone |= set(free)
