"""A program that delivers into its spool's database, for tests/crash/test_exactly_once.py to kill.

`storing.py step QUEUE`: accepts a message and delivers it in each of many processes, of which the n-th dies at its n-th
step: before each statement, and around the delivery and what it writes. The first that lives to its end is the last.
`storing.py load QUEUE`: accepts and delivers until it is killed. `storing.py end QUEUE`: delivers what there is, and
ends. Each says `accepted ID`, one line for each message.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import count
from pathlib import Path
from typing import TypeVar

import trio

from smtprecv import (
    Attempt,
    Bounces,
    Client,
    Commit,
    DeliveryAnswer,
    Envelope,
    Recipient,
    Reply,
    SessionId,
    SpoolOptions,
    TransactionalSpool,
    open_spool,
    run_once,
    run_queue,
    utc_now,
)
from smtprecv.protocol import parse_forward_path, parse_reverse_path
from smtprecv.spool._options import connect

T = TypeVar("T")
NAMES = ("b", "c")
DIED = 9


class Steps:
    """Counts the steps of a process, and ends it at one of them."""

    def __init__(self, last: int) -> None:
        """Die at the step ``last`` once they are counted."""
        self.last = last
        self.left = 0

    def begin(self) -> None:
        """Count from now on."""
        self.left = self.last

    def take(self) -> None:
        """Take a step, or die as a process does that is killed: nothing is flushed, closed or given back."""
        self.left -= 1
        if self.left == 0:
            os._exit(DIED)

    def connect(self, database: Path) -> sqlite3.Connection:
        """Connect so that there is a step before each statement: behind it is before the next."""
        steps = self

        class Connection(sqlite3.Connection):
            def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
                steps.take()
                # The process dies, and not the system: nothing need be synced.
                return super().execute(statement.replace("= FULL", "= OFF"), *values)  # type: ignore[arg-type]

        return connect(database, Connection)


class Storing:
    """A delivery that writes a row for each recipient but those called ``never``."""

    def __init__(self, steps: Steps) -> None:
        """Take steps."""
        self.steps = steps

    async def deliver(self, attempt: Attempt) -> Sequence[DeliveryAnswer]:
        self.steps.take()
        answers = [self.answer(attempt, recipient) for recipient in attempt.recipients]
        await trio.lowlevel.checkpoint()
        self.steps.take()
        return answers

    def answer(self, attempt: Attempt, recipient: Recipient) -> DeliveryAnswer:
        """DeliveryAnswer for one recipient."""
        if recipient.forward_path.mailbox.local_part == "never":
            return Reply(550, "never")
        return Commit(partial(self.write, attempt.key(recipient), attempt.queue_id))

    def write(self, key: str, queue_id: str, connection: sqlite3.Connection) -> None:
        """Write one row."""
        self.steps.take()
        connection.execute("INSERT INTO box VALUES (?, ?)", (key, queue_id))
        self.steps.take()


class Reports:
    """Takes reports, and counts them in the same way."""

    async def deliver(self, attempt: Attempt) -> Sequence[DeliveryAnswer]:
        await trio.lowlevel.checkpoint()
        return [Commit(partial(self.write, str(attempt.entry.report_of)))]

    def write(self, queue_id: str, connection: sqlite3.Connection) -> None:
        """Write one row."""
        connection.execute("INSERT INTO report VALUES (?)", (queue_id,))


async def on_the_spot(work: Callable[[], T], /) -> T:
    """Run what blocks without a thread: a process that forks must have none."""
    await trio.lowlevel.checkpoint()
    return work()


async def accept(spool: TransactionalSpool, *names: str) -> None:
    """Accept a message, and say so when that is durable."""
    recipients = tuple(Recipient(parse_forward_path(f"{name}@example.com")) for name in names)
    draft = await spool.begin(utc_now())
    await draft.write(b"Subject: x\r\n\r\n")
    envelope = Envelope(parse_reverse_path("a@example.com"), recipients=recipients)
    entry = await draft.commit(Client(SessionId("s"), None, None), envelope, utc_now())
    os.write(1, f"accepted {entry.queue_id}\n".encode())


async def make_tables(spool: TransactionalSpool) -> None:
    """Make the program's tables."""
    await spool.transact(lambda c: c.execute("CREATE TABLE IF NOT EXISTS box (key TEXT, id TEXT)"))
    await spool.transact(lambda c: c.execute("CREATE TABLE IF NOT EXISTS report (id TEXT)"))


async def step(queue: Path, last: int) -> None:
    """Accept a message and deliver whatever there is, so far as the steps reach."""
    steps = Steps(last)
    delivery, bounces = Storing(steps), Bounces(Reports(), "mx.example.com")
    async with open_spool(queue, run_in_thread=on_the_spot, options=SpoolOptions(connect=steps.connect)) as spool:
        await make_tables(spool)
        steps.begin()
        await accept(spool, *NAMES, *(["never"] if last % 2 else []))
        while entries := await spool.entries():
            await run_once(spool, delivery, ids=[entry.queue_id for entry in entries], bounces=bounces)


async def load(queue: Path) -> None:
    """Accept and deliver, many at a time, for as long as it is not killed."""
    async with open_spool(queue) as spool, trio.open_nursery() as nursery:
        await make_tables(spool)
        nursery.start_soon(partial(run_queue, bounces=Bounces(Reports(), "mx.example.com")), spool, Storing(Steps(0)))
        for number in range(8):
            nursery.start_soon(keep_accepting, spool, number)


async def keep_accepting(spool: TransactionalSpool, number: int) -> None:
    """Accept one message after the other."""
    names = (*NAMES, "never") if number % 2 else NAMES
    while True:
        await accept(spool, *names)


def main(mode: str, queue: Path) -> None:
    """Do as the command line says."""
    if mode == "load":
        trio.run(load, queue)
    if mode == "end":
        trio.run(step, queue, 0)
        return
    for last in count(1):
        child = os.fork()
        if child == 0:
            trio.run(step, queue, last)
            os._exit(0)
        if os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) != DIED:
            break


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
