"""Watching and following: nothing is missed, nothing is told twice, and everything ends when it is told to."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import pytest

from agent.kube import CONFIGMAPS, NODES, PODS, Change, EventType, Kube, Object
from agent.kube.errors import Forbidden, Gone, Invalid, Unreachable
from agent.sandbox.authn import User
from agent.sandbox.faults import Fault, FaultKind
from agent.sandbox.server import Sandbox
from agent.sandbox.settings import KubeletSettings, Settings
from tests.support.apiservers import ApiServer
from tests.support.kube import PATIENCE_SECONDS, Reader, Seams, client_of, kube_client, told


@pytest.fixture
def kube(api: ApiServer) -> Iterator[Kube]:
    made = client_of(api)
    yield made
    made.close()


def configmap(name: str, **data: str) -> Object:
    return {"metadata": {"name": name}, "data": data}


def apart(changes: Iterable[Change]) -> list[tuple[EventType, str]]:
    """Without what every namespace of a real cluster gets."""
    return [one for one in map(told, changes) if one[1] != "kube-root-ca.crt"]


def test_follow_tells_what_there_is_and_what_changes(kube: Kube, namespace: str) -> None:
    """LISTING, what there is, SYNCED, then each change in its order."""
    kube.create(CONFIGMAPS, configmap("a"), namespace)
    following = kube.follow(CONFIGMAPS, namespace)
    reader = Reader(following)
    before = reader.until(EventType.SYNCED)
    kube.create(CONFIGMAPS, configmap("b"), namespace)
    kube.patch(CONFIGMAPS, "a", {"data": {"k": "v"}}, namespace)
    kube.delete(CONFIGMAPS, "b", namespace)
    after = reader.until(EventType.DELETED, "b")
    assert apart(before) == [(EventType.LISTING, ""), (EventType.ADDED, "a"), (EventType.SYNCED, "")]
    assert apart(after) == [(EventType.ADDED, "b"), (EventType.MODIFIED, "a"), (EventType.DELETED, "b")]
    assert [change.object["data"] for change in after if told(change) == (EventType.MODIFIED, "a")] == [{"k": "v"}]
    following.close()
    reader.assert_ended()


def test_follow_honours_selectors(kube: Kube, namespace: str, node: str) -> None:
    """One pod of two, one node of many."""
    following = kube.follow(NODES, field_selector=f"metadata.name={node}")
    reader = Reader(following)
    assert apart(reader.until(EventType.SYNCED)) == [
        (EventType.LISTING, ""),
        (EventType.ADDED, node),
        (EventType.SYNCED, ""),
    ]
    kube.create(NODES, {"metadata": {"name": f"{node}-other"}})
    kube.patch(NODES, node, {"metadata": {"labels": {"a": "b"}}})
    assert told(reader.next()) == (EventType.MODIFIED, node)
    following.close()
    reader.assert_ended()


def test_a_watch_begins_after_the_version_that_was_read(kube: Kube, namespace: str) -> None:
    """List, then watch from there: what happened between the two is told."""
    listing = kube.list(CONFIGMAPS, namespace)
    list(listing)
    kube.create(CONFIGMAPS, configmap("between"), namespace)
    watch = kube.watch(CONFIGMAPS, namespace, resource_version=listing.resource_version)
    reader = Reader(watch)
    assert apart(reader.until(EventType.ADDED, "between")) == [(EventType.ADDED, "between")]
    watch.close()
    reader.assert_ended()


def test_stop_ends_every_watch_at_once(kube: Kube, namespace: str) -> None:
    """From another thread, while nothing happens: SIGTERM has five seconds, not the watch's half hour."""
    readers = [Reader(kube.follow(CONFIGMAPS, namespace)), Reader(kube.follow(NODES))]
    for reader in readers:
        reader.until(EventType.SYNCED)
    kube.stop()
    for reader in readers:
        reader.assert_ended()


