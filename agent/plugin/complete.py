"""Words that may come next on the command line: for the shells' completion, and for kubectl's own hook.

kubectl runs `kubectl_complete-node_hardening WORD…` when a user presses Tab behind `kubectl node-hardening`, and
reads a line each (`word<TAB>description`), then `:4` for "and no file names".
Source: https://kubernetes.io/docs/tasks/extend-kubectl/kubectl-plugins/ and cobra's ShellCompDirectiveNoFileComp.
Nodes and locks are read with short timeouts. It never prints an error: what cannot be read is not offered.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from agent.errors import AgentError
from agent.kube import NODES, Kube, RetryPolicy, find
from agent.kube.credentials import Impersonation
from agent.plugin.cluster import locks, values
from agent.plugin.commands import COMMANDS
from agent.plugin.main import parser
from agent.plugin.session import NAMESPACE

_NO_FILES, _FILES = ":4", ":0"
_RETRY = RetryPolicy(seconds=3.0, attempts=1, connect_seconds=1.0, read_seconds=3.0)
_NODES_OFFERED = 2000
_FILE_OPTIONS = frozenset({"--kubeconfig", "-O", "--output-file", "--exceptions"})

Names = Callable[[str], Iterable[str]]  # from a metavar such as NODE to its possible values


def main(argv: Sequence[str] | None = None) -> int:
    """The entry point `kubectl_complete-node_hardening`."""
    words = list(sys.argv[1:] if argv is None else argv)
    found = list(candidates(parser(COMMANDS), words, lambda what: _read(what, words, os.environ)))
    sys.stdout.write("".join(f"{line}\n" for line in [*found, _FILES if _takes_file(words) else _NO_FILES]))
    return 0


def candidates(top: argparse.ArgumentParser, words: Sequence[str], names: Names) -> Iterator[str]:
    """`word<TAB>description` for what may replace the last word, which may be empty. Pure except for `names`."""
    *before, last = words or [""]
    commands = _commands(top)
    chosen = next((word for word in before if word in commands), "")
    current = commands[chosen] if chosen else top
    options = {name: action for action in current._actions for name in action.option_strings}
    waiting = options.get(before[-1]) if before else None
    if waiting is not None and waiting.nargs != 0:
        yield from _starting(last, waiting.choices or names(str(waiting.metavar or "")))
        return
    if last.startswith("-"):
        yield from _options(current, last)
        return
    if not chosen:
        yield from (f"{one.name}\t{one.help}" for one in COMMANDS if one.name.startswith(last))
        return
    given = _positionals_given(before[before.index(chosen) + 1 :], options)
    expected = [action for action in current._actions if not action.option_strings]
    if given < len(expected):
        action = expected[given]
        yield from _starting(last, action.choices or names(str(action.metavar or "")))


def _options(current: argparse.ArgumentParser, last: str) -> Iterator[str]:
    for action in current._actions:
        help_text = (action.help or "").partition(" (default")[0]
        long = [name for name in action.option_strings if name.startswith("--")]
        yield from (f"{name}\t{help_text}" for name in long if name.startswith(last))


def _starting(last: str, names: Iterable[object]) -> Iterator[str]:
    yield from (name for name in map(str, names) if name.startswith(last))


def _commands(top: argparse.ArgumentParser) -> Mapping[str, argparse.ArgumentParser]:
    for action in top._actions:
        if isinstance(action, argparse._SubParsersAction):
            return action.choices
    return {}


def _positionals_given(words: Sequence[str], options: Mapping[str, argparse.Action]) -> int:
    """How many of the words are arguments of their own, neither options nor options' values."""
    number, skip = 0, False
    for word in words:
        if skip:
            skip = False
        elif word.startswith("-"):
            action = options.get(word)
            skip = action is not None and action.nargs != 0
        else:
            number += 1
    return number


def _takes_file(words: Sequence[str]) -> bool:
    return len(words) > 1 and words[-2] in _FILE_OPTIONS


def _read(what: str, words: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """Names from the cluster; none where it cannot be read."""
    if "NODE" not in what and "SLOT" not in what:
        return []
    try:
        group = _value(words, "--as-group")
        access = find(
            environment,
            kubeconfig=_value(words, "--kubeconfig"),
            context=_value(words, "--context"),
            cluster=_value(words, "--cluster"),
            user=_value(words, "--user"),
            impersonation=Impersonation(_value(words, "--as"), (group,) if group else ()),
        )
        kube = Kube(access, node="kubectl-completion", retry=_RETRY)
        found: list[str] = []
        if "SLOT" in what:
            namespace = _value(words, "-n") or _value(words, "--namespace") or NAMESPACE
            found += [lock.name for lock in locks.read(kube, namespace) if not lock.is_free]
        if "NODE" in what:
            for page in kube.list(NODES, page_size=500).pages():
                found += [values.name(values.part(one, "metadata").get("name")) for one in page]
                if len(found) > _NODES_OFFERED:
                    break
        return found
    except AgentError:
        return []


def _value(words: Sequence[str], option: str) -> str:
    for word, following in zip(words, [*words[1:], ""], strict=True):
        if word == option:
            return following
        if word.startswith(f"{option}="):
            return word.partition("=")[2]
    return ""
