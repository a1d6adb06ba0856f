"""The schema: made, migrated forward, and refused where it is not ours or newer than we are."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from ipaddress import ip_address
from pathlib import Path

import pytest
from tests.spool.spoolhouse import LATE, OK, accept, ask, bodies, opened

from smtprecv.delivery import Attempt
from smtprecv.errors import SpoolUnusable
from smtprecv.message import Client, SessionId
from smtprecv.protocol import Body, EnhancedStatus, MailParameters, RcptParameters, Reply, Session
from smtprecv.queue import run_once
from smtprecv.spool._schema import APPLICATION_ID, MIGRATIONS, prepare


def database(path: Path) -> sqlite3.Connection:
    """Connect as the spool does."""
    return sqlite3.connect(path / "queue.sqlite", isolation_level=None)


def version(connection: sqlite3.Connection) -> object:
    """Give the version and whose database it is."""
    return *connection.execute("PRAGMA user_version").fetchone(), *connection.execute(
        "PRAGMA application_id"
    ).fetchone()


def test_a_new_database(tmp_path: Path) -> None:
    """An empty file becomes a spool of the newest version, with full durability."""
    connection = database(tmp_path)
    prepare(connection)
    prepare(connection)
    assert version(connection) == (len(MIGRATIONS), APPLICATION_ID)
    names = ("journal_mode", "synchronous")
    assert [connection.execute(f"PRAGMA {name}").fetchone() for name in names] == [("wal",), (2,)]
    connection.close()


async def test_an_old_database_is_migrated(tmp_path: Path) -> None:
    """A database of an older version gets the migrations that it lacks, and keeps what is in it."""
    async with opened(tmp_path) as spool:
        entry = await accept(spool)
    newer = (
        *MIGRATIONS,
        ("ALTER TABLE smtprecv_message ADD COLUMN remark TEXT", "UPDATE smtprecv_message SET remark = 'n'"),
    )
    connection = database(tmp_path)
    prepare(connection, newer)
    assert connection.execute("SELECT id, remark FROM smtprecv_message").fetchall() == [(entry.queue_id, "n")]
    assert version(connection) == (len(newer), APPLICATION_ID)
    connection.close()


async def test_a_newer_database_is_refused(tmp_path: Path) -> None:
    """A database of a newer version is refused with a clear line, and left as it is."""
    async with opened(tmp_path):
        pass
    ask(tmp_path, "PRAGMA user_version = 99")
    with pytest.raises(SpoolUnusable, match=rf"of a newer version \(99; this program knows up to {len(MIGRATIONS)}\)"):
        async with opened(tmp_path):
            pass
    assert ask(tmp_path, "PRAGMA user_version") == [(99,)]
    assert list((tmp_path / "owners").iterdir()) == []


def test_a_migration_that_fails_changes_nothing(tmp_path: Path) -> None:
    """A migration is all or nothing, and may be tried again."""
    connection = database(tmp_path)
    with pytest.raises(sqlite3.OperationalError):
        prepare(connection, (*MIGRATIONS, ("CREATE TABLE extra (n)", "no SQL")))
    assert version(connection) == (0, 0)
    prepare(connection)
    assert version(connection) == (len(MIGRATIONS), APPLICATION_ID)
    connection.close()


def test_a_migration_that_the_disk_ends(tmp_path: Path) -> None:
    """Where SQLite has rolled back already, the error is told as it is."""
    connection = database(tmp_path)
    with pytest.raises(sqlite3.OperationalError, match="syntax error"):
        prepare(connection, (("ROLLBACK", "no SQL"),))
    connection.close()


async def test_another_database_is_refused(tmp_path: Path) -> None:
    """Somebody else's SQLite database is not touched."""
    ask(tmp_path, "CREATE TABLE theirs (n)")
    with pytest.raises(SpoolUnusable, match="not a mail queue"):
        async with opened(tmp_path):
            pass
    assert ask(tmp_path, "SELECT name FROM sqlite_master") == [("theirs",)]


def test_no_write_ahead_log() -> None:
    """Where SQLite cannot keep a write-ahead log, the database is refused."""
    connection = sqlite3.connect(":memory:", isolation_level=None)
    with pytest.raises(SpoolUnusable, match="write-ahead log"):
        prepare(connection)
    connection.close()