def test_a_wrong_selector_is_raised(kube: Kube) -> None:
    """It stays wrong: trying for ever would hide a bug."""
    with pytest.raises(Invalid):
        list(kube.follow(PODS, field_selector="spec.noSuchField=1"))


def test_a_version_that_is_too_old_is_gone(sandbox: Sandbox) -> None:
    """The caller has missed something and lists again."""
    version = sandbox.add_node("a")["metadata"]["resourceVersion"]
    sandbox.add_node("b")
    sandbox.compact()
    kube = kube_client(sandbox.url, sandbox.token)
    with pytest.raises(Gone, match="watch nodes: 410"):
        list(kube.watch(NODES, resource_version=version))
    kube.close()


@pytest.fixture
def quiet() -> Iterator[Sandbox]:
    """An emulator in which nothing happens unless the test does it, with quick bookmarks."""
    settings = Settings(controllers=False, kubelet=KubeletSettings(enabled=False), bookmark_seconds=0.05)
    with Sandbox(settings) as made:
        yield made


@pytest.fixture
def seams() -> Seams:
    return Seams()


@contextmanager
def following(sandbox: Sandbox, seams: Seams) -> Iterator[Reader]:
    """A follower of Nodes whose waits take no time."""
    kube = kube_client(sandbox.url, sandbox.token, seams=seams)
    reader = Reader(kube.follow(NODES))
    try:
        yield reader
    finally:
        kube.close()
        reader.thread.join(PATIENCE_SECONDS)
    assert not reader.thread.is_alive()


def await_watch(sandbox: Sandbox, count: int = 1) -> None:
    """Until so many watches have begun, so that a cut meets one."""
    for _ in range(2000):
        if sum(record.verb == "watch" and record.status == 200 for record in sandbox.requests) >= count:
            return
        threading.Event().wait(0.01)
    pytest.fail(f"no {count} watches: {sandbox.requests}")


@pytest.mark.emulator_only
def test_a_cut_watch_misses_and_repeats_nothing(quiet: Sandbox, seams: Seams) -> None:
    """Cut in the middle of changes, again and again: each is told once, in order."""
    quiet.add_fault(Fault(FaultKind.CUT_WATCH, seconds=0.02, count=10))
    with following(quiet, seams) as reader:
        reader.until(EventType.SYNCED)
        for number in range(60):
            quiet.add_node(f"n{number}")
            threading.Event().wait(0.005)
        changes = reader.until(EventType.ADDED, "n59")
    assert [told(change) for change in changes] == [(EventType.ADDED, f"n{number}") for number in range(60)]
    assert not [record for record in quiet.requests if record.verb == "list"]


@pytest.mark.emulator_only
def test_a_bookmark_moves_the_version_on(quiet: Sandbox, seams: Seams) -> None:
    """Changes elsewhere let versions pass; without bookmarks a quiet watch would resume from one long gone."""
    quiet.add_node("a")
    with following(quiet, seams) as reader:
        reader.until(EventType.SYNCED)
        await_watch(quiet)
        for number in range(5):
            quiet.create("configmaps", configmap(f"c{number}"), "default")
        reached = int(quiet.create("configmaps", configmap("last"), "default")["metadata"]["resourceVersion"])
        threading.Event().wait(0.2)
        quiet.cut_watches()
        await_watch(quiet, 2)
        quiet.add_node("b")
        assert told(reader.next()) == (EventType.ADDED, "b")
    again = [record.query for record in quiet.requests if record.verb == "watch"][1]
    version = next(part for part in again.split("&") if part.startswith("resourceVersion="))
    assert int(version.partition("=")[2]) >= reached
    assert "allowWatchBookmarks=true" in again


