"""The node's files: never outside the root, written whole or not at all, and honest about what cannot be done."""

from __future__ import annotations

import ctypes
import errno
import os
import stat
import threading
from collections import Counter
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agent.errors import HostError, HostFileError, HostFileMissing, PathEscapesRoot
from agent.host import Host
from agent.host.filesystem import Owner, owner_of_tree

RENAME_EXCHANGE = 2  # linux/fs.h
SECRET = b"outside the root\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A node's tree beside a file that no path of the node may lead to."""
    (tmp_path / "secret").write_bytes(SECRET)
    (tmp_path / "outside").mkdir()
    (tmp_path / "outside" / "secret").write_bytes(SECRET)
    node = tmp_path / "node"
    (node / "etc").mkdir(parents=True)
    (node / "etc" / "hostname").write_text("node\n")
    return node


@pytest.fixture
def host(root: Path) -> Host:
    """The node."""
    return Host(root)


# -- never outside -----------------------------------------------------------------------------------------------------


def escapes(root: Path) -> dict[str, str]:
    """Symlinks that lead out for anybody who follows them plainly, and the path that goes through each."""
    above = root.parent
    links = {
        "absolute": f"{above}/secret",
        "absolute-folder": f"{above}/outside",
        "dots": "../secret",
        "many-dots": "../" * 30 + f"{above}/secret",
        "dots-inside": "etc/../../secret",
        "twice": "absolute",
        "double-slash": f"/{above}/secret",
        "magic": "/proc/self/cwd",
        "root": f"{above}",
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    through = {name: f"/{name}" for name in links}
    through["absolute-folder"] += "/secret"
    through["root"] += "/secret"
    return through


def test_no_symlink_reads_outside(host: Host, root: Path) -> None:
    """Absolute targets start at the node's root and dots stop there, as they would in a chroot."""
    for path in escapes(root).values():
        with pytest.raises(HostFileMissing):
            host.read_bytes(path)
        assert not host.exists(path)


def test_no_symlink_lists_outside(host: Host, root: Path) -> None:
    """Folders are no different."""
    escapes(root)
    with pytest.raises(HostFileMissing):
        host.names("/absolute-folder")
    with pytest.raises(HostFileMissing):
        host.names("/root")


def test_no_symlink_writes_or_removes_outside(host: Host, root: Path) -> None:
    """A write replaces the symlink, or is refused where its folder is missing; the outside keeps its content."""
    written = 0
    for path in escapes(root).values():
        try:
            host.write(path, b"changed")
        except HostFileError:
            continue
        written += 1
        assert host.read_bytes(path) == b"changed"
        assert host.remove(path)
    assert written == 7
    assert (root.parent / "secret").read_bytes() == SECRET
    assert (root.parent / "outside" / "secret").read_bytes() == SECRET
    assert sorted(entry.name for entry in (root.parent / "outside").iterdir()) == ["secret"]


@pytest.mark.parametrize("path", ["//etc/hostname", "///etc///hostname", "/./etc/./hostname", "/../etc/hostname"])
def test_odd_spellings_of_a_path_stay_inside(host: Host, path: str) -> None:
    """Two slashes are a root of their own to POSIX and to pathlib; here they are one."""
    assert host.read_text(path) == "node\n"


def test_two_slashes_are_not_the_machines_root(host: Host, root: Path) -> None:
    """Neither in a path nor in a symlink's target."""
    with pytest.raises(HostFileMissing):
        host.read_bytes(f"/{root.parent}/secret")
    (root / "link").symlink_to(f"/{root.parent}/secret")
    with pytest.raises(HostFileMissing):
        host.read_bytes("/link")


def test_absolute_symlinks_lead_to_the_nodes_own_files(host: Host, root: Path) -> None:
    """/var/run -> /run is what makes a mounted host usable at all."""
    (root / "var").mkdir()
    (root / "run").mkdir()
    (root / "var" / "run").symlink_to("/run")
    (root / "run" / "reboot-required").write_text("")
    assert host.exists("/var/run/reboot-required")
    host.write("/var/run/other", "x")
    assert (root / "run" / "other").read_text() == "x"


def test_relative_symlinks_are_relative_to_their_folder(host: Host, root: Path) -> None:
    """Dots climb from where the symlink is, not from where the path began."""
    (root / "etc" / "deep").mkdir()
    (root / "etc" / "deep" / "link").symlink_to("../hostname")
    (root / "short").symlink_to("etc/deep")
    assert host.read_text("/short/link") == "node\n"
    assert host.read_text("/short/../hostname") == "node\n"


def test_symlinks_in_circles_end(host: Host, root: Path) -> None:
    """With the kernel's own bound on how many are followed."""
    (root / "a").symlink_to("b")
    (root / "b").symlink_to("a")
    (root / "self").symlink_to("self/x")
    for path in ("/a", "/a/x", "/self"):
        with pytest.raises(PathEscapesRoot, match="too many levels"):
            host.read_bytes(path)
        with pytest.raises(PathEscapesRoot):
            host.exists(path)


def test_a_chain_of_symlinks_as_long_as_the_kernels_is_followed(host: Host, root: Path) -> None:
    """Forty, then no more."""
    (root / "link0").symlink_to("etc/hostname")
    for number in range(1, 41):
        (root / f"link{number}").symlink_to(f"link{number - 1}")
    assert host.read_text("/link39") == "node\n"
    with pytest.raises(PathEscapesRoot):
        host.read_text("/link40")


@pytest.mark.parametrize("path", ["", "etc/hostname", "./etc", "../secret", "\0"])
def test_paths_that_are_not_absolute_are_refused(host: Host, path: str) -> None:
    """A relative path would depend on the agent's own working folder."""
    with pytest.raises(HostFileError, match="not an absolute path"):
        host.read_bytes(path)
    with pytest.raises(HostFileError):
        host.write(path, b"")


@pytest.mark.parametrize("path", ["/etc/\0", "/\ud800", "/etc/\udcff\ud800"])
def test_names_that_no_file_can_have_are_an_error_of_ours(host: Host, path: str) -> None:
    """Not a ValueError out of the interpreter's depths."""
    for act in (host.read_bytes, host.stat, host.names, host.exists, host.remove, host.read_link):
        with pytest.raises(HostFileError):
            act(path)
    with pytest.raises(HostFileError):
        host.write(path, b"")


def test_a_name_that_is_too_long_is_an_error(host: Host) -> None:
    """ENAMETOOLONG is not "missing"."""
    with pytest.raises(HostFileError) as caught:
        host.exists("/" + "x" * 300)
    assert caught.value.errno == errno.ENAMETOOLONG


def test_a_swap_of_folder_and_symlink_never_leads_outside(host: Host, root: Path) -> None:
    """While somebody swaps a folder for a symlink to the outside and back, reads and writes stay inside."""
    outside = root.parent / "outside"
    folder, link = root / "folder", root / "link"
    folder.mkdir()
    (folder / "secret").write_bytes(b"inside\n")
    link.symlink_to(outside)
    libc = ctypes.CDLL(None, use_errno=True)
    stop = threading.Event()
    swaps = 0

    def swap() -> None:
        nonlocal swaps
        while not stop.is_set():
            if libc.renameat2(-100, bytes(folder), -100, bytes(link), RENAME_EXCHANGE) == 0:
                swaps += 1

    swapper = threading.Thread(target=swap)
    swapper.start()
    answers: Counter[bytes] = Counter()
    try:
        while (answers[b"inside\n"] < 300 or answers[b""] < 300) and sum(answers.values()) < 100_000:
            try:
                answers[host.read_bytes("/folder/secret")] += 1
                host.write("/folder/new", "x")
                host.names("/folder")
                host.remove("/folder/new")
            except HostFileError:
                answers[b""] += 1
    finally:
        stop.set()
        swapper.join()
    if not swaps:
        pytest.skip("this file system cannot exchange two names")
    assert set(answers) == {b"inside\n", b""}
    assert [entry.name for entry in outside.iterdir()] == ["secret"]
    assert (outside / "secret").read_bytes() == SECRET


NAMES = st.sampled_from(["a", "b", "c", "..", ".", "", "secret", "outside"])
PATHS = st.lists(NAMES, max_size=6).map(lambda parts: "/" + "/".join(parts))
TARGETS = st.one_of(
    PATHS, PATHS.map(lambda path: path[1:] or "."), st.just("{above}/secret"), st.just("/{above}/outside")
)
LAYOUT = st.lists(st.tuples(st.lists(st.sampled_from("abc"), min_size=1, max_size=3), st.none() | TARGETS), max_size=8)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layout=LAYOUT, paths=st.lists(PATHS, min_size=1, max_size=6))
def test_no_layout_of_symlinks_and_no_path_leads_outside(
    tmp_path_factory: pytest.TempPathFactory, layout: list[tuple[list[str], str | None]], paths: list[str]
) -> None:
    """Files, folders and symlinks at random, paths at random: what is outside is neither read nor changed."""
    above = tmp_path_factory.mktemp("layout")
    (above / "secret").write_bytes(SECRET)
    (above / "outside").mkdir()
    (above / "outside" / "secret").write_bytes(SECRET)
    node = above / "node"
    node.mkdir()
    for parts, target in layout:
        place = node.joinpath(*parts)
        try:
            Path(os.path.realpath(place.parent)).relative_to(node)
            place.parent.mkdir(parents=True, exist_ok=True)
            if target is None:
                place.write_bytes(b"inside\n")
            else:
                place.symlink_to(target.format(above=above) or ".")
        except (OSError, ValueError):
            continue
    before = snapshot(above)
    host = Host(node)
    for path in paths:
        for act in (host.read_bytes, host.names, host.stat, host.read_link, host.exists):
            try:
                got = act(path)
            except HostFileError:
                continue
            assert got != SECRET
        try:
            host.write(path, b"written\n")
            assert host.read_bytes(path) == b"written\n"
            host.remove(path)
        except HostFileError:
            pass
    assert snapshot(above) == before


