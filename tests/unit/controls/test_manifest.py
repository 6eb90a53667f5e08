"""The manifest: what the agent installed leaves again, what others put there stays."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

from agent.controls.manifest import Entry, Installed, ManifestError, digest
from agent.errors import HostError, HostFileError
from agent.host import Host

FILE = "/etc/modprobe.d/ours.conf"
OURS, NEWER, THEIRS = b"ours\n", b"newer\n", b"theirs\n"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    """A node."""
    return Host(tmp_path)


@pytest.fixture
def installed(host: Host) -> Installed:
    """The manifest of one control."""
    return Installed(host, "modprobe")


class PowerCut(Host):
    """A node that goes down before the n-th write or removal."""

    def __init__(self, root: Path, acts: int) -> None:
        super().__init__(root)
        self._left = acts

    def _act(self) -> None:
        if self._left == 0:
            raise KeyboardInterrupt
        self._left -= 1

    def write(self, path: str, content: bytes | str, *, mode: int | None = None) -> bool:
        """Only while there is power."""
        self._act()
        return super().write(path, content, mode=mode)

    def remove(self, path: str) -> bool:
        """Only while there is power."""
        self._act()
        return super().remove(path)


def test_a_node_that_was_never_touched_has_no_entries(installed: Installed) -> None:
    """No manifest is not a broken one."""
    assert installed.entries() == {}


def test_what_is_installed_is_remembered_and_leaves(host: Host, installed: Installed) -> None:
    """With its hash and notes; afterwards nothing of it is left."""
    installed.install(FILE, OURS, mode=0o600, notes={"why": "test"})
    assert host.read_bytes(FILE) == OURS
    assert host.stat(FILE).mode == 0o600
    assert installed.entries() == {FILE: Entry(FILE, (digest(OURS),), "", {"why": "test"})}
    assert installed.uninstall(FILE) is True
    assert not host.exists(FILE)
    assert installed.entries() == {}


def test_the_manifest_survives_the_agent(host: Host, installed: Installed) -> None:
    """Another process, later, knows the same; another control's is its own."""
    installed.install(FILE, OURS)
    assert Installed(host, "modprobe").entries() == installed.entries()
    assert Installed(host, "seccomp").entries() == {}


def test_the_same_content_again_changes_nothing(host: Host, installed: Installed) -> None:
    """Neither the file nor the manifest: same inode, same time."""
    installed.install(FILE, OURS)
    before = (host.stat(FILE), host.stat(installed.path))
    installed.install(FILE, OURS)
    assert (host.stat(FILE), host.stat(installed.path)) == before


def test_what_stood_there_before_is_kept_and_comes_back(host: Host, installed: Installed) -> None:
    """With its mode, however often ours changed in between."""
    host.write(FILE, THEIRS, mode=0o640)
    installed.install(FILE, OURS)
    installed.install(FILE, NEWER)
    assert host.read_bytes(FILE) == NEWER
    assert installed.uninstall(FILE) is True
    assert (host.read_bytes(FILE), host.stat(FILE).mode) == (THEIRS, 0o640)
    assert host.names("/var/lib/node-hardening/kept/modprobe") == ()


def test_an_equal_file_of_somebody_else_stays_theirs(host: Host, installed: Installed) -> None:
    """It was there before us, so it is there after us."""
    host.write(FILE, OURS)
    installed.install(FILE, OURS)
    assert installed.uninstall(FILE) is True
    assert host.read_bytes(FILE) == OURS


def test_what_somebody_put_in_our_place_is_not_removed(host: Host, installed: Installed) -> None:
    """The entry goes, their file stays."""
    installed.install(FILE, OURS)
    host.write(FILE, THEIRS)
    assert installed.uninstall(FILE) is False
    assert host.read_bytes(FILE) == THEIRS
    assert installed.entries() == {}


def test_what_is_already_gone_is_forgotten(host: Host, installed: Installed) -> None:
    """Somebody removed it by hand: nothing is left to do."""
    installed.install(FILE, OURS)
    host.remove(FILE)
    assert installed.uninstall(FILE) is True
    assert installed.entries() == {}
    assert installed.uninstall(FILE) is False


def test_a_kept_copy_that_is_gone_does_not_hold_the_removal_up(host: Host, installed: Installed) -> None:
    """Somebody cleaned /var: what is ours leaves all the same."""
    host.write(FILE, THEIRS)
    installed.install(FILE, OURS)
    host.remove(installed.entries()[FILE].kept)
    assert installed.uninstall(FILE) is True
    assert not host.exists(FILE)


