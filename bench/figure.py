"""One measured figure, what is to be reached, and how samples become one."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Figure:
    """One row. limit: what is to be reached, empty where there is no such thing."""

    what: str
    measured: str
    limit: str = ""
    reached: bool = True

    @property
    def verdict(self) -> str:
        """One word, or none."""
        return ("reached" if self.reached else "NOT REACHED") if self.limit else ""


def spread(samples: Sequence[float], unit: str, digits: int = 2) -> str:
    """The median, of how many, and the worst."""
    middle, worst = statistics.median(samples), max(samples)
    return f"{middle:.{digits}f} {unit} (median of {len(samples)}, worst {worst:.{digits}f} {unit})"


def below(what: str, samples: Sequence[float], limit: float, unit: str) -> Figure:
    """A figure whose median has to stay under a limit."""
    return Figure(what, spread(samples, unit), f"< {limit:g} {unit}", statistics.median(samples) < limit)
