"""The note on the node: read back as written, and refused rather than guessed when it is not ours."""

from __future__ import annotations

import json
import string
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.reboot import history
from agent.reboot.interfaces import Outcome
from agent.reboot.state import PERSISTED, NodeState, Now, Phase, Stamp, decode, tidy

TEXTS = st.text(max_size=40).filter(str.isprintable)
SECONDS = st.floats(min_value=0, max_value=4e9, allow_nan=False).map(lambda value: round(value, 3))
STAMPS = st.builds(Stamp, boot=st.text(string.hexdigits, min_size=1, max_size=36), mono=SECONDS, wall=SECONDS)
STATES = st.builds(
    NodeState,
    phase=st.sampled_from(sorted(PERSISTED)),
    cycle=st.text(string.hexdigits, min_size=1, max_size=10),
    reason=TEXTS,
    requested=TEXTS,
    since=SECONDS,
    boot=st.text(string.hexdigits, min_size=1, max_size=36),
    cordoned=st.booleans(),
    uncordoned=st.booleans(),
    lease=TEXTS,
    entered=STAMPS,
    failures=st.integers(0, 50),
    error=TEXTS,
    lost=st.booleans(),
    guard=st.none() | TEXTS,
    streak=st.integers(0, 50),
    done=st.none() | STAMPS,
    outcome=st.none() | st.sampled_from(Outcome),
    kernel=TEXTS,
    pods=st.integers(0, 500),
    left=st.integers(0, 500),
    slowest=TEXTS,
    marks=st.dictionaries(st.sampled_from([phase.value for phase in PERSISTED]), SECONDS, max_size=5).map(
        lambda marks: tuple(marks.items())
    ),
)
KEYS = ["v", "phase", "boot", "cycle", "entered", "marks", "failures"]


@given(STATES)
def test_what_is_written_is_read_back(state: NodeState) -> None:
    """Nothing is lost on the way through the annotation."""
    assert decode(state.encode()) == state


@given(STATES, st.sampled_from(["x", '"', "\\", "\x00", "ü", "\n", "\U0001f600"]))
def test_it_stays_small(state: NodeState, letter: str) -> None:
    """However long a package list or an error is, and whatever stands in it."""
    long = letter * 6000
    text = replace(state, reason=long, error=long, slowest=long, requested=long, kernel=long, guard=long).encode()
    assert len(text) < 8192
    assert decode(text).reason == tidy(long)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda part: st.lists(part, max_size=3) | st.dictionaries(st.sampled_from(KEYS), part, max_size=5),
    max_leaves=8,
)


@given(st.text(max_size=200) | JSON.map(json.dumps))
def test_anything_else_is_refused_and_nothing_else_is_raised(text: str) -> None:
    """People, older and newer versions may write there: a ValueError, or a note that the machine understands."""
    try:
        found = decode(text)
    except ValueError:
        return
    assert found.phase in PERSISTED


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("{", "not JSON"),
        ("[]", "not a JSON object"),
        ('{"v":2,"phase":"idle"}', "version 2; this agent reads version 1"),
        ('{"v":true,"phase":"idle"}', "version True"),
        ('{"v":1}', "no phase"),
        ('{"v":1,"phase":"locked"}', "'locked' is none that is written down"),
        ('{"v":1,"phase":"idle","failures":-1}', "failures"),
        ('{"v":1,"phase":"idle","cordoned":"yes"}', "cordoned"),
        ('{"v":1,"phase":"idle","nonsense":1}', "nonsense"),
        ('{"v":1,"phase":"idle","done":{"boot":"x","mono":"1","wall":2}}', "done"),
        ('{"v":1,"phase":"idle","since":NaN}', "since"),
        ('{"v":1,"phase":"draining"}', "draining without cycle, boot or entered"),
        ("x" * 9000, "longer than 8192"),
        ("[" * 8000, "not JSON"),
    ],
)
def test_a_note_that_is_not_ours_is_refused(text: str, says: str) -> None:
    """The reason names what is wrong, for the sentence on the node."""
    with pytest.raises(ValueError, match=r".") as caught:
        decode(text)
    assert says in str(caught.value)


def test_no_note_is_a_node_that_wants_nothing() -> None:
    """An absent annotation is not an unreadable one."""
    assert decode("") == NodeState(phase=Phase.IDLE)


def test_time_is_only_told_within_one_boot() -> None:
    """Another boot id makes a stamp worthless, whatever both clocks show."""
    stamp = Stamp.of(Now("a", 100.0, 5000.0))
    assert stamp.elapsed(Now("a", 160.0, 0.0)) == 60.0
    assert stamp.elapsed(Now("b", 160.0, 5060.0)) is None
    assert stamp.elapsed(Now("a", 90.0, 9999.0)) == 0.0


def test_history_keeps_the_last_five_newest_first() -> None:
    """Each entry: when, why, kernels, seconds in all and by phase."""
    text = ""
    for number in range(7):
        marks = (
            ("cordoned", 100.0),
            ("draining", 110.0),
            ("rebooting", 150.0),
            ("verifying", 200.0),
            ("released", 260.0),
        )
        state = NodeState(
            cycle="c", reason=f"linux {number}", kernel="6.1.0-1", pods=4, slowest="shop/web 33 s", marks=marks
        )
        text = history.with_entry(text, state, kernel="6.1.0-2")
    entries = json.loads(text)
    assert [entry["reason"] for entry in entries] == [f"linux {number}" for number in (6, 5, 4, 3, 2)]
    assert entries[0] == {
        "at": "1970-01-01T00:04:20Z",
        "reason": "linux 6",
        "kernelBefore": "6.1.0-1",
        "kernelAfter": "6.1.0-2",
        "seconds": 160,
        "phases": {"cordoned": 10, "draining": 40, "rebooting": 50, "verifying": 60},
        "pods": 4,
        "slowestPod": "shop/web 33 s",
    }


@pytest.mark.parametrize("text", ["{", "{}", "[1,2]", "null", "[" * 5000])
def test_a_history_that_cannot_be_read_is_begun_anew(text: str) -> None:
    """It is for people: a broken one never holds up a reboot."""
    assert len(json.loads(history.with_entry(text, NodeState(), kernel="6"))) == 1
