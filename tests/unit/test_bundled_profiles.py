"""The shipped profiles are found from a checkout, and what is not shipped is said to be missing."""

from __future__ import annotations

import pytest

from agent.bundled_profiles import shipped_profiles
from agent.errors import AgentError


@pytest.mark.parametrize(
    ("kind", "name"), [("apparmor", "deny-write"), ("seccomp", "prevent-chmod.json"), ("modprobe", "kubernetes.yaml")]
)
def test_each_kind_has_its_folder(kind: str, name: str) -> None:
    """With the profile that the documentation names."""
    assert (shipped_profiles(kind) / name).is_file()


def test_a_missing_kind_is_an_error_with_a_next_step() -> None:
    """A wheel that lost its data must not look like a folder without profiles."""
    with pytest.raises(
        AgentError, match=r"the bundled selinux profiles are missing beside .*: install the wheel again"
    ):
        shipped_profiles("selinux")