def test_two_files_with_names_that_look_alike_are_kept_apart(host: Host, installed: Installed) -> None:
    """/a/b and /a_b make one name; what is kept of them does not mix."""
    host.write("/a/b", b"first")
    host.write("/a_b", b"second")
    installed.install("/a/b", OURS)
    installed.install("/a_b", OURS)
    installed.uninstall("/a/b")
    installed.uninstall("/a_b")
    assert (host.read_bytes("/a/b"), host.read_bytes("/a_b")) == (b"first", b"second")


def test_things_that_are_no_files_are_remembered_too(installed: Installed) -> None:
    """A loaded AppArmor profile has a name only."""
    installed.remember(Entry("profile", (digest(OURS),), notes={"file": "/x"}))
    assert installed.entries()["profile"].notes == {"file": "/x"}
    installed.forget("profile")
    installed.forget("profile")
    assert installed.entries() == {}


# -- crashes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [None, OURS, THEIRS])
def test_an_install_cut_off_anywhere_is_finished_and_undone_by_the_next(tmp_path: Path, before: bytes | None) -> None:
    """After each of its writes: never a file of ours without an entry, and the end is as if nothing had happened."""
    for acts in range(4):
        root = tmp_path / str(acts)
        root.mkdir()
        host = Host(root)
        if before is not None:
            host.write(FILE, before)
        with contextlib.suppress(KeyboardInterrupt):
            Installed(PowerCut(root, acts), "modprobe").install(FILE, OURS)
        installed = Installed(host, "modprobe")
        if before != OURS and host.exists(FILE) and host.read_bytes(FILE) == OURS:
            assert FILE in installed.entries()
        installed.install(FILE, OURS)
        assert host.read_bytes(FILE) == OURS
        assert installed.uninstall(FILE) is True
        assert (host.read_bytes(FILE) if host.exists(FILE) else None) == before


def test_several_installs_cut_off_before_their_write_still_know_the_file(tmp_path: Path) -> None:
    """The entry names what is there, not what should have been there."""
    host = Host(tmp_path)
    Installed(host, "modprobe").install(FILE, OURS)
    for content in (NEWER, b"newest\n", b"last\n"):
        with pytest.raises(KeyboardInterrupt):
            Installed(PowerCut(tmp_path, 1), "modprobe").install(FILE, content)
    installed = Installed(host, "modprobe")
    assert installed.is_ours(installed.entries()[FILE], host.read_bytes(FILE))
    assert installed.uninstall(FILE) is True
    assert not host.exists(FILE)


def test_an_install_after_an_uninstall_that_was_cut_off_still_keeps_what_was_there(tmp_path: Path) -> None:
    """The file left the configuration, the power went, it is back in the configuration: theirs is not lost."""
    for acts in range(4):
        root = tmp_path / str(acts)
        root.mkdir()
        host = Host(root)
        host.write(FILE, THEIRS)
        installed = Installed(host, "modprobe")
        installed.install(FILE, OURS)
        with contextlib.suppress(KeyboardInterrupt):
            Installed(PowerCut(root, acts), "modprobe").uninstall(FILE)
        installed.install(FILE, OURS)
        assert installed.uninstall(FILE) is True
        assert host.read_bytes(FILE) == THEIRS


@pytest.mark.parametrize("before", [None, THEIRS])
def test_an_uninstall_cut_off_anywhere_is_finished_by_the_next(tmp_path: Path, before: bytes | None) -> None:
    """What was there before is there again, whatever was cut off."""
    for acts in range(4):
        root = tmp_path / str(acts)
        root.mkdir()
        host = Host(root)
        if before is not None:
            host.write(FILE, before)
        Installed(host, "modprobe").install(FILE, OURS)
        with contextlib.suppress(KeyboardInterrupt):
            Installed(PowerCut(root, acts), "modprobe").uninstall(FILE)
        installed = Installed(host, "modprobe")
        installed.uninstall(FILE)
        assert (host.read_bytes(FILE) if host.exists(FILE) else None) == before
        assert installed.entries() == {}


# -- broken manifests --------------------------------------------------------------------------------------------------

BROKEN = [
    "",
    "{",
    "[]",
    "null",
    "5",
    '{"version": 2, "installed": []}',
    '{"installed": []}',
    '{"version": 1}',
    '{"version": 1, "installed": 5}',
    '{"version": 1, "installed": [5]}',
    '{"version": 1, "installed": [{}]}',
    '{"version": 1, "installed": [{"key": 5}]}',
    '{"version": 1, "installed": [{"key": []}]}',
    '{"version": 1, "installed": [{"key": "a", "hashes": [1]}]}',
    '{"version": 1, "installed": [{"key": "a", "hashes": "abc"}]}',
    '{"version": 1, "installed": [{"key": "a", "kept": 1}]}',
    '{"version": 1, "installed": [{"key": "a", "notes": [1]}]}',
    '{"version": 1, "installed": [{"key": "a", "notes": {"b": 1}}]}',
    "[" * 100_000,
]


