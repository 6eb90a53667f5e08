"""What kmod and the kernel print, read from captured samples (kmod 30, Debian's kernel 6.1)."""

from __future__ import annotations

import fnmatch

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.controls.modprobe import initramfs, kmod
from agent.controls.modprobe.kmod import Loaded, ShowDepends, unload_order

SHOW_CONFIG = """\
blacklist sctp
install sctp /bin/false
install sctp /sbin/second
install s* /bin/true
options virtio_net napi_tx=0

# End of configuration files. Dumping indexes now:

alias net_pf_10_proto_132 sctp
alias net_pf_2_proto_132 sctp
alias symbol:sctp_for_each_endpoint sctp
alias usb:v*p*d*dc*dsc*dp*ic08isc06ip50in* usb_storage
alias broken
"""


def test_show_depends_is_read_as_what_would_be_done() -> None:
    """A path with blanks, compressed objects, options behind them, install commands, built-ins, names not found."""
    stdout = (
        "insmod /srv/a tree/lib/modules/6.1/kernel/lib/libcrc32c.ko.xz \n"
        "install /bin/false debug=1\n"
        "insmod /lib/modules/6.1/kernel/net/sctp/sctp-diag.ko napi=1 x\n"
        "builtin tipc\n"
        "something else\n"
    )
    stderr = "modprobe: WARNING: Module no-where not found in directory /lib/modules/6.1\nmodprobe: ERROR: x\n"
    expected = ShowDepends(("libcrc32c", "sctp_diag"), ("/bin/false debug=1",), ("tipc",), ("no-where",))
    assert expected == kmod.answer(stdout, stderr)


def test_aliases_and_commands_are_taken_from_the_whole_configuration() -> None:
    """Symbols are aliases too; of two install lines the first is what modprobe holds."""
    expected = {
        "sctp": ("net_pf_10_proto_132", "net_pf_2_proto_132", "symbol:sctp_for_each_endpoint"),
        "usb_storage": ("usb:v*p*d*dc*dsc*dp*ic08isc06ip50in*",),
        "dccp": (),
    }
    assert expected == kmod.aliases(SHOW_CONFIG, ["sctp", "usb_storage", "dccp"])
    assert kmod.first(SHOW_CONFIG, "install") == {"sctp": "/bin/false", "s*": "/bin/true"}


def test_proc_modules_is_read() -> None:
    """References, holders, a kernel that cannot unload (`-`), and lines that are none."""
    text = (
        "sctp_diag 16384 0 - Live 0x0000000000000000\n"
        "sctp 458752 3 sctp_diag, Live 0xffffffffc0a00000 (E)\n"
        "fixed 1 - - Live 0x0\n"
        "nonsense\n"
    )
    expected = {
        "sctp_diag": Loaded("sctp_diag", 0),
        "sctp": Loaded("sctp", 3, ("sctp_diag",)),
        "fixed": Loaded("fixed", None),
    }
    assert expected == kmod.loaded(text)


def test_the_kernels_own_lists_are_read_by_name() -> None:
    """Paths become names, `-` becomes `_`, compression is no part of a name."""
    assert frozenset({"ext4", "dm_mod"}) == kmod.builtin("kernel/fs/ext4/ext4.ko\nkernel/drivers/md/dm-mod.ko\n\nx\n")
    text = "kernel/net/dccp/dccp_ipv4.ko.zst: kernel/net/dccp/dccp.ko.zst\nkernel/net/dccp/dccp.ko.zst:\nnonsense\n"
    assert kmod.dependencies(text) == {"dccp_ipv4": ("dccp",), "dccp": ()}


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("net-pf-2-proto-132", "net-pf-2-proto-132"),
        ("usb:v0BC2p2312d*dc*", "usb:v0BC2p2312ddc"),
        ("x[0-9]?y[!0]z[^0a]", "x00yaz" + "A"),
    ],
)
def test_a_pattern_has_a_sample(pattern: str, expected: str) -> None:
    """modprobe wants a name to match against its patterns."""
    assert expected == kmod.sample(pattern)


@given(st.lists(st.sampled_from(["a", "*", "?", "[0-9]", "[!a]", "[abc]", "-", ":", "_"]), max_size=12).map("".join))
def test_a_sample_matches_its_pattern(pattern: str) -> None:
    """Otherwise the proof would ask about something else."""
    assert fnmatch.fnmatchcase(kmod.sample(pattern), pattern)


def test_only_names_reach_the_command_line() -> None:
    """No path (that would be read as an object), no option, nothing empty, nothing twice."""
    assert kmod.usable(["sctp", "/etc/passwd", "./x", "-r", "", "a b", "net-pf-2", "sctp", "a\0"]) == (
        "sctp",
        "net-pf-2",
    )


@given(st.text(max_size=120), st.text(max_size=60))
def test_any_output_is_read_without_an_error(stdout: str, stderr: str) -> None:
    """A damaged line is left out; nothing is made up."""
    said = kmod.answer(stdout, stderr)
    assert len(said.insmods) + len(said.commands) + len(said.builtins) <= len(stdout.splitlines())
    kmod.loaded(stdout)
    kmod.builtin(stdout)
    kmod.dependencies(stdout)
    kmod.aliases(stdout, ["a"])
    kmod.first(stdout, "install")


def test_unloading_goes_from_the_leaves_and_leaves_what_is_in_use() -> None:
    """dccp_ipv4 before dccp; sctp stays because a process holds it, and so does what a stranger uses."""
    loaded = {
        "dccp": Loaded("dccp", 1, ("dccp_ipv4",)),
        "dccp_ipv4": Loaded("dccp_ipv4", 0),
        "sctp": Loaded("sctp", 2, ("sctp_diag",)),
        "sctp_diag": Loaded("sctp_diag", 0),
        "rds": Loaded("rds", 1, ("stranger",)),
        "fixed": Loaded("fixed", None),
        "bridge": Loaded("bridge", 0),
    }
    denied = {"dccp", "dccp_ipv4", "sctp", "sctp_diag", "rds", "fixed", "absent"}
    assert unload_order(loaded, denied) == ("dccp_ipv4", "sctp_diag", "dccp")


# Debian 12's initramfs-tools 0.142 and dracut 059, with the same archive.
LSINITRAMFS = """\
drwxr-xr-x   2 root     root            0 Nov 28 12:00 etc/modprobe.d
-rw-r--r--   1 root     root           24 Nov 28 12:00 etc/modprobe.d/kubernetes-blacklist.conf
-rw-r--r--   1 root     root          300 Nov 28 12:00 usr/lib/modules/6.1.0-18-amd64/kernel/net/sctp/sctp.ko
lrwxrwxrwx   1 root     root            7 Nov 28 12:00 lib -> usr/lib
"""
LSINITRD = f"""\
Image: initrd.img: 4.0K
========================================================================
Version:{" "}

Arguments:{" "}
dracut modules:
========================================================================
{LSINITRAMFS}========================================================================
"""


@pytest.mark.parametrize("text", [LSINITRAMFS, LSINITRD])
def test_the_listing_of_an_initramfs_gives_files_and_sizes(text: str) -> None:
    """Files only; headings and folders are none."""
    assert initramfs.listing(text) == {
        "etc/modprobe.d/kubernetes-blacklist.conf": 24,
        "usr/lib/modules/6.1.0-18-amd64/kernel/net/sctp/sctp.ko": 300,
    }
