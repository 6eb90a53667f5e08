"""apparmor_parser: which one, how it is run, what it prints.

The newer of the agent's image's and the node's own is used, unless the configuration names one: a profile for a newer
ABI compiles only with a parser that knows it. Of two of one version it is the image's. Profiles are passed on standard
input: what was linted, hashed and kept is what is loaded, no file name matches a link in /etc/apparmor.d/disable or
force-complain, and errors in included files name those files.

No caches (-K: only what changed is compiled) and, below another host root, no kernel interface but that tree's own:
otherwise the parser would load into this machine's kernel.
"""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from agent.config.choices import ParserChoice
from agent.controls.apparmor import parser_errors
from agent.controls.apparmor.profile_dir import has_folders
from agent.controls.apparmor.securityfs import APPARMORFS
from agent.controls.manifest import digest
from agent.errors import CommandFailed, CommandMissing, CommandTimeout, HostError, Problem
from agent.host import Completed, Host, HostExec, read_or

POLICY_FOLDER = "/etc/apparmor.d"
# What to compile for where the kernel does not list its features: everything, so that every rule is checked.
_FEATURES = f"{POLICY_FOLDER}/abi/3.0"
_LINT_SECONDS = 30.0
_LOAD_SECONDS = 60.0
_OUTPUT_LIMIT_BYTES = 16 << 20
_AWKWARD = re.compile(r'[\x00-\x1f\x7f"\\]|@\{')


@dataclass(frozen=True, slots=True)
class Tool:
    """A parser: its path, and how it is run."""

    path: str
    how: HostExec


@dataclass(frozen=True, slots=True)
class Linted:
    """The parser's result for one text. names: of every profile, children too. flat: the text and its includes."""

    names: tuple[str, ...] = ()
    flat: bytes = b""
    problems: tuple[Problem, ...] = ()

    @property
    def digest(self) -> str:
        """SHA-256 of what would be loaded, included files and all."""
        return digest(self.flat)


class Chooser:
    """Chooses the node's parser; versions are asked for once for each program file."""

    def __init__(self, host: Host, choice: ParserChoice = ParserChoice.NEWEST) -> None:
        self._host = host
        self._choice = choice
        self._versions: dict[tuple[str, HostExec, int, int], tuple[int, ...]] = {}

    def tool(self, *, own_includes: bool = False) -> Tool:
        """The parser to use. own_includes: the agent's folder has files to include, which the node's does not reach.

        Raises CommandMissing.
        """
        ways = [HostExec.DIRECT] if self._host.how is HostExec.DIRECT else [HostExec.DIRECT, HostExec.NSENTER]
        if len(ways) > 1 and self._choice is not ParserChoice.NEWEST:
            ways = ways[:1] if self._choice is ParserChoice.IMAGE else ways[1:]
        paths = ((self._host.find_tool("apparmor_parser", how=how), how) for how in ways)
        tools = [Tool(path, how) for path, how in paths if path is not None]
        if not tools:
            where = {ParserChoice.IMAGE: "beside the agent", ParserChoice.NODE: "on the node"}
            place = where.get(self._choice, "beside the agent or on the node")
            raise CommandMissing(("apparmor_parser",), f"not found {place}")
        return max(tools, key=self._version) if len(tools) > 1 and not own_includes else tools[0]

    def _version(self, tool: Tool) -> tuple[int, ...]:
        """`AppArmor parser version 4.0.1~beta3` is (4, 0, 1); empty, so oldest, for one that does not run."""
        try:
            file = (self._host if tool.how is HostExec.NSENTER else Host("/")).stat(tool.path)
            key = (tool.path, tool.how, file.inode, file.mtime_ns)
            if key not in self._versions:
                shown = self._host.run([tool.path, "-V"], timeout_seconds=_LINT_SECONDS, how=tool.how).check()
                found = re.search(r"version (\d+(?:\.\d+)*)", shown.stdout)
                self._versions[key] = tuple(map(int, found[1].split("."))) if found else ()
        except HostError:
            return ()
        return self._versions[key]


