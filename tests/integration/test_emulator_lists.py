"""Lists and watches: selectors, pages, the forms of an answer, and what a watch tells from which revision."""

from __future__ import annotations

from typing import Any

import pytest

from agent.sandbox.server import Sandbox
from agent.sandbox.settings import KubeletSettings, Settings
from tests.support.apiservers import ApiServer, Client, emulator

TABLE = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}
PARTIAL = {"Accept": "application/json;as=PartialObjectMetadata;v=v1;g=meta.k8s.io"}
PARTIAL_LIST = {"Accept": "application/json;as=PartialObjectMetadataList;v=v1;g=meta.k8s.io"}


def configmaps(namespace: str) -> str:
    return f"/api/v1/namespaces/{namespace}/configmaps"


def names(body: dict[str, Any]) -> list[str]:
    return [item["metadata"]["name"] for item in body["items"]]


@pytest.fixture
def labelled(client: Client, namespace: str) -> str:
    """Four ConfigMaps: a, b and c with labels, d without."""
    for name, labels in (
        ("a", {"tier": "web", "zone": "one"}),
        ("b", {"tier": "db", "zone": "one"}),
        ("c", {"tier": "web", "zone": ""}),
        ("d", {}),
    ):
        answer = client.post(configmaps(namespace), {"metadata": {"name": name, "labels": labels}})
        assert answer.status_code == 201
    return namespace


@pytest.mark.parametrize(
    ("selector", "expected"),
    [
        ("", "abcd"),
        ("tier=web", "ac"),
        ("tier==web", "ac"),
        ("tier!=web", "bd"),
        ("tier in (web, db)", "abc"),
        ("tier notin (web)", "bd"),
        ("tier", "abc"),
        ("!tier", "d"),
        ("zone=", "c"),
        ("zone in (,one)", "abc"),
        ("tier=web,zone=one", "a"),
        ("tier=web,!zone", ""),
        (" tier = web , zone ", "ac"),
    ],
)
def test_label_selectors(client: Client, labelled: str, selector: str, expected: str) -> None:
    """Every operator; a missing label satisfies the negative ones."""
    answer = client.get(configmaps(labelled), labelSelector=selector)
    assert "".join(names(answer.json())) == expected


@pytest.mark.parametrize("selector", ["a in b", "=b", "a=b=c", "a,,b", "a in (b", "a b", "-x=y", "a=-b-"])
def test_bad_label_selectors_are_refused(client: Client, namespace: str, selector: str) -> None:
    """400, never everything."""
    answer = client.get(configmaps(namespace), labelSelector=selector)
    assert (answer.status_code, answer.json()["reason"]) == (400, "BadRequest")


def test_field_selectors_by_name_and_kind_of_resource(client: Client, labelled: str) -> None:
    """Names work everywhere, other fields where the server indexes them, and the rest is a 400."""
    path = configmaps(labelled)
    assert names(client.get(path, fieldSelector="metadata.name=a").json()) == ["a"]
    assert names(client.get(path, fieldSelector="metadata.name!=a").json()) == ["b", "c", "d"]
    both = client.get("/api/v1/configmaps", fieldSelector=f"metadata.namespace={labelled},metadata.name=b")
    assert names(both.json()) == ["b"]
    answer = client.get(path, fieldSelector="data.k=v")
    assert (answer.status_code, answer.json()["reason"]) == (400, "BadRequest")
    answer = client.get("/api/v1/pods", fieldSelector="spec.image=x")
    assert (answer.status_code, answer.json()["message"]) == (400, "field label not supported: spec.image")


