"""`validate PATH…`: configuration and profiles linted where they are written, before a node ever sees them.

What a file is, it says itself: a YAML's `kind`, JSON for seccomp, anything else that holds a profile for AppArmor. The
same texts inside a ConfigMap manifest are linted too, with the manifest's line numbers. It changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

import yaml

from agent import config
from agent.cli.table import Style
from agent.config.schema import KIND as CONFIG_KIND
from agent.controls import apparmor, modprobe, seccomp
from agent.errors import ConfigError, HostError, Problem, UsageError
from agent.host import Host

_LIMIT_BYTES = 4 << 20
_SKIPPED_ENDINGS = (".md", ".txt", ".rst", ".swp", "~")


class What(Enum):
    """What a file turned out to be."""

    CONFIG = "configuration"
    MODULES = "module deny list"
    SECCOMP = "seccomp profile"
    APPARMOR = "AppArmor profile"
    MANIFEST = "manifest"
    OTHER = "not ours"


@dataclass(frozen=True, slots=True)
class Text:
    """One text to lint. first_line: how many lines stand before it in its file (0 unless it is inside a manifest)."""

    file: str
    name: str
    content: str
    first_line: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """What was linted and what is wrong. unchecked: texts for which the tool was missing, with the reason."""

    checked: tuple[tuple[str, What], ...]
    problems: tuple[Problem, ...]
    unchecked: tuple[str, ...]

    def document(self) -> dict[str, object]:
        """The document that `-o json` and `-o yaml` print."""
        return {
            "status": "fail" if self.problems else "unknown" if self.unchecked else "pass",
            "checked": [{"file": file, "kind": what.value} for file, what in self.checked],
            "problems": [
                {"file": one.file, "line": one.line, "key": one.key, "message": one.message} for one in self.problems
            ],
            "unchecked": list(self.unchecked),
        }

    def text(self, style: Style) -> str:
        """The same for eyes: a line a file, problems first, a one-line verdict last."""
        lines = [style.paint(str(problem), "31;1") for problem in self.problems]
        lines += [style.paint(f"not checked: {reason}", "33;1") for reason in self.unchecked]
        bad = {problem.file for problem in self.problems}
        lines += [
            f"{style.paint('ok', '32')}  {file}  ({what.value})" for file, what in self.checked if file not in bad
        ]
        count = len(self.problems)
        if count:
            verdict = f"{count} problem{'s' if count != 1 else ''} in {len(bad)} of {len(self.checked)} texts."
        elif self.unchecked:
            verdict = f"{len(self.unchecked)} of {len(self.checked)} texts could not be checked."
        else:
            verdict = f"{len(self.checked)} text{'s' if len(self.checked) != 1 else ''} checked, no problem."
        return "\n".join([*lines, style.paint(verdict, "31;1" if count else "33;1" if self.unchecked else "32")]) + "\n"


def validate(paths: Sequence[str], host: Host) -> Result:
    """Lints every path; folders are walked. Raises UsageError for a path that is not there or holds nothing of ours."""
    checked: list[tuple[str, What]] = []
    problems: list[Problem] = []
    unchecked: list[str] = []
    for given in paths:
        found = False
        for file in _files(given):
            read = _read(file)
            if isinstance(read, Problem):
                checked.append((file, What.OTHER))
                problems.append(read)
                found = True
                continue
            for text in _texts(read, problems):
                what = what_is(text)
                if what is What.OTHER:
                    continue
                found = True
                checked.append((text.file, what))
                try:
                    problems += _shifted(lint(text, what, host), text)
                except HostError as error:
                    unchecked.append(f"{text.file}: {error}")
        if not found:
            raise UsageError(f"{given}: neither a configuration, a module deny list, a seccomp nor an AppArmor profile")
    return Result(tuple(checked), tuple(sorted(problems)), tuple(unchecked))


def lint(text: Text, what: What, host: Host) -> Sequence[Problem]:
    """Every problem of one text. Raises HostError when the tool that it needs is missing."""
    match what:
        case What.SECCOMP:
            return seccomp.lint(text.content, text.file)
        case What.APPARMOR:
            return apparmor.lint(text.content, text.file, host)
        case _:
            try:
                if what is What.CONFIG:
                    config.loads(text.content, text.file)
                else:
                    modprobe.load_list(text.content, text.file)
            except ConfigError as error:
                return error.problems
            return ()


def what_is(text: Text) -> What:
    """What a text says it is."""
    name = text.name.lower()
    if name.endswith(_SKIPPED_ENDINGS):
        return What.OTHER
    if name.endswith((".yaml", ".yml")):
        kinds = {CONFIG_KIND: What.CONFIG, modprobe.KIND: What.MODULES}
        # Read from the lines, not from the parsed document: a broken file still has to be linted as what it is.
        for line in text.content.splitlines():
            word, _, value = line.partition(":")
            if word == "kind":
                return kinds.get(value.split("#")[0].strip().strip("'\""), What.OTHER)
        return What.CONFIG if "config" in name else What.OTHER
    start = text.content.lstrip()
    if name.endswith(".json") or start.startswith("{"):
        return What.SECCOMP
    code = "\n".join(line for line in text.content.splitlines() if not line.lstrip().startswith("#"))
    return What.APPARMOR if "profile" in code or "{" in code else What.OTHER


def _files(given: str) -> Iterator[str]:
    path = Path(given)
    if not path.exists():
        raise UsageError(f"{given}: no such file or folder")
    if not path.is_dir():
        yield given
        return
    for folder, folders, names in os.walk(given):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if not name.startswith("."):
                yield str(Path(folder) / name)


def _read(file: str) -> Text | Problem:
    try:
        with Path(file).open("rb") as stream:
            content = stream.read(_LIMIT_BYTES + 1)
    except OSError as error:
        return Problem(file, 0, "", f"cannot be read: {error.strerror}")
    if len(content) > _LIMIT_BYTES:
        return Problem(file, 0, "", f"larger than {_LIMIT_BYTES} bytes")
    try:
        return Text(file, Path(file).name, content.decode())
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        return Problem(file, line, "", f"byte {content[error.start]:#04x} is not UTF-8")


def _texts(text: Text, problems: list[Problem]) -> Iterator[Text]:
    """The text itself, or the texts inside it when it is a manifest with ConfigMaps."""
    if not text.name.endswith((".yaml", ".yml")) or "ConfigMap" not in text.content:
        yield text
        return
    try:
        documents = list(yaml.compose_all(text.content, Loader=yaml.CSafeLoader))
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else 0
        problems.append(Problem(text.file, line, "", f"not YAML: {getattr(error, 'problem', None) or error}"))
        return
    inside = [one for document in documents for one in _config_map(document, text)]
    yield from inside or [text]


def _config_map(document: yaml.Node | None, text: Text) -> Iterator[Text]:
    top = _mapping(document)
    kind = top.get("kind")
    if not isinstance(kind, yaml.ScalarNode) or kind.value != "ConfigMap":
        return
    for name, value in _mapping(top.get("data")).items():
        if isinstance(value, yaml.ScalarNode):
            before = value.start_mark.line + (1 if value.style in ("|", ">") else 0)
            yield Text(text.file, name, value.value, before)


def _mapping(node: yaml.Node | None) -> dict[str, yaml.Node]:
    if not isinstance(node, yaml.MappingNode):
        return {}
    return {key.value: value for key, value in node.value if isinstance(key, yaml.ScalarNode)}


def _shifted(found: Sequence[Problem], text: Text) -> list[Problem]:
    if not text.first_line:
        return list(found)
    return [replace(one, line=one.line + text.first_line) for one in found]
