"""How long a client may take: its octets buy time, but never the whole limit anew."""

from __future__ import annotations

import math

import trio
from hypothesis import given
from hypothesis import strategies as st

from smtprecv.server import Limits
from smtprecv.server._patience import Patience

LIMITS = Limits(idle_timeout=100, session_timeout=1000, min_data_rate=10)


class Waiting:
    """A session that waits for its client, and a clock to move."""

    def __init__(self, limits: Limits, now: float = 0.0) -> None:
        self.now = now
        self.scope = trio.CancelScope()
        self.patience = Patience(limits, self.scope, lambda: self.now)

    def begin(self, now: float) -> float:
        """Begin a request, and give its deadline."""
        self.now = now
        assert self.patience.begin() == now
        return self.patience.deadline

    def received(self, now: float, size: int) -> float:
        """Let octets come, and give the deadline for more."""
        self.now = now
        assert self.patience.received(size) == now
        return self.patience.deadline


def test_a_request_has_the_idle_limit() -> None:
    """From the moment that the server waits, a silent client has so long, and for each request anew."""
    waiting = Waiting(LIMITS)
    assert [waiting.begin(0), waiting.begin(50), waiting.begin(60)] == [100, 150, 160]


def test_an_octet_buys_a_moment() -> None:
    """Who sends one octet now and then gets no more than the limit and the time of so many octets."""
    waiting = Waiting(LIMITS)
    deadline = waiting.begin(0)
    for now in range(99):
        deadline = waiting.received(now, 1) if now else deadline
    assert math.isclose(100 + 98 * 0.1, deadline)


def test_who_is_fast_may_not_be_silent_for_longer() -> None:
    """Octets ahead of their time are no savings."""
    waiting = Waiting(LIMITS)
    waiting.begin(0)
    assert waiting.received(1, 65536) == 101


def test_nothing_lasts_longer_than_the_session() -> None:
    """However much comes, the session's own end stands."""
    waiting = Waiting(LIMITS, 500)
    assert waiting.begin(500) == 600
    assert waiting.begin(1450) == 1500
    assert waiting.received(1499, 10_000) == 1500


@given(st.lists(st.tuples(st.floats(0, 100), st.integers(1, 500))))
def test_the_least_rate_is_kept(reads: list[tuple[float, int]]) -> None:
    """A request that is still being waited for at any time has come at the least rate, but for the idle limit."""
    waiting = Waiting(Limits(idle_timeout=100, min_data_rate=10))
    deadline, now, size = waiting.begin(0), 0.0, 0
    for pause, octets in reads:
        now += pause
        if now > deadline:
            break
        assert now <= 100 + size / 10 + 1e-6
        deadline = waiting.received(now, octets)
        size += octets
        assert now <= deadline <= now + 100


@given(st.lists(st.tuples(st.floats(0, 200), st.integers(0, 500))))
def test_the_scope_ends_with_the_deadline_or_a_hundredth_later(steps: list[tuple[float, int]]) -> None:
    """Whatever has come, the scope lasts as long as the client may take, and hardly longer."""
    waiting = Waiting(LIMITS)
    now = 0.0
    for pause, size in steps:
        now += pause
        deadline = waiting.received(now, size) if size else waiting.begin(now)
        assert deadline <= waiting.scope.deadline <= deadline + 1