def test_pods_are_found_by_their_node_and_phase(client: Client, namespace: str, node: str) -> None:
    """What a drain lists, and what kubectl describe node lists."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    spec = {"containers": [{"name": "c", "image": "i"}]}
    client.post(path, {"metadata": {"name": "on"}, "spec": {**spec, "nodeName": node}})
    client.post(path, {"metadata": {"name": "off"}, "spec": spec})
    assert names(client.get("/api/v1/pods", fieldSelector=f"spec.nodeName={node}").json()) == ["on"]
    query = f"spec.nodeName={node},status.phase!=Pending"
    assert names(client.get("/api/v1/pods", fieldSelector=query).json()) == []


def test_events_are_found_by_what_they_are_about(client: Client, node: str) -> None:
    """What kubectl describe node asks for."""
    about = {"kind": "Node", "name": node, "uid": node}
    event = {"metadata": {"name": node}, "involvedObject": about, "reason": "R", "type": "Warning", "message": "m"}
    assert client.post("/api/v1/namespaces/default/events", event).status_code == 201
    query = f"involvedObject.kind=Node,involvedObject.uid={node},involvedObject.name={node}"
    assert names(client.get("/api/v1/events", fieldSelector=query).json()) == [node]
    assert names(client.get("/api/v1/events", fieldSelector=query + ",type=Normal").json()) == []
    assert names(client.get("/api/v1/events", fieldSelector=query + ",reason=R").json()) == [node]


def test_items_of_a_list_carry_no_kind(client: Client, labelled: str) -> None:
    """The list has it; the items do not."""
    body = client.get(configmaps(labelled)).json()
    assert (body["kind"], body["apiVersion"]) == ("ConfigMapList", "v1")
    assert all("kind" not in item and "apiVersion" not in item for item in body["items"])
    assert int(body["metadata"]["resourceVersion"]) >= max(
        int(item["metadata"]["resourceVersion"]) for item in body["items"]
    )


def test_pages_are_consistent(client: Client, labelled: str) -> None:
    """A list goes on at the revision at which it began, whatever happened meanwhile."""
    path = configmaps(labelled)
    first = client.get(path, limit=2).json()
    assert (names(first), first["metadata"]["remainingItemCount"]) == (["a", "b"], 2)
    client.delete(f"{path}/c")
    client.post(path, {"metadata": {"name": "e"}})
    second = client.get(path, limit=2, **{"continue": first["metadata"]["continue"]}).json()
    assert names(second) == ["c", "d"]
    assert second["metadata"]["resourceVersion"] == first["metadata"]["resourceVersion"]
    assert "continue" not in second["metadata"]
    assert names(client.get(path).json()) == ["a", "b", "d", "e"]


def test_pages_of_a_selection_do_not_count_the_rest(client: Client, labelled: str) -> None:
    """remainingItemCount is unknown with selectors."""
    body = client.get(configmaps(labelled), limit=1, labelSelector="tier").json()
    assert names(body) == ["a"]
    assert body["metadata"]["continue"]
    assert "remainingItemCount" not in body["metadata"]


def test_bad_list_options_are_refused(client: Client, namespace: str) -> None:
    """400, or 504 for a revision of the future."""
    path = configmaps(namespace)
    assert client.get(path, limit="x").status_code == 400
    assert client.get(path, **{"continue": "x"}).status_code == 400
    assert client.get(path, resourceVersion="x").status_code == 400
    answer = client.get(path, resourceVersion="99999999")
    assert (answer.status_code, answer.json()["reason"]) == (504, "Timeout")
    assert answer.json()["details"]["causes"][0]["reason"] == "ResourceVersionTooLarge"
    assert answer.headers["Retry-After"] == "1"


def test_metadata_alone_can_be_asked_for(client: Client, labelled: str) -> None:
    """PartialObjectMetadata for one and for a list: what a lean client reads."""
    path = configmaps(labelled)
    one = client.request("GET", f"{path}/a", headers=PARTIAL).json()
    assert set(one) == {"kind", "apiVersion", "metadata"}
    assert (one["kind"], one["apiVersion"]) == ("PartialObjectMetadata", "meta.k8s.io/v1")
    many = client.request("GET", path, headers=PARTIAL_LIST, params={"limit": 2}).json()
    assert (many["kind"], names(many)) == ("PartialObjectMetadataList", ["a", "b"])
    assert many["metadata"]["continue"]


@pytest.mark.parametrize(
    ("path", "columns"),
    [
        ("/api/v1/nodes", ["Name", "Status", "Roles", "Age", "Version"]),
        ("/api/v1/pods", ["Name", "Ready", "Status", "Restarts", "Age"]),
        ("/api/v1/events", ["Last Seen", "Type", "Reason", "Object", "Message"]),
        ("/api/v1/configmaps", ["Name", "Data", "Age"]),
        ("/apis/coordination.k8s.io/v1/leases", ["Name", "Holder", "Age"]),
        (
            "/apis/policy/v1/poddisruptionbudgets",
            ["Name", "Min Available", "Max Unavailable", "Allowed Disruptions", "Age"],
        ),
        (
            "/apis/apps/v1/daemonsets",
            ["Name", "Desired", "Current", "Ready", "Up-to-date", "Available", "Node Selector", "Age"],
        ),
    ],
)
def test_tables_have_kubectls_columns(client: Client, path: str, columns: list[str]) -> None:
    """The server prints; kubectl only lays out."""
    body = client.request("GET", path, headers=TABLE).json()
    shown = [column["name"] for column in body["columnDefinitions"] if column["priority"] == 0]
    assert shown == columns


def test_large_lists_are_compressed_for_those_who_accept_it(client: Client, namespace: str) -> None:
    """From 128 KiB on."""
    for number in range(2):
        body = {"metadata": {"name": f"big-{number}"}, "data": {"k": "x" * 100_000}}
        assert client.post(configmaps(namespace), body).status_code == 201
    answer = client.get(configmaps(namespace))
    assert answer.headers["Content-Encoding"] == "gzip"
    assert len(answer.json()["items"]) == 2
    plain = client.request("GET", configmaps(namespace), headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers


def shown(events: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(event["type"], event["object"]["metadata"].get("name", "")) for event in events]


def history(client: Client, namespace: str) -> str:
    """Make some history; the revision before it."""
    path = configmaps(namespace)
    before: str = client.get(path).json()["metadata"]["resourceVersion"]
    client.post(path, {"metadata": {"name": "a", "labels": {"x": "1"}}})
    client.post(path, {"metadata": {"name": "b"}})
    client.patch(f"{path}/a", {"metadata": {"labels": {"x": "2"}}})
    client.patch(f"{path}/a", {"data": {"k": "v"}})
    client.patch(f"{path}/b", {"metadata": {"labels": {"x": "1"}}})
    client.delete(f"{path}/b")
    return before


def test_a_watch_goes_on_from_a_revision(client: Client, namespace: str) -> None:
    """Everything after it, once, in order; the objects carry the revision of their change."""
    before = history(client, namespace)
    events = list(client.watch(configmaps(namespace), resourceVersion=before, timeoutSeconds=1))
    assert shown(events) == [
        ("ADDED", "a"),
        ("ADDED", "b"),
        ("MODIFIED", "a"),
        ("MODIFIED", "a"),
        ("MODIFIED", "b"),
        ("DELETED", "b"),
    ]
    revisions = [int(event["object"]["metadata"]["resourceVersion"]) for event in events]
    assert revisions == sorted(set(revisions))
    assert events[0]["object"]["kind"] == "ConfigMap"
    middle = str(revisions[2])
    rest = list(client.watch(configmaps(namespace), resourceVersion=middle, timeoutSeconds=1))
    assert rest == events[3:]


def test_a_selecting_watch_tells_of_entering_and_leaving(client: Client, namespace: str) -> None:
    """An object that leaves the selection is DELETED with its last selected state."""
    before = history(client, namespace)
    options = {"resourceVersion": before, "labelSelector": "x=1", "timeoutSeconds": 1}
    events = list(client.watch(configmaps(namespace), **options))
    assert shown(events) == [("ADDED", "a"), ("DELETED", "a"), ("ADDED", "b"), ("DELETED", "b")]
    assert events[1]["object"]["metadata"]["labels"] == {"x": "1"}


def test_a_watch_without_a_revision_begins_with_what_is(client: Client, namespace: str) -> None:
    """Synthetic ADDED events for the present state; also for one object by its name."""
    history(client, namespace)
    path = configmaps(namespace)
    assert shown(list(client.watch(path, timeoutSeconds=1))) == [("ADDED", "a")]
    options = {"fieldSelector": "metadata.name=zz", "timeoutSeconds": 1}
    assert list(client.watch(path, **options)) == []


def test_a_watch_can_send_the_list_first(client: Client, namespace: str) -> None:
    """sendInitialEvents ends them with a bookmark that says so."""
    history(client, namespace)
    options = {
        "sendInitialEvents": "true",
        "resourceVersionMatch": "NotOlderThan",
        "allowWatchBookmarks": "true",
        "timeoutSeconds": 1,
    }
    events = list(client.watch(configmaps(namespace), **options))
    assert [event["type"] for event in events[:2]] == ["ADDED", "BOOKMARK"]
    marks = events[1]["object"]["metadata"]["annotations"]
    assert marks == {"k8s.io/initial-events-end": "true"}


def test_a_watch_hears_what_happens_while_it_runs(client: Client, api: ApiServer, namespace: str) -> None:
    """Live events arrive without waiting for the end."""
    path = configmaps(namespace)
    revision = client.get(path).json()["metadata"]["resourceVersion"]
    events = client.watch(path, resourceVersion=revision, timeoutSeconds=30)
    writer = api.client()
    # The first event is asked for after the write: the server has to keep it for a watch that has begun before.
    writer.post(path, {"metadata": {"name": "live"}})
    writer.close()
    assert shown([next(events)]) == [("ADDED", "live")]
    events.close()  # type: ignore[attr-defined]


def test_a_watch_from_the_future_waits(client: Client, namespace: str) -> None:
    """It is no error; nothing comes before its timeout."""
    assert list(client.watch(configmaps(namespace), resourceVersion="99999999", timeoutSeconds=1)) == []


@pytest.fixture
def small(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """An emulator that remembers four changes only and sends bookmarks at once."""
    with emulator(tmp_path_factory.mktemp("small"), {"window": 4, "bookmark_seconds": 0.1}) as server:
        client = server.client()
        yield client
        client.close()


@pytest.mark.emulator_only
def test_a_revision_out_of_the_window_is_an_error_event(small: Client) -> None:
    """200 and an ERROR event with code 410 and reason Expired: list again."""
    history(small, "default")
    (event,) = small.watch(configmaps("default"), resourceVersion="1", timeoutSeconds=5)
    assert (event["type"], event["object"]["code"], event["object"]["reason"]) == ("ERROR", 410, "Expired")


@pytest.mark.emulator_only
def test_a_page_out_of_the_window_is_gone_and_offers_another_way(small: Client) -> None:
    """410 Expired with a token that goes on inconsistently."""
    path = configmaps("default")
    for name in "abc":
        small.post(path, {"metadata": {"name": name}})
    token = small.get(path, limit=1).json()["metadata"]["continue"]
    for number in range(6):
        small.patch(f"{path}/a", {"data": {"k": str(number)}})
    answer = small.get(path, **{"continue": token})
    assert (answer.status_code, answer.json()["reason"]) == (410, "Expired")
    rest = small.get(path, **{"continue": answer.json()["metadata"]["continue"]})
    assert names(rest.json()) == ["b", "c"]


@pytest.mark.emulator_only
def test_bookmarks_carry_the_newest_revision(small: Client) -> None:
    """Only for those who allow them; a quiet watch can be resumed from there."""
    path = configmaps("default")
    start = small.get(path).json()["metadata"]["resourceVersion"]
    assert small.post("/api/v1/namespaces", {"metadata": {"name": "elsewhere"}}).status_code == 201
    options = {"resourceVersion": start, "timeoutSeconds": 1}
    assert list(small.watch(path, **options)) == []
    events = list(small.watch(path, allowWatchBookmarks="true", **options))
    assert {event["type"] for event in events} == {"BOOKMARK"}
    newest = small.get(path).json()["metadata"]["resourceVersion"]
    assert events[-1]["object"]["metadata"]["resourceVersion"] == newest != start


@pytest.mark.emulator_only
def test_five_thousand_nodes_are_listed_in_pages() -> None:
    """In ten pages of five hundred, each once."""
    kubelet = KubeletSettings(enabled=False)
    with Sandbox(Settings(controllers=False, kubelet=kubelet)) as sandbox:
        for number in range(5000):
            sandbox.add_node(f"node-{number:04}")
        client = ApiServer.of(sandbox).client()
        seen: list[str] = []
        query: dict[str, Any] = {"limit": 500}
        pages = 0
        while True:
            body = client.get("/api/v1/nodes", **query).json()
            seen += names(body)
            pages += 1
            if "continue" not in body["metadata"]:
                break
            query["continue"] = body["metadata"]["continue"]
        client.close()
    assert pages == 10
    assert seen == [f"node-{number:04}" for number in range(5000)]
