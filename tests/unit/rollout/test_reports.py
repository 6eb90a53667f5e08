"""What nodes report, users decide and a disk holds, read from text that may be anything."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent import annotations as keys
from agent.config.selector import parse
from agent.rollout import reports
from agent.rollout.decision import MOST_CANARIES, Assessment, Canary, Order, Pending, Phase, Verdict

OLD, NEW = "a" * 12, "b" * 12
SELECTOR = parse("canary=true")
PENDING = Pending(NEW, 1000.0, Phase.FAILED, 900.0, ("c1", "c2"), "c1", announced=True)
OWN = Assessment(NEW, Verdict.FAILED, 1100.0, ("x",), ("y", "z"))

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


def node(note: object = None, *, ready: object = "True", labels: object = None) -> dict[str, Any]:
    meta = {
        "name": "c1",
        "labels": {"canary": "true"} if labels is None else labels,
        "annotations": {keys.ROLLOUT: note},
    }
    condition = {"type": "Ready", "status": ready, "lastTransitionTime": "1970-01-01T00:10:00Z"}
    return {"metadata": meta, "status": {"conditions": [condition]}}


def test_what_an_agent_shows_is_what_others_read() -> None:
    shown = reports.view(NEW, PENDING, OWN, is_canary=True, uses_canaries=True)
    assert shown.conditions[0].message.startswith(f"policy {NEW} is tried on this canary; ")
    note = shown.annotations[keys.ROLLOUT]
    assert reports.report(node(note)) == reports.Report(NEW, NEW, Phase.FAILED, Verdict.FAILED, 1100.0)
    assert reports.canary(node(note), SELECTOR) == Canary("c1", NEW, Verdict.FAILED, 1100.0, 600.0)
    assert [one.status for one in shown.conditions] == ["True"]


def test_a_verdict_about_another_policy_is_not_shown_and_other_nodes_show_none() -> None:
    for own, is_canary in ((Assessment(OLD, Verdict.VERIFIED, 1.0), True), (OWN, False)):
        note = reports.view(NEW, None, own, is_canary=is_canary, uses_canaries=True).annotations[keys.ROLLOUT]
        assert reports.report(node(note)).verdict is Verdict.UNKNOWN


def test_a_node_that_holds_a_policy_back_says_why() -> None:
    for phase in Phase:
        if phase is not Phase.CURRENT:
            pending = Pending(NEW, 1.0, phase, refused_by="c1")
            (condition,) = reports.view(OLD, pending, OWN, is_canary=False, uses_canaries=True).conditions
            assert (condition.type, condition.status, condition.reason) == (keys.CONDITION_POLICY, "False", phase)
            assert NEW in condition.message


def test_a_node_without_a_copy_on_its_disk_says_so() -> None:
    """The policy is in force, so the condition is True; a policy that is held back has its own reason."""
    for pending, reason in ((None, "NotKept"), (PENDING, PENDING.phase)):
        shown = reports.view(OLD, pending, OWN, is_canary=False, uses_canaries=True, is_kept=False)
        assert not reports.report(node(shown.annotations[keys.ROLLOUT])).is_kept
        (condition,) = shown.conditions
        assert (condition.reason, "keeps no copy" in condition.message) == (reason, True)


def test_nothing_is_shown_without_canaries() -> None:
    shown = reports.view(NEW, None, OWN, is_canary=False, uses_canaries=False)
    assert (dict(shown.annotations), shown.conditions) == ({keys.ROLLOUT: None}, ())


def test_only_nodes_that_match_count_whatever_they_call_themselves() -> None:
    note = json.dumps({"revision": NEW, "verdict": "failed"})
    assert reports.canary(node(note, labels={"canary": "false"}), SELECTOR) is None
    assert reports.canary(node(note, labels=["canary=true"]), SELECTOR) is None
    assert reports.canary(node(note, ready="Unknown"), SELECTOR) == Canary("c1", NEW, Verdict.FAILED, 0.0, 0.0)


def test_more_canaries_than_may_be_are_said() -> None:
    some = [node() for _ in range(MOST_CANARIES + 1)]
    assert not reports.observation(some[:-1], SELECTOR, {}, NEW).more
    assert reports.observation(some, SELECTOR, {}, NEW).more


@given(_JSON | st.text().map(json.dumps))
def test_any_annotation_is_a_report_or_none(note: object) -> None:
    """Also one that is not text, deep, huge or of other types."""
    for text in (note, json.dumps(note), json.dumps({"revision": note, "since": note, "verdict": note, "phase": note})):
        found = reports.report(node(text))
        assert found.revision == "" or len(found.revision) == 12
        assert 0.0 <= found.since < 5e9


@given(_JSON)
def test_any_node_and_any_order_are_survived(found: object) -> None:
    for one in ({"metadata": found, "status": found}, {"metadata": {"name": found, "labels": found}}):
        reports.canary(one, SELECTOR)
    for orders in ({"data": found}, {"data": {"revision": found, "decision": found}}):
        assert reports.order(orders, NEW) is None


def test_an_order_counts_for_its_policy_alone() -> None:
    orders = {"data": {"revision": NEW, "decision": "promote"}}
    assert reports.order(orders, NEW) is Order.PROMOTE
    assert reports.order(orders, OLD) is None
    assert reports.order({"data": {"revision": "", "decision": "promote"}}, "") is None


@pytest.mark.parametrize("pending", [None, PENDING])
def test_what_a_node_remembers_comes_back_the_same(pending: Pending | None) -> None:
    assert reports.remembered(reports.written(pending, OWN)) == (pending, OWN)


@given(_JSON | st.fixed_dictionaries({"pending": _JSON, "assessment": _JSON}))
def test_any_state_is_read_or_refused(found: object) -> None:
    try:
        pending, own = reports.remembered(json.dumps(found))
    except ValueError:
        return
    assert isinstance(own.verdict, Verdict)
    assert pending is None or isinstance(pending.phase, Phase)


@pytest.mark.parametrize(("part", "key"), [("pending", "since"), ("pending", "unwell"), ("assessment", "since")])
@pytest.mark.parametrize("time", [float("nan"), float("inf"), -1, pytest.param(10**400, id="huge"), "5", None])
def test_a_time_that_is_none_is_refused(part: str, key: str, time: object) -> None:
    """The soak time is reckoned with it: not a number would end the thread that polls."""
    state = json.loads(reports.written(PENDING, OWN))
    state[part][key] = time
    with pytest.raises(ValueError, match=r"is not what|out of range"):
        reports.remembered(json.dumps(state))


@pytest.mark.parametrize("phase", Phase)
def test_each_phase_that_is_read_from_a_disk_can_be_shown(phase: Phase) -> None:
    """Current is of a policy in force: it is never written of one that is held back, and has no sentence."""
    state = json.loads(reports.written(PENDING, OWN))
    state["pending"]["phase"] = phase
    if phase is Phase.CURRENT:
        with pytest.raises(ValueError, match="phase: Current is of a policy in force"):
            reports.remembered(json.dumps(state))
        return
    pending, own = reports.remembered(json.dumps(state))
    assert pending is not None
    assert reports.view(OLD, pending, own, is_canary=True, uses_canaries=True).conditions[0].reason == phase
    assert reports.stuck(pending, ()).startswith(f"policy {NEW} ")


def test_whatever_else_a_disk_holds_in_place_of_text_can_be_shown() -> None:
    state = json.loads(reports.written(PENDING, OWN))
    state["pending"] |= {"target": 7, "refused_by": 7}
    state["assessment"]["revision"] = [7]
    pending, own = reports.remembered(json.dumps(state))
    assert reports.view(OLD, pending, own, is_canary=True, uses_canaries=True).conditions
