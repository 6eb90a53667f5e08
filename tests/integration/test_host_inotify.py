"""FolderWatch on real inotify."""

from __future__ import annotations

import os
import resource
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from agent.host import FolderWatch, Host

_LONG = 20.0  # a bound for a missed event, not a timing
_SHORT = 0.4


@pytest.fixture
def watch() -> Iterator[FolderWatch]:
    made = FolderWatch({})
    yield made
    made.close()


def test_an_atomic_replace_is_seen(watch: FolderWatch, tmp_path: Path) -> None:
    """A file replaced by rename wakes whoever watches the file."""
    file = tmp_path / "config.yaml"
    file.write_text("a")
    watch.watch({"config": [str(file)]})
    (tmp_path / "new").write_text("b")
    (tmp_path / "new").rename(file)
    assert watch.wait(_LONG) == {"config"}


def test_a_config_map_swap_is_seen(watch: FolderWatch, tmp_path: Path) -> None:
    """The kubelet updates a ConfigMap's mount by swapping the ..data symlink; the file's own entry never changes."""
    for version in ("1", "2"):
        (tmp_path / f"..{version}").mkdir()
        (tmp_path / f"..{version}" / "config.yaml").write_text(version)
    (tmp_path / "..data").symlink_to("..1")
    (tmp_path / "config.yaml").symlink_to("..data/config.yaml")
    watch.watch({"config": [str(tmp_path / "config.yaml")]})
    (tmp_path / "..data_tmp").symlink_to("..2")
    (tmp_path / "..data_tmp").rename(tmp_path / "..data")
    assert watch.wait(_LONG) == {"config"}
    assert (tmp_path / "config.yaml").read_text() == "2"


def test_other_names_in_the_folder_do_not_wake(watch: FolderWatch, tmp_path: Path) -> None:
    """Whoever watches one file is not woken by its neighbours."""
    watch.watch({"sentinel": [str(tmp_path / "reboot-required")]})
    (tmp_path / "motd").write_text("x")
    assert watch.wait(_SHORT) == frozenset()
    (tmp_path / "reboot-required").write_text("x")
    assert watch.wait(_LONG) == {"sentinel"}


def test_a_folder_that_comes_later_is_watched(watch: FolderWatch, tmp_path: Path) -> None:
    """A missing folder is waited for at its nearest parent and watched once it is there, subfolders too."""
    folder = tmp_path / "a" / "profiles"
    watch.watch({"profiles": [str(folder)]})
    folder.mkdir(parents=True)
    assert watch.wait(_LONG) == {"profiles"}
    (folder / "team").mkdir()
    assert watch.wait(_LONG) == {"profiles"}
    (folder / "team" / "x.json").write_text("{}")
    assert watch.wait(_LONG) == {"profiles"}


def test_a_folder_replaced_by_another_is_still_watched(watch: FolderWatch, tmp_path: Path) -> None:
    """A folder moved away and made anew is the folder that is watched."""
    folder = tmp_path / "profiles"
    folder.mkdir()
    watch.watch({"profiles": [str(folder)]})
    folder.rename(tmp_path / "old")
    assert watch.wait(_LONG) == {"profiles"}
    folder.mkdir()
    assert watch.wait(_LONG) == {"profiles"}
    (folder / "new").write_text("x")
    assert watch.wait(_LONG) == {"profiles"}


def test_writes_of_our_own_temporary_files_do_not_wake(watch: FolderWatch, tmp_path: Path) -> None:
    """An unfinished write of the agent is nobody's drift."""
    watch.watch({"drift": [str(tmp_path)]})
    (tmp_path / ".node-hardening-x.conf.ab12").write_text("x")
    assert watch.wait(_SHORT) == frozenset()


