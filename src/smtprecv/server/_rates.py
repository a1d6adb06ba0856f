"""How often something may happen: a rate, and a meter that holds many keys to it.

The generic cell rate algorithm: one float for each key says when its debt is paid. Its one rule: memory is
bounded whatever happens; a meter that is full forgets the key that it has not heard of for the longest time.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

from smtprecv.errors import ConfigError

MAX_KEYS: Final = 20_000
"""Keys of one meter, which take 4 MiB at most."""

_SLACK: Final = 1e-3
"""The part of an interval that is forgiven, so that sums of floats refuse nobody who comes just in time."""


@final
@dataclass(frozen=True, slots=True)
class Rate:
    """How often something may happen: ``count`` times at once, and after that once every ``seconds / count``.

    So it is ``count`` in ``seconds`` in the long run, and at most twice as many in any stretch of that
    length. ConfigError for what is not positive and finite.
    """

    count: int
    seconds: float

    def __post_init__(self) -> None:
        """Refuse rates that let nothing happen, or are none."""
        if not (self.count >= 1 and 0 < self.seconds < math.inf):
            msg = f"a rate is a count of at least 1 in more than 0 seconds, not {self.count} in {self.seconds}"
            raise ConfigError(msg)


@final
class Meter:
    """Holds each of many keys to one rate; ``clock`` gives the time in seconds, and never goes back."""

    def __init__(self, rate: Rate, clock: Callable[[], float], max_keys: int = MAX_KEYS) -> None:
        """Begin with nobody in debt."""
        self._interval: Final = rate.seconds / rate.count
        self._credit: Final = rate.seconds - self._interval * (1 - _SLACK)
        self._clock: Final = clock
        self._max_keys: Final = max_keys
        self._paid_at: Final[OrderedDict[int, float]] = OrderedDict()

    def admits(self, key: int) -> bool:
        """Say whether it may happen for this key now."""
        paid_at = self._paid_at.get(key)
        return paid_at is None or paid_at - self._clock() <= self._credit

    def count(self, key: int) -> None:
        """Say that it happened. What happens though it may not adds nothing, so no debt outlasts ``seconds``."""
        now = self._clock()
        paid_at = self._paid_at.get(key, now)
        if paid_at - now > self._credit:
            return
        self._paid_at[key] = max(paid_at, now) + self._interval
        self._paid_at.move_to_end(key)
        if len(self._paid_at) > self._max_keys:
            self._paid_at.popitem(last=False)
