"""Writes the state diagram of docs/reboots.md from phases.TRANSITIONS (`python -m tools.reboot_diagram`)."""

from __future__ import annotations

import re
from pathlib import Path

from agent.reboot.phases import TRANSITIONS

PAGE = Path(__file__).resolve().parent.parent / "docs" / "reboots.md"
_BLOCK = re.compile(r"```mermaid\n.*?```\n", re.DOTALL)


def diagram() -> str:
    """A Mermaid state diagram without the edges of a phase to itself.

    https://mermaid.js.org/syntax/stateDiagram.html
    """
    lines = ["```mermaid", "stateDiagram-v2", "    [*] --> idle"]
    names = {phase: phase.value.replace("-", "_") for edge in TRANSITIONS for phase in (edge.source, edge.target)}
    lines += [f"    state {phase.value!r} as {name}".replace("'", '"') for phase, name in names.items() if "-" in phase]
    lines += [
        f"    {names[edge.source]} --> {names[edge.target]}: {edge.cause}"
        for edge in TRANSITIONS
        if edge.source is not edge.target
    ]
    lines += [
        "    state pending {",
        "        [*] --> waiting",
        "        waiting --> blocked: a blocker, the budget or the window",
        "        blocked --> waiting: nothing blocks any more",
        "        waiting --> locked: compare-and-swap of the Lease",
        "    }",
        "```",
    ]
    return "\n".join(lines) + "\n"


def with_diagram(page: str) -> str:
    """The page with the diagram as it is now."""
    return _BLOCK.sub(lambda _: diagram(), page, count=1)


if __name__ == "__main__":
    PAGE.write_text(with_diagram(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
