"""The main job, shown on throw-away nodes: no root, no cluster.

Every step runs what the command of the same name runs, on a real tree; the demo checks what it claims and ends with 1
when a claim does not hold.
"""

from __future__ import annotations

import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from types import MappingProxyType
from typing import Any

from agent.config import Config
from agent.controls import registry
from agent.controls.registry import Act
from agent.model import Finding, Outcome, Report, Status
from agent.sandbox.describe import describe
from agent.sandbox.live_table import Screen
from agent.sandbox.noderoot import NodeRoot
from agent.sandbox.playground import harden, incomplete, play
from agent.sandbox.rolling_reboot import Roll, wait_until

_DENY_FILE = "/etc/modprobe.d/kubernetes-blacklist.conf"
_READY_SECONDS = 60.0
_NODE_SECONDS = 60.0  # at most for one node's turn: more is a defect
_ENDING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Write = Callable[[str], None]
Render = Callable[[Report, Act, bool], str]  # the last one: only what does not pass


class Story:
    """Prints the steps and remembers whether each had the expected result."""

    def __init__(self, out: Write, render: Render) -> None:
        self.out = out
        self.render = render
        self.held = True

    def say(self, text: str) -> None:
        """A heading or an explanation."""
        self.out(f"{text}\n")

    def claim(self, holds: bool, text: str) -> None:
        """One expected result."""
        self.held = self.held and holds
        self.say(f"   {'ok' if holds else 'NOT SO'}: {text}")


def hardening(story: Story, folder: Path) -> frozenset[str]:
    """One node: apply, drift made by the demo, audit finds it, apply corrects it.

    Returns the controls whose checks are incomplete here because tools are missing on this machine.
    """
    root = NodeRoot.make(folder, "node-1")
    story.say(f"1. A fresh node, and the default policy: node-hardening-agent apply --host-root {root.path}")
    report = harden(root, Act.APPLY)
    story.say(story.render(report, Act.APPLY, True))
    for line in _by_control(report, registry.enforced(Config())):
        story.say(f"   {line}")
    story.claim(
        bool(report.changes) and all(change.outcome is Outcome.DONE for change in report.changes),
        f"{len(report.changes)} changes made, and verified afterwards",
    )
    off, unknown = incomplete(report), sum(finding.status is Status.UNKNOWN for finding in report.findings)
    if unknown:
        story.say(f"      unknown: {unknown} checks, for what this machine lacks (their -> lines name it)")
    story.claim(not _failing(report), "nothing fails" if unknown else "every check that applies passes")
    before = root.at(_DENY_FILE).stat()

    story.say("\n2. The same again: apply")
    report = harden(root, Act.APPLY)
    story.say(f"   {_last_line(story.render(report, Act.APPLY, True))}")
    after = root.at(_DENY_FILE).stat()
    story.claim(
        not report.changes and (before.st_ino, before.st_mtime_ns) == (after.st_ino, after.st_mtime_ns),
        "nothing to do: no change, same inode, same mtime",
    )

    story.say("\n3. A user makes sctp loadable again, and edits a seccomp profile: audit")
    text = root.at(_DENY_FILE).read_text()
    root.write(_DENY_FILE, "".join(line for line in text.splitlines(True) if "sctp" not in line))
    root.write("/var/lib/kubelet/seccomp/prevent-chmod.json", '{"defaultAction": "SCMP_ACT_ALLOW"}\n')
    report = harden(root, Act.AUDIT)
    failing = _failing(report)
    story.say(story.render(report, Act.AUDIT, True))
    story.claim("modprobe/sctp" in failing and any("prevent-chmod" in one for one in failing), "audit saw both")

    story.say("\n4. apply corrects it")
    report = harden(root, Act.APPLY)
    for change in report.changes:
        story.say(f"   {change.outcome.value}: {change.control}: {change.action} {change.target}  ({change.reason})")
    story.claim(
        root.at(_DENY_FILE).read_text() == text and "modprobe/sctp" not in _failing(report),
        "the node is as it was before",
    )
    return off


