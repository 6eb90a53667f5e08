"""What the blockers make of the answers they get: a pause, kured's lock, Prometheus's JSON."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.schema import Prometheus
from agent.config.selector import parse as selector
from agent.reboot.blockers import kured, pause
from agent.reboot.blockers.prometheus import PrometheusBlocker, PrometheusUnknown, alerts, series, understood
from agent.reboot.interfaces import BlockerResult
from agent.text import format_rfc3339, parse_rfc3339
from tests.support.alerts import alerts as shipped_alerts
from tests.support.rooms import Clocks

NOW = parse_rfc3339("2030-01-31T22:00:00Z")

# -- the cluster's pause -----------------------------------------------------------------------------------------------


def paused(**data: str) -> BlockerResult:
    return pause.judge({"data": data}, NOW)


def test_a_pause_names_who_why_and_until_when() -> None:
    """On-call reads it in the Node's annotation."""
    verdict = paused(until="2030-02-01T06:00:00+01:00", reason="month's end", by="alice")
    assert verdict.blocked is True
    assert verdict.by == "the cluster's pause by alice until 2030-02-01T05:00:00Z: month's end"


@pytest.mark.parametrize("data", [{}, {"until": ""}, {"until": "  ", "reason": ""}])
def test_a_pause_without_an_end_holds_until_it_is_lifted(data: dict[str, str]) -> None:
    """An empty ConfigMap is a pause too: somebody made it."""
    assert paused(**data) == BlockerResult(blocked=True, by="the cluster's pause")
    assert pause.judge({}, NOW).blocked is True


def test_a_pause_that_is_over_is_none() -> None:
    """Nobody has to clean up behind it."""
    assert paused(until="2030-01-31T22:00:00Z", reason="x") == BlockerResult(blocked=False)


@pytest.mark.parametrize("until", ["tomorrow", "2030-02-01", "2030-02-01T06:00:00", "1900000000"])
def test_a_pause_that_is_not_understood_holds(until: str) -> None:
    """Somebody meant to hold reboots back."""
    verdict = paused(until=until, by="bob")
    assert verdict.blocked is True
    assert verdict.by.startswith("the cluster's pause by bob, whose end is not understood: ")
    assert until in verdict.by


@given(st.integers(-100_000, 100_000))
def test_a_pause_holds_exactly_until_its_end(seconds: int) -> None:
    """And only its last minute is slept through, because it may be lifted before."""
    verdict = paused(until=format_rfc3339(NOW + seconds))
    assert verdict.blocked is (seconds > 0)
    assert verdict.again_seconds == (seconds if 0 < seconds < 60 else 0)


@given(st.text(max_size=500), st.text(max_size=500))
def test_a_pause_may_say_anything(reason: str, who: str) -> None:
    """What stands in a ConfigMap breaks no line."""
    verdict = paused(reason=reason, by=who)
    assert verdict.blocked is True
    assert verdict.by.isprintable()
    assert len(verdict.by) < 350


# -- kured's lock ------------------------------------------------------------------------------------------------------

HOUR = 3600 * 10**9


def lock(node: str, created: str = "2030-01-31T21:30:00.123456789Z", ttl: int | None = 0) -> dict[str, Any]:
    """As kured writes one holder."""
    held: dict[str, Any] = {"nodeID": node, "metadata": {"unschedulable": False}, "created": created}
    return held if ttl is None else {**held, "TTL": ttl}


def asked(value: Any) -> BlockerResult:
    text = value if isinstance(value, str) else json.dumps(value)
    return kured.judge(kured.holders_at(text, NOW), "worker-1", "annotation")


def test_a_free_lock_of_kureds_does_not_block() -> None:
    """kured removes the annotation, or leaves an empty list."""
    assert asked("") == BlockerResult(blocked=False)
    assert asked({"maxOwners": 2, "locks": []}) == BlockerResult(blocked=False)
    assert asked({"maxOwners": 2, "locks": None}) == BlockerResult(blocked=False)


@pytest.mark.parametrize("ttl", [0, None, 10 * HOUR])
def test_a_holder_blocks_in_both_forms(ttl: int | None) -> None:
    """One holder, or several; old kured writes no TTL."""
    until = " until 2030-02-01T07:30:00Z at the latest" if ttl else ""
    assert asked(lock("worker-2", ttl=ttl)).by == f"kured's lock, held by worker-2{until}"
    both = {"maxOwners": 3, "locks": [lock("worker-2", ttl=ttl), lock("worker-3", ttl=ttl)]}
    assert asked(both).by == f"kured's lock, held by worker-2, worker-3{until}"


def test_an_expired_lock_is_free() -> None:
    """TTL counts nanoseconds from `created`; a hair's breadth is left for clocks that differ."""
    assert asked(lock("worker-2", "2030-01-31T20:59:29Z", HOUR)) == BlockerResult(blocked=False)
    assert asked(lock("worker-2", "2030-01-31T20:59:31Z", HOUR)).blocked is True
    one_left = {"maxOwners": 2, "locks": [lock("worker-2", "2030-01-31T20:00:00Z", HOUR), lock("worker-3")]}
    assert asked(one_left).by == "kured's lock, held by worker-3"


