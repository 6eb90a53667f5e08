"""Exceptions of the policy: a failure becomes information until a day, and nothing else changes."""

from __future__ import annotations

import datetime as dt

import pytest

from agent.config import loads
from agent.config.schema import AuditException
from agent.controls import exceptions
from agent.errors import ConfigError
from agent.model import Finding, Severity, Status

DAY = dt.date(2027, 1, 15)


def accepted(**changes: object) -> AuditException:
    given = {
        "id": "kubelet/4.2.6", "selector": {"node": "gpu-*"}, "reason": "vendor image", "owner": "team-gpu",
        "expires": "2027-06-30", **changes,
    }  # fmt: skip
    return AuditException(**given)  # type: ignore[arg-type]


def finding(status: Status, id_: str = "kubelet/4.2.6") -> Finding:
    return Finding(id_, "kubelet", "", status, Severity.LOW, "false", "true", remediation="Set it.")


@pytest.mark.parametrize("status", Status)
def test_only_a_failure_is_excepted(status: Status) -> None:
    """Unknown stays unknown; the reason, the owner and the day are shown, and what was observed."""
    (found,) = exceptions.applied([finding(status)], [accepted()], "gpu-1", {}, DAY)
    if status is Status.FAIL:
        assert found.status is Status.INFO
        assert found.observed == "excepted until 2027-06-30: vendor image (team-gpu); observed: false"
        assert found.remediation == ""
    else:
        assert found == finding(status)


@pytest.mark.parametrize(
    ("node", "day", "status", "text"),
    [
        ("web-1", DAY, Status.FAIL, "false"),
        ("gpu-1", dt.date(2027, 6, 30), Status.INFO, "which is in 0 days"),
        ("gpu-1", dt.date(2027, 6, 16), Status.INFO, "which is in 14 days"),
        ("gpu-1", dt.date(2027, 7, 1), Status.FAIL, "its exception ended on 2027-06-30 (team-gpu: vendor image)"),
    ],
    ids=["another node", "last day", "near", "ended"],
)
def test_it_holds_for_its_nodes_until_its_day(node: str, day: dt.date, status: Status, text: str) -> None:
    """The day itself included; afterwards the failure is back and names it."""
    found = exceptions.applied([finding(Status.FAIL)], [accepted()], node, {}, day)[0]
    assert found.status is status
    assert text in found.observed


@pytest.mark.parametrize(
    ("selected", "labels", "holds"),
    [
        ({"labels": "pool=gpu"}, {"pool": "gpu"}, True),
        ({"labels": "pool=gpu"}, {"pool": "web"}, False),
        ({"labels": "pool in (gpu, tpu),!spot"}, {"pool": "tpu"}, True),
        ({"labels": "pool!=web"}, {"pool": "gpu"}, True),
        ({"labels": "pool!=web"}, {}, False),
        ({"labels": "!spot"}, {}, False),
        ({"labels": "pool=gpu", "node": "gpu-*"}, {"pool": "gpu"}, True),
        ({"labels": "pool=gpu", "node": "web-*"}, {"pool": "gpu"}, False),
    ],
)
def test_it_holds_for_nodes_with_its_labels(selected: dict[str, str], labels: dict[str, str], holds: bool) -> None:
    """Name and labels together where both are given; a node whose labels are not known has none of its exceptions."""
    found = exceptions.applied([finding(Status.FAIL)], [accepted(selector=selected)], "gpu-1", labels, DAY)
    assert [one.status for one in found] == [Status.INFO if holds else Status.FAIL]
    unused = exceptions.applied([], [accepted(selector=selected)], "gpu-1", labels, DAY)
    assert bool(unused) is holds


def test_of_two_the_one_that_holds_counts() -> None:
    """An exception that was renewed is not ended by the older one."""
    both = [accepted(expires="2027-01-01"), accepted()]
    assert exceptions.applied([finding(Status.FAIL)], both, "gpu-1", {}, DAY)[0].status is Status.INFO


def test_an_id_that_is_no_check_of_this_node_is_information() -> None:
    """Misspelt, or of another node's: shown where it should hold, and nowhere else; never a pass."""
    given = [accepted(id="kubelet/4.2.66"), accepted(id="cluster/privileged", selector={"namespace": "*"})]
    found = exceptions.applied([finding(Status.PASS)], given, "gpu-1", {}, DAY)
    assert [(one.id, one.status) for one in found[1:]] == [("exceptions/kubelet/4.2.66", Status.INFO)]
    assert exceptions.applied([finding(Status.PASS)], given, "web-1", {}, DAY) == (finding(Status.PASS),)


_WHOLE = "{id: kubelet/4.2.6, selector: {node: '*'}, reason: r, owner: o, expires: DAY}"


_TEXTS = ("reason", "owner", "expires")


def _in_days(days: int) -> str:
    return str(exceptions.today() + dt.timedelta(days))


def test_the_policy_takes_a_whole_exception() -> None:
    """A year ahead is the most; one that has ended is still read, so that its finding names it."""
    for day in (_in_days(360), _in_days(-500)):
        config = loads(f"exceptions: [{_WHOLE.replace('DAY', day)}]", "p.yaml")
        assert config.exceptions[0].expires == day


@pytest.mark.parametrize(
    ("old", "new", "key", "message"),
    [
        *((f"{name}: ", f"x{name}: ", f"exceptions[0].{name}", "is missing") for name in _TEXTS),
        ("id: kubelet/4.2.6, ", "", "exceptions[0].id", "is missing"),
        ("{node: '*'}", "{}", "exceptions[0].selector", "is missing"),
        ("kubelet/4.2.6", "kubelet", "exceptions[0].id", "is no check"),
        ("kubelet/4.2.6", "kublet/4.2.6", "exceptions[0].id", "is no check"),
        ("node: '*'", "namespace: x", "exceptions[0].selector.namespace", "write node, labels"),
        ("kubelet/4.2.6", "cluster/root", "exceptions[0].selector.node", "namespace, kind, name, subject, labels"),
        ("node: '*'", "labels: ''", "exceptions[0].selector.labels", "is empty"),
        ("node: '*'", "labels: 'a=b=c'", "exceptions[0].selector.labels", "is not a label selector: 'a=b=c'"),
        ("DAY", "12-24", "exceptions[0].expires", "has no year: write it as 2026-12-24"),
        ("DAY", "''", "exceptions[0].expires", "is not a date"),
        ("DAY", "2027-02-30", "exceptions[0].expires", "not in the calendar"),
        ("DAY", _in_days(400), "exceptions[0].expires", "more than a year ahead"),
    ],
)  # fmt: skip
def test_half_an_exception_is_refused(old: str, new: str, key: str, message: str) -> None:
    """Every key is required, and each problem names key, value and what would be right."""
    text = f"exceptions: [{_WHOLE.replace(old, new).replace('DAY', _in_days(10))}]"
    with pytest.raises(ConfigError) as error:
        loads(text, "p.yaml")
    assert any(one.key == key and message in one.message for one in error.value.problems), error.value.problems
