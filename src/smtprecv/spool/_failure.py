"""What a failure of the disk or of SQLite means to the callers of the spool.

Its one rule: nothing but a SpoolError leaves the spool, and no room is told apart from everything else.
"""

from __future__ import annotations

import errno
import sqlite3
from typing import Final, TypeAlias

from smtprecv.errors import SpoolError, SpoolFull

FAILURES: Final = (sqlite3.Error, OSError, SpoolError, ValueError)
"""What the work of the spool may raise. (ValueError: a text that UTF-8 cannot hold.)"""

Failure: TypeAlias = sqlite3.Error | OSError | SpoolError | ValueError

_NO_ROOM: Final = {errno.ENOSPC, errno.EDQUOT}
_DISK_TROUBLE: Final = {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}


def as_spool_error(error: Failure) -> SpoolError:
    """Give the SpoolError that tells of ``error``: a new one, for one caller to raise; its cause is ``error``."""
    told = type(error)(*error.args) if isinstance(error, SpoolError) else _kind(error)(f"spool: {error}")
    told.__cause__ = error
    return told


def is_disk_trouble(error: Failure) -> bool:
    """Say whether SQLite failed at the disk: then it is not only the one statement that failed."""
    return isinstance(error, sqlite3.Error) and _primary_code(error) in _DISK_TROUBLE


def _kind(error: Failure) -> type[SpoolError]:
    if isinstance(error, OSError):
        return SpoolFull if error.errno in _NO_ROOM else SpoolError
    is_full = isinstance(error, sqlite3.Error) and _primary_code(error) == sqlite3.SQLITE_FULL
    return SpoolFull if is_full else SpoolError


def _primary_code(error: sqlite3.Error) -> int:
    code: object = getattr(error, "sqlite_errorcode", None)
    return code & 0xFF if isinstance(code, int) else 0
