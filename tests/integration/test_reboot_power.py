"""Rebooting and hooks with real processes: what counts as given, as failed, and as unknown."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from agent.config.choices import RebootMethod
from agent.config.schema import Hook, Hooks, Reboot
from agent.errors import AgentError, CommandError, CommandFailed, CommandMissing, CommandTimeout, HostError
from agent.host import Completed, Host
from agent.reboot.hooks import HostHooks
from agent.reboot.interfaces import HookProgress, HookStage
from agent.reboot.rebooters import REBOOT_SIGNAL, REBOOTERS, CommandRebooter, NodeMachine, SignalRebooter, make_rebooter
from agent.sandbox.noderoot import NodeRoot

LONG = 20.0  # a bound for what never happens, not a timing


def shell(text: str) -> tuple[str, ...]:
    return ("/bin/sh", "-c", text)


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["exit 0", "kill -TERM $$", "kill -KILL $$", "exit 143", "exit 137"])
def test_a_command_that_may_have_worked_raises_nothing(text: str) -> None:
    """A shutdown ends the very command that asked for it."""
    CommandRebooter(shell(text), Host("/")).reboot()


def test_a_command_that_ends_badly_has_failed_and_says_why() -> None:
    """kured's failure: the node is certainly not going down."""
    power = CommandRebooter(shell("echo 'Failed to talk to init daemon.' >&2; exit 1"), Host("/"))
    with pytest.raises(CommandFailed, match=r"sh: exit code 1: Failed to talk to init daemon\."):
        power.reboot()


def test_a_command_that_is_inhibited_names_who_inhibits_it() -> None:
    """systemctl's words begin with who and why, and end with advice."""
    words = """Operation inhibited by "raid-check" (PID 7), reason is "array rebuild".
        Please retry operation after closing inhibitors and logging out other users.
        Alternatively, ignore inhibitors and users with 'systemctl reboot -i'."""
    power = CommandRebooter(shell(f"cat >&2 <<'END'\n{words}\nEND\nexit 1"), Host("/"))
    with pytest.raises(
        CommandFailed, match=r'exit code 1: Operation inhibited by "raid-check" \(PID 7\), .*rebuild"\.$'
    ):
        power.reboot()


def test_a_command_that_is_not_there_has_failed() -> None:
    """Nothing was run."""
    with pytest.raises(CommandMissing, match=r"systemctl: /no/such/systemctl is not there"):
        CommandRebooter(("/no/such/systemctl", "reboot"), Host("/")).reboot()


def test_a_command_that_does_not_answer_is_unknown() -> None:
    """The coordinator then waits as after a good answer."""
    with pytest.raises(CommandTimeout):
        CommandRebooter(shell("sleep 600"), Host("/"), timeout_seconds=0.3).reboot()


@pytest.mark.parametrize(
    ("script", "stopping"),
    [("echo stopping; exit 1", True), ("echo running", False), ("echo degraded; exit 1", False)],
)
def test_whether_the_system_is_shutting_down_is_systemds_word(script: str, stopping: bool) -> None:
    """Its exit code says other things too."""
    assert NodeMachine(_with_systemctl(script)).is_shutting_down() is stopping


@pytest.mark.parametrize("script", ["kill -TERM $$", "echo unknown; exit 1", "exit 1"])
def test_a_systemctl_that_gives_no_state_is_unknown(script: str) -> None:
    """A shutdown ends it like everything else: that is not "no"."""
    with pytest.raises(HostError, match=r"is-system-running: no state"):
        NodeMachine(_with_systemctl(script)).is_shutting_down()


def test_without_systemctl_nothing_shuts_down(tmp_path: Path) -> None:
    """A node without systemd."""

    class Without(Host):
        def run(self, argv: Sequence[str], **_: Any) -> Completed:
            raise CommandMissing(argv, "not there")

    assert not NodeMachine(Without(tmp_path)).is_shutting_down()


def _with_systemctl(script: str) -> Host:
    """A node whose systemctl is this shell script."""

    class Scripted(Host):
        def run(self, argv: Sequence[str], **options: Any) -> Completed:
            assert tuple(argv) == ("/bin/systemctl", "is-system-running")
            return super().run(shell(script), **options)

    return Scripted("/")


def test_the_policy_chooses_the_way() -> None:
    """The command by default."""
    assert isinstance(make_rebooter(Reboot(), Host("/")), CommandRebooter)
    assert isinstance(make_rebooter(Reboot(method=RebootMethod.SIGNAL), Host("/")), SignalRebooter)
    assert set(REBOOTERS) == set(RebootMethod)


