"""The public API as its users write it: checked by mypy and pyright in strict mode, never run."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import assert_type

import trio

from smtprecv import (
    Attempt,
    Backoff,
    Client,
    Delivery,
    DeliveryCheck,
    EnhancedStatus,
    Entry,
    Envelope,
    Limits,
    Policy,
    QueueId,
    Rcpt,
    Recipient,
    Reply,
    RetryPolicy,
    Server,
    Spool,
    SpoolIntake,
    listen,
    open_spool,
    run_queue,
)
from smtprecv.protocol import Config, Connection, Event, Rejected, Signal


class Rows:
    """A delivery that a user writes: no base class, one method more than it must have."""

    async def deliver(self, attempt: Attempt) -> list[Reply]:
        """Look at all that an attempt has."""
        assert_type(attempt.queue_id, QueueId)
        assert_type(attempt.recipients, tuple[Recipient, ...])
        assert_type(attempt.envelope, Envelope)
        assert_type(await attempt.message.bytes(), bytes)
        async with attempt.message.chunks() as chunks:
            async for chunk in chunks:
                assert_type(chunk, bytes)
        return [Reply(250, "stored", EnhancedStatus(2, 0, 0)) for _ in attempt.recipients]

    async def is_delivered(self, entry: Entry, recipient: Recipient) -> bool:
        """Tell what was done before."""
        return bool(entry.attempts and recipient)


class Ours:
    """A policy with one hook."""

    async def rcpt(self, client: Client, envelope: Envelope, rcpt: Rcpt) -> Reply:
        """Take mail for one domain."""
        is_ours = str(rcpt.forward_path.mailbox.domain) == "example.com"
        return (
            Reply(250, "ok")
            if is_ours or client.session.identity
            else Reply(550, f"not after {len(envelope.recipients)}")
        )


class Hourly:
    """A retry policy."""

    def next_attempt(
        self, queue_id: QueueId, attempts: int, received: dt.datetime, now: dt.datetime
    ) -> dt.datetime | None:
        """Try every hour."""
        return now + dt.timedelta(hours=1) if queue_id and attempts < 10 and received < now else None


delivery: Delivery = Rows()
check: DeliveryCheck = Rows()
policy: Policy = Ours()
retry: RetryPolicy = Hourly()
backoff: RetryPolicy = Backoff(first=dt.timedelta(seconds=1))


async def program() -> None:
    """Put everything together."""
    async with open_spool("queue") as spool, trio.open_nursery() as nursery:
        opened: Spool = spool
        nursery.start_soon(run_queue, opened, Rows(), Hourly())
        server = Server(
            SpoolIntake(spool), config=Config("mx.example.com"), policy=Ours(), limits=Limits(max_errors=10)
        )
        listeners = await listen("127.0.0.1:0")
        assert_type(listeners, list[trio.SocketListener])
        await nursery.start(server.serve, listeners)
        server.drain(grace=5)


def drive(connection: Connection, octets: bytes) -> Sequence[Event]:
    """Drive the protocol core from another library."""
    connection.receive_data(octets)
    events: list[Event] = []
    while True:
        match connection.next_event():
            case Signal.NEED_DATA | Signal.PAUSED:
                return events
            case Rejected(reply=reply) as event:
                events.append(event)
                assert_type(connection.send(reply), bytes)
            case event:
                events.append(event)


assert_type(drive(Connection(Config("mx.example.com")), b""), Sequence[Event])
