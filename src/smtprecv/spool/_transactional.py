"""What the spool on SQLite promises beside ``Spool``: transactions of the program's own, in the same database."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol, TypeVar, runtime_checkable

from smtprecv.message import Commit
from smtprecv.spool._spool import Recorder, Spool

_T = TypeVar("_T")


@runtime_checkable
class TransactionalSpool(Spool, Protocol):
    """A ``Spool`` in an SQLite database, in which a program may keep tables of its own.

    Their names begin with anything but ``smtprecv_`` and ``sqlite_``. Whoever writes to them passes through
    ``transact`` or a ``Commit``; whoever reads may open ``database`` with ``mode=ro``.
    """

    @property
    def database(self) -> Path:
        """The database's file. Connect to it with SQLite alone, read only, and have no transaction open for long."""
        ...

    def committing(self, commits: Sequence[Commit]) -> Recorder:
        """Give what records an outcome, with a report of it or without, and does ``commits`` in the same transaction.

        They are done once for each record that succeeds, and not for a message that is not claimed here. CommitFailed
        if one of them raises: nothing was recorded, the claim stands; record again, without those that raised.
        """
        ...

    async def transact(self, work: Callable[[sqlite3.Connection], _T]) -> _T:
        """Run ``work`` in a transaction, perhaps with others, and give what it returns; then it is durable.

        What ``work`` raises is raised here, and all that it did is undone. SpoolFull (also where it would only read) if
        there is no room beside the reserve, and SpoolError: nothing was done. What holds of ``Commit.work`` holds of
        it: it runs in a thread, under the write lock, perhaps twice with the first time rolled back, and may not do
        what that may not. Rows are given as a list, and not as a cursor. Cancellation withdraws it until
        its turn comes; from then on it is waited for.
        """
        ...
