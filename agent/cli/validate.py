"""`validate PATH…`: configuration and profiles linted where they are written, before a node ever sees them.

What a file is, it says itself: a YAML's `kind`, JSON for seccomp, anything else that holds a profile for AppArmor. The
same texts inside a ConfigMap manifest are linted too, with the manifest's line numbers. What a valid profile leaves
open is a warning and costs nobody their exit code. A Helm chart's templates are passed over: what `helm template`
makes of them can be validated. It changes nothing.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from pathlib import Path

from agent import config
from agent.cli.manifests import Text, texts
from agent.config.schema import KIND as CONFIG_KIND
from agent.controls import apparmor, modprobe, seccomp
from agent.errors import ConfigError, HostError, Problem, UsageError
from agent.host import Host
from agent.terminal import Style, printable

_LIMIT_BYTES = 4 << 20
_SKIPPED_ENDINGS = (".md", ".txt", ".rst", ".swp", "~")
_SAYS_SECCOMP = re.compile(r'"defaultAction"|"syscalls"|SCMP_ACT_')
_SAYS_APPARMOR = re.compile(
    r"""^[ \t]*(
        profile [ \t]+ ["@/:\w] [^=()\n]* \{ [ \t]*$         # profile NAME {
        | "? (/|@\{) [^=():\n]* \{ [ \t]*$                   # /usr/bin/foo {
        | abi [ \t]+ <
        | \#? include [ \t]+ < (abstractions|tunables)
    )""",
    re.MULTILINE | re.VERBOSE,
)


class What(Enum):
    """What a file turned out to be."""

    CONFIG = "configuration"
    MODULES = "module deny list"
    SECCOMP = "seccomp profile"
    APPARMOR = "AppArmor profile"
    OTHER = "not ours"


@dataclass(frozen=True, slots=True)
class Result:
    """What was linted and what is wrong.

    unchecked: texts for which the tool was missing, with the reason. warnings: what valid profiles leave open.
    """

    checked: tuple[tuple[str, What], ...]
    problems: tuple[Problem, ...]
    unchecked: tuple[str, ...]
    warnings: tuple[Problem, ...] = ()

    def document(self) -> dict[str, object]:
        """The document that `-o json` and `-o yaml` print."""
        return {
            "status": "fail" if self.problems else "unknown" if self.unchecked else "pass",
            "checked": [{"file": file, "kind": what.value} for file, what in self.checked],
            "problems": [_document(one) for one in self.problems],
            "warnings": [_document(one) for one in self.warnings],
            "unchecked": list(self.unchecked),
        }

    def text(self, style: Style) -> str:
        """The same for eyes: a line a file, problems first, a one-line verdict last."""
        lines = [style.paint(printable(str(problem)), "31;1") for problem in self.problems]
        lines += [style.paint(printable(f"not checked: {reason}"), "33;1") for reason in self.unchecked]
        lines += [style.paint(printable(f"warning: {one}"), "33") for one in self.warnings]
        bad = {problem.file for problem in self.problems}
        lines += [
            f"{style.paint('ok', '32')}  {printable(file)}  ({what.value})"
            for file, what in self.checked
            if file not in bad
        ]
        count = len(self.problems)
        if count:
            files = len({file for file, _ in self.checked})
            verdict = f"{count} problem{'s' if count != 1 else ''} in {len(bad)} of {files} file{'s' * (files != 1)}."
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
    warnings: list[Problem] = []
    for given in paths:
        found = False
        walked = Path(given).is_dir()
        for file in _files(given):
            try:
                content = _read(file)
                if walked and _is_binary(file, content):
                    continue
                inside = texts(_text(file, content))
            except ConfigError as error:
                checked.append((file, What.OTHER))
                problems += error.problems
                found = True
                continue
            for text in inside:
                what = what_is(text)
                if what is What.OTHER or (walked and not _is_meant(text, what)):
                    continue
                found = True
                checked.append((text.file, what))
                try:
                    wrong = lint(text, what, host)
                    problems += _shifted(wrong, text)
                    if what is What.SECCOMP and not wrong:
                        warnings += _shifted(seccomp.advise(text.content, text.file), text)
                except HostError as error:
                    unchecked.append(f"{text.file}: {error}")
        if not found:
            raise UsageError(f"{given}: neither a configuration, a module deny list, a seccomp nor an AppArmor profile")
    return Result(tuple(checked), tuple(sorted(problems)), tuple(unchecked), tuple(sorted(warnings)))


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


def _is_meant(text: Text, what: What) -> bool:
    """Whether a file that nobody named is what it might be: a folder may hold code and other people's JSON too."""
    path = Path(text.file)
    match what:
        case What.SECCOMP:
            return path.parent.name == "seccomp" or _SAYS_SECCOMP.search(text.content) is not None
        case What.APPARMOR:
            return (path.parent.name == "apparmor" and not path.suffix) or _SAYS_APPARMOR.search(
                text.content
            ) is not None
        case _:
            return True


def _is_binary(file: str, content: bytes) -> bool:
    """By git's rule; what is called YAML or JSON is linted all the same."""
    return b"\0" in content[:8000] and not file.endswith((".yaml", ".yml", ".json"))


def _files(given: str) -> Iterator[str]:
    path = Path(given)
    if not path.exists():
        raise UsageError(f"{given}: no such file or folder")
    if not path.is_dir():
        yield given
        return
    for folder, folders, names in os.walk(given):
        # A chart's templates are no YAML before helm has rendered them.
        unread = ("templates",) if "Chart.yaml" in names else ()
        folders[:] = sorted(name for name in folders if not name.startswith(".") and name not in unread)
        for name in sorted(names):
            if not name.startswith("."):
                yield str(Path(folder) / name)


def _read(file: str) -> bytes:
    """The file's content. Raises ConfigError."""
    try:
        # O_NONBLOCK: a FIFO in place of a file must not hold a CI job up.
        fd = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(fd, "rb") as stream:
            if not stat.S_ISREG(os.fstat(fd).st_mode):
                raise ConfigError([Problem(file, 0, "", "not a regular file")])
            content = stream.read(_LIMIT_BYTES + 1)
    except OSError as error:
        raise ConfigError([Problem(file, 0, "", f"cannot be read: {error.strerror}")]) from error
    if len(content) > _LIMIT_BYTES:
        raise ConfigError([Problem(file, 0, "", f"larger than {_LIMIT_BYTES >> 20} MiB")])
    return content


def _text(file: str, content: bytes) -> Text:
    try:
        return Text(file, Path(file).name, content.decode())
    except UnicodeDecodeError as error:
        line = content[: error.start].count(b"\n") + 1
        raise ConfigError([Problem(file, line, "", f"byte {content[error.start]:#04x} is not UTF-8")]) from error


def _document(one: Problem) -> dict[str, object]:
    return {"file": one.file, "line": one.line, "key": one.key, "message": one.message}


def _shifted(found: Sequence[Problem], text: Text) -> list[Problem]:
    if not text.first_line:
        return list(found)
    return [replace(one, line=one.line + text.first_line) for one in found]
