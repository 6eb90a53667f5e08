"""modprobe.d as kmod reads it: which files count, in which order, and which of two lines wins.

modprobe prints its effective configuration but not from which file; this does. Pure functions over text; whether a
module is refused is decided by modprobe's own output (kmod.py), never by this. Source: kmod's libkmod/libkmod-config.c
(conf_files_insert_sorted, kmod_config_parse), libkmod-module.c (kmod_module_get_install_commands,
__kmod_module_fill_softdep) and shared/util.c (freadline_wrapped).
"""

from __future__ import annotations

import fnmatch
import posixpath
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from agent.controls.modprobe.denylists import normal_name
from agent.controls.modprobe.shell import Refusal, refusal

# kmod's default_config_paths; the fourth is DISTCONFDIR, /usr/lib in the distributions that set it.
FOLDERS = ("/etc/modprobe.d", "/run/modprobe.d", "/usr/local/lib/modprobe.d", "/usr/lib/modprobe.d", "/lib/modprobe.d")
_VERBS = ("alias", "blacklist", "install", "options", "remove", "softdep", "weakdep")
_WORD = re.compile(r"[\w-]+")
# What bypasses an install line: insmod, and modprobe with the option to ignore install lines.
_AROUND = re.compile(r"\binsmod\b|\bmodprobe\b.*\s(-[a-zA-Z]*i[a-zA-Z]*|--ignore-install)\b")


@dataclass(frozen=True, slots=True)
class ConfigLine:
    """One line that kmod takes. name: the module (or alias), `-` as `_`. rest: what follows it, as written."""

    file: str
    number: int
    verb: str
    name: str
    rest: str = ""

    @property
    def place(self) -> str:
        """`file:line`."""
        return f"{self.file}:{self.number}"

    def __str__(self) -> str:
        return f"{self.verb} {self.name} {self.rest}".rstrip()


@dataclass(frozen=True, slots=True)
class Hidden:
    """A file that is not read, because an earlier folder has one of the same name."""

    file: str
    by: str


def counts(name: str) -> bool:
    """Whether kmod reads a file of this name at all."""
    return name.endswith(".conf") and len(name) > len(".conf") and not name.startswith(".")


def file_problem(path: str) -> str:
    """Why modprobe would never read a file at this path, empty when it would."""
    folder, name = posixpath.split(path)
    if posixpath.normpath(path) != path or folder not in FOLDERS:
        return f"modprobe reads only {', '.join(FOLDERS)}"
    if not counts(name):
        return "modprobe reads only files that end in .conf and do not begin with a dot"
    return ""


def in_order(listing: Mapping[str, Iterable[str]]) -> tuple[tuple[str, ...], tuple[Hidden, ...]]:
    """The files that count, in the order in which they are read, and those that another one hides.

    listing: names by folder; folders in any order, those that kmod does not know are left out.
    """
    chosen: dict[str, str] = {}
    hidden: list[Hidden] = []
    for folder in FOLDERS:
        for name in listing.get(folder, ()):
            if not counts(name):
                continue
            if name in chosen:
                hidden.append(Hidden(f"{folder}/{name}", chosen[name]))
            else:
                chosen[name] = f"{folder}/{name}"
    return tuple(chosen[name] for name in sorted(chosen)), tuple(hidden)


def parse(text: str, file: str) -> tuple[ConfigLine, ...]:
    """The lines that kmod takes from one file; what it skips with a message is skipped here too."""
    return tuple(line for number, joined in _joined(text) if (line := _line(joined, file, number)) is not None)


def _joined(text: str) -> Iterator[tuple[int, str]]:
    """Logical lines with the number of their last physical one, which is the number that kmod reports.

    A backslash before the end of a line continues it, inside a comment too; any other one is simply dropped. One that
    ends the file makes kmod take the end for a character, which is no text.
    """
    line: list[str] = []
    number = 1
    characters = iter(text)
    for character in characters:
        taken = character
        if character == "\\":
            following = next(characters, "")
            if following == "\n":
                number += 1
                continue
            taken = following or "\ufffd"
        elif character == "\n":
            yield number, "".join(line)
            line.clear()
            number += 1
            continue
        line.append(taken)
    if line:
        yield number, "".join(line)


