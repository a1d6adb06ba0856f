"""A look at everything in the spool: the database, each message and its body, what was set aside, what is nobody's.

Its one rule: it changes nothing, and has the write lock in short turns, but for that in which SQLite looks at itself.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from smtprecv.spool import _rows as rows
from smtprecv.spool._folder import Folder
from smtprecv.spool._jobs import Rank, Transaction
from smtprecv.spool._owner import body_files, is_alive
from smtprecv.spool._writer import Writer

_PAGE_SIZE: Final = 500
_STRAY: Final = (
    "SELECT count(*) FROM smtprecv_{} WHERE message NOT IN (SELECT number FROM smtprecv_message)"
    " AND message NOT IN (SELECT number FROM smtprecv_corrupt)"
)


async def verify(writer: Writer, folder: Folder) -> list[str]:
    """Give one sentence for each fault."""
    faults = await writer.run(Rank.READ, lambda work: _database(work.connection))
    last: int | None = 0
    while last is not None:
        found, last = await writer.run(Rank.READ, partial(_messages, folder.bodies, last))
        faults += found
    names = await writer.run(Rank.READ, lambda _: body_files(folder.bodies))
    for start in range(0, len(names), _PAGE_SIZE):
        faults += await writer.run(Rank.READ, partial(_nobodys, folder.owners, names[start : start + _PAGE_SIZE]))
    return faults


def _messages(bodies: Path, after: int, work: Transaction) -> tuple[list[str], int | None]:
    return rows.faults(work.connection, bodies, after, _PAGE_SIZE)


def _database(connection: sqlite3.Connection) -> list[str]:
    """Let SQLite look at itself, and see what was set aside and what hangs in the air."""
    told: list[tuple[object]] = connection.execute("PRAGMA integrity_check").fetchall()
    faults = [f"the database: {text}" for (text,) in told if text != "ok"]
    query = "SELECT id, reason FROM smtprecv_corrupt ORDER BY number"
    aside: list[tuple[object, object]] = connection.execute(query).fetchall()
    faults += [f"{queue_id}: set aside: {why}" for queue_id, why in aside]
    for table in ("recipient", "body", "attempt"):
        count: object = connection.execute(_STRAY.format(table)).fetchone()[0]
        faults += [f"the database: {count} rows of {table} belong to no message"] if count else []
    return faults


def _nobodys(owners: Path, names: Sequence[str], work: Transaction) -> list[str]:
    """Find body files that no row names, apart from those that a living owner is about to name, or to remove."""
    return [
        f"bodies/{name}: belongs to no message"
        for name in names
        if not rows.is_named(work.connection, name) and not is_alive(owners, name.partition(".")[0])
    ]
