"""How often something may happen, and what it costs to know."""

from __future__ import annotations

import math
import tracemalloc
from collections.abc import Sequence
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtprecv.errors import ConfigError
from smtprecv.server._rates import MAX_KEYS, Meter, Rate

COUNTS = st.integers(1, 20)
SECONDS = st.integers(1, 600)


def taken(rate: Rate, times: Sequence[float]) -> list[float]:
    """Give those of these times at which a meter lets it happen."""
    now = 0.0
    meter = Meter(rate, lambda: now)
    happened: list[float] = []
    for now in times:
        if meter.admits(1):
            meter.count(1)
            happened.append(now)
    return happened


def by_the_bucket(rate: Rate, times: Sequence[Fraction]) -> list[float]:
    """Give the same by a bucket of tokens, that is full at first and is filled at the rate, in exact arithmetic."""
    happened: list[float] = []
    tokens, before = Fraction(rate.count), times[0]
    for now in times:
        tokens = min(Fraction(rate.count), tokens + (now - before) * rate.count / Fraction(rate.seconds))
        before = now
        if tokens >= 1:
            tokens -= 1
            happened.append(float(now))
    return happened


@given(COUNTS, SECONDS, st.lists(st.integers(0, 24), min_size=1, max_size=100), st.integers(0, 10**7))
def test_a_meter_is_a_bucket_of_tokens(count: int, seconds: int, steps: list[int], start: int) -> None:
    """At any times, those that come just in time among them, a meter decides as the naive model does."""
    now, times = Fraction(start), list[Fraction]()
    for step in steps:
        now += Fraction(step * seconds, 8 * count)
        times.append(now)
    rate = Rate(count, seconds)
    assert by_the_bucket(rate, times) == taken(rate, [float(time) for time in times])


@given(COUNTS, SECONDS, st.lists(st.floats(0, 30), min_size=1, max_size=100), st.floats(0, 1e7))
def test_no_stretch_of_time_has_more_than_promised(count: int, seconds: int, steps: list[float], start: float) -> None:
    """What happens within any stretch is the count at once, and one for each interval of the stretch."""
    times = [start]
    for step in steps:
        times.append(times[-1] + step)
    happened = taken(Rate(count, seconds), times)
    for first, begin in enumerate(happened):
        for last, end in enumerate(happened[first:], first):
            assert last - first + 1 <= count + (end - begin) * count / seconds + 0.01


@given(st.lists(st.tuples(st.integers(1, 3), st.floats(0, 5)), max_size=60))
def test_keys_do_not_touch_each_other(events: list[tuple[int, float]]) -> None:
    """With several keys each is decided upon as if it were alone."""
    rate, now = Rate(2, 6), 0.0
    meter = Meter(rate, lambda: now)
    times: dict[int, list[float]] = {1: [], 2: [], 3: []}
    happened: dict[int, list[float]] = {1: [], 2: [], 3: []}
    for key, step in events:
        now += step
        times[key].append(now)
        if meter.admits(key):
            meter.count(key)
            happened[key].append(now)
    assert {key: taken(rate, times[key]) for key in times} == happened


def test_what_is_counted_past_the_rate_is_no_debt() -> None:
    """A key that is counted again and again though nothing is admitted waits one interval, not for ever."""
    now = 0.0
    meter = Meter(Rate(3, 30), lambda: now)
    for _ in range(1000):
        meter.count(1)
    assert not meter.admits(1)
    now = 10.0
    assert meter.admits(1)


def test_a_full_meter_forgets_who_was_silent_longest() -> None:
    """Of more keys than it may hold, a meter knows those that were counted last."""
    meter = Meter(Rate(2, 60), lambda: 0.0, max_keys=3)
    for key in (1, 1, 2, 2, 3, 3):
        meter.count(key)
    meter.count(4)
    assert [meter.admits(key) for key in (1, 2, 3, 4)] == [True, False, False, True]

    meter = Meter(Rate(2, 60), lambda: 0.0, max_keys=3)
    for key in (1, 2, 3, 1, 4, 4):
        meter.count(key)
    assert [meter.admits(key) for key in (1, 2, 3, 4)] == [False, True, True, False]


@pytest.mark.slow
def test_memory_is_bounded() -> None:
    """However many clients there are, a meter takes 4 MiB at most."""
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        now = 0.0
        meter = Meter(Rate(10, 60), lambda: now)
        for number in range(3 * MAX_KEYS):
            now = number / 7
            meter.count(~(2**63 + number * 65_537))
        held = tracemalloc.get_traced_memory()[0] - before
    finally:
        tracemalloc.stop()
    assert held < 4 * 1024 * 1024


@pytest.mark.parametrize(("count", "seconds"), [(0, 60), (-1, 60), (1, 0), (1, -1), (1, math.inf), (1, math.nan)])
def test_a_rate_lets_something_happen(count: int, seconds: float) -> None:
    """A rate of nothing, or over no time, is refused where it is written."""
    with pytest.raises(ConfigError):
        Rate(count, seconds)
