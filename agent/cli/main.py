"""Every command but `run`: its calls and exit codes."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from agent import __version__
from agent.cli import common, lint_output, options
from agent.cli.common import COULD_NOT, NOT_COMPLIANT, OK, USAGE
from agent.cli.validate import labels_of, validate
from agent.config import Config, load
from agent.config.overrides import merge
from agent.controls import registry
from agent.controls.registry import Act
from agent.daemon.config_store import fingerprint
from agent.daemon.node_labels import NodeLabels
from agent.errors import AgentError, HostError, UsageError
from agent.host import Host, read_or
from agent.model import Outcome, Report, Status
from agent.report import benchmark, table
from agent.report.formats import FORMATS
from agent.terminal import discard_output, document_text, style_of
from agent.text import format_rfc3339, sanitize


class OutputError(AgentError):
    """The output could not be written."""


def main(argv: Sequence[str] | None = None) -> int:
    """Any command; `run` comes through agent.cli.run. Returns the exit code, never a traceback for what can fail."""
    arguments = options.parser(os.environ).parse_args(argv)

    def work() -> int:
        code = _COMMANDS[arguments.command](arguments)
        _out("")  # flushed now: an error at exit could not become an exit code
        return code

    return common.answer(work)


def _run(arguments: argparse.Namespace) -> int:
    # Reached behind words that agent.cli does not parse, such as `--`; the other commands need no Kubernetes client.
    from agent.cli import run  # noqa: PLC0415

    return run.serve(options.run_args(arguments))


def _audit(arguments: argparse.Namespace) -> int:
    config, host, labels = _node(arguments)
    controls = registry.controls_of(config, host)
    report = registry.run(arguments.node_name, controls, Act.AUDIT, config.exceptions, labels)
    if arguments.output in FORMATS:
        if arguments.benchmark:
            raise UsageError(f"--benchmark is a table or a document: -o {arguments.output} has the numbers already")
        _out(FORMATS[arguments.output]([report], time.time()))
    elif not arguments.benchmark:
        _show(report, arguments.output, Act.AUDIT, _evidence(config, host))
    elif arguments.output == "table":
        _out(benchmark.table(report.findings))
    else:
        document = {**_evidence(config, host), **benchmark.document(report)}
        _out(document_text(document, arguments.output, sys.stdout))
    return OK if report.status is Status.PASS else NOT_COMPLIANT


def _apply(arguments: argparse.Namespace) -> int:
    config, host, labels = _node(arguments)
    controls = registry.controls_of(config, host)
    act = Act.DRY_RUN if arguments.dry_run else Act.APPLY
    with contextlib.nullcontext() if arguments.dry_run else registry.apply_lock(host):
        report = registry.run(arguments.node_name, controls, act, config.exceptions, labels)
    _show(report, arguments.output, act, _evidence(config, host))
    if any(change.outcome is Outcome.FAILED for change in report.changes):
        return COULD_NOT
    return OK if report.status is Status.PASS else NOT_COMPLIANT


def _validate(arguments: argparse.Namespace) -> int:
    labels = labels_of(arguments.labels) if arguments.labels is not None else None
    result = validate(arguments.paths, Host("/"), arguments.type, arguments.target, labels)
    if arguments.output == "table":
        _out(lint_output.table(result, style_of(sys.stdout, os.environ), verbose=arguments.verbose))
    elif arguments.output in lint_output.FORMATS:
        _out(lint_output.FORMATS[arguments.output](result))
    else:
        _out(document_text(lint_output.document(result), arguments.output, sys.stdout))
    if result.problems:
        return USAGE
    return COULD_NOT if result.unchecked or (arguments.strict and result.doubts) else OK


def _demo(arguments: argparse.Namespace) -> int:
    # Imported only here, because its libraries are an extra.
    try:
        from agent.sandbox.demo import demo, stay  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise UsageError(f"demo needs {error.name}: pip install 'node-hardening-agent[sandbox]'") from error
    if arguments.stay is not None:
        return stay(_out, Path(arguments.stay), arguments.nodes, keep=arguments.keep)
    style = style_of(sys.stdout, os.environ)
    live = sys.stdout.isatty() and os.environ.get("TERM", "dumb") != "dumb"

    def render(report: Report, act: Act, brief: bool) -> str:
        return table.render(report, style, act, brief=brief)

    return demo(_out, render, keep=arguments.keep, nodes=arguments.nodes, live=live)


def _node(arguments: argparse.Namespace) -> tuple[Config, Host, Mapping[str, str]]:
    """The policy, merged for the last known labels of the node; the node, and the labels. Sets up the log."""
    path, named = options.config_path(arguments.config)
    config = load(path, explicit=named)
    common.set_up_log(config.log, arguments.node_name, level=arguments.log_level, form=arguments.log_format)
    host = common.node_host(arguments.host_root, arguments.host_exec)
    labels = NodeLabels(host).known
    return merge(config, labels), host, labels


def _evidence(config: Config, host: Host) -> dict[str, object]:
    """When, by what, on what and against which policy: what makes a report evidence. null is unknown."""
    try:
        release = dict(line.split("=", 1) for line in host.read_text("/etc/os-release").splitlines() if "=" in line)
    except HostError:
        release = {}
    name = release.get("PRETTY_NAME", "").strip().strip("\"'")
    return {
        "time": format_rfc3339(time.time()),
        "agentVersion": __version__,
        "os": sanitize(name) or None,
        "kernel": sanitize(read_or("", host.kernel_release)) or None,
        "policy": fingerprint(config),
    }


def _show(report: Report, output: str, act: Act, evidence: Mapping[str, object]) -> None:
    if output == "table":
        _out(table.render(report, style_of(sys.stdout, os.environ), act))
        return
    document = {**evidence, **report.document()}
    if act is not Act.AUDIT:
        document.setdefault("changes", [])  # so that a script finds the key although nothing changed
    _out(document_text(document, output, sys.stdout))


def _out(text: str) -> None:
    """Writes to standard output. A reader that closes the pipe (`| head`) does not change the exit code.

    Raises OutputError when it cannot be written for another reason.
    """
    try:
        print(text, end="", flush=True)
    except BrokenPipeError:
        discard_output()
    except OSError as error:
        discard_output()
        raise OutputError(f"cannot write to standard output: {error.strerror}") from error


_COMMANDS: Mapping[str, Callable[[argparse.Namespace], int]] = {
    "run": _run, "audit": _audit, "apply": _apply, "validate": _validate, "demo": _demo,
}  # fmt: skip
