"""From the end of data into a real spool, and out of it again."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import trio
from tests.server.harness import CLIENT

from smtprecv.protocol import Envelope, Recipient, parse_forward_path, parse_reverse_path
from smtprecv.server import SpoolIntake
from smtprecv.spool import open_spool

EPOCH = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
ENVELOPE = Envelope(parse_reverse_path("a@example.com"), recipients=(Recipient(parse_forward_path("b@example.com")),))


async def test_what_is_committed_is_in_the_spool_under_the_id_that_was_told(tmp_path: Path) -> None:
    """The 250 names the queue id; the entry has the client, the envelope, and when the data began."""
    async with open_spool(tmp_path / "queue") as spool:
        incoming = await SpoolIntake(spool, now=lambda: EPOCH).begin(CLIENT)
        await incoming.write(b"one\r\n")
        await incoming.write(b"two\r\n")

        [reply] = await incoming.commit(CLIENT, ENVELOPE)

        [entry] = await spool.entries()
        [claim] = await spool.claim(EPOCH, 10)
        assert str(reply) == f"250 2.0.0 queued as {entry.queue_id}"
        assert (entry.received, entry.client, entry.envelope) == (EPOCH, CLIENT, ENVELOPE)
        assert await claim.message.bytes() == b"one\r\ntwo\r\n"


async def test_what_is_aborted_is_nowhere(tmp_path: Path) -> None:
    """An abort leaves no entry, and may come twice."""
    async with open_spool(tmp_path / "queue") as spool:
        incoming = await SpoolIntake(spool).begin(CLIENT)
        await incoming.write(b"x" * 1_000_000)
        await incoming.abort()
        await incoming.abort()

        assert await spool.entries() == []
    assert list((tmp_path / "queue" / "bodies").iterdir()) == []


async def test_what_arrives_can_be_read_before_it_is_taken(tmp_path: Path) -> None:
    """A policy may look at all of a message, small or large; refused afterwards, it leaves nothing."""
    async with open_spool(tmp_path / "queue") as spool:
        for octets in (b"small\r\n", b"x" * 1_000_000):
            incoming = await SpoolIntake(spool).begin(CLIENT)
            await incoming.write(octets)
            message = await incoming.message()

            assert (message.size, await message.bytes()) == (len(octets), octets)
            await incoming.abort()

        assert await spool.entries() == []
    assert list((tmp_path / "queue" / "bodies").iterdir()) == []


async def test_many_clients_commit_at_once(tmp_path: Path) -> None:
    """Commits are grouped, and each has an entry of its own."""
    async with open_spool(tmp_path / "queue") as spool:
        intake = SpoolIntake(spool)

        async def send() -> None:
            incoming = await intake.begin(CLIENT)
            await incoming.write(b"x")
            await incoming.commit(CLIENT, ENVELOPE)

        async with trio.open_nursery() as nursery:
            for _ in range(50):
                nursery.start_soon(send)

        assert len({entry.queue_id for entry in await spool.entries()}) == 50
