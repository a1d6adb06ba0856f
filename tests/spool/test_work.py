"""Functions of the program's in the spool's transactions: they fail alone, and cannot reach out of it."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, suppress
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from typing import TypeAlias

import pytest
import trio
from tests.spool.spoolhouse import Disk, accept, opened

from smtprecv.errors import SpoolError, SpoolFull
from smtprecv.spool import SpoolOptions, TransactionalSpool
from smtprecv.spool._options import connect

Authorizer: TypeAlias = Callable[[int, str | None, str | None, str | None, str | None], int]

CONTEXT: ContextVar[int] = ContextVar("CONTEXT")

HELD: list[sqlite3.Cursor] = []
"""What a function has kept."""


@asynccontextmanager
async def house(path: Path, options: SpoolOptions | None = None) -> AsyncGenerator[TransactionalSpool, None]:
    """Have a spool with a table of ours in it."""
    async with opened(path, options) as spool:
        await spool.transact(lambda c: c.execute("CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY)"))
        yield spool


def put(number: int, connection: sqlite3.Connection) -> None:
    """Write one number."""
    connection.execute("INSERT INTO t VALUES (?)", (number,))


def numbers(connection: sqlite3.Connection) -> list[int]:
    """Read them all."""
    return [number for (number,) in connection.execute("SELECT n FROM t ORDER BY n")]


async def test_a_transaction_of_the_programs_is_durable(tmp_path: Path) -> None:
    """What a function wrote is there after a restart, beside the messages; what it gave back is given."""
    async with house(tmp_path) as spool:
        entry = await accept(spool)
        await spool.transact(partial(put, 1))
        assert isinstance(spool, TransactionalSpool)
    async with house(tmp_path) as spool:
        assert await spool.transact(numbers) == [1]
        assert (await spool.entries(), await spool.verify()) == ([entry], [])


async def test_a_function_sees_the_context_of_who_asked(tmp_path: Path) -> None:
    """Also where it shares a transaction with another's."""
    seen: dict[int, int] = {}

    async def ask(number: int) -> None:
        CONTEXT.set(number)
        await spool.transact(lambda _: seen.__setitem__(number, CONTEXT.get()))

    async with house(tmp_path) as spool, trio.open_nursery() as nursery:
        for number in range(5):
            nursery.start_soon(ask, number)
    assert seen == {number: number for number in range(5)}


async def test_readers_see_what_is_committed(tmp_path: Path) -> None:
    """A connection with mode=ro sees each transaction when `transact` has returned, and keeps out nobody."""
    async with house(tmp_path) as spool:
        reader = sqlite3.connect(f"{spool.database.as_uri()}?mode=ro", uri=True)
        for count in (1, 2, 3):
            await spool.transact(partial(put, count))
            assert numbers(reader) == list(range(1, count + 1))
        with pytest.raises(sqlite3.OperationalError, match="readonly"):
            put(4, reader)
        reader.close()


async def test_an_error_is_the_functions_own(tmp_path: Path) -> None:
    """What a function raises is raised to its caller as it is, and all that it did is undone."""

    class OddError(Exception):
        pass

    error = OddError("no")

    def fail(connection: sqlite3.Connection) -> None:
        put(1, connection)
        raise error from ValueError("why")

    async with house(tmp_path) as spool:
        with pytest.raises(OddError) as raised:
            await spool.transact(fail)
        assert (raised.value, type(raised.value.__cause__)) == (error, ValueError)
        await spool.transact(partial(put, 1))
        with pytest.raises(sqlite3.IntegrityError):
            await spool.transact(partial(put, 1))
        assert await spool.transact(numbers) == [1]


def commit(connection: sqlite3.Connection) -> None:
    """Commit as a program does that has a connection of its own."""
    connection.commit()


def with_block(connection: sqlite3.Connection) -> None:
    """Use the connection as a block, which ends in a COMMIT."""
    with connection:
        put(7, connection)


def swallow(connection: sqlite3.Connection) -> None:
    """Try to commit, and do not mind."""
    put(7, connection)
    with suppress(sqlite3.DatabaseError):
        connection.execute("COMMIT")


def lose(connection: sqlite3.Connection) -> None:
    """Roll the whole transaction back, and go on."""
    try:
        connection.execute("INSERT OR ROLLBACK INTO t VALUES (0)")
    except sqlite3.IntegrityError:
        put(7, connection)


