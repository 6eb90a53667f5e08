"""What an install command comes to: whether the shell that modprobe gives it to may load something, and how it ends.

Pure, and conservative: only a command whose every reachable part is known to load nothing counts as a refusal, so
whatever is not understood (substitution, control structures, an unknown program) may load the module. modprobe runs
`system(command)` and fails when the shell's exit code is not zero: kmod's libkmod/libkmod-module.c (command_do).
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence
from enum import Enum


class Refusal(Enum):
    """What an install command comes to."""

    FAILS = "the module is not loaded, and modprobe fails"
    PRETENDS = "the module is not loaded, and modprobe reports success"
    NONE = "the command may load the module"


# Plain characters, quoted text, and variables as arguments; a word may contain # but not begin with it.
_PART = r"""(?:[\w./:,=+@%^-]|'[^']*'|"(?:[^"$`\\]|\$\w+)*"|\$\w+)"""
_TOKEN = re.compile(
    rf"(?P<blank>[ \t]+|\#.*)|(?P<redirect>\d*(?:>>|>\||>|<)(?:&[\d-]|[ \t]*{_PART}+))"
    rf"|(?P<operator>&&|\|\||[;|&])|(?P<word>{_PART}(?:{_PART}|\#)*)"
)
# Where a program of the base system is: usr-merged and not, and NixOS.
_PROGRAM = re.compile(
    r"(?:/(?:usr/(?:local/)?)?s?bin/|/run/current-system/sw/bin/|/nix/store/[\w.+-]+/bin/)?"
    r"(?P<name>false|true|logger|echo|printf)"
)
# What runs the program behind it: `exec` ends the shell with it. Behind `env` the shell's own words are none.
_PREFIX = re.compile(r"exec|command")
_ENV = re.compile(r"(?:/usr/bin/|/bin/)?env")
_SHELL = re.compile(r"(?:/usr/bin/|/bin/)?(?:ba|da)?sh")
_QUOTED = re.compile(r"""'([^']*)'|"([^"$`\\]*)"|([\w./-]+)""")
_TO_FILE = re.compile(r"[\d<>|]*[ \t]*(?P<file>/dev/(?:null|kmsg|console|stdout|stderr)|/(?:var|run|tmp)/[\w./-]+)")
_OK, _FAILED = frozenset({0}), frozenset({1})
_EITHER = _OK | _FAILED
_ENDS = {"false": _FAILED, "true": _OK, ":": _OK, "logger": _EITHER, "echo": _EITHER, "printf": _EITHER}


class _MayLoadError(Exception):
    """Some part is not known to load nothing."""


def refusal(command: str) -> Refusal:
    """What `sh -c COMMAND` does about a module."""
    try:
        return Refusal.FAILS if _Shell(command).run() == _FAILED else Refusal.PRETENDS
    except _MayLoadError:
        return Refusal.NONE


def _redirect(text: str) -> bool:
    """Whether a redirection surely succeeds. Raises _MayLoadError: opening a device or a file of sysfs may load."""
    if "&" in text:
        return text.lstrip("0123456789") in (">&1", ">&2")
    match = _TO_FILE.fullmatch(text)
    if match is None or ".." in text:
        raise _MayLoadError
    return match["file"] == "/dev/null"


class _Shell:
    """One command line. A result is the set of exit codes that are possible: 0, and 1 for any other."""

    def __init__(self, command: str) -> None:
        self._tokens: list[tuple[str, str]] = []
        self._ended: frozenset[int] = frozenset()  # results of an `exit`
        end = 0
        while end < len(command):
            match = _TOKEN.match(command, end)
            if match is None:
                raise _MayLoadError
            end = match.end()
            if match.lastgroup not in (None, "blank"):
                self._tokens.append((str(match.lastgroup), match[0]))

    def run(self) -> frozenset[int]:
        """The possible results of the whole line. Raises _MayLoadError."""
        result = _OK
        alive = True
        while self._tokens:
            ended, background = self._list(run=alive)
            result = _OK if background else ended
            alive = alive and bool(ended)
        return self._ended | (result if alive else frozenset())

    def _list(self, *, run: bool) -> tuple[frozenset[int], bool]:
        """`a && b || c`, up to `;` or `&`; whether it runs in the background."""
        result = self._pipeline(run=run)
        while self._tokens:
            _, operator = self._tokens.pop(0)
            if operator in (";", "&"):
                # An `exit` in the background ends only itself; what else it does is not worth knowing.
                if operator == "&" and self._ended:
                    raise _MayLoadError
                return result, operator == "&"
            stays = _FAILED if operator == "&&" else _OK
            after = self._pipeline(run=run and bool(result - stays))
            result = (result & stays) | after
        return result, False

    def _pipeline(self, *, run: bool) -> frozenset[int]:
        result, ends = self._simple(run=run)
        while self._tokens and self._tokens[0][1] == "|":
            del self._tokens[0]
            result, ends = self._simple(run=run)[0], False
        if ends:
            self._ended |= result
            return frozenset()
        return result if run else frozenset()

    def _simple(self, *, run: bool) -> tuple[frozenset[int], bool]:
        """One program with its arguments and redirections: its results, and whether it ends the shell."""
        words: list[str] = []
        safe = True
        while self._tokens and self._tokens[0][0] != "operator":
            kind, text = self._tokens.pop(0)
            if kind == "word":
                words.append(text)
            else:
                safe = _redirect(text) and safe
        if not words:
            raise _MayLoadError
        if not run:
            return frozenset(), False
        if words[0] == "exit" and len(words) == 2 and re.fullmatch(r"[0-9]{1,3}", words[1]):
            return (_FAILED if int(words[1]) % 256 else _OK) | (frozenset() if safe else _FAILED), True
        rest = list(itertools.dropwhile(_ENV.fullmatch, itertools.dropwhile(_PREFIX.fullmatch, words)))
        result = _result(rest, is_builtin=rest == words)
        return result | (frozenset() if safe else _FAILED), "exec" in words[: len(words) - len(rest)]


def _result(words: Sequence[str], *, is_builtin: bool) -> frozenset[int]:
    """Of one program with its arguments. is_builtin: the shell's own `:` counts. Raises _MayLoadError."""
    if len(words) == 3 and _SHELL.fullmatch(words[0]) and words[1] == "-c" and (text := _QUOTED.fullmatch(words[2])):
        return _Shell("".join(part for part in text.groups() if part)).run()
    match = _PROGRAM.fullmatch(words[0]) if words else None
    result = _ENDS.get(match["name"]) if match else _ENDS.get(words[0]) if words and is_builtin else None
    if result is None:
        raise _MayLoadError
    return result