def rolling(
    story: Story,
    folder: Path,
    screen: Screen,
    nodes: int,
    policy: Mapping[str, Any] = MappingProxyType({}),
    *,
    off: Collection[str] = (),
) -> None:
    """All nodes need a reboot together, and reboot one by one. policy: what the agents' `reboot` section has besides.

    off: controls whose checks are incomplete on this machine. A node with an unknown check is never hardened, and its
    reboot never verified.
    """
    story.say(
        f"\n5. {nodes} nodes, an agent on each (node-hardening-agent run), an emulated API server in this process;"
        "\n   on them a Deployment under a PodDisruptionBudget, a DaemonSet, a pod with an emptyDir"
    )
    if off:
        story.say(f"   without {' and '.join(sorted(off))}, whose checks are incomplete on this machine (see above)")
    roll = Roll(folder, nodes, policy, off=off)
    try:
        roll.start()
        ready = wait_until(roll.is_ready, _READY_SECONDS)
        story.claim(ready, "every node is hardened and reports it, every pod runs")
        if not ready:
            _explain(story, roll)
            return
        story.say("\n6. A new kernel arrives on all of them: /var/run/reboot-required appears")
        began = time.monotonic()
        roll.require_reboots()

        def show() -> None:
            holder = roll.holder()
            lock = f"the lock is held by {holder}" if holder else "the lock is free"
            screen.show(roll.rows(), lock, time.monotonic() - began)

        over = wait_until(roll.is_over, _NODE_SECONDS * nodes, show)
        seconds = time.monotonic() - began
        name = roll.busiest()
        story.say(f"\n7. What on-call sees afterwards: kubectl describe node {name}")
        story.say(describe(roll.node(name), roll.events(name), datetime.now(UTC)))
        story.say("8. What has to be true of it, asked of the API server and the machines")
        for holds, text in roll.claims():
            story.claim(holds, text)
        story.say(f"   {nodes} nodes in {seconds:.0f} s; {roll.figures()}")
        if not over:
            _explain(story, roll)
    finally:
        with _undisturbed():
            roll.stop()


def _explain(story: Story, roll: Roll) -> None:
    """The last log lines of the agents."""
    for machine in roll.machines:
        story.say(f"   {machine.name}: {_last_line(machine.log.read_text(errors='replace'))[:400]}")


def demo(out: Write, render: Render, *, keep: bool, nodes: int = 3, live: bool = False) -> int:
    """Tells the whole story. 0 when every claim held, 1 otherwise. live: a terminal reads it.

    Raises KeyboardInterrupt when it is interrupted or ended, after having put everything away.
    """
    story = Story(out, render)
    with _interruptible():
        folder = Path(tempfile.mkdtemp(prefix="node-hardening-demo-"))
        try:
            off = hardening(story, folder / "alone")
            rolling(story, folder / "cluster", Screen(out, live=live), nodes, off=off)
        finally:
            if keep:
                story.say(f"\nThe sandbox is left in {folder}")
            else:
                with _undisturbed():
                    shutil.rmtree(folder)
    story.say("\nEverything above held." if story.held else "\nSomething above did not hold: that is a defect.")
    return 0 if story.held else 1


def stay(out: Write, folder: Path, nodes: int, *, keep: bool) -> int:
    """A cluster to try things in, until it is interrupted or ended; that is its good end, 0."""
    with suppress(KeyboardInterrupt), _interruptible():
        play(out, folder, nodes, Path(sys.argv[0]).resolve().parent, keep=keep)
    return 0


@contextmanager
def _interruptible() -> Iterator[None]:
    """Whoever ends the demo, by Ctrl-C, `kill` or by closing the window, ends it as Ctrl-C does."""

    def interrupt(_number: int, _frame: object) -> None:
        for other in _ENDING:
            signal.signal(other, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in _ENDING}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """What is being put away is put away first."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _ENDING)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _last_line(text: str) -> str:
    return text.rstrip("\n").rpartition("\n")[2]


def _by_control(report: Report, enforced: Collection[str]) -> Iterator[str]:
    """A line for each control: how many checks passed, or why an enforced one does not apply; one for the others."""
    found: dict[str, list[Finding]] = {}
    for finding in report.findings:
        found.setdefault(finding.control, []).append(finding)
    others = []
    for control, some in found.items():
        if counts := _counts(some):
            yield f"{control:<14}{counts}"
        elif control in enforced:
            yield f"{control:<14}not applicable: {some[0].observed}"
        else:
            others.append(control)
    if others:
        yield f"not applicable on this node: {', '.join(others)}"


def _counts(found: list[Finding]) -> str:
    counts = Counter(finding.status for finding in found)
    judged = counts[Status.PASS] + counts[Status.FAIL] + counts[Status.UNKNOWN]
    parts = [f"{counts[Status.PASS]}/{judged} passed"] if judged else []
    parts += [f"{counts[status]} {status.value}" for status in (Status.FAIL, Status.UNKNOWN) if counts[status]]
    return ", ".join(parts)


def _failing(report: Report) -> set[str]:
    return {finding.id for finding in report.findings if finding.status is Status.FAIL}
