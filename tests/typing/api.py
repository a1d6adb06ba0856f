"""The public API as its users write it: checked by mypy and pyright in strict mode, never run.

A comment that lets an error pass is an error itself where there is none: so it shows what the checkers refuse.
"""

# pyright: reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import assert_type

import trio
import trio.testing

from smtprecv import (
    All,
    Attempt,
    AuthPolicy,
    Backoff,
    Bounces,
    Client,
    ClientLookup,
    Command,
    Commit,
    Delivery,
    DeliveryAnswer,
    DeliveryCheck,
    Dnsbl,
    EnhancedStatus,
    Entry,
    Envelope,
    External,
    ForwardPath,
    Hello,
    Ident,
    Identity,
    Limits,
    Listener,
    Mail,
    Maildir,
    Mbox,
    Message,
    Networks,
    Password,
    PasswordFile,
    Policy,
    QueueId,
    Rate,
    Rcpt,
    RcptPolicy,
    Recipient,
    Redirect,
    Relay,
    Reply,
    RetryPolicy,
    ReverseDns,
    Route,
    Router,
    ScramKeys,
    ScramPolicy,
    Server,
    Spool,
    SpoolIntake,
    Standing,
    Status,
    TransactionalSpool,
    Webhook,
    listen,
    load_delivery,
    on_authenticate,
    on_mail,
    on_rcpt,
    open_spool,
    run_once,
    run_queue,
    utc_now,
)
from smtprecv.control import Order, Result, Selection, Verdict, flush, hold, redirect, select, steer
from smtprecv.moving import Arrival, Departure, Exported, Imported, export_message, import_message, pairs_in
from smtprecv.protocol import Config, Connection, Event, Rejected, Signal
from smtprecv.sasl import CREDENTIALS_INVALID, SaslError, ScramStart, advance, mechanisms


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


class Everything:
    """A policy with every hook, whose parameters are named as its author likes."""

    async def connect(self, client: Client) -> Reply:
        """Look at who connects."""
        return Reply(220, str(client.address))

    async def hello(self, client: Client, greeting: Hello) -> Reply:
        """Look at the client's name."""
        return Reply(250, greeting.domain)

    async def mail(self, _: Client, sender: Mail) -> Reply:
        """Look at the sender."""
        return Reply(250, str(sender.reverse_path))

    async def rcpt(self, _: Client, so_far: Envelope, recipient: Rcpt) -> Reply | Redirect:
        """Send mail elsewhere."""
        return Redirect.to("anna@example.com") if so_far.recipients else Redirect((recipient.forward_path,))

    async def data(self, client: Client, envelope: Envelope) -> Reply:
        """Look at the envelope."""
        assert_type([recipient.original for recipient in envelope.recipients], list[ForwardPath | None])
        return Reply(250, "go on")

    async def message(self, client: Client, envelope: Envelope, message: Message) -> Reply:
        """Look at the message."""
        async with message.as_file() as path:
            assert_type(path, Path)
        return Reply(250, f"{message.size} octets")


class Directory:
    """A policy that knows who clients are."""

    async def authenticate(self, client: Client, brought: Password | External) -> Identity | Reply:
        """Ask somebody else."""
        match brought:
            case Password(user, password, authorization) if password and authorization in {"", user}:
                return Identity(user)
            case External(name):
                return Identity(name)
            case _:
                return CREDENTIALS_INVALID

    async def scram_keys(self, client: Client, user: str) -> ScramKeys | None:
        """Keep keys."""
        return ScramKeys.derive("secret", salt=b"0123456789abcdef") if user == "anna" else None


class Nothing:
    """An object without a hook."""


@on_rcpt
async def only_ours(client: Client, envelope: Envelope, rcpt: Rcpt) -> Reply:
    """Take mail for one person."""
    return Reply(250 if rcpt.forward_path.is_postmaster else 550, "as you see")


async def no_bounces(client: Client, mail: Mail) -> Reply:
    """Take no bounces."""
    return Reply(550 if mail.reverse_path.is_null else 250, "as you see")


async def by_certificate(client: Client, credentials: Password | External) -> Identity | Reply:
    """Know nobody without a certificate."""
    return Identity(credentials.name) if isinstance(credentials, External) else CREDENTIALS_INVALID


async def without_client(mail: Mail) -> Reply:
    """Lack a parameter."""
    return Reply(250, str(mail.reverse_path))


async def yes(client: Client, mail: Mail) -> bool:
    """Answer with what is no reply."""
    return mail.reverse_path.is_null


class Known:
    """A lookup that a user writes."""

    async def look_up(self, client: Client) -> str | None:
        """Know one's own."""
        return "localhost" if client.address and client.address.is_loopback else None


class Hourly:
    """A retry policy."""

    def next_attempt(
        self, queue_id: QueueId, attempts: int, received: dt.datetime, now: dt.datetime
    ) -> dt.datetime | None:
        """Try every hour."""
        return now + dt.timedelta(hours=1) if queue_id and attempts < 10 and received < now else None


class Tickets:
    """A delivery into the spool's own database."""

    async def deliver(self, attempt: Attempt) -> list[DeliveryAnswer]:
        """Write a row for each recipient."""
        return [Commit(partial(write, attempt.key(recipient))) for recipient in attempt.recipients]


def write(key: str, connection: sqlite3.Connection) -> None:
    """Write a row."""
    connection.execute("INSERT INTO ticket VALUES (?)", (key,))


async def write_later(connection: sqlite3.Connection) -> None:
    """Write when it is too late."""
    write("key", connection)