async def test_claims_walk_the_index(tmp_path: Path) -> None:
    """Claiming, the next due time, a page and the claims of the dead are all found by an index, not by a scan."""
    async with opened(tmp_path) as spool:
        await accept(spool)
        await spool.claim(LATE, 1)
    queries = {
        "SELECT id FROM message WHERE owner IS NULL AND held = 0 AND priority = 0 AND due > 0 ORDER BY due": "v_due",
        "SELECT max(priority) FROM message WHERE owner IS NULL AND held = 0 AND priority < 9": "smtprecv_due",
        "SELECT min(due) FROM message WHERE owner IS NULL AND held = 0 AND priority = 0 AND due <= 1": "smtprecv_due",
        "SELECT DISTINCT owner FROM message WHERE owner IS NOT NULL": "smtprecv_owner",
        "SELECT number FROM message WHERE owner IS NULL AND held = 0 AND priority = 0 AND due IS NULL AND number > 5"
        " ORDER BY number": "smtprecv_due (priority=? AND due=? AND rowid>?)",
        "SELECT number FROM message WHERE owner IS NULL AND held = 0 AND priority = 0 AND due > 1": "smtprecv_due",
        "UPDATE message SET owner = NULL WHERE owner = 'x'": "smtprecv_owner",
        "UPDATE message SET owner = NULL WHERE owner IS NOT NULL AND owner NOT IN ('x')": "smtprecv_owner",
        "SELECT * FROM message WHERE id > 'x' ORDER BY id": "sqlite_autoindex_smtprecv_message_1",
    }
    for query, index in queries.items():
        named = query.replace(" message ", " smtprecv_message ")
        plan = ask(tmp_path, f"EXPLAIN QUERY PLAN {named}")
        assert [index in str(step[3]) for step in plan] == [True], plan


CLIENT = Client(
    SessionId("5f0c9a1e21"),
    ip_address("192.0.2.7"),
    40000,
    Session("mail.example.net", is_extended=True),
    host="mail.example.net",
    local_address=ip_address("192.0.2.25"),
    local_port=25,
)
BODY_FILE = "b44dgng7atktjo0u.01jikka2g00001b44dgn"
LARGE = b"Subject: large\r\n\r\n" + b"0123456789\r\n" * 10


def make_version_1(path: Path) -> None:
    """Make the queue that the rows of version 1 stand for, as the program of that version left it."""
    (path / "bodies").mkdir(mode=0o700, parents=True)
    (path / "bodies" / BODY_FILE).write_bytes(LARGE)
    connection = database(path)
    prepare(connection, MIGRATIONS[:1])
    assert version(connection) == (1, APPLICATION_ID)
    connection.executescript(Path(__file__).with_name("version_1.sql").read_text())
    connection.close()


async def test_mail_of_version_1(tmp_path: Path) -> None:
    """A queue of version 1 is opened, its mail read as it was, delivered, and gone; what had failed is still there."""
    make_version_1(tmp_path)
    delivered: list[tuple[str, str, bytes]] = []

    class Deliver:
        """Notes what it is given."""

        async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
            entry = attempt.entry
            assert (entry.client, entry.attempts) == (CLIENT, 1 if entry.note else 0)
            assert entry.envelope.parameters == MailParameters(entry.size, Body.EIGHT_BIT_MIME)
            assert {to.parameters for to in attempt.recipients} == {RcptParameters()}
            [to] = attempt.recipients
            delivered.append((str(to), str(to.original), await attempt.message.bytes()))
            return [OK]

    async with opened(tmp_path) as spool:
        report = await run_once(spool, Deliver(), now=lambda: LATE)
        [left] = await spool.entries()

    assert (report.delivered, report.deferred, report.failed) == (2, 0, 0)
    assert sorted(delivered) == [
        ("ben@example.net", "None", LARGE),
        ("carla@example.net", "staff@example.net", b"Subject: one\r\n\r\none\r\n"),
    ]
    refusal = Reply(550, "nobody of that name", EnhancedStatus(5, 1, 1))
    assert [(str(each.recipient), each.last) for each in left.standings] == [("nobody@example.net", refusal)]
    assert bodies(tmp_path) == []
    assert ask(tmp_path, "PRAGMA user_version") == [(len(MIGRATIONS),)]


async def test_rows_of_version_1_are_set_aside_whole(tmp_path: Path) -> None:
    """What cannot be read is set aside from a migrated queue as from a new one."""
    make_version_1(tmp_path)
    ask(tmp_path, "UPDATE message SET parameters = '{}' WHERE number = 1")
    async with opened(tmp_path) as spool:
        assert len(await spool.claim(LATE, 9)) == 1
    assert ask(tmp_path, "SELECT number, priority FROM smtprecv_corrupt") == [(1, 0)]
