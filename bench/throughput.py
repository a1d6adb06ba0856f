"""Three numbers that are watched, each per second: octets of mail data, transactions of the core, messages accepted.

`python bench/throughput.py [FOLDER]`: the spool is made in a new folder inside FOLDER, and its number is that disk's.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import trio

from smtprecv import Client, Envelope, ForwardPath, Recipient, Reply, ReversePath, SessionId, Spool, open_spool, utc_now
from smtprecv.protocol import Config, Connection, ConnectionClosed, Data, Domain, Mailbox, MailData, Signal

LINE = b"x" * 73 + b"\r\n"
ENVELOPE_LINES = b"MAIL FROM:<anna@example.com>\r\nRCPT TO:<ben@example.org>\r\nDATA\r\n"
TRANSACTION = ENVELOPE_LINES + b"Subject: hello\r\n\r\n" + LINE + b".\r\n"
BEN = Mailbox("ben", Domain("example.org"))
ENVELOPE = Envelope(ReversePath(None), recipients=(Recipient(ForwardPath(BEN)),))
SESSIONS = 50


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


def acceptances(folder: Path, count: int) -> None:
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


def rate(work: Callable[[int], None], amount: int) -> tuple[float, float]:
    """Give how much is done per second, and the microseconds of CPU for one."""
    began, began_cpu = time.perf_counter(), time.process_time()
    work(amount)
    return amount / (time.perf_counter() - began), (time.process_time() - began_cpu) / amount * 1e6


def main(parent: str | None = None) -> None:
    """Print the numbers."""
    octets, _ = rate(mail_data, 256 * 1024 * 1024)
    print(f"mail data     {octets / 2**20:8.0f} MiB/s")
    count, cpu = rate(transactions, 20_000)
    print(f"transactions  {count:8.0f} /s     {cpu:6.1f} µs of CPU each")
    with tempfile.TemporaryDirectory(dir=parent) as folder:
        count, cpu = rate(partial(acceptances, Path(folder, "queue")), 10_000)
    print(f"accepted      {count:8.0f} /s     {cpu:6.1f} µs of CPU each")


if __name__ == "__main__":
    main(*sys.argv[1:2])
