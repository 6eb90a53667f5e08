"""The command line: what people and the DaemonSet start. Wiring and exit codes; no work of its own.

Exit codes: 0 all well; 1 something does not comply; 2 usage or configuration error; 3 could not do the work.
"""

from __future__ import annotations

from agent.cli.main import main

__all__ = ["main"]
