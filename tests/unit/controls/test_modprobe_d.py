"""modprobe.d as kmod reads it. The expectations were seen with kmod 30; tests/integration holds them against it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.controls.modprobe.modprobe_d import (
    ConfigLine,
    Configuration,
    Hidden,
    denied_by,
    file_problem,
    in_order,
    parse,
)
from agent.controls.modprobe.shell import Refusal, refusal


def configuration(*files: tuple[str, str]) -> Configuration:
    """A configuration of files that are already in order."""
    return Configuration(tuple(line for path, text in files for line in parse(text, path)))


def test_an_earlier_folder_hides_a_later_file_of_the_same_name_and_names_decide_the_order() -> None:
    """/etc before /run before /usr/local/lib before /usr/lib, then by name whatever the folder."""
    listing = {
        "/usr/lib/modprobe.d": ("b.conf", "a.conf", "README"),
        "/run/modprobe.d": ("z.conf", "b.conf"),
        "/etc/modprobe.d": ("k.conf", "b.conf", ".hidden.conf", "c.conf.dpkg-old", ".conf"),
        "/opt/modprobe.d": ("x.conf",),
    }
    expected = (
        ("/usr/lib/modprobe.d/a.conf", "/etc/modprobe.d/b.conf", "/etc/modprobe.d/k.conf", "/run/modprobe.d/z.conf"),
        (
            Hidden("/run/modprobe.d/b.conf", "/etc/modprobe.d/b.conf"),
            Hidden("/usr/lib/modprobe.d/b.conf", "/etc/modprobe.d/b.conf"),
        ),
    )
    assert expected == in_order(listing)


def test_lines_are_read_as_kmod_does() -> None:
    """Tabs, continued lines, comments that swallow the next line, bad lines, stray words."""
    text = (
        "install\tbridge\t/bin/\\\nfalse\n"
        "foo bar\n"
        "  blacklist lead\n"
        "install x\n"
        "# comment \\\ninstall swallowed /bin/false\n"
        "blacklist a-b rest\n"
        "alias a[b c\n"
        "alias net-pf-[0-9] my-mod\n"
        "install q /bin/\\false  \n"
        "\n"
        "softdep s pre:\\"
    )
    expected = [
        ("2", "install bridge /bin/false"),
        ("4", "blacklist lead"),
        ("8", "blacklist a_b rest"),
        ("10", "alias net_pf_[0-9] my-mod"),
        ("11", "install q /bin/false"),
        ("13", "softdep s pre:\ufffd"),  # kmod takes the end of the file for a character
    ]
    assert expected == [(str(line.number), str(line)) for line in parse(text, "f")]


def test_the_first_install_line_wins_and_may_be_a_pattern() -> None:
    """Two lines for one module: the file that sorts first decides; `s*` counts for sctp."""
    seen = configuration(
        ("a.conf", "install dccp /bin/true\n"), ("b.conf", "install s* /bin/x\ninstall sctp /bin/false")
    )
    assert getattr(seen.install_line("dccp"), "place", None) == "a.conf:1"
    assert getattr(seen.install_line("sctp"), "place", None) == "b.conf:1"
    assert seen.install_line("bridge") is None


def test_a_soft_dependency_walks_around_an_install_line() -> None:
    """Only words behind pre: or post: count, and only the first matching line does."""
    text = (
        "softdep ksmbd pre: crc32\nsoftdep cifs gcm\nsoftdep sctp pre:\nsoftdep sctp pre: bridge\nsoftdep d* post: x\n"
    )
    seen = configuration(("m.conf", text))
    places = {
        name: getattr(seen.bypasses_install(name), "place", None) for name in ("ksmbd", "cifs", "sctp", "dccp", "rds")
    }
    assert places == {"ksmbd": "m.conf:1", "cifs": None, "sctp": None, "dccp": "m.conf:5", "rds": None}


def test_the_kernels_own_soft_dependencies_sort_among_the_files() -> None:
    """modules.softdep comes after kubernetes-blacklist.conf and before z.conf."""
    kernels = parse("softdep ksmbd pre: crc32\n", "/lib/modules/6.1/modules.softdep")
    ours = configuration(("/etc/modprobe.d/kubernetes-blacklist.conf", "softdep ksmbd pre:\n"))
    late = configuration(("/etc/modprobe.d/z.conf", "softdep ksmbd pre:\n"))
    assert ours.beside(kernels).bypasses_install("ksmbd") is None
    assert (
        getattr(late.beside(kernels).bypasses_install("ksmbd"), "place", None) == "/lib/modules/6.1/modules.softdep:1"
    )


@pytest.mark.parametrize(
    ("command", "expected"),
    [
        ("/bin/false", Refusal.FAILS),
        ("/usr/bin/false", Refusal.FAILS),
        ("/bin/false nr_frags=3 debug", Refusal.FAILS),
        ("/bin/true", Refusal.PRETENDS),
        (":", Refusal.PRETENDS),
        ("/bin/false || modprobe -i sctp", Refusal.NONE),
        ("/bin/false;insmod x", Refusal.NONE),
        ("/bin/false & insmod x", Refusal.NONE),
        ("/bin/true $(insmod x)", Refusal.NONE),
        ("/opt/false", Refusal.NONE),
        ("/bin/false # stale mitigation", Refusal.FAILS),
        ("/bin/false 2>/dev/null", Refusal.FAILS),
        ('/bin/false text="a b"', Refusal.FAILS),
        ('logger -t modprobe "refused $MODPROBE_MODULE"; /bin/false', Refusal.FAILS),
        ("/usr/bin/logger refused && exit 1", Refusal.FAILS),
        ("/run/current-system/sw/bin/false", Refusal.FAILS),
        ("/nix/store/8fv91097mbh5049i9rglc73dx6kjg3qk-coreutils-9.5/bin/false", Refusal.FAILS),
        ("exit 1; modprobe -i sctp", Refusal.FAILS),
        ("exit 256", Refusal.PRETENDS),
        ("/bin/true || modprobe -i sctp", Refusal.PRETENDS),
        ("/bin/false && modprobe -i sctp || /bin/false", Refusal.FAILS),
        ("logger refused || modprobe -i sctp", Refusal.NONE),
        ("logger `modprobe -i sctp`; /bin/false", Refusal.NONE),
        ("/bin/false > /sys/bus/pci/drivers_probe", Refusal.NONE),
        ("env exec false; modprobe -i sctp", Refusal.NONE),  # env starts programs, and exec is none
        ("env command true || modprobe -i sctp", Refusal.NONE),
        ("exec env false; modprobe -i sctp", Refusal.FAILS),
        ("", Refusal.PRETENDS),
    ],
)
def test_what_a_shell_ends_non_zero_with_refuses(command: str, expected: Refusal) -> None:
    """Only while every part that it reaches is known to load nothing."""
    assert expected is refusal(command)


@pytest.mark.parametrize(
    ("line", "loads"),
    [
        ("install other /sbin/modprobe -i sctp", True),
        ("install other modprobe --ignore-install sctp && true", True),
        ("install other modprobe -qi sctp", True),
        ("install other /sbin/insmod /lib/x/sctp.ko", True),
        ("install other /sbin/modprobe sctp; /sbin/modprobe -i other", False),
        ("install other /sbin/modprobe -i sctp_diag", False),
        ("install sctp /sbin/modprobe -i sctp", False),
    ],
)
def test_commands_that_load_a_denied_module_are_found(line: str, loads: bool) -> None:
    """`modprobe -i` and insmod bypass a denial; a plain modprobe inside a command does not."""
    found = [str(one) for one in configuration(("x.conf", line)).loaders("sctp")]
    assert ([line] if loads else []) == found


@pytest.mark.parametrize(
    ("path", "good"),
    [
        ("/etc/modprobe.d/kubernetes-blacklist.conf", True),
        ("/usr/local/lib/modprobe.d/x.conf", True),
        ("/etc/modprobe.d/kubernetes-blacklist", False),
        ("/etc/modprobe.d/sub/x.conf", False),
        ("/etc/modprobe.d/.x.conf", False),
        ("/etc/modprobe.d/.conf", False),
        ("/etc/modprobe.d/../x.conf", False),
        ("/opt/x.conf", False),
    ],
)
def test_a_file_that_modprobe_would_not_read_is_said_so(path: str, good: bool) -> None:
    """Writing it would look like hardening and be none."""
    assert good == (not file_problem(path))


def test_what_a_file_denies_is_read_back() -> None:
    """Only plain refusals, each once."""
    text = "install b /bin/false\ninstall a /bin/false\ninstall b /bin/false\ninstall c /bin/x\nblacklist d\n"
    assert denied_by(parse(text, "f")) == ("b", "a")


words = st.text(st.sampled_from("abz-_*?[]^!09\\ \t\n#:/="), max_size=12)
texts = st.lists(st.sampled_from(["install", "softdep", "blacklist", "alias", "pre:"]) | words, max_size=12).map(
    " ".join
)


@given(texts | st.text(max_size=80), st.text(st.sampled_from("abz_09"), min_size=1, max_size=8))
def test_any_text_is_read_without_an_error(text: str, module: str) -> None:
    """Whatever stands in other people's files, the control goes on; every line knows a line of its file."""
    lines = parse(text, "f")
    seen = Configuration(lines).beside(lines)
    seen.bypasses_install(module)
    seen.loaders(module)
    winner = seen.install_line(module)
    assert winner is None or isinstance(winner, ConfigLine)
    assert all(1 <= line.number <= text.count("\n") + 1 for line in lines)
