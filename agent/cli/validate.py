"""`validate PATH…`: configuration and profiles linted where they are written, before a node reads them.

A file's name and content decide what it is: a YAML's `kind`, JSON for seccomp, anything else that holds a profile for
AppArmor. The same texts inside a ConfigMap manifest are linted too, with the manifest's line numbers. What a valid
profile leaves open is a warning and does not change the exit code. A Helm chart's templates are skipped: validate what
`helm template` renders from them. It changes nothing.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from agent import config
from agent.cli.manifests import Text, texts
from agent.config.loader import decode, read_content
from agent.config.schema import KIND as CONFIG_KIND
from agent.controls import registry
from agent.controls.base import FileType, yaml_kind
from agent.errors import ConfigError, HostError, Problem, UsageError
from agent.host import Host
from agent.terminal import Style, printable

_LIMIT_BYTES = 4 << 20
_SKIPPED_ENDINGS = (".md", ".txt", ".rst", ".swp", "~")


def _lint_policy(content: str, path: str, _host: Host) -> Sequence[Problem]:
    try:
        config.loads(content, path)
    except ConfigError as error:
        return error.problems
    return ()


def _is_policy(content: str, path: str) -> bool:
    kind = yaml_kind(content, path)
    return kind == CONFIG_KIND or (kind == "" and "config" in path.lower())


_POLICY = FileType("configuration", _is_policy, _lint_policy)


@dataclass(slots=True)
class Result:
    """What was linted (file and kind) and what is wrong.

    unchecked: texts for which the tool was missing, with the reason. warnings: what valid profiles leave open.
    """

    checked: list[tuple[str, str]] = field(default_factory=list)
    problems: list[Problem] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    warnings: list[Problem] = field(default_factory=list)

    def document(self) -> dict[str, object]:
        """The document that `-o json` and `-o yaml` print."""
        return {
            "status": "fail" if self.problems else "unknown" if self.unchecked else "pass",
            "checked": [{"file": file, "kind": kind} for file, kind in self.checked],
            "problems": [_document(one) for one in self.problems],
            "warnings": [_document(one) for one in self.warnings],
            "unchecked": self.unchecked,
        }

    def text(self, style: Style) -> str:
        """The same as text: a line a file, problems first, a one-line verdict last."""
        lines = [style.paint(printable(str(problem)), "31;1") for problem in self.problems]
        lines += [style.paint(printable(f"not checked: {reason}"), "33;1") for reason in self.unchecked]
        lines += [style.paint(printable(f"warning: {one}"), "33") for one in self.warnings]
        bad = {problem.file for problem in self.problems}
        ok = style.paint("ok", "32")
        lines += [f"{ok}  {printable(file)}  ({kind})" for file, kind in self.checked if file not in bad]
        colour = "31;1" if self.problems else "33;1" if self.unchecked else "32"
        return "\n".join([*lines, style.paint(self._verdict(len(bad)), colour)]) + "\n"

    def _verdict(self, bad: int) -> str:
        if self.problems:
            count, files = len(self.problems), len({file for file, _ in self.checked})
            return f"{count} problem{'s' * (count != 1)} in {bad} of {files} file{'s' * (files != 1)}."
        count = len(self.checked)
        if self.unchecked:
            return f"{len(self.unchecked)} of {count} texts not checked."
        return f"{count} text{'s' * (count != 1)} checked, no problems."


def validate(paths: Sequence[str], host: Host) -> Result:
    """Lints every path and every file of a folder. Raises UsageError for a path without anything to lint."""
    result = Result()
    for given in paths:
        walked = Path(given).is_dir()
        held = [_lint_file(file, host, result, walked=walked) for file in _files(given)]
        if not any(held):
            raise UsageError(f"{given}: neither a configuration, a module deny list, a seccomp nor an AppArmor profile")
    result.problems.sort()
    result.warnings.sort()
    return result


def _lint_file(file: str, host: Host, result: Result, *, walked: bool) -> bool:
    """Whether the file holds anything to lint. walked: found in a folder, where other programs' files may lie."""
    try:
        content = read_content(file, _LIMIT_BYTES)
        # By git's rule; what is called YAML or JSON is linted all the same.
        if walked and b"\0" in content[:8000] and not file.endswith((".yaml", ".yml", ".json")):
            return False
        inside = texts(Text(file, Path(file).name, decode(content, file)))
    except ConfigError as error:
        result.checked.append((file, "unknown"))
        result.problems += error.problems
        return True
    found = [(text, kind) for text in inside if (kind := _file_type(text, walked=walked)) is not None]
    for text, kind in found:
        _lint_text(text, kind, host, result)
    return bool(found)


def _lint_text(text: Text, kind: FileType, host: Host, result: Result) -> None:
    result.checked.append((text.file, kind.label))
    try:
        problems = kind.lint(text.content, text.file, host)
    except HostError as error:
        result.unchecked.append(f"{text.file}: {error}")
        return
    result.problems += _shifted(problems, text)
    if not problems:
        result.warnings += _shifted(kind.advise(text.content, text.file), text)


def _file_type(text: Text, *, walked: bool) -> FileType | None:
    if text.name.lower().endswith(_SKIPPED_ENDINGS):
        return None
    types = (_POLICY, *(spec.file_type for spec in registry.CONTROLS if spec.file_type is not None))
    found = next((one for one in types if one.matches(text.content, text.name)), None)
    return None if found is None or (walked and not found.is_certain(text.content, text.file)) else found


def _files(given: str) -> Iterator[str]:
    path = Path(given)
    if not path.exists():
        raise UsageError(f"{given}: no such file or folder")
    if not path.is_dir():
        yield given
        return
    for folder, folders, names in os.walk(given):
        # A chart's templates are not YAML before helm has rendered them.
        unread = ("templates",) if "Chart.yaml" in names else ()
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in unread)
        for name in sorted(names):
            if not name.startswith("."):
                yield str(Path(folder) / name)


def _document(one: Problem) -> dict[str, object]:
    return {"file": one.file, "line": one.line, "key": one.key, "message": one.message}


def _shifted(found: Sequence[Problem], text: Text) -> list[Problem]:
    return [replace(one, line=one.line + text.first_line) for one in found]
