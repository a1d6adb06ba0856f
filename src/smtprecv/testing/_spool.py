"""The contract of a spool, as one suite: every ``Spool`` must pass ``check_spool``.

Its one rule: it knows the Protocol and nothing of any store. Each check begins with an empty store, which it
may open several times: after each other, to see what lasts, and at once, to see what two owners do to each other.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from ipaddress import ip_address
from typing import Final, TypeAlias, TypeGuard

import trio

from smtprecv.message import Client, Message, QueueId, SessionId
from smtprecv.protocol import (
    AddressLiteral,
    Body,
    Domain,
    EnhancedStatus,
    Envelope,
    ForwardPath,
    Mailbox,
    MailParameters,
    Recipient,
    Reply,
    ReversePath,
    Session,
)
from smtprecv.spool import Claim, Entry, Spool, all_entries

OpenSpool: TypeAlias = Callable[[], AbstractAsyncContextManager[Spool]]
"""Opens one store; each call is another owner of the same messages."""

_NOON: Final = dt.datetime(2026, 3, 1, 12, 0, 0, 250, tzinfo=dt.UTC)
_NOTHING: Final[Sequence[Entry]] = ()
_MINUTE: Final = dt.timedelta(minutes=1)
_PIECE_SIZE: Final = 256 * 1024
_PATIENCE: Final = 10
_LARGE: Final = b"0123456789abcdefghijklmnopqrstuvwxyz\r\n" * 20_000
_SMALL: Final = b"Subject: one\r\n\r\none\r\n"
_PEOPLE: Final = tuple(Recipient(ForwardPath(Mailbox(name, Domain("example.com")))) for name in ("ada", "Bob", "c"))
_ID_LETTERS: Final = set("0123456789abcdefghijklmnopqrstuv")
_OK: Final = Reply(250, "taken", EnhancedStatus(2, 0, 0))
_LATER: Final = Reply(451, "not now\nperhaps later")
_NEVER: Final = Reply(550, "nobody of that name", EnhancedStatus(5, 1, 1))

_PLAIN: Final = Client(SessionId("s1"), None, None)
_FULL: Final = Client(
    SessionId("s2"),
    ip_address("2001:db8::7"),
    2525,
    Session("mail.example", is_extended=True, is_secure=True, identity="Zoë"),
    host="mail.example",
    ident="root",
)
_ODD_ENVELOPE: Final = Envelope(
    ReversePath(Mailbox('a "b"\\@ c', AddressLiteral(ip_address("2001:db8::8")))),
    MailParameters(size=7, body=Body.EIGHT_BIT_MIME, smtputf8=True),
    (
        Recipient(ForwardPath(Mailbox("Jürgen", AddressLiteral(ip_address("192.0.2.9"))))),
        Recipient(ForwardPath(Mailbox("", Domain("xn--bcher-kva.example")))),
    ),
)
_ENVELOPE: Final = Envelope(ReversePath(None), recipients=_PEOPLE)


async def check_spool(new_store: Callable[[], OpenSpool]) -> None:
    """Hold a spool to its contract; AssertionError with a sentence that says which promise it broke.

    ``new_store`` makes an empty store and gives the function that opens it. Needs no more than
    a few seconds; each check that waits does so for at most ten.
    """
    for check in CHECKS:
        await check(new_store())


async def _check_acceptance(open_store: OpenSpool) -> None:
    for client, envelope, octets in (
        (_PLAIN, _ENVELOPE, _SMALL),
        (_FULL, _ODD_ENVELOPE, _LARGE),
        (_FULL, _ENVELOPE, b""),
    ):
        async with open_store() as spool:
            entry = await _accept(spool, octets, client=client, envelope=envelope)
            standings = [(standing.status.value, standing.attempts, standing.last) for standing in entry.standings]
            _same("what is accepted is pending and untried", standings, [("pending", 0, None)] * len(standings))
            _same("what is accepted is due at once", (entry.received, entry.due), (_NOON, _NOON))
        async with open_store() as spool:
            (claim,) = await spool.claim(_NOON, 10)
            _same("an accepted message outlives its process", claim.entry, entry)
            _same("its octets are those that came", await claim.message.bytes(), octets)
            _same("nobody had it before", claim.is_first, expected=True)
        async with open_store() as spool:
            (claim,) = await spool.claim(_NOON, 10)
            _same("a claim is remembered, whatever became of it", claim.is_first, expected=False)
            await _finish(spool, claim)
            _same("a message that is done is removed", await spool.entries(), [])


async def _check_abort(open_store: OpenSpool) -> None:
    async with open_store() as spool:
        for octets in (_SMALL, _LARGE):
            draft = await spool.begin(_NOON)
            await draft.write(octets)
            await draft.abort()
        cancelled = await spool.begin(_NOON)
        await cancelled.write(_LARGE)
        with trio.CancelScope() as scope:
            scope.cancel()
            await cancelled.commit(_PLAIN, _ENVELOPE, _NOON)
        _same("cancellation before the transaction aborts", scope.cancelled_caught, expected=True)
        await cancelled.abort()
        _same("nothing is left of a message that was aborted", await spool.entries(), [])
        kept = await spool.begin(_NOON)
        entry = await kept.commit(_PLAIN, _ENVELOPE, _NOON)
        await kept.abort()
        _same("abort does nothing after commit", await spool.entries(), [entry])


async def _check_ids(open_store: OpenSpool) -> None:
    async with open_store() as one, open_store() as other:
        times = [_NOON + n * dt.timedelta(milliseconds=1) for n in range(5)]
        ids = [(await spool.begin(time)).queue_id for time in times for spool in (one, one, other)]
    _same("queue ids are unique", len(set(ids)), len(ids))
    _same("queue ids have 20 characters of 0-9a-v", [i for i in ids if len(i) != 20 or not set(i) <= _ID_LETTERS], [])
    _same("queue ids sort by time", sorted(ids[::3]), ids[::3])


async def _check_reading(open_store: OpenSpool) -> None:
    async with open_store() as spool:
        for octets in (_SMALL, _LARGE):
            async with spool.fresh(1) as fresh:
                await _accept(spool, octets)
                with trio.fail_after(_PATIENCE):
                    await _check_message(await fresh.receive(), octets)
            entry = await _accept(spool, octets, received=_NOON - _MINUTE)
            for claim in await spool.claim_ids([entry.queue_id]):
                await _check_message(claim, octets)
                await _finish(spool, claim)


async def _check_message(claim: Claim, octets: bytes) -> None:
    message: Message = claim.message
    _same("a message knows its size", (message.size, claim.entry.size), (len(octets), len(octets)))
    for _ in range(2):
        _same("bytes() gives the octets, each time", await message.bytes(), octets)
        async with message.chunks() as chunks:
            pieces = [piece async for piece in chunks]
        _same("chunks() gives the octets, each time", b"".join(pieces), octets)
        _same("no chunk is larger than 256 KiB", max(map(len, pieces)) <= _PIECE_SIZE, expected=True)
        async with message.as_file() as path:
            _same("as_file() gives a file with the octets", await trio.Path(path).read_bytes(), octets)
        _same("the file of as_file() is gone behind the block", await trio.Path(path).exists(), expected=False)
    async with message.chunks() as chunks:
        _same("chunks() may be left early", octets.startswith(await anext(chunks)), expected=True)


async def _check_fresh(open_store: OpenSpool) -> None:
    async with open_store() as spool, open_store() as other:
        async with spool.fresh(2) as fresh:
            try:
                async with spool.fresh(1):
                    _fail("a second block of fresh mail is a RuntimeError")
            except RuntimeError:
                pass
            with trio.move_on_after(0) as scope:
                await fresh.receive()
            _same("receive() waits for fresh mail", scope.cancelled_caught, expected=True)
            entries = [await _accept(spool, _SMALL, received=_NOON + n * _MINUTE) for n in range(3)]
            _same(
                "fresh mail is claimed at birth, up to the room", _ids(await other.claim(_LATE, 9)), _ids(entries[2:])
            )
            with trio.fail_after(_PATIENCE):
                claim = await fresh.receive()
            _same("the oldest fresh message comes first", (claim.entry, claim.is_first), (entries[0], True))
            await _accept(spool, _SMALL, received=_NOON + 5 * _MINUTE)
            _same("what was received makes room", _ids(await other.claim(_LATE, 9)), [])
        given_back = _ids(await other.claim(_LATE, 9))
        _same("fresh mail not received is given back", (len(given_back), given_back[0]), (2, entries[1].queue_id))
        _same("what was received stays claimed", _ids(await other.claim_ids([claim.entry.queue_id])), [])
        await _finish(spool, claim)
        async with spool.fresh(1):
            pass


async def _check_claim(open_store: OpenSpool) -> None:
    async with open_store() as spool:
        entries = [await _accept(spool, _SMALL, received=_NOON + minutes * _MINUTE) for minutes in (3, 1, 2, 9)]
        _same("next_due() is the earliest", await spool.next_due(), _NOON + _MINUTE)
        _same("nothing is claimed before it is due", await spool.claim(_NOON, 9), [])
        first = await spool.claim(_NOON + 3 * _MINUTE, 2)
        _same("the longest due is claimed first, up to the limit", _ids(first), _ids([entries[1], entries[2]]))
        async with open_store() as other:
            _same("a claim of a living owner is not void", await other.recover(), 0)
            then = await other.claim(_NOON + 3 * _MINUTE, 9)
            _same("what is claimed is not claimed again", _ids(then), _ids(entries[:1]))
            _same("next_due() is of the unclaimed", await other.next_due(), _NOON + 9 * _MINUTE)
            _same("claimed entries are shown", len(await other.entries()), 4)
        again = await spool.claim(_NOON + 3 * _MINUTE, 9)
        _same("a claim ends with its owner", _ids(again), _ids(then))
        for claim in (*first, *again):
            await _finish(spool, claim)
        _same("next_due() is of what is left", await spool.next_due(), _NOON + 9 * _MINUTE)


async def _check_record(open_store: OpenSpool) -> None:
    async with open_store() as spool:
        await _accept(spool, _SMALL)
        (claim,) = await spool.claim(_NOON, 1)
        await spool.record(claim.entry)
        _same("an unchanged entry may be recorded", await spool.entries(), [claim.entry])
        (claim,) = await spool.claim(_NOON, 1)
        tried = claim.entry.after([_OK, _LATER, _NEVER], _NOON + _MINUTE, "OSError: why not")
        tried = replace(tried, due=_NOON + 5 * _MINUTE)
        await spool.record(tried)
    async with open_store() as spool:
        _same("an outcome is durable, with every reply", await spool.find([tried.queue_id]), [tried])
        _same("it is due when it was said to be", await spool.claim(_NOON + 4 * _MINUTE, 1), [])
        (claim,) = await spool.claim(_NOON + 5 * _MINUTE, 1)
        failed = claim.entry.given_up()
        await spool.record(failed)
        _same("a message that failed is kept", await spool.entries(), [failed])
        _same("and it is never due", await spool.next_due(), None)
        _same("and it is never claimed as due", await spool.claim(_LATE, 1), _NOTHING)
        await _check_revival(spool, failed)


async def _check_revival(spool: Spool, failed: Entry) -> None:
    (claim,) = await spool.claim_ids([QueueId("0" * 20), failed.queue_id, failed.queue_id])
    states = [standing.status.value for standing in claim.entry.standings]
    _same("claim_ids() revives who failed, and nobody else", states, ["delivered", "pending", "pending"])
    _same("what is claimed by name is not claimed twice", await spool.claim_ids([failed.queue_id]), [])
    await spool.record(claim.entry)
    _same("a revived message is due again", _ids(await spool.claim(_LATE, 1)), [failed.queue_id])
    await spool.record(claim.entry.after([_OK, _OK], _NOON))
    _same("it is removed when all are served", await spool.entries(), [])


async def _check_listing(open_store: OpenSpool) -> None:
    async with open_store() as spool:
        _same("an empty spool has no entries", await spool.entries(), _NOTHING)
        _same("in an empty spool nothing is due", await spool.next_due(), None)
        entries = [await _accept(spool, _SMALL, received=_NOON + n * _MINUTE) for n in range(5)]
        _same("a page has at most its limit", await spool.entries(limit=2), entries[:2])
        _same("the next page begins behind", await spool.entries(after=entries[1].queue_id, limit=2), entries[2:4])
        names = [entries[3].queue_id, QueueId("0" * 20), entries[0].queue_id, entries[3].queue_id]
        _same("find() gives what is there, by queue id", await spool.find(names), [entries[0], entries[3]])
        _same("all_entries() gives every entry", [entry async for entry in all_entries(spool)], entries)


async def _check_waiting(open_store: OpenSpool) -> None:
    async with open_store() as spool:
        await _accept(spool, _SMALL)
        with trio.fail_after(_PATIENCE):
            await spool.wait_for_mail()
        with trio.move_on_after(0) as scope:
            await spool.wait_for_mail()
        _same("wait_for_mail() waits for a message since the last return", scope.cancelled_caught, expected=True)
        with trio.fail_after(_PATIENCE):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(spool.wait_for_mail)
                await _accept(spool, _SMALL)
        async with spool.fresh(1):
            await _accept(spool, _SMALL)
            with trio.move_on_after(0) as scope:
                await spool.wait_for_mail()
            _same("fresh mail does not count as an arrival", scope.cancelled_caught, expected=True)


async def _check_crowd(open_store: OpenSpool) -> None:
    async with open_store() as spool:
        async with trio.open_nursery() as nursery:
            for number in range(20):
                nursery.start_soon(_accept_one_of_many, spool, number)
        claims = await spool.claim(_LATE, 100)
        _same("many may accept at once", len(claims), 20)
        octets = {await claim.message.bytes() for claim in claims}
        _same("and no message takes another's octets", octets, {b"%d\r\n" % number for number in range(20)})


CHECKS: Final[Sequence[Callable[[OpenSpool], Awaitable[None]]]] = (
    _check_acceptance,
    _check_abort,
    _check_ids,
    _check_reading,
    _check_fresh,
    _check_claim,
    _check_record,
    _check_listing,
    _check_waiting,
    _check_crowd,
)
"""The suite: each check is given the opener of an empty store."""

_LATE: Final = _NOON + dt.timedelta(days=30)


async def _accept(
    spool: Spool,
    octets: bytes,
    *,
    received: dt.datetime = _NOON,
    client: Client = _PLAIN,
    envelope: Envelope = _ENVELOPE,
) -> Entry:
    draft = await spool.begin(received)
    for start in range(0, len(octets), 50_000):
        await draft.write(octets[start : start + 50_000])
    entry = await draft.commit(client, envelope, received)
    _same(
        "the entry has the draft's queue id and its envelope",
        (entry.queue_id, entry.envelope),
        (draft.queue_id, envelope),
    )
    return entry


async def _accept_one_of_many(spool: Spool, number: int) -> None:
    await _accept(spool, b"%d\r\n" % number)


async def _finish(spool: Spool, claim: Claim) -> None:
    await spool.record(claim.entry.after([_OK] * len(claim.entry.pending), _NOON))


def _ids(messages: Sequence[Claim] | Sequence[Entry]) -> list[QueueId]:
    return [message.entry.queue_id if isinstance(message, Claim) else message.queue_id for message in messages]


def _same(promise: str, actual: object, expected: object) -> None:
    """Raise AssertionError, with the promise, unless both are equal; sequences of every kind are alike."""
    if _plain(actual) != _plain(expected):
        _fail(f"{promise}: it is {actual!r} where {expected!r} was promised")


def _plain(value: object) -> object:
    return list(value) if _is_sequence(value) else value


def _is_sequence(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, tuple | list)


def _fail(text: str) -> None:
    raise AssertionError(text)