@pytest.mark.emulator_only
def test_after_a_410_everything_is_listed_again(quiet: Sandbox, seams: Seams) -> None:
    """LISTING tells to forget what is known: what was deleted meanwhile is simply not listed."""
    quiet.add_node("stays")
    quiet.add_node("goes")
    with following(quiet, seams) as reader:
        first = reader.until(EventType.SYNCED)
        await_watch(quiet)
        quiet.away()
        quiet.delete("nodes", "goes")
        quiet.add_node("comes")
        quiet.compact()
        quiet.back()
        again = reader.until(EventType.SYNCED)
    assert [told(change) for change in first] == [
        (EventType.LISTING, ""),
        (EventType.ADDED, "goes"),
        (EventType.ADDED, "stays"),
        (EventType.SYNCED, ""),
    ]
    assert [told(change) for change in again if change.seen is not EventType.AWAY][-4:] == [
        (EventType.LISTING, ""),
        (EventType.ADDED, "comes"),
        (EventType.ADDED, "stays"),
        (EventType.SYNCED, ""),
    ]


@pytest.mark.emulator_only
def test_a_server_that_goes_away_is_told_and_so_is_its_return(quiet: Sandbox, seams: Seams) -> None:
    """AWAY with the reason, and everything anew when it is back: SYNCED always means that what was told is whole."""
    with following(quiet, seams) as reader:
        reader.until(EventType.SYNCED)
        await_watch(quiet)
        quiet.away()
        away = reader.next()
        quiet.add_node("meanwhile")
        quiet.back()
        after = [told(change) for change in reader.until(EventType.SYNCED) if change.seen is not EventType.AWAY]
    assert away.seen is EventType.AWAY
    assert isinstance(away.error, Unreachable)
    assert after[-3:] == [(EventType.LISTING, ""), (EventType.ADDED, "meanwhile"), (EventType.SYNCED, "")]


@pytest.mark.emulator_only
def test_a_permission_that_is_missing_may_come(quiet: Sandbox, seams: Seams) -> None:
    """A Forbidden is AWAY too: somebody mends the RBAC, and nobody has to restart 5,000 agents."""
    number = quiet.add_fault(Fault(FaultKind.STATUS, code=403, verbs=frozenset({"watch"})))
    with following(quiet, seams) as reader:
        away = reader.until(EventType.AWAY)[-1]
        quiet.remove_fault(number)
        after = reader.until(EventType.SYNCED)
    assert isinstance(away.error, Forbidden)
    assert [change.seen for change in after if change.seen is not EventType.AWAY][-2:] == [
        EventType.LISTING,
        EventType.SYNCED,
    ]


@pytest.mark.emulator_only
def test_an_api_server_without_streaming_lists_is_listed(quiet: Sandbox, seams: Seams) -> None:
    """It is tried once; from then on a list and a watch do, for everything that is followed."""
    quiet.add_node("a")
    quiet.add_fault(Fault(FaultKind.STATUS, code=422, verbs=frozenset({"watch"}), count=1))
    kube = kube_client(quiet.url, quiet.token, seams=seams)
    for count in (1, 2):
        reader = Reader(kube.follow(NODES))
        changes = [told(change) for change in reader.until(EventType.SYNCED)]
        assert changes == [(EventType.LISTING, ""), (EventType.ADDED, "a"), (EventType.SYNCED, "")]
        await_watch(quiet, count)
    kube.close()
    assert [record.verb for record in quiet.requests] == ["watch", "list", "watch", "list", "watch"]


@pytest.mark.emulator_only
def test_watches_that_always_die_young_are_followed_by_growing_waits(quiet: Sandbox, seams: Seams) -> None:
    """No hot loop against a server, or a proxy, that accepts and cuts."""
    quiet.add_fault(Fault(FaultKind.CUT_WATCH, seconds=0))
    with following(quiet, seams) as reader:
        reader.until(EventType.SYNCED)
        await_watch(quiet, 12)
    waits = seams.time.waits[:11]
    assert all(wait >= 0.5 for wait in waits)
    assert max(waits) <= 30
    assert all(later > earlier for earlier, later in itertools.pairwise(waits[:5:2]))


