"""`kubectl node-hardening`: arguments, the session, and errors turned into one message and an exit code.

Exit codes as the agent's: 0 fine; 1 something needs attention; 2 usage or configuration; 3 failed; 130 Ctrl-C.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace

from agent import __version__
from agent.config.units import duration
from agent.errors import AgentError, ConfigError, UsageError
from agent.kube import Kube, RetryPolicy, find
from agent.kube.credentials import CommandResult, Impersonation
from agent.kube.errors import Forbidden, NoCredentials, Unauthorized, Unreachable
from agent.kube.kubeconfig import contexts
from agent.plugin.cluster import values
from agent.plugin.commands import COMMANDS
from agent.plugin.session import COMMON_FORMS, COULD_NOT, NAMESPACE, USAGE, Command, Form, Session
from agent.terminal import discard_output, style_of

_PROGRAM = "kubectl node-hardening"
_INTERRUPTED = 130
_PIPE_CLOSED = 141  # what a shell shows of a program that SIGPIPE ended, kubectl's own commands included
_ERROR_CHARACTERS = 1000
# A user waits: an unreachable server is reported before they give up.
_RETRY = RetryPolicy(seconds=20.0, attempts=3, connect_seconds=5.0)
_EPILOG = """exit codes:
  0  everything is fine
  1  something needs attention
  2  usage or configuration error
  3  failed
"""


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point `kubectl-node_hardening`. Returns the exit code, never a traceback for what can fail."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace" if stream is sys.stderr else "replace")
    options = parser(COMMANDS).parse_args(argv)
    try:
        return run(options, session(options, os.environ))
    except Exception:  # noqa: BLE001 - a defect: Python's own exit code would be that of "needs attention"
        traceback.print_exc()
        return COULD_NOT


def run(options: argparse.Namespace, given: Session) -> int:
    """Runs a command and returns its exit code; errors are one message each on the session's `err`."""
    command: Command = options.command
    try:
        code = command.run(options, given)
        given.out.flush()
        return code
    except BrokenPipeError:
        discard_output()
        return _PIPE_CLOSED
    except ConfigError as error:
        for problem in error.problems:
            _say(given, str(problem))
        return USAGE
    except UsageError as error:
        _say(given, str(error))
        return USAGE
    except AgentError as error:
        _say(given, f"{error}{_next_step(error)}")
        return COULD_NOT
    except OSError as error:
        if error.filename is not None:
            raise  # of a file; only the output has no name
        discard_output()
        _say(given, f"cannot write to standard output: {error.strerror}")
        return COULD_NOT
    except KeyboardInterrupt:
        return _INTERRUPTED


def session(options: argparse.Namespace, environment: Mapping[str, str]) -> Session:
    """The session of a real terminal."""

    def connect(context: str = "") -> Kube:
        access = find(
            environment,
            kubeconfig=options.kubeconfig,
            context=context or options.context,
            cluster=options.kube_cluster,
            user=options.user,
            impersonation=Impersonation(options.impersonate, (*options.groups, *options.more_groups)),
            runner=_run,
        )
        return Kube(access, node="kubectl-plugin", retry=_retry(options.request_timeout))

    def ask(question: str) -> str:
        sys.stderr.write(question)
        sys.stderr.flush()
        return sys.stdin.readline()

    is_there = sys.stdin is not None and sys.stdin.isatty()
    return Session(
        connect=connect,
        namespace=options.namespace,
        form=Form(options.output),
        out=sys.stdout or io.StringIO(),  # `>&-`
        err=sys.stderr or io.StringIO(),
        now=time.time,
        style=style_of(sys.stdout, environment),
        ask=ask if is_there else None,
        yes=getattr(options, "yes", False),
        dry_run=getattr(options, "dry_run", False),
        live=sys.stderr is not None and sys.stderr.isatty(),
        environment=environment,
        contexts=lambda: contexts(environment, options.kubeconfig),
        connect_to=connect,
    )


