"""What a function of the program's may do on the spool's connection, and how it is undone when it fails.

The theory. The function runs in a transaction that others share. It has a SAVEPOINT of its own, so that it fails alone,
and an authorizer refuses whatever would reach out of that. SQLite asks the authorizer when it prepares a statement, and
prepares all of them anew when there is a new one, so only who uses such functions pays.

Its one rule: what cannot be undone ends the connection, and with it the transaction. Nobody in it was told anything
yet, so that all but the culprit are done again on a new one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from contextvars import copy_context
from typing import Final, TypeVar, final

from smtprecv.errors import CommitFailed, SpoolError
from smtprecv.message import Commit
from smtprecv.spool._jobs import Transaction

T = TypeVar("T")

_OURS: Final = "smtprecv_"
_READING: Final = frozenset(
    {sqlite3.SQLITE_READ, sqlite3.SQLITE_SELECT, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
)
_TEMPORARY: Final = "make anything temporary: it would outlive the function"
_FOREIGN: Final = "attach or detach another file: with a write-ahead log, a commit across files is not atomic"
_ENDING: Final = "begin or end a transaction: it shares one, and has a SAVEPOINT there already"
_REFUSED: Final[Mapping[int, str]] = {
    sqlite3.SQLITE_TRANSACTION: _ENDING,
    sqlite3.SQLITE_SAVEPOINT: _ENDING,
    sqlite3.SQLITE_ATTACH: _FOREIGN,
    sqlite3.SQLITE_DETACH: _FOREIGN,
    sqlite3.SQLITE_CREATE_TEMP_INDEX: _TEMPORARY,
    sqlite3.SQLITE_CREATE_TEMP_TABLE: _TEMPORARY,
    sqlite3.SQLITE_CREATE_TEMP_TRIGGER: _TEMPORARY,
    sqlite3.SQLITE_CREATE_TEMP_VIEW: _TEMPORARY,
}
_READING_PRAGMAS: Final = frozenset(
    {"foreign_key_check", "foreign_key_list", "index_info", "index_list", "index_xinfo"}
    | {"table_info", "table_list", "table_xinfo"}
)
_HAS_ENDED: Final = "go on when its transaction has ended"


@final
class WorkFailed(SpoolError):
    """A function raised ``error``, and what it did was undone. ``is_lost``: with the whole transaction."""

    def __init__(self, error: Exception, *, is_lost: bool = False) -> None:
        """Tell of one function."""
        super().__init__(error)
        self.error = error
        self.is_lost = is_lost


def as_job(work: Callable[[sqlite3.Connection], T]) -> Callable[[Transaction], T]:
    """Give a function as a job, which runs it in the context of who calls this, whoever leads its group."""
    context = copy_context()
    return lambda transaction: run_work(transaction.connection, lambda connection: context.run(work, connection))


def run_work(connection: sqlite3.Connection, work: Callable[[sqlite3.Connection], T]) -> T:
    """Run a function in a SAVEPOINT of its own, and give what it returns; WorkFailed if it raised, or must be refused.

    It must have done its work when it returns: TypeError for what would be done or read later.
    """
    connection.execute("SAVEPOINT work")
    try:
        with _guarded(connection):
            result = work(connection)
            _demand_done(result)
        connection.execute("RELEASE work")
    # A function of the user's: what it raises is told to who gave it, and must not fail the others in the transaction.
    except Exception as error:
        raise WorkFailed(error, is_lost=not _is_undone(connection)) from error
    return result


def run_commits(connection: sqlite3.Connection, commits: Sequence[Commit]) -> None:
    """Run what recipients' outcomes bring with them; CommitFailed with what each of those raised that did."""
    failures: dict[Commit, Exception] = {}
    for commit in dict.fromkeys(commits):
        try:
            run_work(connection, commit.work)
        except WorkFailed as failed:
            failures[commit] = failed.error
            if failed.is_lost:
                break
    if failures:
        raise CommitFailed(failures)


def _demand_done(result: object) -> None:
    """Refuse a coroutine, a generator, a cursor that has rows: it would be run or read behind the transaction."""
    if isinstance(result, sqlite3.Cursor) and result.description is None:
        return
    kind = type(result).__name__
    if isinstance(result, Awaitable | AsyncIterator | Iterator):
        if isinstance(result, Coroutine):
            result.close()
        msg = f"a function in the spool's transaction gave a {kind} back, and must have done its work when it returns"
        raise TypeError(msg)


@contextmanager
def _guarded(connection: sqlite3.Connection) -> Generator[None, None, None]:
    """Refuse in the block what must not be done, and put the connection's settings back."""
    row_factory, text_factory = connection.row_factory, connection.text_factory
    modes = _modes(connection)
    guard = _Guard(connection)
    connection.set_authorizer(guard)
    try:
        yield
    except sqlite3.DatabaseError as error:
        guard.demand_innocence(error)
        raise
    finally:
        connection.set_authorizer(None)
        connection.row_factory, connection.text_factory = row_factory, text_factory
        if _modes(connection) != modes:
            guard.refuse("change how the connection begins transactions")
            _end(connection)  # to put the mode back would be a COMMIT
    guard.demand_innocence(None)


@final
class _Guard:
    """SQLite's authorizer while a function of the program's runs."""

    def __init__(self, connection: sqlite3.Connection) -> None:
        self._connection = connection
        self._refusals: list[str] = []

    def __call__(self, action: int, first: str | None, second: str | None, _: str | None, __: str | None) -> int:
        refusal = self._refusal(action, first, second)
        if refusal is None:
            return sqlite3.SQLITE_OK
        self.refuse(refusal)
        return sqlite3.SQLITE_DENY

    def refuse(self, what: str) -> None:
        """Note what the function may not do."""
        self._refusals.append(what)

    def demand_innocence(self, error: Exception | None) -> None:
        """Raise RuntimeError if something was refused, even if the function has not minded."""
        if self._refusals:
            msg = f"a function in the spool's transaction may not {self._refusals[0]}"
            raise RuntimeError(msg) from error

    def _refusal(self, action: int, first: str | None, second: str | None) -> str | None:
        if not self._connection.in_transaction:
            return _HAS_ENDED
        if action in _READING:
            return None
        if action == sqlite3.SQLITE_PRAGMA:
            return None if first in _READING_PRAGMAS else f"use PRAGMA {first}"
        if any(name is not None and name.casefold().startswith(_OURS) for name in (first, second)):
            return f"change the tables of the spool ({_OURS}…)"
        return _REFUSED.get(action)


def _modes(connection: sqlite3.Connection) -> tuple[object, object]:
    # Python 3.12 has a second one.
    return connection.isolation_level, getattr(connection, "autocommit", None)


def _is_undone(connection: sqlite3.Connection) -> bool:
    """Undo what a function did; where that cannot be, end the connection."""
    try:
        connection.execute("ROLLBACK TO work")
        connection.execute("RELEASE work")
    except sqlite3.Error:
        _end(connection)
        return False
    return True


def _end(connection: sqlite3.Connection) -> None:
    """Close the connection, its transaction rolled back whatever statement is still under way."""
    with suppress(sqlite3.Error):
        connection.execute("ROLLBACK")
    connection.close()