def snapshot(above: Path) -> dict[str, bytes]:
    """Everything beside the node's tree."""
    return {
        str(entry): entry.read_bytes() if entry.is_file() else b""
        for entry in above.rglob("*")
        if PurePosixPath(entry).relative_to(above).parts[0] != "node"
    }


# -- reading -----------------------------------------------------------------------------------------------------------


def test_missing_and_unreadable_are_not_the_same(host: Host, root: Path) -> None:
    """ "Cannot tell" must not look like "not there"."""
    with pytest.raises(HostFileMissing):
        host.read_bytes("/etc/none")
    with pytest.raises(HostFileMissing):
        host.read_bytes("/etc/hostname/below-a-file")
    with pytest.raises(HostFileError, match="not a regular file") as caught:
        host.read_bytes("/etc")
    assert not isinstance(caught.value, HostFileMissing)
    assert host.exists("/etc/none") is False
    assert host.exists("/etc/hostname") is True


def test_a_fifo_or_socket_does_not_hold_the_reader_up(host: Host, root: Path) -> None:
    """Opening a FIFO without a writer blocks for ever unless it is asked not to."""
    os.mkfifo(root / "etc" / "fifo")
    with pytest.raises(HostFileError, match="not a regular file"):
        host.read_bytes("/etc/fifo")
    assert host.stat("/etc/fifo").kind == "other"


