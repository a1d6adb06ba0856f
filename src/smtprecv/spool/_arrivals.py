"""Taking messages in: all that belongs to many of them, with one statement.

The theory. In the writer's thread each statement lets go of the interpreter, and has to get it back from the event
loop: that costs more than what SQLite does meanwhile. So the row of a message, its recipient and its body are one row
of a view, whose trigger puts them where they belong; and one statement is a transaction by itself. View and trigger
are this connection's own: nothing of them stands in the database. A message with several recipients goes the common
way.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from typing import Final, TypeAlias

from smtprecv.spool import _rows as rows
from smtprecv.spool._body import BodyFile
from smtprecv.spool._codec import ENTRY_COLUMNS, STANDING_COLUMNS, Value, entry_row, standing_row
from smtprecv.spool._jobs import Transaction

Arrival: TypeAlias = tuple[rows.StoredEntry, str | None]
"""A message, and the owner that claims it at birth, if one does."""

_MESSAGE: Final = f"owner, was_claimed, body_file, {ENTRY_COLUMNS}".split(", ")
_STANDING: Final = [f"first_{column}" for column in STANDING_COLUMNS.split(", ")]
_COLUMNS: Final = [*_MESSAGE, *_STANDING, "octets"]
_MARKS: Final = f"({','.join('?' * len(_COLUMNS))})"
_PARAMETERS: Final = 32_766 if sqlite3.sqlite_version_info >= (3, 32) else 999
"""How many a statement may have."""
_AT_ONCE: Final = min(50, _PARAMETERS // len(_COLUMNS))
"""Messages of one statement; each number of them is a statement of its own for SQLite, and kept."""

_PREPARE: Final = (
    f"CREATE TEMP VIEW smtprecv_arrival AS SELECT {', '.join(f'NULL AS {column}' for column in _COLUMNS)}",
    f"""
    CREATE TEMP TRIGGER smtprecv_arrived INSTEAD OF INSERT ON smtprecv_arrival BEGIN
        INSERT INTO smtprecv_message ({", ".join(_MESSAGE)})
            VALUES (new.{", new.".join(_MESSAGE)});
        -- The number of a message is that of its body, too: both statements below find it, with a body or without.
        INSERT INTO smtprecv_body (message, octets)
            SELECT last_insert_rowid(), new.octets WHERE new.body_file IS NULL;
        INSERT INTO smtprecv_recipient (message, position, {STANDING_COLUMNS})
            VALUES (last_insert_rowid(), 0, new.{", new.".join(_STANDING)});
    END
    """,
)


def prepare_arrivals(connection: sqlite3.Connection) -> None:
    """Make the view and its trigger, for this connection."""
    for statement in _PREPARE:
        connection.execute(statement)


def is_one_statement(arrivals: Sequence[Arrival]) -> bool:
    """Say whether these messages are taken in with one statement."""
    return len(arrivals) <= _AT_ONCE and all(len(stored.entry.standings) == 1 for stored, _ in arrivals)


def insert_all(transaction: Transaction, arrivals: Sequence[Arrival]) -> None:
    """Add messages, each claimed by its owner or by nobody."""
    connection = transaction.connection
    singles = [_row(stored, owner) for stored, owner in arrivals if len(stored.entry.standings) == 1]
    for start in range(0, len(singles), _AT_ONCE):
        some = singles[start : start + _AT_ONCE]
        connection.execute(_insert(len(some)), [value for row in some for value in row])
    for stored, owner in arrivals:
        if len(stored.entry.standings) != 1:
            rows.insert(connection, stored, owner)


def _row(stored: rows.StoredEntry, owner: str | None) -> tuple[Value, ...]:
    name, octets = (stored.body.name, None) if isinstance(stored.body, BodyFile) else (None, stored.body)
    standing = standing_row(stored.entry.standings[0])
    return owner, rows.was_claimed(stored, owner), name, *entry_row(stored.entry), *standing, octets


@lru_cache(maxsize=_AT_ONCE)
def _insert(count: int) -> str:
    return "INSERT INTO smtprecv_arrival VALUES " + ",".join([_MARKS] * count)
