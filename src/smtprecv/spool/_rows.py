"""The statements of the spool about messages: every one runs inside a job of the writer.

Its one rule: cost follows what is asked for. A page walks the index of the ids, and nothing walks the table.
What cannot be read is set aside with its reason and all its rows, so that it neither stops the queue nor is lost.
"""

from __future__ import annotations

import logging
import sqlite3
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from smtprecv.errors import CorruptEntry
from smtprecv.message import QueueId
from smtprecv.spool import _journal as journal
from smtprecv.spool._body import BodyFile, StoredBody
from smtprecv.spool._codec import (
    ENTRY_COLUMNS,
    MOVING_COLUMNS,
    STANDING_COLUMNS,
    Row,
    entry_row,
    has_moved_only,
    moving_row,
    read_entry,
    standing_row,
    storable,
)
from smtprecv.spool._entry import Entry
from smtprecv.spool._failure import reason
from smtprecv.spool._fields import read_number
from smtprecv.spool._queue_id import is_body_file
from smtprecv.spool._tried import Tried

_log: Final = logging.getLogger("smtprecv.spool")

_KEPT_COLUMNS: Final = f"number, {ENTRY_COLUMNS}, owner, was_claimed, body_file"
SELECT: Final = f"SELECT number, body_file, was_claimed, {ENTRY_COLUMNS} FROM smtprecv_message"
_ENTRY_MARKS: Final = ",".join("?" * len(ENTRY_COLUMNS.split(",")))
_STANDING_MARKS: Final = ",".join("?" * len(STANDING_COLUMNS.split(",")))
_INSERT_MESSAGE: Final = (
    f"INSERT INTO smtprecv_message (owner, was_claimed, body_file, {ENTRY_COLUMNS}) VALUES (?,?,?,{_ENTRY_MARKS})"
)
_UPDATE_MESSAGE: Final = (
    f"UPDATE smtprecv_message SET owner = NULL, ({ENTRY_COLUMNS}) = ({_ENTRY_MARKS}) WHERE number = ?"
)
_MOVING_MARKS: Final = ",".join("?" * len(MOVING_COLUMNS.split(",")))
_MOVE_MESSAGE: Final = f"UPDATE smtprecv_message SET ({MOVING_COLUMNS}) = ({_MOVING_MARKS}) WHERE number = ?"
_INSERT_RECIPIENT: Final = (
    f"INSERT INTO smtprecv_recipient (message, position, {STANDING_COLUMNS}) VALUES (?,?,{_STANDING_MARKS})"
)
_SELECT_RECIPIENTS: Final = (
    f"SELECT message, {STANDING_COLUMNS} FROM smtprecv_recipient WHERE message IN ({{}}) ORDER BY message, position"
)
_MANY: Final = 500
"""Messages that one query asks for: SQLite takes 999 parameters at the least."""
_NUMBER_CLAIMED: Final = "SELECT number FROM smtprecv_message WHERE id = ? AND owner = ?"
_SELECT_CLAIMED: Final = (
    "SELECT id, number, body_file, EXISTS (SELECT 1 FROM smtprecv_attempt WHERE message = number)"
    " FROM smtprecv_message WHERE owner = ? AND id IN ({})"
)
_SET_ASIDE: Final = (
    f"INSERT INTO smtprecv_corrupt ({_KEPT_COLUMNS}, reason)"
    f" SELECT {_KEPT_COLUMNS}, ? FROM smtprecv_message WHERE number = ?"
)


@final
@dataclass(frozen=True, slots=True)
class StoredEntry:
    """An entry with its body, as the rows have them. ``is_first``: nobody can have claimed it before."""

    entry: Entry
    body: StoredBody
    is_first: bool = True


def insert(connection: sqlite3.Connection, stored: StoredEntry, owner: str | None) -> None:
    """Add a message, claimed by ``owner`` or by nobody."""
    body = stored.body
    body_file = body.name if isinstance(body, BodyFile) else None
    first = (owner, was_claimed(stored, owner), body_file)
    cursor = connection.execute(_INSERT_MESSAGE, (*first, *entry_row(stored.entry)))
    number = cursor.lastrowid
    _insert_standings(connection, number, stored.entry)
    if not isinstance(body, BodyFile):
        connection.execute("INSERT INTO smtprecv_body (message, octets) VALUES (?, ?)", (number, body))


def was_claimed(stored: StoredEntry, owner: str | None) -> bool:
    """Say whether somebody has, or may have had, a claim on a message that is to be claimed by ``owner``."""
    return owner is not None or not stored.is_first


def _insert_standings(connection: sqlite3.Connection, number: object, entry: Entry) -> None:
    connection.executemany(
        _INSERT_RECIPIENT,
        [(number, position, *standing_row(standing)) for position, standing in enumerate(entry.standings)],
    )