def test_reading_is_bounded(host: Host, root: Path) -> None:
    """A file of the limit is read, one more byte is an error and not half a file."""
    (root / "big").write_bytes(b"x" * 100)
    assert host.read_bytes("/big", limit_bytes=100) == b"x" * 100
    with pytest.raises(HostFileError, match="larger than 99 bytes"):
        host.read_bytes("/big", limit_bytes=99)


def test_text_with_stray_bytes_is_still_text(host: Host, root: Path) -> None:
    """One Latin-1 comment must not hide a whole file."""
    (root / "latin").write_bytes(b"# \xfc\nblacklist dccp\n")
    assert host.read_text("/latin") == "# \ufffd\nblacklist dccp\n"


def test_stat_tells_mode_owner_and_kind(host: Host, root: Path) -> None:
    """Permission bits without the type, and what kind of thing it is."""
    file = root / "etc" / "hostname"
    file.chmod(0o640)
    seen = host.stat("/etc/hostname")
    assert (seen.mode, seen.uid, seen.gid, seen.kind) == (0o640, 0, 0, "file")
    assert seen.inode == file.stat().st_ino
    assert host.stat("/").kind == "directory"
    assert host.stat("/etc").kind == "directory"


def test_a_plain_users_own_tree_has_its_owner_for_root(root: Path) -> None:
    """A sandbox's files cannot belong to root. Root is never replaced, and no user stands for it in another's tree."""
    found = root.stat()
    uid = found.st_uid or 1000
    if os.geteuid() == 0:
        os.chown(root, uid, 1000)
        found = root.stat()
    assert owner_of_tree(str(root), uid) == Owner(uid, found.st_gid)
    assert owner_of_tree(str(root), uid + 1) == Owner(0, 0)
    assert owner_of_tree(str(root), 0) == Owner(0, 0)
    assert owner_of_tree("/", uid) == Owner(0, 0)


def test_files_of_others_are_not_roots_in_any_tree(root: Path) -> None:
    """Only the tree's owner stands for root."""
    mine = (root / "etc").stat()
    other = Host(root, owner=Owner(mine.st_uid + 1, mine.st_gid + 1)).stat("/etc")
    assert (other.uid, other.gid) == (mine.st_uid, mine.st_gid)
    own = Host(root, owner=Owner(mine.st_uid, mine.st_gid)).stat("/etc")
    assert (own.uid, own.gid) == (0, 0)


