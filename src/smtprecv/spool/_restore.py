"""A message that was in a spool before becomes one of this spool, under the name that it had.

Its one rule: a body file is found again by its owner and by its message's name, so that of the draft is not kept: the
file gets another name, under the write lock, where no row and no other file has it.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from smtprecv.errors import SpoolError
from smtprecv.spool import _rows as rows
from smtprecv.spool._bell import ring_all
from smtprecv.spool._body import BodyFile, BodyFolder, StoredBody
from smtprecv.spool._entry import Entry
from smtprecv.spool._jobs import Rank, Transaction
from smtprecv.spool._writer import Writer


async def restore(
    writer: Writer,
    bodies: BodyFolder,
    owners: Path,
    entry: Entry,
    body: StoredBody,
    keep_for_now: Callable[[BodyFile], None],
) -> bool:
    """Insert a message, claimed by nobody, and ring every bell; False if there is one of its name.

    ``keep_for_now`` is given the file that is left where it is not known whether a row will name it.
    """
    linked: list[BodyFile] = []

    def work(transaction: Transaction) -> bool:
        if rows.is_taken(transaction.connection, entry.queue_id):
            return False
        stored = body
        if isinstance(body, BodyFile):
            stored = BodyFile(bodies.link(body.name, entry.queue_id))
            linked.append(stored)
        rows.insert(transaction.connection, rows.StoredEntry(entry, stored, is_first=False), None)
        transaction.after_commit(lambda _: ring_all(owners))
        return True

    try:
        return await writer.run(Rank.ACCEPT, work)
    except SpoolError:
        for file in linked[:1]:
            keep_for_now(file)
        raise
