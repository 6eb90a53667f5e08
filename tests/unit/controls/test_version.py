"""The version control: upstream's calendar and the distance to the API server."""

from __future__ import annotations

from datetime import UTC, date, datetime
from pathlib import Path

import pytest

from agent.config import node_sections
from agent.controls import base
from agent.controls.version import SUPPORT, VersionControl
from agent.errors import HostError
from agent.host import Host
from agent.model import Finding, Status

PASS, FAIL, UNKNOWN, INFO, NONE = Status.PASS, Status.FAIL, Status.UNKNOWN, Status.INFO, Status.NOT_APPLICABLE


def audit(root: Path, kubelet: str, server: str = "v1.36.2", today: str = "2026-11-28") -> dict[str, Finding]:
    """The control's findings by id, without its name."""
    wall = datetime.combine(date.fromisoformat(today), datetime.min.time(), UTC).timestamp()
    control = VersionControl(node_sections.Version(), Host(root), versions=lambda: (server, kubelet), wall=lambda: wall)
    return {finding.id.removeprefix("version/"): finding for finding in base.audit(control).findings}


@pytest.mark.parametrize(
    ("version", "today", "status"),
    [
        ("v1.36.2", "2026-11-28", PASS), ("v1.36.2", "2027-05-01", INFO), ("v1.36.2", "2027-06-29", FAIL),
        ("v1.34.9", "2026-11-28", FAIL), ("v1.20.0", "2026-11-28", FAIL), ("v1.34.9-eks-1234567", "2026-11-28", INFO),
        ("v1.34.9+k3s1", "2026-11-28", FAIL), ("v1.38.0", "2026-12-28", INFO), ("v1.38.0", "2028-06-01", UNKNOWN),
        ("v1.37.0", "2027-10-28", INFO), ("garbage", "2026-11-28", UNKNOWN),
    ],
)  # fmt: skip
def test_support_follows_the_calendar(tmp_path: Path, version: str, today: str, status: Status) -> None:
    found = audit(tmp_path, version, today=today)["supported"]
    assert found.status is status
    assert version in found.observed


@pytest.mark.parametrize(
    ("kubelet", "server", "status"),
    [("v1.36.2", "v1.36.0", PASS), ("v1.33.0", "v1.36.0", PASS), ("v1.32.0", "v1.36.0", FAIL),
     ("v1.37.0", "v1.36.0", FAIL), ("v1.24.0", "v1.27.0", FAIL), ("v1.24.0", "v1.26.0", PASS), ("", "v1.36.0", NONE)],
)  # fmt: skip
def test_skew_follows_the_policy(tmp_path: Path, kubelet: str, server: str, status: Status) -> None:
    assert audit(tmp_path, kubelet, server)["skew"].status is status


def test_an_api_server_that_refuses_makes_both_unknown(tmp_path: Path) -> None:
    def refuse() -> tuple[str, str]:
        raise HostError("403: forbidden")

    found = base.audit(VersionControl(node_sections.Version(), Host(tmp_path), versions=refuse)).findings
    assert [one.status for one in found] == [UNKNOWN, UNKNOWN]
    assert all("403: forbidden" in one.observed for one in found)


def test_an_api_server_that_is_away_makes_no_node_unknown(tmp_path: Path) -> None:
    found = base.audit(VersionControl(node_sections.Version(), Host(tmp_path), versions=lambda: None)).findings
    assert [one.status for one in found] == [INFO, INFO]


def test_without_access_nothing_is_claimed(tmp_path: Path) -> None:
    found = base.audit(VersionControl(node_sections.Version(), Host(tmp_path))).findings
    assert [one.status for one in found] == [NONE, NONE]


def test_the_table_is_in_order() -> None:
    rows = [SUPPORT[minor] for minor in sorted(SUPPORT)]
    assert rows == sorted(rows)
    assert all(maintenance < end for maintenance, end in rows)
