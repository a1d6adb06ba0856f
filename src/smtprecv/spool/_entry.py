"""An entry: an envelope in the spool, and what has become of it.

Pure values. An attempt's outcome makes a new Entry; the spool stores it in one transaction.
"""

from __future__ import annotations

import datetime as dt
import hashlib
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from enum import Enum
from typing import Final, final

from smtprecv.message import Client, Commit, DeliveryAnswer, Later, QueueId, Redirect
from smtprecv.protocol import ByMode, EnhancedStatus, Envelope, ForwardPath, Recipient, Reply, Severity


@final
class Status(Enum):
    """What has become of one recipient."""

    PENDING = "pending"
    """It will be tried (again)."""
    DELIVERED = "delivered"
    """A delivery answered 2yz: it is never offered again."""
    FAILED = "failed"
    """A delivery answered 5yz, or its time was over: kept until somebody removes or retries it."""
    RETURNED = "returned"
    """It failed, and its sender was told so, or asked not to be: nothing is left to do."""


_KEY_SIZE: Final = 16

ENDED: Final = frozenset({Status.DELIVERED, Status.RETURNED})
"""A message whose recipients all stand so is done."""


@final
@dataclass(frozen=True, slots=True)
class Standing:
    """How one recipient stands: ``attempts`` made so far, and the ``last`` reply, None before the first."""

    recipient: Recipient
    status: Status = Status.PENDING
    attempts: int = 0
    last: Reply | None = None

    def after(self, reply: Reply) -> Standing:
        """Give the standing after one more attempt, which had ``reply`` for its outcome."""
        if reply.severity is Severity.INTERMEDIATE:
            msg = "a 3yz reply says nothing about a delivery"
            raise ValueError(msg)
        return Standing(self.recipient, _STATUS_AFTER[reply.severity], self.attempts + 1, reply)

    def redirected(self, redirect: Redirect, served: Collection[ForwardPath]) -> Sequence[Standing]:
        """Give the standings in the place of this one, which is served itself if all of them have been ``served``.

        The sender knows the original recipient, and no other, however often it is redirected; what
        was asked for with it holds for them all.
        """
        original = self.recipient.original or self.recipient.forward_path
        paths = [path for path in dict.fromkeys(redirect.forward_paths) if path not in served]
        if not paths:
            return [self.after(_ALREADY_THERE)]
        return [
            Standing(replace(self.recipient, forward_path=path, original=original), attempts=self.attempts + 1)
            for path in paths
        ]


_ALREADY_THERE: Final = Reply(250, "redirected to who has it already", EnhancedStatus(2, 1, 5))
_ENDLESS: Final = Reply(451, "redirected until it was given up", EnhancedStatus(4, 4, 7))
_UNTRIED: Final = Reply(451, "its turn did not come until it was given up", EnhancedStatus(4, 4, 7))


_STATUS_AFTER = {
    Severity.COMPLETION: Status.DELIVERED,
    Severity.TRANSIENT: Status.PENDING,
    Severity.PERMANENT: Status.FAILED,
}


@final
@dataclass(frozen=True, slots=True)
class Note:
    """What a delivery wants to remember with a message: text that only it can read, and the version of its form."""

    version: int
    text: str


