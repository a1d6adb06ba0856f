"""How long a client has for what it is about to send: the deadline of one request, moved by what comes.

Its one rule: an octet buys the time in which it should have come, never the whole limit anew. Otherwise a client that
sends one octet now and then would hold its connection for as long as it likes.
"""

from __future__ import annotations

from typing import Final, final

from smtprecv.server._limits import Limits


@final
class Patience:
    """The deadlines of one session; all times are seconds of one clock. Each method gives the deadline from now on."""

    __slots__ = ("_ends", "_idle_timeout", "_min_data_rate", "_session_ends")

    def __init__(self, limits: Limits, now: float) -> None:
        """Begin a session now, and its first request with it."""
        self._idle_timeout: Final = limits.idle_timeout
        self._min_data_rate: Final = limits.min_data_rate
        self._session_ends: Final = now + limits.session_timeout
        self._ends = now + limits.idle_timeout

    def begin(self, now: float) -> float:
        """Wait for a new request: ``idle_timeout`` from now, but not past the session's own end."""
        self._ends = now + self._idle_timeout
        return min(self._ends, self._session_ends)

    def received(self, now: float, size: int) -> float:
        """Wait for the rest of a request of which so many octets have come.

        They move the deadline by ``size / min_data_rate``, to ``idle_timeout`` from now at most: who was fast
        may not be silent for longer than others.
        """
        self._ends = min(self._ends + size / self._min_data_rate, now + self._idle_timeout)
        return min(self._ends, self._session_ends)
