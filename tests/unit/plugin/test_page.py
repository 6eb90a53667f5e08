"""The page of `report`: sound HTML whatever is on the Nodes, equal findings together, cut with counts, never green
where something is unknown."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from agent import annotations as keys
from agent.model import Severity, Status
from agent.plugin.cluster import nodes
from agent.plugin.cluster.locks import Pause
from agent.plugin.cluster.nodes import FindingRow, Keep, NodeRow
from agent.plugin.cluster.policy import Policy
from agent.plugin.page import document
from agent.plugin.page.aggregate import NAMES_KEPT, Aggregator, Heading, Snapshot
from agent.plugin.page.json_export import export
from agent.plugin.page.summary import Tone, compliance, reboot, summarize
from agent.plugin.views.fleet import Fleet
from agent.reboot.phases import Phase
from tests.support import plugin_crowd
from tests.support.html import Sound
from tests.support.plugin_fleet import SCENES, Staged

ROOT = Path(__file__).resolve().parents[3]

_HOSTILE = (
    "</script><script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "javascript:alert(1)",
    "\u202egnp.exe\u2066",
    "<!--",
    "]]></style><style>*{display:none}",
    "\x1b[31mred\x07\x00",
    "&lt;b&gt; &#x3c;",
    "\ud800 half",
)
_ALL = "|".join(_HOSTILE)


def page(shot: Snapshot) -> str:
    """All pieces."""
    return "".join(document.pieces(shot))


def shot_of(scene: str, **changes: Any) -> Snapshot:
    """The page's content for a scene of the plugin's."""
    stage = SCENES[scene]()
    shot = plugin_crowd.snapshot(stage, stage.nodes())
    rules = replace(shot.fleet.rules, agents=(3, 3))
    return replace(shot, fleet=replace(shot.fleet, rules=rules, **changes))


def hostile(stage: Staged) -> list[dict[str, Any]]:
    """Nodes on which everything that anyone can write is hostile."""
    nodes = stage.nodes()
    for node in nodes:
        notes = node["metadata"]["annotations"]
        finding = {"id": f"{_ALL}/x", "status": "fail", "severity": "high", "observed": _ALL, "expected": _ALL}
        entry = {"at": _ALL, "reason": _ALL, "kernelBefore": _ALL, "kernelAfter": _ALL, "seconds": 5, "pods": 1}
        notes[keys.FINDINGS] = json.dumps([{**finding, "remediation": _ALL}])
        notes[keys.CHECKS] = json.dumps({"passed": [_ALL], "info": {_ALL: _ALL}, "notApplicable": {"x": [_ALL]}})
        notes[keys.REBOOT_HISTORY] = json.dumps([{**entry, "phases": {_ALL: 9}, "slowestPod": _ALL}])
        for key in (
            keys.STATUS,
            keys.VERSION,
            keys.POLICY,
            keys.CONFIG_PROBLEM,
            keys.REBOOT,
            keys.REBOOT_STATUS,
            keys.REBOOT_SKIP,
            keys.REBOOT_REQUEST,
        ):
            notes[key] = _ALL
        node["metadata"]["uid"] += _ALL
        node["status"]["nodeInfo"]["kernelVersion"] = _ALL
    return nodes


@pytest.mark.parametrize("scene", list(SCENES))
def test_every_scene_makes_a_sound_page(scene: str) -> None:
    """Tags close, ids are one, links lead somewhere, nothing is fetched, one script of ours runs."""
    assert Sound.of(page(shot_of(scene))).wrong == []


def test_what_others_wrote_is_text() -> None:
    """Hostile strings wherever someone can write: nothing becomes markup, and all of it can be read."""
    stage = SCENES["stuck"]()
    bad = plugin_crowd.snapshot(
        stage, hostile(stage), title=_ALL, context=_ALL, author=_ALL, selector=_ALL, server=_ALL
    )
    bad = replace(bad, fleet=replace(bad.fleet, locks_problem=_ALL, pause=Pause(True, _ALL, _ALL, _ALL, _ALL)))
    found = Sound.of(page(bad))
    assert found.wrong == []
    assert (found.tags["script"], found.tags["style"], found.tags.get("img", 0)) == (1, 1, 0)
    assert "alert(1)" not in found.script
    assert "javascript:alert(1)" in found.words
    assert "gnp.exe" in found.words
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x00\x07\x1b]", found.words)


def test_the_document_of_hostile_nodes_is_plain_data() -> None:
    """Nothing is escaped for HTML there; it is sanitized as everything is."""
    stage = SCENES["non-compliant"]()
    made = export(plugin_crowd.snapshot(stage, hostile(stage)))
    findings: Any = made["findings"]
    assert findings[0]["nodes"]["total"] == 3
    assert findings[0]["values"][0]["observed"].startswith("</script>")


def rows_with(*values: str) -> Iterator[NodeRow]:
    """A node for each value of one finding."""
    row = nodes.row(SCENES["calm"]().node("node-1"), Policy(None, "").pool, Keep(findings=True, history=True))
    for number, value in enumerate(values):
        one = FindingRow("kubelet/4.2.1", Status.FAIL, Severity.CRITICAL, value, "false", "close it")
        yield replace(row, name=f"n{number}", uid=f"u{number}", findings=(one,), worst=one, failing=1)


def tallied(*values: str) -> Snapshot:
    """What the page has of them."""
    aggregator = Aggregator()
    rows = [aggregator.add(row) for row in rows_with(*values)]
    seen = Fleet(tuple(rows), (), Pause(active=False), Policy(None, ""), "ns", 1e9)
    return aggregator.snapshot(Heading("t", "c", "v", "a", "", 1e9), seen)


def test_equal_findings_stand_together_with_their_commonest_values() -> None:
    """One group of six nodes: three values by how many have them, the rest counted."""
    (group,) = tallied("a", "b", "b", "c", "d", "a", "a").groups
    assert [(one.observed, one.nodes) for one in group.values] == [("a", 3), ("b", 2), ("c", 1)]
    assert (group.other_values, group.nodes.total) == (1, 7)


def test_lists_of_nodes_are_cut_and_counted() -> None:
    """So many names are kept, all are counted, and the page says how many are left out."""
    shot = tallied(*["x"] * (NAMES_KEPT + 50))
    assert (len(shot.groups[0].nodes.names), shot.groups[0].nodes.total) == (NAMES_KEPT, NAMES_KEPT + 50)
    assert "and 50 more that are not listed here" in Sound.of(page(shot)).words


def test_what_passed_and_what_was_skipped_is_on_the_page() -> None:
    """With the number of nodes, and the reason of what was skipped; findings have their titles."""
    shot = shot_of("non-compliant")
    words = Sound.of(page(shot)).words
    assert {group.status for group in shot.checks} >= {Status.PASS}
    passed = [group for group in shot.checks if group.status is Status.PASS]
    assert all(group.id in words for group in passed)
    text = json.dumps({"passed": ["kubelet/4.2.1"], "info": {"kubelet/4.2.6": "skipped: kube-proxy is replaced"}})
    (row,) = rows_with("x")
    aggregator = Aggregator()
    kept = aggregator.add(replace(row, checks=nodes.checks(text)))
    one = aggregator.snapshot(shot.heading, replace(shot.fleet, rows=(kept,)))
    assert "skipped: kube-proxy is replaced" in Sound.of(page(one)).words
    assert export(one)["checks"] == [
        {"id": "kubelet/4.2.1", "status": "pass", "reasons": [], "nodes": 1},
        {"id": "kubelet/4.2.6", "status": "info", "reasons": ["skipped: kube-proxy is replaced"], "nodes": 1},
    ]
    assert all(group.title in words for group in shot.groups)


def test_rows_come_back_without_what_was_aggregated() -> None:
    """A row keeps no finding and no history."""
    (row,) = rows_with("x")
    kept = Aggregator().add(row)
    assert (kept.findings, kept.history) == ((), ())


def test_thousands_of_nodes_make_a_page_for_a_mail() -> None:
    """Three thousand nodes: below 1 MiB, sound, and every node is counted."""
    aggregator = Aggregator()
    pool = Policy(None, "").pool
    keep = Keep(findings=True, history=True)
    rows = [aggregator.add(nodes.row(one, pool, keep)) for one in plugin_crowd.thousands(3000, 2e9)]
    seen = Fleet(tuple(rows), (), Pause(active=False), Policy(None, "c"), "ns", 2e9)
    made = page(aggregator.snapshot(Heading("t", "c", "v", "a", "", 2e9), seen))
    assert len(made) < 1024 * 1024
    found = Sound.of(made)
    assert found.wrong == []
    assert "3,000 nodes" in found.words


@pytest.mark.parametrize(
    ("scene", "tone", "headline"),
    [
        ("calm", Tone.GOOD, "All 3 nodes are hardened."),
        ("waiting", Tone.GOOD, "All 3 nodes are hardened; 3 nodes need a reboot."),
        ("non-compliant", Tone.BAD, "1 of 3 nodes needs attention; 1 unknown."),
        ("sentinel-unknown", Tone.WARN, "No problem is known, but 1 of 3 nodes unknown."),
        ("without-agent", Tone.WARN, "No problem is known, but 1 of 3 nodes unknown."),
        ("stuck", Tone.BAD, "1 reboot lock is stuck."),
        ("failed", Tone.BAD, "1 of 3 nodes needs attention."),
    ],
)
def test_the_summary_is_a_sentence(scene: str, tone: Tone, headline: str) -> None:
    """In words first, and good only where everything is known."""
    found = summarize(shot_of(scene))
    assert (found.tone, found.headline) == (tone, headline)


@pytest.mark.parametrize(
    "changes",
    [
        {"locks_problem": "forbidden"},
        {"pause": Pause(active=True, sentence="unknown", is_known=False)},
        {"rules": Policy(None, "configmap/x", "cannot be read", agents=(3, 3))},
        {"rules": Policy(None, "configmap/x")},
        {"rows": ()},
    ],
)
def test_what_cannot_be_read_is_never_green(changes: dict[str, Any]) -> None:
    """A calm fleet of which something is unknown is not called hardened, and the page says what."""
    shot = shot_of("calm")
    found = summarize(replace(shot, fleet=replace(shot.fleet, **changes)))
    assert found.tone is Tone.WARN
    assert found.unknown or not changes.get("rows", True)


def test_a_silent_node_is_not_called_hardened() -> None:
    """What it reported last is as old as its silence."""
    row = next(rows_with("x"))
    assert compliance(replace(row, ready=True, phase=None)) == (Tone.GOOD, "hardened")
    for ready in (False, None):
        assert compliance(replace(row, ready=ready))[0] is Tone.WARN
    assert compliance(replace(row, compliance=None)) == (Tone.WARN, "no agent")


def test_no_reboot_state_is_green() -> None:
    """Needing no reboot is no achievement, and an unknown phase least of all."""
    row = next(rows_with("x"))
    assert all(reboot(replace(row, phase=one), stuck=False)[0] is not Tone.GOOD for one in (None, *Phase))


def test_an_empty_selection_is_reported() -> None:
    """Nothing was found, so nothing is hardened."""
    shot = shot_of("calm", rows=())
    shot = replace(shot, heading=replace(shot.heading, selector="a=b"))
    assert summarize(shot).headline == "No node matches a=b."
    assert Sound.of(page(shot)).wrong == []


def test_a_value_that_looks_like_a_template_is_text() -> None:
    """And what is not ASCII becomes a character reference."""
    found = page(shot_of("calm", locks_problem="{{ 7 * 7 }} {% raw %} \u00e9"))
    assert "{{ 7 * 7 }} {% raw %} &#233;" in found


def test_nodes_do_without_jinja2() -> None:
    """What the image installs has neither it nor what it brings."""
    for name in ("run.txt", "notify.txt"):
        locked = (ROOT / "requirements" / name).read_text()
        assert not {"jinja2", "markupsafe"} & {line.partition("==")[0] for line in locked.splitlines()}
