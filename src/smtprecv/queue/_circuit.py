"""Whether a destination is well: a circuit breaker, and the limits that hold for each destination.

Pure: the time is an argument, in seconds. Its one rule: a destination that is not well is left alone for a while, and
then asked by a single attempt, however many messages wait for it.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from smtprecv.errors import ConfigError
from smtprecv.message import DeliveryAnswer, Later
from smtprecv.protocol import Reply, Severity
from smtprecv.retry import Backoff

_log: Final = logging.getLogger("smtprecv.queue")

_LONGEST_PAUSE: Final = dt.timedelta(days=1)


@final
@dataclass(frozen=True, slots=True)
class DestinationLimits:
    """What holds for each destination that a delivery names (``DeliveryDestination``).

    ``concurrency``: attempts at one time, at least 1, and never more than half of those of the run. ``failures``: after
    so many attempts in a row, at least 1, that say that the destination is not well, it has a pause: nothing is sent,
    and no attempt counted. ``first_pause``: how long the first one is, up to a tenth less. Behind it one attempt goes
    out; if that fails too, the next pause is twice as long, up to ``longest_pause``, which is at most a day.
    ConfigError for values outside these.
    """

    concurrency: int = 10
    failures: int = 5
    first_pause: dt.timedelta = dt.timedelta(seconds=30)
    longest_pause: dt.timedelta = dt.timedelta(minutes=15)

    def __post_init__(self) -> None:
        """Refuse limits that would stop everything, or nothing."""
        faults = {
            "attempts at one destination (--destination-concurrency) must be at least 1": self.concurrency < 1,
            "failures before a pause (--destination-failures) must be at least 1": self.failures < 1,
            "the first pause (--destination-pause) must be longer than nothing": self.first_pause <= dt.timedelta(),
            "the longest pause (--destination-pause-max) must be at least the first (--destination-pause), "
            "and at most a day": not self.first_pause <= self.longest_pause <= _LONGEST_PAUSE,
        }
        for text, is_so in faults.items():
            if is_so:
                raise ConfigError(text)


def is_unwell(answers: Sequence[DeliveryAnswer]) -> bool:
    """Say whether these answers, of one destination, tell that it is not well itself: each is 421, or of 4.4.z."""
    return all(map(_is_unwell, answers))


def _is_unwell(answer: DeliveryAnswer) -> bool:
    reply = answer.reply if isinstance(answer, Later) else answer
    if not isinstance(reply, Reply) or reply.severity is not Severity.TRANSIENT:
        return False
    # RFC 3463 section 3.5: X.4.z is about the network and the routing.
    return reply.code == 421 or (reply.status is not None and reply.status.subject == 4)


@final
class Circuit:
    """Closed: attempts pass. Open: none does, until a pause is over; then a single one, the probe."""

    def __init__(self, name: str, limits: DestinationLimits) -> None:
        """Begin closed."""
        self._name: Final = name
        self._limits: Final = limits
        self._waits: Final = Backoff(limits.first_pause, longest=limits.longest_pause)
        self._failures = 0
        """Attempts in a row that failed, since it was closed."""
        self._pauses = 0
        """Pauses since it was closed; 0 while it is."""
        self._resumes = float("-inf")
        self._is_probed = False

    @property
    def is_closed(self) -> bool:
        """True while attempts pass freely."""
        return not self._pauses

    def lets_pass(self, now: float) -> bool:
        """Say whether an attempt may be made now."""
        return self.is_closed or (now >= self._resumes and not self._is_probed)

    def resumes(self, now: float, pace: float) -> float:
        """Give the time from which on attempts may pass, where one takes ``pace`` seconds."""
        if self.is_closed:
            return now
        return now + pace if self._is_probed else max(now, self._resumes)

    def begin(self) -> bool:
        """Let an attempt pass, and say whether it is the probe."""
        self._is_probed = not self.is_closed
        return self._is_probed

    def end(self, now: float, *, is_probe: bool, is_well: bool | None) -> None:
        """Learn from an attempt; None tells nothing."""
        if is_probe:
            self._is_probed = False
        match is_well:
            case None:
                pass
            case True:
                self._close()
            case False if is_probe or self.is_closed:
                self._failures += 1
                if is_probe or self._failures >= self._limits.failures:
                    self._open(now)
            case False:
                # It was under way when others failed.
                pass

    def _close(self) -> None:
        if self._pauses:
            _log.info("%s answers again", self._name)
        self._failures = self._pauses = 0

    def _open(self, now: float) -> None:
        self._pauses += 1
        pause = self._waits.wait(self._name, self._pauses).total_seconds()
        self._resumes = now + pause
        level = logging.WARNING if self._pauses == 1 else logging.INFO
        _log.log(level, "%s is not well: %d failures in a row, a pause of %.0f s", self._name, self._failures, pause)
