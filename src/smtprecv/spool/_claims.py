"""The statements of the spool about claims: every one runs inside a job of the writer.

Its one rule: cost follows what is due. A claim walks the index of what is due, with one look for each priority that
there is, and nothing walks the table, nor what has failed. What cannot be read is set aside when it is claimed.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

from smtprecv.errors import CorruptEntry
from smtprecv.message import QueueId
from smtprecv.spool._codec import EARLIEST, LATEST, Row
from smtprecv.spool._entry import Entry, Status
from smtprecv.spool._rows import SELECT, StoredEntry, body_of, entry_of, set_aside

_ABOVE_ALL: Final = 1 << 62
"""Above every priority."""
_NEXT_PRIORITY: Final = "SELECT max(priority) FROM smtprecv_message WHERE owner IS NULL AND held = 0 AND priority < ?"
_OF_PRIORITY: Final = "owner IS NULL AND held = 0 AND priority = ?"
_DUE: Final = f"{SELECT} WHERE {_OF_PRIORITY} AND due IS NOT NULL AND due <= ? ORDER BY due, number LIMIT ?"
_NEXT_DUE: Final = f"SELECT min(due) FROM smtprecv_message WHERE {_OF_PRIORITY} AND due <= ?"
_TOO_LATE: Final = f"{SELECT} WHERE {_OF_PRIORITY} AND due > ?"
_NEVER_DUE: Final = f"{_OF_PRIORITY} AND due IS NULL AND number > ?"
_LOOK: Final = (
    "SELECT count(*), max(number)"
    f" FROM (SELECT number FROM smtprecv_message WHERE {_NEVER_DUE} ORDER BY number LIMIT ?)"
)
_LOOK_SIZE: Final = 2000
"""Messages that are never due, of one priority, that are looked at in one turn."""
_LOST: Final = (
    f"{SELECT} WHERE {_NEVER_DUE} AND number <= ? AND EXISTS"
    " (SELECT 1 FROM smtprecv_recipient WHERE message = number AND status NOT IN (?, ?, ?))"
)


def claim_due(connection: sqlite3.Connection, bodies: Path, owner: str, now: int, limit: int) -> list[StoredEntry]:
    """Claim what is due, the highest priority first. What cannot be read is set aside and does not count."""
    claimed: list[StoredEntry] = []
    for priority in _priorities(connection):
        while rows := connection.execute(_DUE, (priority, now, limit - len(claimed))).fetchall():
            claimed += _claim(connection, bodies, owner, rows)
        if len(claimed) == limit:
            break
    return claimed


def _priorities(connection: sqlite3.Connection) -> Iterator[int]:
    """Give the priorities of what nobody has claimed, from the highest, with one look into the index for each."""
    priority: object = _ABOVE_ALL
    while isinstance(priority := connection.execute(_NEXT_PRIORITY, (priority,)).fetchone()[0], int):
        yield priority


def claim_named(
    connection: sqlite3.Connection, bodies: Path, owner: str, queue_ids: Sequence[QueueId]
) -> list[StoredEntry]:
    """Claim messages by name, as far as nobody has; recipients that failed are pending again."""
    claimed: list[StoredEntry] = []
    for queue_id in queue_ids:
        rows = connection.execute(f"{SELECT} WHERE owner IS NULL AND id = ?", (queue_id,)).fetchall()
        for stored in _claim(connection, bodies, owner, rows):
            entry = _revived(stored.entry)
            if entry != stored.entry:
                _revive(connection, entry)
            claimed.append(replace(stored, entry=entry))
    return claimed


def give_back(connection: sqlite3.Connection, owner: str, queue_ids: Sequence[QueueId]) -> None:
    """End claims; nothing else changes."""
    query = "UPDATE smtprecv_message SET owner = NULL WHERE id = ? AND owner = ?"
    connection.executemany(query, [(queue_id, owner) for queue_id in queue_ids])


def give_back_all(connection: sqlite3.Connection, owner: str) -> None:
    """End all claims of an owner."""
    connection.execute("UPDATE smtprecv_message SET owner = NULL WHERE owner = ?", (owner,))


def void(connection: sqlite3.Connection, is_alive: Callable[[object], bool]) -> int:
    """Void the claims of dead owners; give their number."""
    owners: list[Row] = connection.execute(
        "SELECT DISTINCT owner FROM smtprecv_message WHERE owner IS NOT NULL"
    ).fetchall()
    living = [owner for (owner,) in owners if is_alive(owner)]
    if len(living) == len(owners):
        return 0
    places = ",".join("?" * len(living))
    statement = f"UPDATE smtprecv_message SET owner = NULL WHERE owner IS NOT NULL AND owner NOT IN ({places})"
    return connection.execute(statement, living).rowcount


def set_lost_aside(connection: sqlite3.Connection, after: int) -> int:
    """Set aside what no claim would ever meet: never due though a recipient waits, or due behind the end of time.

    There may be a million that have failed and are rightly never due. So of these only so many are looked at, behind
    the number ``after``; give the number behind which to go on the next time, 0 to begin again.
    """
    final = (Status.DELIVERED.value, Status.FAILED.value, Status.RETURNED.value)
    ends: list[int] = []
    for priority in _priorities(connection):
        count, last = connection.execute(_LOOK, (priority, after, _LOOK_SIZE)).fetchone()
        ends += [last] if count == _LOOK_SIZE else []
        lost = connection.execute(_LOST, (priority, after, last, *final)).fetchall()
        lost += connection.execute(_TOO_LATE, (priority, LATEST)).fetchall()
        for number, _, _, *columns in lost:
            try:
                entry_of(connection, number, columns)
            except CorruptEntry as error:
                set_aside(connection, number, columns[0], error)
    return min(ends, default=0)


def next_due(connection: sqlite3.Connection) -> int | None:
    """Give the earliest due time of an unclaimed message that a datetime can tell."""
    dues: list[object] = [
        connection.execute(_NEXT_DUE, (priority, LATEST)).fetchone()[0] for priority in _priorities(connection)
    ]
    return min((max(due, EARLIEST) for due in dues if isinstance(due, int)), default=None)


def _claim(connection: sqlite3.Connection, bodies: Path, owner: str, rows: Sequence[Row]) -> Iterator[StoredEntry]:
    for number, body_file, was_claimed, *columns in rows:
        try:
            entry = entry_of(connection, number, columns)
            body = body_of(connection, bodies, number, body_file, entry.size)
        except CorruptEntry as error:
            set_aside(connection, number, columns[0], error)
        else:
            connection.execute(
                "UPDATE smtprecv_message SET owner = ?, was_claimed = 1 WHERE number = ?", (owner, number)
            )
            yield StoredEntry(entry, body, is_first=not was_claimed)


def _revived(entry: Entry) -> Entry:
    standings = tuple(
        replace(standing, status=Status.PENDING) if standing.status is Status.FAILED else standing
        for standing in entry.standings
    )
    return entry if standings == entry.standings else replace(entry, standings=standings, due=entry.received)


def _revive(connection: sqlite3.Connection, entry: Entry) -> None:
    numbers = "SELECT number FROM smtprecv_message WHERE id = ?"
    statement = f"UPDATE smtprecv_recipient SET status = ? WHERE status = ? AND message = ({numbers})"
    connection.execute(statement, (Status.PENDING.value, Status.FAILED.value, entry.queue_id))
    connection.execute("UPDATE smtprecv_message SET due = received WHERE id = ?", (entry.queue_id,))
