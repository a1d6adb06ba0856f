"""When to try again: pure functions of what happened and of the time, which is an argument."""

from __future__ import annotations

import datetime as dt
from typing import Protocol

from smtprecv.message import QueueId


class RetryPolicy(Protocol):
    """Says when a message is tried again."""

    def next_attempt(
        self, queue_id: QueueId, attempts: int, received: dt.datetime, now: dt.datetime
    ) -> dt.datetime | None:
        """Give the time of the next attempt after ``attempts`` (at least 1) that failed; None to give up.

        Before a second has passed there is none, whatever the time.
        """
        ...
