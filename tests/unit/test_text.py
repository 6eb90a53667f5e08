"""Text from outside in the agent's own, and times as the API writes them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.text import format_rfc3339, join_limited, last_line, parse_rfc3339, sanitize, url_host


@given(st.text(max_size=400), st.integers(min_value=1, max_value=60))
def test_sanitized_text_is_one_printable_line_of_bounded_length(text: str, most: int) -> None:
    """Whatever comes from outside cannot break a line, a terminal or an annotation's size."""
    shown = sanitize(text, most)
    assert len(shown) <= most
    assert all(letter.isprintable() for letter in shown)
    assert shown == " ".join(shown.split())


def test_joined_names_appear_once_and_the_rest_is_counted() -> None:
    """Five are shown, the rest is a number."""
    assert join_limited(["a", "b", "a", "", " "]) == "a, b"
    assert join_limited(f"p{number}" for number in range(9)) == "p0, p1, p2, p3, p4 and 4 more"
    assert join_limited([]) == ""


@pytest.mark.parametrize(
    ("address", "host"),
    [("::1", "[::1]"), ("[::1]", "[::1]"), ("10.0.0.1", "10.0.0.1"), ("worker-1.example", "worker-1.example")],
)
def test_an_ipv6_address_stands_in_brackets_in_a_url(address: str, host: str) -> None:
    """Once: the kubelet gives a pod the service's address without them, an operator may write them."""
    assert url_host(address) == host


def test_the_last_line_is_the_last_that_is_not_blank() -> None:
    """Trailing blank lines are not what a tool died of."""
    assert last_line("starting\nerror: disk is full\n\n  \n") == "error: disk is full"
    assert last_line("\n") == ""


offsets = st.integers(-12 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))


@given(st.datetimes(timezones=offsets))
def test_a_time_with_any_offset_is_read_exactly(when: datetime) -> None:
    """RFC 3339 as Go and kubectl write it, to the microsecond."""
    assert parse_rfc3339(when.isoformat()) == when.timestamp()


@pytest.mark.parametrize(
    "text",
    ["2030-01-31", "2030-01-31T22:00:00", "tomorrow", "", "2030-13-31T22:00:00Z", "20300131T220000Z", "2030-01-31T22Z"],
)
def test_what_is_no_time_is_refused(text: str) -> None:
    """A time without an offset means another moment to every reader."""
    with pytest.raises(ValueError, match="is not a time"):
        parse_rfc3339(text)


def test_nanoseconds_and_small_letters_are_read() -> None:
    """Go writes nine digits; RFC 3339 allows a small t and z."""
    assert parse_rfc3339("2030-01-31t22:00:00.123456789z") == pytest.approx(
        parse_rfc3339("2030-01-31T22:00:00Z") + 0.123456
    )


def test_a_moment_is_shown_in_utc() -> None:
    """One spelling everywhere."""
    assert format_rfc3339(datetime(2030, 1, 31, 22, tzinfo=UTC).timestamp()) == "2030-01-31T22:00:00Z"


def test_a_lease_shows_microseconds() -> None:
    """As a MicroTime of the API has them."""
    assert (
        format_rfc3339(parse_rfc3339("2030-01-31T22:00:00.000250Z"), timespec="microseconds")
        == "2030-01-31T22:00:00.000250Z"
    )
