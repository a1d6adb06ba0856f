"""The queue in an operator's hands: which messages, and what is done to them.

An ``Order`` is a pure function of an entry and of what was chosen of it; ``steer`` takes it through the queue in
short pages, each of them one transaction of ``Spool.change``. Its one rule: a message that somebody is delivering
is never touched, and what was chosen is looked at again in the transaction that changes it.
"""

from __future__ import annotations

import datetime as dt
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from enum import Enum
from functools import partial
from typing import Final, TypeAlias, final

from smtprecv.message import QueueId, Redirect
from smtprecv.spool import Change, Entry, Spool, Standing, Status

_PAGE_SIZE: Final = 200


@final
@dataclass(frozen=True, slots=True)
class Selection:
    """Which messages, and which of their recipients: all that pass every filter that is given.

    ``ids`` names messages. ``senders`` are reverse-paths as ``str`` writes them, the null one empty;
    ``received_before`` is the time by which a message was in the queue; ``is_held`` asks for those that are held,
    or are not. ``recipients``, ``domains`` and ``statuses`` choose recipients, and a message
    if it has one that all three fit. Addresses are alike whatever their case.
    """

    ids: frozenset[QueueId] = frozenset()
    senders: frozenset[str] = frozenset()
    received_before: dt.datetime | None = None
    is_held: bool | None = None
    recipients: frozenset[str] = frozenset()
    domains: frozenset[str] = frozenset()
    statuses: frozenset[Status] = frozenset()

    @property
    def is_everything(self) -> bool:
        """True if it chooses the whole queue."""
        return self == Selection()

    def has(self, entry: Entry) -> bool:
        """Say whether a message is chosen."""
        return (
            (not self.ids or entry.queue_id in self.ids)
            and (not self.senders or _is_among(str(entry.envelope.reverse_path), self.senders))
            and (self.received_before is None or entry.received <= self.received_before)
            and (self.is_held is None or entry.is_held == self.is_held)
            and any(map(self.has_recipient, entry.standings))
        )

    def has_recipient(self, standing: Standing) -> bool:
        """Say whether a recipient is chosen, of a message that is."""
        mailbox = standing.recipient.forward_path.mailbox
        return (
            (not self.recipients or _is_among(str(mailbox), self.recipients))
            and (not self.domains or _is_among(str(mailbox.domain), self.domains))
            and (not self.statuses or standing.status in self.statuses)
        )


def _is_among(text: str, wanted: frozenset[str]) -> bool:
    return text.casefold() in {each.casefold() for each in wanted}


Chosen: TypeAlias = Callable[[Standing], bool]
"""Says which recipients of a message were chosen."""

Order: TypeAlias = Callable[[Entry, Chosen], Entry | None]
"""What becomes of a message; None removes it, and the very same entry stands for nothing to be done."""


def hold(entry: Entry, _: Chosen) -> Entry:
    """Let the message wait, whenever it is due, until it is released."""
    return entry if entry.is_held else replace(entry, is_held=True)


def release(entry: Entry, _: Chosen) -> Entry:
    """End a hold; the message is due when it was."""
    return replace(entry, is_held=False) if entry.is_held else entry


def retry(now: dt.datetime) -> Order:
    """Make the chosen recipients that failed pending again, and what is pending due now. What is held stays so."""
    return partial(_hasten, now, revives=True)


def flush(now: dt.datetime) -> Order:
    """Make what is pending due now. What has failed or is held stays as it is."""
    return partial(_hasten, now, revives=False)


def redirect(to: Redirect, now: dt.datetime) -> Order:
    """Put other mailboxes in the place of the chosen recipients that were not served; they are due now."""
    return partial(_redirect, to, now)


def remove(entry: Entry, chosen: Chosen) -> Entry | None:
    """Drop the chosen recipients that were not served, and the message with the last of them. No sender is told."""
    kept = [each for each in entry.standings if each.status is Status.DELIVERED or not chosen(each)]
    if all(each.status is Status.DELIVERED for each in kept):
        return None
    return _with_standings(entry, kept, entry.due)


@final
class Verdict(Enum):
    """What came of an order on one message."""

    CHANGED = "changed"
    UNCHANGED = "unchanged"
    """There was nothing to be done."""
    BUSY = "busy"
    """Somebody is delivering it: try again later."""
    MISSING = "missing"
    """It is not in the queue, or cannot be read."""


@final
@dataclass(frozen=True, slots=True)
class Result:
    """What came of an order on the message of this name."""

    queue_id: QueueId
    verdict: Verdict


