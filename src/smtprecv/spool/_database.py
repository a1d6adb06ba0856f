"""The connection to the spool's database: made, set up, and its folder synced."""

from __future__ import annotations

import sqlite3

from smtprecv.errors import SpoolError
from smtprecv.spool._arrivals import prepare_arrivals
from smtprecv.spool._folder import Folder
from smtprecv.spool._guest import prepare_guest
from smtprecv.spool._options import SpoolOptions
from smtprecv.spool._schema import bound_log, prepare


def connect(options: SpoolOptions, folder: Folder) -> sqlite3.Connection:
    """Connect, bring the database to the newest version, and make its name durable; under the write lock."""
    connection = options.connect(folder.database)
    try:
        if folder.is_guest:
            prepare_guest(connection, folder.token)
        else:
            prepare(connection)
        bound_log(connection, options.wal_limit)
        prepare_arrivals(connection)
        folder.sync()
    except (sqlite3.Error, OSError, SpoolError):
        connection.close()
        raise
    return connection
