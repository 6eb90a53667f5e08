"""Deny lists: what is read, and that everything wrong is said at once, with its place."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.bundled_profiles import shipped_profiles
from agent.controls.modprobe import DeniedModule, load_list
from agent.errors import ConfigError

GOOD = """\
apiVersion: node-hardening.io/v1alpha1
kind: ModuleDenyList
about: What it is for.
breaks: Nothing.
modules:
  - name: usb-storage
    reason: >-
      Keeps USB disks
      away.
    breaks: USB disks.
    submodules: [uas, ums-alauda]
  - {name: rds, reason: Unused.}
"""


def problems(text: str) -> list[str]:
    """The problems of a list, as people read them."""
    with pytest.raises(ConfigError) as caught:
        load_list(text, "x.yaml")
    return [str(problem) for problem in caught.value.problems]


def test_a_good_list_is_read_with_the_kernels_spelling_of_names() -> None:
    """`-` becomes `_`, as /proc/modules has it, and folded text becomes one line."""
    expected = (
        DeniedModule("usb_storage", "Keeps USB disks away.", "USB disks.", ("uas", "ums_alauda")),
        DeniedModule("rds", "Unused."),
    )
    assert expected == load_list(GOOD, "x.yaml")


def test_every_problem_is_said_at_once_with_line_and_key() -> None:
    """One look at the message is enough to mend the whole file."""
    text = """\
apiVersion: v1
kind: ModuleDenyList
abuot: x
breaks: ""
modules:
  - name: sctp.ko
    reason: r
  - name: dccp
    submodule: [a]
  - reason: no name
  - just text
"""
    expected = [
        "x.yaml:1: about: missing: a sentence for the operator",
        "x.yaml:1: apiVersion: 'v1': has to be node-hardening.io/v1alpha1",
        "x.yaml:3: abuot: unknown key; did you mean about?",
        "x.yaml:4: breaks: has to be text",
        "x.yaml:6: modules[0].name: 'sctp.ko' is a file: write the module's name, sctp",
        "x.yaml:8: modules[1].reason: missing: a sentence for the operator",
        "x.yaml:9: modules[1].submodule: unknown key; did you mean submodules?",
        "x.yaml:10: modules[2].name: missing: the module to deny",
        "x.yaml:11: modules[3]: has to be a mapping with name, reason, breaks, submodules",
    ]
    assert expected == problems(text)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "empty: a deny list begins with"),
        ("[]", "has to be a mapping with apiVersion"),
        ("a: [", "x.yaml:1: not YAML"),
        ("\x00", "not YAML"),
        (GOOD.replace("name: rds", "name: uas"), "uas is listed twice"),
        (GOOD.replace("name: rds", "name: r d s"), "'r d s' is not a module's name"),
        (GOOD.replace("name: rds", "name: [rds]"), "has to be a module's name"),
        (GOOD + "kind: ModuleDenyList\n", "kind: is given twice"),
        (GOOD.partition("modules:")[0] + "modules: []\n", "has to be a list of at least one"),
        (GOOD.partition("modules:")[0], "modules: missing: a list"),
        (GOOD.replace("kind: ModuleDenyList", "kind: AgentConfig"), "'AgentConfig': has to be ModuleDenyList"),
        ("[" * 2000, "nested deeper"),
    ],
)
def test_what_is_wrong_is_named(text: str, expected: str) -> None:
    """Each kind of mistake has its own words."""
    assert any(expected in problem for problem in problems(text))


@pytest.mark.parametrize("name", ["kubernetes", "cis", "cve"])
def test_every_shipped_list_says_what_it_is_for_and_what_it_breaks(name: str) -> None:
    """In its data and in the header that people see first."""
    path = shipped_profiles("modprobe") / f"{name}.yaml"
    text = path.read_text(encoding="utf-8")
    assert load_list(text, str(path))  # it has to have `about` and `breaks`
    assert "Breaks" in text.partition("apiVersion")[0]


def test_the_default_list_is_what_the_kubernetes_guide_names() -> None:
    """dccp and sctp; the module that holds DCCP's alias is a submodule and has to be in it."""
    read = load_list((shipped_profiles("modprobe") / "kubernetes.yaml").read_text(encoding="utf-8"), "kubernetes.yaml")
    below = {module.name: module.submodules for module in read}
    assert list(below) == ["dccp", "sctp"]
    assert "dccp_ipv4" in below["dccp"]


def test_the_benchmark_list_leaves_what_containers_need() -> None:
    """CIS lists overlayfs as well; a node without it runs no container."""
    read = load_list((shipped_profiles("modprobe") / "cis.yaml").read_text(encoding="utf-8"), "cis.yaml")
    names = {name for module in read for name in (module.name, *module.submodules)}
    assert {"cramfs", "freevxfs", "jffs2", "hfs", "hfsplus", "udf", "squashfs", "usb_storage", "rds", "tipc"} <= names
    assert not names & {"overlay", "overlayfs", "ext4", "xfs", "vfat"}


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=200) | st.sampled_from([GOOD]).flatmap(
    lambda good: st.integers(0, len(good)).map(lambda cut: good[:cut] + "\t- [" + good[cut + 3 :])
))  # fmt: skip
def test_any_text_is_a_list_or_a_configuration_error(text: str) -> None:
    """Nothing that stands in a file ends in a traceback."""
    with contextlib.suppress(ConfigError):
        assert load_list(text, "x.yaml")
