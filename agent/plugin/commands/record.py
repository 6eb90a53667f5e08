"""`record start|status|export|stop`: from a workload without a profile to a seccomp profile of what it calls.

The user names the logging profile in the pod; agents with `denials.mode: observe` record. It changes nothing: `start`
and `stop` print the command to run, `export` prints a profile.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from agent import __version__
from agent.controls.seccomp.linting import lint
from agent.denials.document import State
from agent.denials.records import Kind, Outcome
from agent.errors import ConfigError, Problem, UsageError
from agent.kube import NODES
from agent.plugin.cluster import values
from agent.plugin.cluster.denials import DenialRow, NodeDenials
from agent.plugin.commands.denials import is_of, not_visible, observed, suggestion
from agent.plugin.diagnosis.advice import kubectl
from agent.plugin.record import profile
from agent.plugin.record.loading import load
from agent.plugin.record.recordings import RecordingRow, recordings_of
from agent.plugin.session import NOT_WELL, OK, Command, Session
from agent.plugin.views import table
from agent.plugin.views.table import Column

_LOGGING = "audit.json"
_PAGE_SIZE = 500
_EXISTING_CHARACTERS = 1 << 20
_KINDS = {"deployment": (), "statefulset": (), "daemonset": (), "job": (), "cronjob": ("jobTemplate", "spec")}
_DEFAULTS = {"errno": "SCMP_ACT_ERRNO", "log": "SCMP_ACT_LOG", "kill": "SCMP_ACT_KILL_PROCESS"}
# A component of a path that no next run has again: of mkstemp, a UUID, a hash.
_RANDOM = re.compile(r"(?=[^/]*[0-9])(?=[^/]*[A-Za-z])[0-9A-Za-z_-]{6,}$|[0-9a-f]{8}-[0-9a-f]{4}|\.[A-Za-z0-9]{6}$")


def _configure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("action", choices=["start", "status", "export", "stop"], help="what to do")
    parser.add_argument(
        "names", nargs="*", metavar="WORKLOAD", help="start, stop: KIND/NAME; status, export: pods, by name or prefix"
    )
    parser.add_argument("-c", "--container", default="", metavar="NAME", help="only this container")
    parser.add_argument("--merge", default="", metavar="FILE", help="export: add to this profile, which is kept")
    parser.add_argument(
        "--default", choices=list(_DEFAULTS), default="", help="export: of what is not listed (default errno)"
    )


def _run(options: argparse.Namespace, session: Session) -> int:
    namespace = getattr(options, "scope", "")
    if options.action in ("start", "stop"):
        return _patch(options, session, namespace or "default")
    nodes = list(session.kube.list(NODES, page_size=_PAGE_SIZE))
    rows = [row for node in nodes for row in recordings_of(node) if _is_named(row, options, namespace)]
    if options.action == "export":
        return _export(options, session, rows)
    seen = [one for node in nodes if (one := observed(node)) is not None]
    complaints = [row for one in seen for row in one.rows if row.outcome is Outcome.ALLOWED]
    rules = _rules(complaints)
    session.show(
        lambda: {"recordings": [_document(row) for row in rows], "rules": rules},
        lambda: _status(rows, rules, session, seen),
    )
    return OK if rows or complaints else NOT_WELL


def _is_named(row: RecordingRow, options: argparse.Namespace, namespace: str) -> bool:
    named = any(is_of(row.pod, name) for name in options.names) or not options.names
    return named and namespace in ("", row.namespace) and options.container in ("", row.container)


# -- start, stop -------------------------------------------------------------------------------------------------------


def _patch(options: argparse.Namespace, session: Session, namespace: str) -> int:
    """Prints the command that makes the workload name the logging profile, or no profile any more."""
    kind, _, name = (options.names[0] if len(options.names) == 1 else "").partition("/")
    if kind not in _KINDS or not values.name(name):
        raise UsageError(f"name one workload as KIND/NAME, KIND one of {', '.join(_KINDS)}: deployment/web")
    logging = {"type": "Localhost", "localhostProfile": _LOGGING} if options.action == "start" else None
    context: dict[str, Any] = {"securityContext": {"seccompProfile": logging}}
    spec = {"containers": [{"name": options.container, **context}]} if options.container else context
    body: dict[str, Any] = {"template": {"spec": spec}}
    for key in reversed(_KINDS[kind]):
        body = {key: body}
    patch = json.dumps({"spec": body}, separators=(",", ":"))
    command = kubectl("-n", namespace, "patch", kind, name, "--type", "strategic", "-p", patch)
    if session.form.is_document:
        session.document({"command": command, "patch": {"spec": body}})
        return OK
    lines = [command, "", f"Its pods are replaced and {'log' if logging else 'no longer log'} their syscalls."]
    if logging:
        lines += [
            "Let them do everything: start, work, errors, health checks, shutdown. A container that has a",
            f"seccomp profile of its own needs -c NAME. Then: kubectl node-hardening record status {name}",
        ]
    session.write("\n".join(lines))
    return OK


# -- status ------------------------------------------------------------------------------------------------------------


def _document(row: RecordingRow) -> dict[str, Any]:
    return {
        **asdict(row), "syscalls": sorted(row.syscalls), "first": table.rfc3339(row.first),
        "last": table.rfc3339(row.last),
    }  # fmt: skip


def _status(
    rows: Sequence[RecordingRow], rules: Sequence[str], session: Session, observed_nodes: Sequence[NodeDenials]
) -> str:
    lines = []
    columns = [Column("POD", elastic=True, least=12), *map(Column, ("CONTAINER", "ARCH", "SYSCALLS", "CALLS"))]
    columns += [Column("LOST"), Column("FOR"), Column("LAST")]
    cells = [
        [
            f"{row.namespace}/{row.pod}" if row.pod else f"uid {row.uid}", row.container or row.id,
            row.architecture.removeprefix("SCMP_ARCH_").lower(), str(len(row.syscalls)), f"{row.calls:,}",
            f"{row.lost:,}", table.age(row.last - row.first), table.since(row.last, session.now()),
        ]
        for row in sorted(rows, key=lambda row: (row.namespace, row.pod, row.container))
    ]  # fmt: skip
    if cells:
        lines.append(table.table(columns, cells, session.style))
    elif any(one.state is State.SEEING for one in observed_nodes):
        lines.append("Nothing is recorded: no agent has reported a logged call of these (it takes up to 20 seconds).")
    elif observed_nodes:
        lines.append("Nothing is recorded: no node's agent receives audit records.")
    else:
        lines.append("No agent observes denials: set denials.mode: observe in the policy (docs/record.md).")
    if rules:
        lines += ["Rules that AppArmor profiles in complain mode would need; none is generated:", *rules]
    blind = [one for one in observed_nodes if one.state is not State.SEEING]
    lines += [line for one in blind for words in not_visible(one) for line in session.style.wrap(words)]
    return "\n".join(lines)


def _rules(rows: Sequence[DenialRow]) -> list[str]:
    """By profile; a file whose name seems random has no rule that a next run would need."""
    lines: dict[str, None] = {}
    for row in sorted(rows, key=lambda row: (row.profile, suggestion(row))):
        random = row.kind is Kind.APPARMOR and any(_RANDOM.search(part) for part in row.file.split("/"))
        lines[f"  {row.profile}: {suggestion(row)}{'   (random?)' if random else ''}"] = None
    return list(lines)


# -- export ------------------------------------------------------------------------------------------------------------


def _export(options: argparse.Namespace, session: Session, rows: Sequence[RecordingRow]) -> int:
    if not rows:
        raise UsageError("nothing is recorded of these pods: kubectl node-hardening record status lists what is")
    workloads = {(row.namespace, row.container) for row in rows}
    if len(workloads) > 1 and not options.names:
        names = ", ".join(sorted(f"{namespace}/{container}" for namespace, container in workloads))
        raise UsageError(f"more than one workload is recorded ({names}): name pods, or use -n and -c")
    existing = _existing(options.merge) if options.merge else None
    default = _DEFAULTS[options.default] if options.default else "" if existing else _DEFAULTS["errno"]
    made = profile.make(rows, default=default, existing=existing, by=f"kubectl node-hardening record {__version__}")
    if not load(made.text):
        session.note("libseccomp is not installed here: the profile was checked by the project's own rules alone")
    session.write(made.text)
    if made.incomplete:
        session.note("audit records were lost while it was recorded: the profile may be incomplete")
    return NOT_WELL if made.incomplete else OK


def _existing(path: str) -> dict[str, Any]:
    try:
        with Path(path).open(encoding="utf-8") as stream:
            text = stream.read(_EXISTING_CHARACTERS + 1)
        if len(text) > _EXISTING_CHARACTERS:
            raise ValueError("it has more than 1 Mi characters")  # noqa: TRY301 - one message for all that fails
    except (OSError, ValueError) as error:
        raise ConfigError([Problem(path, 0, "", f"cannot be read as a JSON profile: {error}")]) from error
    if problems := lint(text, path):
        raise ConfigError(problems)
    document: dict[str, Any] = json.loads(text)
    return document


COMMAND = Command("record", "record what a workload calls, and make a seccomp profile of it", _configure, _run)
