"""The parts alone, in one process: octets and transactions through the protocol core, commits through the spool."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import trio
from bench.book import CPU_OF_ONE, PER_SECOND, THROUGHPUT, Book
from bench.load import MB

from smtprecv import Client, Envelope, ForwardPath, Recipient, Reply, ReversePath, SessionId, Spool, open_spool, utc_now
from smtprecv.protocol import Config, Connection, ConnectionClosed, Data, Domain, Mailbox, MailData, Signal

LINE: Final = b"x" * 73 + b"\r\n"
ENVELOPE_LINES: Final = b"MAIL FROM:<anna@example.com>\r\nRCPT TO:<ben@example.org>\r\nDATA\r\n"
TRANSACTION: Final = ENVELOPE_LINES + b"Subject: hello\r\n\r\n" + LINE + b".\r\n"
BEN: Final = Mailbox("ben", Domain("example.org"))
ENVELOPE: Final = Envelope(ReversePath(None), recipients=(Recipient(ForwardPath(BEN)),))
SESSIONS: Final = 50
OCTETS: Final = 256 * MB
TRANSACTIONS: Final = 20_000
MESSAGES: Final = 10_000


def drive(connection: Connection, octets: bytes) -> None:
    """Give the core some input, and say yes to all that it asks."""
    connection.receive_data(octets)
    while not isinstance(event := connection.next_event(), Signal):
        match event:
            case MailData() | ConnectionClosed():
                pass
            case Data():
                connection.send(Reply(354, "go on"))
            case _:
                connection.send(Reply(250, "ok"))


def greeted() -> Connection:
    """Give a session after EHLO."""
    connection = Connection(Config("mx.example.com", max_message_size=2**40))
    drive(connection, b"EHLO client.example.com\r\n")
    return connection


def mail_data(size: int) -> None:
    """Read one message, 64 KiB at a time."""
    connection = greeted()
    drive(connection, ENVELOPE_LINES)
    piece = LINE * (65536 // len(LINE))
    for _ in range(size // len(piece)):
        drive(connection, piece)


def transactions(count: int) -> None:
    """Hold small transactions, each in one piece."""
    connection = greeted()
    for _ in range(count):
        drive(connection, TRANSACTION)


def commits(folder: Path, count: int) -> None:
    """Accept messages into a new spool."""
    trio.run(accept_many, folder, count)


async def accept_many(folder: Path, count: int) -> None:
    """Accept messages of 4 KiB in as many tasks as a busy server has."""
    async with open_spool(folder) as spool, trio.open_nursery() as nursery:
        for _ in range(SESSIONS):
            nursery.start_soon(accept, spool, count // SESSIONS)


async def accept(spool: Spool, count: int) -> None:
    """Accept one message after the other."""
    for _ in range(count):
        draft = await spool.begin(utc_now())
        await draft.write(LINE * 55)
        await draft.commit(Client(SessionId("bench"), None, None), ENVELOPE, utc_now())


def rate(work: Callable[[int], None], amount: int) -> Mapping[str, float]:
    """Give how much is done per second, and the microseconds of CPU for one."""
    began, began_cpu = time.perf_counter(), time.process_time()
    work(amount)
    took, cpu = time.perf_counter() - began, time.process_time() - began_cpu
    return {PER_SECOND: amount / took, CPU_OF_ONE: cpu / amount * 1e6}


def measure(book: Book, folder: str | None, runs: int) -> None:
    """Measure each so often."""
    for _ in range(runs):
        book.add("micro", "DATA", "core", {THROUGHPUT: rate(mail_data, OCTETS)[PER_SECOND] / MB})
        book.add("micro", "transactions", "core", rate(transactions, TRANSACTIONS))
        with tempfile.TemporaryDirectory(dir=folder) as temporary:
            book.add("micro", "commits", "spool", rate(partial(commits, Path(temporary, "queue")), MESSAGES))
