"""When a message is tried again."""

from __future__ import annotations

import datetime as dt
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from smtprecv.errors import ConfigError
from smtprecv.message import QueueId
from smtprecv.retry import Backoff

RECEIVED = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
ID = QueueId("0123456789abcdefghij")
MINUTE = dt.timedelta(minutes=1)
PLAIN = Backoff(first=5 * MINUTE, longest=60 * MINUTE, give_up_after=dt.timedelta(days=1), jitter=0)


@pytest.mark.parametrize(
    ("attempts", "minutes"), [(1, 5), (2, 10), (3, 20), (4, 40), (5, 60), (6, 60), (1000, 60), (10**9, 60)]
)
def test_the_wait_doubles_up_to_the_longest(attempts: int, minutes: int) -> None:
    """Each wait is `factor` times the one before, and none is longer than `longest`."""
    assert PLAIN.wait(ID, attempts) == minutes * MINUTE


def test_a_factor_of_one_waits_evenly() -> None:
    """With factor 1 every wait is the first one."""
    even = Backoff(first=5 * MINUTE, factor=1, jitter=0)

    assert [even.wait(ID, attempts) for attempts in (1, 2, 5000)] == [5 * MINUTE] * 3


def test_the_next_attempt_counts_from_now() -> None:
    """The wait begins when the attempt ended, not when the message came."""
    now = RECEIVED + 100 * MINUTE

    assert PLAIN.next_attempt(ID, 2, RECEIVED, now) == now + 10 * MINUTE


def test_the_last_attempt_falls_on_the_moment_of_giving_up() -> None:
    """A wait that would pass the give-up time ends there, and the attempt after that is never made."""
    gives_up = RECEIVED + PLAIN.give_up_after

    assert PLAIN.next_attempt(ID, 9, RECEIVED, gives_up - MINUTE) == gives_up
    assert PLAIN.next_attempt(ID, 10, RECEIVED, gives_up) is None


def test_a_clock_that_was_set_back_gives_no_more_time() -> None:
    """What is younger than nothing has all of its time, and no more, also where that is all the time there is."""
    forever = Backoff(give_up_after=dt.timedelta.max)
    before = RECEIVED - MINUTE

    assert PLAIN.time_left(RECEIVED, before) == PLAIN.give_up_after
    assert forever.time_left(RECEIVED, before) == dt.timedelta.max
    assert forever.next_attempt(ID, 1, RECEIVED, before) == before + forever.wait(ID, 1)


def test_mail_is_tried_for_five_days_by_default() -> None:
    """RFC 5321 section 4.5.4.1: the give-up time needs to be at least 4-5 days."""
    almost = RECEIVED + dt.timedelta(days=5) - MINUTE

    assert Backoff().next_attempt(ID, 50, RECEIVED, almost) == RECEIVED + dt.timedelta(days=5)


@given(attempts=st.integers(1, 10**6), jitter=st.floats(0, 0.99), queue_id=st.text(max_size=20))
def test_jitter_is_predictable_and_only_shortens(attempts: int, jitter: float, queue_id: str) -> None:
    """The same message and attempt always wait as long, and at least the part that jitter leaves."""
    backoff = Backoff(jitter=jitter)
    plain = Backoff(jitter=0).wait(QueueId(queue_id), attempts)

    wait = backoff.wait(QueueId(queue_id), attempts)

    assert wait == backoff.wait(QueueId(queue_id), attempts)
    assert plain * (1 - jitter) <= wait <= plain


def test_who_never_gives_up_tries_for_ever() -> None:
    """The longest time there is means never, and overflows nothing."""
    patient = Backoff(give_up_after=dt.timedelta.max)
    now = RECEIVED + dt.timedelta(days=365_000)

    due = patient.next_attempt(ID, 10**6, RECEIVED, now)

    assert due is not None
    assert now < due <= now + patient.longest


def test_jitter_spreads_messages() -> None:
    """A thousand messages deferred together do not come back together."""
    waits = {Backoff(jitter=0.5).wait(QueueId(f"{number}"), 1) for number in range(1000)}

    assert len(waits) > 990


@given(
    first=st.timedeltas(dt.timedelta(seconds=1), dt.timedelta(hours=1)),
    factor=st.floats(1, 1e6),
    attempts=st.integers(1, 10**6),
    age=st.timedeltas(dt.timedelta(), dt.timedelta(days=6)),
)
def test_the_next_attempt_is_always_later_and_never_past_giving_up(
    first: dt.timedelta, factor: float, attempts: int, age: dt.timedelta
) -> None:
    """No schedule spins, runs backwards, overflows, or goes on for ever."""
    now = RECEIVED + age

    due = Backoff(first=first, factor=factor).next_attempt(ID, attempts, RECEIVED, now)

    if age >= dt.timedelta(days=5):
        assert due is None
    else:
        assert due is not None
        assert now < due <= RECEIVED + dt.timedelta(days=5)


@pytest.mark.parametrize(
    "settings",
    [
        {"first": dt.timedelta()},
        {"first": 2 * MINUTE, "longest": MINUTE},
        {"give_up_after": -MINUTE},
        {"factor": 0.5},
        {"factor": math.nan},
        {"factor": math.inf},
        {"longest": dt.timedelta(days=400)},
        {"jitter": 1.0},
        {"jitter": -0.1},
    ],
)
def test_a_schedule_that_makes_no_sense_is_refused(settings: dict[str, dt.timedelta | float]) -> None:
    """A wrong setting is a ConfigError when it is made, not a spinning queue at night."""
    with pytest.raises(ConfigError):
        Backoff(**settings)  # type: ignore[arg-type]  # the point is to pass what is wrong
