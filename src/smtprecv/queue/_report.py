"""What an attempt has done, for the log and for whoever asked for a pass."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from typing import Final, final

from smtprecv.message import QueueId
from smtprecv.spool import Entry, Status

_log: Final = logging.getLogger("smtprecv.queue")


@final
@dataclass(frozen=True, slots=True)
class Report:
    """What one pass did: recipients by outcome, and the named messages that it could not try.

    ``busy``: claimed by another owner. ``missing``: not in the queue.
    """

    delivered: int = 0
    deferred: int = 0
    failed: int = 0
    busy: tuple[QueueId, ...] = ()
    missing: tuple[QueueId, ...] = ()

    def plus(self, before: Entry, after: Entry) -> Report:
        """Give the report with one attempt added, which took a message from ``before`` to ``after``."""
        known = {id(standing) for standing in before.standings}
        return Report(
            self.delivered + _count(after, Status.DELIVERED) - _count(before, Status.DELIVERED),
            # Those that a redirect has put there have no reply yet, and are still to be tried.
            self.deferred + sum(each.last is not None or id(each) in known for each in after.pending),
            self.failed + _count(after, *_FAILED) - _count(before, *_FAILED),
            self.busy,
            self.missing,
        )


_FAILED: Final = (Status.FAILED, Status.RETURNED)


def _count(entry: Entry, *statuses: Status) -> int:
    return sum(standing.status in statuses for standing in entry.standings)


def log_outcome(before: Entry, after: Entry) -> None:
    """Write one line for each recipient that was tried, or stands in the place of one."""
    untouched = {id(standing) for standing in before.standings}
    for standing in after.standings:
        if id(standing) in untouched:
            continue
        level, outcome = _OUTCOMES[standing.status]
        original = standing.recipient.original
        origin = "" if original is None else f" (for <{original}>)"
        due = after.due if standing.status is Status.PENDING else None
        until = "" if due is None else f", next attempt {due.isoformat(timespec='seconds')}"
        last = standing.last or "redirected"
        _log.log(level, "%s: to=<%s>%s %s: %s%s", after.queue_id, standing.recipient, origin, outcome, last, until)


_OUTCOMES: Final = {
    Status.DELIVERED: (logging.INFO, "delivered"),
    Status.PENDING: (logging.INFO, "deferred"),
    Status.FAILED: (logging.WARNING, "failed"),
    Status.RETURNED: (logging.WARNING, "failed"),
}
