"""The contract of a spool for journals: what is recorded of an attempt is there as long as its message.

Its one rule: as the checks beside it, it knows the Protocol and nothing of any store.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

from smtprecv.message import QueueId
from smtprecv.spool import Entry, Spool, Tried
from smtprecv.testing._sample import ENVELOPE, LATE, LATER, MINUTE, NOON, OK, PLAIN, SMALL, OpenSpool, accept, ids, same

_NOTHING: Final[Sequence[Tried]] = ()
_MOMENT: Final = dt.timedelta(seconds=1, microseconds=5)
_ATTEMPTS: Final = tuple(
    Tried.of(NOON + minutes * MINUTE, _MOMENT, [("ada@example.com", reply), ("Jürgen@[192.0.2.9]", reply)], error)
    for minutes, reply, error in ((1, "451 later", None), (5, "redirected to Bob@example.com", "OSError: why not"))
)


async def check_journal(open_store: OpenSpool) -> None:
    """Check that attempts are kept with their message, in their order, and with nobody else's."""
    async with open_store() as spool:
        entry, other = await accept(spool, SMALL), await accept(spool, SMALL)
        same("a message that nobody tried has no journal", await spool.journal(entry.queue_id), _NOTHING)
        await spool.record(entry, _ATTEMPTS[0])
        same("what is recorded without a claim is not kept", await spool.journal(entry.queue_id), _NOTHING)
        first, second = _ATTEMPTS
        await _record(spool, entry, second)
        await _record(spool, entry, None)
        await _record(spool, entry, first)
    async with open_store() as spool:
        same("a journal has the attempts as they were recorded", await spool.journal(entry.queue_id), [second, first])
        await spool.change(ids([entry]), lambda each: replace(each, is_held=True))
        same("a journal outlives a change", len(await spool.journal(entry.queue_id)), 2)
        same("a journal is of its own message", await spool.journal(other.queue_id), _NOTHING)
        same("verify() finds no fault in a journal", await spool.verify(), [])
        await _check_ends(spool, [entry, other])
        same("what is not there has no journal", await spool.journal(QueueId("0" * 20)), _NOTHING)


async def _record(spool: Spool, entry: Entry, tried: Tried | None) -> None:
    (claim,) = await spool.claim_ids([entry.queue_id])
    await spool.record(replace(claim.entry.after([LATER] * 3, NOON), due=NOON), tried)


async def _check_ends(spool: Spool, entries: Sequence[Entry]) -> None:
    """Check that a report brings its attempt, and that journals go with their messages, however these go."""
    one, other = entries
    (claim,) = await spool.claim_ids([other.queue_id])
    for queue_id, count in ((other.queue_id, 1), (one.queue_id, 2)):
        draft = await spool.begin(LATE)
        outcome = replace(claim.entry.after([LATER] * 3, NOON), queue_id=queue_id)
        await draft.commit_report(outcome, PLAIN, ENVELOPE, LATE, _ATTEMPTS[0])
        same("an attempt is kept with its report, or neither is", len(await spool.journal(queue_id)), count)
    (claim,) = await spool.claim_ids([other.queue_id])
    await spool.record(claim.entry.after([OK] * 3, NOON), _ATTEMPTS[1])
    await spool.change(ids([one]), lambda _: None)
    for entry in entries:
        same("a journal goes with its message", await spool.journal(entry.queue_id), _NOTHING)
    same("and leaves nothing", await spool.verify(), [])
