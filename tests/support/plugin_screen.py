"""The plugin at a terminal of a given width, over HTTP against an emulator that holds a staged fleet.

Time is the fleet's own, so that what is printed is the same each time: docs/plugin.md is made of it.
"""

from __future__ import annotations

import io
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from agent.kube import Kube
from agent.plugin.commands import COMMANDS
from agent.plugin.main import parser, run
from agent.plugin.session import Form, Session
from agent.sandbox.server import Sandbox
from agent.sandbox.settings import KubeletSettings, Settings
from agent.terminal import Style
from tests.support.access import direct
from tests.support.plugin_fleet import NAMESPACE, Staged


@dataclass(frozen=True, slots=True)
class Shown:
    """What a command line printed, and its exit code."""

    code: int
    out: str
    err: str


@dataclass
class Screen:
    """A person's terminal. width: None for a pipe. says: answers to questions, in order; no terminal without.

    together: both streams on one, as they meet on a terminal; all of it is `out` then.
    """

    sandbox: Sandbox
    staged: Staged
    width: int | None = 100
    says: list[str] = field(default_factory=list)
    together: bool = False

    def type(self, line: str, *words: str) -> Shown:
        """Runs `kubectl node-hardening LINE`, with words that no shell has split."""
        out = io.StringIO()
        err = out if self.together else io.StringIO()
        options = parser(COMMANDS).parse_args([*shlex.split(line), *words])
        kube = Kube(direct(self.sandbox.url, token=self.sandbox.token), node="kubectl-plugin")

        def ask(question: str) -> str:
            said = self.says.pop(0)
            err.write(f"{question}{said}\n")
            return said

        session = Session(
            connect=lambda: kube,
            namespace=NAMESPACE,
            form=Form(options.output),
            out=out,
            err=err,
            now=lambda: self.staged.now,
            style=Style(width=self.width),
            ask=ask if self.says else None,
            yes=getattr(options, "yes", False),
            dry_run=getattr(options, "dry_run", False),
        )
        code = run(options, session)
        kube.close()
        return Shown(code, out.getvalue(), "" if self.together else err.getvalue())


@contextmanager
def emulator() -> Iterator[Sandbox]:
    """An emulator in which nothing moves by itself."""
    with Sandbox(Settings(controllers=False, kubelet=KubeletSettings(enabled=False))) as sandbox:
        yield sandbox