tickets: Delivery = Tickets()
Commit(lambda connection: write("key", connection), Reply(250, "a ticket"))
Commit(write_later)  # type: ignore[arg-type]
delivery: Delivery = Rows()
check: DeliveryCheck = Rows()
deliveries: list[Delivery] = [
    Maildir("mail/{address}"),
    Mbox("mail/{local_part}", lock_timeout=5),
    Command("filter", "{recipient}", timeout=60, concurrency=2),
    Webhook("https://hook.example/", format="json", per="message", allowed=Networks.of("192.0.2.0/24")),
    Router(Route(Rows(), "example.com"), Route(Rows(), lambda entry, recipient: entry.size > 9 and bool(recipient))),
    load_delivery("module:name"),
]
Webhook("https://hook.example/", format="xml")  # type: ignore[arg-type]
Router(Rows())  # type: ignore[arg-type]
policies: list[Policy] = [
    Ours(),
    only_ours,
    on_mail(no_bounces),
    Everything(),
    Directory(),
    PasswordFile("users"),
    on_authenticate(by_certificate),
    All(Ours(), only_ours, on_mail(no_bounces), All(Everything())),
    Dnsbl("bl.example.org", "zen.example.org=127.0.0.2-11", nameservers=["192.0.2.53"], timeout=2),
]
assert_type(only_ours, RcptPolicy)
authenticator: AuthPolicy = Directory()
keeper: ScramPolicy = Directory()
on_authenticate(no_bounces)  # type: ignore[arg-type]
on_mail(without_client)  # type: ignore[arg-type]
on_mail(yes)  # type: ignore[arg-type]
on_rcpt(no_bounces)  # type: ignore[arg-type]
All(Ours(), Nothing())  # type: ignore[arg-type]
lookups: list[ClientLookup] = [Known(), ReverseDns(nameservers=["192.0.2.53"]), Ident(timeout=1)]
retry: RetryPolicy = Hourly()
backoff: RetryPolicy = Backoff(first=dt.timedelta(seconds=1))


async def program() -> None:
    """Put everything together."""
    async with open_spool("queue") as spool, trio.open_nursery() as nursery:
        opened: Spool = spool
        assert_type(spool, TransactionalSpool)
        assert_type(await spool.transact(lambda connection: connection.total_changes), int)
        await spool.transact(partial(write, "key"))
        nursery.start_soon(run_queue, spool, tickets)
        nursery.start_soon(run_queue, opened, Rows(), Hourly())
        server = Server(
            SpoolIntake(spool),
            config=Config("mx.example.com"),
            policy=Ours(),
            limits=Limits(max_errors=10, connection_rate=Rate(60, seconds=60)),
        )
        listeners = await listen("127.0.0.1:0")
        assert_type(listeners, list[Listener])
        await nursery.start(server.serve, listeners)
        server.drain(grace=5)
        await Server(SpoolIntake(spool), host_lookup=Known(), max_messages=1).talk(trio.testing.memory_stream_pair()[0])


async def with_reports(spool: Spool) -> None:
    """Tell senders what failed."""
    bounces = Bounces(Relay("smtp.example.com", 25), hostname="mx.example.com", warn_after=dt.timedelta(hours=1))
    report = await run_once(spool, Rows(), bounces=bounces)
    assert_type(report.delivered, int)
    await run_queue(spool, Rows(), bounces=Rows())  # type: ignore[arg-type]


async def steered(spool: Spool) -> list[Verdict]:
    """Steer a queue."""
    chosen = Selection(domains=frozenset({"example.net"}), statuses=frozenset({Status.FAILED}))
    orders: list[Order] = [hold, flush(utc_now()), redirect(Redirect.to("anna@example.com"), utc_now()), drop_large]
    verdicts: list[Verdict] = []
    for order in orders:
        async for result in steer(spool, chosen, order, limit=10, dry_run=True):
            assert_type(result, Result)
            verdicts.append(result.verdict)
    async for entry in select(spool, chosen):
        assert_type(entry, Entry)
    steer(spool, chosen, select)  # type: ignore[arg-type]
    return verdicts


def drop_large(entry: Entry, chosen: Callable[[Standing], bool]) -> Entry | None:
    """Be an order that a user writes."""
    return None if entry.size > 9 and all(map(chosen, entry.standings)) else entry


async def moved(spool: Spool, other: Spool, queue_id: QueueId) -> bool:
    """Move messages from one queue to another."""
    exported = await export_message(spool, queue_id, "out", remove=True)
    assert_type(exported, Exported)
    for path in await pairs_in(Path("out")):
        imported = await import_message(other, path, hold=True, remove=True)
        assert_type(imported, Imported)
        if imported.outcome is Arrival.REFUSED:
            assert_type(imported.reason, str | None)
    return exported.outcome is Departure.EXPORTED


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


def lead(mechanism: str, nonce: str, keys: ScramKeys) -> Identity | Password | External | Reply:
    """Lead an exchange of one response from another library."""
    try:
        exchange = mechanisms("client.example.com")[mechanism]()
        advance(exchange)
        match advance(exchange, b"response"):
            case Password() | External() as credentials:
                return credentials
            case ScramStart() as start:
                rest = start.proceed(keys, nonce=nonce)
                assert_type(advance(rest), bytes | Identity)
                return Identity(start.user)
            case challenge:
                assert_type(challenge, bytes)
                return Reply(334, challenge.decode())
    except SaslError as error:
        return error.reply


assert_type(drive(Connection(Config("mx.example.com")), b""), Sequence[Event])