def test_names_are_sorted_and_hide_unfinished_writes(host: Host, root: Path) -> None:
    """A temporary file of the agent is no profile."""
    for name in ("b.conf", "a.conf", ".hidden", ".node-hardening-a.conf.0123abcd"):
        (root / "etc" / name).write_text("")
    assert host.names("/etc") == (".hidden", "a.conf", "b.conf", "hostname")


def test_read_link_gives_the_target_as_written(host: Host, root: Path) -> None:
    """And an error where there is no symlink."""
    (root / "link").symlink_to("/etc/hostname")
    assert host.read_link("/link") == "/etc/hostname"
    with pytest.raises(HostFileError):
        host.read_link("/etc/hostname")
    with pytest.raises(HostFileMissing):
        host.read_link("/none")


def test_a_root_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    """--host-root with a typo must not become an empty node."""
    (tmp_path / "file").write_text("")
    for wrong in (tmp_path / "none", tmp_path / "file"):
        with pytest.raises(HostError, match="not a folder"):
            Host(wrong)


def test_a_root_may_be_a_symlink_itself(root: Path, tmp_path: Path) -> None:
    """/proc/PID/root is one."""
    (tmp_path / "link").symlink_to(root)
    assert Host(tmp_path / "link").read_text("/etc/hostname") == "node\n"


def test_the_real_path_is_below_the_root(host: Host, root: Path) -> None:
    """For arguments of commands; on the machine itself it is the path."""
    assert host.real_path("/etc/hostname") == f"{root}/etc/hostname"
    assert Host("/").real_path("/etc/hostname") == "/etc/hostname"


# -- writing -----------------------------------------------------------------------------------------------------------


def test_a_new_file_has_its_folders_and_mode(host: Host, root: Path) -> None:
    """0644 unless asked otherwise, whatever the umask; parents are made."""
    before = os.umask(0o077)
    try:
        assert host.write("/var/lib/new/file", "content\n") is True
        assert host.write("/etc/private", b"x", mode=0o600) is True
    finally:
        os.umask(before)
    assert (root / "var/lib/new/file").read_text() == "content\n"
    assert host.stat("/var/lib/new/file").mode == 0o644
    assert host.stat("/etc/private").mode == 0o600


def test_mode_and_owner_of_a_replaced_file_are_kept(host: Host, root: Path) -> None:
    """The agent changes content; who may read it is somebody else's decision."""
    file = root / "etc" / "hostname"
    if os.geteuid() == 0:
        os.chown(file, 1234, 4321)
    file.chmod(0o4751)
    owner = (file.stat().st_uid, file.stat().st_gid)
    assert host.write("/etc/hostname", "other\n") is True
    after = file.stat()
    assert (after.st_uid, after.st_gid) == owner
    assert stat.S_IMODE(after.st_mode) == 0o4751
    assert file.read_text() == "other\n"


def test_equal_content_is_not_written(host: Host, root: Path) -> None:
    """The same inode and time of change: the second apply changes nothing."""
    host.write("/etc/file", "same", mode=0o640)
    before = (root / "etc" / "file").stat()
    assert host.write("/etc/file", "same", mode=0o640) is False
    assert host.write("/etc/file", "same") is False
    after = (root / "etc" / "file").stat()
    assert (after.st_ino, after.st_mtime_ns, after.st_ctime_ns) == (
        before.st_ino,
        before.st_mtime_ns,
        before.st_ctime_ns,
    )


@pytest.mark.parametrize("content", ["", "sam", "same+", "SAME"])
def test_other_content_or_mode_is_written(host: Host, content: str) -> None:
    """Shorter, longer, other letters; and a mode alone."""
    host.write("/etc/file", "same")
    assert host.write("/etc/file", content) is True
    assert host.read_text("/etc/file") == content
    assert host.write("/etc/file", content, mode=0o600) is True
    assert host.stat("/etc/file").mode == 0o600


def test_empty_files_are_written_and_compared(host: Host) -> None:
    """Zero bytes are content too."""
    assert host.write("/etc/empty", b"") is True
    assert host.write("/etc/empty", b"") is False
    host.write("/etc/empty", b"full")
    assert host.write("/etc/empty", b"") is True


def test_a_symlink_is_replaced_and_not_written_through(host: Host, root: Path) -> None:
    """Also when what it leads to has the same content already: the next pass would find a symlink again."""
    (root / "etc" / "link").symlink_to("hostname")
    assert host.write("/etc/link", "node\n") is True
    assert not (root / "etc" / "link").is_symlink()
    assert (root / "etc" / "hostname").read_text() == "node\n"


