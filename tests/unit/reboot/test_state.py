"""The annotation reboot-state: read back as written, and refused rather than guessed when it is not ours."""

from __future__ import annotations

import json
import string
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.reboot import history
from agent.reboot.phases import STORED, Phase
from agent.reboot.state import (
    CLASSES,
    Attempt,
    Draining,
    Idle,
    NodeState,
    Now,
    Outcome,
    Pending,
    Rebooting,
    Releasing,
    RolledBack,
    Stamp,
    Verifying,
    bounded,
    decode,
    keys_of,
)

VERSION_1 = json.loads((Path(__file__).parent / "data" / "reboot-state-version-1.json").read_text())
TEXTS = st.text(max_size=40).filter(str.isprintable)
NAMES = st.text(string.hexdigits, min_size=1, max_size=36)
KEYS = st.text(string.ascii_letters + "./-", min_size=1, max_size=80)
SECONDS = st.floats(min_value=0, max_value=4e9, allow_nan=False).map(lambda value: round(value, 3))
STAMPS = st.builds(Stamp, boot=NAMES, mono=SECONDS, wall=SECONDS)
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "int": st.integers(0, 50),
    "str": TEXTS,
    "float": SECONDS,
    "bool": st.booleans(),
    "Stamp": STAMPS,
    "Stamp | None": st.none() | STAMPS,
    "str | None": st.none() | TEXTS,
    "Outcome": st.sampled_from(Outcome),
    "Marks": st.dictionaries(st.sampled_from(sorted(STORED)), SECONDS, max_size=5).map(
        lambda some: tuple(some.items())
    ),
    "Keys": st.builds(keys_of, st.lists(KEYS, max_size=30), st.lists(KEYS, max_size=30)),
}
STATES = st.sampled_from(sorted(CLASSES)).flatmap(
    lambda phase: st.builds(
        CLASSES[phase],
        **{
            one.name: NAMES if one.name in ("cycle", "boot") else VALUES[str(one.type)]
            for one in fields(CLASSES[phase])
        },
    )
)
STAMP = Stamp("b", 1.0, 2.0)


@given(STATES)
def test_what_is_written_is_read_back(state: NodeState) -> None:
    """Every field of every phase."""
    assert decode(state.encode()) == state


def test_every_stored_phase_has_one_class() -> None:
    """And no other has."""
    assert set(CLASSES) == STORED
    assert all(kind.phase is phase for phase, kind in CLASSES.items())


def test_long_texts_are_cut_and_made_printable() -> None:
    """A package list of a megabyte does not fill the object."""
    state = Pending(cycle="c", entered=STAMP, packages="x\n" * 100_000, requested="\x1b[31m", error="é" * 10_000)
    text = state.encode()
    assert len(text) < 2000
    assert decode(text) == replace(state, packages=bounded(state.packages), requested=" [31m", error="é" * 300)


@pytest.mark.parametrize(
    "text",
    [
        "x", "[]", "1", "null", "{}", '{"v":9,"phase":"idle"}', '{"v":true,"phase":"idle"}', '{"phase":"idle"}',
        '{"v":2,"phase":"blocked"}', '{"v":2,"phase":"IDLE"}', '{"v":2}', '{"v":2,"phase":7}',
        '{"v":2,"phase":["idle"]}',
        '{"v":2,"phase":"idle","cycle":"c"}', '{"v":2,"phase":"idle","cordoned":true}', '{"v":2,"phase":"idle","x":1}',
        '{"v":2,"phase":"idle","failures":-1}', '{"v":2,"phase":"idle","failures":1.5}',
        '{"v":2,"phase":"idle","failures":9999999999}', '{"v":2,"phase":"idle","guard":7}',
        '{"v":2,"phase":"idle","done":{"boot":"b","mono":1}}',
        '{"v":2,"phase":"idle","done":{"boot":"b","mono":-1,"wall":1}}',
        '{"v":2,"phase":"draining","cycle":"c","boot":"b","entered":{"boot":"b","mono":1,"wall":1},"keys":{"x":"a"}}',
        '{"v":2,"phase":"draining","cycle":"c","boot":"b","entered":{"boot":"b","mono":1,"wall":1},"keys":["a"]}',
        '{"v":2,"phase":"draining","cycle":"c","boot":"b","entered":{"boot":"b","mono":1,"wall":1},"keys":{"labels":[]}}',
        '{"v":2,"phase":"pending","cycle":"c"}', '{"v":2,"phase":"draining","cycle":"c","boot":"b"}',
        '{"v":2,"phase":"pending","cycle":"","entered":{"boot":"b","mono":1,"wall":1}}',
        '{"v":2,"phase":"pending","cycle":"c","since":9e11,"entered":{"boot":"b","mono":1,"wall":1}}',
        '{"v":2,"phase":"pending","cycle":"c","since":NaN,"entered":{"boot":"b","mono":1,"wall":1}}',
        '{"v":1,"phase":"wanted","cycle":"c","since":9e11,"entered":{"boot":"b","mono":1,"wall":1}}',
        '{"v":1,"phase":"pending"}', '{"v":1,"phase":"idle","since":"x"}', '{"v":1,"phase":"idle","what":1}',
        '{"v":1,"phase":"draining","cycle":"c"}', "[" * 5000, '"' + "x" * 9000 + '"',
    ],
)  # fmt: skip
def test_what_is_no_state_is_refused(text: str) -> None:
    """Every one with a reason, and none with a surprise."""
    with pytest.raises(ValueError, match=r"."):
        decode(text)


