"""docs/grafana-dashboard.json can be imported anywhere: bound to no data source, laid out without overlaps, explained.

That its queries find something is test_alerts_prometheus.py's promise.
"""

from __future__ import annotations

import json
from itertools import combinations
from typing import Any

from tests.support.alerts import DASHBOARD, panels, queries

DOCUMENT: dict[str, Any] = json.loads(DASHBOARD.read_text())
SOURCE = {"type": "prometheus", "uid": "${datasource}"}


def all_values(value: Any, key: str) -> list[Any]:
    """What stands under a key, however deep."""
    if isinstance(value, list):
        return [found for one in value for found in all_values(one, key)]
    if not isinstance(value, dict):
        return []
    return [
        *([value[key]] if key in value else []),
        *(found for one in value.values() for found in all_values(one, key)),
    ]


def test_it_is_bound_to_no_grafana() -> None:
    """Every data source is the variable, which is asked for on import; no id and no uid of somebody's installation."""
    assert {json.dumps(source) for source in all_values(DOCUMENT, "datasource")} == {json.dumps(SOURCE)}
    assert set(all_values(DOCUMENT, "uid")) == {"${datasource}"}
    assert DOCUMENT["id"] is None
    variables = {one["name"]: one for one in DOCUMENT["templating"]["list"]}
    assert list(variables) == ["datasource", "node"]
    assert (variables["datasource"]["type"], variables["datasource"]["query"]) == ("datasource", "prometheus")
    assert (variables["node"]["includeAll"], variables["node"]["allValue"]) == (True, ".*")


def test_every_panel_says_what_it_shows() -> None:
    """A title of its own, a sentence, and queries with letters of their own."""
    titles = [panel["title"] for panel in panels()]
    assert len(set(titles)) == len(titles)
    assert [panel["title"] for panel in panels() if not panel["description"].endswith(".")] == []
    for panel in panels():
        letters = [target["refId"] for target in panel["targets"]]
        assert letters == sorted(set(letters)), panel["title"]


def test_panels_lie_beside_each_other() -> None:
    """Within Grafana's 24 columns, none over another, each with an id of its own."""
    every = DOCUMENT["panels"]
    assert len({panel["id"] for panel in every}) == len(every)
    places = [(panel["title"], panel["gridPos"]) for panel in every]
    assert [title for title, place in places if place["x"] + place["w"] > 24] == []
    for (one, a), (other, b) in combinations(places, 2):
        apart = (
            a["x"] + a["w"] <= b["x"]
            or b["x"] + b["w"] <= a["x"]
            or a["y"] + a["h"] <= b["y"]
            or b["y"] + b["h"] <= a["y"]
        )
        assert apart, (one, other)


def test_every_query_is_for_the_chosen_nodes() -> None:
    """Whoever chooses a node sees that node everywhere."""
    written = [target["expr"] for panel in panels() for target in panel["targets"]]
    assert [query for query in written if query.count("node_hardening_") > query.count('node=~"$node"')] == []
    assert [query for query in queries().values() if "$" in query] == []


def test_tables_call_their_number_by_its_name() -> None:
    """And sort by it; a column named Value says nothing."""
    tables = [panel for panel in panels() if panel["type"] == "table"]
    assert tables
    for panel in tables:
        (organize,) = panel["transformations"]
        name = organize["options"]["renameByName"]["Value"]
        assert panel["options"]["sortBy"] == [{"displayName": name, "desc": True}], panel["title"]
