"""The spool on SQLite: what ``open_spool`` gives.

The theory. A message is a row with its recipients, and its body beside it or in a file; accepting, claiming,
recording and removing are one transaction each, and the writer commits those of one moment together. This
module only joins the parts: the folder, the lock, the owner, the writer and the statements. It has no clock.
"""

from __future__ import annotations

import datetime as dt
import logging
import sqlite3
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final, TypeVar, final

import trio

from smtprecv.errors import SpoolError
from smtprecv.message import Commit, Message, QueueId
from smtprecv.spool import _claims as claims
from smtprecv.spool import _journal as journal
from smtprecv.spool import _rows as rows
from smtprecv.spool._arrivals import insert_all, is_one_statement
from smtprecv.spool._bell import Bell, bell_path, ring_all
from smtprecv.spool._body import ArrivingBody, BodyFile, BodyFolder, StoredBody, StoredMessage
from smtprecv.spool._codec import number_time, time_number
from smtprecv.spool._database import connect
from smtprecv.spool._draft import ArrivingDraft, Outcome
from smtprecv.spool._entry import Entry
from smtprecv.spool._folder import Folder, Room
from smtprecv.spool._fresh import Fresh
from smtprecv.spool._jobs import Batch, Rank, Transaction
from smtprecv.spool._litter import sweep_all
from smtprecv.spool._lock import WriteLock
from smtprecv.spool._options import SpoolOptions
from smtprecv.spool._owner import Owner, dead_owners, is_alive
from smtprecv.spool._queue_id import QueueIds
from smtprecv.spool._restore import restore
from smtprecv.spool._spool import Change, Claim, FreshMail, Recorder
from smtprecv.spool._thread import RunInThread
from smtprecv.spool._tried import Tried
from smtprecv.spool._verify import verify
from smtprecv.spool._work import WorkFailed, as_job, run_commits
from smtprecv.spool._writer import Writer

T = TypeVar("T")

_log: Final = logging.getLogger("smtprecv.spool")


