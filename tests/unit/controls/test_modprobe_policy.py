"""From configuration to the file: lists, deny, allow, and what happens when one of them cannot be followed."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config.schema import Modprobe
from agent.controls.modprobe.modprobe_d import denied_by, parse
from agent.controls.modprobe.policy import Denied, Policy, render, resolve

LIST = """\
apiVersion: node-hardening.io/v1alpha1
kind: ModuleDenyList
about: a
breaks: b
modules:
  - {name: dccp, reason: Unused., submodules: [dccp_ipv4]}
  - {name: sctp, reason: Rare., submodules: [sctp_diag]}
"""


@pytest.fixture
def lists(tmp_path: Path) -> Path:
    """A folder with one good list and one broken one."""
    (tmp_path / "kubernetes.yaml").write_text(LIST)
    (tmp_path / "broken.yaml").write_text(LIST.replace("reason: Rare.", "raeson: Rare."))
    return tmp_path


def names(policy: Policy) -> list[str]:
    """What is denied, in order."""
    return [one.name for one in policy.denied]


def test_submodules_are_denied_with_their_module(lists: Path) -> None:
    """In the list's order, each knowing what it is part of."""
    policy = resolve(Modprobe(), lists)
    assert [(one.name, one.part_of) for one in policy.denied] == [
        ("dccp", ""),
        ("dccp_ipv4", "dccp"),
        ("sctp", ""),
        ("sctp_diag", "sctp"),
    ]
    assert policy.troubles == ()


def test_deny_adds_and_allow_takes_out_with_the_submodules(lists: Path) -> None:
    """allow has the last word; an allowed submodule goes alone; a name that nothing denies is reported."""
    config = Modprobe(deny=("usb-storage", "rds"), allow=("sctp", "dccp-ipv4", "rds", "tpic"))
    policy = resolve(config, lists)
    assert names(policy) == ["dccp", "usb_storage"]
    assert policy.idle == ("tpic",)


def test_an_unknown_list_is_named_and_the_rest_goes_on(lists: Path) -> None:
    """With the list that was probably meant."""
    policy = resolve(Modprobe(lists=("kubernets", "kubernetes")), lists)
    (trouble,) = policy.troubles
    assert trouble.id == "list/kubernets"
    assert trouble.observed == "there is no deny list kubernets; did you mean kubernetes?"
    assert len(policy.denied) == 4


def test_a_broken_list_takes_nothing_away(lists: Path) -> None:
    """What the node denied before stays denied, unless it is allowed; the trouble has file, line and key."""
    config = Modprobe(lists=("broken",), deny=("rds",), allow=("sctp",))
    policy = resolve(config, lists, kept=["dccp", "sctp", "rds"])
    assert names(policy) == ["rds", "dccp"]
    (trouble,) = policy.troubles
    assert "broken.yaml:7: modules[1].raeson: unknown key; did you mean reason?" in trouble.observed


def test_without_trouble_what_was_denied_before_is_forgotten(lists: Path) -> None:
    """Otherwise nothing would ever leave."""
    assert "tipc" not in names(resolve(Modprobe(), lists, kept=["tipc"]))


def test_a_name_that_is_none_is_named_and_the_rest_goes_on(lists: Path) -> None:
    """It could otherwise end a line early and deny nothing."""
    policy = resolve(Modprobe(lists=(), deny=("x\ninstall y /bin/sh", "rds"), allow=("a b",)), lists)
    assert names(policy) == ["rds"]
    assert [trouble.id for trouble in policy.troubles] == ["allow/a_b", "deny/x_install_y__bin_sh"]


def test_a_missing_folder_of_lists_is_a_trouble_and_no_crash(tmp_path: Path) -> None:
    """Every list is unknown then."""
    (trouble,) = resolve(Modprobe(), tmp_path / "nowhere").troubles
    assert "there are none" in trouble.observed


def test_the_file_names_its_owner_and_gives_three_lines_a_module(lists: Path) -> None:
    """blacklist for aliases, install for names and dependencies, an empty softdep so that install counts."""
    text = render(resolve(Modprobe(), lists)).decode()
    assert text.startswith("# Maintained by node-hardening-agent (control modprobe)")
    assert "\n# dccp: Unused. (list kubernetes)\nblacklist dccp\ninstall dccp /bin/false\nsoftdep dccp pre:\n" in text


def test_the_same_policy_gives_the_same_bytes(lists: Path) -> None:
    """Or every pass would write."""
    assert render(resolve(Modprobe(), lists)) == render(resolve(Modprobe(), lists))


@given(st.lists(st.text(max_size=40), min_size=1, max_size=4))
def test_no_reason_can_swallow_a_line(reasons: list[str]) -> None:
    """A backslash at the end of a comment would continue it over the line below, and the module would stay open."""
    denied = tuple(Denied(f"m{index}", reason, "list x") for index, reason in enumerate(reasons))
    lines = parse(render(Policy(denied)).decode(), "f")
    assert [(verb, one.name) for one in denied for verb in ("blacklist", "install", "softdep")] == [
        (line.verb, line.name) for line in lines
    ]
    assert tuple(one.name for one in denied) == denied_by(lines)