def test_a_dangling_symlink_is_replaced_too(host: Host, root: Path) -> None:
    """Nothing appears where it points."""
    (root / "etc" / "link").symlink_to("elsewhere")
    host.write("/etc/link", "x")
    assert not (root / "etc" / "elsewhere").exists()


def test_a_folder_in_the_files_place_is_an_error(host: Host, root: Path) -> None:
    """Nothing is removed to make room."""
    with pytest.raises(HostFileError, match="a folder is in its place"):
        host.write("/etc", "x")
    with pytest.raises(HostFileError, match="a folder is in its place"):
        host.write("/", "x")
    assert (root / "etc" / "hostname").exists()


def test_a_file_in_the_folders_place_is_an_error(host: Host) -> None:
    """And it keeps its content."""
    with pytest.raises(HostFileError, match="/etc/hostname is not a folder"):
        host.write("/etc/hostname/file", "x")
    assert host.read_text("/etc/hostname") == "node\n"


def test_a_fifo_in_the_files_place_is_replaced(host: Host, root: Path) -> None:
    """Without waiting for somebody to read it."""
    os.mkfifo(root / "etc" / "fifo")
    assert host.write("/etc/fifo", "x") is True
    assert (root / "etc" / "fifo").is_file()


def test_what_a_killed_write_left_behind_is_swept(host: Host, root: Path) -> None:
    """Only its own: another file's temporary may be in use, and other names are other people's."""
    leftover = root / "etc" / ".node-hardening-a.0123abcd"
    others = [
        root / "etc" / ".node-hardening-a.conf.0123abcd",
        root / "etc" / ".node-hardening-a.nothexxx",
        root / "etc" / "a.0123abcd",
    ]
    for path in (leftover, *others):
        path.write_text("")
    host.write("/etc/a", "x")
    assert not leftover.exists()
    assert [path.exists() for path in others] == [True, True, True]


def test_when_a_file_was_changed_cannot_be_set_back(host: Host, root: Path) -> None:
    """A copy with its old time, a rename and a symlink to an older file are changes too."""
    file = root / "etc/hostname"
    os.utime(file, (1, 1))
    found = host.stat("/etc/hostname")
    assert (found.mtime_ns, found.changed_ns) == (1_000_000_000, file.stat().st_ctime_ns)
    os.utime(file, (4e9, 4e9))
    assert host.stat("/etc/hostname").changed_ns == 4_000_000_000_000_000_000
    (root / "older").symlink_to("/etc")
    with pytest.MonkeyPatch.context() as patch:  # a link that is younger than all that it leads to
        link = (root / "older").lstat().st_ctime_ns + 60
        real = os.stat
        patch.setattr(os, "stat", lambda path, **how: _at(real(path, **how), link if path == "older" else 5))
        assert host.stat("/older").changed_ns == link


def _at(found: os.stat_result, ctime_ns: int) -> SimpleNamespace:
    """The same with other times."""
    names = ("st_mode", "st_uid", "st_gid", "st_ino")
    return SimpleNamespace(**{name: getattr(found, name) for name in names}, st_mtime_ns=5, st_ctime_ns=ctime_ns)


def test_a_failed_write_leaves_nothing_behind(host: Host, root: Path) -> None:
    """No temporary file, the old content in place."""
    name = "x" * 250  # the name fits, the temporary one does not
    (root / "etc" / name).write_text("old")
    with pytest.raises(HostFileError):
        host.write(f"/etc/{name}", "new")
    assert sorted(entry.name for entry in (root / "etc").iterdir()) == ["hostname", name]
    assert (root / "etc" / name).read_text() == "old"


def test_removing(host: Host, root: Path) -> None:
    """A file or the symlink itself; False when it was gone; never a folder."""
    (root / "link").symlink_to("etc/hostname")
    assert host.remove("/link") is True
    assert host.remove("/link") is False
    assert host.remove("/none/at/all") is False
    assert host.remove("/etc/hostname") is True
    with pytest.raises(HostFileError):
        host.remove("/etc")
    assert (root / "etc").is_dir()


@given(before=st.binary(max_size=200), after=st.binary(max_size=200))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_content_is_written_exactly(host: Host, before: bytes, after: bytes) -> None:
    """And `changed` is told exactly."""
    host.write("/etc/file", before)
    assert host.write("/etc/file", after) is (before != after)
    assert host.read_bytes("/etc/file") == after