def test_the_longest_state_with_keys_can_be_read() -> None:
    """A state that its own agent could not read would keep cordon and lock: of too many keys the first are kept."""
    long = [f"{'a' * 253}/{number:063}" for number in range(40)]
    text = '"' * 400
    state = Verifying(
        cycle=text, packages=text, requested=text, last_cause=text, boot=text, lease=text, kernel=text, slowest=text,
        error=text, entered=Stamp(text, 1.5, 1.5), done=Stamp("b", 1.5, 1.5), keys=keys_of(long, map(str, range(99))),
        marks=tuple((phase, 1.7e9) for phase in STORED),
    )  # fmt: skip
    found = decode(state.encode())
    assert isinstance(found, Attempt)
    assert dict(found.keys) == {"labels": " ".join(long[:3]), "annotations": " ".join(map(str, range(20)))}


def test_keys_are_written_only_where_there_are_any() -> None:
    """An agent of before reads the state of a cycle that needs none."""
    assert "keys" not in json.loads(Draining(cycle="c", boot="b", entered=STAMP, keys=keys_of((), ())).encode())


def test_an_empty_annotation_is_an_idle_node() -> None:
    """A new node has none."""
    assert decode("") == Idle()


VALUE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=8,
)


@given(st.sampled_from(sorted(VERSION_1)), st.sampled_from([1, 2]), st.data())
def test_a_forged_field_is_read_in_range_or_refused(name: str, version: int, data: st.DataObject) -> None:
    """Whatever a compromised node writes into one field: a ValueError, or a state that can be shown and stored."""
    document = json.loads(VERSION_1[name] if version == 1 else decode(VERSION_1[name]).encode())
    key = data.draw(st.sampled_from([*document, "failures", "since", "marks", "keys"]))
    document[key] = data.draw(VALUE)
    try:
        state = decode(json.dumps(document))
    except ValueError:
        return
    assert decode(state.encode()) == state


@pytest.mark.parametrize("name", sorted(VERSION_1))
def test_version_1_is_read(name: str) -> None:
    """Samples that version 1's encoder wrote: a cycle begun under it goes on under version 2."""
    state = decode(VERSION_1[name])
    assert json.loads(state.encode())["v"] == 2
    assert decode(state.encode()) == state
    old = json.loads(VERSION_1[name])
    if isinstance(state, Attempt):
        assert (state.cycle, state.boot, state.lease) == (old["cycle"], old["boot"], old["lease"])
        assert state.cordoned is old["cordoned"]
        assert state.packages == old["reason"]


def test_the_phases_of_version_1() -> None:
    """Each sample by its class, with what only that phase has."""
    kinds = {name: decode(text) for name, text in VERSION_1.items()}
    assert isinstance(kinds["wanted"], Pending)
    assert isinstance(kinds["draining"], Draining)
    assert isinstance(kinds["rebooting"], Rebooting)
    assert isinstance(kinds["verifying"], Verifying)
    assert kinds["verifying"].error
    assert isinstance(kinds["released"], Releasing)
    assert (kinds["released"].outcome, kinds["released"].marks[-1][0]) == (Outcome.SUCCEEDED, Phase.RELEASING)
    assert isinstance(kinds["aborted"], Releasing)
    assert kinds["aborted"].outcome is Outcome.ABORTED
    assert isinstance(kinds["rolled back"], RolledBack)
    assert (kinds["rolled back"].lost, kinds["rolled back"].error) == (True, "the lock was lost")


def test_a_stamp_of_another_boot_has_no_age() -> None:
    """The monotonic clock starts from zero with each boot."""
    stamp = Stamp("b1", 100.0, 1.0)
    assert stamp.elapsed(Now("b1", 130.0, 0.0)) == 30.0
    assert stamp.elapsed(Now("b1", 99.9995, 0.0)) == 0.0
    assert stamp.elapsed(Now("b2", 130.0, 0.0)) is None


def test_a_stamp_from_the_future_of_its_boot_has_no_age() -> None:
    """A virtual machine went back to a snapshot: what the stamp limits ends now, not when the clock is there again."""
    assert Stamp("b1", 1_000_000.0, 1.0).elapsed(Now("b1", 90.0, 0.0)) is None


# -- history -----------------------------------------------------------------------------------------------------------


def _done(number: int) -> Releasing:
    marks = ((Phase.CORDONED, 1.0), (Phase.DRAINING, 3.0), (Phase.RELEASING, 60.0 + number))
    return Releasing(
        cycle="c", entered=STAMP, packages="linux-image", kernel="6.1", pods=4, slowest="shop/a 3 s", marks=marks
    )


def test_the_last_five_reboots_are_kept_the_newest_first() -> None:
    """With what each took, by phase."""
    text = ""
    for number in range(7):
        text = history.with_entry(text, _done(number), kernel="6.2")
    entries = json.loads(text)
    assert [entry["seconds"] for entry in entries] == [65, 64, 63, 62, 61]
    assert entries[0]["phases"] == {"cordoned": 2, "draining": 63}
    assert (entries[0]["kernelBefore"], entries[0]["kernelAfter"]) == ("6.1", "6.2")
    assert (entries[0]["reason"], entries[0]["slowestPod"]) == ("linux-image", "shop/a 3 s")


@pytest.mark.parametrize("text", ["x", "{}", "[" * 5000, "7"])
def test_a_history_that_cannot_be_read_is_started_again(text: str) -> None:
    """Nothing depends on it."""
    assert len(json.loads(history.with_entry(text, _done(1), kernel="6"))) == 1
