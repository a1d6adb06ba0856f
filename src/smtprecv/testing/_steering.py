"""The part of a spool's contract that operators stand on: what is held, changed, counted, read and noticed.

Its one rule: as the rest of the suite, it knows the Protocol and nothing of any store.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from typing import Final, TypeAlias

import trio
import trio.testing

from smtprecv.message import QueueId
from smtprecv.spool import Entry, Spool
from smtprecv.testing._sample import LARGE, LATE, MINUTE, NOON, OK, SMALL, accept, check_message, finish, ids, same

OpenSpool: TypeAlias = Callable[[], AbstractAsyncContextManager[Spool]]
"""Opens one store; each call is another owner of the same messages."""

_PATIENCE: Final = 1


async def _check_hold(open_store: OpenSpool) -> None:
    async with open_store() as spool:
        held, free = [await accept(spool, SMALL, received=NOON + n * MINUTE) for n in range(2)]
        same("what is accepted is not held", (held.is_held, free.is_held), (False, False))
        await spool.change([held.queue_id], lambda entry: replace(entry, is_held=True))
    async with open_store() as spool:
        same("a hold outlives its process", [entry.is_held for entry in await spool.entries()], [True, False])
        same("next_due() is of what is not held", await spool.next_due(), free.due)
        claims = await spool.claim(LATE, 9)
        same("what is held is not claimed as due", ids(claims), ids([free]))
        await finish(spool, claims[0])
        (claim,) = await spool.claim_ids([held.queue_id])
        await spool.record(claim.entry)
        same("what is held is claimed by name, and stays held", await spool.claim(LATE, 9), [])
        await spool.change([held.queue_id], lambda entry: replace(entry, is_held=False))
        same("what is released is due when it was", await spool.entries(), [held])
        same("and is claimed as ever", ids(await spool.claim(LATE, 9)), ids([held]))


async def _check_change(open_store: OpenSpool) -> None:
    async with open_store() as spool, open_store() as other:
        entries = [await accept(spool, octets, received=NOON + n * MINUTE) for n, octets in enumerate((SMALL, LARGE))]
        small, large = entries
        same("count() counts", await spool.count(), 2)
        same("an entry may be left as it is", await spool.change(ids(entries), _as_it_is), [(e, e) for e in entries])
        (claim,) = await other.claim_ids([small.queue_id])
        changes = await spool.change([*ids(entries), large.queue_id, QueueId("0" * 20)], _first_only)
        same(
            "what is claimed or not there is not changed, and nothing twice", [before for before, _ in changes], [large]
        )
        same("a change may take recipients away", await spool.entries(), [small, _first_only(large)])
        same("count() counts what is claimed", await spool.count(), 2)
        same("verify() finds no fault in a sound store", await spool.verify(), [])
        await other.record(claim.entry)
        removed = await spool.change(ids(entries), lambda _: None)
        same("None removes", [after for _, after in removed], [None, None])
        same("and nothing is left", (len(await spool.entries()), await spool.count()), (0, 0))
        done = await accept(spool, SMALL)
        served = await spool.change([done.queue_id], lambda entry: entry.after([OK] * 3, NOON))
        same("what is done by a change is removed", (served, await spool.count()), ([(done, None)], 0))


def _as_it_is(entry: Entry) -> Entry:
    return entry


def _first_only(entry: Entry) -> Entry:
    """Give the entry with nobody but its first recipient."""
    first = entry.standings[:1]
    recipients = tuple(standing.recipient for standing in first)
    return replace(entry, envelope=replace(entry.envelope, recipients=recipients), standings=first)


async def _check_message_of(open_store: OpenSpool) -> None:
    async with open_store() as spool, open_store() as other:
        for octets in (SMALL, LARGE):
            entry = await accept(spool, octets)
            for claim in ((), await other.claim_ids([entry.queue_id])):
                message = await spool.message_of(entry.queue_id)
                same("message_of() finds what is there, claimed or not", message is None, expected=False)
                if message is not None:
                    await check_message(message, octets)
                for each in claim:
                    await finish(other, each)
            same("message_of() is None for what is not there", await spool.message_of(entry.queue_id), None)


async def _check_notice(open_store: OpenSpool) -> None:
    async with open_store() as spool, open_store() as other:
        entry = await accept(other, SMALL)
        for changing in (spool, other):
            with trio.fail_after(_PATIENCE):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(spool.wait_for_mail)
                    await trio.testing.wait_all_tasks_blocked()
                    await changing.change([entry.queue_id], lambda each: replace(each, is_held=not each.is_held))


STEERING_CHECKS: Final[Sequence[Callable[[OpenSpool], Awaitable[None]]]] = (
    _check_hold,
    _check_change,
    _check_message_of,
    _check_notice,
)
"""Each check is given the opener of an empty store."""
