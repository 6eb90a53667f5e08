"""Commands on the node: argv only, always ended, always reaped, whatever the child does."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from agent.errors import CommandError, CommandFailed, CommandMissing, CommandTimeout, HostError
from agent.host import Completed, Host, HostExec

SH = "/bin/sh"
LONG = 60.0  # a bound for a hanging test, not a timing


@pytest.fixture
def host() -> Host:
    """This machine."""
    return Host("/")


@pytest.fixture
def python(host: Host) -> Callable[..., Completed]:
    """Runs a line of Python as a command."""

    def run(code: str, *, timeout_seconds: float = LONG, **options: object) -> Completed:
        return host.run([sys.executable, "-c", code], timeout_seconds=timeout_seconds, **options)  # type: ignore[arg-type]

    return run


def gone(pid: int) -> bool:
    """Whether the process has ended; waits for it where it is about to."""
    try:
        psutil.Process(pid).wait(LONG)
    except psutil.NoSuchProcess:
        return True
    return not psutil.pid_exists(pid)


def test_output_and_exit_code_are_told_apart(host: Host) -> None:
    """A code other than zero is an answer; whether it is good is the caller's to say."""
    done = host.run([SH, "-c", "echo out; echo err >&2; exit 3"], timeout_seconds=LONG)
    assert (done.code, done.stdout, done.stderr, done.cut) == (3, "out\n", "err\n", False)
    assert done.check(0, 3) is done
    with pytest.raises(CommandFailed, match="sh: exit code 3: err") as caught:
        done.check()
    assert caught.value.code == 3


def test_the_last_words_of_a_tool_are_its_reason(host: Host) -> None:
    """Unix tools explain on the last line, of standard output when standard error is empty."""
    done = host.run([SH, "-c", "echo first; echo the reason; echo; exit 1"], timeout_seconds=LONG)
    with pytest.raises(CommandFailed, match=r"exit code 1: the reason$"):
        done.check()


def test_a_signal_is_a_negative_code(host: Host) -> None:
    """And is named as a signal."""
    done = host.run([SH, "-c", "kill -9 $$"], timeout_seconds=LONG)
    assert done.code == -signal.SIGKILL
    with pytest.raises(CommandFailed, match="was ended by signal 9"):
        done.check()


@pytest.mark.parametrize("argv", [[], ["true"], ["./true"], [""]])
def test_a_program_needs_an_absolute_path(host: Host, argv: list[str]) -> None:
    """PATH on a node is anybody's."""
    with pytest.raises(HostError, match="absolute path"):
        host.run(argv, timeout_seconds=LONG)


@pytest.mark.parametrize("argv", [["/bin/echo", "a\0b"], ["/bin/\0"], ["/bin/echo", "\ud800"]])
def test_words_that_no_command_can_have_are_an_error_of_ours(host: Host, argv: list[str]) -> None:
    """Not a ValueError out of the interpreter's depths."""
    with pytest.raises(HostError, match="is no command"):
        host.run(argv, timeout_seconds=LONG)


def test_a_missing_program_is_told_from_one_that_cannot_start(host: Host, tmp_path: Path) -> None:
    """Both are CommandMissing, with another reason."""
    with pytest.raises(CommandMissing, match="/nowhere/tool is not there"):
        host.run(["/nowhere/tool"], timeout_seconds=LONG)
    plain = tmp_path / "plain"
    plain.write_text("no program")
    with pytest.raises(CommandMissing, match="cannot be started: Permission denied"):
        host.run([str(plain)], timeout_seconds=LONG)
    plain.chmod(0o755)
    with pytest.raises(CommandMissing, match="cannot be started: Exec format error"):
        host.run([str(plain)], timeout_seconds=LONG)


