"""Which files are AppArmor profiles, by their content."""

from __future__ import annotations

import pytest

from agent.config.recognition import Claim
from agent.controls.apparmor import FILE_TYPE

RULES = "profile web {\n  deny /etc/shadow r,\n}\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (f"abi <abi/3.0>,\n{RULES}", Claim.CERTAIN),
        (RULES, Claim.CERTAIN),
        (f"# vim:ft=apparmor\nnot a preamble\n{RULES}", Claim.CERTAIN),
        (f"not a preamble\n{RULES}", Claim.POSSIBLE),
        ("profile web {\n}\n", Claim.CERTAIN),
        ("some text\n", Claim.NONE),
    ],
)
def test_a_profile_begins_with_a_preamble(content: str, expected: Claim) -> None:
    assert FILE_TYPE.claim(content, "web") is expected
