"""The file sentinel on real files below a host root, and what a command's exit code means."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from agent.config.choices import Required
from agent.config.schema import Sentinel
from agent.host import Completed, Host
from agent.reboot.blockers.settle import SettleBlocker
from agent.reboot.interfaces import BlockerResult, SentinelReading
from agent.reboot.sentinel import CommandSentinel, FileSentinel, judge, make_sentinel
from tests.support.rooms import Clocks, node_tree

REQUIRED = "/var/run/reboot-required"


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return node_tree(tmp_path / "node")


def put(host: Host, name: str, text: str) -> Path:
    path = Path(host.root) / "run" / name
    path.write_text(text)
    return path


def test_the_file_asks_for_a_reboot_and_names_the_packages(host: Host) -> None:
    """Debian's pair of files, read through the symlink /var/run below the host root; a package is named once."""
    put(host, "reboot-required", "*** System restart required ***\n")
    put(host, "reboot-required.pkgs", "linux-image-6.1.0-25-amd64\nlibc6\nlibc6\n")
    reading = FileSentinel(REQUIRED, host).read()
    assert (reading.required, reading.reason) == (True, "linux-image-6.1.0-25-amd64, libc6")
    assert reading.stamp


def test_without_packages_the_file_is_the_reason(host: Host) -> None:
    """SUSE's /run/reboot-needed is empty and alone."""
    put(host, "reboot-needed", "")
    reading = FileSentinel("/run/reboot-needed", host).read()
    assert (reading.required, reading.reason) == (True, "/run/reboot-needed exists")


def test_no_file_is_no_wish(host: Host) -> None:
    """The folder is there, the file is not."""
    assert FileSentinel(REQUIRED, host).read() == SentinelReading(False)


def test_a_missing_folder_is_unknown(tmp_path: Path) -> None:
    """A host mount that is missing must not read as "nothing to do"."""
    reading = FileSentinel(REQUIRED, Host(tmp_path)).read()
    assert reading.required is None
    assert reading.problem == "the folder /var/run does not exist: is the node's root mounted?"


@pytest.mark.parametrize("shape", ["folder", "dangling", "loop", "outside", "file as folder"])
def test_what_is_no_plain_file_is_unknown(host: Host, shape: str) -> None:
    """Neither a wish nor its absence; and nothing outside the host root is looked at."""
    path = REQUIRED
    at = Path(host.root) / "run/reboot-required"
    match shape:
        case "folder":
            at.mkdir()
        case "dangling":
            at.symlink_to("/run/nothing")
        case "loop":
            at.symlink_to("reboot-required")
        case "outside":
            at.symlink_to("../../../../../../../../etc/passwd")
        case _:
            put(host, "here", "")
            path = "/run/here/reboot-required"
    reading = FileSentinel(path, host).read()
    assert reading.required is None
    assert reading.problem


def test_an_unreadable_list_of_packages_takes_nothing_from_the_wish(host: Host) -> None:
    """The file decides; the list is for people."""
    put(host, "reboot-required", "")
    (Path(host.root) / "run/reboot-required.pkgs").mkdir()
    reading = FileSentinel(REQUIRED, host).read()
    assert reading.required is True
    assert reading.reason.startswith("packages unknown: cannot read /var/run/reboot-required.pkgs")


def test_many_packages_are_counted(host: Host) -> None:
    """The reason ends in an annotation that people read."""
    put(host, "reboot-required", "")
    put(host, "reboot-required.pkgs", "".join(f"package-{number}\n" for number in range(300)))
    assert FileSentinel(REQUIRED, host).read().reason.endswith("package-7 and 292 more")


def test_the_stamp_changes_with_every_new_request_and_only_then(host: Host) -> None:
    """The loop guard hangs on it: equal while nothing happens, another when the file is written or replaced."""
    sentinel = FileSentinel(REQUIRED, host)
    path = put(host, "reboot-required", "one")
    first = sentinel.read().stamp
    assert sentinel.read().stamp == first
    put(host, "reboot-required.pkgs", "late\n")
    assert sentinel.read().stamp == first
    os.utime(path, ns=(1, 1))
    touched = sentinel.read().stamp
    path.rename(path.with_name("old"))
    os.utime(put(host, "reboot-required", "one"), ns=(1, 1))
    replaced = sentinel.read().stamp
    path.write_text("two")
    os.utime(path, ns=(1, 1))
    assert len({first, touched, replaced, sentinel.read().stamp}) == 4


def test_the_sentinel_says_what_to_watch(host: Host) -> None:
    """A file is watched and never polled, a command is polled and has nothing to watch."""
    file = make_sentinel(Sentinel(), host, Clocks())
    assert (file.watched(), file.poll_seconds()) == ((REQUIRED, f"{REQUIRED}.pkgs"), None)
    command = make_sentinel(Sentinel(command=("/bin/true",), interval=90.0), host, Clocks())
    assert isinstance(command, CommandSentinel)
    assert (command.watched(), command.poll_seconds()) == ((), 90.0)


