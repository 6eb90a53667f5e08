"""What an observation means: the decisions that findings and steps are made from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.choices import Mode, ParserChoice
from agent.config.schema import Apparmor
from agent.controls.apparmor import ApparmorControl
from agent.controls.apparmor.diff import (
    Observation,
    ProfileFile,
    Refused,
    Removal,
    State,
    parent_of,
    removed_profiles,
    resolve_clashes,
    tops,
    verdicts,
)
from agent.controls.apparmor.findings import judge
from agent.controls.apparmor.parser import Parser, Tool
from agent.controls.apparmor.securityfs import Kernel, Lsm
from agent.controls.manifest import Entry, Installed
from agent.errors import Problem
from agent.host import Completed, Host, HostExec
from agent.model import Status

UNIT = ProfileFile("f", "/p/f", ("a",), "new", b"profile a { }")
NOTES = {"file": "f", "boot": "B", "mode": "enforce", "kernel": "sha1:1"}
ENTRY = Entry("a", ("new",), notes=NOTES)
HELD = Observation(
    Kernel(Lsm.ON, profiles={"a": "enforce"}),
    desired=(UNIT,),
    entries={"a": ENTRY},
    boot_id="B",
    hashes={"a": "sha1:1"},
)


def entry(**notes: str) -> dict[str, Entry]:
    return {"a": replace(ENTRY, notes=NOTES | notes)}


@pytest.mark.parametrize(
    ("seen", "state", "reason"),
    [
        (HELD, State.HELD, ""),
        (replace(HELD, hashes={}, entries=entry(kernel="")), State.HELD, ""),
        (replace(HELD, hashes={"a": ""}), State.UNKNOWN, "the kernel's hash of 'a' cannot be read"),
        (replace(HELD, kernel=Kernel(Lsm.ON)), State.LOAD, "no longer loaded"),
        (replace(HELD, kernel=Kernel(Lsm.ON), boot_id="C"), State.LOAD, "not loaded"),
        (replace(HELD, boot_id="C"), State.LOAD, "not loaded by the agent since the boot"),
        (replace(HELD, entries={"a": replace(ENTRY, hashes=("old",))}), State.LOAD, "its content has changed"),
        (replace(HELD, entries={"a": replace(ENTRY, notes={"file": "f", "boot": "B"})}), State.LOAD, "interrupted"),
        (replace(HELD, entries=entry(file="g")), State.LOAD, "it moved here from g"),
        (replace(HELD, entries=entry(mode="complain")), State.LOAD, "it was loaded in complain mode"),
        (replace(HELD, hashes={"a": "sha1:2"}), State.LOAD, "replaced with"),
        (replace(HELD, entries={}), State.FOREIGN, "this agent did not load it"),
        (replace(HELD, entries={}, copied=frozenset({"a"})), State.LOAD, "the manifest has lost it"),
        (replace(HELD, entries={}, manifest_error="?"), State.UNKNOWN, "this agent did not load it"),
        (replace(HELD, desired=(replace(UNIT, flat=None),), kernel=Kernel(Lsm.ON)), State.LOST, "no longer loaded"),
    ],
)
def test_where_a_profile_stands(seen: Observation, state: State, reason: str) -> None:
    """Each way in which a profile can differ from what was asked for has its own reason."""
    (verdict,) = verdicts(seen)
    assert verdict.state is state
    assert reason in verdict.reason


def test_nothing_is_decided_where_apparmor_is_not_on() -> None:
    """Off or unseen: no verdict, so no step; the findings say not-applicable or unknown, never pass."""
    for lsm, status in ((Lsm.OFF, Status.NOT_APPLICABLE), (Lsm.UNKNOWN, Status.UNKNOWN)):
        seen = replace(HELD, kernel=Kernel(lsm, "because", "do this"))
        assert verdicts(seen) == ()
        assert removed_profiles(seen) == ()
        assert {one.status for one in judge(seen)} == {status}


def test_a_stranger_in_a_file_stops_all_of_it() -> None:
    """A file is loaded as a whole, so one foreign name in it keeps the others out too."""
    unit = replace(UNIT, names=("a", "b"))
    seen = replace(HELD, desired=(unit,), entries={}, kernel=Kernel(Lsm.ON, profiles={"b": "enforce"}))
    assert [verdict.state for verdict in verdicts(seen)] == [State.FOREIGN, State.FOREIGN]


def test_a_missing_child_is_its_parents_fault() -> None:
    """Children are not reported by themselves; a lost one has the whole file loaded again."""
    unit = replace(UNIT, names=("a", "a//kid"))
    kid = replace(ENTRY, key="a//kid")
    seen = replace(HELD, desired=(unit,), entries={"a": ENTRY, "a//kid": kid})
    assert [(one.name, one.state) for one in verdicts(seen)] == [("a", State.LOAD)]


@pytest.mark.parametrize(
    ("seen", "decision"),
    [
        (HELD, Removal.REMOVE),
        (replace(HELD, users={"a": (7,)}), Removal.IN_USE),
        (replace(HELD, users=None, users_error="?"), Removal.UNKNOWN),
        (replace(HELD, hashes={"a": ""}), Removal.UNKNOWN),
        (replace(HELD, kernel=Kernel(Lsm.ON)), Removal.FORGET),
        (replace(HELD, boot_id="C"), Removal.FORGET),
        (replace(HELD, hashes={"a": "sha1:2"}), Removal.FORGET),
    ],
)
def test_what_leaves(seen: Observation, decision: Removal) -> None:
    """Removed only when it is ours, as we loaded it, in this boot, and known to be unused."""
    assert [one.decision for one in removed_profiles(replace(seen, desired=()))] == [decision]


def test_what_does_not_leave() -> None:
    """Nothing leaves because a file is broken, the folder or the manifest cannot be read, or the parser is missing."""
    refused = Refused("f", "/p/f", (Problem("/p/f", 1, "", "broken"),))
    assert removed_profiles(replace(HELD, desired=(), refused=(refused,))) == ()
    assert removed_profiles(replace(HELD, desired=(), blocked="no folder")) == ()
    assert removed_profiles(replace(HELD, desired=(), manifest_error="?")) == ()


def test_one_name_in_two_files() -> None:
    """The file that the kernel has it from wins, else the first by name; a refused file claims no other name."""
    one, two = replace(UNIT, file="1", shown="1"), replace(UNIT, file="2", shown="2", names=("a", "b"))
    three = replace(UNIT, file="3", shown="3", names=("b",))
    good, refused = resolve_clashes([one, two, three], {})
    assert ([unit.file for unit in good], [unit.file for unit in refused]) == (["1", "3"], ["2"])
    good, refused = resolve_clashes([one, two, three], {"a": replace(ENTRY, notes={"file": "2"})})
    assert ([unit.file for unit in good], [unit.file for unit in refused]) == (["2"], ["1", "3"])
    assert "as does 2" in refused[0].problems[0].message


@given(st.lists(st.frozensets(st.sampled_from("abcde"), min_size=1), max_size=6))
def test_no_name_is_ever_claimed_twice(sets: list[frozenset[str]]) -> None:
    """However files overlap: each ends up good or refused, and good ones share no name."""
    units = [ProfileFile(str(n), str(n), tuple(sorted(names)), str(n), b"x") for n, names in enumerate(sets)]
    good, refused = resolve_clashes(units, {})
    claimed = [name for unit in good for name in unit.names]
    assert len(claimed) == len(set(claimed))
    assert {unit.file for unit in good} | {one.file for one in refused} == {unit.file for unit in units}


@pytest.mark.parametrize(
    ("name", "parent"),
    [("a", ""), ("a//b", "a"), ("a//b//c", "a//b"), (":n://a", ""), (":n://a//b", ":n://a"), ("/usr/bin/x", "")],
)
def test_parents(name: str, parent: str) -> None:
    """A namespace's `://` is not the mark of a child."""
    assert parent_of(name) == parent


