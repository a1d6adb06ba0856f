"""What dead owners have left in the folders of a spool.

Its one rule: it is removed in short turns, because others want the write lock too, and the dead are buried last.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import partial
from typing import Final

from smtprecv.spool import _rows as rows
from smtprecv.spool._body import BodyFolder
from smtprecv.spool._folder import Folder
from smtprecv.spool._jobs import Rank, Transaction
from smtprecv.spool._owner import body_files, bury, sweep
from smtprecv.spool._writer import Writer

_SWEEP_SIZE: Final = 500
"""Files that are looked at in one turn."""


async def sweep_all(writer: Writer, folder: Folder, bodies: BodyFolder, dead: Sequence[str]) -> None:
    """Remove the body files of dead owners that no row names, and then the owners' own."""

    def sweep_some(names: Sequence[str], connection: sqlite3.Connection) -> None:
        # What the dead wrote last may be seen here and not be durable: a removal could come undone, its body be gone.
        connection.execute("PRAGMA wal_checkpoint").fetchall()
        sweep(folder.bodies, folder.owners, names, partial(rows.is_named, connection))

    names = await bodies.run(partial(body_files, folder.bodies))
    for start in range(0, len(names), _SWEEP_SIZE):
        step = partial(sweep_some, names[start : start + _SWEEP_SIZE])
        await writer.run(Rank.READ, partial(Transaction.after_commit, step=step))
    await writer.run(Rank.READ, lambda _: bury(folder.owners, dead))