def test_a_lock_of_kured_on_this_very_node_blocks_and_says_how_to_end_it() -> None:
    """kured reboots the node itself; where it was removed in the middle, somebody has to clean up."""
    verdict = asked(lock("worker-1"))
    assert verdict.blocked is True
    assert verdict.by == "kured's lock, held by kured on this node; where kured was removed, remove the annotation"


@pytest.mark.parametrize(
    "value",
    [
        "held",
        "[]",
        '"worker-2"',
        "{}",
        {"nodeID": ""},
        {"nodeID": 7},
        {"nodeID": "worker-2", "TTL": "30m"},
        {"nodeID": "worker-2", "TTL": True},
        {"nodeID": "worker-2", "TTL": 5},
        {"nodeID": "worker-2", "TTL": 5, "created": "yesterday"},
        {"maxOwners": 1, "locks": {}},
        {"maxOwners": 1, "locks": ["worker-2"]},
        {"locks": [{}]},
        '{"nodeID": "worker-2", "TTL": NaN, "created": "2030-01-31T20:00:00Z"}',
        "[" * 100_000,
        *(
            f'{{"nodeID": "worker-2", "TTL": {ttl}, "created": "2030-01-31T20:00:00Z"}}'
            for ttl in ("9" * 400, "-" + "9" * 400, "9" * 5000, "1e999", "-Infinity", str(2**63), "[" * 900 + "]" * 900)
        ),
        {"locks": [{"nodeID": f"worker-{number}"} for number in range(101)]},
    ],
)
def test_a_lock_that_is_not_understood_blocks(value: Any) -> None:
    """A newer kured may write another form."""
    with pytest.raises(ValueError, match=r".+"):
        asked(value)


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.integers(min_value=10**300) | st.floats() | st.text(max_size=5),
        lambda inner: (
            st.lists(inner)
            | (
                st.dictionaries(
                    st.sampled_from(["nodeID", "created", "TTL", "locks", "maxOwners"]) | st.text(max_size=3), inner
                )
            )
        ),
    )
)
def test_nothing_in_kureds_annotation_goes_unseen(value: Any) -> None:
    """It is understood, or a ValueError, which blocks; it never raises anything else."""
    try:
        verdict = asked(value)
    except ValueError:
        return
    if not verdict.blocked:
        blank = value is None or (isinstance(value, str) and not value.strip())
        assert blank or not value.get("locks") or "TTL" in json.dumps(value)


# -- Prometheus --------------------------------------------------------------------------------------------------------


def alert(name: str, state: str = "firing", **labels: str) -> dict[str, Any]:
    return {"labels": {"alertname": name, **labels}, "annotations": {}, "state": state, "value": "1e+00"}


def blocked_by(policy: Prometheus, *found: dict[str, Any]) -> tuple[str, ...]:
    counts = PrometheusBlocker(policy, Clocks())._counts
    return alerts({"alerts": list(found)}, firing_only=policy.firing_only, counts=lambda labels, _since: counts(labels))


def test_firing_alerts_block_by_name_once() -> None:
    """Pending and inactive ones do not, unless they are asked for."""
    found = [alert("A"), alert("A", severity="x"), alert("B", "pending"), alert("C", "inactive"), alert("Watchdog")]
    assert blocked_by(Prometheus(), *found) == ("A",)
    assert blocked_by(Prometheus(firing_only=False), *found) == ("A", "B")


def test_alerts_of_the_agents_themselves_do_not_block() -> None:
    """An overdue reboot would hold itself back for ever; who names alerts to ignore names these too, or not."""
    found = [alert(name) for name in shipped_alerts()]
    assert found
    assert blocked_by(Prometheus(), *found, alert("NodeDown")) == ("NodeDown",)
    assert len(blocked_by(Prometheus(ignore="^Watchdog$"), *found)) == len(found)


def test_alerts_are_chosen_by_name_and_labels() -> None:
    """`ignore` takes out, `only` and `labels` let in; expressions match anywhere, as kured's do."""
    found = [alert("NodeDown", severity="page"), alert("NodeSlow", severity="warn"), alert("Watchdog", severity="page")]
    assert blocked_by(Prometheus(ignore=""), *found) == ("NodeDown", "NodeSlow", "Watchdog")
    assert blocked_by(Prometheus(ignore="Slow|^Watch"), *found) == ("NodeDown",)
    assert blocked_by(Prometheus(only="^Node"), *found) == ("NodeDown", "NodeSlow")
    assert blocked_by(Prometheus(only="^Node", ignore="Slow"), *found) == ("NodeDown",)
    assert blocked_by(Prometheus(labels=selector("severity=page")), *found) == ("NodeDown",)
    assert blocked_by(Prometheus(labels=selector("severity notin (page)")), *found) == ("NodeSlow",)


label_sets = st.fixed_dictionaries({"alertname": st.sampled_from("ABC"), "team": st.sampled_from("xy")})
found_alerts = st.lists(st.tuples(label_sets, st.sampled_from(["firing", "pending", "inactive"])), max_size=8)


