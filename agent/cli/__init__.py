"""The command line: what users and the DaemonSet start. Wiring and exit codes; no work of its own.

Exit codes: 0 the node complies; 1 something does not comply; 2 usage or configuration error; 3 could not do the work.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

from agent.lean import lazy_import


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point `node-hardening-agent`. Returns the exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    if words[:1] == ["run"]:
        # Before anything else is imported: what the daemon imports stays in memory.
        lazy_import.defer()
        from agent.cli.run import run  # noqa: PLC0415

        return run(words)
    from agent.cli.main import main as other  # noqa: PLC0415

    return other(words)


__all__ = ["main"]
