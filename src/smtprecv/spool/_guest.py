"""The spool's tables as guests in a program's own database.

Its one rule: what is the program's stays so. The database's ``application_id`` and ``user_version`` are its own; the
version of our tables stands in one of them, with the name of the one folder that they belong to: the folder has the
locks by which owners know of each other, and two of them would both deliver.

A program's connections take no lock of ours, so SQLite itself must be sound when one of them writes while another one
brings back the log.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Final

from smtprecv.errors import SpoolUnusable
from smtprecv.spool._schema import MIGRATIONS, Migration, set_up

_SOUND: Final[Sequence[tuple[int, int, int]]] = ((3, 51, 3), (3, 50, 7), (3, 44, 6))
"""Where the fix of the WAL-reset bug is: in all versions from the first on, and in these later ones of two lines."""
_BUSY_MILLISECONDS: Final = 5000
"""How long to wait while a connection of the program's writes."""
_OURS: Final = "SELECT sql FROM sqlite_master WHERE name GLOB 'smtprecv_*' AND sql IS NOT NULL ORDER BY type DESC"
_HOME: Final = "CREATE TABLE smtprecv_home (token TEXT NOT NULL, version INTEGER NOT NULL)"


def demand_sound(version: tuple[int, ...]) -> None:
    """Raise SpoolUnusable if this version of SQLite can damage a database that two connections write to."""
    first, *others = _SOUND
    if version >= first or any(other <= version < (*other[:2], 1000) for other in others):
        return
    sound = ", ".join(".".join(map(str, each)) for each in reversed(_SOUND))
    msg = (
        f"SQLite {'.'.join(map(str, version))} can damage a database that others write to at the same time (the"
        f" WAL-reset bug): its tables may stand in one of your own with {sound} or later only"
    )
    raise SpoolUnusable(msg)


def prepare_guest(connection: sqlite3.Connection, token: str, migrations: Sequence[Migration] = MIGRATIONS) -> None:
    """Set the connection up and bring our tables to the newest version; ``token`` names the folder.

    SpoolUnusable if they are another folder's, or of a version that ``migrations`` do not reach: nothing is changed.
    """
    connection.execute(f"PRAGMA busy_timeout = {_BUSY_MILLISECONDS}").fetchall()
    set_up(connection)
    connection.execute("BEGIN IMMEDIATE")
    try:
        _migrate(connection, token, migrations)
        connection.execute("COMMIT")
    except (sqlite3.Error, SpoolUnusable):
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def _migrate(connection: sqlite3.Connection, token: str, migrations: Sequence[Migration]) -> None:
    is_new = connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'smtprecv_home'").fetchone() is None
    if is_new:
        statements = [*_schema(migrations), _HOME]
    else:
        home: tuple[str, int] = connection.execute("SELECT token, version FROM smtprecv_home").fetchone()
        if home[0] != token:
            msg = "the tables in that database belong to a queue in another folder"
            raise SpoolUnusable(msg)
        if home[1] > len(migrations):
            msg = f"the queue is of a newer version ({home[1]}; this program knows up to {len(migrations)})"
            raise SpoolUnusable(msg)
        statements = [statement for migration in migrations[home[1] :] for statement in migration]
        statements.append("DELETE FROM smtprecv_home")
    for statement in statements:
        connection.execute(statement)
    connection.execute("INSERT INTO smtprecv_home VALUES (?, ?)", (token, len(migrations)))


def _schema(migrations: Sequence[Migration]) -> list[str]:
    """Give the newest tables at once: those of the first versions had names that the program may have for its own."""
    with closing(sqlite3.connect(":memory:")) as scratch:
        for migration in migrations:
            for statement in migration:
                scratch.execute(statement)
        return [sql for (sql,) in scratch.execute(_OURS)]
