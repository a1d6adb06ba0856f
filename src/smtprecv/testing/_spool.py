"""The contract of a spool, as one suite: every ``Spool`` must pass ``check_spool``.

Its one rule: it knows the Protocol and nothing of any store. Each check begins with an empty store, which it
may open several times: after each other, to see what lasts, and at once, to see what two owners do to each other.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from typing import Final

import trio

from smtprecv.message import QueueId
from smtprecv.spool import Claim, Entry, Spool, all_entries
from smtprecv.testing._journal import check_journal
from smtprecv.testing._reports import check_report
from smtprecv.testing._restoring import RESTORING_CHECKS
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
    PLAIN,
    SMALL,
    OpenSpool,
    accept,
    check_message,
    fail,
    finish,
    ids,
    of_priority,
    same,
)
from smtprecv.testing._steering import STEERING_CHECKS

_NOTHING: Final[Sequence[Entry]] = ()
_PATIENCE: Final = 10
_ID_LETTERS: Final = set("0123456789abcdefghijklmnopqrstuv")


async def check_spool(new_store: Callable[[], OpenSpool]) -> None:
    """Hold a spool to its contract; AssertionError with a sentence that says which promise it broke.

    ``new_store`` makes an empty store and gives the function that opens it. Needs no more than
    a few seconds; each check that waits does so for at most ten.
    """
    for check in CHECKS:
        await check(new_store())


async def _check_acceptance(open_store: OpenSpool) -> None:
    for client, envelope, octets in (
        (PLAIN, ENVELOPE, SMALL),
        (FULL, ODD_ENVELOPE, LARGE),
        (FULL, ENVELOPE, b""),
    ):
        async with open_store() as spool:
            entry = await accept(spool, octets, client=client, envelope=envelope)
            standings = [(standing.status.value, standing.attempts, standing.last) for standing in entry.standings]
            same("what is accepted is pending and untried", standings, [("pending", 0, None)] * len(standings))
            same("what is accepted is due at once", (entry.received, entry.due), (NOON, NOON))
        async with open_store() as spool:
            (claim,) = await spool.claim(NOON, 10)
            same("an accepted message outlives its process", claim.entry, entry)
            same("its octets are those that came", await claim.message.bytes(), octets)
            same("nobody had it before", claim.is_first, expected=True)
        async with open_store() as spool:
            (claim,) = await spool.claim(NOON, 10)
            same("a claim is remembered, whatever became of it", claim.is_first, expected=False)
            await finish(spool, claim)
            same("a message that is done is removed", await spool.entries(), [])


async def _check_abort(open_store: OpenSpool) -> None:
    async with open_store() as spool:
        for octets in (SMALL, LARGE):
            draft = await spool.begin(NOON)
            await draft.write(octets)
            await check_message(await draft.message(), octets)
            await draft.abort()
        cancelled = await spool.begin(NOON)
        await cancelled.write(LARGE)
        with trio.CancelScope() as scope:
            scope.cancel()
            await cancelled.commit(PLAIN, ENVELOPE, NOON)
        same("cancellation before the transaction aborts", scope.cancelled_caught, expected=True)
        await cancelled.abort()
        same("nothing is left of a message that was aborted", await spool.entries(), [])
        kept = await spool.begin(NOON)
        entry = await kept.commit(PLAIN, ENVELOPE, NOON)
        await kept.abort()
        same("abort does nothing after commit", await spool.entries(), [entry])


async def _check_ids(open_store: OpenSpool) -> None:
    async with open_store() as one, open_store() as other:
        times = [NOON + n * dt.timedelta(milliseconds=1) for n in range(5)]
        queue_ids = [(await spool.begin(time)).queue_id for time in times for spool in (one, one, other)]
    same("queue ids are unique", len(set(queue_ids)), len(queue_ids))
    same(
        "queue ids have 20 characters of 0-9a-v",
        [i for i in queue_ids if len(i) != 20 or not set(i) <= _ID_LETTERS],
        [],
    )
    same("queue ids sort by time", sorted(queue_ids[::3]), queue_ids[::3])


async def _check_reading(open_store: OpenSpool) -> None:
    async with open_store() as spool:
        for octets in (SMALL, LARGE):
            async with spool.fresh(1) as fresh:
                await accept(spool, octets)
                with trio.fail_after(_PATIENCE):
                    await check_message((await fresh.receive()).message, octets)
            entry = await accept(spool, octets, received=NOON - MINUTE)
            for claim in await spool.claim_ids([entry.queue_id]):
                await check_message(claim.message, octets)
                await finish(spool, claim)


async def _check_fresh(open_store: OpenSpool) -> None:
    async with open_store() as spool, open_store() as other:
        async with spool.fresh(2) as fresh:
            try:
                async with spool.fresh(1):
                    fail("a second block of fresh mail is a RuntimeError")
            except RuntimeError:
                pass
            with trio.move_on_after(0) as scope:
                await fresh.receive()
            same("receive() waits for fresh mail", scope.cancelled_caught, expected=True)
            entries = [await accept(spool, SMALL, received=NOON + n * MINUTE) for n in range(3)]
            same("fresh mail is claimed at birth, up to the room", ids(await other.claim(LATE, 9)), ids(entries[2:]))
            with trio.fail_after(_PATIENCE):
                claim = await fresh.receive()
            same(
                "the oldest fresh message of the highest priority comes first",
                (claim.entry, claim.is_first),
                (entries[0], True),
            )
            await accept(spool, SMALL, received=NOON + 5 * MINUTE)
            same("what was received makes room", ids(await other.claim(LATE, 9)), [])
        given_back = ids(await other.claim(LATE, 9))
        same("fresh mail not received is given back", (len(given_back), given_back[0]), (2, entries[1].queue_id))
        same("what was received stays claimed", ids(await other.claim_ids([claim.entry.queue_id])), [])
        await finish(spool, claim)
        async with spool.fresh(1):
            pass


async def _check_urgent_fresh(open_store: OpenSpool) -> None:
    async with open_store() as spool, spool.fresh(9) as fresh:
        for priority in (0, -9, 9, 0, 9):
            await accept(spool, SMALL, envelope=of_priority(priority))
        with trio.fail_after(_PATIENCE):
            claims = [await fresh.receive() for _ in range(5)]
        same("fresh mail comes by priority", [_priority(claim) for claim in claims], [9, 9, 0, 0, -9])
        same("and of one priority in order", ids(claims[:2]), sorted(ids(claims[:2])))


async def _check_late_fresh(open_store: OpenSpool) -> None:
    async with open_store() as spool, open_store() as other:
        for steps in range(20):
            async with trio.open_nursery() as nursery, spool.fresh(1):
                nursery.start_soon(_accept_one_of_many, spool, steps)
                for _ in range(steps):
                    await trio.lowlevel.checkpoint()
        claims = await other.claim(LATE, 99)
        same("nothing stays claimed that is accepted while a block of fresh mail ends", len(claims), 20)


async def _check_claim(open_store: OpenSpool) -> None:
    async with open_store() as spool:
        entries = [await accept(spool, SMALL, received=NOON + minutes * MINUTE) for minutes in (3, 1, 2, 9)]
        same("next_due() is the earliest", await spool.next_due(), NOON + MINUTE)
        same("nothing is claimed before it is due", await spool.claim(NOON, 9), [])
        first = await spool.claim(NOON + 3 * MINUTE, 2)
        same("the longest due is claimed first, up to the limit", ids(first), ids([entries[1], entries[2]]))
        async with open_store() as other:
            same("a claim of a living owner is not void", await other.recover(), 0)
            then = await other.claim(NOON + 3 * MINUTE, 9)
            same("what is claimed is not claimed again", ids(then), ids(entries[:1]))
            same("next_due() is of the unclaimed", await other.next_due(), NOON + 9 * MINUTE)
            same("claimed entries are shown", len(await other.entries()), 4)
        again = await spool.claim(NOON + 3 * MINUTE, 9)
        same("a claim ends with its owner", ids(again), ids(then))
        for claim in (*first, *again):
            await finish(spool, claim)
        same("next_due() is of what is left", await spool.next_due(), NOON + 9 * MINUTE)


async def _check_priority(open_store: OpenSpool) -> None:
    async with open_store() as spool:
        entries = [
            await accept(spool, SMALL, received=NOON + minutes * MINUTE, envelope=of_priority(priority))
            for priority in (-9, 0, 1, 9)
            for minutes in (2, 1)
        ]
        await accept(spool, SMALL, received=NOON + 9 * MINUTE, envelope=of_priority(9))
        same("next_due() is the earliest, of whatever priority", await spool.next_due(), NOON + MINUTE)
        order = ids(entries[::-1])
        first = await spool.claim(NOON + 3 * MINUTE, 3)
        same("the highest priority is claimed first, and of one the longest due", ids(first), order[:3])
        await spool.record(replace(first[0].entry.after([LATER] * 3, NOON), due=NOON))
    async with open_store() as spool:
        same("an attempt does not change the priority", ids(await spool.claim(NOON, 9)), order[:1])
        rest = await spool.claim(NOON + 3 * MINUTE, 99)
        same("a low priority is claimed when no higher one is left", ids(rest), order[1:])


def _priority(claim: Claim) -> int:
    return claim.entry.envelope.parameters.priority


async def _check_record(open_store: OpenSpool) -> None:
    async with open_store() as spool:
        await accept(spool, SMALL)
        (claim,) = await spool.claim(NOON, 1)
        await spool.record(claim.entry)
        same("an unchanged entry may be recorded", await spool.entries(), [claim.entry])
        (claim,) = await spool.claim(NOON, 1)
        tried = claim.entry.after([OK, LATER, NEVER], NOON + MINUTE, "OSError: why not")
        tried = replace(tried, due=NOON + 5 * MINUTE)
        await spool.record(tried)
    async with open_store() as spool:
        same("an outcome is durable, with every reply", await spool.find([tried.queue_id]), [tried])
        same("it is due when it was said to be", await spool.claim(NOON + 4 * MINUTE, 1), [])
        (claim,) = await spool.claim(NOON + 5 * MINUTE, 1)
        failed = claim.entry.given_up()
        await spool.record(failed)
        same("a message that failed is kept", await spool.entries(), [failed])
        same("and it is never due", await spool.next_due(), None)
        same("and it is never claimed as due", await spool.claim(LATE, 1), _NOTHING)
        await _check_revival(spool, failed)


async def _check_stray_record(open_store: OpenSpool) -> None:
    async with open_store() as spool, open_store() as other:
        entry = await accept(spool, SMALL)
        await spool.record(entry.given_up())
        same("recording what nobody has claimed changes nothing", await spool.entries(), [entry])
        (claim,) = await other.claim(LATE, 1)
        await spool.record(entry.given_up())
        same("recording what another has claimed changes nothing", await spool.entries(), [entry])
        same("and does not end the claim", await spool.claim(LATE, 1), [])
        await finish(other, claim)
        await finish(other, claim)
        same("recording what is done already changes nothing", await spool.entries(), [])


async def _check_revival(spool: Spool, failed: Entry) -> None:
    (claim,) = await spool.claim_ids([QueueId("0" * 20), failed.queue_id, failed.queue_id])
    states = [standing.status.value for standing in claim.entry.standings]
    same("claim_ids() revives who failed, and nobody else", states, ["delivered", "pending", "pending"])
    same("what is claimed by name is not claimed twice", await spool.claim_ids([failed.queue_id]), [])
    await spool.record(claim.entry)
    same("a revived message is due again", ids(await spool.claim(LATE, 1)), [failed.queue_id])
    await spool.record(claim.entry.after([OK, OK], NOON))
    same("it is removed when all are served", await spool.entries(), [])


async def _check_listing(open_store: OpenSpool) -> None:
    async with open_store() as spool:
        same("an empty spool has no entries", await spool.entries(), _NOTHING)
        same("in an empty spool nothing is due", await spool.next_due(), None)
        entries = [await accept(spool, SMALL, received=NOON + n * MINUTE) for n in range(5)]
        same("a page has at most its limit", await spool.entries(limit=2), entries[:2])
        same("the next page begins behind", await spool.entries(after=entries[1].queue_id, limit=2), entries[2:4])
        names = [entries[3].queue_id, QueueId("0" * 20), entries[0].queue_id, entries[3].queue_id]
        same("find() gives what is there, by queue id", await spool.find(names), [entries[0], entries[3]])
        same("all_entries() gives every entry", [entry async for entry in all_entries(spool)], entries)


async def _check_waiting(open_store: OpenSpool) -> None:
    async with open_store() as spool:
        await accept(spool, SMALL)
        with trio.fail_after(_PATIENCE):
            await spool.wait_for_mail()
        with trio.move_on_after(0) as scope:
            await spool.wait_for_mail()
        same("wait_for_mail() waits for a message since the last return", scope.cancelled_caught, expected=True)
        with trio.fail_after(_PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(spool.wait_for_mail)
                await accept(spool, SMALL)
        async with spool.fresh(1):
            await accept(spool, SMALL)
            with trio.move_on_after(0) as scope:
                await spool.wait_for_mail()
            same("fresh mail does not count as an arrival", scope.cancelled_caught, expected=True)


async def _check_crowd(open_store: OpenSpool) -> None:
    async with open_store() as spool:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(_accept_one_of_many, spool, number)
        claims = await spool.claim(LATE, 100)
        same("many may accept at once", len(claims), 20)
        octets = {await claim.message.bytes() for claim in claims}
        same("and no message takes another's octets", octets, {b"%d\r\n" % number for number in range(20)})


CHECKS: Final[Sequence[Callable[[OpenSpool], Awaitable[None]]]] = (
    _check_acceptance,
    _check_abort,
    _check_ids,
    _check_reading,
    _check_fresh,
    _check_urgent_fresh,
    _check_late_fresh,
    _check_claim,
    _check_priority,
    _check_record,
    check_report,
    check_journal,
    _check_stray_record,
    *STEERING_CHECKS,
    *RESTORING_CHECKS,
    _check_listing,
    _check_waiting,
    _check_crowd,
)
"""The suite: each check is given the opener of an empty store."""


async def _accept_one_of_many(spool: Spool, number: int) -> None:
    await accept(spool, b"%d\r\n" % number)
