"""`validate PATH…`: configuration and profiles linted where they are written, before a node reads them.

Evidence decides what a text is: its kind, a ConfigMap of ours or the chart's values around it, its content, or the user
who names its type. Then every problem counts. What is not ours is skipped and counted; what may be ours and could not
be judged is listed, and fails with --strict. It changes nothing.
"""

from __future__ import annotations

import codecs
import os
import re
import stat
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from agent import config
from agent.cli.dangers import advise
from agent.cli.manifests import POLICY, Text, is_object, names_our_map, texts
from agent.config.loader import decode, read_content
from agent.config.overrides import Origin, matching, origins
from agent.config.recognition import Claim, policy_claim
from agent.config.selector import KEY, VALUE
from agent.config.validation import refused
from agent.controls import registry
from agent.controls.base import FileType
from agent.errors import ConfigError, HostError, Problem, UsageError
from agent.host import Host

STDIN = "-"
_LIMIT_BYTES = 4 << 20
_BINARY_BYTES = 8000  # a NUL byte in them makes a file binary, as in git's buffer_is_binary
_PROSE = (".md", ".txt", ".rst", ".swp", "~")
_NOT_OURS = "no policy, deny list or profile"
_UTF16_MARKS = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_TEMPLATE = "a template of a Helm chart: validate what `helm template` renders"


def _lint_policy(content: str, path: str, _host: Host) -> Sequence[Problem]:
    try:
        config.loads(content, path)
    except ConfigError as error:
        return error.problems
    return ()


def labels_of(text: str) -> dict[str, str]:
    """`a=b,c=d` as labels. Raises UsageError."""
    labels = {}
    for part in filter(None, text.split(",")):
        name, _, value = part.partition("=")
        if not (re.fullmatch(KEY, name) and re.fullmatch(VALUE, value)):
            raise UsageError(f"--labels: {part!r} is not a label: write key=value, several with commas")
        labels[name] = value
    return labels


def file_types(targets: Sequence[str] = ()) -> Mapping[str, FileType]:
    """Every type of file that is linted, by its word on the command line. targets: words of --target."""
    found = {spec.name: spec.file_type for spec in registry.CONTROLS if spec.file_type is not None}
    controls = {name: one.aimed(targets) if targets and one.aimed else one for name, one in found.items()}
    return controls | {POLICY: FileType("configuration", policy_claim, _lint_policy, advise)}


class Skipped(NamedTuple):
    """A file that was not linted. in_doubt: it may be ours, and could not be judged."""

    file: str
    reason: str
    in_doubt: bool


class Checked(NamedTuple):
    """A text that was linted. key: the ConfigMap's, where the text is one of its values."""

    file: str
    kind: str
    key: str = ""


@dataclass(slots=True)
class Result:
    """What was linted and what is wrong.

    policies: each valid one, merged for the labels that were given.
    unchecked: texts of ours that could not be linted, with the reason. warnings: what valid profiles leave open.
    """

    checked: list[Checked] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)
    policies: list[tuple[str, list[Origin]]] = field(default_factory=list)
    skipped: list[Skipped] = field(default_factory=list)

    @property
    def doubts(self) -> list[str]:
        """What could not be judged, although it may be ours."""
        return [f"{one.file}: {one.reason}" for one in self.skipped if one.in_doubt]


def validate(
    paths: Sequence[str],
    host: Host,
    forced: str = "",
    targets: Sequence[str] = (),
    labels: Mapping[str, str] | None = None,
) -> Result:
    """Lints every path, every file of a folder, and standard input for `-`. forced: the type of all of them. targets:
    the nodes that they are for, words of --target. labels: of a node whose policy is to be shown.

    Raises UsageError for a path that does not exist, a folder without files and a word that is no target.
    """
    result = Result()
    linter = _Linter(host, result, file_types(targets), forced, labels)
    for given in paths:
        linter.path(given)
    result.problems.sort()
    result.warnings.sort()
    return result


