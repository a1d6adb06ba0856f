"""The contract suite finds what a delivery does wrong, and says which promise is broken."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import final

import pytest
import trio

from smtprecv.delivery import Attempt, Delivery
from smtprecv.message import Commit, DeliveryAnswer, Message
from smtprecv.protocol import Body, Recipient, Reply
from smtprecv.spool import Entry
from smtprecv.testing import check_delivery

OK, LATER, NEVER, ODD = Reply(250, "ok"), Reply(451, "later"), Reply(550, "never"), Reply(354, "go on")


@dataclass
class Memory:
    """A delivery that keeps its promises, into memory."""

    copies: list[bytes] = field(default_factory=list)
    done: set[tuple[str, Recipient]] = field(default_factory=set)

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        octets = await self.read(attempt.message)
        self.copies += [octets] * len(attempt.recipients)
        self.done |= {(attempt.queue_id, to) for to in attempt.recipients}
        return [OK] * len(attempt.recipients)

    async def read(self, message: Message) -> bytes:
        async with message.chunks() as chunks:
            return b"".join([chunk async for chunk in chunks])

    async def is_delivered(self, entry: Entry, recipient: Recipient) -> bool:
        return (entry.queue_id, recipient) in self.done

    async def all_copies(self) -> Sequence[bytes]:
        return self.copies


@final
class TooFew(Memory):
    """Replies once for all."""

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        return list(await super().deliver(attempt))[:1]


@final
class ToAll(Memory):
    """Serves those again who were served."""

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        await super().deliver(attempt)
        return [OK] * len(attempt.envelope.recipients)


@final
class AtOnce(Memory):
    """Reads a message at once."""

    async def read(self, message: Message) -> bytes:
        return await message.bytes()


@final
class Stripping(Memory):
    """Changes a message."""

    async def read(self, message: Message) -> bytes:
        return (await super().read(message)).strip()


@final
class Textual(Memory):
    """Takes binary octets, and changes them."""

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        replies = await super().deliver(attempt)
        self.copies[-1] = self.copies[-1].replace(b"\r\n", b"\n")
        return replies


@final
class Torn(Memory):
    """Leaves half a message where it is cancelled."""

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        self.copies.append(b"")
        async with attempt.message.chunks() as chunks:
            async for chunk in chunks:
                self.copies[-1] += chunk
        return [OK] * len(attempt.recipients)


@final
class Once(Memory):
    """Takes a message for delivered when it has begun."""

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        if attempt.queue_id not in {queue_id for queue_id, _ in self.done}:
            self.done |= {(attempt.queue_id, to) for to in attempt.recipients}
            await super().deliver(attempt)
        return [OK] * len(attempt.recipients)


@final
class Blaming(Memory):
    """Refuses for good what it cannot read."""

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        try:
            return await super().deliver(attempt)
        except Exception:
            return [NEVER] * len(attempt.recipients)


@final
class Forgetful(Memory):
    """Does not know what it has done."""

    async def is_delivered(self, entry: Entry, recipient: Recipient) -> bool:
        return False


@final
class Sloppy(Memory):
    """Knows a recipient, not a message."""

    async def is_delivered(self, entry: Entry, recipient: Recipient) -> bool:
        return any(recipient == to for _, to in self.done)


@final
class Alone(Memory):
    """Serves one at a time, and refuses the others."""

    is_busy: bool = False

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        if self.is_busy:
            return [LATER] * len(attempt.recipients)
        self.is_busy = True
        try:
            return await super().deliver(attempt)
        finally:
            self.is_busy = False


@final
class Lying(Memory):
    """Says yes, and does nothing."""

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        await trio.lowlevel.checkpoint()
        return [OK] * len(attempt.recipients)


@final
class Going(Memory):
    """Answers what is no answer."""

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        return [ODD] * len(attempt.recipients)


@final
class Refusing(Memory):
    """Has no place for binary octets, or for anything, and says so: that is allowed."""

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        if attempt.envelope.parameters.body is Body.BINARY_MIME:
            return [NEVER] * len(attempt.recipients)
        return await super().deliver(attempt)


@final
class Raising:
    """Has one method, and raises where the message cannot be read; nobody sees what arrives."""

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        async with attempt.message.chunks() as chunks:
            async for _ in chunks:
                pass
        return [OK] * len(attempt.recipients)


async def check(delivery: Memory) -> None:
    """Run the suite."""

    @asynccontextmanager
    async def opened() -> AsyncGenerator[Delivery, None]:
        yield delivery

    await check_delivery(opened, delivery.all_copies)


@pytest.mark.slow
@pytest.mark.parametrize("kind", [Memory, Refusing])
async def test_passes(kind: type[Memory]) -> None:
    """A delivery that keeps its promises passes."""
    await check(kind())


@pytest.mark.slow
async def test_passes_unseen() -> None:
    """A delivery with one method passes, without anybody to see what arrives."""

    @asynccontextmanager
    async def opened() -> AsyncGenerator[Delivery, None]:
        yield Raising()

    await check_delivery(opened)


class Table:
    """A delivery into an SQLite database."""

    def __init__(self) -> None:
        """Make the table."""
        self.connection = sqlite3.connect(":memory:", isolation_level=None)
        self.connection.execute("CREATE TABLE t (octets BLOB)")

    async def deliver(self, attempt: Attempt) -> Sequence[DeliveryAnswer]:
        async with attempt.message.chunks() as chunks:
            octets = b"".join([chunk async for chunk in chunks])
        await trio.lowlevel.checkpoint()
        return [Commit(partial(self.write, octets))] * len(attempt.recipients)

    def write(self, octets: bytes, connection: sqlite3.Connection) -> None:
        """Write a row."""
        connection.execute("INSERT INTO t VALUES (?)", (octets,))

    async def copies(self) -> Sequence[bytes]:
        """Give what was written."""
        return [octets for (octets,) in self.connection.execute("SELECT octets FROM t")]


@pytest.mark.slow
async def test_what_comes_as_a_commit_is_done() -> None:
    """A delivery into the spool's database passes with a connection to one, and is told that it needs it without."""
    table = Table()

    @asynccontextmanager
    async def opened() -> AsyncGenerator[Delivery, None]:
        yield table

    await check_delivery(opened, table.copies, connection=table.connection)
    with pytest.raises(AssertionError, match="needs a connection"):
        await check_delivery(opened, table.copies)
    table.connection.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("kind", "promise"),
    [
        (TooFew, "one reply for each pending recipient"),
        (ToAll, "only those are replied for that are pending"),
        (AtOnce, "it was asked for at once"),
        (Stripping, "a copy is not whole, or not what was sent"),
        (Textual, "binary octets are not changed"),
        (Torn, "cancelled"),
        (Once, "repeated after"),
        (Blaming, "a message that cannot be read is tried again"),
        (Forgetful, r"is_delivered\(\) after it"),
        (Sloppy, r"is_delivered\(\) before the delivery"),
        (Alone, "several messages at once"),
        (Lying, "0 copies have arrived"),
        (Going, "says nothing about a delivery"),
    ],
)
async def test_finds(kind: type[Memory], promise: str) -> None:
    """Each broken promise is found, and named."""
    with pytest.RaisesGroup(
        pytest.RaisesExc(AssertionError, match=promise), allow_unwrapped=True, flatten_subgroups=True
    ):
        await check(kind())
