"""Exponential backoff whose jitter can be predicted.

The wait after attempt n is ``first * factor**(n - 1)``, at most ``longest``, less up to ``jitter`` of
itself. The jitter is a hash of (queue id, attempt): a schedule can be shown and tested, and a
thousand messages deferred by one outage still do not come back at one moment.
"""

from __future__ import annotations

import datetime as dt
import hashlib
import math
from dataclasses import dataclass
from typing import Final, final

from smtprecv.errors import ConfigError
from smtprecv.message import QueueId

_LONGEST: Final = dt.timedelta(days=366)


@final
@dataclass(frozen=True, slots=True)
class Backoff:
    """The default RetryPolicy.

    ``first``: the wait after the first failure. ``factor``: how much longer each next wait is, at
    least 1. ``longest``: no wait is longer. ``give_up_after``: age of a message past which it is not
    tried again (RFC 5321 section 4.5.4.1: at least 4 to 5 days). ``jitter``: the part of a
    wait that may be taken off, 0 to below 1. ConfigError for values outside these.
    """

    first: dt.timedelta = dt.timedelta(minutes=5)
    factor: float = 2.0
    longest: dt.timedelta = dt.timedelta(hours=4)
    give_up_after: dt.timedelta = dt.timedelta(days=5)
    jitter: float = 0.1

    def __post_init__(self) -> None:
        """Refuse a schedule that would spin or run backwards."""
        if self.first <= dt.timedelta():
            msg = "the first wait (--retry-first) must be longer than nothing"
            raise ConfigError(msg)
        if self.longest < self.first:
            msg = "the longest wait (--retry-max) must not be shorter than the first (--retry-first)"
            raise ConfigError(msg)
        if self.longest > _LONGEST:
            msg = "the longest wait (--retry-max) must not be longer than a year"
            raise ConfigError(msg)
        if self.give_up_after < dt.timedelta() or not 1 <= self.factor < math.inf or not 0 <= self.jitter < 1:
            msg = "a backoff needs give_up_after of 0 or more, factor of 1 or more, jitter from 0 to below 1"
            raise ConfigError(msg)

    def next_attempt(
        self, queue_id: QueueId, attempts: int, received: dt.datetime, now: dt.datetime
    ) -> dt.datetime | None:
        """Give the time of the next attempt; None once the message is older than ``give_up_after``.

        The last attempt falls on the moment of giving up, so that no message is given up for
        what was answered hours before.
        """
        left = self.time_left(received, now)
        return None if left <= dt.timedelta() else now + min(self.wait(queue_id, attempts), left)

    def time_left(self, received: dt.datetime, now: dt.datetime) -> dt.timedelta:
        """Give the time until a message is given up, 0 or less once it is; a clock that was set back adds none."""
        return self.give_up_after - max(now - received, dt.timedelta())

    def wait(self, name: str, attempts: int) -> dt.timedelta:
        """Give the wait after ``attempts`` (at least 1) that failed, of the message, or whatever else, of this name."""
        return self._plain_wait(attempts - 1) * (1 - self.jitter * fraction(name, attempts))

    def _plain_wait(self, steps: int) -> dt.timedelta:
        # Asked first, because the power of a float overflows long before a message is given up.
        if self.factor > 1 and steps >= math.log(self.longest / self.first, self.factor):
            return self.longest
        return self.first * self.factor**steps


def fraction(name: str, attempts: int) -> float:
    """Give a number from 0 to below 1 that is always the same for these arguments: chance that can be foretold."""
    digest = hashlib.blake2b(f"{name} {attempts}".encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") / 2**64
