"""The tables of the spool, and how an old database becomes a new one.

The database's ``user_version`` says which migrations it has had; they only go forward, and a newer one is refused.
Times are microseconds since 1970 in UTC. The numbers of messages are never used twice (AUTOINCREMENT),
so the recipients and the body of a message that was set aside stay where they are, with no foreign key to say no.
Every name begins with ``smtprecv_``, so that a program may keep tables of its own beside them.
Cost follows what is due: one index has what nobody has claimed or holds, by priority, the other what is claimed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Final, TypeAlias

from smtprecv.errors import SpoolUnusable

APPLICATION_ID: Final = 0x736D7470
"""Tells a spool from other SQLite databases: ``smtp``."""

_STRICT: Final = "STRICT" if sqlite3.sqlite_version_info >= (3, 37) else ""
_AND_STRICT: Final = f", {_STRICT}" if _STRICT else ""

_MESSAGE_COLUMNS: Final = """
    id TEXT NOT NULL UNIQUE,
    received INTEGER NOT NULL,
    due INTEGER,
    attempted INTEGER,
    owner TEXT,
    was_claimed INTEGER NOT NULL,
    size INTEGER NOT NULL,
    body_file TEXT,
    reverse_path TEXT NOT NULL,
    parameters TEXT NOT NULL,
    client TEXT NOT NULL,
    error TEXT,
    note_version INTEGER,
    note TEXT
"""

Migration: TypeAlias = Sequence[str]

MIGRATIONS: Final[Sequence[Migration]] = (
    (
        f"CREATE TABLE message (number INTEGER PRIMARY KEY AUTOINCREMENT, {_MESSAGE_COLUMNS}) {_STRICT}",
        f"""
        CREATE TABLE recipient (
            message INTEGER NOT NULL,
            position INTEGER NOT NULL,
            forward_path TEXT NOT NULL,
            original TEXT,
            status TEXT NOT NULL,
            attempts INTEGER NOT NULL,
            reply_code INTEGER,
            reply_status TEXT,
            reply_text TEXT,
            PRIMARY KEY (message, position)
        ) WITHOUT ROWID {_AND_STRICT}
        """,
        f"CREATE TABLE body (message INTEGER PRIMARY KEY, octets BLOB NOT NULL) {_STRICT}",
        f"CREATE TABLE corrupt (number INTEGER PRIMARY KEY, {_MESSAGE_COLUMNS}, reason TEXT NOT NULL) {_STRICT}",
        "CREATE INDEX message_due ON message (due) WHERE owner IS NULL",
        "CREATE INDEX message_owner ON message (owner) WHERE owner IS NOT NULL",
    ),
    (
        "ALTER TABLE message ADD COLUMN priority INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE corrupt ADD COLUMN priority INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE recipient ADD COLUMN parameters TEXT",
        "DROP INDEX message_due",
        "CREATE INDEX message_due ON message (priority, due) WHERE owner IS NULL",
    ),
    (
        "ALTER TABLE message ADD COLUMN warned INTEGER",
        "ALTER TABLE message ADD COLUMN report_of TEXT",
        "ALTER TABLE corrupt ADD COLUMN warned INTEGER",
        "ALTER TABLE corrupt ADD COLUMN report_of TEXT",
    ),
    (
        "ALTER TABLE message ADD COLUMN held INTEGER NOT NULL DEFAULT 0",
        "ALTER TABLE corrupt ADD COLUMN held INTEGER NOT NULL DEFAULT 0",
        "DROP INDEX message_due",
        "CREATE INDEX message_due ON message (priority, due) WHERE owner IS NULL AND held = 0",
    ),
    (
        *(f"ALTER TABLE {table} RENAME TO smtprecv_{table}" for table in ("message", "recipient", "body", "corrupt")),
        "DROP INDEX message_due",
        "DROP INDEX message_owner",
        "CREATE INDEX smtprecv_due ON smtprecv_message (priority, due) WHERE owner IS NULL AND held = 0",
        "CREATE INDEX smtprecv_owner ON smtprecv_message (owner) WHERE owner IS NOT NULL",
    ),
    (
        f"""
        CREATE TABLE smtprecv_attempt (
            message INTEGER NOT NULL,
            position INTEGER NOT NULL,
            started INTEGER NOT NULL,
            took INTEGER NOT NULL,
            recipients INTEGER NOT NULL,
            answers TEXT NOT NULL,
            error TEXT,
            PRIMARY KEY (message, position)
        ) WITHOUT ROWID {_AND_STRICT}
        """,
    ),
)
"""The migration at index n makes a database of version n one of version n + 1."""

_SETTINGS: Final = (
    "PRAGMA synchronous = FULL",
    "PRAGMA mmap_size = 0",
    "PRAGMA temp_store = MEMORY",
)


def prepare(connection: sqlite3.Connection, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Set the connection up and bring its database to the newest version.

    SpoolUnusable for a database that is not a spool's, or of a version that ``migrations`` do not
    reach: nothing is changed in either. SpoolUnusable too where SQLite cannot use a write-ahead log.
    """
    version = _known_version(connection, len(migrations))
    set_up(connection)
    if version == len(migrations):
        return
    connection.execute("BEGIN IMMEDIATE")
    try:
        for migration in migrations[version:]:
            for statement in migration:
                connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {len(migrations)}")
        connection.execute("COMMIT")
    except sqlite3.Error:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def set_up(connection: sqlite3.Connection) -> None:
    """Have the connection write as the spool does; SpoolUnusable where SQLite cannot use a write-ahead log."""
    if connection.execute("PRAGMA journal_mode = WAL").fetchone() != ("wal",):
        msg = "SQLite cannot keep a write-ahead log here"
        raise SpoolUnusable(msg)
    for setting in _SETTINGS:
        connection.execute(setting).fetchall()


def _known_version(connection: sqlite3.Connection, newest: int) -> int:
    application_id = _number(connection, "PRAGMA application_id")
    version = _number(connection, "PRAGMA user_version")
    if application_id != APPLICATION_ID and _number(connection, "SELECT count(*) FROM sqlite_master") > 0:
        msg = "the database is not a mail queue"
        raise SpoolUnusable(msg)
    if version > newest:
        msg = f"the queue is of a newer version ({version}; this program knows up to {newest})"
        raise SpoolUnusable(msg)
    return version


def _number(connection: sqlite3.Connection, query: str) -> int:
    number: object = connection.execute(query).fetchone()[0]
    return number if isinstance(number, int) else 0


def bound_log(connection: sqlite3.Connection, size: int) -> None:
    """Have a COMMIT that finds more octets than ``size`` in the write-ahead log bring them back into the database.

    The log is then written over from its start: a file that does not change its size is synced without the journal of
    the file system. It is cut only when it has become much larger, behind the first commit of a log that was begun
    anew, when its new header is durable: cut before that, the octets of its beginning might outlive those of its end,
    and a part of what was there would count once more.
    """
    pages = max(1, size // _number(connection, "PRAGMA page_size"))
    connection.execute(f"PRAGMA wal_autocheckpoint = {pages}").fetchall()
    connection.execute(f"PRAGMA journal_size_limit = {2 * size}").fetchall()
