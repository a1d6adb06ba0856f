"""A message on its way to a delivery that is tested: what is sent, and how to know it again where it arrives."""

from __future__ import annotations

import secrets
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, final

import trio

from smtprecv.delivery import Attempt
from smtprecv.errors import SpoolError
from smtprecv.message import QueueId
from smtprecv.protocol import (
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
)
from smtprecv.spool import Entry, Standing, Status
from smtprecv.testing._sample import FULL, NOON, fail

_LARGE_PIECE: Final = 256 * 1024
_SMALL_PIECE: Final = 16
_SENDER: Final = ReversePath(Mailbox("sender", Domain("example.net")))
_DONE: Final = Reply(250, "served before", EnhancedStatus(2, 0, 0))


@final
@dataclass(slots=True)
class Parcel:
    """A message: ``start``, a line that no other message has, and ``rest``.

    ``names``: local parts of the recipients; ``served``: how many of the first of them have it already.
    ``is_large``: it must not be asked for at once. ``pieces``: after so many the queue cannot be read, or,
    with a ``scope``, the attempt is cancelled; None for never.
    """

    start: bytes = b"Subject: test\r\n\r\n"
    rest: bytes = b"one line\r\nand the last\r\n"
    names: Sequence[str] = ("ada",)
    served: int = 0
    body: Body = Body.EIGHT_BIT_MIME
    is_large: bool = False
    pieces: int | None = None
    scope: trio.CancelScope | None = None
    queue_id: QueueId = field(default_factory=lambda: QueueId(secrets.token_hex(10)))

    @property
    def token(self) -> bytes:
        """What stands in this message alone."""
        return f"token-{self.queue_id}".encode()

    @property
    def octets(self) -> bytes:
        """The message as the client sent it."""
        return self.start + self.token + b"\r\n" + self.rest

    @property
    def entry(self) -> Entry:
        """The message's entry in the queue."""
        recipients = tuple(Recipient(ForwardPath(Mailbox(name, Domain("example.com")))) for name in self.names)
        envelope = Envelope(_SENDER, MailParameters(body=self.body), recipients)
        standings = tuple(
            Standing(to, Status.DELIVERED, 1, _DONE) if number < self.served else Standing(to)
            for number, to in enumerate(recipients)
        )
        return Entry(self.queue_id, NOON, FULL, envelope, len(self.octets), standings, NOON)

    def attempt(self) -> Attempt:
        """Begin an attempt."""
        return Attempt(self.entry, _Text(self))

    def is_in(self, copy: bytes) -> bool:
        """Say whether a copy has the whole message; its line ends may be others, if it is not binary."""
        if self.body is Body.BINARY_MIME:
            return self.octets in copy
        return self.octets.replace(b"\r\n", b"\n") in copy.replace(b"\r\n", b"\n")


@final
@dataclass(frozen=True, slots=True)
class _Text:
    """The message of a parcel, as the queue gives it."""

    parcel: Parcel

    @property
    def size(self) -> int:
        return len(self.parcel.octets)

    @asynccontextmanager
    async def chunks(self) -> AsyncGenerator[AsyncIterator[bytes], None]:
        async with aclosing(self._pieces()) as pieces:
            yield pieces

    async def _pieces(self) -> AsyncGenerator[bytes, None]:
        octets, size = self.parcel.octets, _LARGE_PIECE if self.parcel.is_large else _SMALL_PIECE
        for number, start in enumerate(range(0, len(octets), size)):
            if number == self.parcel.pieces:
                if self.parcel.scope is None:
                    msg = "the queue cannot be read"
                    raise SpoolError(msg)
                self.parcel.scope.cancel()
            await trio.lowlevel.checkpoint()
            yield octets[start : start + size]

    async def bytes(self) -> bytes:
        if self.parcel.is_large:
            fail("a large message is read in pieces: it was asked for at once")
        async with self.chunks() as chunks:
            return b"".join([chunk async for chunk in chunks])

    @asynccontextmanager
    async def as_file(self) -> AsyncGenerator[Path, None]:
        with tempfile.NamedTemporaryFile() as file:
            async with self.chunks() as chunks:
                async for chunk in chunks:
                    file.write(chunk)
            file.flush()
            yield Path(file.name)
