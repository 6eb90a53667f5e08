"""`python -m bench [NAME…] [-o json]`: a table of figures, what was to be reached, and whether it was.

KURED=path, as root, measures kured beside our agents too (bench.kured).

Exit code 1 when something is not reached, 2 when it is not asked for rightly, 3 when a figure could not be measured.
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
from collections.abc import Sequence
from dataclasses import asdict

from bench.figure import Figure

# In the order of the table; every module has figures().
NAMES = ("audit", "resident", "idle", "reactions", "reboots", "fleet", "cluster_audit")
MORE = ("kured", "savings", "soak")  # only on request; kured by its variable, too


def main(argv: Sequence[str] | None = None) -> int:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m bench", description="The figures of docs/performance.md.")
    parser.add_argument(
        "names", nargs="*", metavar="NAME", help=f"{', '.join((*NAMES, *MORE))} (default: all but the last three)"
    )
    parser.add_argument("-o", "--output", choices=["table", "json"], default="table")
    given = parser.parse_args(argv)
    unknown = [name for name in given.names if name not in (*NAMES, *MORE)]
    if unknown:
        parser.error(f"no such figure: {', '.join(unknown)}; there are {', '.join((*NAMES, *MORE))}")
    wanted = given.names or (*NAMES, *(["kured"] if os.environ.get("KURED") else []))
    if "kured" in wanted:  # told now, not after the minutes that the others take
        kured = importlib.import_module("bench.kured")
        try:
            kured.given()
        except kured.CannotRun as error:
            parser.error(str(error))
    found: list[Figure] = []
    failed = False
    for name in wanted:
        print(f"bench: {name} …", file=sys.stderr, flush=True)
        try:
            found += importlib.import_module(f"bench.{name}").figures()
        except Exception as error:  # noqa: BLE001 - the other figures are worth having
            failed = True
            print(f"bench: {name} could not be measured: {type(error).__name__}: {error}", file=sys.stderr)
    if given.output == "json":
        print(json.dumps([{**asdict(one), "verdict": one.verdict} for one in found], indent=2, ensure_ascii=False))
    else:
        _table(found)
    return 3 if failed else 0 if all(one.reached for one in found) else 1


def _table(found: Sequence[Figure]) -> None:
    rows = [("FIGURE", "TO REACH", "VERDICT", "MEASURED")]
    rows += [(one.what, one.limit or "-", one.verdict, one.measured) for one in found]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for row in rows:
        print("  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]))


if __name__ == "__main__":
    sys.exit(main())
