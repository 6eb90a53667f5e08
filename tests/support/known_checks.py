"""Every check that there is as a row, with its section and numbers: of the node's controls and of the cluster.

Checks that depend on the node (a module, a profile, a setting, a file) have no rows; their controls stand for them.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from dataclasses import dataclass

from agent import controls
from agent.controls.kubelet.check import Row
from agent.plugin.audit.audit import CHECKS


@dataclass(frozen=True, slots=True)
class Known:
    """One row."""

    id: str
    section: str
    cis: tuple[str, ...]


def known() -> dict[str, Known]:
    """By id."""
    rows = [Known(one.id, one.section, one.cis) for one in CHECKS]
    for row in _rows():
        numbers = row.cis or ((row.id,) if row.id[0].isdecimal() else ())
        rows.append(Known(f"{row.control}/{row.id}", row.section, numbers))
    return {one.id: one for one in rows}


def _rows() -> Iterator[Row]:
    for module in pkgutil.walk_packages(controls.__path__, f"{controls.__name__}."):
        for value in vars(importlib.import_module(module.name)).values():
            yield from (one for one in (value if isinstance(value, tuple) else (value,)) if isinstance(one, Row))
