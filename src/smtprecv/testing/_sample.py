"""What the checks of a spool share: messages of every kind, and how a promise is found broken.

Its one rule: as the checks, it knows the Protocol and nothing of any store.
"""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from ipaddress import ip_address
from typing import Final, NoReturn, TypeAlias, TypeGuard

import trio

from smtprecv.message import Client, Message, QueueId, SessionId
from smtprecv.protocol import (
    AddressLiteral,
    Body,
    ByMode,
    DeliverBy,
    Dialect,
    Domain,
    EnhancedStatus,
    Envelope,
    ForwardPath,
    Mailbox,
    MailParameters,
    Notify,
    OriginalRecipient,
    RcptParameters,
    Recipient,
    Reply,
    Ret,
    ReversePath,
    Session,
    Tls,
    Xtext,
)
from smtprecv.spool import Claim, Entry, Spool

OpenSpool: TypeAlias = Callable[[], AbstractAsyncContextManager[Spool]]
"""Opens one store; each call is another owner of the same messages."""

NOON: Final = dt.datetime(2026, 3, 1, 12, 0, 0, 250, tzinfo=dt.UTC)
MINUTE: Final = dt.timedelta(minutes=1)
LATE: Final = NOON + dt.timedelta(days=30)
LARGE: Final = b"0123456789abcdefghijklmnopqrstuvwxyz\r\n" * 20_000
SMALL: Final = b"Subject: one\r\n\r\none\r\n"
_PIECE_SIZE: Final = 256 * 1024
_PEOPLE: Final = tuple(Recipient(ForwardPath(Mailbox(name, Domain("example.com")))) for name in ("ada", "Bob", "c"))
OK: Final = Reply(250, "taken", EnhancedStatus(2, 0, 0))
LATER: Final = Reply(451, "not now\nperhaps later")
NEVER: Final = Reply(550, "nobody of that name", EnhancedStatus(5, 1, 1))

PLAIN: Final = Client(SessionId("s1"), None, None)
FULL: Final = Client(
    SessionId("s2"),
    ip_address("2001:db8::7"),
    2525,
    Session(
        "mail.example",
        is_extended=True,
        identity="Zoë",
        tls=Tls("TLSv1.3", "TLS_AES_256_GCM_SHA384", 256, "mail.example"),
        dialect=Dialect.LMTP,
    ),
    host="mail.example",
    ident="root",
    local_address=ip_address("2001:db8::25"),
)
ODD_ENVELOPE: Final = Envelope(
    ReversePath(Mailbox('a "b"\\@ c', AddressLiteral(ip_address("2001:db8::8")))),
    MailParameters(
        size=7,
        body=Body.BINARY_MIME,
        smtputf8=True,
        ret=Ret.HDRS,
        envid=Xtext("qP7+2Bz"),
        deliver_by=DeliverBy(-120, ByMode.NOTIFY, is_traced=True),
        priority=-9,
        require_tls=True,
        auth="",
    ),
    (
        Recipient(
            ForwardPath(Mailbox("Jürgen", AddressLiteral(ip_address("192.0.2.9")))),
            parameters=RcptParameters(frozenset(), OriginalRecipient("UTF-8", Xtext("Jürgen+40bücher.example"))),
        ),
        Recipient(
            ForwardPath(Mailbox("", Domain("xn--bcher-kva.example"))),
            _PEOPLE[0].forward_path,
            RcptParameters(frozenset({Notify.DELAY, Notify.FAILURE})),
        ),
    ),
)
ENVELOPE: Final = Envelope(ReversePath(None), recipients=_PEOPLE)


def of_priority(priority: int) -> Envelope:
    """Give the usual envelope with a priority."""
    return replace(ENVELOPE, parameters=MailParameters(priority=priority))


async def accept(
    spool: Spool,
    octets: bytes,
    *,
    received: dt.datetime = NOON,
    client: Client = PLAIN,
    envelope: Envelope = ENVELOPE,
) -> Entry:
    """Accept a message, written in pieces."""
    draft = await spool.begin(received)
    for start in range(0, len(octets), 50_000):
        await draft.write(octets[start : start + 50_000])
    entry = await draft.commit(client, envelope, received)
    same(
        "the entry has the draft's queue id, its envelope and its size",
        (entry.queue_id, entry.envelope, entry.size),
        (draft.queue_id, envelope, len(octets)),
    )
    return entry


async def finish(spool: Spool, claim: Claim) -> None:
    """Record that every recipient was served."""
    await spool.record(claim.entry.after([OK] * len(claim.entry.pending), NOON))


async def check_message(message: Message, octets: bytes) -> None:
    """Hold a message to its octets, however they are read."""
    same("a message knows its size", message.size, len(octets))
    for _ in range(2):
        same("bytes() gives the octets, each time", await message.bytes(), octets)
        async with message.chunks() as chunks:
            pieces = [piece async for piece in chunks]
        same("chunks() gives the octets, each time", b"".join(pieces), octets)
        same("no chunk is larger than 256 KiB", max(map(len, pieces)) <= _PIECE_SIZE, expected=True)
        async with message.as_file() as path:
            same("as_file() gives a file with the octets", await trio.Path(path).read_bytes(), octets)
        same("the file of as_file() is gone behind the block", await trio.Path(path).exists(), expected=False)
    async with message.chunks() as chunks:
        same("chunks() may be left early", octets.startswith(await anext(chunks)), expected=True)


def ids(messages: Sequence[Claim] | Sequence[Entry]) -> list[QueueId]:
    """Give the names of messages, in their order."""
    return [message.entry.queue_id if isinstance(message, Claim) else message.queue_id for message in messages]


def same(promise: str, actual: object, expected: object) -> None:
    """Raise AssertionError, with the promise, unless both are equal; sequences of every kind are alike."""
    if _plain(actual) != _plain(expected):
        fail(f"{promise}: it is {actual!r} where {expected!r} was promised")


def _plain(value: object) -> object:
    return list(value) if _is_sequence(value) else value


def _is_sequence(value: object) -> TypeGuard[Sequence[object]]:
    return isinstance(value, tuple | list)


def fail(text: str) -> NoReturn:
    """Raise AssertionError with the promise that was broken."""
    raise AssertionError(text)