def _line(text: str, file: str, number: int) -> ConfigLine | None:
    if text.startswith("#"):
        return None
    verb, name, rest = (*re.split(r"[ \t]+", text.lstrip(" \t"), maxsplit=2), "", "")[:3]
    if verb not in _VERBS or not name or (verb != "blacklist" and not rest):
        return None
    underscored = _underscored(name)
    return ConfigLine(file, number, verb, underscored, rest) if underscored is not None else None


def _underscored(name: str) -> str | None:
    """`-` as `_` outside of [ranges]; None where kmod calls it a bad line."""
    parts = re.split(r"(\[[^\]]*\])", name)
    if any("[" in part or "]" in part for part in parts[::2]):
        return None
    return "".join(part if index % 2 else normal_name(part) for index, part in enumerate(parts))


@dataclass(frozen=True, slots=True)
class Configuration:
    """Every line that counts, in kmod's order. hidden, unreadable: files without effect, and why."""

    lines: tuple[ConfigLine, ...] = ()
    hidden: tuple[Hidden, ...] = ()
    unreadable: Mapping[str, str] = field(default_factory=dict)

    def beside(self, more: Sequence[ConfigLine]) -> Configuration:
        """The same with the lines of another file where its name sorts: kmod reads modules.softdep among the others."""
        lines = sorted((*self.lines, *more), key=lambda line: posixpath.basename(line.file))
        return Configuration(tuple(lines), self.hidden, self.unreadable)

    def install_line(self, module: str) -> ConfigLine | None:
        """The first install line whose pattern matches; later ones have no effect."""
        return self._first("install", module)

    def bypasses_install(self, module: str) -> ConfigLine | None:
        """A soft dependency because of which kmod skips the module's install line, None when there is none.

        __kmod_module_fill_softdep sets `ignorecmd` on a module with soft dependencies (seen with kmod 30, and in the
        source of 34): `install ksmbd /bin/false` alone refuses nothing, since ksmbd brings its own.
        """
        line = self._first("softdep", module)
        return line if line is not None and soft_dependencies(line.rest) else None

    def loaders(self, module: str) -> tuple[ConfigLine, ...]:
        """Install lines of other modules whose command names this one: `install x modprobe -i sctp`."""
        first: dict[str, ConfigLine] = {}
        for line in self.lines:
            if line.verb == "install":
                first.setdefault(line.name, line)
        return tuple(line for line in first.values() if not matches(line.name, module) and _loads(line.rest, module))

    def _first(self, verb: str, module: str) -> ConfigLine | None:
        lines = (line for line in self.lines if line.verb == verb and matches(line.name, module))
        return next(lines, None)


def soft_dependencies(rest: str) -> tuple[str, ...]:
    """The modules that follow in a softdep line. Words before the first `pre:` or `post:` mean nothing to kmod."""
    words = rest.split()
    begin = next((index for index, word in enumerate(words) if word in ("pre:", "post:")), len(words))
    return tuple(word for word in words[begin:] if word not in ("pre:", "post:"))


def denied_by(lines: Sequence[ConfigLine]) -> tuple[str, ...]:
    """Names that these lines refuse plainly: what an older version of the agent's own file stood for."""
    names = (line.name for line in lines if line.verb == "install" and refusal(line.rest) is Refusal.FAILS)
    return tuple(dict.fromkeys(names))


def matches(pattern: str, name: str) -> bool:
    """Whether a line's name, which may be a pattern, is about that module or alias."""
    # fnmatch(3) negates a range with ! and, in glibc, with ^ as well; Python knows the first.
    return fnmatch.fnmatchcase(name, pattern.replace("[^", "[!"))


def _loads(command: str, module: str) -> bool:
    parts = (part for part in re.split(r"[;&|]", command) if _AROUND.search(part))
    return any(module == normal_name(word) for part in parts for word in _WORD.findall(part))
