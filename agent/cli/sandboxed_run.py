"""`run` on a sandboxed node: audit records come from the sandbox. For its machines, not a command."""

from __future__ import annotations

import sys
from functools import partial

from agent.cli import common, run
from agent.sandbox.audit import sources


def main(argv: list[str]) -> int:
    """argv: two descriptors (agent.sandbox.audit), then as for `run`."""
    given = run.parsed(argv[2:])
    return common.answer(lambda: run.serve(given, kernel=partial(sources, int(argv[0]), int(argv[1]))))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
