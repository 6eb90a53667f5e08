"""What systemd knows of a unit: its files, and the command that it starts.

Asked through systemctl where the node runs systemd; where it cannot be asked (a tree, another init) the unit's files
are read as systemd reads them: systemd.unit(5), systemd.service(5), systemd.exec(5), systemd.syntax(7). It refuses to
guess: a command that only systemd, a shell or a script knows is unknown.
"""

from __future__ import annotations

import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from agent.controls.kubelet import environment_file
from agent.errors import HostError
from agent.host import Host, read_or, systemd
from agent.host.budget import UNIT_BYTES

_FOLDERS = ("/etc/systemd/system.control", "/etc/systemd/system", "/run/systemd/system",
            "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system")  # fmt: skip
# { path=/usr/local/bin/k3s ; argv[]=/usr/local/bin/k3s server ; ignore_errors=no ; start_time=… }
_ARGV = re.compile(r"argv\[\]=(.*?) ; (?:ignore_errors|flags)=")
_LINE_END = re.compile("\r\n|\n\r|[\r\n\0]")
_WHITE = " \t\r\n"
_SHELLS = ("sh", "bash", "dash")
_PIECE = re.compile(
    r"""\\(?P<escape>x[0-9a-fA-F]{2}|u[0-9a-fA-F]{4}|U00[01][0-9a-fA-F]{5}|[0-3][0-7]{2}|.)
    |(?P<quote>["'])|(?P<white>[ \t\r\n]+)|\\|[^\\"'\ \t\r\n]+""",
    re.DOTALL | re.VERBOSE,
)
_ESCAPES = dict(zip("abfnrtvs\\\"'", "\a\b\f\n\r\t\v \\\"'", strict=True))
_SPECIFIER = re.compile("%(.)")
# `$$` is a dollar sign; a name with a colon is no variable.
_VARIABLE = re.compile(r"\$\$|\$\{([^}:]*)\}")
# What else decides what the command sees, and where.
_ELSEWHERE = ("PassEnvironment", "RootDirectory", "RootImage")


@dataclass(frozen=True, slots=True)
class UnitFiles:
    """The files that make a unit, in systemd's order. fragment: empty when there is no such unit, or it is masked."""

    fragment: str = ""
    drop_ins: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Command:
    """What a unit starts. folder: its working directory, empty when that is unknown."""

    argv: tuple[str, ...]
    folder: str


def files(host: Host, unit: str) -> UnitFiles:
    """Where the unit and its drop-ins are. Raises HostError only when a standard place cannot be looked into."""
    shown = systemd.show(host, unit, "FragmentPath", "DropInPaths")
    if shown.get("FragmentPath"):
        return UnitFiles(shown["FragmentPath"], tuple(shown.get("DropInPaths", "").split()))
    places = (f"{folder}/{unit}" for folder in _FOLDERS)
    fragment = next((path for path in places if host.is_mask(path) or host.exists(path)), "")
    if not fragment or host.is_mask(fragment):
        return UnitFiles()
    # A link to another unit's file is an alias, and that unit's drop-ins count too.
    aliases = (unit, posixpath.basename(read_or(fragment, host.read_link, fragment)))
    names = [name for one in dict.fromkeys(aliases) for name in _names(one)]
    folders = [f"{folder}/{name}.d" for folder in _FOLDERS for name in names]
    folders += [f"{folder}/service.d" for folder in _FOLDERS]
    return UnitFiles(fragment, tuple(host.overlaid(folders, ".conf")))


def exec_start(host: Host, unit: str) -> Sequence[str] | None:
    """The words of the unit's ExecStart as written, None when they cannot be read."""
    shown = systemd.show(host, unit, "ExecStart").get("ExecStart", "")
    if found := _ARGV.search(shown):
        return _split(found[1])
    try:
        return _start(unit, _service(host, unit))
    except HostError:
        return None


def command(host: Host, unit: str) -> Command:
    """What systemd would start, its variables put in. Raises HostError where that is unknown."""
    settings = _service(host, unit)
    words = [_literal(unit, word) for word in _start(unit, settings)]
    signs = words[0][: len(words[0]) - len(words[0].lstrip("@-:+!|"))]
    program = words[0].removeprefix(signs)
    if "|" in signs or posixpath.basename(program) in _SHELLS or _is_script(host, program):
        raise HostError(f"{unit} starts {program}, a shell or a script: with which arguments is unknown")
    if elsewhere := [key for key in _ELSEWHERE if settings.get(key)]:
        raise HostError(f"{unit} has {elsewhere[0]}=: what {program} works with is unknown")
    variables = _environment(host, unit, settings)
    folder = _literal(unit, (settings.get("WorkingDirectory") or ["/"])[-1]).removeprefix("-")
    # `@`: the second word is the program's name; `:` leaves variables as they are.
    rest = words[2 if "@" in signs else 1 :]
    expanded = rest if ":" in signs else [word for one in rest for word in _expanded(one, variables)]
    return Command((program, *expanded), folder if folder.startswith("/") else "")


def environment(host: Host, unit: str) -> Mapping[str, str]:
    """The variables that a unit sets, none where there is no such unit. Raises HostError."""
    return _environment(host, unit, _service(host, unit)) if files(host, unit).fragment else {}