def update(connection: sqlite3.Connection, entry: Entry, owner: str, tried: Tried | None) -> StoredBody | None:
    """Store what became of a message and end its claim; remove it if it is done, and give the body that it had."""
    if entry.is_done:
        return next(iter(remove_claimed(connection, [entry.queue_id], owner)), None)
    row = connection.execute(_NUMBER_CLAIMED, (entry.queue_id, owner)).fetchone()
    if row is None:
        _log.warning("%s is not claimed here: its outcome was not recorded", entry.queue_id)
        return None
    number = row[0]
    if tried is not None:
        journal.add(connection, number, tried)
    _put(connection, number, entry)
    return None


def remove_claimed(connection: sqlite3.Connection, queue_ids: Sequence[QueueId], owner: str) -> list[StoredBody]:
    """Remove messages that are claimed by ``owner``, and give the bodies that they had."""
    found: list[StoredBody] = []
    for start in range(0, len(queue_ids), _MANY):
        some = queue_ids[start : start + _MANY]
        query = _SELECT_CLAIMED.format(",".join("?" * len(some)))
        rows: list[Row] = connection.execute(query, (owner, *some)).fetchall()
        for queue_id in set(some).difference(row[0] for row in rows):
            _log.warning("%s is not claimed here: its outcome was not recorded", queue_id)
        _remove_all(connection, [row[1] for row in rows], has_journal=any(row[3] for row in rows))
        found += [_body(row[2]) for row in rows]
    return found


def change(
    connection: sqlite3.Connection, queue_ids: Sequence[QueueId], change_entry: Callable[[Entry], Entry | None]
) -> list[tuple[Entry, Entry | None, StoredBody | None]]:
    """Put what ``change_entry`` gives in the place of messages that nobody has claimed; give the bodies of the gone."""
    changes: list[tuple[Entry, Entry | None, StoredBody | None]] = []
    query = f"{SELECT} WHERE owner IS NULL AND id = ?"
    names = dict.fromkeys(queue_ids)
    rows = [row for queue_id in names for row in connection.execute(query, (queue_id,)).fetchall()]
    for row, before in _readable(connection, rows):
        after = change_entry(before)
        after = None if after is None or after.is_done else after
        if after is None:
            _remove_all(connection, [row[0]], has_journal=True)
        elif after is not before:
            _change(connection, row[0], before, after)
        changes.append((before, after, _body(row[1]) if after is None else None))
    return changes


def stored_body(connection: sqlite3.Connection, bodies: Path, queue_id: QueueId) -> tuple[StoredBody, int] | None:
    """Give the body of a message and its size, None where there is no such message; CorruptEntry if it is not whole."""
    query = "SELECT number, body_file, size FROM smtprecv_message WHERE id = ?"
    row = connection.execute(query, (queue_id,)).fetchone()
    if row is None:
        return None
    size = read_number(row[2])
    return body_of(connection, bodies, row[0], row[1], size), size


def count(connection: sqlite3.Connection) -> int:
    """Give the number of messages, by the shortest index there is."""
    number: object = connection.execute("SELECT count(*) FROM smtprecv_message").fetchone()[0]
    return number if isinstance(number, int) else 0


def _remove_all(connection: sqlite3.Connection, numbers: Sequence[object], *, has_journal: bool) -> None:
    """Remove messages, with what belongs to them; at most so many as one query asks for."""
    if has_journal:
        journal.remove(connection, numbers)
    marks = ",".join("?" * len(numbers))
    for table, column in (("body", "message"), ("recipient", "message"), ("message", "number")):
        connection.execute(f"DELETE FROM smtprecv_{table} WHERE {column} IN ({marks})", numbers)


def _body(body_file: object) -> StoredBody:
    return BodyFile(body_file) if is_body_file(body_file) else b""


def _put(connection: sqlite3.Connection, number: object, entry: Entry) -> None:
    """Store an entry in the place of another, claimed by nobody."""
    connection.execute(_UPDATE_MESSAGE, (*entry_row(entry), number))
    # A redirect changes how many recipients there are.
    connection.execute("DELETE FROM smtprecv_recipient WHERE message = ?", (number,))
    _insert_standings(connection, number, entry)


def _change(connection: sqlite3.Connection, number: object, before: Entry, after: Entry) -> None:
    """Store an entry in the place of ``before``; where only what moves differs, its client and recipients stay."""
    if has_moved_only(before, after):
        connection.execute(_MOVE_MESSAGE, (*moving_row(after), number))
    else:
        _put(connection, number, after)


def is_claimed(connection: sqlite3.Connection, queue_id: QueueId, owner: str) -> bool:
    """Say whether ``owner`` has a claim on a message."""
    return connection.execute(_NUMBER_CLAIMED, (queue_id, owner)).fetchone() is not None


def page(connection: sqlite3.Connection, after: QueueId, limit: int) -> list[Entry]:
    """Give the next entries by queue id. What cannot be read is passed over: this changes nothing."""
    entries: list[Entry] = []
    cursor = connection.execute(f"{SELECT} WHERE id > ? ORDER BY id", (after,))
    while len(entries) < limit and (rows := cursor.fetchmany(limit - len(entries))):
        entries += [entry for _, entry in _readable(connection, rows)]
    cursor.close()
    return entries