def set_mode(connection: sqlite3.Connection) -> None:
    """Change when the connection begins transactions."""
    connection.isolation_level = "IMMEDIATE"


def set_mode_and_fail(connection: sqlite3.Connection) -> None:
    """Change it, and raise as well."""
    set_mode(connection)
    msg = "behind it"
    raise ValueError(msg)


def run_script(connection: sqlite3.Connection) -> None:
    """Run several statements at once, which begins with a COMMIT."""
    connection.executescript("INSERT INTO t VALUES (7); INSERT INTO t VALUES (8)")


def close(connection: sqlite3.Connection) -> None:
    """Close what is not ours."""
    put(7, connection)
    connection.close()


def keep_writing(connection: sqlite3.Connection) -> None:
    """Leave a statement that writes under way."""
    HELD.append(connection.execute("INSERT INTO t VALUES (7), (8) RETURNING n"))
    HELD[-1].fetchone()


async def write(connection: sqlite3.Connection) -> None:
    """Do it later."""
    put(7, connection)


async def write_slowly(connection: sqlite3.Connection) -> AsyncIterator[int]:
    """Do it later, bit by bit."""
    put(7, connection)
    yield 7


def write_lazily(connection: sqlite3.Connection) -> Iterator[int]:
    """Do it when it is asked for."""
    put(7, connection)
    yield 7


def statement(text: str) -> Callable[[sqlite3.Connection], object]:
    """Give a function that runs one statement."""
    return lambda connection: connection.execute(text).fetchall()


BAD: dict[str, tuple[Callable[[sqlite3.Connection], object], str]] = {
    "commit": (commit, "may not begin or end a transaction"),
    "with": (with_block, "may not begin or end a transaction"),
    "script": (run_script, "may not begin or end a transaction"),
    "COMMIT": (statement("COMMIT"), "may not begin or end a transaction"),
    "ROLLBACK": (statement("ROLLBACK"), "may not begin or end a transaction"),
    "SAVEPOINT": (statement("SAVEPOINT job"), "may not begin or end a transaction"),
    "swallowed": (swallow, "may not begin or end a transaction"),
    "ATTACH": (statement("ATTACH ':memory:' AS other"), "not atomic"),
    "DETACH": (statement("DETACH main"), "not atomic"),
    "TEMP": (statement("CREATE TEMP TABLE smtprecv (n)"), "temporary"),
    "PRAGMA": (statement("PRAGMA synchronous = OFF"), "may not use PRAGMA synchronous"),
    "version": (statement("PRAGMA user_version = 99"), "may not use PRAGMA user_version"),
    "INSERT": (statement("DELETE FROM Smtprecv_Message"), "the tables of the spool"),
    "DROP": (statement("DROP TABLE smtprecv_body"), "the tables of the spool"),
    "ALTER": (statement("ALTER TABLE smtprecv_body ADD COLUMN n"), "the tables of the spool"),
    "TRIGGER": (
        statement("CREATE TRIGGER b AFTER INSERT ON smtprecv_message BEGIN DELETE FROM t; END"),
        "the tables of the spool",
    ),
    "lost": (lose, "may not go on when its transaction has ended"),
    "or rollback": (statement("INSERT OR ROLLBACK INTO t VALUES (0)"), "UNIQUE"),
    "mode": (set_mode, "may not change how the connection begins transactions"),
    "mode, raised": (set_mode_and_fail, "behind it"),
    "close": (close, "closed"),
    "kept": (keep_writing, "in progress"),
    "coroutine": (write, "gave a coroutine back"),
    "async generator": (write_slowly, "gave a async_generator back"),
    "generator": (write_lazily, "gave a generator back"),
    "cursor": (lambda connection: connection.execute("SELECT n FROM t"), "gave a Cursor back"),
}
"""What a function may not do, and what it is told."""


@pytest.mark.parametrize("name", BAD)
async def test_what_is_refused(name: str, tmp_path: Path) -> None:
    """A function that does what it may not is told so, alone: the others of its group are committed, once."""
    work, told = BAD[name]
    async with house(tmp_path) as spool:
        await spool.transact(partial(put, 0))
        errors: list[Exception] = []

        async def try_it() -> None:
            try:
                await spool.transact(work)
            except Exception as error:
                errors.append(error)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(spool.transact, partial(put, 1))
            nursery.start_soon(try_it)
            nursery.start_soon(accept, spool)
            nursery.start_soon(spool.transact, partial(put, 2))
        HELD.clear()
        assert [told in str(error) for error in errors] == [True]
        assert not isinstance(errors[0], SpoolError)
        assert await spool.transact(numbers) == [0, 1, 2]
        assert (len(await spool.entries()), await spool.verify()) == (1, [])


