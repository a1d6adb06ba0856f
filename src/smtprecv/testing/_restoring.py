"""The contract of a spool for what comes back into one: it is as it was, and it is there once.

Its one rule: as the checks beside it, it knows the Protocol and nothing of any store.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

import trio
import trio.testing

from smtprecv.message import QueueId
from smtprecv.spool import Entry, Note, Spool, Standing
from smtprecv.testing._sample import (
    ENVELOPE,
    FULL,
    LARGE,
    LATE,
    LATER,
    MINUTE,
    NEVER,
    NOON,
    ODD_ENVELOPE,
    OK,
    SMALL,
    OpenSpool,
    accept,
    check_message,
    fail,
    finish,
    ids,
    same,
)

_PATIENCE: Final = 1
_FRESH: Final = Entry(
    QueueId("0" * 20), NOON, FULL, ODD_ENVELOPE, len(SMALL), tuple(map(Standing, ODD_ENVELOPE.recipients)), due=NOON
)
_TRIED: Final = replace(
    _FRESH,
    queue_id=QueueId("1" * 20),
    envelope=ENVELOPE,
    size=len(LARGE),
    standings=tuple(
        Standing(who).after(reply) for who, reply in zip(ENVELOPE.recipients, (OK, LATER, NEVER), strict=True)
    ),
    due=NOON + MINUTE,
    attempted=NOON,
    error="OSError: why not",
    note=Note(3, "note"),
    warned=NOON,
    report_of=QueueId("v" * 20),
)
_HELD: Final = replace(_TRIED.given_up(NEVER), queue_id=QueueId("2" * 20), is_held=True)
_ALL: Final = ((_FRESH, SMALL), (_TRIED, LARGE), (_HELD, LARGE))


async def _check_restore(open_store: OpenSpool) -> None:
    entries = [entry for entry, _ in _ALL]
    async with open_store() as spool:
        told = [await _restore(spool, entry, octets) for entry, octets in _ALL]
        same("restore() takes what is not there", told, [True] * 3)
    async with open_store() as spool:
        same("what is restored outlives its process, as it was", await spool.entries(), entries)
        again = [await _restore(spool, entry.given_up(), octets) for entry, octets in _ALL]
        same("restore() is False for what is there", again, [False] * 3)
        same("and leaves it as it is", await spool.entries(), entries)
        (claim,) = await spool.claim(NOON, 9)
        same("what is restored is due when it was", claim.entry, _FRESH)
        same("and may have been claimed before", claim.is_first, expected=False)
        claims = [claim, *await spool.claim_ids(ids(entries))]
        for each, (_, octets) in zip(claims, _ALL, strict=True):
            await check_message(each.message, octets)
            await finish(spool, each)
        same("what is restored is removed as all else is", await spool.count(), 0)
        same("and may be restored again", await _restore(spool, _TRIED, LARGE), expected=True)
        same("a store in which it was done is sound", await spool.verify(), [])


async def _check_refusal(open_store: OpenSpool) -> None:
    async with open_store() as spool:
        for octets in (SMALL, LARGE):
            entry = replace(_FRESH, size=len(octets))
            done = replace(entry, standings=tuple(each.after(OK) for each in entry.standings), due=None)
            for wrong in (replace(entry, size=len(octets) + 1), done, None):
                await _check_wrong(spool, wrong, octets)
        same("nothing is left of what was not restored", [*await spool.entries(), *await spool.verify()], ())


async def _check_wrong(spool: Spool, wrong: Entry | None, octets: bytes) -> None:
    draft = await spool.begin(LATE)
    await draft.write(octets)
    try:
        await draft.restore(wrong or replace(_FRESH, queue_id=draft.queue_id, size=len(octets)))
    except ValueError:
        return
    fail("restore() raises ValueError for what is done, of another size, or of the draft's id")


async def _check_notice(open_store: OpenSpool) -> None:
    async with open_store() as spool, open_store() as other:
        for restoring, (entry, octets) in zip((spool, other), _ALL, strict=False):
            with trio.fail_after(_PATIENCE):
                async with trio.open_nursery() as nursery:
                    nursery.start_soon(spool.wait_for_mail)
                    await trio.testing.wait_all_tasks_blocked()
                    await _restore(restoring, entry, octets)
        async with spool.fresh(9):
            await _restore(spool, _HELD, LARGE)
            with trio.fail_after(_PATIENCE):
                await spool.wait_for_mail()
            same("what is restored is not claimed at birth", ids(await other.claim(LATE, 9)), ids([_TRIED, _FRESH]))
            same("nor is what is held", ids(await other.claim_ids(ids([_HELD]))), ids([_HELD]))
            entry = await accept(spool, SMALL)
            same("as fresh mail is", await other.claim_ids(ids([entry])), [])


async def _restore(spool: Spool, entry: Entry, octets: bytes) -> bool:
    draft = await spool.begin(LATE)
    for start in range(0, len(octets), 50_000):
        await draft.write(octets[start : start + 50_000])
    is_restored = await draft.restore(entry)
    await draft.abort()
    return is_restored


RESTORING_CHECKS: Final[Sequence[Callable[[OpenSpool], Awaitable[None]]]] = (
    _check_restore,
    _check_refusal,
    _check_notice,
)
"""Each check is given the opener of an empty store."""
