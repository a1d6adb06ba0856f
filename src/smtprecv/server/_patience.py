"""How long a client has for what it is about to send: the deadline of one request, moved by what comes.

Its one rule: an octet buys the time in which it should have come, never the whole limit anew. Otherwise a client that
sends one octet now and then would hold its connection for as long as it likes.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, final

import trio

from smtprecv.server._limits import Limits

_SLACK: Final = 0.01
"""The part of ``idle_timeout`` by which a session may end too late: to move a scope's deadline is not cheap."""


@final
class Patience:
    """Moves the deadline of the one scope around a session; ``clock`` gives the time in seconds, as the scope's.

    By default that is Trio's own, without the two calls around it of which ``trio.current_time`` consists.
    """

    __slots__ = (
        "_clock",
        "_ends",
        "_idle_timeout",
        "_min_data_rate",
        "_scope",
        "_scope_ends",
        "_session_ends",
        "_slack",
    )

    def __init__(self, limits: Limits, scope: trio.CancelScope, clock: Callable[[], float] | None = None) -> None:
        """Begin a session now, and its first request with it."""
        clock = clock or trio.lowlevel.current_clock().current_time
        self._idle_timeout: Final = limits.idle_timeout
        self._min_data_rate: Final = limits.min_data_rate
        self._slack: Final = limits.idle_timeout * _SLACK
        self._scope: Final = scope
        self._scope_ends = scope.deadline
        self._clock: Final = clock
        self._session_ends: Final = clock() + limits.session_timeout
        self._ends = 0.0
        self.begin()

    @property
    def deadline(self) -> float:
        """When the session ends if nothing comes; its scope does then, or a hundredth of ``idle_timeout`` later."""
        return min(self._ends, self._session_ends)

    def begin(self) -> float:
        """Wait for a new request: ``idle_timeout`` from now, but not past the session's own end. Gives the time."""
        now = self._clock()
        self._ends = ends = now + self._idle_timeout
        if not ends <= self._scope_ends <= ends + self._slack:
            self._move()
        return now

    def received(self, size: int) -> float:
        """Wait for the rest of a request of which so many octets have come, and give the time.

        They move the deadline by ``size / min_data_rate``, to ``idle_timeout`` from now at most: who was fast
        may not be silent for longer than others.
        """
        now = self._clock()
        self._ends = ends = min(self._ends + size / self._min_data_rate, now + self._idle_timeout)
        if not ends <= self._scope_ends <= ends + self._slack:
            self._move()
        return now

    def _move(self) -> None:
        ends = self.deadline + self._slack
        if ends != self._scope_ends:  # at the end of the session it stays
            self._scope_ends = self._scope.deadline = ends
