"""Defects that are planted in the program, to prove that the simulation finds such."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from typing import Final, TypeAlias
from unittest.mock import patch

from tests.simulation.world import OK

from smtprecv.durable import sync
from smtprecv.queue import _runner as runner
from smtprecv.spool import Claim
from smtprecv.spool import _body as body
from smtprecv.spool import _claims as claims
from smtprecv.spool import _rows as rows
from smtprecv.spool import _schema as schema
from smtprecv.spool._draft import Outcome
from smtprecv.spool._jobs import Rank, Transaction
from smtprecv.spool._sqlite import SqliteSpool

Fault: TypeAlias = Callable[[], AbstractContextManager[object]]


def answered_before_commit() -> AbstractContextManager[object]:
    """250 is said, and the message goes into the next transaction."""

    async def insert(spool: SqliteSpool, stored: rows.StoredEntry, owner: str | None, outcome: Outcome | None) -> bool:
        def work(transaction: Transaction) -> None:
            rows.insert(transaction.connection, stored, owner)

        spool._writer.insist(Rank.ACCEPT, work)
        return True

    return patch.object(SqliteSpool, "_insert", insert)


def commit_not_synced() -> AbstractContextManager[object]:
    """SQLite syncs the log at a checkpoint only."""
    settings = [setting.replace("FULL", "NORMAL") for setting in schema._SETTINGS]
    return patch.object(schema, "_SETTINGS", settings)


def body_not_synced() -> AbstractContextManager[object]:
    """The octets of a large message are on their way to the disk when its row is written."""
    return patch.object(body, "sync", lambda path: sync(path) if path.is_dir() else None)


def folder_not_synced() -> AbstractContextManager[object]:
    """The name of a large message's file is on its way to the disk when its row is written."""
    return patch.object(body, "sync", lambda path: None if path.is_dir() else sync(path))


def recorded_before_delivery() -> AbstractContextManager[object]:
    """The queue counts on the delivery."""
    attempt = runner._Run.attempt

    async def hopeful(run: runner._Run, claim: Claim) -> None:
        await run.spool.record(claim.entry.after([OK] * len(claim.entry.pending), run.now()))
        await attempt(run, claim)

    return patch.object(runner._Run, "attempt", hopeful)


def claim_not_released() -> AbstractContextManager[object]:
    """What a process had claimed when it died stays claimed."""
    return patch.object(claims, "void", lambda _connection, _is_alive: 0)


def report_after_removal() -> AbstractContextManager[object]:
    """The outcome that a report tells of is one transaction, the report the next one."""
    insert = SqliteSpool._insert

    async def late(spool: SqliteSpool, stored: rows.StoredEntry, owner: str | None, outcome: Outcome | None) -> bool:
        if outcome is not None:
            await spool.record(outcome.entry, outcome.tried)
        return await insert(spool, stored, owner, None)

    return patch.object(SqliteSpool, "_insert", late)


FAULTS: Final[Mapping[str, Fault]] = {
    fault.__name__: fault
    for fault in (
        answered_before_commit,
        commit_not_synced,
        body_not_synced,
        folder_not_synced,
        recorded_before_delivery,
        claim_not_released,
        report_after_removal,
    )
}
