"""What securityfs and procfs say of AppArmor, on text captured from Linux 6.1 and on any other."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.controls.apparmor.securityfs import (
    Lsm,
    confined_by,
    covers,
    hash_of,
    parse_profiles,
    read_kernel,
    spelled,
    users_of,
)
from agent.errors import HostError
from agent.host import Host
from agent.host.filesystem import NAMES_LIMIT

CAPTURED = """\
sp ace (x) (enforce)
/usr/{s,}bin/foo (complain)
two (complain)
two//kid (enforce)
:ns1:inns (enforce)
cri-containerd.apparmor.d (kill)
lsb_release (unconfined)
"""


def tree(root: Path, files: dict[str, str]) -> Host:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return Host(root)


def test_profiles_as_the_kernel_lists_them() -> None:
    """Names keep blanks, brackets, globs and children; a namespace is spelled as the parser spells it."""
    assert parse_profiles(CAPTURED) == {
        "sp ace (x)": "enforce",
        "/usr/{s,}bin/foo": "complain",
        "two": "complain",
        "two//kid": "enforce",
        ":ns1://inns": "enforce",
        "cri-containerd.apparmor.d": "kill",
        "lsb_release": "unconfined",
    }


@pytest.mark.parametrize("line", ["", "name", "name()", "name ()", " (enforce)", "name (enforce", "name enforce)"])
def test_a_line_of_another_form_names_nothing(line: str) -> None:
    """What cannot be a profile's line is not taken for one."""
    assert parse_profiles(line) == {}


@given(st.text())
def test_any_text_parses(text: str) -> None:
    """Whatever securityfs says, the answer is names and modes, and each of them stands in the text."""
    for name, mode in parse_profiles(text).items():
        assert name
        assert mode
        assert f"({mode})" in text


@given(
    st.dictionaries(st.text(st.characters(exclude_characters="\n:"), min_size=1), st.sampled_from(["enforce", "kill"]))
)
def test_what_the_kernel_prints_is_read_back(profiles: dict[str, str]) -> None:
    """Any name without a line break survives, brackets and blanks included."""
    text = "".join(f"{name} ({mode})\n" for name, mode in profiles.items())
    assert parse_profiles(text) == profiles


@pytest.mark.parametrize(
    ("label", "names"),
    [
        ("unconfined\n", ()),
        ("app (enforce)\n", ("app",)),
        ("app//kid (complain)\n", ("app//kid",)),
        ("one//&two (enforce)\n", ("one", "two")),
        ("one//&unconfined (mixed)\n", ("one",)),
        (":ns:inner (enforce)\n", (":ns://inner",)),
        ("app (x) (enforce)\0", ("app (x)",)),
        ("", ()),
    ],
)
def test_who_confines_a_process(label: str, names: tuple[str, ...]) -> None:
    """attr/current names one profile, several when stacked, none when unconfined."""
    assert confined_by(label) == names


@given(st.text())
def test_any_label_parses(label: str) -> None:
    """Whatever stands in attr/current, the answer is a list of names."""
    assert all(confined_by(label))
    assert isinstance(spelled(label), str)


def test_children_belong_to_their_parent() -> None:
    """`a//b` is a's child; `ab` is not."""
    assert covers("a", "a//b")
    assert covers("a", "a")
    assert not covers("a", "ab")
    assert not covers("a//b", "a")


@pytest.mark.parametrize(
    ("files", "lsm", "words"),
    [
        ({}, Lsm.UNKNOWN, "sysfs is not mounted"),
        ({"sys/module/ext4/x": ""}, Lsm.OFF, "the kernel has no AppArmor"),
        ({"sys/module/apparmor/parameters/enabled": "N\n"}, Lsm.OFF, "not on"),
        ({"sys/module/apparmor/parameters/enabled": "Y\n"}, Lsm.UNKNOWN, "there is no /sys/kernel/security/apparmor"),
    ],
)
def test_why_there_is_no_apparmor(tmp_path: Path, files: dict[str, str], lsm: Lsm, words: str) -> None:
    """Off, absent and not to be seen are three answers, each with its reason and a next step."""
    seen = read_kernel(tree(tmp_path, files))
    assert seen.lsm is lsm
    assert words in seen.reason
    assert seen.remediation


def test_apparmor_on(tmp_path: Path) -> None:
    """On, with what is loaded."""
    files = {"sys/module/apparmor/parameters/enabled": "Y\n", "sys/kernel/security/apparmor/profiles": "a (kill)\n"}
    seen = read_kernel(tree(tmp_path, files))
    assert (seen.lsm, seen.profiles) == (Lsm.ON, {"a": "kill"})


def test_the_kernels_hash(tmp_path: Path) -> None:
    """Found below the mangled name, children below their parent, sha256 before sha1; else empty."""
    base = "sys/kernel/security/apparmor/policy/profiles"
    host = tree(
        tmp_path,
        {
            f"{base}/usr.bin.x.7/name": "/usr/bin/x\n",
            f"{base}/usr.bin.x.7/sha1": "aa\n",
            f"{base}/usr.bin.x.7/sha256": "bb\n",
            f"{base}/usr.bin.x.7/profiles/k_id.8/name": "k id\n",
            f"{base}/usr.bin.x.7/profiles/k_id.8/sha1": "cc\n",
            f"{base}/plain.9/name": "plain\n",
        },
    )
    assert hash_of(host, "/usr/bin/x") == "sha256:bb"
    assert hash_of(host, "/usr/bin/x//k id") == "sha1:cc"
    assert hash_of(host, "plain") == ""
    assert hash_of(host, "none") == ""
    assert hash_of(host, ":ns://plain") == ""


def test_users_of_profiles(tmp_path: Path) -> None:
    """Processes under a profile or its children are found, in the module's own attribute before the shared one."""
    host = tree(
        tmp_path,
        {
            "proc/1/attr/current": "unconfined\n",
            "proc/20/attr/current": "selinux_says_something\n",
            "proc/20/attr/apparmor/current": "app//kid (enforce)\n",
            "proc/3/attr/current": "app (enforce)\n",
            "proc/4/comm": "no attributes: it has just ended\n",
            "proc/sys/x": "",
        },
    )
    assert users_of(host, frozenset({"app", "other"})) == {"app": (3, 20), "other": ()}


def test_users_on_a_node_with_many_processes(tmp_path: Path) -> None:
    """More than the names that are read of any other folder: the last of them counts too."""
    host = tree(tmp_path, {"proc/9000/attr/current": "app (enforce)\n"})
    for pid in range(1, NAMES_LIMIT + 1):
        (tmp_path / f"proc/{pid}").mkdir(exist_ok=True)
    assert users_of(host, frozenset({"app"})) == {"app": (9000,)}


def test_users_cannot_be_told_without_procfs(tmp_path: Path) -> None:
    """An empty /proc is a mount that is missing, not a node without processes."""
    (tmp_path / "proc").mkdir()
    with pytest.raises(HostError, match="procfs is not mounted"):
        users_of(Host(tmp_path), frozenset({"app"}))


def test_a_label_is_read_up_to_64_kib(tmp_path: Path) -> None:
    """Nested policy namespaces make labels long; what is longer still is unknown, never a process without a profile."""
    limit = 64 << 10
    host = tree(tmp_path, {"proc/1/attr/current": "app (enforce)".ljust(limit)})
    assert users_of(host, frozenset({"app"})) == {"app": (1,)}
    (tmp_path / "proc/1/attr/current").write_text("app (enforce)".ljust(limit + 1))
    with pytest.raises(HostError, match="/proc/1/attr/current"):
        users_of(host, frozenset({"app"}))
