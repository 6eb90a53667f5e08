"""docs/coverage.md and the benchmark's table are complete: nothing is missing, and nothing in them is made up."""

from __future__ import annotations

import re

import pytest

from agent.controls import registry
from agent.report import benchmark
from tests.support.agents import ROOT
from tests.support.known_checks import known

SECTIONS = (*(f"K{number}" for number in range(1, 18)), *(f"A{number}" for number in range(1, 5)))
PAGE = (ROOT / "docs/coverage.md").read_text()
CHECKS = known()
# Checks of files, whose rows are made of what a node has.
_OF_FILES = re.compile(r"(control-plane/file/|certificates/|kubelet/(file/|4\.1\.))")


def named(section: str) -> set[str]:
    """The checks and controls that the page names for a section."""
    (part,) = re.findall(rf"^## {section}\n(.*?)(?=^## |\Z)", PAGE, re.DOTALL | re.MULTILINE)
    (checked,) = re.findall(r"^- Checked by: (.*?)(?=^- |\Z)", part, re.DOTALL | re.MULTILINE)
    assert re.search(r"^- Enforced by: \S", part, re.MULTILINE), section
    return set(re.findall(r"`([^`]+)`", checked))


@pytest.mark.parametrize("section", SECTIONS)
def test_every_section_names_what_checks_it(section: str) -> None:
    """Every name exists, and every check of the section is there, or its whole control."""
    names = named(section)
    controls = {name for name in names if "/" not in name}
    assert controls <= set(registry.names())
    assert {name for name in names - controls if name not in CHECKS} == set()
    missing = {one.id for one in CHECKS.values() if one.section == section and one.id.partition("/")[0] not in controls}
    assert missing - names == set()
    assert names or re.search(rf"^## {section}\n.*?^- Not covered: \S", PAGE, re.DOTALL | re.MULTILINE)


def test_every_control_is_in_some_section() -> None:
    """A control that no section needs would be one that neither document speaks of."""
    everywhere = set().union(*map(named, SECTIONS))
    for control in registry.names():
        assert any(name == control or name.startswith(f"{control}/") for name in everywhere), control


def test_checks_and_the_benchmark_agree() -> None:
    """Each check has the numbers that the table gives it; the table names no check that there is not."""
    for one in CHECKS.values():
        assert set(one.cis) == {row.number for row in benchmark.RECOMMENDATIONS if one.id in row.checks}, one.id
    for row in benchmark.RECOMMENDATIONS:
        assert bool(row.checks) != bool(row.why_not), row.number
        assert [name for name in row.checks if name not in CHECKS and not _OF_FILES.match(name)] == [], row.number


def test_the_table_has_every_number_of_the_benchmark() -> None:
    """CIS 1.12: how many recommendations each part has."""
    parts = {
        "1.1": 21, "1.2": 30, "1.3": 7, "1.4": 2, "2": 7, "3.1": 3, "3.2": 2, "4.1": 10, "4.2": 14, "4.3": 1,
        "5.1": 13, "5.2": 12, "5.3": 2, "5.4": 2, "5.5": 1, "5.6": 4,
    }  # fmt: skip
    expected = [f"{part}.{number}" for part, size in parts.items() for number in range(1, size + 1)]
    assert [one.number for one in benchmark.RECOMMENDATIONS] == expected
