"""The kubectl plugin as a person types it, with both ends of its terminal in the test's hands."""

from __future__ import annotations

import io
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from agent.errors import AgentError, UsageError
from agent.kube import Kube
from agent.plugin.commands import COMMANDS
from agent.plugin.main import parser
from agent.plugin.session import COULD_NOT, USAGE, Command, Form, Session
from tests.support.access import direct
from tests.support.apiservers import ApiServer
from tests.support.kube import authority_of

Answer = str | Callable[[], str]


@dataclass(frozen=True, slots=True)
class Typed:
    """What became of it. code: as main() has it for the same error; error: its sentence."""

    code: int
    out: str
    err: str
    error: str = ""


class Person:
    """Somebody at a terminal. answers: lines, or calls that do something first and return the line; None: no terminal.

    asked: the questions that were put.
    """

    def __init__(
        self,
        api: ApiServer,
        *,
        answers: Iterable[Answer] | None = None,
        token: str = "",
        user: str = "",
        now: Callable[[], float] = time.time,
    ) -> None:
        self._access = direct(api.url, token=token or api.token, authority=authority_of(api))
        self._answers = iter(answers) if answers is not None else None
        self._now = now
        self._user = user
        self.asked: list[str] = []

    def kube(self) -> Kube:
        """Their door."""
        made = Kube(self._access, node="kubectl-plugin")
        made.user = self._user
        return made

    def types(self, *argv: str) -> Typed:
        """Runs one command line."""
        options = parser(COMMANDS).parse_args(argv)
        command: Command = options.command
        out, err = io.StringIO(), io.StringIO()
        session = Session(
            connect=self.kube,
            namespace=options.namespace,
            form=Form(options.output),
            out=out,
            err=err,
            now=self._now,
            ask=self._ask if self._answers is not None else None,
            yes=getattr(options, "yes", False),
            dry_run=getattr(options, "dry_run", False),
        )
        try:
            code, error = command.run(options, session), ""
        except UsageError as problem:
            code, error = USAGE, str(problem)
        except AgentError as problem:
            code, error = COULD_NOT, str(problem)
        return Typed(code, out.getvalue(), err.getvalue(), error)

    def _ask(self, question: str) -> str:
        self.asked.append(question)
        assert self._answers is not None
        answer = next(self._answers)
        return answer if isinstance(answer, str) else answer()
