"""Durations, sizes, numbers and times: exact or refused with the right spelling."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.config import units


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0.0),
        ("0s", 0.0),
        ("90s", 90.0),
        ("10m", 600.0),
        ("1h30m", 5400.0),
        ("2d", 172800.0),
        ("500ms", 0.5),
        ("1d2h3m4s5ms", 93784.005),
        ("007s", 7.0),
    ],
)
def test_durations_are_read_as_seconds(text: str, seconds: float) -> None:
    """Units from days to milliseconds, largest first, each at most once."""
    assert units.duration(text) == seconds


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("300", "write 300s or 5m"),
        ("5", "write 5s or 5m"),
        ("-5s", "negative"),
        ("-5", "negative"),
        ("5 minutes", "did you mean 5m?"),
        ("10 Min", "did you mean 10m?"),
        ("1h 30m", "did you mean 1h30m?"),
        ("90S", "did you mean 1m30s?"),
        ("30m1h", "did you mean 1h30m?"),
        ("1 hour and 5 minutes", "did you mean 1h5m?"),
        ("5 milliseconds", "did you mean 5ms?"),
        ("1.5h", "write it as 90s, 10m or 1h30m"),
        ("", "write it as"),
        ("soon", "write it as"),
        ("١s", "write it as"),
        ("1m\n", "write it as"),
        ("1w", "write it as"),
        ("99999999999s", "write it as"),
    ],
)
def test_other_durations_are_refused_with_the_right_spelling(text: str, hint: str) -> None:
    """A bare number is refused too: its unit would be a guess."""
    with pytest.raises(ValueError) as caught:
        units.duration(text)
    assert hint in str(caught.value)


@given(st.integers(min_value=0, max_value=10**12))
def test_a_spelled_duration_reads_back(milliseconds: int) -> None:
    """Spelling loses nothing down to a millisecond."""
    seconds = milliseconds / 1000
    assert units.duration(units.spell_duration(seconds)) == seconds


@pytest.mark.parametrize(
    ("text", "size_bytes"),
    [("0", 0), ("512B", 512), ("4KiB", 4096), ("1MiB", 1 << 20), ("2GiB", 2 << 30)],
)
def test_sizes_are_read_as_bytes(text: str, size_bytes: int) -> None:
    """Binary units, spelled out."""
    assert units.size(text) == size_bytes


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("4096", "write 4096B or 4096KiB"),
        ("4k", "did you mean 4KiB?"),
        ("4Ki", "did you mean 4KiB?"),
        ("4 MB", "did you mean 4MiB?"),
        ("10bytes", "write it as"),
        ("-1B", "write it as"),
        ("1.5MiB", "write it as"),
        ("", "write it as"),
        ("big", "write it as"),
    ],
)
def test_other_sizes_are_refused_with_the_right_spelling(text: str, hint: str) -> None:
    """k, K, Ki, KB mean four things to four tools."""
    with pytest.raises(ValueError) as caught:
        units.size(text)
    assert hint in str(caught.value)


@given(st.integers(min_value=0, max_value=10**14))
def test_a_spelled_size_reads_back(size_bytes: int) -> None:
    """Spelling is exact."""
    assert units.size(units.spell_size(size_bytes)) == size_bytes


@pytest.mark.parametrize(("text", "value"), [("1", 1), ("12", 12), ("012", 12)])
def test_whole_numbers_are_decimal(text: str, value: int) -> None:
    """YAML 1.1 reads 012 as ten; people mean twelve."""
    assert units.whole(text, 1) == value


@pytest.mark.parametrize("text", ["0", "-1", "1.0", "1e3", "0x10", "1_000", "", "one", "1" * 30, "²"])
def test_other_numbers_are_refused(text: str) -> None:
    """Out of bounds, or not plainly a whole number."""
    with pytest.raises(ValueError, match=r"not a whole|out of range|126|127"):
        units.whole(text, 1)


@pytest.mark.parametrize(("text", "value"), [("1", "1"), ("03", "3"), ("10%", "10%"), ("100%", "100%"), ("1%", "1%")])
def test_counts_and_percentages(text: str, value: str) -> None:
    """One or more, or 1% to 100%."""
    assert units.count_or_percent(text) == value


@pytest.mark.parametrize("text", ["0", "0%", "101%", "-1%", "1.5%", "%", "ten", "10 %", ""])
def test_other_counts_and_percentages_are_refused(text: str) -> None:
    """None of them could be kept."""
    with pytest.raises(ValueError, match="percentage"):
        units.count_or_percent(text)


@pytest.mark.parametrize("text", ["-1", "256", "126", "127", "x"])
def test_exit_codes_that_cannot_be_mapped(text: str) -> None:
    """126 and 127 say that nothing was run; the rest do not exist."""
    with pytest.raises(ValueError, match=r"not a whole|out of range|126|127"):
        units.exit_code(text)


@pytest.mark.parametrize("text", ["00:00", "09:30", "22:00", "23:59"])
def test_times_of_day(text: str) -> None:
    """Two digits each, 24 hours."""
    assert units.time_of_day(text) == text


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("9:00", "did you mean 09:00?"),
        ("24:00", "did you mean 00:00?"),
        ("10pm", "did you mean 22:00?"),
        ("12:30 am", "did you mean 00:30?"),
        ("22:00:00", "did you mean 22:00?"),
        ("22", "did you mean 22:00?"),
        ("13pm", "write it as 22:00"),
        ("25:00", "write it as 22:00"),
        ("22:60", "write it as 22:00"),
        ("noon", "write it as 22:00"),
        ("", "write it as 22:00"),
    ],
)
def test_other_times_are_refused_with_the_right_spelling(text: str, hint: str) -> None:
    """What other tools accept is named as it is written here."""
    with pytest.raises(ValueError) as caught:
        units.time_of_day(text)
    assert hint in str(caught.value)


@given(st.text(max_size=30))
def test_no_text_surprises_a_reader(text: str) -> None:
    """Every reader answers any text with a value or a ValueError that says something."""
    for read in (units.duration, units.size, units.count_or_percent, units.exit_code, units.time_of_day):
        said = "a value"
        try:
            read(text)
        except ValueError as error:
            said = str(error)
        assert said


def test_shown_values_are_quoted_and_cut() -> None:
    """Control characters are visible and a long value does not fill the terminal."""
    assert units.shown("a\x1b[2J") == "'a\\x1b[2J'"
    assert len(units.shown("x" * 10_000)) < 65
