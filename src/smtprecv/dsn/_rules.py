"""Who is told of what: the rules of RFC 3461 and RFC 5321 section 4.5.5, as tables and pure functions.

Its one rule: nobody learns from a report what he did not ask for, and no report is ever made of a report.
A sender knows a recipient by the name that RCPT gave it, wherever the message was redirected to.
"""

from __future__ import annotations

import datetime as dt
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Final, final

from smtprecv.protocol import ForwardPath, MailParameters, Notify, RcptParameters, Recipient, Ret
from smtprecv.spool import Entry, Standing, Status


@final
class Action(Enum):
    """What was done for a recipient, in the words of RFC 3464 section 2.3.3."""

    FAILED = "failed"
    """It was given up."""
    DELAYED = "delayed"
    """It was not possible so far, and is tried again."""
    DELIVERED = "delivered"
    """The recipient has it."""
    RELAYED = "relayed"
    """It went to a next hop that does not report."""
    EXPANDED = "expanded"
    """It went to several mailboxes, to which this one was redirected."""


@final
@dataclass(frozen=True, slots=True)
class Outcome:
    """One recipient to report, and what was done for it.

    ``remote``: the name of the mail system that gave the standing's last reply, None if that was no other than ours.
    ``retried_until``: when a delayed recipient is given up, None if that is not known.
    """

    standing: Standing
    action: Action
    remote: str | None = None
    retried_until: dt.datetime | None = None

    @property
    def forward_path(self) -> ForwardPath:
        """The recipient as its sender knows it."""
        return _name(self.standing.recipient)


@final
@dataclass(frozen=True, slots=True)
class NotifyPolicy:
    """What is free to choose.

    ``unasked``: what a sender is told of where RCPT had no NOTIFY. ``largest_asked``: octets up to which a message that
    failed comes back whole if RET=FULL asked for that; ``largest_unasked``: the same where MAIL had no RET.
    """

    unasked: frozenset[Notify] = frozenset({Notify.FAILURE, Notify.DELAY})
    largest_asked: int = 10 * 1024 * 1024
    largest_unasked: int = 64 * 1024


_DEFAULT: Final = NotifyPolicy()

NOTIFY_OF: Final[Mapping[Action, Notify]] = {
    Action.FAILED: Notify.FAILURE,
    Action.DELAYED: Notify.DELAY,
    Action.DELIVERED: Notify.SUCCESS,
    Action.RELAYED: Notify.SUCCESS,
    Action.EXPANDED: Notify.SUCCESS,
}
"""What a sender must want to be told of, to be told of an action (RFC 3461 sections 5.2.2, 5.2.3, 5.2.5 and 5.2.6)."""


def wanted(parameters: RcptParameters, action: Action, policy: NotifyPolicy = _DEFAULT) -> bool:
    """Say whether the sender of a message wants to know of an action for a recipient (RFC 3461 section 4.1)."""
    notify = policy.unasked if parameters.notify is None else parameters.notify
    return NOTIFY_OF[action] in notify


def reportable(entry: Entry, outcomes: Iterable[Outcome], policy: NotifyPolicy = _DEFAULT) -> tuple[Outcome, ...]:
    """Give those outcomes that belong into a report, each recipient once; none where nobody is to be told.

    Mailboxes to which one recipient was redirected are that one recipient, if the same was done for them.
    """
    # RFC 5321 section 4.5.5: reports have the null reverse-path, and what has it is never reported.
    if entry.envelope.reverse_path.is_null:
        return ()
    told: dict[tuple[ForwardPath, Action], Outcome] = {}
    for outcome in outcomes:
        if wanted(outcome.standing.recipient.parameters, outcome.action, policy):
            told.setdefault((outcome.forward_path, outcome.action), outcome)
    return tuple(told.values())


def settled(
    before: Entry,
    after: Entry,
    success: Action | None = Action.DELIVERED,
    remote: str | None = None,
    policy: NotifyPolicy = _DEFAULT,
) -> tuple[Outcome, ...]:
    """Give what is to be reported of an attempt that took a message from ``before`` to ``after``; often nothing.

    ``success``: what a 2yz meant: DELIVERED; RELAYED where the next hop has no DSN (RFC 3461 section 5.2.2); None where
    it has, and reports itself. ``remote`` is as for Outcome. ``after`` must still hold whoever has ended, its new
    standings and those of ``before`` that it did not touch. Several mailboxes in the place of one recipient are
    reported as a success when the last of them has the message, and never if one of them failed; as a failure once.
    """
    known = {id(standing) for standing in before.standings}
    new = [
        standing
        for standing in after.standings
        if id(standing) not in known
        # What is no failure is a success of one kind or another, or nothing.
        and (standing.status is Status.FAILED or wanted(standing.recipient.parameters, Action.DELIVERED, policy))
    ]
    if not new:
        return ()
    behind: defaultdict[ForwardPath, list[Standing]] = defaultdict(list)
    for standing in after.standings:
        behind[_name(standing.recipient)].append(standing)
    found: list[Outcome] = []
    for standing in new:
        action = _action(standing, behind[_name(standing.recipient)], success)
        if action is not None:
            found.append(Outcome(standing, action, remote))
    return reportable(after, found, policy)


def delayed(
    entry: Entry, retried_until: dt.datetime | None, remote: str | None = None, policy: NotifyPolicy = _DEFAULT
) -> tuple[Outcome, ...]:
    """Give what is to be reported of a message that waits too long: its pending recipients whose sender wants that."""
    found = (Outcome(standing, Action.DELAYED, remote, retried_until) for standing in entry.pending)
    return reportable(entry, found, policy)


def returns_all(
    parameters: MailParameters, actions: Collection[Action], size: int, policy: NotifyPolicy = _DEFAULT
) -> bool:
    """Say whether a report brings back the whole message of ``size`` octets, and not its header alone."""
    # RFC 3461 sections 4.3 and 6.2: RET applies to failures. RFC 8689 section 5: RET=FULL is disregarded.
    if Action.FAILED not in actions or parameters.require_tls:
        return False
    largest = {Ret.FULL: policy.largest_asked, Ret.HDRS: -1, None: policy.largest_unasked}
    return size <= largest[parameters.ret]


def _action(standing: Standing, behind: Sequence[Standing], success: Action | None) -> Action | None:
    if standing.status is Status.FAILED:
        # Who was told that a recipient failed is not told again of another mailbox behind it.
        return None if any(each.status is Status.RETURNED for each in behind) else Action.FAILED
    if success is None or any(each.status is not Status.DELIVERED for each in behind):
        return None
    # RFC 3461 section 5.2.7.3: an alias with several mailboxes.
    return Action.EXPANDED if len({each.recipient.forward_path for each in behind}) > 1 else success


def _name(recipient: Recipient) -> ForwardPath:
    return recipient.original or recipient.forward_path