@final
@dataclass(frozen=True, slots=True)
class Entry:
    """A message in the spool: its envelope and how each recipient stands, in the envelope's order.

    ``size``: octets of the message. ``received``: when it was accepted. ``attempted``: when it was
    last tried, None before that. ``due``: when it is tried next, None if nothing is pending.
    ``error``: the text of the exception that ended the last attempt, None if it answered; for
    showqueue and the log only, it never reaches the network. ``note``: what a delivery saved. ``warned``:
    when its sender was told that it is delayed. ``report_of``: the message that this one tells of, None if it is no
    report of ours. ``is_held``: an operator holds it: it is not claimed as due, until it is released.
    """

    queue_id: QueueId
    received: dt.datetime
    client: Client
    envelope: Envelope
    size: int
    standings: tuple[Standing, ...]
    due: dt.datetime | None
    attempted: dt.datetime | None = None
    error: str | None = None
    note: Note | None = None
    warned: dt.datetime | None = None
    report_of: QueueId | None = None
    is_held: bool = False

    @property
    def pending(self) -> tuple[Standing, ...]:
        """The standings of the recipients still to be served."""
        return tuple(standing for standing in self.standings if standing.status is Status.PENDING)

    @property
    def is_done(self) -> bool:
        """True when every recipient was delivered, or returned: nothing is left to keep."""
        return all(standing.status in ENDED for standing in self.standings)

    @property
    def attempts(self) -> int:
        """How often the message was tried."""
        return max((standing.attempts for standing in self.standings), default=0)

    def key(self, *recipients: Recipient) -> str:
        """Name the message's delivery to these recipients: the same in every attempt and every process, and no other's.

        36 letters and digits: an idempotency key. A recipient that was redirected is another one.
        """
        addresses = "\n".join(map(str, recipients))
        return self.queue_id + hashlib.sha256(addresses.encode()).hexdigest()[:_KEY_SIZE]

    def after(
        self, outcomes: Sequence[DeliveryAnswer | None], attempted: dt.datetime, error: str | None = None
    ) -> Entry:
        """Give the entry after an attempt with one outcome for each pending recipient, in order.

        Who has None was not tried, and stands as before. Later and Commit stand for their replies. In the place of a
        recipient that was redirected stand those it was redirected to, pending, apart from any that were served
        before. ``due`` is None where nothing is pending,
        and otherwise still the old one: when to try again is the retry policy's to say. ValueError if the outcomes
        are not as many as the pending recipients, or one is a 3yz reply.
        """
        if len(outcomes) != len(self.pending):
            msg = f"{len(outcomes)} replies for {len(self.pending)} pending recipients"
            raise ValueError(msg)
        answers = iter(outcomes)
        standings: list[Standing] = []
        # Only who was served before counts: whoever is still to be served may be redirected, or fail, himself.
        served = {each.recipient.forward_path for each in self.standings if each.status is Status.DELIVERED}
        for standing in self.standings:
            if standing.status is not Status.PENDING:
                standings.append(standing)
                continue
            match next(answers):
                case None:
                    standings.append(standing)
                case Redirect() as redirect:
                    standings += standing.redirected(redirect, served)
                case Later(reply=reply) | Commit(reply=reply):
                    standings.append(standing.after(reply))
                case reply:
                    standings.append(standing.after(reply))
        recipients = tuple(standing.recipient for standing in standings)
        is_same = recipients == self.envelope.recipients
        is_pending = any(standing.status is Status.PENDING for standing in standings)
        return replace(
            self,
            envelope=self.envelope if is_same else replace(self.envelope, recipients=recipients),
            standings=tuple(standings),
            due=self.due if is_pending else None,
            attempted=attempted,
            error=error,
        )

    def confirmed(self, delivered: Sequence[bool]) -> Entry:
        """Give the entry with those pending recipients served for which ``delivered``, in order, is true."""
        answers = iter(delivered)
        standings = tuple(
            replace(standing, status=Status.DELIVERED)
            if standing.status is Status.PENDING and next(answers)
            else standing
            for standing in self.standings
        )
        confirmed = replace(self, standings=standings)
        return confirmed if confirmed.pending else replace(confirmed, due=None)

    def time_left(self, now: dt.datetime) -> dt.timedelta | None:
        """Give the time in which the message may still be delivered, 0 or less once it may not; None without a limit.

        The sender sets the limit (RFC 2852 section 4), with a mode that wants the message back and not delivered late.
        """
        limit = self.envelope.parameters.deliver_by
        if limit is None or limit.mode is not ByMode.RETURN:
            return None
        return dt.timedelta(seconds=limit.seconds) - (now - self.received)

    def given_up(self, reply: Reply | None = None) -> Entry:
        """Give the entry with every pending recipient failed.

        ``reply`` says why; without it each keeps its last reply, or gets one if it had none.
        """
        standings = tuple(
            replace(
                standing,
                status=Status.FAILED,
                last=reply or standing.last or (_ENDLESS if standing.attempts else _UNTRIED),
            )
            if standing.status is Status.PENDING
            else standing
            for standing in self.standings
        )
        return replace(self, standings=standings, due=None)
