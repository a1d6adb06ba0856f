"""How long a client may take: its octets buy time, but never the whole limit anew."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from smtprecv.server import Limits
from smtprecv.server._patience import Patience

LIMITS = Limits(idle_timeout=100, session_timeout=1000, min_data_rate=10)


def test_a_request_has_the_idle_limit() -> None:
    """From the moment that the server waits, a silent client has so long, and for each request anew."""
    patience = Patience(LIMITS, 0)
    assert [patience.begin(0), patience.begin(50), patience.begin(60)] == [100, 150, 160]


def test_an_octet_buys_a_moment() -> None:
    """Who sends one octet now and then gets no more than the limit and the time of so many octets."""
    patience = Patience(LIMITS, 0)
    deadline = patience.begin(0)
    for now in range(99):
        deadline = patience.received(now, 1) if now else deadline
    assert math.isclose(100 + 98 * 0.1, deadline)


def test_who_is_fast_may_not_be_silent_for_longer() -> None:
    """Octets ahead of their time are no savings."""
    patience = Patience(LIMITS, 0)
    patience.begin(0)
    assert patience.received(1, 65536) == 101


def test_nothing_lasts_longer_than_the_session() -> None:
    """However much comes, the session's own end stands."""
    patience = Patience(LIMITS, 500)
    assert patience.begin(500) == 600
    assert patience.begin(1450) == 1500
    assert patience.received(1499, 10_000) == 1500


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 500))))
def test_the_least_rate_is_kept(reads: list[tuple[float, int]]) -> None:
    """A request that is still being waited for at any time has come at the least rate, but for the idle limit."""
    patience = Patience(Limits(idle_timeout=100, min_data_rate=10), 0)
    deadline, now, size = patience.begin(0), 0.0, 0
    for pause, octets in reads:
        now += pause
        if now > deadline:
            break
        assert now <= 100 + size / 10 + 1e-6
        deadline = patience.received(now, octets)
        size += octets
        assert now <= deadline <= now + 100