@given(st.text(min_size=1))
def test_any_name_has_a_place(name: str) -> None:
    """A single name is always its own top, whatever it looks like."""
    assert tops([name]) == (name,)
    assert parent_of(name) != name


@pytest.mark.parametrize(
    ("mode", "status"),
    [
        ("enforce", Status.PASS),
        ("kill", Status.PASS),
        ("complain", Status.INFO),
        ("unconfined", Status.INFO),
        ("mixed", Status.UNKNOWN),
    ],
)
def test_only_an_enforcing_mode_passes(mode: str, status: Status) -> None:
    """A lenient mode that was asked for is told; one that the agent has never heard of is unknown, never a pass."""
    seen = replace(HELD, kernel=Kernel(Lsm.ON, profiles={"a": mode}), entries=entry(mode=mode))
    found = next(one for one in judge(seen) if one.id == "apparmor/profile/a")
    assert found.status is status


def test_without_a_parser_an_empty_folder_forgets_nothing(tmp_path: Path) -> None:
    """What the agent loaded in this boot stays recorded until it is removed, which needs the parser."""
    boot, folder = "11111111-2222-3333-4444-555555555555", tmp_path / "profiles"
    folder.mkdir()
    for name, content in {
        "sys/module/apparmor/parameters/enabled": "Y\n", "sys/kernel/security/apparmor/profiles": "a (enforce)\n",
        "proc/1/attr/current": "unconfined\n", "proc/sys/kernel/random/boot_id": f"{boot}\n",
    }.items():  # fmt: skip
        (tmp_path / "node" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "node" / name).write_text(content)
    host = Host(tmp_path / "node", how=HostExec.NSENTER)
    notes = {"file": "f", "boot": boot, "mode": "enforce", "kernel": ""}
    Installed(host, "apparmor").remember(Entry("a", ("x",), notes=notes))
    control = ApparmorControl(Apparmor(mode=Mode.ENFORCE, profiles=str(folder), parser=ParserChoice.NODE), host)
    assert [step.change.action for step in control.plan(control.observe())] == ["unload"]


class NodeWithLongLists(Host):
    """A node whose parser lists more profiles than are read."""

    def run(self, argv: Sequence[str], **_: Any) -> Completed:
        return Completed(tuple(argv), 0, "a\n", "", cut="-N" in argv)


def test_profiles_that_were_listed_in_part_are_a_problem_of_their_file(tmp_path: Path) -> None:
    """The rest would be loaded without being known, and never be removed."""
    linted = Parser(NodeWithLongLists(tmp_path), tool=Tool("/sbin/apparmor_parser", HostExec.DIRECT)).lint(b"", "f")
    assert (linted.names, [one.file for one in linted.problems]) == (("a",), ["f"])
    assert "unknown which profiles it defines" in linted.problems[0].message