def test_nothing_is_inherited(python: Callable[..., Completed], monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the environment (tokens live there), not the working folder, not open files, not standard input."""
    monkeypatch.setenv("SECRET_TOKEN", "x")
    kept = os.open("/dev/null", os.O_RDONLY)
    os.set_inheritable(kept, True)
    try:
        seen = f"sorted(os.environ), os.getcwd(), os.path.exists('/proc/self/fd/{kept}'), sys.stdin.read() == ''"
        done = python(f"import os, sys; print({seen})", environment={"EXTRA": "1"})
    finally:
        os.close(kept)
    assert done.check().stdout == "['EXTRA', 'LANG', 'LC_ALL', 'PATH'] / False True\n"


def test_input_is_fed_whatever_its_size(python: Callable[..., Completed]) -> None:
    """Past what a pipe holds, while the child writes as much back."""
    data = os.urandom(1 << 20).hex().encode()
    done = python("import sys; sys.stdout.write(sys.stdin.read())", input_bytes=data)
    assert done.check().stdout.encode() == data
    assert python("import sys; print(len(sys.stdin.read()))", input_bytes=b"").check().stdout == "0\n"


def test_a_child_that_does_not_listen_is_no_error(host: Host) -> None:
    """It closed its input or ended; its exit code says what it thinks."""
    for script in ("exec <&-; exit 0", "exit 0"):
        assert host.run([SH, "-c", script], timeout_seconds=LONG, input_bytes=b"x" * (1 << 20)).code == 0


def test_much_output_on_both_streams_neither_blocks_nor_fills_memory(python: Callable[..., Completed]) -> None:
    """Past the limit it is read and dropped, and the answer says that it was cut."""
    code = "import sys\nfor _ in range(64):\n    sys.stdout.write('o' * 65536); sys.stderr.write('e' * 65536)"
    done = python(code, limit_bytes=1000)
    assert (done.code, done.stdout, done.stderr, done.cut) == (0, "o" * 1000, "e" * 1000, True)
    whole = python(code)
    assert (len(whole.stdout), len(whole.stderr), whole.cut) == (64 * 65536, 64 * 65536, False)


def test_output_that_is_not_text_is_still_output(python: Callable[..., Completed]) -> None:
    """Bytes that are not UTF-8 are replaced."""
    assert python("import sys; sys.stdout.buffer.write(b'a\\xffb')").stdout == "a\ufffdb"


def test_a_timeout_kills_the_child_and_all_that_it_started(host: Host, tmp_path: Path) -> None:
    """Grandchildren that hold the pipes open too, and those that ignore SIGTERM."""
    pids = tmp_path / "pids"
    script = f"trap '' TERM; sleep 1000 & echo $! >>{pids}; echo $$ >>{pids}; sleep 1000"
    with pytest.raises(CommandTimeout, match=r"sh: killed after 0\.5 s"):
        host.run([SH, "-c", script], timeout_seconds=0.5)
    found = [int(line) for line in pids.read_text().split()]
    assert len(found) == 2
    assert all(gone(pid) for pid in found)


def test_a_child_that_closed_its_output_is_waited_for_until_the_timeout(python: Callable[..., Completed]) -> None:
    """Silence is not the end."""
    code = "import os, time; os.close(1); os.close(2); time.sleep({}); os._exit(7)"
    assert python(code.format(0.2)).code == 7
    with pytest.raises(CommandTimeout):
        python(code.format(1000), timeout_seconds=0.5)


def test_grandchildren_left_behind_end_with_the_command(host: Host, tmp_path: Path) -> None:
    """A command is over when it says so: nothing of it goes on unseen."""
    pids = tmp_path / "pids"
    script = f"sleep 1000 >/dev/null 2>&1 </dev/null & echo $! >{pids}"
    assert host.run([SH, "-c", script], timeout_seconds=LONG).code == 0
    assert gone(int(pids.read_text()))


# In a process of its own: other threads of these tests open files and start programs meanwhile.
_LEFT_BEHIND = """
import psutil
from agent.errors import CommandTimeout
from agent.host import Host
me, host = psutil.Process(), Host("/")
before = me.num_fds()
for _ in range(20):
    host.run(["/bin/sh", "-c", "exit 0"], timeout_seconds=600)
try:
    host.run(["/bin/sleep", "1000"], timeout_seconds=0.2)
except CommandTimeout:
    print(me.num_fds() - before, len(me.children()))
"""


def test_no_zombies_and_no_open_pipes_stay() -> None:
    """A daemon runs commands for months."""
    done = subprocess.run([sys.executable, "-c", _LEFT_BEHIND], check=True, capture_output=True, timeout=LONG)
    assert done.stdout.split() == [b"0", b"0"]


def test_commands_from_several_threads_do_not_mix(host: Host) -> None:
    """Each has its own pipes and its own answer."""
    answers: dict[int, str] = {}

    def ask(number: int) -> None:
        answers[number] = host.run([SH, "-c", f"echo {number}"], timeout_seconds=LONG).stdout

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert answers == {number: f"{number}\n" for number in range(8)}


def test_tools_are_found_where_run_would_look(host: Host, tmp_path: Path) -> None:
    """As a plain child on this machine, through nsenter in the node's tree."""
    found = host.find_tool("sh")
    assert found is not None
    assert host.run([found, "-c", "exit 0"], timeout_seconds=LONG).code == 0
    assert host.find_tool("no-such-tool") is None
    (tmp_path / "usr/sbin").mkdir(parents=True)
    (tmp_path / "usr/sbin/modprobe").write_text("")
    tree = Host(tmp_path)
    assert tree.find_tool("modprobe", how=HostExec.NSENTER) == "/usr/sbin/modprobe"
    assert tree.find_tool("sh", how=HostExec.NSENTER) is None


def may_enter() -> bool:
    """Whether this process may enter the namespaces of PID 1."""
    try:
        for kind in ("mnt", "uts", "ipc", "net"):
            os.close(os.open(f"/proc/1/ns/{kind}", os.O_RDONLY))
    except OSError:
        return False
    return os.geteuid() == 0 and Path("/usr/bin/nsenter").exists()


def test_nsenter_runs_in_the_namespaces_of_pid_1(host: Host) -> None:
    """Mount, UTS, IPC and network namespaces."""
    if not may_enter():
        pytest.skip("this machine does not let us enter the namespaces of PID 1")
    for kind in ("mnt", "uts", "ipc", "net"):
        done = host.run(["/bin/readlink", f"/proc/self/ns/{kind}"], timeout_seconds=LONG, how=HostExec.NSENTER)
        assert done.check().stdout.strip() == str(Path(f"/proc/1/ns/{kind}").readlink())


def test_what_nsenter_says_is_never_taken_for_the_commands_answer(host: Host) -> None:
    """Its exit code 1 or 127 would be an answer of the sentinel's: reboot now, or none needed."""
    program = "/nowhere/tool" if may_enter() else "/bin/true"
    with pytest.raises(CommandError):
        host.run([program], timeout_seconds=LONG, how=HostExec.NSENTER)
