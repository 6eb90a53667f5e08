"""The annotation reboot-status: what is written is read back; anything else is read as nothing, or clamped."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.reboot.phases import EDGES, STORED, TRANSITIONS, Phase
from agent.reboot.status import LIMIT_BYTES, BudgetRef, DrainStatus, RebootStatus, StatusReason, parse

DRAINING = RebootStatus(
    Phase.DRAINING,
    StatusReason.DRAIN_BLOCKED,
    required=True,
    lock="node-hardening-reboot-workers-0",
    since=1_790_000_000.0,
    until=1_790_000_900.0,
    failures=2,
    drain=DrainStatus(3, 1, ("shop/web-0",), (BudgetRef("shop", "web", "Deployment web"),), ("shop/web",)),
    message="1 of 3 pods left",
)
TEXTS = st.text(max_size=4000)


@pytest.mark.parametrize("status", [DRAINING, RebootStatus(Phase.IDLE, StatusReason.NOT_REQUIRED, required=False)])
def test_what_is_written_is_read_back(status: RebootStatus) -> None:
    """Field by field."""
    assert parse(status.encode()) == status


def test_the_shape_is_the_documented_one() -> None:
    """Other programs read it: times as RFC 3339, phase and reason as their names, nothing that is empty."""
    assert json.loads(DRAINING.encode()) == {
        "v": 1, "phase": "draining", "reason": "DrainBlocked", "mode": "enforce", "required": True,
        "lock": "node-hardening-reboot-workers-0", "since": "2026-09-21T14:13:20Z", "until": "2026-09-21T14:28:20Z",
        "failures": 2, "message": "1 of 3 pods left",
        "drain": {
            "total": 3, "left": 1, "pods": ["shop/web-0"], "refusals": ["shop/web"],
            "budgets": [{"namespace": "shop", "name": "web", "owner": "Deployment web"}],
        },
    }  # fmt: skip


@given(TEXTS, TEXTS, st.lists(TEXTS, max_size=20), st.floats(), st.integers(min_value=0))
def test_it_is_bounded_and_on_one_line(message: str, name: str, pods: list[str], since: float, left: int) -> None:
    """Whatever comes from pods, budgets and commands."""
    budgets = (BudgetRef(name, name, name),) * 9
    drain = DrainStatus(left, left, tuple(pods), budgets, tuple(pods))
    text = RebootStatus(
        Phase.DRAINING, StatusReason.DRAINING, holder=name[:60], since=since, drain=drain, message=message
    ).encode()
    assert len(text.encode()) <= LIMIT_BYTES
    assert text.isprintable()
    assert parse(text) is not None


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=40),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=9), inner, max_size=4),
        max_leaves=12,
    ),
    st.sampled_from(["since", "until", "failures", "required", "drain", "holder", "message", "mode", "phase", "v"]),
)
def test_any_value_in_any_field_is_read_as_nothing_or_clamped(value: object, key: str) -> None:
    """A compromised node writes what it likes: no field ends a reader, and what is read is printable and in range."""
    document = {"v": 1, "phase": "idle", "reason": "NotRequired", key: value}
    status = parse(json.dumps(document))
    if status is not None:
        assert 0 <= status.failures <= 1_000_000
        assert 0 <= status.since < 253402300800
        assert (status.holder + status.message + status.mode).isprintable()


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        "[" * 8000,
        '"' + "x" * 9000 + '"',
        '{"v":2,"phase":"idle","reason":"NotRequired"}',
        '{"v":1,"phase":"x","reason":"NotRequired"}',
        '{"v":1,"phase":["idle"],"reason":"NotRequired"}',
    ],
)
def test_what_no_agent_writes_is_no_status(text: str) -> None:
    """Unknown, never a guess."""
    assert parse(text) is None


def test_the_table_has_every_stored_phase_once_on_each_side() -> None:
    """Every phase can be reached and left, and no edge is listed twice."""
    assert {source for source, _ in EDGES} == STORED
    assert {target for _, target in EDGES} == STORED
    assert len(EDGES) == len(TRANSITIONS)
