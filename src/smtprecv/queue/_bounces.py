"""Reports to senders: when the queue makes one, and how it gets into the spool.

``dsn`` knows who is told of what and how a report looks; here it meets a spool, a clock and chance. Its one rule: a
report is accepted in the transaction that ends the recipient it tells of, so that there are both or neither
(RFC 5321 section 6.1).
"""

from __future__ import annotations

import datetime as dt
import logging
import secrets
from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Final, final

import trio

from smtprecv.delivery import Attempt, Delivery, DeliveryReports, running
from smtprecv.dsn import (
    Action,
    Notification,
    NotifyPolicy,
    Original,
    Outcome,
    Survey,
    delayed,
    notification,
    returns_all,
    settled,
    wanted,
)
from smtprecv.errors import SpoolError
from smtprecv.hostname import own_hostname
from smtprecv.message import Client, Message, QueueId, SessionId
from smtprecv.protocol import ByMode, EnhancedStatus, ForwardPath, Notify, Recipient, Reply
from smtprecv.queue._asked import Asked
from smtprecv.retry import Backoff, RetryPolicy
from smtprecv.spool import Claim, Entry, Recorder, Status, Tried

_log: Final = logging.getLogger("smtprecv.queue")

_RELAYED: Final = EnhancedStatus(2, 1, 9)
"""The status of what went to a next hop that does not report (docs/deliveries.md)."""
_UNREAD: Final = Original(b"", is_ascii=True, is_lines=True)
"""What a report brings back of a message that cannot be read."""
_POLICY: Final = NotifyPolicy()
_NOT_NOW: Final = Reply(451, "reports go nowhere in this run", EnhancedStatus(4, 4, 4))
_LONGEST_TOLD: Final = dt.timedelta(days=3660)


@final
@dataclass(frozen=True, slots=True)
class Bounces:
    """Tells senders what became of their messages (RFC 3464), and says how these reports go out.

    ``delivery``: takes the reports, which are ordinary messages from the null reverse-path. ``hostname``: who reports.
    ``warn_after``: age of a message from which on its sender is warned that it is late, once, after an attempt.
    ``policy``: what is free to choose. A recipient that failed has ended, when its sender was told, or does not want
    to be; mail from the null reverse-path, and so a report, is never reported: who fails there stays FAILED.
    """

    delivery: Delivery
    hostname: str = field(default_factory=own_hostname)
    warn_after: dt.timedelta = dt.timedelta(hours=4)
    policy: NotifyPolicy = _POLICY


@final
@dataclass(frozen=True, slots=True)
class Result:
    """What an attempt made of a message, what its sender is told of that, often nothing, and how it went.

    ``asked``: the attempt itself, None if nobody was asked.
    """

    entry: Entry
    outcomes: Sequence[Outcome] = ()
    asked: Asked | None = None

    @property
    def tried(self) -> Tried | None:
        """The attempt as the journal has it, None where the journal ends with the message."""
        return None if self.asked is None or self.entry.is_done else self.asked.tried


@final
@dataclass(frozen=True, slots=True)
class Reporter:
    """Makes the reports of one run, if there are ``bounces``.

    ``delivery``: takes what is no report. ``retry``: says how long what is late is still tried.
    """

    bounces: Bounces | None
    delivery: Delivery
    retry: RetryPolicy

    @asynccontextmanager
    async def deliveries(self) -> AsyncGenerator[None, None]:
        """Hold what the deliveries keep from one attempt to the next."""
        async with AsyncExitStack() as stack:
            await stack.enter_async_context(running(self.delivery))
            if self.bounces is not None and self.bounces.delivery is not self.delivery:
                await stack.enter_async_context(running(self.bounces.delivery))
            yield

    def delivery_of(self, entry: Entry) -> Delivery:
        """Say who delivers a message; a report waits where there are no bounces."""
        if entry.report_of is None:
            return self.delivery
        return _NOWHERE if self.bounces is None else self.bounces.delivery

    def result(
        self,
        before: Entry,
        after: Entry,
        now: dt.datetime,
        remotes: Mapping[ForwardPath, str],
        asked: Asked | None = None,
    ) -> Result:
        """Say what is told of an attempt that ended at ``now``, and give the entry with who is told of his end.

        ``remotes``: which other mail systems gave the last replies.
        """
        if self.bounces is None or after.envelope.reverse_path.is_null:
            return Result(after, asked=asked)
        policy = self.bounces.policy
        # RFC 3461 section 5.2
        ended = [
            outcome
            for outcome in map(partial(self._as_known, after), settled(before, after, policy=_traced(after, policy)))
            if outcome is not None and _is_told_of(after, outcome, policy)
        ]
        late: Sequence[Outcome] = ()
        if after.warned is None and now - after.received >= _patience(after, self.bounces.warn_after):
            late = delayed(after, self._retried_until(after), policy=policy)
        outcomes = [
            replace(outcome, remote=remotes.get(outcome.standing.recipient.forward_path)) for outcome in (*ended, *late)
        ]
        after = _returned(before, after)
        return Result(replace(after, warned=now) if late else after, outcomes, asked)

    def time_to_tell(self, entry: Entry, now: dt.datetime) -> dt.timedelta | None:
        """Give the time until the sender wants to be told that a message is late; None if he has set none to come.

        That is what the mode N asks for (RFC 2852 section 4).
        """
        limit = entry.envelope.parameters.deliver_by
        if self.bounces is None or limit is None or limit.mode is not ByMode.NOTIFY:
            return None
        left = dt.timedelta(seconds=limit.seconds) - (now - entry.received)
        return left if left > dt.timedelta() else None

    async def store(
        self, spool: Recorder, claim: Claim, result: Result, now: dt.datetime, *, is_whole: bool
    ) -> QueueId | None:
        """Record a result, and with it accept the report that is due; give that one's name, None if there is none.

        ``is_whole``: the message comes back as far as the sender may have it; else its header alone, which has room
        where no other message has. SpoolError as ``Recorder.record``: nothing changed.
        """
        if self.bounces is None or not result.outcomes:
            await spool.record(result.entry, result.tried)
            return None
        report = await _notification(self.bounces, claim.message, result, now, is_whole=is_whole)
        draft = await spool.begin(now, is_reserved=not report.has_original)
        try:
            await draft.write(report.top)
            if report.has_original:
                async with claim.message.chunks() as chunks:
                    async for chunk in chunks:
                        await draft.write(chunk)
            await draft.write(report.bottom)
            client = Client(SessionId(result.entry.queue_id), None, None)
            accepted = await draft.commit_report(result.entry, client, report.envelope, now, result.tried)
        finally:
            await draft.abort()
        if accepted is None:
            return None
        actions = ", ".join(sorted({outcome.action.value for outcome in result.outcomes}))
        sender = result.entry.envelope.reverse_path
        _log.info("%s: told <%s> in %s: %s", result.entry.queue_id, sender, accepted.queue_id, actions)
        return accepted.queue_id

    def _as_known(self, entry: Entry, outcome: Outcome) -> Outcome | None:
        """Give the outcome as what the delivery says that a success was; None if another system reports it."""
        standing = outcome.standing
        if outcome.action is not Action.DELIVERED:
            return outcome
        # RFC 3461 section 5.2.2: nobody else will tell.
        if standing.last is not None and standing.last.status == _RELAYED:
            return replace(outcome, action=Action.RELAYED)
        if not self._reports_success(entry, standing.recipient):
            return outcome
        return replace(outcome, action=Action.RELAYED) if _is_traced(entry) else None

    def _reports_success(self, entry: Entry, recipient: Recipient) -> bool:
        """Ask the delivery whether another system reports the success; where it cannot say, we report it."""
        delivery: object = self.delivery
        try:
            return isinstance(delivery, DeliveryReports) and delivery.reports_success(entry, recipient)
        # A delivery is the user's code: what it raises here must not end the run, nor undo what it has delivered.
        except Exception:
            _log.exception("%s: the delivery raised when it was asked who reports", entry.queue_id)
            return False

    def _retried_until(self, entry: Entry) -> dt.datetime | None:
        """Give the time at which a message is given up, None where only the user's retry policy knows."""
        if not isinstance(self.retry, Backoff) or self.retry.give_up_after > _LONGEST_TOLD:
            return None
        age, left = self.retry.give_up_after, entry.time_left(entry.received)
        return entry.received + (age if left is None else min(age, left))


