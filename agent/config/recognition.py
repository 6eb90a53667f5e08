"""Whether a YAML or JSON text claims to be a file of this project: by its header, else by the keys that it holds.

Read from lines and not from a parsed document: a broken file still has to be linted as what it is. It never raises and
reads at most two levels of keys.
"""

from __future__ import annotations

import difflib
import itertools
import re
from collections.abc import Collection, Iterator, Mapping
from enum import IntEnum
from pathlib import PurePath

from agent.config.choices import AuditMode, Mode
from agent.config.schema import KIND
from agent.config.schema import Config as _Config
from agent.config.schema_tree import Section, keys

DENY_LIST_KIND = "ModuleDenyList"
_GROUP = "node-hardening"
_KIND_OF = {"agentconfig": KIND, "moduledenylist": DENY_LIST_KIND}
_CLOSE = 0.8
_DOCUMENT = re.compile(r"^---(?=\s|$)", re.MULTILINE)
_KEY = re.compile(r"""^\ufeff?["']?([\w./-]+)["']?[ \t]*:(?=\s|$)""", re.MULTILINE)
_KEY_BELOW = re.compile(r"""\b([A-Za-z]\w*)["']?[ \t]*:""")
_FLOW_TOKEN = re.compile(r""""(?:[^"\\\n]|\\.)*"|'[^'\n]*'|[{}\[\],]|(?<![\w./-])[\w./-]++(?=\s*:)""")
_COLON = re.compile(r"\s*:")
_SHARED = ("kubelet", "reboot", "selinux", "sysctl", "updates", "version")  # other programs have them too, and a mode
_MODE_WORD = re.compile(
    rf"(?:^|[:\[-])[ \t]*[\"']?(?:{'|'.join({*Mode, *AuditMode} - {Mode.OFF})})[\"']?[ \t]*(?:[],}}#]|$)", re.MULTILINE
)


class Claim(IntEnum):
    """How strong the evidence for a type is. POSSIBLE is enough where the user names the file."""

    NONE = 0
    POSSIBLE = 1
    CERTAIN = 2


def is_yaml(path: str) -> bool:
    """Whether a file of this name may hold YAML; a name without an ending may hold anything."""
    return PurePath(path.lower()).suffix in (".yaml", ".yml", "")


def documents(content: str) -> Iterator[tuple[int, str]]:
    """The documents of a YAML stream, each with the number of lines before it; not those without a value."""
    starts = [0, *(match.end() for match in _DOCUMENT.finditer(content)), len(content) + len("---")]
    for begin, after in itertools.pairwise(starts):
        document = content[begin : after - len("---")]
        if re.search(r"^[ \t]*[^#\s]", document, re.MULTILINE):
            yield content.count("\n", 0, begin), document


def outline(document: str) -> dict[str, tuple[int, str]]:
    """The top-level keys of one document; each with the offset of its value and the value's text."""
    begin = next(iter(re.finditer(r"[^\s\ufeff]", document)), None)
    if begin and begin[0] == "{":  # JSON, or YAML's flow style
        return {key: (start, document[start:end]) for key, start, end in _flow(document)}
    found = list(_KEY.finditer(document))
    ends = [match.start() for match in found[1:]] + [len(document)]
    return {match[1]: (match.end(), document[match.end() : end]) for match, end in zip(found, ends, strict=False)}


def _flow(text: str) -> Iterator[tuple[str, int, int]]:
    """The keys of the outermost braces, with the bounds of their values."""
    depth, key, begin = 0, "", 0
    for token in _FLOW_TOKEN.finditer(text):
        if depth == 1 and key and token[0] in "]},":
            yield key, begin, token.start()
            key = ""
        depth += {"{": 1, "[": 1, "}": -1, "]": -1}.get(token[0], 0)
        if depth == 1 and not key and (colon := _COLON.match(text, token.end())):
            key, begin = token[0].strip("\"'"), colon.end()
    if key:
        yield key, begin, len(text)


def word(keys_found: Mapping[str, tuple[int, str]], key: str) -> str:
    """The plain value of a top-level key, empty without one."""
    return keys_found.get(key, (0, ""))[1].strip().partition("\n")[0].partition(" #")[0].strip(" \t\"',")


def claim(content: str, path: str, kind: str, known: Mapping[str, Collection[str]], marks: Collection[str]) -> Claim:
    """The claim of a text to be of a kind. known: its top-level keys, each with those below.

    marks: the keys that no other program has, or hardly with such keys below.
    """
    if content[:1000].lstrip("\ufeff \t\r\n").startswith("{"):
        if not any(name in content for name in (_GROUP, kind, *marks)):
            return Claim.POSSIBLE
    elif not is_yaml(path):
        return Claim.NONE
    found = [_claim(outline(one), kind, known, marks) for _, one in documents(content)]
    return max(found, default=Claim.POSSIBLE)


def _claim(
    found: Mapping[str, tuple[int, str]], kind: str, known: Mapping[str, Collection[str]], marks: Collection[str]
) -> Claim:
    named, group = word(found, "kind"), word(found, "apiVersion")
    close = _close(named.lower(), _KIND_OF)
    meant = _KIND_OF[close] if close else ""
    evident = _is_evident(found, known, marks)
    if _close(group.partition("/")[0].removesuffix(".io"), (_GROUP,)):
        return Claim.CERTAIN if meant == kind or (not meant and (evident or kind == KIND)) else Claim.NONE
    # Another project's AgentConfig has another group, and other keys.
    if (meant == kind and not group) or (evident and meant in ("", kind)):
        return Claim.CERTAIN
    return Claim.POSSIBLE if found and not named and not group else Claim.NONE


def _is_evident(
    found: Mapping[str, tuple[int, str]], known: Mapping[str, Collection[str]], marks: Collection[str]
) -> bool:
    """Whether half of the keys or more are ours, and one is ours alone, with what we have below it."""
    names = [name for name in found if name not in ("apiVersion", "kind")]
    if len(names) > 2 * len(known):
        return False
    ours = {name: meant for name in names if (meant := _close(name, known))}
    if 2 * len(ours) < len(names):
        return False
    return any(
        meant in marks
        and (
            {_close(below, known[meant]) for below in _KEY_BELOW.findall(found[name][1])}
            - {"", "mode" if meant in _SHARED else ""}
            or _MODE_WORD.search(found[name][1])
        )
        for name, meant in ours.items()
    )


def _close(name: str, known: Collection[str]) -> str:
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=_CLOSE)), "")


def policy_claim(content: str, path: str) -> Claim:
    """The claim of a text to be a policy."""
    sections = {
        name: tuple(keys(key.form.make)) if isinstance(key.form, Section) else () for name, key in keys(_Config).items()
    }
    marks = [name for name, below in sections.items() if "mode" in below]
    found = claim(content, path, KIND, sections, marks)
    called = path.endswith("node-hardening/config.yaml") or "node-hardening" in PurePath(path).name
    return Claim.CERTAIN if found is Claim.POSSIBLE and called and is_yaml(path) else found
