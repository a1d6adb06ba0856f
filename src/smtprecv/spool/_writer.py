"""Group commit: everything that touches the database passes through here, in groups.

The theory. A COMMIT costs an fdatasync whatever it holds, so what waits is committed together. A job
that finds nobody at work leads: it takes the write lock and everything that waits by then, runs it
as one transaction in one hop to a thread, and wakes the others when COMMIT has returned; meanwhile the
next group gathers, and its first job leads next. No task lives in the background, so nothing can be left over.

Its one rule: a job's outcome is told only behind its COMMIT. Each job has a SAVEPOINT of its own, so
that a bad one fails alone; when the transaction as a whole fails, its jobs are tried one by one,
those that record outcomes first. What happens behind a COMMIT can fail nobody. Cancellation withdraws
a job until its group begins, and not after that. It does not know what the jobs do.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import IntEnum, auto
from functools import partial
from pathlib import Path
from typing import Final, TypeAlias, TypeVar, final

import trio

from smtprecv.errors import SpoolError, SpoolFull
from smtprecv.spool._failure import FAILURES, as_spool_error, is_behind, is_disk_trouble, reason
from smtprecv.spool._lock import WriteLock
from smtprecv.spool._thread import RunInThread

T = TypeVar("T")

Step: TypeAlias = Callable[[sqlite3.Connection], None]
"""What is done in the thread, under the write lock, behind a COMMIT."""

_log: Final = logging.getLogger("smtprecv.spool")


@final
class Rank(IntEnum):
    """What a job is about, in the order in which jobs are tried one by one."""

    RECORD = auto()
    """It ends something: the last to be refused for want of room."""
    CLAIM = auto()
    READ = auto()
    """It changes nothing."""
    ACCEPT = auto()
    """It needs room for a new message, beside the reserve."""


@final
class Transaction:
    """What a job is given: the connection, and what is to happen when the COMMIT has succeeded."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        """Run on ``connection``."""
        self.connection = connection
        self.has_written = False
        self.steps: list[Step] = []

    def after_commit(self, step: Step) -> None:
        """Run ``step`` in the thread, under the write lock, behind the COMMIT. Its failure is logged only."""
        self.steps.append(step)


@final
class _Job:
    """One piece of work and its outcome: until it is done, it has failed."""

    def __init__(self, rank: Rank, work: Callable[[Transaction], object], task: trio.lowlevel.Task | None) -> None:
        self.rank = rank
        self.work = work
        self.task = task  # None: nobody waits for it
        self.has_begun = False
        self.failure: SpoolError | None = SpoolError("the transaction broke off")

    def wake(self) -> None:
        """Let go on who waits for it."""
        if self.task is not None:
            trio.lowlevel.reschedule(self.task)


@final
class Writer:
    """The one connection of this process to the database at ``database``, and the queue of jobs before it.

    ``connect`` opens and prepares the connection; ``has_room`` says whether a message may be
    taken; past ``wal_limit`` octets the write-ahead log is brought back into the database.
    """

    def __init__(
        self,
        database: Path,
        *,
        lock: WriteLock,
        run_in_thread: RunInThread,
        connect: Callable[[], sqlite3.Connection],
        has_room: Callable[[sqlite3.Connection], bool],
        wal_limit: int,
    ) -> None:
        """Begin without a connection: the first group opens it."""
        self._database = database
        self._wal = database.with_name(f"{database.name}-wal")
        self._lock = lock
        self._run_in_thread = run_in_thread
        self._connect = connect
        self._has_room = has_room
        self._wal_limit = wal_limit
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._waiting: list[_Job] = []
        self._insisted: list[_Job] = []
        self._is_led = False
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
        self._insisted.append(_Job(rank, work, None))

    async def run(self, rank: Rank, work: Callable[[Transaction], T]) -> T:
        """Run ``work`` in a transaction, with others; when this returns, the transaction is durable.

        SpoolFull or SpoolError: nothing of it was done. ``work`` may be run twice, the first time
        rolled back. Cancellation withdraws it until its group begins; from then on it is waited for.
        """
        results: list[T] = []
        job = _Job(rank, lambda transaction: results.append(work(transaction)), trio.lowlevel.current_task())
        await trio.lowlevel.checkpoint_if_cancelled()
        self._waiting.append(job)
        if self._is_led:
            await trio.lowlevel.wait_task_rescheduled(partial(self._withdraw, job))
        if not job.has_begun:
            await self._lead(job)
        if job.failure is not None:
            raise job.failure
        return results[-1]

    async def close(self, last: Callable[[], None]) -> None:
        """Close the connection and do ``last``, both under the write lock; SpoolError if that was not to be had.

        A group under way is waited for; later ones fail.
        """
        async with self._lock.held():
            self._is_closed = True
            await self._run_in_thread(partial(self._end, last))

    def _withdraw(self, job: _Job, _raise_cancel: object) -> trio.lowlevel.Abort:
        if job.has_begun:
            return trio.lowlevel.Abort.FAILED
        self._waiting.remove(job)
        return trio.lowlevel.Abort.SUCCEEDED

    async def _lead(self, own: _Job) -> None:
        """Run one group, wake its members, call the next leader."""
        self._is_led = True
        group: list[_Job] = []
        try:
            async with self._lock.held():  # a checkpoint: what is ready at this same moment joins
                group = self._take_waiting()
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

    def _take_waiting(self) -> list[_Job]:
        group, self._waiting = [*self._waiting, *self._insisted], []
        for job in group:
            job.has_begun = True
        return group

    # What follows runs in the thread, under the write lock.

    def _work_off(self, group: Sequence[_Job]) -> None:
        try:
            connection = self._connected()
            jobs = self._admitted(connection, group)
        except FAILURES as error:
            for job in group:
                job.failure = as_spool_error(error)
            return
        if not self._is_done_together(jobs):
            self._checkpoint()  # perhaps it makes room
            if len(jobs) > 1:
                for job in sorted(jobs, key=lambda job: job.rank):
                    self._is_done_together([job])
        if self._wal_size() > self._wal_limit:
            self._checkpoint()

    def _admitted(self, connection: sqlite3.Connection, group: Sequence[_Job]) -> Sequence[_Job]:
        """Refuse new messages while there is no room beside the reserve; let all else pass."""
        if all(job.rank is not Rank.ACCEPT for job in group) or self._has_room(connection):
            return group
        for job in group:
            job.failure = SpoolFull("no room for another message")
        return [job for job in group if job.rank is not Rank.ACCEPT]

    def _is_done_together(self, jobs: Sequence[_Job]) -> bool:
        """Run the jobs as one transaction; False if it failed as a whole, and all of them with it."""
        try:
            connection = self._connected()
            reads_only = all(job.rank is Rank.READ for job in jobs)
            connection.execute("BEGIN" if reads_only else "BEGIN IMMEDIATE")
            outcomes = [_run_alone(connection, job) for job in jobs]
            connection.execute("COMMIT")
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
        for job, outcome in zip(jobs, outcomes, strict=True):
            job.failure = outcome if isinstance(outcome, SpoolError) else None
        self._take_steps(connection, [outcome for outcome in outcomes if isinstance(outcome, Transaction)])
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

    def _wal_size(self) -> int:
        try:
            return self._wal.stat().st_size
        except OSError:
            return 0

    def _checkpoint(self) -> None:
        if self._connection is None:
            return
        try:
            self._connection.execute("PRAGMA wal_checkpoint(RESTART)").fetchall()
        except sqlite3.Error as error:
            _log.warning("the write-ahead log could not be brought back: %s", error)


def _run_alone(connection: sqlite3.Connection, job: _Job) -> Transaction | SpoolError:
    """Run one job in a SAVEPOINT; what fails because of the job itself fails only the job."""
    transaction = Transaction(connection)
    failure: SpoolError | None = None
    changes = connection.total_changes
    connection.execute("SAVEPOINT job")
    try:
        job.work(transaction)
        transaction.has_written = connection.total_changes != changes
    # Around one member of a group: a defect in what one caller wants must not fail what the others want.
    except Exception as error:
        if not isinstance(error, FAILURES):
            _log.exception("a defect in a job of the spool")
        failure = as_spool_error(error)
        if is_disk_trouble(error) or not _is_undone(connection):
            raise failure from error
    connection.execute("RELEASE job")
    return failure or transaction


def _is_undone(connection: sqlite3.Connection) -> bool:
    """Undo what a job did; False if the transaction is no more."""
    try:
        connection.execute("ROLLBACK TO job")
    except sqlite3.Error:
        return False
    return True


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