def find(connection: sqlite3.Connection, queue_ids: Sequence[QueueId]) -> list[Entry]:
    """Give the entries of these names, as far as they are there and can be read."""
    query = f"{SELECT} WHERE id = ?"
    names = sorted(set(queue_ids))
    rows = [row for queue_id in names for row in connection.execute(query, (queue_id,)).fetchall()]
    return [entry for _, entry in _readable(connection, rows)]


def faults(connection: sqlite3.Connection, bodies: Path, after: int, limit: int) -> tuple[list[str], int | None]:
    """Say what is wrong with the next messages behind the number ``after``; give the last number, None at the end."""
    found: list[str] = []
    query = f"{SELECT} WHERE number > ? ORDER BY number LIMIT ?"
    rows: list[Row] = connection.execute(query, (after, limit)).fetchall()
    for (number, body_file, _, *columns), standings in _with_standings(connection, rows):
        try:
            body_of(connection, bodies, number, body_file, read_entry(columns, standings).size)
        except CorruptEntry as error:
            found.append(f"{columns[0]}: {error}")
        found += [f"{columns[0]}: {fault}" for fault in journal.faults(connection, number)]
    return found, read_number(rows[-1][0]) if rows else None


def is_taken(connection: sqlite3.Connection, queue_id: QueueId) -> bool:
    """Say whether there is a message of this name, one that was set aside included."""
    query = "SELECT 1 FROM smtprecv_{} WHERE id = ?"
    return any(connection.execute(query.format(table), (queue_id,)).fetchone() for table in ("message", "corrupt"))


def is_named(connection: sqlite3.Connection, body_file: str) -> bool:
    """Say whether a row has this body file, a row set aside included."""
    queue_id = body_file.partition(".")[2]
    query = "SELECT body_file FROM smtprecv_{} WHERE id = ?"
    return any(
        (body_file,) in connection.execute(query.format(table), (queue_id,)).fetchall()
        for table in ("message", "corrupt")
    )


def _readable(connection: sqlite3.Connection, rows: Sequence[Row]) -> Iterator[tuple[Row, Entry]]:
    """Give the rows that can be read, each with its entry."""
    for row, standings in _with_standings(connection, rows):
        _, _, _, *columns = row
        try:
            yield row, read_entry(columns, standings)
        except CorruptEntry as error:
            _log.error("%s cannot be read: %s", columns[0], error)


def _with_standings(connection: sqlite3.Connection, rows: Sequence[Row]) -> Iterator[tuple[Row, Sequence[Row]]]:
    """Give each row with those of its recipients, which are asked for many messages at a time."""
    for start in range(0, len(rows), _MANY):
        some = rows[start : start + _MANY]
        standings: dict[object, list[Row]] = {row[0]: [] for row in some}
        query = _SELECT_RECIPIENTS.format(",".join("?" * len(some)))
        for number, *columns in connection.execute(query, [*standings]).fetchall():
            standings[number].append(columns)
        yield from ((row, standings[row[0]]) for row in some)


def entry_of(connection: sqlite3.Connection, number: object, columns: Row) -> Entry:
    """Read the entry of a row; CorruptEntry if that cannot be."""
    standings: list[Row] = connection.execute(_SELECT_RECIPIENTS.format("?"), (number,)).fetchall()
    return read_entry(columns, [row[1:] for row in standings])


def body_of(connection: sqlite3.Connection, bodies: Path, number: object, body_file: object, size: int) -> StoredBody:
    """Give the body of a row, looked at so far as it costs nothing: it is there and has its size."""
    if body_file is None:
        row = connection.execute("SELECT octets FROM smtprecv_body WHERE message = ?", (number,)).fetchone()
        octets: object = None if row is None else row[0]
        if isinstance(octets, bytes) and len(octets) == size:
            return octets
    elif is_body_file(body_file) and _file_size(bodies / body_file) == size:
        return BodyFile(body_file)
    msg = "its body is missing or not whole"
    raise CorruptEntry(msg)


def _file_size(path: Path) -> int | None:
    """Give the size of a file, None if there is none; CorruptEntry if it is the file that cannot be looked at."""
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    except PermissionError:
        raise  # the folder is closed: every message would seem to have lost its body
    except OSError as error:
        raise CorruptEntry(reason(error)) from error
    return status.st_size if stat.S_ISREG(status.st_mode) else None


def set_aside(connection: sqlite3.Connection, number: object, queue_id: object, error: CorruptEntry) -> None:
    """Move a message that cannot be read out of the way, with its reason; its recipients and its body stay."""
    _log.error("%s cannot be read and is set aside: %s", queue_id, error)
    connection.execute(_SET_ASIDE, (storable(str(error)), number))
    connection.execute("DELETE FROM smtprecv_message WHERE number = ?", (number,))
