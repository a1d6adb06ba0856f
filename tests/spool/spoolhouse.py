"""What the tests of the spool share: messages, a spool whose work runs on the spot, disks that fail."""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TypeVar

import trio

from smtprecv.message import Client, SessionId
from smtprecv.protocol import Domain, Envelope, ForwardPath, Mailbox, Recipient, Reply, ReversePath
from smtprecv.spool import Claim, Entry, Spool, SpoolOptions, TransactionalSpool, open_spool
from smtprecv.spool._options import connect

T = TypeVar("T")

NOON = dt.datetime(2026, 3, 1, 12, tzinfo=dt.UTC)
LATE = NOON + dt.timedelta(days=30)
CLIENT = Client(SessionId("s1"), None, None)
ENVELOPE = Envelope(
    ReversePath(Mailbox("ada", Domain("example.com"))),
    recipients=tuple(Recipient(ForwardPath(Mailbox(name, Domain("example.net")))) for name in ("b", "c")),
)
OK = Reply(250, "taken")
SMALL = b"Subject: s\r\n\r\nsmall\r\n"
LARGE = b"x" * 99_998 + b"\r\n"


async def on_the_spot(work: Callable[[], T], /) -> T:
    """Run what blocks without a thread: MockClock takes a task that waits for one as idle."""
    await trio.lowlevel.checkpoint()
    return work()


def opened(path: Path, options: SpoolOptions | None = None) -> AbstractAsyncContextManager[TransactionalSpool]:
    """Open a spool that needs no thread."""
    return open_spool(path, run_in_thread=on_the_spot, options=options)


async def accept(spool: Spool, octets: bytes = SMALL, received: dt.datetime = NOON) -> Entry:
    """Accept one message."""
    draft = await spool.begin(received)
    try:
        await draft.write(octets)
        return await draft.commit(CLIENT, ENVELOPE, received)
    finally:
        await draft.abort()


async def finish(spool: Spool, claim: Claim) -> None:
    """Record that every recipient was served."""
    await spool.record(claim.entry.after([OK] * len(claim.entry.pending), NOON))


def names(path: Path) -> list[str]:
    """Give the names in a folder, in order."""
    return sorted(file.name for file in path.iterdir())


def bodies(path: Path) -> list[str]:
    """Give the names in the folder of large bodies."""
    return names(path / "bodies")


def ask(path: Path, query: str, *values: object) -> list[tuple[object, ...]]:
    """Ask the database of a spool that is closed, or change it."""
    connection = sqlite3.connect(path / "queue.sqlite", isolation_level=None)
    rows: list[tuple[object, ...]] = connection.execute(query, values).fetchall()
    connection.close()
    return rows


class Disk:
    """A disk that fails when it is told to: a statement that begins with `failing` raises `error`."""

    def __init__(self) -> None:
        """Begin sound, with plenty of room."""
        self.failing: dict[str, int] = {}
        self.room = 1 << 40
        self.statements: list[str] = []
        self.connections = 0

    def connect(self, database: Path) -> sqlite3.Connection:
        """Connect to the database through this disk."""
        disk = self
        disk.connections += 1

        class Connection(sqlite3.Connection):
            """A connection that asks the disk first."""

            def execute(self, statement: str, *values: object) -> sqlite3.Cursor:
                """Run the statement, or fail as the disk was told."""
                disk.statements.append(statement)
                for beginning, code in disk.failing.items():
                    if statement.startswith(beginning):
                        error = sqlite3.OperationalError(f"{beginning} failed")
                        error.sqlite_errorcode = code
                        raise error
                return super().execute(statement, *values)  # type: ignore[arg-type]

        return connect(database, Connection)

    def options(self, **changes: object) -> SpoolOptions:
        """Give options with which a spool uses this disk."""
        return SpoolOptions(connect=self.connect, free_size=lambda _: self.room, **changes)  # type: ignore[arg-type]