class Systemctl(Host):
    """A node whose systemctl prints this help; what it was asked to run is noted, and nothing is run."""

    def __init__(self, help_text: str | Completed | AgentError) -> None:
        super().__init__("/")
        self.help_text = help_text
        self.asked: list[tuple[str, ...]] = []

    def run(self, argv: Sequence[str], **_options: Any) -> Completed:
        self.asked.append(tuple(argv))
        if "--help" not in argv:
            return Completed(tuple(argv), 0, "", "")
        if isinstance(self.help_text, AgentError):
            raise self.help_text
        return self.help_text if isinstance(self.help_text, Completed) else Completed(DEFAULT, 0, self.help_text, "")


DEFAULT = ("/usr/bin/systemctl", "reboot")


@pytest.mark.parametrize(
    ("help_text", "expected"),
    [
        ("  -i --ignore-inhibitors\n     --check-inhibitors=MODE\n", (*DEFAULT, "--check-inhibitors=yes")),
        ("  -i --ignore-inhibitors\n", DEFAULT),  # before systemd 248
    ],
)
def test_the_default_command_checks_inhibitors_where_systemctl_can(help_text: str, expected: tuple[str, ...]) -> None:
    """Root's `systemctl reboot` goes over them before systemd 257."""
    host = Systemctl(help_text)
    make_rebooter(Reboot(), host).reboot()
    assert host.asked == [(DEFAULT[0], "--help"), expected]


@pytest.mark.parametrize(
    "answer",
    [CommandTimeout(DEFAULT, "no answer"), CommandMissing(DEFAULT, "is not there"),
     Completed(DEFAULT, 0, "  -i --ignore-inhibitors\n", "", cut=True), Completed(DEFAULT, 1, "", "no")],
    ids=["timeout", "missing", "cut", "failed"],
)  # fmt: skip
def test_nothing_is_rebooted_on_a_guess(answer: Completed | AgentError) -> None:
    """Whether systemctl knows the option is unknown; and the outcome is not: the node stays up."""
    host = Systemctl(answer)
    with pytest.raises(CommandError) as raised:
        make_rebooter(Reboot(), host).reboot()
    assert host.asked == [(DEFAULT[0], "--help")]
    assert not isinstance(raised.value, CommandTimeout)


def test_a_command_of_ones_own_is_run_as_it_is() -> None:
    """Who writes `systemctl reboot -i` means it."""
    host = Systemctl("--check-inhibitors")
    make_rebooter(Reboot(command=(*DEFAULT, "-i")), host).reboot()
    assert host.asked == [(*DEFAULT, "-i")]


# -- the signal --------------------------------------------------------------------------------------------------------

INIT = """
import signal, sys
open("/proc/self/comm", "w").write(sys.argv[1])
signal.pthread_sigmask(signal.SIG_BLOCK, [39])
print("ready", flush=True)
print(signal.sigwait([39]), flush=True)
"""


class Init:
    """A process that waits for the reboot signal under a name of its choice."""

    def __init__(self, name: str) -> None:
        self.child = subprocess.Popen([sys.executable, "-c", INIT, name], stdout=subprocess.PIPE, text=True)
        assert self.heard() == "ready"

    def heard(self) -> str:
        assert self.child.stdout is not None
        return self.child.stdout.readline().strip()

    def end(self) -> None:
        if self.child.returncode is None:
            self.child.kill()
            self.child.communicate()


@pytest.fixture
def systemd() -> Iterator[Init]:
    init = Init("systemd")
    yield init
    init.end()


def test_the_signal_is_the_one_that_systemd_reboots_on(systemd: Init) -> None:
    """SIGRTMIN+5 by glibc's numbers, which this Python may or may not share."""
    SignalRebooter(Host("/"), pid=systemd.child.pid).reboot()
    assert systemd.heard() == "39"
    assert REBOOT_SIGNAL == 39
    if int(signal.SIGRTMIN) == 34:  # glibc
        assert signal.SIGRTMIN + 5 == REBOOT_SIGNAL


def test_only_systemd_is_signalled() -> None:
    """Without hostPID the process 1 is our own container's, and a real-time signal would kill it."""
    init = Init("pause")
    try:
        with pytest.raises(HostError, match=r"is pause, not systemd, and is not signalled; does the pod have hostPID"):
            SignalRebooter(Host("/"), pid=init.child.pid).reboot()
    finally:
        init.end()


def test_a_sandboxed_tree_never_reboots_the_machine_under_it(tmp_path: Path, systemd: Init) -> None:
    """Its boot id is not this machine's, so this machine's init is not its own."""
    node = NodeRoot.make(tmp_path / "node")
    with pytest.raises(HostError, match="describes another machine"):
        SignalRebooter(Host(node.path), pid=systemd.child.pid).reboot()