async def select(spool: Spool, selection: Selection, *, limit: int | None = None) -> AsyncGenerator[Entry, None]:
    """Give the chosen entries by queue id, at most ``limit`` of them.

    They are read in short pages; what changes meanwhile may or may not be seen.
    """
    left = sys.maxsize if limit is None else limit
    # Where all that is read is chosen, no more is read than is wanted.
    page_size = min(left, _PAGE_SIZE) if selection.is_everything else _PAGE_SIZE
    async with aclosing(_pages(spool, selection, page_size)) as pages:
        async for page in pages:
            for entry in [entry for entry in page if selection.has(entry)][:left]:
                yield entry
                left -= 1
            if not left:
                return


async def steer(
    spool: Spool,
    selection: Selection,
    order: Order,
    *,
    limit: int | None = None,
    dry_run: bool = False,
    looked_at: Callable[[int], object] = int,
) -> AsyncGenerator[Result, None]:
    """Do ``order`` to the chosen messages, to at most ``limit`` of them, and give what came of each.

    A ``dry_run`` changes nothing and gives what would have come, but for the busy ones. Messages that ``selection``
    names and that are not there come last, as MISSING. Cancellation, or to ask for no more results, leaves the
    pages before as they were changed. ``looked_at`` is told how many messages were looked at, page by page.
    SpoolError: a page could not be read or changed, and nothing of it was.
    """
    act = _try_out if dry_run else _act
    missing = dict.fromkeys(sorted(selection.ids))
    left = limit
    async with aclosing(_pages(spool, selection, _PAGE_SIZE)) as pages:
        async for page in pages:
            for entry in page:
                missing.pop(entry.queue_id, None)
            chosen = [entry for entry in page if selection.has(entry)][:left]
            for result in await act(spool, chosen, partial(_changed, selection, order)):
                yield result
            looked_at(len(page))
            left = None if left is None else left - len(chosen)
            if left == 0:
                return
    for queue_id in missing:
        yield Result(queue_id, Verdict.MISSING)


async def _pages(spool: Spool, selection: Selection, size: int) -> AsyncGenerator[Sequence[Entry], None]:
    """Give what may be chosen, in pages of this size."""
    names = sorted(selection.ids)
    for start in range(0, len(names), size):
        yield await spool.find(names[start : start + size])
    page = () if names else await spool.entries(limit=size)
    while page:
        yield page
        page = await spool.entries(after=page[-1].queue_id, limit=size)


def _changed(selection: Selection, order: Order, entry: Entry) -> Entry | None:
    """Act on what is chosen still, now that nobody else can change it."""
    return order(entry, selection.has_recipient) if selection.has(entry) else entry


async def _try_out(_: Spool, entries: Sequence[Entry], change: Change) -> Sequence[Result]:
    return [_result(entry, change(entry)) for entry in entries]


async def _act(spool: Spool, entries: Sequence[Entry], change: Change) -> Sequence[Result]:
    """Change messages, and tell those that somebody had claimed from those that have gone."""
    if not entries:
        return ()
    names = [entry.queue_id for entry in entries]
    results = {before.queue_id: _result(before, after) for before, after in await spool.change(names, change)}
    left = [name for name in names if name not in results]
    results |= {entry.queue_id: Result(entry.queue_id, Verdict.BUSY) for entry in await spool.find(left)}
    return [results.get(name, Result(name, Verdict.MISSING)) for name in names]


def _result(before: Entry, after: Entry | None) -> Result:
    return Result(before.queue_id, Verdict.UNCHANGED if after is before else Verdict.CHANGED)


def _hasten(now: dt.datetime, entry: Entry, chosen: Chosen, *, revives: bool) -> Entry:
    wanted = {Status.PENDING, Status.FAILED} if revives else {Status.PENDING}
    hastened = [each.status in wanted and chosen(each) for each in entry.standings]
    if entry.is_held or not any(hastened):
        return entry
    standings = [
        replace(each, status=Status.PENDING) if is_hastened else each
        for each, is_hastened in zip(entry.standings, hastened, strict=True)
    ]
    return _with_standings(entry, standings, now)


def _redirect(to: Redirect, now: dt.datetime, entry: Entry, chosen: Chosen) -> Entry:
    served = {each.recipient.forward_path for each in entry.standings if each.status is Status.DELIVERED}
    standings: list[Standing] = []
    for each in entry.standings:
        is_moved = each.status is not Status.DELIVERED and chosen(each)
        standings += each.redirected(to, served) if is_moved else [each]
    if standings == list(entry.standings):
        return entry
    return _with_standings(entry, standings, now)


def _with_standings(entry: Entry, standings: Sequence[Standing], due: dt.datetime | None) -> Entry:
    recipients = tuple(each.recipient for each in standings)
    after = replace(entry, envelope=replace(entry.envelope, recipients=recipients), standings=tuple(standings), due=due)
    return after if after.pending else replace(after, due=None)