@final
class _Nowhere:
    """Where reports wait, if nobody said where they go."""

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        await trio.lowlevel.checkpoint()
        return [_NOT_NOW] * len(attempt.recipients)


_NOWHERE: Final = _Nowhere()


async def _notification(
    bounces: Bounces, message: Message, result: Result, now: dt.datetime, *, is_whole: bool
) -> Notification:
    entry, actions = result.entry, {outcome.action for outcome in result.outcomes}
    is_all = is_whole and returns_all(entry.envelope.parameters, actions, entry.size, bounces.policy)
    original = await _surveyed(message, is_all=is_all)
    return notification(
        entry,
        result.outcomes,
        original or _UNREAD,
        hostname=bounces.hostname,
        date=now,
        token=secrets.token_hex(16),
        is_all=is_all and original is not None,
    )


def _returned(before: Entry, after: Entry) -> Entry:
    """Give the entry with who has failed since ``before`` at his end; who had failed already stays so."""
    known = {id(standing) for standing in before.standings}
    failed = [each for each in after.standings if each.status is Status.FAILED and id(each) not in known]
    if not failed:
        return after
    returned = {id(each): replace(each, status=Status.RETURNED) for each in failed}
    return replace(after, standings=tuple(returned.get(id(each), each) for each in after.standings))


def _is_traced(entry: Entry) -> bool:
    """Say whether the sender wants to hear from each mail system that passes a message on (RFC 2852 section 4)."""
    limit = entry.envelope.parameters.deliver_by
    return limit is not None and limit.is_traced


def _traced(entry: Entry, policy: NotifyPolicy) -> NotifyPolicy:
    """Give the policy with which no outcome is passed over that may be a step on the way of a traced message."""
    return replace(policy, unasked=policy.unasked | {Notify.SUCCESS}) if _is_traced(entry) else policy


def _is_told_of(entry: Entry, outcome: Outcome, policy: NotifyPolicy) -> bool:
    """Say whether the sender is told, now that it is known whether a message arrived or was passed on."""
    is_step = outcome.action is Action.RELAYED and _is_traced(entry)
    return is_step or wanted(outcome.standing.recipient.parameters, outcome.action, policy)


def _patience(entry: Entry, warn_after: dt.timedelta) -> dt.timedelta:
    """Give the age from which on a message is late: its sender may have said so (RFC 2852 section 4)."""
    limit = entry.envelope.parameters.deliver_by
    if limit is None or limit.mode is not ByMode.NOTIFY:
        return warn_after
    return min(warn_after, dt.timedelta(seconds=limit.seconds))


async def _surveyed(message: Message, *, is_all: bool) -> Original | None:
    """Look at a message, to its end if all of it comes back; None if it cannot be read."""
    survey = Survey()
    try:
        async with message.chunks() as chunks:
            async for chunk in chunks:
                survey.add(chunk)
                if survey.has_header and not is_all:
                    break
    except SpoolError as error:
        _log.warning("a report goes without its message, which cannot be read: %s", error)
        return None
    return survey.original()