@dataclass(slots=True)
class _Linter:
    host: Host
    result: Result
    types: Mapping[str, FileType]
    forced: str
    labels: Mapping[str, str] | None

    def path(self, given: str) -> None:
        if given == STDIN:
            content = sys.stdin.buffer.read(_LIMIT_BYTES + 1)
            if not content.strip() and not self.forced:
                raise UsageError("standard input is empty: did the command before it fail?")
            self._content("<stdin>", content, is_named=True)
            return
        try:
            is_folder = stat.S_ISDIR(os.stat(given).st_mode)  # noqa: PTH116 - Path hides the reason
        except OSError as error:
            raise UsageError(f"{given}: {_reason(error)}") from error
        if is_folder:
            before = self._count
            self._folder(given)
            if self._count == before:
                raise UsageError(f"{given}: holds no files")
            return
        try:
            content = read_content(given, _LIMIT_BYTES)
        except ConfigError as error:
            self._wrong(given, error.problems)
        else:
            self._content(given, content, is_named=True)

    @property
    def _count(self) -> int:
        return len(self.result.checked) + len(self.result.skipped) + len(self.result.unchecked)

    def _folder(self, given: str) -> None:
        def unreadable(error: OSError) -> None:
            self.result.unchecked.append(f"{error.filename}: cannot be read: {_reason(error)}")

        charts: set[str] = set()
        for place, folders, names in os.walk(os.path.normpath(given), onerror=unreadable):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            if "Chart.yaml" in names:
                charts.add(os.path.join(place, "templates"))  # noqa: PTH118
            if os.path.dirname(place) in charts:  # noqa: PTH120
                charts.add(place)
            for name in folders:
                if os.path.islink(link := os.path.join(place, name)):  # noqa: PTH114, PTH118
                    self._skip(link, "a link to a folder")
            for name in sorted(name for name in names if not name.startswith(".")):
                self._found(os.path.normpath(os.path.join(place, name)), is_template=place in charts)  # noqa: PTH118

    def _found(self, file: str, *, is_template: bool) -> None:
        try:
            if not stat.S_ISREG(os.stat(file).st_mode):  # noqa: PTH116
                self._skip(file, "not a regular file")
                return
            with open(file, "rb") as stream:
                content = stream.read(_LIMIT_BYTES + 1)
        except OSError as error:
            if os.path.lexists(file) and not os.path.exists(file):  # noqa: PTH110
                self._skip(file, "a link to nothing")
            else:
                self.result.unchecked.append(f"{file}: cannot be read: {_reason(error)}")
            return
        if is_template:
            self._skip(file, _TEMPLATE, in_doubt=names_our_map(content.decode(errors="replace")))
        elif b"\0" in content[:_BINARY_BYTES] and content[:2] not in _UTF16_MARKS:
            self._skip(file, "a binary file")
        else:
            self._content(file, content, is_named=False)

    def _content(self, file: str, content: bytes, *, is_named: bool) -> None:
        text = content.decode("utf-16" if content[:2] in _UTF16_MARKS else "utf-8", errors="replace")
        given = Text(file, file, text, is_named=is_named, type=self.forced)
        broken = _not_text(content, file)
        found = []
        try:
            found = [(one, kind) for one in texts(given) if (kind := self._type(one)) is not None]
        except ConfigError as error:
            if not (is_named or self._type(given) is not None or names_our_map(text)):
                self._skip(file, error.problems[0].message, in_doubt=not broken)
                return
            broken = broken or error.problems
        if broken and (found or is_named or names_our_map(text)):
            self._wrong(file, broken)
        elif found:
            for one, kind in found:
                self._lint(one, kind)
        elif is_named and not is_object(text) and not file.endswith(_PROSE):
            self._wrong(file, [Problem(file, 0, "", f"its type is unknown: name it with --as {'|'.join(self.types)}")])
        else:
            self._skip(file, broken[0].message if broken else _NOT_OURS)

    def _type(self, text: Text) -> FileType | None:
        if text.type:
            return self.types[text.type]
        if text.name.lower().endswith(_PROSE):
            return None
        claims = [(one.claim(text.content, text.name), one) for one in self.types.values()]
        claim, kind = max(claims, key=lambda pair: pair[0])
        return kind if claim >= (Claim.POSSIBLE if text.is_named else Claim.CERTAIN) else None

    def _lint(self, text: Text, kind: FileType) -> None:
        self.result.checked.append(Checked(text.file, kind.label, text.name if text.name != text.file else ""))
        try:
            problems = kind.lint(text.content, text.file, self.host)
        except HostError as error:
            self.result.unchecked.append(f"{text.file}: {error}")
            return
        self.result.problems += _shifted(problems, text)
        if not problems:
            self.result.warnings += _shifted(kind.advise(text.content, text.file), text)
            if self.labels is not None and kind is self.types[POLICY]:
                self._merge(text, self.labels)

    def _merge(self, text: Text, labels: Mapping[str, str]) -> None:
        """Rules that only overrides together break are found for these labels."""
        made, lines = config.read(text.content, text.file)
        broken = refused(made, matching(made, labels))
        self.result.problems += [
            Problem(text.file, 0, key, f"{message} (with these labels)") for key, message in broken
        ]
        shifted = [replace(one, line=one.line and one.line + text.first_line) for one in origins(made, lines, labels)]
        self.result.policies.append((text.file, shifted))

    def _wrong(self, file: str, problems: Sequence[Problem]) -> None:
        self.result.checked.append(Checked(file, "unknown"))
        self.result.problems += problems

    def _skip(self, file: str, reason: str, *, in_doubt: bool = False) -> None:
        self.result.skipped.append(Skipped(file, reason, in_doubt))


def _not_text(content: bytes, file: str) -> Sequence[Problem]:
    """Why a file cannot be read whole as text; empty where it can."""
    if len(content) > _LIMIT_BYTES:
        return [Problem(file, 0, "", f"is larger than {_LIMIT_BYTES >> 20}MiB")]
    try:
        decode(content, file)
    except ConfigError as error:
        return error.problems
    return ()


def _reason(error: OSError) -> str:
    return error.strerror or str(error)


def _shifted(found: Sequence[Problem], text: Text) -> list[Problem]:
    return [replace(one, line=one.line + text.first_line) for one in found]