GOOD = (
    "CREATE TABLE u (a INTEGER PRIMARY KEY AUTOINCREMENT, b)",
    "CREATE INDEX v ON u (b)",
    "CREATE VIEW w AS SELECT * FROM u",
    "CREATE TRIGGER x AFTER INSERT ON u BEGIN INSERT INTO t VALUES (new.a + 100); END",
    "INSERT INTO u (b) VALUES (1)",
    "WITH RECURSIVE z (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM z WHERE n < 3) SELECT count(*) FROM z, t, w",
    "PRAGMA table_info(u)",
    "SELECT count(*) FROM smtprecv_message",
    "UPDATE u SET b = upper(b)",
    "DELETE FROM u",
    "ALTER TABLE u ADD COLUMN c",
    "ALTER TABLE u RENAME TO y",
    "DROP VIEW IF EXISTS w",
    "DROP TABLE y",
)


async def test_what_is_allowed(tmp_path: Path) -> None:
    """With tables of its own a program may do whatever SQL can, and settings that it leaves behind are put back."""

    def by_name(connection: sqlite3.Connection) -> object:
        connection.row_factory = sqlite3.Row
        connection.text_factory = bytes
        return connection.execute("SELECT n, 'a' AS text FROM t").fetchone()["text"]

    async with house(tmp_path) as spool:
        for text in GOOD:
            await spool.transact(statement(text))
        assert await spool.transact(by_name) == b"a"
        assert await spool.transact(numbers) == [101]
        await accept(spool)
        assert await spool.verify() == []


async def test_a_query_that_is_left_unread(tmp_path: Path) -> None:
    """A function that keeps a cursor, against what it was told, holds the spool up once, and not for good."""
    kept: list[sqlite3.Cursor] = []

    def keep(connection: sqlite3.Connection) -> None:
        connection.executemany("INSERT INTO t VALUES (?)", [(1,), (2,), (3,)])
        kept.append(connection.execute("SELECT n FROM t"))
        kept[0].fetchone()

    async with house(tmp_path) as spool, opened(tmp_path) as other:
        await spool.transact(keep)
        await accept(other)
        with pytest.raises(SpoolError, match="locked"):
            await accept(spool)
        await accept(spool)
        assert await spool.transact(numbers) == [1, 2, 3]
        assert await spool.count() == 2


async def test_no_room(tmp_path: Path) -> None:
    """Below the reserve, which is for outcomes, a transaction of the program's is SpoolFull."""
    disk = Disk()
    async with house(tmp_path, disk.options()) as spool:
        disk.room = 0
        with pytest.raises(SpoolFull):
            await spool.transact(partial(put, 1))
        disk.room = 1 << 40
        await spool.transact(partial(put, 1))
        assert await spool.transact(numbers) == [1]


async def test_a_commit_that_fails(tmp_path: Path) -> None:
    """Where the transaction fails as a whole, nothing was done, and that is the spool's failure: SpoolError."""
    disk = Disk()
    async with house(tmp_path, disk.options()) as spool:
        disk.failing["COMMIT"] = sqlite3.SQLITE_IOERR
        with pytest.raises(SpoolError, match="COMMIT failed"):
            await spool.transact(partial(put, 1))
        disk.failing.clear()
        assert await spool.transact(numbers) == []


async def test_who_asks_for_no_function_pays_nothing(tmp_path: Path) -> None:
    """SQLite prepares its statements anew for a function's sake alone: without one there is no authorizer."""
    authorizers: list[Authorizer | None] = []

    class Connection(sqlite3.Connection):
        def set_authorizer(self, authorizer_callback: Authorizer | None) -> None:
            authorizers.append(authorizer_callback)
            super().set_authorizer(authorizer_callback)

    def watched(database: Path) -> sqlite3.Connection:
        return connect(database, Connection)

    async with opened(tmp_path, SpoolOptions(connect=watched)) as spool:
        await accept(spool)
        assert authorizers == []
        await spool.transact(statement("SELECT 1"))
        assert (len(authorizers), authorizers[-1]) == (2, None)