@final
class SqliteSpool:
    """A ``TransactionalSpool`` in a folder; ``open_spool`` makes it."""

    def __init__(
        self,
        folder: Folder,
        lock: WriteLock,
        owner: Owner,
        options: SpoolOptions,
        *,
        for_files: RunInThread,
        for_writer: RunInThread,
    ) -> None:
        """Join the parts; nothing is opened yet."""
        self._folder = folder
        self._owner = owner
        self._options = options
        self._room = Room(folder, options.reserve_size, options.free_size, options.free_files)
        self._bodies = BodyFolder(folder.bodies, owner.id, for_files, self._room.is_left_for_files)
        self._writer = Writer(
            folder.database,
            lock=lock,
            run_in_thread=for_writer,
            connect=partial(connect, self._options, self._folder),
            has_room=self._room.is_left_for_rows,
        )
        self._arrivals = Batch(Rank.ACCEPT, insert_all, is_one_statement)
        self._removals = Batch(Rank.RECORD, self._remove_all)
        self._queue_ids = QueueIds(owner.id)
        self._bell = Bell(bell_path(folder.owners, owner.id))
        self._fresh: Fresh | None = None
        self._arrival = trio.Event()
        self._has_started = False
        self._has_claims = True
        self._looked = 0

    @property
    def database(self) -> Path:
        """The database's file."""
        return self._folder.database

    async def start(self) -> None:
        """Connect and recover; SpoolError if that cannot be."""
        await self.recover()
        self._has_started = True

    async def close(self) -> None:
        """Give back what is still claimed, close, and leave; never raises SpoolError."""
        try:
            if self._has_started:
                await self._writer.run(Rank.RECORD, lambda work: claims.give_back_all(work.connection, self._owner.id))
            self._has_claims = False
        except SpoolError as error:
            _log.warning("claims were not given back: %s", error)
        try:
            await self._writer.close(self._leave)
        except SpoolError as error:
            _log.warning("the spool was not closed cleanly: %s", error)
        finally:
            self._bell.close()
            self._owner.close()

    async def begin(
        self, received: dt.datetime, *, is_reserved: bool = False, commits: Sequence[Commit] = ()
    ) -> ArrivingDraft:
        """Make room for a message; SpoolFull if there was none last time and there still is none."""
        if self._room.was_full and not is_reserved:
            await self._writer.run(Rank.READ, lambda work: self._room.demand(work.connection))
        queue_id = self._queue_ids.next(received)
        memory_size = sys.maxsize if is_reserved else self._options.memory_size
        return ArrivingDraft(self, queue_id, ArrivingBody(self._bodies, queue_id, memory_size), commits)

    @asynccontextmanager
    async def fresh(self, room: int) -> AsyncGenerator[FreshMail, None]:
        """Claim at birth what this process accepts, up to ``room`` not yet received."""
        if self._fresh is not None:
            msg = "fresh mail is held already"
            raise RuntimeError(msg)
        self._fresh = fresh = Fresh(room)
        try:
            yield fresh
        finally:
            self._fresh = None
            with trio.CancelScope(shield=True):
                await self._give_back([claim.entry.queue_id for claim in fresh.rest()])

    async def claim(self, now: dt.datetime, limit: int) -> Sequence[Claim]:
        """Claim at most ``limit`` messages due at ``now``."""
        bodies, owner, due = self._folder.bodies, self._owner.id, time_number(now)
        return await self._claimed(lambda work: claims.claim_due(work.connection, bodies, owner, due, limit))

    async def claim_ids(self, queue_ids: Sequence[QueueId]) -> Sequence[Claim]:
        """Claim these messages, due or not; failed recipients are pending again."""
        bodies, owner = self._folder.bodies, self._owner.id
        return await self._claimed(lambda work: claims.claim_named(work.connection, bodies, owner, queue_ids))

    async def record(self, entry: Entry, tried: Tried | None = None, commits: Sequence[Commit] = ()) -> None:
        """Store what became of a claimed message and end the claim; a body file goes behind the COMMIT."""
        if entry.is_done and not commits:
            await self._writer.run_in(self._removals, entry.queue_id)
        else:
            await self._writer.run(Rank.RECORD, partial(self._record, Outcome(entry, tried, commits)))

    def committing(self, commits: Sequence[Commit]) -> Recorder:
        """Give what does ``commits`` with each outcome that it records."""
        return _Committing(self, commits)

    async def next_due(self) -> dt.datetime | None:
        """Give the earliest time at which an unclaimed message is due."""
        due = await self._writer.run(Rank.READ, lambda work: claims.next_due(work.connection))
        return None if due is None else number_time(due)

    async def wait_for_mail(self) -> None:
        """Return when this process has accepted a message that was born unclaimed, or a bell was rung."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._bell.listen, self._arrival.set)
            await self._arrival.wait()
            nursery.cancel_scope.cancel()
        self._arrival = trio.Event()

    async def recover(self) -> int:
        """Void the claims of owners that have died and sweep their litter; give the number of claims."""

        def work(transaction: Transaction) -> tuple[int, list[str]]:
            count = claims.void(transaction.connection, partial(is_alive, self._folder.owners))
            self._looked = claims.set_lost_aside(transaction.connection, self._looked)
            return count, dead_owners(self._folder.owners)

        count, dead = await self._writer.run(Rank.RECORD, work)
        if dead:
            try:
                await sweep_all(self._writer, self._folder, self._bodies, dead)
            except SpoolError as error:
                _log.warning("the litter of dead owners was not swept: %s", error)
        return count

    async def entries(self, after: QueueId | None = None, limit: int = 100) -> Sequence[Entry]:
        """Give the next entries by queue id."""
        return await self._writer.run(Rank.READ, lambda work: rows.page(work.connection, after or QueueId(""), limit))

    async def find(self, queue_ids: Sequence[QueueId]) -> Sequence[Entry]:
        """Give the entries of these messages, as far as they are there."""
        return await self._writer.run(Rank.READ, lambda work: rows.find(work.connection, queue_ids))

    async def journal(self, queue_id: QueueId) -> Sequence[Tried]:
        """Give the latest attempts of a message."""
        return await self._writer.run(Rank.READ, lambda work: journal.attempts(work.connection, queue_id))

    async def count(self) -> int:
        """Give the number of messages."""
        return await self._writer.run(Rank.READ, lambda work: rows.count(work.connection))

    async def verify(self) -> Sequence[str]:
        """Look at all of the folder, and give a sentence for each fault."""
        return await verify(self._writer, self._folder)

    async def message_of(self, queue_id: QueueId) -> Message | None:
        """Give the octets of a message, claimed or not; None if it is not there."""
        bodies = self._folder.bodies
        found = await self._writer.run(Rank.READ, lambda work: rows.stored_body(work.connection, bodies, queue_id))
        return None if found is None else self.message(queue_id, *found)

    async def change(self, queue_ids: Sequence[QueueId], change: Change) -> Sequence[tuple[Entry, Entry | None]]:
        """Change messages that nobody has claimed; body files go behind the COMMIT, and then every bell is rung."""

        def work(transaction: Transaction) -> list[tuple[Entry, Entry | None]]:
            changes = rows.change(transaction.connection, queue_ids, change)
            for _, _, body in changes:
                self._remove_body(body, transaction)
            transaction.after_commit(lambda _: ring_all(self._folder.owners))
            return [(before, after) for before, after, _ in changes]

        return await self._writer.run(Rank.RECORD, work)

    async def transact(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a function of the program's in a transaction, and give what it returns."""
        try:
            return await self._writer.run(Rank.ACCEPT, as_job(work))
        except WorkFailed as failed:
            error = failed.error
        raise error

    async def accept(self, entry: Entry, body: StoredBody, outcome: Outcome | None = None) -> bool:
        """Insert a message, claimed at birth if there is room for it among the fresh mail, and record an outcome."""
        fresh = self._fresh if self._fresh is not None and self._fresh.has_reserved() else None
        owner = None if fresh is None else self._owner.id
        stored = rows.StoredEntry(entry, body)
        is_accepted = False
        try:
            is_accepted = await self._insert(stored, owner, outcome)
        finally:
            if fresh is not None and not is_accepted:
                fresh.put_back_room()
        if not is_accepted:
            return False
        if fresh is None:
            self._arrival.set()
        elif fresh.is_over:
            with trio.CancelScope(shield=True):
                await self._give_back([entry.queue_id])
        else:
            fresh.put(self._claim(stored))
        return True

    async def restore(self, entry: Entry, body: StoredBody) -> bool:
        """Insert a message that was in a spool before, claimed by nobody, and ring every bell."""
        if await restore(self._writer, self._bodies, self._folder.owners, entry, body, self.keep_for_now):
            self._arrival.set()
            return True
        return False

    def message(self, queue_id: QueueId, body: StoredBody, size: int) -> Message:
        """Give a body as a message."""
        return StoredMessage(self._bodies, queue_id, body, size)

    def keep_for_now(self, body: BodyFile) -> None:
        """Remove a body file when a later COMMIT has succeeded, unless a row names it then."""

        def step(connection: sqlite3.Connection) -> None:
            if not rows.is_named(connection, body.name):
                self._bodies.remove(body.name)

        self._writer.after_next_commit(step)

    def _record(self, outcome: Outcome, transaction: Transaction) -> None:
        """Record an outcome and do what comes with it, unless the message is not claimed here: then neither."""
        if outcome.commits and rows.is_claimed(transaction.connection, outcome.entry.queue_id, self._owner.id):
            run_commits(transaction.connection, outcome.commits)
        body = rows.update(transaction.connection, outcome.entry, self._owner.id, outcome.tried)
        self._remove_body(body, transaction)

    def _remove_all(self, transaction: Transaction, queue_ids: Sequence[QueueId]) -> None:
        """Remove messages that are done; those that are not claimed here stay."""
        for body in rows.remove_claimed(transaction.connection, queue_ids, self._owner.id):
            self._remove_body(body, transaction)

    async def _insert(self, stored: rows.StoredEntry, owner: str | None, outcome: Outcome | None) -> bool:
        """Add a message, with the outcome that it reports: both, or neither."""
        if outcome is None:
            await self._writer.run_in(self._arrivals, (stored, owner))
            return True

        def work(transaction: Transaction) -> bool:
            if is_claimed := rows.is_claimed(transaction.connection, outcome.entry.queue_id, self._owner.id):
                rows.insert(transaction.connection, stored, owner)
            self._record(outcome, transaction)
            return is_claimed

        return await self._writer.run(Rank.RECORD, work)

    async def _claimed(self, work: Callable[[Transaction], list[rows.StoredEntry]]) -> Sequence[Claim]:
        return [self._claim(stored) for stored in await self._writer.run(Rank.CLAIM, work)]

    def _claim(self, stored: rows.StoredEntry) -> Claim:
        entry = stored.entry
        return Claim(entry, self.message(entry.queue_id, stored.body, entry.size), stored.is_first)

    async def _give_back(self, queue_ids: Sequence[QueueId]) -> None:
        """End claims that nobody holds, now or as soon as that can be."""
        if not queue_ids:
            return

        def work(transaction: Transaction) -> None:
            claims.give_back(transaction.connection, self._owner.id, queue_ids)

        try:
            await self._writer.run(Rank.RECORD, work)
        except SpoolError as error:
            _log.warning("%s stay claimed until the spool works again: %s", ", ".join(queue_ids), error)
            self._writer.insist(Rank.RECORD, work)

    def _remove_body(self, body: StoredBody | None, transaction: Transaction) -> None:
        if isinstance(body, BodyFile):
            transaction.after_commit(lambda _: self._bodies.remove(body.name))

    def _leave(self) -> None:
        """Remove the owner's file, unless something is left for whoever opens the spool next to void or to sweep."""
        if not (self._has_claims or self._writer.has_leftovers or self._bodies.has_litter):
            self._owner.leave(self._folder.bodies)


@final
@dataclass(frozen=True, slots=True)
class _Committing:
    """What records outcomes and does ``commits`` with them; a ``Recorder``."""

    spool: SqliteSpool
    commits: Sequence[Commit]

    async def begin(self, received: dt.datetime, *, is_reserved: bool = False) -> ArrivingDraft:
        return await self.spool.begin(received, is_reserved=is_reserved, commits=self.commits)

    async def record(self, entry: Entry, tried: Tried | None = None) -> None:
        await self.spool.record(entry, tried, self.commits)
