"""The shape of the code under agent/: no file that is too long to read, and functions that do one thing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

AGENT = Path(__file__).parents[2] / "agent"
FILE_LINES = 400
FUNCTION_LINES = 25  # of 95 in a hundred


def functions(path: Path) -> Iterator[tuple[int, str]]:
    """Lines and place of each."""
    for found in ast.walk(ast.parse(path.read_text())):
        if isinstance(found, ast.FunctionDef | ast.AsyncFunctionDef) and found.end_lineno is not None:
            yield found.end_lineno - found.lineno + 1, f"{path.relative_to(AGENT)}:{found.lineno} {found.name}"


def test_no_file_is_too_long() -> None:
    lines = {path: path.read_text().count("\n") for path in AGENT.rglob("*.py")}
    assert len(lines) > 200
    assert [f"{path}: {count}" for path, count in lines.items() if count > FILE_LINES] == []


def test_functions_are_short() -> None:
    """Ordered by length, the one behind 95 % of all is within the limit; the longest are named."""
    ordered = sorted(found for path in AGENT.rglob("*.py") for found in functions(path))
    assert ordered[len(ordered) * 95 // 100][0] <= FUNCTION_LINES, ordered[-10:]
