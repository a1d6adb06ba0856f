"""When a message is tried next: what the retry policy, its sender, its delivery and its destinations say of it.

Its one rule: nothing keeps a message beyond its time, which ends when the retry policy gives it up, or when its sender
wants it back (RFC 2852 section 4).
"""

from __future__ import annotations

import datetime as dt
import logging
from dataclasses import dataclass, replace
from typing import Final, final

from smtprecv.message import Now
from smtprecv.protocol import EnhancedStatus, Reply
from smtprecv.queue._bounces import Reporter
from smtprecv.retry import Backoff
from smtprecv.spool import Entry

_log: Final = logging.getLogger("smtprecv.queue")

_QUICK_REDIRECTS: Final = 10
"""Attempts up to which a redirected message is tried at once; past that it might be going round in circles."""
EXPIRED: Final = Reply(554, "delivery time expired", EnhancedStatus(5, 4, 7))
"""Why a recipient failed whose message was to be delivered by a certain time (RFC 2852 section 4)."""
_LEAST_WAIT: Final = dt.timedelta(seconds=1)
"""The shortest time between two attempts: a retry policy that gives a time in the past hammers nobody."""
_LONGEST_LATER: Final = dt.timedelta(days=1)
"""The longest time for which a delivery may put a message off."""


@final
@dataclass(frozen=True, slots=True)
class Schedule:
    """Says when a message is due."""

    reporter: Reporter
    now: Now

    def after_attempt(self, entry: Entry, later: dt.timedelta, *, is_redirected: bool) -> Entry:
        """Give the entry after an attempt with the time of the next one, or with its pending recipients given up.

        ``later``: the time that the delivery asked for. ``is_redirected``: somebody was, in this attempt. What must be
        delivered by a certain time is due when it comes, at the latest: it is given up then, or tried once more before
        its sender is told.
        """
        entry = self.in_time(entry)
        if not entry.pending:
            return entry
        now = self.now()
        if is_redirected and entry.attempts <= _QUICK_REDIRECTS:
            # What was due for this attempt is so still; what was tried by hand before its time is due now.
            return replace(entry, due=min(entry.due or now, now))
        due = self._next_attempt(entry, now)
        if due is None:
            return entry.given_up()
        return self._due_in(entry, max(due - now, min(later, _LONGEST_LATER)), now)

    def put_off(self, entry: Entry, turn: dt.timedelta) -> Entry:
        """Give the entry, of which nothing was tried, due at its turn; or given up, if its time is over."""
        entry = self.in_time(entry)
        now = self.now()
        if not entry.pending:
            return entry
        # What was never tried is given up at the same age as all else.
        if self._next_attempt(entry, now) is None:
            return entry.given_up()
        return self._due_in(entry, turn, now)

    def in_time(self, entry: Entry) -> Entry:
        """Give the entry, its pending recipients given up if they were to be served by now: late is too late."""
        if entry.envelope.parameters.deliver_by is None:
            return entry
        left = entry.time_left(self.now())
        return entry if left is None or left > dt.timedelta() else entry.given_up(EXPIRED)

    def patience(self, entry: Entry) -> float:
        """Give the seconds for which the message may wait for an attempt."""
        left = self._left(entry, self.now())
        return float("inf") if left is None else max(left.total_seconds(), 0.0)

    def _due_in(self, entry: Entry, wait: dt.timedelta, now: dt.datetime) -> Entry:
        limits = (self._left(entry, now), self.reporter.time_to_tell(entry, now))
        due = now + min([wait, *(left for left in limits if left is not None)])
        return replace(entry, due=due.astimezone(dt.UTC))

    def _left(self, entry: Entry, now: dt.datetime) -> dt.timedelta | None:
        """Give the time until the message is given up, as far as that is known before the retry policy says so."""
        limits = [entry.time_left(now)]
        if isinstance(self.reporter.retry, Backoff):
            limits.append(self.reporter.retry.time_left(entry.received, now))
        return min((limit for limit in limits if limit is not None), default=None)

    def _next_attempt(self, entry: Entry, now: dt.datetime) -> dt.datetime | None:
        """Ask the retry policy; where it fails, the message waits as it does by default, and is not given up."""
        attempts = max(entry.attempts, 1)
        try:
            due = self.reporter.retry.next_attempt(entry.queue_id, attempts, entry.received, now)
            # A time without a zone, or past the end of all time in UTC, fails here and not in the store.
            return None if due is None else max(due, now + _LEAST_WAIT).astimezone(dt.UTC)
        # A retry policy is the user's code: what it raises must not end the run for all other messages.
        except Exception:
            _log.exception("%s: the retry policy raised", entry.queue_id)
            return now + Backoff().wait(entry.queue_id, attempts)
