"""Every check that there is as a row, with its section and numbers: of the node's controls and of the cluster.

Checks that depend on the node (a module, a profile, a setting, a file) have no rows; their controls stand for them.
"""

from __future__ import annotations

from dataclasses import dataclass

from agent.plugin.audit import titles
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
    for row in titles.rows():
        numbers = row.cis or ((row.id,) if row.id[0].isdecimal() else ())
        rows.append(Known(f"{row.control}/{row.id}", row.section, numbers))
    return {one.id: one for one in rows}