def test_an_init_that_is_gone_or_refuses_is_an_error(systemd: Init) -> None:
    """The signal did not arrive, so the node stays up."""

    def refuse(_pid: int, _number: int) -> None:
        raise PermissionError(1, "Operation not permitted")

    with pytest.raises(HostError, match="could not be signalled: Operation not permitted"):
        SignalRebooter(Host("/"), pid=systemd.child.pid, send=refuse).reboot()
    systemd.end()
    with pytest.raises(HostError, match="is not signalled"):
        SignalRebooter(Host("/"), pid=systemd.child.pid).reboot()


# -- hooks -------------------------------------------------------------------------------------------------------------


class Stage:
    """Hooks of one stage, and their end."""

    def __init__(self, *commands: tuple[str, ...], timeout: float = LONG) -> None:
        self.woken = threading.Event()
        policy = Hooks(pre_drain=tuple(Hook(command=command, timeout=timeout) for command in commands))
        self.hooks = HostHooks(policy, Host("/"), node="worker-1", wake=self.woken.set)

    def step(self, cycle: str = "c1") -> HookProgress:
        return self.hooks.step(HookStage.PRE_DRAIN, cycle)

    def end(self) -> HookProgress:
        self.step()
        assert self.woken.wait(LONG)
        return self.step()


def test_hooks_run_one_after_another_and_know_what_for(tmp_path: Path) -> None:
    """Each with node, stage and cycle in its environment."""
    out = tmp_path / "out"
    stage = Stage(
        shell(f'sleep 0.3; echo "first $NODE_NAME $REBOOT_STAGE $REBOOT_CYCLE" >> {out}'),
        shell(f"echo second >> {out}"),
    )
    assert stage.end() == HookProgress(done=True)
    assert out.read_text() == "first worker-1 preDrain c1\nsecond\n"


def test_no_hooks_are_done_at_once() -> None:
    """No thread, no wait."""
    assert Stage().step() == HookProgress(done=True)
    assert Stage(shell("true")).hooks.step(HookStage.POST_REBOOT, "c1") == HookProgress(done=True)


def test_a_hook_that_fails_ends_the_stage_with_its_last_words(tmp_path: Path) -> None:
    """Later ones do not run."""
    after = tmp_path / "after"
    stage = Stage(shell("echo fine; echo 'pool is degraded' >&2; exit 3"), shell(f"touch {after}"))
    assert stage.end() == HookProgress(done=False, error="sh: exit code 3: pool is degraded")
    assert not after.exists()


def test_a_hook_that_hangs_is_killed_and_has_failed() -> None:
    """With everything that it started."""
    progress = Stage(shell("sleep 600 & sleep 600"), timeout=0.4).end()
    assert progress.error == "/bin/sh -c sleep 600 & sleep 600: killed after 0.4 s"


def test_a_hook_that_is_not_there_has_failed() -> None:
    """A typing error must not drain a node."""
    assert "is not there" in Stage(("/no/such/hook",)).end().error


def test_a_stage_runs_once_a_cycle_and_again_only_after_a_reset(tmp_path: Path) -> None:
    """Steps are asked many times; a failed stage is not tried again by itself."""
    out = tmp_path / "out"
    stage = Stage(shell(f"echo x >> {out}; exit 1"))
    assert stage.end().error
    assert stage.end().error
    assert out.read_text() == "x\n"
    stage.hooks.reset()
    stage.woken.clear()
    assert stage.end().error
    assert out.read_text() == "x\nx\n"


def test_a_reset_ends_what_still_runs(tmp_path: Path) -> None:
    """The cycle is over: its hook must not go on working on the node."""
    pid_file = tmp_path / "pid"
    stage = Stage(shell(f"echo $$ > {pid_file}; exec sleep 600"), timeout=600)
    assert stage.step() == HookProgress(done=False)
    ends = time.monotonic() + LONG
    while not pid_file.exists() or not pid_file.read_text().strip():
        assert time.monotonic() < ends
        time.sleep(0.02)
    pid = int(pid_file.read_text())
    stage.hooks.reset()
    while _runs(pid):
        assert time.monotonic() < ends, "the hook still runs"
        time.sleep(0.05)


def test_a_command_that_has_closed_its_output_can_be_ended_too() -> None:
    """Waiting for an end is not waiting for output."""
    stop = threading.Event()
    threading.Timer(0.5, stop.set).start()
    with pytest.raises(HostError, match="cancelled"):
        Host("/").run(shell("exec >/dev/null 2>&1; sleep 600"), timeout_seconds=LONG, cancelled=stop.is_set)


def _runs(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