NEEDS_RESTARTING = """\
Core libraries or services have been updated since boot-up:
  * kernel
  * systemd

Reboot is required to fully utilize these updates.
"""


def ended(code: int, stdout: str = "", stderr: str = "") -> Completed:
    return Completed(("/usr/bin/needs-restarting", "-r"), code, stdout, stderr)


RHEL = Sentinel(command=("/usr/bin/needs-restarting", "-r"), exit_codes={1: Required.REQUIRED, 0: Required.NONE})


def test_bullet_points_of_an_output_are_the_reason() -> None:
    """`needs-restarting -r` names packages so."""
    reading = judge(ended(1, NEEDS_RESTARTING), RHEL)
    assert (reading.required, reading.reason) == (True, "kernel, systemd")


def test_else_the_last_line_is_the_reason() -> None:
    """A command of one's own says it in a sentence."""
    assert judge(ended(1, "checking\nkernel 6.1.0-25 waits\n"), RHEL).reason == "kernel 6.1.0-25 waits"
    assert judge(ended(1), RHEL).reason == "reported by /usr/bin/needs-restarting"


def test_a_good_answer_is_no_wish() -> None:
    """The map's other half."""
    assert judge(ended(0, "No core libraries or services have been updated."), RHEL) == SentinelReading(False)


@example(codes={126: Required.NONE}, code=126, output="")
@example(codes={127: Required.NONE}, code=127, output="")
@given(st.dictionaries(st.integers(0, 255), st.sampled_from(Required)), st.integers(-64, 255), st.text(max_size=50))
def test_only_a_code_in_the_map_has_a_meaning(codes: dict[int, Required], code: int, output: str) -> None:
    """Every other one is unknown and says why; "not installed" and signals always are, whatever the map says."""
    reading = judge(ended(code, output, output), Sentinel(command=("/bin/x",), exit_codes=codes))
    if code in codes and code not in (126, 127):
        assert reading.required is (codes[code] is Required.REQUIRED)
        assert reading.problem == ""
        assert bool(reading.stamp) is reading.required
    else:
        assert reading.required is None
        assert reading.problem
        assert reading.stamp == ""


def test_a_tool_that_is_not_installed_says_so() -> None:
    """127 is what a shell answers then; it must never look like "no reboot required"."""
    reading = judge(ended(127, stderr="sh: needs-restarting: not found\n"), RHEL)
    assert reading.required is None
    assert reading.problem == (
        "/usr/bin/needs-restarting was not found: is it installed? (sh: needs-restarting: not found)"
    )


def test_another_output_is_another_request() -> None:
    """Standard output alone counts: warnings on the other stream come and go."""
    first = judge(ended(1, "* kernel\n"), RHEL).stamp
    assert judge(ended(1, "* kernel\n", "warning: cache is old"), RHEL).stamp == first
    assert judge(ended(1, "* kernel\n* glibc\n"), RHEL).stamp != first


# -- settling ----------------------------------------------------------------------------------------------------------


@dataclass
class Changing:
    """A sentinel in hand."""

    reading: SentinelReading = field(default_factory=lambda: SentinelReading(required=False))

    def read(self) -> SentinelReading:
        return self.reading


def test_a_sentinel_that_still_changes_holds_the_reboot_back() -> None:
    """Each package of a run touches it again; the time counts from the last change that was read."""
    clock, sentinel = Clocks(), Changing()
    blocker = SettleBlocker(sentinel, 30.0, clock)
    assert blocker.check() == BlockerResult(blocked=False)
    for stamp in ("a", "b"):
        sentinel.reading = SentinelReading(True, "linux-image", stamp)
        assert blocker.check().again_seconds == 30.0
        clock.sleep(29)
        assert blocker.check().again_seconds == 1.0
    clock.epoch += 86400  # nothing but the monotonic clock counts
    assert blocker.check().blocked is True
    clock.sleep(1)
    assert blocker.check() == BlockerResult(blocked=False)
    sentinel.reading = SentinelReading(True, "linux-image, libc6", "c")
    assert blocker.check().blocked is True
    assert (blocker.name, blocker.late) == ("settle", True)


@pytest.mark.parametrize("required", [False, None])
def test_without_a_sentinel_there_is_nothing_to_settle(required: bool | None) -> None:
    """A reboot that is requested by annotation waits for no file; an unknown sentinel is the machine's to judge."""
    sentinel = Changing(SentinelReading(required))
    assert SettleBlocker(sentinel, 30.0, Clocks()).check() == BlockerResult(blocked=False)
