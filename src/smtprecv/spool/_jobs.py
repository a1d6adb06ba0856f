"""What a group of the writer does: jobs, and how they share one transaction.

The rule: each job has a SAVEPOINT of its own, so that a bad one fails alone. The jobs of a ``Batch`` are done together,
like one job: with as few statements as that takes, because each of them lets go of the interpreter and has to get it
back from the event loop. Where one of them is bad, each is done by itself. All of it runs in the writer's thread.
"""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from enum import IntEnum, auto
from typing import Final, Generic, Protocol, TypeAlias, TypeVar, final

import trio

from smtprecv.errors import SpoolError
from smtprecv.spool._failure import FAILURES, as_spool_error, is_disk_trouble

ItemT = TypeVar("ItemT")

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


Work: TypeAlias = Callable[[Transaction], object]


@final
class Job:
    """One piece of work and its outcome: until it is done, it has failed."""

    def __init__(self, rank: Rank, work: Work, batch: _Together | None = None) -> None:
        self.rank = rank
        self.work = work
        self.batch = batch
        self.task: trio.lowlevel.Task | None = None  # None: nobody waits for it
        self.has_begun = False
        self.failure: SpoolError | None = SpoolError("the transaction broke off")

    def wake(self) -> None:
        """Let go on who waits for it."""
        if self.task is not None:
            trio.lowlevel.reschedule(self.task)


Outcome: TypeAlias = tuple[Sequence[Job], Transaction | SpoolError]


class _Together(Protocol):
    """What does jobs together."""

    def is_one_statement(self, jobs: Sequence[Job]) -> bool:
        """Say whether that is one statement, which is a transaction by itself."""
        ...

    def run(self, transaction: Transaction, jobs: Sequence[Job]) -> None:
        """Do them."""
        ...


@final
class Batch(Generic[ItemT]):
    """Work that is done for many items with the same statements; a ``_Together``.

    ``work`` is given some items; ``is_one_statement`` says for which it has one statement. Where it fails with more
    than one item, that is undone, and it is given each of them by itself.
    """

    def __init__(
        self,
        rank: Rank,
        work: Callable[[Transaction, Sequence[ItemT]], None],
        is_one_statement: Callable[[Sequence[ItemT]], bool] = lambda _: False,
    ) -> None:
        """Do ``work``, in jobs of this rank."""
        self._rank = rank
        self._work = work
        self._is_one_statement = is_one_statement
        self._items: dict[Job, ItemT] = {}

    def add(self, item: ItemT) -> Job:
        """Give the job for one item, until it is forgotten."""
        job = Job(self._rank, lambda transaction: self._work(transaction, [item]), self)
        self._items[job] = item
        return job

    def forget(self, job: Job) -> None:
        """Let go of a job that is over."""
        del self._items[job]

    def is_one_statement(self, jobs: Sequence[Job]) -> bool:
        """Say whether these jobs are one statement."""
        return self._is_one_statement([self._items[job] for job in jobs])

    def run(self, transaction: Transaction, jobs: Sequence[Job]) -> None:
        """Do these jobs."""
        self._work(transaction, [self._items[job] for job in jobs])


def in_one_statement(connection: sqlite3.Connection, jobs: Sequence[Job]) -> Sequence[Outcome]:
    """Do all jobs with a statement that is a transaction by itself; no outcomes if that is not to be."""
    batches = {job.batch for job in jobs}
    batch = batches.pop() if len(batches) == 1 else None
    if batch is None or not batch.is_one_statement(jobs):
        return ()
    transaction = Transaction(connection)
    try:
        batch.run(transaction, jobs)
    # Around what several callers want: a defect in what one of them wants is found where each is run by itself.
    except Exception as error:
        if isinstance(error, FAILURES):
            raise
        return ()
    transaction.has_written = True
    return [(jobs, transaction)]


def in_transaction(connection: sqlite3.Connection, jobs: Sequence[Job]) -> Sequence[Outcome]:
    """Do all jobs in one transaction, each with an outcome of its own; what is raised has failed them all."""
    reads_only = all(job.rank is Rank.READ for job in jobs)
    connection.execute("BEGIN" if reads_only else "BEGIN IMMEDIATE")
    batches: dict[Job | _Together, list[Job]] = {}
    for job in jobs:
        batches.setdefault(job.batch or job, []).append(job)
    outcomes = [outcome for members in batches.values() for outcome in _run_members(connection, members)]
    connection.execute("COMMIT")
    return outcomes


def _run_members(connection: sqlite3.Connection, jobs: Sequence[Job]) -> Iterator[Outcome]:
    """Run the jobs of a batch together, or one that has none; where there is a bad one among them, each by itself."""
    batch = jobs[0].batch
    if batch is not None and len(jobs) > 1:
        outcome = _run_alone(connection, lambda transaction: batch.run(transaction, jobs))
        if isinstance(outcome, Transaction):
            yield jobs, outcome
            return
    for job in jobs:
        yield [job], _run_alone(connection, job.work)


def _run_alone(connection: sqlite3.Connection, work: Work) -> Transaction | SpoolError:
    """Run work in a SAVEPOINT; what fails because of the work itself fails nothing else."""
    transaction = Transaction(connection)
    failure: SpoolError | None = None
    changes = connection.total_changes
    connection.execute("SAVEPOINT job")
    try:
        work(transaction)
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
