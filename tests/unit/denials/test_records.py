"""Audit records: every form that kernels make, and whatever else may stand there."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.denials import records
from agent.denials.records import APPARMOR, SECCOMP, Kind, Outcome, header, parse
from agent.denials.serials import Serials
from agent.denials.syscall_names import name_of
from tests.unit.denials import samples


def parsed(text: bytes) -> records.Record:
    """The record, of the type that its text is of."""
    found = parse(APPARMOR if b"apparmor=" in text else SECCOMP, text)
    assert found is not None
    return found


def test_seccomp_in_every_form() -> None:
    """Label with and without a mode, hex strings, the errno in the code, another architecture."""
    log, errno, kill = (parsed(one) for one in samples.SECCOMP_RECORDS)
    assert (log.kind, log.outcome, log.pid, log.comm, log.profile) == (Kind.SECCOMP, Outcome.LOGGED, 27324, "sh", "")
    assert (errno.outcome, errno.profile, errno.comm) == (Outcome.REFUSED, "k8s-web-service", 'a b"c')
    assert (kill.outcome, kill.profile) == (Outcome.KILLED, "")
    assert [name_of(one.arch, one.number) for one in (log, errno, kill)] == ["execve", "chmod", "fchmodat"]


@pytest.mark.parametrize(
    ("text", "operation", "mask"),
    [
        (samples.FILE, "mknod", "c"),
        (samples.CAPABILITY, "capable", "sys_time"),
        (samples.NETWORK, "create", "inet raw"),
        (samples.SIGNAL, "signal", "send term"),
        (samples.MOUNT, "mount", "tmpfs"),
    ],
)
def test_apparmor_in_every_class(text: bytes, operation: str, mask: str) -> None:
    """What a rule would name, whatever the fields of that class are."""
    found = parsed(text)
    assert (found.operation, found.mask, found.outcome) == (operation, mask, Outcome.REFUSED)


def test_complain_mode_and_a_name_in_hex() -> None:
    found = parsed(samples.COMPLAIN)
    assert (found.outcome, found.target) == (Outcome.ALLOWED, "/tmp/a b")


@pytest.mark.parametrize("text", [samples.LOADED, samples.SELINUX])
def test_what_is_no_denial_of_a_profile_is_none(text: bytes) -> None:
    assert parse(APPARMOR, text) is None


@pytest.mark.parametrize("number", [1300, 1302, 1307, 1327, 1112])
def test_other_types_are_never_parsed(number: int) -> None:
    """Whatever their text: they hold arguments and command lines."""
    assert parse(number, samples.FILE) is None


def test_a_process_cannot_forge_a_field() -> None:
    """Its own strings are hex once they hold a quote or a blank; the first field of a name counts."""
    forged = b'x" pid=1 profile="y'.hex().upper().encode()
    found = parsed(samples.FILE.replace(b'comm="sh"', b"comm=" + forged))
    assert (found.pid, found.profile, found.comm) == (9, "k8s-deny", 'x" pid=1 profile="y')
    doubled = parsed(samples.FILE + b' profile="other" apparmor="ALLOWED"')
    assert (doubled.profile, doubled.outcome) == ("k8s-deny", Outcome.REFUSED)


def test_unprintable_bytes_become_question_marks() -> None:
    found = parsed(samples.FILE.replace(b'comm="sh"', b"comm=1B5B316D00FF"))
    assert found.comm == "?[1m??"


RECORDS = st.sampled_from(samples.SECCOMP_RECORDS + samples.APPARMOR_RECORDS)


@given(RECORDS, st.integers(0, 400), st.binary(max_size=8), st.sampled_from([SECCOMP, APPARMOR]))
def test_a_cut_or_broken_record_is_none_or_bounded(text: bytes, at: int, noise: bytes, number: int) -> None:
    """Cut anywhere, with any bytes in the middle: no exception, nothing long, nothing unprintable."""
    for broken in (text[:at], text[:at] + noise + text[at:], text[:at] + noise + text[at + len(noise) :]):
        header(broken)
        found = parse(number, broken)
        if found is not None:
            words = (found.comm, found.profile, found.operation, found.mask, found.target)
            assert all(len(one) <= 160 and one.isprintable() for one in words), found
            assert 0 <= found.pid < 10**10


@given(st.binary(max_size=300))
def test_any_bytes_are_survived(text: bytes) -> None:
    header(text)
    assert parse(SECCOMP, text) is None
    parse(APPARMOR, text)


@given(st.integers(0, 1 << 32), st.integers(1, 500), st.integers(0, 80), st.integers(0, 9999))
def test_received_and_lost_are_what_was_made(first: int, number: int, dropped: int, seed: int) -> None:
    """Dropped ones are counted exactly, although neighbours come in the other order and several share a number."""
    rng = random.Random(seed)
    made = list(range(first, first + number))
    gone = set(rng.sample(made[1:-1], min(dropped, max(number - 2, 0))))
    there = [one for one in made if one not in gone]
    for place in range(1, len(there) - 1):
        if rng.random() < 0.3 and place + 1 < len(there) - 1:
            there[place], there[place + 1] = there[place + 1], there[place]
    counted = Serials()
    for one in there:
        counted.observe(one)
        if rng.random() < 0.2:
            counted.observe(one)
    assert counted.lost == len(gone)


def test_a_long_gap_is_bounded_in_memory_and_exact() -> None:
    counted = Serials()
    counted.observe(1)
    counted.observe(10_000_000)
    assert counted.lost == 9_999_998
    counted.observe(9_999_999)
    assert counted.lost == 9_999_997


def test_another_boot_begins_again() -> None:
    """A step of half the range is no loss."""
    counted = Serials()
    counted.observe(4_294_967_290)
    counted.observe(3)
    assert counted.lost == 0