class Parser:
    """The parser for one node. include: a folder of the agent's own whose subfolders profiles may include from."""

    def __init__(self, host: Host, *, include: Path | None = None, tool: Tool | None = None) -> None:
        self._host = host
        self._include = include
        self._tool = tool

    def tool(self) -> Tool:
        """The parser that is used. Raises CommandMissing."""
        if self._tool is None:
            self._tool = Chooser(self._host).tool()
        return self._tool

    def include_folders(self) -> tuple[Path, ...]:
        """Where included files may come from, as this process reaches them."""
        if self.tool().how is HostExec.NSENTER:
            return (Path(self._host.real_path(POLICY_FOLDER)),)
        return (Path(POLICY_FOLDER), *self._own_includes())

    def lint(self, content: bytes, file: str) -> Linted:
        """Compiles a text without loading it. `file` is its name in problems. Raises CommandMissing."""
        text = content.decode(errors="replace")
        try:
            compiled = self._run(["-Q", *self._features()], content, _LINT_SECONDS)
            listed = self._run(["-N"], content, _LINT_SECONDS) if compiled.code == 0 else compiled
        except CommandTimeout:
            message = f"apparmor_parser did not compile it within {_LINT_SECONDS:g} s; simplify its globs"
            return Linted(problems=(Problem(file, 0, "", message),))
        if listed.code != 0:
            silent = Problem(file, 0, "", f"apparmor_parser ended with exit code {listed.code} without a message")
            return Linted(problems=parser_errors.problems(listed.stderr, file, text) or (silent,))
        names = parser_errors.names(listed.stdout)
        problems = _of_names(names, file, text)
        if listed.cut:
            problems = (Problem(file, 0, "", "unknown which profiles it defines: apparmor_parser -N lists too many"),)
        return Linted(names, b"" if problems else self._flat(content, names), problems)

    def load(self, content: bytes) -> None:
        """Loads every profile of the text into the kernel, replacing those with the same names. Raises HostError."""
        self._done(self._run(["-r", *self._kernel()], content, _LOAD_SECONDS))

    def remove(self, name: str) -> None:
        """Removes one profile and its children from the kernel. Raises HostError.

        The parser needs a definition but uses only its name, so an empty one removes nothing else of its file.
        """
        if _AWKWARD.search(name):
            raise HostError(f"apparmor_parser: cannot name the profile {name!r}; remove it manually")
        self._done(self._run(["-R", *self._kernel()], f'profile "{name}" {{ }}\n'.encode(), _LOAD_SECONDS))

    # -- the command line ------------------------------------------------------------------------------------------

    def _run(self, options: Sequence[str], content: bytes, timeout_seconds: float) -> Completed:
        tool = self.tool()
        includes = [] if tool.how is HostExec.NSENTER else [f"-I{folder}" for folder in self._own_includes()]
        return self._host.run(
            [tool.path, "-K", *includes, *options, parser_errors.STDIN],
            timeout_seconds=timeout_seconds,
            input_bytes=content,
            limit_bytes=_OUTPUT_LIMIT_BYTES,
            how=tool.how,
        )

    def _done(self, completed: Completed) -> None:
        if completed.code != 0:
            raise CommandFailed(completed.argv, completed.code, parser_errors.words(completed.stderr))

    def _flat(self, content: bytes, names: tuple[str, ...]) -> bytes:
        """The text with its includes, where that is the same policy; else the text itself."""
        if b"include" not in content:
            return content
        flat = self._run(["-p"], content, _LINT_SECONDS)
        if flat.code != 0 or flat.cut or "\ufffd" in flat.stdout:
            return content
        again = self._run(["-N"], flat.stdout.encode(), _LINT_SECONDS)
        same = again.code == 0 and not again.cut and set(parser_errors.names(again.stdout)) == set(names)
        return flat.stdout.encode() if same else content

    def _own_includes(self) -> tuple[Path, ...]:
        return (self._include,) if self._include is not None and has_folders(self._include) else ()

    def _features(self) -> list[str]:
        """The kernel to compile for when only linting."""
        nsenter = self.tool().how is HostExec.NSENTER
        elsewhere = not nsenter and not self._host.is_running_system
        if read_or(False, self._host.exists, f"{APPARMORFS}/features"):
            return ["--kernel-features", self._host.locate(f"{APPARMORFS}/features")] if elsewhere else []
        there = read_or(False, self._host.exists, _FEATURES) if nsenter else os.path.exists(_FEATURES)  # noqa: PTH110 - like find_tool
        return ["--kernel-features", _FEATURES] if there else []

    def _kernel(self) -> list[str]:
        """The kernel to load into. Raises HostError when the tree has none."""
        if self._host.is_running_system or self.tool().how is HostExec.NSENTER:
            return []
        # -f alone is not enough: the features would still be read from this machine's /sys, and 3.0.8 dies of a
        # short name in -R where they lack policy/set_load.
        for need in ("features", ".replace", ".remove"):
            if not read_or(False, self._host.exists, f"{APPARMORFS}/{need}"):
                raise HostError(f"{APPARMORFS}/{need} is not below the host root: nothing can be loaded there")
        features = self._host.locate(f"{APPARMORFS}/features")
        return ["--kernel-features", features, "-f", self._host.locate(APPARMORFS)]


def _of_names(names: Sequence[str], file: str, text: str) -> tuple[Problem, ...]:
    if not names:
        return (Problem(file, 0, "", "defines no profile; apparmor_parser accepts such a file silently"),)
    found = []
    for name in names:
        line = parser_errors.defining_line(text, name)
        if name == "unconfined":
            found.append(Problem(file, line, "", "the name `unconfined` is reserved by the kernel"))
        elif _AWKWARD.search(name):
            message = f"the name {name!r} holds a quote, backslash, control character or variable; use a plain one"
            found.append(Problem(file, line, "", message))
    return tuple(found)
