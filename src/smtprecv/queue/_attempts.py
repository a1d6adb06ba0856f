"""One attempt: a delivery is asked, and its answers become the entry that is recorded.

Its one rule: whatever the user's delivery and retry policy do, there is an entry to record, and nobody is given up
for a fault of theirs.
"""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final, final

import trio

from smtprecv.delivery import Attempt, DeliveryCheck
from smtprecv.errors import cancellation_in
from smtprecv.message import Commit, Now
from smtprecv.note import Notebook
from smtprecv.protocol import EnhancedStatus, ForwardPath, Reply
from smtprecv.queue._asked import Asked, told
from smtprecv.queue._bounces import Reporter, Result
from smtprecv.retry import Backoff, RetryPolicy
from smtprecv.spool import Claim, Entry

_log: Final = logging.getLogger("smtprecv.queue")

_QUICK_REDIRECTS: Final = 10
"""Attempts up to which a redirected message is tried at once; past that it might be going round in circles."""
_EXPIRED: Final = Reply(554, "delivery time expired", EnhancedStatus(5, 4, 7))
"""Why a recipient failed whose message was to be delivered by a certain time (RFC 2852 section 4)."""


@final
@dataclass(frozen=True, slots=True)
class Attempts:
    """Makes the attempts of one run. ``local_error``: what counts for each recipient when the delivery raised."""

    reporter: Reporter
    retry: RetryPolicy
    now: Now
    local_error: Reply

    async def result(self, claim: Claim) -> Result:
        """Deliver once, and give what became of the message; cancellation reaches the delivery."""
        asked = await self._asked(claim)
        if isinstance(asked, Asked):
            return self._settled(claim, asked)
        return self.reporter.result(claim.entry, self._scheduled(asked), self.now(), {})

    def without(self, claim: Claim, asked: Asked, failures: Mapping[Commit, Exception]) -> Result:
        """Give what became of the message if these answers count as if the delivery had raised."""
        queue_id = claim.entry.queue_id
        for error in failures.values():
            _log.error("%s: what was to be done with the outcome raised", queue_id, exc_info=error)
        return self._settled(claim, asked.without(failures, self.local_error, next(iter(failures.values()))))

    def _settled(self, claim: Claim, asked: Asked) -> Result:
        entry = self._scheduled(asked.after)
        # That time is over is our word, whoever had the last one before.
        ours = {standing.recipient.forward_path for standing in entry.standings if standing.last is _EXPIRED}
        named = {path: remote for path, remote in asked.remotes.items() if path not in ours}
        return replace(self.reporter.result(claim.entry, entry, self.now(), named), asked=asked)

    async def _asked(self, claim: Claim) -> Asked | Entry:
        """Ask the delivery; give the entry alone if there was nobody to ask for."""
        started, clock = self.now(), trio.current_time()
        entry = claim.entry
        delivery = self.reporter.delivery_of(entry)
        notebook = Notebook(entry.note, entry.queue_id)
        remotes: dict[ForwardPath, str] = {}
        try:
            if isinstance(delivery, DeliveryCheck) and not claim.is_first:
                entry = entry.confirmed([await delivery.is_delivered(entry, s.recipient) for s in entry.pending])
            entry = self._in_time(entry)
            if not entry.pending:
                return entry
            answers = await delivery.deliver(Attempt(entry, claim.message, notebook, remotes))
            entry.after(answers, started)  # ValueError for what are no answers
            error_text = None
        # A delivery is the user's code: whatever it raises is a reason to try again, not to lose mail.
        except Exception as error:
            _log.exception("%s: the delivery raised", entry.queue_id)
            remotes.clear()
            answers, error_text = [self.local_error] * len(entry.pending), told(error)
        except BaseExceptionGroup as group:
            _log.exception("%s: the delivery raised while it was cancelled", entry.queue_id)
            raise cancellation_in(group) from None
        took = dt.timedelta(seconds=trio.current_time() - clock)
        return Asked(entry, answers, remotes, notebook.note, started, self.now(), took, error_text)

    def _scheduled(self, entry: Entry) -> Entry:
        """Give the entry with the time of its next attempt, or with its pending recipients given up.

        What must be delivered by a certain time is due when it comes, at the latest: it is given up then, or tried
        once more before its sender is told.
        """
        entry = self._in_time(entry)
        if not entry.pending:
            return entry
        now = self.now()
        is_redirected = any(standing.attempts and standing.last is None for standing in entry.pending)
        if is_redirected and entry.attempts <= _QUICK_REDIRECTS:
            # What was due for this attempt is so still; what was tried by hand before its time is due now.
            return replace(entry, due=min(entry.due or now, now))
        due = self._next_attempt(entry, now)
        if due is None:
            return entry.given_up()
        limits = (entry.time_left(now), self.reporter.time_to_tell(entry, now))
        return replace(entry, due=now + min([due - now, *(left for left in limits if left is not None)]))

    def _next_attempt(self, entry: Entry, now: dt.datetime) -> dt.datetime | None:
        """Ask the retry policy; where it fails, the message waits as it does by default, and is not given up."""
        try:
            due = self.retry.next_attempt(entry.queue_id, entry.attempts, entry.received, now)
            # A time without a zone, or past the end of all time in UTC, fails here and not in the store.
            return None if due is None else max(due, now).astimezone(dt.UTC)
        # A retry policy is the user's code: what it raises must not end the run for all other messages.
        except Exception:
            _log.exception("%s: the retry policy raised", entry.queue_id)
            return now + Backoff().wait(entry.queue_id, entry.attempts)

    def _in_time(self, entry: Entry) -> Entry:
        """Give the entry, its pending recipients given up if they were to be served by now: late is too late."""
        left = entry.time_left(self.now())
        return entry if left is None or left > dt.timedelta() else entry.given_up(_EXPIRED)
