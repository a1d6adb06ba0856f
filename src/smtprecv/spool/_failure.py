"""What a failure of the disk or of SQLite means to the callers of the spool.

Its one rule: nothing but a SpoolError leaves the spool, and no room is told apart from everything else.
"""

from __future__ import annotations

import errno
import sqlite3
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from smtprecv.errors import SpoolError, SpoolFull, SpoolUnusable

FAILURES: Final = (sqlite3.Error, OSError, SpoolError, ValueError)
"""What the work of the spool may raise. (ValueError: a text that UTF-8 cannot hold.) All else is a defect."""

_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT}
_DISK_TROUBLE: Final = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}


def as_spool_error(error: Exception) -> SpoolError:
    """Give the SpoolError that tells of ``error``: a new one, for one caller to raise; its cause is ``error``."""
    told = type(error)(*error.args) if isinstance(error, SpoolError) else _kind(error)(reason(error))
    told.__cause__ = error
    return told


@contextmanager
def as_unusable(queue: Path) -> Generator[None, None, None]:
    """Say of every failure which queue cannot be opened, and why."""
    try:
        yield
    except FAILURES as error:
        msg = f"the queue {queue} cannot be opened: {reason(error)}"
        raise SpoolUnusable(msg) from error


def reason(error: Exception) -> str:
    """Say in one line what failed: what the system said, and of which file."""
    if isinstance(error, OSError) and error.strerror:
        path: object = error.filename
        return error.strerror if path is None else f"{path}: {error.strerror}"
    return str(error) if isinstance(error, FAILURES) else f"a defect ({type(error).__name__})"


def is_disk_trouble(error: Exception) -> bool:
    """Say whether SQLite failed at the disk: then it is not only the one statement that failed."""
    return isinstance(error, sqlite3.Error) and _primary_code(error) in _DISK_TROUBLE


def is_behind(error: Exception) -> bool:
    """Say whether the connection still reads what was there before another one wrote: then it can never write."""
    return getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY_SNAPSHOT


def _kind(error: Exception) -> type[SpoolError]:
    if isinstance(error, OSError):
        return SpoolFull if error.errno in _NO_ROOM else SpoolError
    is_full = isinstance(error, sqlite3.Error) and _primary_code(error) == sqlite3.SQLITE_FULL
    return SpoolFull if is_full else SpoolError


def _primary_code(error: sqlite3.Error) -> int:
    code: object = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else 0