@given(found_alerts, st.booleans(), st.sampled_from(["", "A", "[AB]"]), st.sampled_from(["", "team=x", "!team"]))
def test_an_alert_blocks_exactly_when_every_filter_lets_it(
    found: list[tuple[dict[str, str], str]], firing_only: bool, ignore: str, labels: str
) -> None:
    """Said once more, the long way round."""
    expected = {
        one["alertname"]
        for one, state in found
        if state == "firing" or (state == "pending" and not firing_only)
        if one["alertname"] not in ignore
        if labels == "" or (labels == "team=x" and one["team"] == "x")
    }
    policy = Prometheus(firing_only=firing_only, ignore=ignore, labels=selector(labels))
    assert set(blocked_by(policy, *({"labels": one, "state": state} for one, state in found))) == expected


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"alerts": None},
        {"alerts": {}},
        {"alerts": ["A"]},
        {"alerts": [{"labels": {"alertname": "A"}}]},
        {"alerts": [{"labels": {"alertname": "A"}, "state": "alerting"}]},
        {"alerts": [{"state": "firing"}]},
        {"alerts": [{"labels": {"alertname": 1}, "state": "firing"}]},
    ],
)
def test_alerts_that_are_not_understood_are_not_told(data: dict[str, Any]) -> None:
    """Something else than Prometheus may answer on that path."""
    with pytest.raises(PrometheusUnknown):
        alerts(data, firing_only=True, counts=lambda _labels, _since: True)


def test_any_series_of_a_query_blocks_and_is_named() -> None:
    """By its alert's name where it has one, else by its labels."""
    found = [
        {"metric": {"__name__": "ALERTS", "alertname": "A", "node": "n"}, "value": [0, "1"]},
        {"metric": {"__name__": "up", "job": "etcd", "zone": "a"}, "value": [0, "0"]},
        {"metric": {}, "value": [0, "0"]},
    ]
    assert series({"resultType": "vector", "result": found}) == ("A", 'up{job="etcd",zone="a"}', "{}")
    assert series({"resultType": "vector", "result": []}) == ()
    assert series({"resultType": "matrix", "result": [{"metric": {"__name__": "m"}, "values": []}]}) == ("m{}",)


@pytest.mark.parametrize(
    "data", [{}, {"resultType": "vector"}, {"resultType": "vector", "result": [1]}, {"result": []}]
)
def test_a_result_that_is_not_understood_is_not_told(data: dict[str, Any]) -> None:
    """An empty answer of an unknown kind is no "nothing found"."""
    with pytest.raises(PrometheusUnknown):
        series(data)


@pytest.mark.parametrize("kind", ["scalar", "string"])
def test_a_query_that_always_gives_something_is_refused_with_advice(kind: str) -> None:
    """`scalar(x)` is there whatever x is."""
    with pytest.raises(PrometheusUnknown, match=f"the query returns a {kind}, which always exists: compare it"):
        series({"resultType": kind, "result": [0, "0"]})


@pytest.mark.parametrize(
    ("status", "body", "why"),
    [
        (200, b"<html>", r"not an answer of Prometheus \(200, 6 bytes\)"),
        (200, b"[]", "not an answer of Prometheus"),
        (200, b'{"status": "error", "error": "it broke"}', "it answers 200: it broke"),
        (200, b'{"status": "success"}', "an answer without data"),
        (200, b'{"status": "success", "data": []}', "an answer without data"),
        (
            200,
            b'{"status": "success", "data": {}, "warnings": ["store b is away"]}',
            "carries a warning: store b is away",
        ),
        (302, b"", "a redirect"),
        (400, b'{"status": "error", "errorType": "bad_data", "error": "parse error"}', "it answers 400: parse error"),
        (401, b"", "check tokenFile"),
        (403, b"forbidden", "check tokenFile"),
        (503, b"Service Unavailable", "503, 19 bytes"),
        (200, b"[" * 100_000, "not an answer of Prometheus"),
    ],
)
def test_what_prometheus_does_not_say_clearly_is_not_told(status: int, body: bytes, why: str) -> None:
    """Only a whole, successful answer counts: a part of Thanos that is away may hold the alert that fires."""
    with pytest.raises(PrometheusUnknown, match=why):
        understood(status, bytearray(body))


def test_a_whole_answer_is_understood() -> None:
    """Infos are no warnings."""
    assert understood(200, bytearray(b'{"status": "success", "infos": ["hm"], "data": {"alerts": []}}'))["data"] == {
        "alerts": []
    }


@pytest.mark.timeout(20)
@pytest.mark.parametrize("key", ["token_file", "basic_auth_file", "header_files", "ca_file"])
def test_prometheus_files_are_regular_ones(tmp_path: Path, key: str) -> None:
    """A FIFO without a writer would block the reboot's thread; whether an alert fires is unknown then."""
    file = tmp_path / "secret"
    os.mkfifo(file)
    value: Any = {"X-Scope-OrgID": str(file)} if key == "header_files" else str(file)
    result = PrometheusBlocker(Prometheus(url="https://127.0.0.1:1", **{key: value}), Clocks()).check()
    assert result.unknown
    assert "not a regular file" in result.by
