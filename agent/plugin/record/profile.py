"""A seccomp profile of what was recorded: the union over replicas, and what the container runtime itself needs. Pure.

It refuses to print a profile that the project's own lint refuses.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from agent.controls.seccomp.linting import lint
from agent.controls.seccomp.syscalls import exists_on
from agent.errors import ConfigError
from agent.plugin.record.recordings import RecordingRow
from agent.plugin.views import table

ALLOW: Final = "SCMP_ACT_ALLOW"
# What runc 1.1.5 and crun 1.8 call between the filter and the container's program, with no_new_privs and without, and
# what newer ones do: runc 1.3.3 needs openat2 and statx. A recording under one runtime does not start under another.
# set_tls and cacheflush of 32-bit ARM have numbers beyond a recording's bitmap, and no program starts without them.
_RUNTIME_NAMES: Final = """cacheflush capget capset chdir clock_gettime close close_range epoll_ctl epoll_pwait execve
    exit_group faccessat2 fchown fcntl fstat fstatfs futex getcwd getdents64 getpid getppid getuid mmap mprotect
    munmap nanosleep newfstatat openat openat2 prctl read rt_sigaction rt_sigprocmask rt_sigreturn sched_yield set_tls
    setgid setgroups setresgid setresuid setuid sigaltstack statx tgkill write"""
RUNTIME: Final = frozenset(_RUNTIME_NAMES.split())
_LINE_CHARACTERS = 100


@dataclass(frozen=True, slots=True)
class Made:
    """A profile. text: JSON. incomplete: records were lost while it was recorded."""

    text: str
    incomplete: bool


def make(rows: Sequence[RecordingRow], *, default: str, existing: Mapping[str, Any] | None, by: str) -> Made:
    """rows: of one workload. default: SCMP_ACT_*; empty for the existing profile's. existing: another profile, which is
    valid and kept as it is. by: the program. Raises ConfigError when the project's own lint refuses the result."""
    document: dict[str, Any] = dict(existing or {})
    before: list[dict[str, Any]] = document.get("syscalls") or []
    known = {name for rule in before for name in names_of(rule)}  # under a condition too: that must not become any call
    allowed = {name for rule in before if rule["action"] == ALLOW and not _narrow(rule) for name in names_of(rule)}
    recorded = frozenset[str]().union(*(row.syscalls for row in rows))
    architectures = tuple(sorted({row.architecture for row in rows}))
    base = frozenset(name for name in RUNTIME if exists_on(name, architectures))
    rules = [
        _rule("Recorded of the application and the runtime.", recorded - known),
        _rule("Not recorded: what runc and crun may need to start the container.", base - recorded - known),
    ]
    comment = [*_origin(rows, by), *_left_out(recorded & known - allowed)]
    text = render(
        {
            "comment": comment,
            **{key: value for key, value in document.items() if key not in ("comment", "syscalls")},
            **({"defaultAction": default} if default or not existing else {}),
            "syscalls": [*before, *(rule for rule in rules if rule["names"])],
        }
    )
    if problems := lint(text, "the recorded profile"):
        raise ConfigError(problems)
    return Made(text, any(row.lost for row in rows))


def _narrow(rule: Mapping[str, Any]) -> bool:
    """Whether a rule is about some of the calls of its names only."""
    return bool(rule.get("args") or rule.get("includes") or rule.get("excludes"))


def names_of(rule: Mapping[str, Any]) -> Sequence[str]:
    """The syscalls of a valid profile's rule; the older form has one."""
    names: Sequence[str] = rule.get("names") or [rule["name"]]
    return names


def _rule(comment: str, names: Iterable[str]) -> dict[str, Any]:
    return {"comment": comment, "names": sorted(names), "action": ALLOW}


def _origin(rows: Sequence[RecordingRow], by: str) -> list[str]:
    """From what it was made, for how long, and how much was lost."""
    pods = sorted({f"{row.namespace}/{row.pod}" for row in rows})
    first, last = min(row.first for row in rows), max(row.last for row in rows)
    nodes = {row.node: row.lost for row in sorted(rows, key=lambda row: row.lost)}
    lost, calls = sum(nodes.values()), sum(row.calls for row in rows)
    return [
        f"Written by {by}. Not installed: review it, ship it as any profile, and delete the pods.",
        f"From {table.count(len(pods), 'pod')}: {', '.join(pods[:5])}{' …' if len(pods) > 5 else ''};",
        f"containers: {', '.join(sorted({row.container or row.id for row in rows})[:5])};",
        f"{table.stamp(first)} to {table.stamp(last)} ({table.age(last - first)}), {table.count(calls, 'call')},",
        f"on {', '.join(sorted({row.architecture for row in rows}))}.",
        f"INCOMPLETE: {table.count(lost, 'audit record')} lost on these nodes meanwhile; record again."
        if lost
        else "No audit record was lost meanwhile.",
        "What the workload did not do while it was recorded is refused: errors, shutdown, rare jobs.",
    ]


def _left_out(names: Iterable[str]) -> list[str]:
    listed = ", ".join(sorted(names))
    return [f"Recorded, and left as the existing profile has them: {listed}."] if listed else []


def render(document: Mapping[str, Any]) -> str:
    """JSON as the shipped profiles have it: names on lines of a readable length."""
    marks: dict[str, str] = {}
    rules = []
    for number, rule in enumerate(document["syscalls"]):
        mark = f"@names-{number}@"
        names = rule.get("names")
        if isinstance(names, list):
            marks[f'"{mark}"'] = _wrapped([json.dumps(name) for name in names])
            rule = {**rule, "names": mark}  # noqa: PLW2901 - the same rule, its names kept aside
        rules.append(rule)
    text = json.dumps({**document, "syscalls": rules}, indent=2)
    for quoted, names in marks.items():
        text = text.replace(quoted, names)
    return f"{text}\n"


def _wrapped(words: Sequence[str]) -> str:
    lines = [""]
    for word in words:
        if len(lines[-1]) + len(word) > _LINE_CHARACTERS:
            lines.append("")
        lines[-1] += f"{word}, "
    inside = "\n        ".join(line.rstrip() for line in lines).rstrip(",")
    return f"[\n        {inside}\n      ]"