def _names(unit: str) -> Iterator[str]:
    """`a-b.service` has the drop-ins of `a-.service` too."""
    yield unit
    parts = unit.removesuffix(".service").split("-")
    yield from (f"{'-'.join(parts[:count])}-.service" for count in range(len(parts) - 1, 0, -1))


def _service(host: Host, unit: str) -> Mapping[str, Sequence[str]]:
    """The assignments of [Service]; an empty one removes all before it. Raises HostError."""
    found = files(host, unit)
    if not found.fragment:
        raise HostError(f"{unit} is not there, or masked")
    settings: dict[str, list[str]] = {}
    for path in (found.fragment, *found.drop_ins):
        for key, value in _assignments(host.read_text(path, limit_bytes=UNIT_BYTES), path):
            settings[key] = [*settings.get(key, ()), value] if value else []
    return settings


def _assignments(text: str, path: str) -> Iterator[tuple[str, str]]:
    """`KEY=value` lines of [Service]. Comments inside a continued line are left out; a line that is not UTF-8 too.

    Raises HostError: a section's name that systemd refuses, and the rest of the file with it.
    """
    section, held = "", ""
    for raw in (*_LINE_END.split(text.removeprefix("\ufeff")), ""):
        if raw.lstrip(_WHITE).startswith(("#", ";")):
            continue
        held += raw
        if (len(held) - len(held.rstrip("\\"))) % 2:
            held = f"{held[:-1]} "
            continue
        line, held = held.strip(_WHITE), ""
        key, equals, value = line.partition("=")
        if "\ufffd" in line:
            continue
        if line.startswith("["):
            if not line.endswith("]"):
                raise HostError(f"{path}: {line[:80]!r} is no section")
            section = line[1:-1]
        elif equals and section == "Service":
            yield key.strip(_WHITE), value.strip(_WHITE)


def _start(unit: str, settings: Mapping[str, Sequence[str]]) -> list[str]:
    """The words of the one command. Raises HostError: several are only for Type=oneshot, which no kubelet is."""
    starts = [words for words in map(_split, settings.get("ExecStart", ())) if words != []]
    if len(starts) != 1 or starts[0] is None or ";" in starts[0]:
        raise HostError(f"{unit} has not exactly one command in ExecStart=")
    return [";" if word == r"\;" else word for word in starts[0]]


def _environment(host: Host, unit: str, settings: Mapping[str, Sequence[str]]) -> Mapping[str, str]:
    """Environment=, then what EnvironmentFile= names, without UnsetEnvironment=. Raises HostError."""
    words = [_literal(unit, word) for value in settings.get("Environment", ()) for word in _split(value) or ()]
    found = dict(word.split("=", 1) for word in words if "=" in word)
    for value in settings.get("EnvironmentFile", ()):
        path = _literal(unit, value.removeprefix("-"))
        if set(path) & set("*?["):
            raise HostError(f"{unit} reads its environment from {path}, which is a pattern")
        text = host.read_text(path, limit_bytes=UNIT_BYTES, missing="" if value.startswith("-") else None)
        found |= environment_file.parse(text, path)
    for value in settings.get("UnsetEnvironment", ()):
        for name, equals, text in (word.partition("=") for word in _split(value) or ()):
            if not equals or found.get(name) == text:
                found.pop(name, None)
    return found


def _literal(unit: str, word: str) -> str:
    """A word with the unit's name put in. Raises HostError: other specifiers (`%i`) are known to systemd alone."""
    known = {"%": "%", "n": unit, "N": unit.removesuffix(".service")}

    def meaning(found: re.Match[str]) -> str:
        if found[1] not in known and found[1].isalpha():
            raise HostError(f"{unit} has the specifier {found[0]}, which only systemd knows")
        return known.get(found[1], found[0])

    return _SPECIFIER.sub(meaning, word)


def _expanded(word: str, variables: Mapping[str, str]) -> Sequence[str]:
    """`$X` as a word of its own is as many words as it has, with its quotes read, `${X}` is put in."""
    if word.startswith("$") and not word.startswith(("$$", "${")):
        return _split(variables.get(word[1:], ""), c_style=False) or ()
    return [_VARIABLE.sub(lambda found: "$" if found[1] is None else variables.get(found[1], ""), word)]


def _is_script(host: Host, program: str) -> bool:
    try:
        with host.regular("read", program) as fd:
            return os.read(fd, 2) == b"#!"
    except HostError:
        return False  # not there: systemd would not start it


def _split(text: str, *, c_style: bool = True) -> list[str] | None:
    """Words as extract_first_word() of systemd makes them, quotes anywhere in them; None when one does not close.

    c_style: whether a backslash begins an escape of C (an unknown one stays as it is); else it quotes one character.
    """
    words, word, quote = list[str](), None, ""
    for piece in _PIECE.finditer(text):
        if piece["white"] and not quote:
            words += [] if word is None else [word]
            word = None
        elif piece["quote"] and quote in ("", piece[0]):
            quote, word = "" if quote else piece[0], word or ""
        else:
            escape = piece["escape"]
            word = (word or "") + (piece[0] if escape is None else _unescaped(escape) if c_style else escape)
    words += [] if word is None else [word]
    return None if quote and c_style else words


def _unescaped(escape: str) -> str:
    if len(escape) == 1:
        return _ESCAPES.get(escape, f"\\{escape}")
    return chr(int(escape, 8) if escape[0].isdecimal() else int(escape[1:], 16))
