"""One attempt: a delivery is asked, and its answers become the entry that is recorded.

Its one rule: whatever the user's delivery and retry policy do, there is an entry to record, and nobody is given up
for a fault of theirs.
"""

from __future__ import annotations

import datetime as dt
import logging
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final, final

import trio

from smtprecv.delivery import Attempt, DeliveryCheck
from smtprecv.errors import cancellation_in
from smtprecv.message import Now, Redirect
from smtprecv.note import Notebook
from smtprecv.protocol import EnhancedStatus, ForwardPath, Reply
from smtprecv.queue._bounces import Reporter, Result
from smtprecv.retry import Backoff, RetryPolicy
from smtprecv.spool import Claim, Entry, Tried

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
        remotes: dict[ForwardPath, str] = {}
        entry, tried = await self._outcome(claim, remotes)
        entry = self._scheduled(entry)
        # That time is over is our word, whoever had the last one before.
        ours = {standing.recipient.forward_path for standing in entry.standings if standing.last is _EXPIRED}
        named = {path: remote for path, remote in remotes.items() if path not in ours}
        return replace(self.reporter.result(claim.entry, entry, self.now(), named), tried=tried)

    async def _outcome(self, claim: Claim, remotes: dict[ForwardPath, str]) -> tuple[Entry, Tried | None]:
        """Ask the delivery, and give the entry as it stands after its answers; None if it was not asked to deliver.

        ``remotes``: takes who else answered.
        """
        started, clock = self.now(), trio.current_time()
        entry = claim.entry
        delivery = self.reporter.delivery_of(entry)
        notebook = Notebook(entry.note, entry.queue_id)
        try:
            if isinstance(delivery, DeliveryCheck) and not claim.is_first:
                entry = entry.confirmed([await delivery.is_delivered(entry, s.recipient) for s in entry.pending])
            entry = self._in_time(entry)
            if not entry.pending:
                return entry, None
            outcomes = await delivery.deliver(Attempt(entry, claim.message, notebook, remotes))
            after = replace(entry.after(outcomes, self.now()), note=notebook.note)
            return after, _tried(entry, outcomes, started, clock)
        # A delivery is the user's code: whatever it raises is a reason to try again, not to lose mail.
        except Exception as error:
            _log.exception("%s: the delivery raised", entry.queue_id)
            remotes.clear()
            trouble = [self.local_error] * len(entry.pending)
            told = "".join(traceback.format_exception_only(error)).strip()
            after = replace(entry.after(trouble, self.now(), error=told), note=notebook.note)
            return after, _tried(entry, trouble, started, clock, told)
        except BaseExceptionGroup as group:
            _log.exception("%s: the delivery raised while it was cancelled", entry.queue_id)
            raise cancellation_in(group) from None

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


def _tried(
    entry: Entry, outcomes: Sequence[Reply | Redirect], started: dt.datetime, clock: float, error: str | None = None
) -> Tried:
    """Give an attempt that has just ended for the journal; ``clock``: what Trio's showed at its beginning."""
    took = dt.timedelta(seconds=trio.current_time() - clock)
    names = [str(standing.recipient) for standing in entry.pending]
    return Tried.of(started, took, zip(names, map(_told, outcomes), strict=True), error)


def _told(outcome: Reply | Redirect) -> str:
    match outcome:
        case Reply():
            return str(outcome)
        case Redirect(forward_paths=paths):
            return f"redirected to {', '.join(map(str, paths))}"
