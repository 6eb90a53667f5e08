"""Titles of the nodes' checks by id: a Node has them only of what did not pass."""

from __future__ import annotations

import functools
import importlib
import pkgutil
from collections.abc import Iterator

from agent import controls
from agent.controls.kubelet.check import Row
from agent.report import benchmark

# Of checks that depend on the node: what follows the prefix is its module, profile or setting.
_PREFIXES = {
    "modprobe/": "Kernel module {} is refused",
    "apparmor/profile/": "AppArmor profile {} is loaded",
    "seccomp/profile/": "seccomp profile {} is installed",
    "sysctl/": "Kernel setting {}",
}


def title_of(check: str) -> str:
    """The title of a check; empty for one that this version does not know."""
    for prefix, title in _PREFIXES.items():
        if check.startswith(prefix):
            return title.format(check.removeprefix(prefix))
    return _titles().get(check) or benchmark.title_of(check)


@functools.cache
def _titles() -> dict[str, str]:
    return {f"{row.control}/{row.id}": row.title for row in rows()}


def rows() -> Iterator[Row]:
    """Every check of the controls that is a row of a table."""
    for module in pkgutil.walk_packages(controls.__path__, f"{controls.__name__}."):
        for value in vars(importlib.import_module(module.name)).values():
            yield from (one for one in (value if isinstance(value, tuple) else (value,)) if isinstance(one, Row))
