"""Keys on API objects are written once, in agent/annotations.py."""

from __future__ import annotations

import re
from pathlib import Path

import agent

AGENT = Path(agent.__file__).parent


def test_no_key_is_spelled_a_second_time() -> None:
    """A second spelling is one that a rename forgets; sentences may name a key, and the page is marked with one."""
    spelled = re.compile(r"""["']node-hardening\.io/""")
    files = [path for path in AGENT.rglob("*.py") if path.name != "annotations.py" and "page" not in path.parts]
    assert [str(path) for path in files if spelled.search(path.read_text())] == []


def test_no_two_keys_are_the_same() -> None:
    """But for the owner of a cordon in managedFields, which is no key of an object."""
    keys = [text for name, text in vars(annotations).items() if name.isupper() and name != "FIELD_MANAGER"]
    assert len(keys) == len(set(keys))