def parser(commands: Sequence[Command]) -> argparse.ArgumentParser:
    """The whole command line; options that all commands have may come before or after the command."""
    top = argparse.ArgumentParser(
        prog=_PROGRAM,
        description="What the node hardening agents found, what they do about reboots, and why.",
        epilog=_EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        parents=[_common(given=True)],
    )
    top.add_argument("--version", action="version", version=f"{_PROGRAM} {__version__}")
    names = top.add_subparsers(metavar="COMMAND", required=True)
    for command in commands:
        sub = names.add_parser(
            command.name,
            help=command.help,
            description=command.help[0].upper() + command.help[1:] + ".",
            epilog=_EPILOG,
            formatter_class=argparse.RawDescriptionHelpFormatter,
            parents=[_common(given=False, forms=command.forms)],
            conflict_handler="resolve",  # a command's own --cluster; kubectl's may then stand before the command
        )
        command.configure(sub)
        sub.set_defaults(command=command)
    return top


class _Namespace(argparse.Action):
    """Sets `scope` too, which is there only where a namespace was named: `namespace` has a default."""

    def __call__(self, _parser: object, words: argparse.Namespace, value: object, _option: object = None) -> None:
        words.namespace = words.scope = value


def _common(*, given: bool, forms: Sequence[Form] = COMMON_FORMS) -> argparse.ArgumentParser:
    """given: with defaults; without, an option that is not there keeps what came before the command."""

    def default(value: str) -> str:
        return value if given else argparse.SUPPRESS

    common = argparse.ArgumentParser(add_help=False)
    shared = common.add_argument_group("common options")
    shared.add_argument("--kubeconfig", metavar="FILE", default=default(""), help="default: KUBECONFIG, ~/.kube/config")
    shared.add_argument("--context", metavar="NAME", default=default(""), help="of the kubeconfig (default: current)")
    shared.add_argument("--cluster", metavar="NAME", dest="kube_cluster", default=default(""), help="not the context's")
    shared.add_argument("--user", metavar="NAME", default=default(""), help="of the kubeconfig, not the context's")
    shared.add_argument("--as", metavar="USER", dest="impersonate", default=default(""), help="impersonate this user")
    groups = "groups" if given else "more_groups"  # a subcommand's own list: argparse would replace the one before it
    shared.add_argument(
        "--as-group", metavar="GROUP", dest=groups, action="append", default=[], help="and this group; may be repeated"
    )
    shared.add_argument(
        "--request-timeout", metavar="TIME", default=default("0"), type=_timeout,
        help="of one request: 30s, 2m (default 20s)",
    )  # fmt: skip
    shared.add_argument(
        "-n", "--namespace", metavar="NAME", action=_Namespace, default=default(NAMESPACE),
        help=f"the agent's (default {NAMESPACE})",
    )  # fmt: skip
    shared.add_argument(
        "-o", "--output", choices=[form.value for form in forms], default=default(Form.TABLE.value),
        help="default table",
    )  # fmt: skip
    return common


def _timeout(text: str) -> str:
    """As kubectl takes it: a number is in seconds, 0 is the default. Raises ArgumentTypeError."""
    try:
        duration(f"{text}s" if text.isdecimal() else text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return f"{text}s" if text.isdecimal() else text


def _retry(timeout: str) -> RetryPolicy:
    seconds = duration(timeout)
    if not seconds:
        return _RETRY
    return replace(_RETRY, seconds=seconds, connect_seconds=seconds, read_seconds=seconds)


def _run(argv: list[str], *, timeout_seconds: float, environment: Mapping[str, str]) -> CommandResult:
    """Starts a kubeconfig's exec plugin, as the agent runs its own commands."""
    from agent.host import Host, HostExec  # noqa: PLC0415 - few kubeconfigs need it, and it brings psutil

    return Host("/").run(argv, timeout_seconds=timeout_seconds, environment=environment, how=HostExec.DIRECT)


def _next_step(error: AgentError) -> str:
    """What to do about the common ones; empty where the message has it already."""
    match error:
        case Unreachable():
            return "; is this the right cluster? kubectl config current-context, kubectl cluster-info"
        case Unauthorized() | NoCredentials():
            return "; log in again, or choose another --context"
        case Forbidden():
            return "; ask for the ClusterRole node-hardening-reader, or -operator for changes (docs/rbac.yaml)"
        case _:
            return ""


def _say(given: Session, text: str) -> None:
    # An error may quote a server's or an object's text.
    given.note(f"{_PROGRAM}: {values.text(text, _ERROR_CHARACTERS)}")
