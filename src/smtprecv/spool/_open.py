"""Opening a spool on SQLite: folder, lock, owner and database, in this order.

Its one rule: SpoolUnusable, with one line that says why, for whatever stands in the way.
"""

from __future__ import annotations

import os
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Final

import trio

from smtprecv.spool._failure import as_unusable
from smtprecv.spool._folder import Folder
from smtprecv.spool._guest import demand_sound
from smtprecv.spool._lock import WriteLock
from smtprecv.spool._options import SpoolOptions
from smtprecv.spool._owner import Owner
from smtprecv.spool._sqlite import SqliteSpool
from smtprecv.spool._thread import Begun, RunInThread, Threads
from smtprecv.spool._transactional import TransactionalSpool

_BODY_THREADS: Final = 8


@asynccontextmanager
async def open_spool(
    path: str | os.PathLike[str],
    *,
    create: bool = True,
    run_in_thread: RunInThread | None = None,
    options: SpoolOptions | None = None,
) -> AsyncGenerator[TransactionalSpool, None]:
    """Open the spool in the folder ``path`` for the block, made where it is not there and ``create`` is true.

    SpoolUnusable if it cannot be opened, with one line that says why. Claims of owners that have died
    are void when the block begins; claims that are still held when it ends are given back.
    SpoolUnusable too where ``options.database`` names a database, and this version of SQLite is not sound for that.
    Several processes may have one folder open. Open it after any fork.

    ``run_in_thread`` runs what blocks, in threads of its own if it is not given.
    """
    options = options or SpoolOptions()
    folder = Folder(Path(path), options.database)
    for_files = Threads(_BODY_THREADS) if run_in_thread is None else Begun(run_in_thread)
    for_writer = Threads(1) if run_in_thread is None else Begun(run_in_thread)
    with as_unusable(folder.path):
        if folder.is_guest:
            demand_sound(options.sqlite_version)
        await for_files(partial(folder.make, options.mounts, create=create))
        lock = await for_files(partial(WriteLock, folder.lock, options.lock_patience))
    try:
        with as_unusable(folder.path):
            async with lock.held():
                owner = await for_files(partial(_born, folder))
        spool = SqliteSpool(folder, lock, owner, options, for_files=for_files, for_writer=for_writer)
        try:
            with as_unusable(folder.path):
                await spool.start()
            yield spool
        finally:
            with trio.CancelScope(shield=True):
                await spool.close()
    finally:
        lock.close()


def _born(folder: Folder) -> Owner:
    folder.make_database()
    return Owner(folder.owners)
