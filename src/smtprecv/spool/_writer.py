"""Group commit: everything that touches the database passes through here, in groups.

The theory. A COMMIT costs an fdatasync whatever it holds, so what waits is committed together. A job
that finds nobody at work leads: it lets those join who are about to wait, takes the write lock and everything that
waits by then, runs it as one transaction (``_jobs``) in one hop to a thread, and wakes the others when COMMIT has
returned; meanwhile the next group gathers, and its first job leads next. No task lives in the background, so nothing
can be left over.

Its one rule: a job's outcome is told only behind its COMMIT. When the transaction as a whole fails, its jobs are tried
one by one, those that record outcomes first. What happens behind a COMMIT can fail nobody. Cancellation withdraws
a job until its group begins, and not after that. It does not know what the jobs do.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Final, TypeVar, final

import trio

from smtprecv.errors import SpoolError, SpoolFull
from smtprecv.spool._failure import FAILURES, as_spool_error, is_behind, reason
from smtprecv.spool._jobs import Batch, Job, Rank, Step, Transaction, in_one_statement, in_transaction
from smtprecv.spool._lock import WriteLock
from smtprecv.spool._thread import RunInThread

T = TypeVar("T")
ItemT = TypeVar("ItemT")

_CALM_TURNS: Final = 4
"""Turns of the event loop after which nobody else is waited for, if nobody has come in them: some 40 microseconds."""
_GATHERING_TURNS: Final = 16
"""Turns for which others are waited for at the most."""

_log: Final = logging.getLogger("smtprecv.spool")


@final
class Writer:
    """The one connection of this process to the database at ``database``, and the queue of jobs before it.

    ``connect`` opens and prepares the connection; ``has_room`` says whether a message may be taken.
    """

    def __init__(
        self,
        database: Path,
        *,
        lock: WriteLock,
        run_in_thread: RunInThread,
        connect: Callable[[], sqlite3.Connection],
        has_room: Callable[[sqlite3.Connection], bool],
    ) -> None:
        """Begin without a connection: the first group opens it."""
        self._database = database
        self._lock = lock
        self._run_in_thread = run_in_thread
        self._connect = connect
        self._has_room = has_room
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._waiting: list[Job] = []
        self._insisted: list[Job] = []
        self._is_led = False
        self._is_alone = True
        """Whether the last group was a single job: then one turn is waited for others, and no more."""
        self._is_closed = False
        self._later: list[Step] = []

    @property
    def has_leftovers(self) -> bool:
        """True while something waits for a COMMIT that succeeds."""
        return bool(self._later)

    def after_next_commit(self, step: Step) -> None:
        """Run ``step`` when a later COMMIT has succeeded that wrote something, and again until it succeeds itself.

        Until then the frames of a COMMIT that failed may still become durable, by a crash.
        """
        self._later.append(step)

    def insist(self, rank: Rank, work: Callable[[Transaction], object]) -> None:
        """Run ``work`` with the next group, and with each one behind that until it has succeeded; nobody waits."""
        self._insisted.append(Job(rank, work))

    async def run(self, rank: Rank, work: Callable[[Transaction], T]) -> T:
        """Run ``work`` in a transaction, with others; when this returns, the transaction is durable.

        SpoolFull or SpoolError: nothing of it was done. ``work`` may be run twice, the first time
        rolled back. Cancellation withdraws it until its group begins; from then on it is waited for.
        """
        results: list[T] = []
        await self._do(Job(rank, lambda transaction: results.append(work(transaction))))
        return results[-1]

    async def run_in(self, batch: Batch[ItemT], item: ItemT) -> None:
        """Run the work of ``batch`` for one item, and for others with it; all else is as for ``run``."""
        job = batch.add(item)
        try:
            await self._do(job)
        finally:
            batch.forget(job)

    async def close(self, last: Callable[[], None]) -> None:
        """Close the connection and do ``last``, both under the write lock; SpoolError if that was not to be had.

        A group under way is waited for; later ones fail.
        """
        async with self._lock.held():
            self._is_closed = True
            await self._run_in_thread(partial(self._end, last))

    # Control-C in the middle would leave a job whose leader wakes a task that has gone on.
    @trio.lowlevel.enable_ki_protection
    async def _do(self, job: Job) -> None:
        """Have a job done by a group, and raise its failure."""
        job.task = trio.lowlevel.current_task()
        await trio.lowlevel.checkpoint_if_cancelled()
        self._waiting.append(job)
        if self._is_led:
            await trio.lowlevel.wait_task_rescheduled(partial(self._withdraw, job))
        if not job.has_begun:
            await self._lead(job)
        if job.failure is not None:
            raise job.failure

    def _withdraw(self, job: Job, _raise_cancel: object) -> trio.lowlevel.Abort:
        if job.has_begun:
            return trio.lowlevel.Abort.FAILED
        self._waiting.remove(job)
        return trio.lowlevel.Abort.SUCCEEDED

    async def _lead(self, own: Job) -> None:
        """Run one group, wake its members, call the next leader."""
        self._is_led = True
        group: list[Job] = []
        try:
            await self._gather()
            async with self._lock.held():
                group = self._take_waiting()
                self._is_alone = len(group) == 1
                with trio.CancelScope(shield=True):
                    await self._run_in_thread(partial(self._work_off, group))
        except SpoolError as error:
            group = group or self._take_waiting()
            for job in group:
                job.failure = as_spool_error(error)
        finally:
            if not own.has_begun:
                self._waiting.remove(own)
            for job in group:
                if job is not own:
                    job.wake()
            self._insisted = [job for job in self._insisted if job.failure is not None]
            self._is_led = bool(self._waiting)
            if self._waiting:
                self._waiting[0].wake()

    async def _gather(self) -> None:
        """Let those join who are about to commit as well: the larger the group, the less each pays."""
        if self._is_alone:
            await trio.lowlevel.checkpoint()  # for those of this very moment
            return
        calm = 0
        for _ in range(_GATHERING_TURNS):
            so_far = len(self._waiting)
            await trio.lowlevel.checkpoint()
            calm = calm + 1 if len(self._waiting) == so_far else 0
            if calm == _CALM_TURNS:
                return

    def _take_waiting(self) -> list[Job]:
        group, self._waiting = [*self._waiting, *self._insisted], []
        for job in group:
            job.has_begun = True
        return group

    # What follows runs in the thread, under the write lock.

    def _work_off(self, group: Sequence[Job]) -> None:
        try:
            connection = self._connected()
            jobs = self._admitted(connection, group)
        except FAILURES as error:
            for job in group:
                job.failure = as_spool_error(error)
            return
        if not self._is_done_together(connection, jobs):
            self._checkpoint()  # perhaps it makes room
            if len(jobs) > 1:
                for job in sorted(jobs, key=lambda job: job.rank):
                    self._do_alone(job)

    def _admitted(self, connection: sqlite3.Connection, group: Sequence[Job]) -> Sequence[Job]:
        """Refuse new messages while there is no room beside the reserve; let all else pass."""
        if all(job.rank is not Rank.ACCEPT for job in group) or self._has_room(connection):
            return group
        for job in group:
            job.failure = SpoolFull("no room for another message")
        return [job for job in group if job.rank is not Rank.ACCEPT]

    def _do_alone(self, job: Job) -> None:
        try:
            self._is_done_together(self._connected(), [job])
        except FAILURES as error:
            job.failure = as_spool_error(error)

    def _is_done_together(self, connection: sqlite3.Connection, jobs: Sequence[Job]) -> bool:
        """Run the jobs as one transaction; False if it failed as a whole, and all of them with it."""
        try:
            outcomes = in_one_statement(connection, jobs) or in_transaction(connection, jobs)
        except FAILURES as error:
            for job in jobs:
                job.failure = as_spool_error(error)
            self._roll_back()
            if is_behind(error):  # a statement is under way that a function of the program's has left
                self._disconnect()
            return False
        except BaseException:
            self._roll_back()
            raise
        for members, outcome in outcomes:
            for job in members:
                job.failure = outcome if isinstance(outcome, SpoolError) else None
        self._take_steps(connection, [outcome for _, outcome in outcomes if isinstance(outcome, Transaction)])
        return True

    def _take_steps(self, connection: sqlite3.Connection, committed: Sequence[Transaction]) -> None:
        if any(transaction.has_written for transaction in committed):
            for _ in range(len(self._later)):
                step = self._later.pop(0)
                if not _is_taken(step, connection):
                    self._later.append(step)
        for transaction in committed:
            for step in transaction.steps:
                _is_taken(step, connection)

    def _connected(self) -> sqlite3.Connection:
        """Give the connection, opened if need be; SpoolError if the folder was moved away under us."""
        if self._is_closed:
            msg = "the spool is closed"
            raise SpoolError(msg)
        if self._connection is None:
            self._connection = self._connect()
        self._identity = self._identity or _identity(self._database)
        if _identity(self._database) != self._identity:
            msg = f"{self._database} is not the file that was opened"
            raise SpoolError(msg)
        return self._connection

    def _roll_back(self) -> None:
        if self._connection is None:
            return
        try:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        except sqlite3.Error:
            self._disconnect()

    def _end(self, last: Callable[[], None]) -> None:
        self._disconnect()
        last()

    def _disconnect(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(sqlite3.Error):
                connection.close()

    def _checkpoint(self) -> None:
        if self._connection is None:
            return
        try:
            self._connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
        except sqlite3.Error as error:
            _log.warning("the write-ahead log could not be brought back: %s", error)


def _is_taken(step: Step, connection: sqlite3.Connection) -> bool:
    try:
        step(connection)
    # Around one step behind a COMMIT: what is committed is done, whatever comes of the tidying behind it.
    except Exception as error:
        if isinstance(error, FAILURES):
            _log.warning("after a commit: %s", reason(error))
        else:
            _log.exception("a defect in a step after a commit")
        return False
    return True


def _identity(path: Path) -> tuple[int, int]:
    status = path.stat()
    return status.st_dev, status.st_ino
