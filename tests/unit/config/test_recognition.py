"""Which files are a policy: recognised by their keys, never by one name that others use too."""

from __future__ import annotations

import pytest

from agent.config.recognition import Claim, policy_claim


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("reboot:\n  windows: []\n", Claim.CERTAIN),
        ("modprobe:\n  deny: [sctp]\nreboot:\n  mode: audit\n", Claim.CERTAIN),
        ("seccomp:\n  profiles: /x\n", Claim.CERTAIN),
        ('{"reboot": {"windows": []}}', Claim.CERTAIN),
        ("seccomp:\n  type: RuntimeDefault\n", Claim.POSSIBLE),
        ("reboot: x\n", Claim.POSSIBLE),
        ("name: x\nother: 1\nreboot:\n  windows: []\n", Claim.POSSIBLE),
    ],
)
def test_a_policy_is_recognised_by_sections_with_their_keys(content: str, expected: Claim) -> None:
    assert policy_claim(content, "x.yaml") is expected
