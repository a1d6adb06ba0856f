"""The journal of a message: the statements and the rows of its attempts, inside a job of the writer.

Its one rule: who has no journal pays nothing for it, and a journal never stands in the way of its message: of an
attempt that cannot be read the log tells, and the others are shown.
"""

from __future__ import annotations

import datetime as dt
import logging
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Final

from smtprecv.errors import CorruptEntry
from smtprecv.message import QueueId
from smtprecv.spool._codec import UNREADABLE, Row, number_time, storable, time_number
from smtprecv.spool._fields import (
    JsonValue,
    fields_text,
    read_fields,
    read_number,
    read_optional_text,
    read_sequence,
    read_text,
)
from smtprecv.spool._tried import JOURNAL_LENGTH, Answered, Tried

_log: Final = logging.getLogger("smtprecv.spool")

_MICROSECOND: Final = dt.timedelta(microseconds=1)
_ADD: Final = (
    "INSERT INTO smtprecv_attempt (message, position, started, took, recipients, answers, error)"
    " SELECT ?, coalesce(max(position), 0) + 1, ?, ?, ?, ?, ? FROM smtprecv_attempt WHERE message = ?"
)
_FORGET_OLD: Final = (
    "DELETE FROM smtprecv_attempt WHERE message = ?"
    " AND position <= (SELECT max(position) FROM smtprecv_attempt WHERE message = ?) - ?"
)
_ATTEMPTS: Final = (
    "SELECT started, took, recipients, answers, error FROM smtprecv_attempt WHERE message = ? ORDER BY position"
)


def add(connection: sqlite3.Connection, number: object, tried: Tried) -> None:
    """Add an attempt, and forget what is older than the latest ones that are kept."""
    answers: list[JsonValue] = [[each.reply, list(each.recipients), each.count] for each in tried.answers]
    error = None if tried.error is None else storable(tried.error)
    row = (time_number(tried.started), tried.took // _MICROSECOND, tried.recipients)
    connection.execute(_ADD, (number, *row, fields_text({"answers": answers}), error, number))
    connection.execute(_FORGET_OLD, (number, number, JOURNAL_LENGTH))


def remove(connection: sqlite3.Connection, numbers: Sequence[object]) -> None:
    """Remove the journals of messages."""
    connection.execute(f"DELETE FROM smtprecv_attempt WHERE message IN ({','.join('?' * len(numbers))})", numbers)


def attempts(connection: sqlite3.Connection, queue_id: QueueId) -> list[Tried]:
    """Give the attempts of a message that can be read, the oldest first."""
    numbers: list[Row] = connection.execute("SELECT number FROM smtprecv_message WHERE id = ?", (queue_id,)).fetchall()
    found: list[Tried] = []
    for number, *_ in numbers:
        for tried in _read_all(connection, number):
            if isinstance(tried, Tried):
                found.append(tried)
            else:
                _log.error("%s: an attempt cannot be read: %s", queue_id, tried)
    return found


def faults(connection: sqlite3.Connection, number: object) -> list[str]:
    """Say which attempts of a message cannot be read."""
    all_of_them = _read_all(connection, number)
    return [f"an attempt cannot be read: {error}" for error in all_of_them if isinstance(error, CorruptEntry)]


def _read_all(connection: sqlite3.Connection, number: object) -> Iterator[Tried | CorruptEntry]:
    rows: list[Row] = connection.execute(_ATTEMPTS, (number,)).fetchall()
    for row in rows:
        try:
            yield _read(row)
        except UNREADABLE as error:
            yield CorruptEntry(f"{type(error).__name__}: {error}")


def _read(row: Row) -> Tried:
    started, took, recipients, answers, error = row
    return Tried(
        started=number_time(read_number(started)),
        took=read_number(took) * _MICROSECOND,
        recipients=read_number(recipients),
        answers=tuple(_answered(read_sequence(each)) for each in read_sequence(read_fields(answers)["answers"])),
        error=read_optional_text(error),
    )


def _answered(fields: Sequence[object]) -> Answered:
    reply, names, count = fields
    return Answered(read_text(reply), tuple(map(read_text, read_sequence(names))), read_number(count))
