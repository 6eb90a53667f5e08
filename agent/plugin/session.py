"""The interface of every command, and the session that it is given: cluster, streams, clock, the user's terminal.

A command never prints by itself or reads the clock: everything goes through its session, so that a test controls it.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from functools import cached_property
from typing import Any, TextIO

from agent.config import units
from agent.errors import KubeError, UsageError
from agent.kube import Kube, Resource
from agent.plugin.cluster import values
from agent.terminal import Style, document_text
from agent.text import sanitize

OK, NOT_WELL, USAGE, COULD_NOT = 0, 1, 2, 3
NAMESPACE = "node-hardening"
UNKNOWN_USER = "unknown"
USER_CHARACTERS = 80
_REVIEWS = Resource("authentication.k8s.io", "v1", "selfsubjectreviews", "SelfSubjectReview", namespaced=False)
_CONTEXT = re.compile(r"context (?P<name>.+) of .+", re.DOTALL)


class Form(StrEnum):
    """How a result is written."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"
    JUNIT = "junit"
    KUBE_BENCH = "kube-bench"
    POLICY_REPORT = "policyreport"

    @property
    def is_document(self) -> bool:
        """For programs: one document and nothing else on standard output."""
        return self in (Form.JSON, Form.YAML)


COMMON_FORMS = (Form.TABLE, Form.WIDE, Form.JSON, Form.YAML)  # of every command; the others are for findings


@dataclass
class Session:
    """What a command works with.

    connect: makes the API client on first use. namespace: the agent's. out: results; err: everything else. style: of
    `out`. now: epoch seconds. ask: puts a question and returns the user's line; None without a terminal.
    yes: confirmed on the command line. dry_run: the API server checks a change and does not make it.
    contexts: those of the kubeconfig; connect_to: makes the client of one of them.
    """

    connect: Callable[[], Kube]
    namespace: str
    form: Form
    out: TextIO
    err: TextIO
    now: Callable[[], float]
    style: Style = field(default_factory=Style)
    ask: Callable[[str], str] | None = None
    yes: bool = False
    dry_run: bool = False
    live: bool = False  # `err` is a terminal: progress may be shown there
    environment: Mapping[str, str] = field(default_factory=dict)
    contexts: Callable[[], Sequence[str]] = tuple
    connect_to: Callable[[str], Kube] = field(default_factory=lambda: _no_context)

    @cached_property
    def kube(self) -> Kube:
        """The API server. Raises ConfigError for a kubeconfig that does not hold."""
        return self.connect()

    @property
    def context(self) -> str:
        """What the kubeconfig calls the cluster; not its address, which does not belong on what is mailed."""
        match = _CONTEXT.fullmatch(self.kube.source)
        return values.text(match["name"]) if match else ""

    @cached_property
    def user(self) -> str:
        """The user's name, as the API server has it; else as their kubeconfig calls them; else `unknown`."""
        try:
            name = values.text(user_info(self.kube).get("username"), USER_CHARACTERS)
        except KubeError:
            name = ""
        return name or sanitize(self.kube.user, USER_CHARACTERS) or UNKNOWN_USER

    def close(self) -> None:
        """Ends its connections, from any thread, where there are any."""
        if "kube" in self.__dict__:
            self.kube.close()

    def write(self, text: str) -> None:
        """One part of the result, with a newline behind it unless it has one or is empty."""
        self.out.write(text if not text or text.endswith("\n") else f"{text}\n")

    def note(self, text: str) -> None:
        """Something that is no part of the result."""
        self.err.write(f"{text}\n")

    def document(self, document: Mapping[str, Any]) -> None:
        """The result for programs, as JSON or YAML."""
        self.write(document_text(document, self.form, self.out))

    def show(self, document: Callable[[], Mapping[str, Any]], text: Callable[[], str]) -> None:
        """The result, as -o has it: only that one of the two is made."""
        if self.form.is_document:
            self.document(document())
        else:
            self.write(text())

    def confirm(self, question: str) -> bool:
        """Whether the user, or --yes, confirms. Only `y` and `yes` do. Raises UsageError without a terminal."""
        if self.yes:
            return True
        if self.ask is None:
            raise UsageError("not a terminal: pass --yes to confirm; nothing was changed")
        return self.ask(f"{question} [y/N] ").strip().lower() in ("y", "yes")


@dataclass(frozen=True, slots=True)
class Command:
    """One command. help: one line. configure: adds its own arguments. run: does it and returns the exit code.

    forms: what -o may be.

    `run` raises AgentError for what cannot be done; agent/plugin/main.py turns that into a message and a code.
    """

    name: str
    help: str
    configure: Callable[[argparse.ArgumentParser], None]
    run: Callable[[argparse.Namespace, Session], int]
    forms: tuple[Form, ...] = COMMON_FORMS


def user_info(kube: Kube) -> Mapping[str, Any]:
    """The user as the API server knows them: username, groups, extra. Raises KubeError.

    https://kubernetes.io/docs/reference/kubernetes-api/authentication-resources/self-subject-review-v1/ (1.28)
    """
    body = {"apiVersion": _REVIEWS.api_version, "kind": _REVIEWS.kind, "metadata": {}}
    return values.part(kube.create(_REVIEWS, body), "status", "userInfo")


def _no_context(name: str) -> Kube:
    raise UsageError(f"there is no context {name}")


def duration_of(option: str, text: str, hint: str = "") -> float:
    """Seconds of an option such as `4h`, from 1s to a year. hint: what else helps. Raises UsageError."""
    try:
        seconds = units.duration(text)
    except ValueError as error:
        raise UsageError(f"{option}: {error}{hint}") from error
    if not 1 <= seconds <= units.YEAR_SECONDS:
        raise UsageError(f"{option} {text}: write 1s to 366d{hint}")
    return seconds


def add_contexts(parser: argparse.ArgumentParser) -> None:
    """The option --contexts: `options.contexts`, None for one cluster."""
    parser.add_argument(
        "--contexts", action="append", metavar="GLOB",
        help="all clusters whose context matches, such as 'prod-*'; may be repeated",
    )  # fmt: skip


def add_node(parser: argparse.ArgumentParser, *, optional: bool = False) -> None:
    """The argument NODE: `options.node`, empty when it may be left out and was."""
    if optional:
        parser.add_argument("node", nargs="?", default="", metavar="NODE", help="one node's name")
    else:
        parser.add_argument("node", metavar="NODE", help="the node's name")


def add_selector(parser: argparse.ArgumentParser) -> None:
    """The option -l: `options.selector`, empty for all nodes."""
    parser.add_argument(
        "-l", "--selector", default="", metavar="QUERY", help="only nodes with these labels, as kubectl"
    )
