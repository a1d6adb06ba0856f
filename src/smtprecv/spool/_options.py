"""What can be tuned of the spool on SQLite, and what it uses of the system: so tests can make a disk fail."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

from smtprecv.spool._folder import free_files, free_size

_BUSY_TIMEOUT: Final = 0.1
"""Seconds. Only a stranger's connection can be in the way: ours have the write lock."""


def connect(database: Path, factory: type[sqlite3.Connection] = sqlite3.Connection) -> sqlite3.Connection:
    """Connect to a database file that is there; it is never made here."""
    connection = sqlite3.connect(
        f"{database.absolute().as_uri()}?mode=rw",
        uri=True,
        timeout=_BUSY_TIMEOUT,
        isolation_level=None,
        check_same_thread=False,
        factory=factory,
    )
    connection.text_factory = _text
    return connection


def _text(octets: bytes) -> str | bytes:
    """Let a text that is not UTF-8 through as octets, for the codec to refuse: one bad row must stop no query."""
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets


@final
@dataclass(frozen=True, slots=True)
class SpoolOptions:
    """The measures of a spool on SQLite, and what it uses of the system.

    ``memory_size``: octets up to which an arriving message stays in memory and then in its row.
    ``reserve_size``: octets of the file system that are kept for outcomes: below it, new messages are
    refused. ``wal_limit``: octets of the write-ahead log past which it is brought back into the
    database. ``database``: a database of the program's own that is to have the spool's tables; the folder remembers it.
    ``sqlite_version``: of what connects. ``lock_patience``: seconds for which the write lock is tried for. ``connect``
    connects to the database, ``free_size`` and ``free_files`` say how many octets and files the file
    system of a path has left, ``mounts`` is the table that tells a network file system.
    """

    memory_size: int = 64 * 1024
    reserve_size: int = 8 * 1024 * 1024
    wal_limit: int = 4 * 1024 * 1024
    lock_patience: float = 10
    database: Path | None = None
    sqlite_version: tuple[int, ...] = sqlite3.sqlite_version_info
    connect: Callable[[Path], sqlite3.Connection] = connect
    free_size: Callable[[Path], int] = free_size
    free_files: Callable[[Path], int] = free_files
    mounts: Path = Path("/proc/self/mountinfo")
