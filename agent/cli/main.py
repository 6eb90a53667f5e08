"""Commands to calls, errors to exit codes."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import TextIO

import yaml

from agent import log
from agent.cli import options, table
from agent.cli.validate import validate
from agent.config import Config, load_or_default
from agent.config.schema import Log, LogFormat, LogLevel
from agent.controls import catalogue
from agent.errors import AgentError, ConfigError, UsageError
from agent.host import Host, HostExec
from agent.model import Outcome, Report, Status

Command = Callable[[argparse.Namespace], int]
OK, NOT_COMPLIANT, USAGE, COULD_NOT = 0, 1, 2, 3


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point `node-hardening-agent`. Returns the exit code; never a traceback for what can go wrong."""
    arguments = options.parser(os.environ).parse_args(argv)
    try:
        return _commands()[arguments.command](arguments)
    except ConfigError as error:
        for problem in error.problems:
            _say(str(problem))
        number = len(error.problems)
        _say(f"{number} problem{'s' if number != 1 else ''}; nothing was done")
        return USAGE
    except UsageError as error:
        _say(str(error))
        return USAGE
    except AgentError as error:
        _say(str(error))
        return COULD_NOT
    except BrokenPipeError:
        # The reader has seen enough (`| head`); what is buffered has nowhere to go.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return OK
    except KeyboardInterrupt:
        return 130


def _commands() -> dict[str, Command]:
    return {"run": _run, "audit": _audit, "apply": _apply, "validate": _validate, "demo": _demo}


def _run(arguments: argparse.Namespace) -> int:
    # The other commands need no cluster, and do not pay for its libraries.
    from agent import daemon, kube  # noqa: PLC0415

    path, named = options.config_path(arguments.config)
    host = Host(arguments.host_root, how=HostExec(arguments.host_exec))
    _set_up_log(Log(), arguments)
    store = daemon.PolicyStore(path, host, explicit=named)
    policy = store.load().config or Config()
    _set_up_log(policy.log, arguments)
    access = kube.find(os.environ, runner=host.run)
    return daemon.serve(host, arguments.node_name, access, store, address=policy.metrics.address)


def _audit(arguments: argparse.Namespace) -> int:
    config, host = _node(arguments)
    report = catalogue.run(arguments.node_name, catalogue.controls_of(config, host), catalogue.Act.AUDIT)
    _show(report, arguments.output)
    return OK if report.status is Status.PASS else NOT_COMPLIANT


def _apply(arguments: argparse.Namespace) -> int:
    config, host = _node(arguments)
    controls = catalogue.controls_of(config, host)
    if arguments.dry_run:
        report = catalogue.run(arguments.node_name, controls, catalogue.Act.DRY_RUN)
    else:
        with catalogue.exclusively(host):
            report = catalogue.run(arguments.node_name, controls, catalogue.Act.APPLY)
    _show(report, arguments.output, dry_run=arguments.dry_run)
    if any(change.outcome is Outcome.FAILED for change in report.changes):
        return COULD_NOT
    return OK if report.status is Status.PASS else NOT_COMPLIANT


def _validate(arguments: argparse.Namespace) -> int:
    result = validate(arguments.paths, Host("/"))
    if arguments.output == "table":
        print(result.text(style(sys.stdout)), end="")
    else:
        _document(result.document(), arguments.output)
    return USAGE if result.problems else COULD_NOT if result.unchecked else OK


def _demo(arguments: argparse.Namespace) -> int:
    # The only room that knows the sandbox, and only when asked: its libraries are an extra.
    try:
        from agent.sandbox.demo import demo  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UsageError(f"demo needs {error.name}: pip install 'node-hardening-agent[sandbox]'") from error
    looks = style(sys.stdout)
    return demo(sys.stdout, lambda report: table.render(report, looks), keep=arguments.keep)


def _node(arguments: argparse.Namespace) -> tuple[Config, Host]:
    """The policy and the node that the arguments name, with the log set up as they say."""
    path, named = options.config_path(arguments.config)
    config = load_or_default(path, explicit=named)
    _set_up_log(config.log, arguments)
    return config, Host(arguments.host_root, how=HostExec(arguments.host_exec))


def _set_up_log(policy: Log, arguments: argparse.Namespace) -> None:
    """The policy's log, where the command line does not say otherwise."""
    level = LogLevel(arguments.log_level) if arguments.log_level else policy.level
    form = LogFormat(arguments.log_format) if arguments.log_format else policy.format
    log.configure(level, form, arguments.node_name)


def _show(report: Report, output: str, *, dry_run: bool = False) -> None:
    if output == "table":
        print(table.render(report, style(sys.stdout), dry_run=dry_run), end="")
    else:
        _document(report.document(), output)


def _document(document: Mapping[str, object], output: str) -> None:
    if output == "json":
        print(json.dumps(document, indent=2, ensure_ascii=False))
    else:
        print(yaml.safe_dump(document, sort_keys=False, allow_unicode=True, width=120), end="")


def style(stream: TextIO) -> table.Style:
    """Colour and width for a terminal; neither for a file or a pipe. NO_COLOR is respected (https://no-color.org)."""
    if not stream.isatty():
        return table.Style()
    return table.Style(colour="NO_COLOR" not in os.environ, width=shutil.get_terminal_size().columns)


def _say(text: str) -> None:
    print(f"node-hardening-agent: {text}", file=sys.stderr)
