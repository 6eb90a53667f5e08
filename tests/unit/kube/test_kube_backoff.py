"""Delays between attempts: growing, bounded, spread, and never shorter than what the server asks for."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from agent.kube.retry import Backoff

SECONDS = st.floats(min_value=0.01, max_value=100)


@given(first=SECONDS, longest=SECONDS, seed=st.integers(), tries=st.integers(min_value=1, max_value=40))
def test_delays_double_up_to_a_limit(first: float, longest: float, seed: int, tries: int) -> None:
    """The n-th lies between half of first * 2**n and the whole, and never above the longest."""
    backoff = Backoff(first, longest, random.Random(seed))
    for number in range(tries):
        whole = min(longest, first * 2.0**number)
        assert whole / 2 <= backoff.next() <= whole
    backoff.reset()
    assert backoff.next() <= min(first, longest)


@given(asked=SECONDS, seed=st.integers())
def test_retry_after_is_honoured_with_a_little_spread(asked: float, seed: int) -> None:
    """Never earlier than asked, so many clients that were told the same do not come back together."""
    delay = Backoff(0.01, 0.01, random.Random(seed)).next(asked)
    assert asked <= delay <= asked * 1.25


def test_two_nodes_do_not_march_in_step() -> None:
    """Delays are drawn, not computed."""
    assert Backoff(1, 8, random.Random(1)).next() != Backoff(1, 8, random.Random(2)).next()