@pytest.mark.emulator_only
def test_an_api_server_that_throttles_watches_is_left_alone_for_so_long(quiet: Sandbox, seams: Seams) -> None:
    """Retry-After holds for following too."""
    quiet.add_fault(Fault(FaultKind.STATUS, code=429, retry_after=40, verbs=frozenset({"watch"}), count=1))
    with following(quiet, seams) as reader:
        assert EventType.AWAY in [change.seen for change in reader.until(EventType.SYNCED)]
    assert 40 <= seams.time.waits[0] <= 50


@pytest.mark.emulator_only
def test_a_watch_that_cannot_be_resumed_raises(quiet: Sandbox, seams: Seams) -> None:
    """watch, unlike follow, gives up after the call's deadline."""
    kube = kube_client(quiet.url, quiet.token, seams=seams)
    watch = kube.watch(NODES, resource_version="1")
    reader = Reader(watch)
    quiet.add_node("a")
    assert told(reader.next()) == (EventType.ADDED, "a")
    quiet.away()
    with pytest.raises(Unreachable, match=r"watch nodes: .* attempts"):
        reader.next()
    assert int(watch.resource_version) > 1
    kube.close()


@pytest.mark.emulator_only
def test_a_token_that_ends_does_not_end_the_following(quiet: Sandbox, seams: Seams) -> None:
    """A 401 is AWAY until the token is good again."""
    quiet.add_token("mine", User("me", ("system:masters",)))
    kube = kube_client(quiet.url, "mine", seams=seams)
    reader = Reader(kube.follow(NODES))
    reader.until(EventType.SYNCED)
    await_watch(quiet)
    quiet.revoke_token("mine")
    quiet.cut_watches()
    assert reader.next().seen is EventType.AWAY
    quiet.add_token("mine", User("me", ("system:masters",)))
    reader.until(EventType.SYNCED)
    kube.close()
    reader.assert_ended()


@pytest.mark.emulator_only
def test_following_lists_again_at_a_410_without_a_word_of_absence(quiet: Sandbox, seams: Seams) -> None:
    """The server was there all the time: LISTING, and no AWAY."""
    quiet.add_node("a")
    with following(quiet, seams) as reader:
        reader.until(EventType.SYNCED)
        await_watch(quiet)
        quiet.add_fault(Fault(FaultKind.STATUS, code=410, verbs=frozenset({"watch"}), count=1))
        quiet.cut_watches()
        again = reader.until(EventType.SYNCED)
    assert [told(change) for change in again] == [
        (EventType.LISTING, ""),
        (EventType.ADDED, "a"),
        (EventType.SYNCED, ""),
    ]


@pytest.mark.emulator_only
def test_following_that_went_well_for_long_begins_its_delays_anew(quiet: Sandbox, seams: Seams) -> None:
    """An absence next week does not pay for the one of today."""
    quiet.add_fault(Fault(FaultKind.STATUS, code=503, verbs=frozenset({"watch"}), count=6))
    with following(quiet, seams) as reader:
        reader.until(EventType.SYNCED)
        await_watch(quiet)
        grown = seams.time.waits[-1]
        seams.time.now += 3600
        quiet.add_fault(Fault(FaultKind.STATUS, code=503, verbs=frozenset({"watch"}), count=1))
        quiet.cut_watches()
        reader.until(EventType.SYNCED)
    assert grown > 8
    assert seams.time.waits[-1] <= 1.0


@pytest.mark.emulator_only
def test_a_caller_that_breaks_off_leaves_nothing_behind(quiet: Sandbox) -> None:
    """`break` in a loop over a watch closes its connection."""
    quiet.add_node("a")
    kube = kube_client(quiet.url, quiet.token)
    for change in kube.watch(NODES, resource_version="1"):
        assert told(change) == (EventType.ADDED, "a")
        break
    kube.close()
    for _ in range(2000):
        if all(record.status is not None and record.duration_seconds is not None for record in quiet.requests):
            return
        threading.Event().wait(0.01)
    pytest.fail("the watch is still there")