def test_a_file_of_securityfs_is_polled(tmp_path: Path) -> None:
    """A FIFO stands for AppArmor's `revision`: readable when it says something new, silent once that is read."""
    revision = tmp_path / "sys/kernel/security/apparmor/revision"
    revision.parent.mkdir(parents=True)
    os.mkfifo(revision)
    kernel = os.open(revision, os.O_RDWR)
    watch = FolderWatch({"node": [str(revision), str(tmp_path / "missing/sys/kernel/security/apparmor/revision")]})
    try:
        os.write(kernel, b"7\n")
        assert watch.wait(20) == {"node"}
        assert watch.wait(0) == frozenset()
        os.write(kernel, b"8\n")
        assert watch.wait(20) == {"node"}
        os.close(kernel)
        assert watch.wait(0) == frozenset()
        assert watch.wait(0.01) == frozenset()
    finally:
        watch.close()


def test_wake_ends_a_wait_from_another_thread(watch: FolderWatch) -> None:
    """A signal or another thread ends the wait at once."""
    timer = threading.Timer(0.1, watch.wake)
    timer.start()
    assert watch.wait(_LONG) == frozenset()
    timer.join()


def test_locate_resolves_inside_the_root(tmp_path: Path) -> None:
    """/var/run is a symlink to /run on Debian: below a host root that is the root's own /run."""
    (tmp_path / "run").mkdir()
    (tmp_path / "var").mkdir()
    (tmp_path / "var" / "run").symlink_to("/run")
    host = Host(tmp_path)
    assert host.locate("/var/run/reboot-required") == os.fspath(tmp_path / "run" / "reboot-required")
    assert host.locate("/var/lib/missing/deep") == os.fspath(tmp_path / "var" / "lib" / "missing" / "deep")


@pytest.fixture
def exhausted() -> Iterator[Callable[[], None]]:
    """No third descriptor to be had: inotify_init1 fails with EMFILE, as where fs.inotify.max_user_instances is used
    up (all of which a test must not take from the machine). Called: there are descriptors again."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = [os.dup(0) for _ in range(3)]
    for fd in free:
        os.close(fd)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free[2], hard))
    yield lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_without_an_instance_left_it_reports_that_and_recovers(exhausted: Callable[[], None], tmp_path: Path) -> None:
    """No exception: the caller's interval goes on, `wake` works, and the next watch tries again."""
    watch = FolderWatch({"node": [str(tmp_path)]})
    assert "max_user_instances" in watch.problem
    assert watch.wait(0.01) == frozenset()
    watch.wake()
    assert watch.wait(_LONG) == frozenset()
    exhausted()
    watch.watch({"node": [str(tmp_path)]})
    assert watch.problem == ""
    (tmp_path / "new").write_text("")
    assert watch.wait(_LONG) == {"node"}
    watch.close()


def test_after_close_neither_a_wake_nor_another_close_touches_a_file_that_has_its_numbers(tmp_path: Path) -> None:
    """Threads end on their own at a stop, and are woken all the same."""
    watch = FolderWatch({"node": [str(tmp_path)]})
    before = len(list(Path("/proc/self/fd").iterdir()))
    watch.close()
    others = [os.open(tmp_path / f"{number}", os.O_RDWR | os.O_CREAT) for number in range(3)]
    assert len(list(Path("/proc/self/fd").iterdir())) == before  # they have the numbers that the watch had
    watch.wake()
    watch.close()
    assert [os.fstat(fd).st_size for fd in others] == [0, 0, 0]
    for fd in others:
        os.close(fd)


def test_descriptors_past_select_s_limit_are_waited_for(tmp_path: Path) -> None:
    """A process with more than 1024 open files is no reason to miss a change."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 2048:
        pytest.skip("the limit of open files cannot be raised")
    resource.setrlimit(resource.RLIMIT_NOFILE, (2048, hard))
    held: list[int] = []
    try:
        while not held or held[-1] < 1024:
            held.append(os.open(os.devnull, os.O_RDONLY))
        watch = FolderWatch({"config": [str(tmp_path / "config.yaml")]})
        try:
            (tmp_path / "config.yaml").write_text("a")
            assert watch.wait(_LONG) == {"config"}
        finally:
            watch.close()
    finally:
        for fd in held:
            os.close(fd)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