@pytest.mark.parametrize("text", BROKEN)
def test_a_manifest_that_cannot_be_understood_is_an_error_that_names_it(
    host: Host, installed: Installed, text: str
) -> None:
    """Nothing is known then about what was installed: that is unknown, and not "nothing"."""
    host.write(installed.path, text)
    with pytest.raises(ManifestError, match=r"^/var/lib/node-hardening/modprobe\.json: "):
        installed.entries()


def test_a_broken_manifest_is_moved_aside_by_the_next_install(host: Host, installed: Installed) -> None:
    """People can still read what it said, and the node is hardened again."""
    host.write(installed.path, "{broken")
    installed.install(FILE, OURS)
    assert host.read_bytes(f"{installed.path}.unreadable") == b"{broken"
    assert set(installed.entries()) == {FILE}


def test_a_manifest_that_cannot_be_read_stops_the_install(host: Host, installed: Installed, tmp_path: Path) -> None:
    """A folder in its place, an I/O error: whatever is unknown is not overwritten."""
    (tmp_path / "var/lib/node-hardening/modprobe.json").mkdir(parents=True)
    with pytest.raises(HostFileError):
        installed.install(FILE, OURS)
    assert not host.exists(FILE)


@given(st.binary(max_size=100) | st.text().map(str.encode))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_bytes_are_a_manifest_or_an_error_of_ours(host: Host, installed: Installed, content: bytes) -> None:
    """Never a traceback of another kind."""
    host.write(installed.path, content)
    try:
        installed.entries()
    except HostError:
        return


_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["key", "hashes", "kept", "notes", "version", "installed"]), inner, max_size=4
        )
    ),
    max_leaves=15,
)


@given(_JSON)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_json_is_a_manifest_or_an_error_of_ours(host: Host, installed: Installed, inner: Any) -> None:
    """With entries of every shape; what is understood can be written again."""
    host.write(installed.path, json.dumps({"version": 1, "installed": inner}))
    try:
        entries = installed.entries()
    except HostError:
        return
    installed.remember(Entry("new"))
    assert set(installed.entries()) == {*entries, "new"}


# -- any order of acts -------------------------------------------------------------------------------------------------


class OneFile(RuleBasedStateMachine):
    """One path, the agent and somebody else, in any order, with power cuts."""

    root: Path

    @initialize(theirs=st.none() | st.sampled_from([THEIRS, OURS]))
    def begin(self, theirs: bytes | None) -> None:
        """Somebody may have been there first."""
        self.place = self.root / str(len(list(self.root.iterdir())))
        self.place.mkdir()
        self.host = Host(self.place)
        self.first = theirs
        self.changed_by_hand = False
        if theirs is not None:
            self.host.write(FILE, theirs)

    def installed(self, acts: int | None) -> Installed:
        """The manifest, on a node with this much power left."""
        return Installed(self.host if acts is None else PowerCut(self.place, acts), "modprobe")

    @rule(content=st.sampled_from([OURS, NEWER]), acts=st.none() | st.integers(0, 3))
    def install(self, content: bytes, acts: int | None) -> None:
        """The agent puts its file there, or dies on the way."""
        try:
            self.installed(acts).install(FILE, content)
        except KeyboardInterrupt:
            return
        assert self.host.read_bytes(FILE) == content

    @rule(acts=st.none() | st.integers(0, 3))
    def uninstall(self, acts: int | None) -> None:
        """The agent takes it away, or dies on the way; without anybody's hand in it, all is as it was."""
        try:
            self.installed(acts).uninstall(FILE)
        except KeyboardInterrupt:
            return
        if not self.changed_by_hand:
            assert self.content() == self.first

    @rule()
    def edit(self) -> None:
        """Somebody writes their own file there."""
        self.host.write(FILE, b"by hand\n")
        self.changed_by_hand = True

    def content(self) -> bytes | None:
        """What is there now."""
        return self.host.read_bytes(FILE) if self.host.exists(FILE) else None

    @invariant()
    def never_a_file_of_ours_without_an_entry(self) -> None:
        """Whatever happened, what is ours can be recognised and removed."""
        content = self.content()
        if content in (OURS, NEWER) and content != self.first:
            entry = self.installed(None).entries().get(FILE)
            assert self.installed(None).is_ours(entry, content)


def test_in_any_order_of_acts_and_crashes_others_files_come_back(tmp_path: Path) -> None:
    """Hypothesis looks for an order that loses somebody's file or forgets one of ours."""
    OneFile.root = tmp_path
    tries = max(settings.default.max_examples // 5, 1) if settings.default else 20
    run_state_machine_as_test(OneFile, settings=settings(max_examples=tries, stateful_step_count=12))
