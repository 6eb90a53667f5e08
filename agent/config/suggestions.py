"""What was probably meant by an unknown key or word."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from typing import Any

from agent.config.schema_tree import keys, paths
from agent.config.units import shown
from agent.text import join_limited

_KEYS_SHOWN = 15
_MANY_WORDS = 10  # past this, a list hides the one word that was meant


def unknown_key(name: str, section: type[Any], path: str, also: Sequence[str] = ()) -> str:
    """The message for a key that the section at `path` does not have: near names here, then the same name elsewhere.

    also: keys that are accepted here beside the section's own.
    """
    here = path or "the configuration"
    known = [*also, *keys(section)]
    problem = f"is not a key of {here}"
    folded = _folded(name)
    if same := [key for key in known if _folded(key) == folded]:
        return f"{problem}; did you mean {same[0]}?"
    below, others = _elsewhere(name, path)
    if below:
        return f"{problem}; it is {_any_of(below)}"
    if close := difflib.get_close_matches(name, known, n=1):
        return f"{problem}; did you mean {close[0]}?"
    if others:
        return f"{problem}; it is {_any_of(others)}"
    return f"{problem}: its keys are {join_limited(known, most=_KEYS_SHOWN)}"


def wrong_word(text: str, words: Sequence[str]) -> str:
    """The message for a word that is none of the choices."""
    lower = {word.lower(): word for word in words}
    close = difflib.get_close_matches(text.lower(), lower, n=1)
    meant = f"; did you mean {lower[close[0]]}?" if close else ""
    if meant and len(words) > _MANY_WORDS:
        return f"{shown(text)} is not known{meant}"
    return f"{shown(text)} is none of {', '.join(words)}{meant}"


def _elsewhere(name: str, path: str) -> tuple[list[str], list[str]]:
    """Where a key of this name lives, below `path` and anywhere else, the shallowest three of each."""
    place = re.sub(r"\[[0-9]+\]", "[]", path)
    folded = _folded(name)
    found = [where for where, key in paths() if _folded(key.name) == folded]
    found.sort(key=lambda where: (where.count("[]"), where.count(".")))
    below = [where for where in found if not place or where.startswith(f"{place}.")]
    return below[:3], found[:3]


def _any_of(found: Sequence[str]) -> str:
    return found[0] if len(found) == 1 else f"{', '.join(found[:-1])} or {found[-1]}"


def _folded(name: str) -> str:
    return re.sub(r"[-_ ]", "", name).lower()
