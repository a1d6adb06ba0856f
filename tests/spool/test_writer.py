"""Group commit: who shares a transaction, who fails with whom, and what cancellation does."""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import trio
import trio.testing
from tests.spool.spoolhouse import Disk, on_the_spot

from smtprecv.errors import SpoolError, SpoolFull
from smtprecv.spool._jobs import Rank, Transaction
from smtprecv.spool._lock import WriteLock
from smtprecv.spool._schema import bound_log
from smtprecv.spool._thread import Begun
from smtprecv.spool._writer import Writer

T = TypeVar("T")


class Gate:
    """A thread that is as slow as the test wants: each hop waits until the gate is opened."""

    def __init__(self) -> None:
        """Begin open."""
        self.opened = trio.Event()
        self.opened.set()
        self.hops = 0
        self.has_threads = True

    def shut(self) -> None:
        """Let the next hop wait."""
        self.opened = trio.Event()

    async def __call__(self, work: Callable[[], T], /) -> T:
        """Run the work when the gate is open."""
        self.hops += 1
        if not self.has_threads:
            msg = "can't start new thread"
            raise RuntimeError(msg)
        await self.opened.wait()
        return await on_the_spot(work)


class House:
    """A writer, its disk, its gate, and what its jobs wrote."""

    def __init__(self, path: Path, wal_limit: int = 1 << 30) -> None:
        """Make the database."""
        self.disk = Disk()
        self.gate = Gate()
        self.has_room = True
        self.path = path / "d"
        self.path.touch()
        self.lock = WriteLock(path / "lock", 10)
        self.writer = Writer(
            self.path,
            lock=self.lock,
            run_in_thread=Begun(self.gate),
            connect=self.connect,
            has_room=lambda _: self.has_room,
        )
        self.wal_limit = wal_limit

    def connect(self) -> sqlite3.Connection:
        """Connect, and have a table."""
        connection = self.disk.connect(self.path)
        try:
            connection.execute("PRAGMA journal_mode = WAL").fetchall()
            bound_log(connection, self.wal_limit)
            connection.execute("CREATE TABLE IF NOT EXISTS t (n UNIQUE)")
        except sqlite3.Error:
            connection.close()
            raise
        return connection

    async def put(self, number: object, rank: Rank = Rank.RECORD) -> None:
        """Write one number."""
        await self.writer.run(rank, lambda work: work.connection.execute("INSERT INTO t VALUES (?)", (number,)))

    async def numbers(self) -> list[object]:
        """Give what was written, in order."""
        query = "SELECT n FROM t ORDER BY rowid"
        return await self.writer.run(Rank.READ, lambda work: [n for (n,) in work.connection.execute(query)])


@asynccontextmanager
async def house(path: Path, wal_limit: int = 1 << 30) -> AsyncGenerator[House, None]:
    """Have a writer."""
    it = House(path, wal_limit)
    await it.numbers()
    try:
        yield it
    finally:
        await it.writer.close(lambda: None)
        it.lock.close()


async def failure_of(work: Callable[[], object], into: list[str]) -> None:
    """Run one job and keep the name of what it raises."""
    try:
        await work()  # type: ignore[misc]
    except SpoolError as error:
        into.append(type(error).__name__)
    else:
        into.append("done")


async def test_a_group_shares_one_transaction(tmp_path: Path) -> None:
    """What waits while a group is at work is the next group: one hop, one COMMIT, in the order of arrival."""
    async with house(tmp_path) as it:
        it.gate.shut()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(it.put, 0)
            await trio.testing.wait_all_tasks_blocked()
            for number in (1, 2, 3):
                nursery.start_soon(it.put, number)
                await trio.testing.wait_all_tasks_blocked()
            it.disk.statements.clear()
            hops = it.gate.hops
            it.gate.opened.set()
        assert (it.gate.hops - hops, it.disk.statements.count("COMMIT")) == (1, 2)
        assert await it.numbers() == [0, 1, 2, 3]


async def test_what_is_ready_at_one_moment_is_one_group(tmp_path: Path) -> None:
    """Jobs that come in the same turn of the loop join the first of them."""
    async with house(tmp_path) as it:
        it.disk.statements.clear()
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(it.put, number)
        assert it.disk.statements.count("COMMIT") == 1


async def test_reads_need_no_write_transaction(tmp_path: Path) -> None:
    """A group of reads only begins without IMMEDIATE; one write among them asks for it."""
    async with house(tmp_path) as it:
        it.disk.statements.clear()
        await it.numbers()
        await it.put(1)
        assert [s for s in it.disk.statements if s.startswith("BEGIN")] == ["BEGIN", "BEGIN IMMEDIATE"]


async def test_a_bad_member_fails_alone(tmp_path: Path) -> None:
    """A job that fails is undone and told; the others of its group are committed."""
    async with house(tmp_path) as it:
        await it.put(1)
        outcomes: list[str] = []
        async with trio.open_nursery() as nursery:
            for number in (2, 1, 3, "\ud800"):
                nursery.start_soon(failure_of, partial(it.put, number), outcomes)
        assert sorted(outcomes) == ["SpoolError", "SpoolError", "done", "done"]
        assert sorted(map(str, await it.numbers())) == ["1", "2", "3"]


async def test_a_failed_commit_fails_all_and_outcomes_are_tried_first(tmp_path: Path) -> None:
    """When the transaction fails as a whole, its jobs are tried one by one, outcomes before new messages."""
    async with house(tmp_path) as it:
        order: list[Rank] = []

        def work(rank: Rank, _: Transaction) -> None:
            order.append(rank)

        async def do(rank: Rank) -> None:
            await it.writer.run(rank, partial(work, rank))

        it.disk.failing["COMMIT"] = sqlite3.SQLITE_IOERR
        outcomes: list[str] = []
        async with trio.open_nursery() as nursery:
            for rank in (Rank.ACCEPT, Rank.READ, Rank.RECORD, Rank.CLAIM):
                nursery.start_soon(failure_of, partial(do, rank), outcomes)
        assert outcomes == ["SpoolError"] * 4
        assert order[4:] == [Rank.RECORD, Rank.CLAIM, Rank.READ, Rank.ACCEPT]
        it.disk.failing.clear()
        await do(Rank.ACCEPT)


async def test_a_full_disk_in_a_group(tmp_path: Path) -> None:
    """SQLITE_FULL is SpoolFull for those it meets when they are tried alone; the others are committed."""
    async with house(tmp_path) as it:

        def big(_: Transaction) -> None:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error

        outcomes: list[str] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(failure_of, partial(it.writer.run, Rank.ACCEPT, big), outcomes)
            nursery.start_soon(failure_of, partial(it.put, 1), outcomes)
        assert sorted(outcomes) == ["SpoolFull", "done"]
        assert await it.numbers() == [1]


async def test_no_room_refuses_new_messages_only(tmp_path: Path) -> None:
    """Below the reserve a new message is SpoolFull, and an outcome in the same group is recorded."""
    async with house(tmp_path) as it:
        it.has_room = False
        outcomes: list[str] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(failure_of, partial(it.put, 1, Rank.ACCEPT), outcomes)
            nursery.start_soon(failure_of, partial(it.put, 2, Rank.RECORD), outcomes)
        assert sorted(outcomes) == ["SpoolFull", "done"]
        with pytest.raises(SpoolFull, match="no room"):
            await it.put(3, Rank.ACCEPT)
        it.has_room = True
        await it.put(4, Rank.ACCEPT)
        assert await it.numbers() == [2, 4]


async def test_cancellation_before_the_group_begins_withdraws(tmp_path: Path) -> None:
    """A job that waits for its group can be cancelled: it is never run."""
    async with house(tmp_path) as it:
        it.gate.shut()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(it.put, 0)
            await trio.testing.wait_all_tasks_blocked()
            scope = trio.CancelScope()

            async def put() -> None:
                with scope:
                    await it.put(1)

            nursery.start_soon(put)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            it.gate.opened.set()
        assert (scope.cancelled_caught, await it.numbers()) == (True, [0])


async def test_cancellation_of_a_group_under_way_waits(tmp_path: Path) -> None:
    """A job whose group has begun is waited for, the leader's and the others'; its outcome is not lost."""
    async with house(tmp_path) as it:
        it.gate.shut()
        ends: list[object] = []

        async def put(number: int, scope: trio.CancelScope) -> None:
            with scope:
                await it.put(number)
                ends.append(number)

        scopes = [trio.CancelScope(), trio.CancelScope()]
        async with trio.open_nursery() as nursery:
            for number, scope in enumerate(scopes):
                nursery.start_soon(put, number, scope)
            await trio.testing.wait_all_tasks_blocked()
            for scope in scopes:
                scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
            before = list(ends)
            it.gate.opened.set()
        assert (before, sorted(ends, key=str), len(await it.numbers())) == ([], [0, 1], 2)


async def test_a_cancelled_leader_hands_over(tmp_path: Path) -> None:
    """A leader that is cancelled while it waits for the write lock withdraws, and the next one leads."""
    async with house(tmp_path) as it:
        other = WriteLock(tmp_path / "lock", 10)
        scope = trio.CancelScope()
        async with trio.open_nursery() as nursery, other.held():

            async def lead() -> None:
                with scope:
                    await it.put(1)

            nursery.start_soon(lead)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(it.put, 2)
            await trio.testing.wait_all_tasks_blocked()
            scope.cancel()
            await trio.testing.wait_all_tasks_blocked()
        other.close()
        assert (scope.cancelled_caught, await it.numbers()) == (True, [2])


async def test_a_lock_that_is_not_to_be_had(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """After ten seconds without the write lock everything that waits fails, and the next attempt is free."""
    async with house(tmp_path) as it:
        other = WriteLock(tmp_path / "lock", 10)
        outcomes: list[str] = []
        start = trio.current_time()
        async with other.held(), trio.open_nursery() as nursery:
            for number in (1, 2):
                nursery.start_soon(failure_of, partial(it.put, number), outcomes)
        assert outcomes == ["SpoolError", "SpoolError"]
        assert 10 <= trio.current_time() - start < 10.1
        other.close()
        await it.put(3)
        assert await it.numbers() == [3]
    assert autojump_clock.autojump_threshold == 0


async def test_a_connection_that_cannot_roll_back_is_opened_anew(tmp_path: Path) -> None:
    """After a failure that SQLite cannot undo, the next group has a new connection."""
    async with house(tmp_path) as it:
        it.disk.failing.update({"COMMIT": sqlite3.SQLITE_IOERR, "ROLLBACK": sqlite3.SQLITE_IOERR})
        with pytest.raises(SpoolError, match="COMMIT failed"):
            await it.put(1)
        it.disk.failing.clear()
        await it.put(2)
        assert (it.disk.connections, await it.numbers()) == (2, [2])


async def test_a_connection_that_cannot_be_opened(tmp_path: Path) -> None:
    """While no connection can be had every job fails; nothing else happens, and later it works."""
    async with house(tmp_path) as it:
        it.disk.failing.update({"COMMIT": sqlite3.SQLITE_IOERR, "ROLLBACK": sqlite3.SQLITE_IOERR, "PRAGMA": 1})
        outcomes: list[str] = []
        for _ in range(2):
            async with trio.open_nursery() as nursery:
                for number in (1, 2):
                    nursery.start_soon(failure_of, partial(it.put, number), outcomes)
        assert outcomes == ["SpoolError"] * 4
        it.disk.failing.clear()
        assert await it.numbers() == []


async def test_a_database_that_was_moved_away(tmp_path: Path) -> None:
    """Nothing is acknowledged into a file that has lost its name; when it is back, work goes on."""
    async with house(tmp_path) as it:
        away = it.path.rename(tmp_path / "away")
        with pytest.raises(SpoolError):
            await it.put(1)
        it.path.touch()
        with pytest.raises(SpoolError, match="is not the file that was opened"):
            await it.put(2)
        away.rename(it.path)
        await it.put(3)
        assert await it.numbers() == [3]


async def test_the_log_has_a_bound(tmp_path: Path) -> None:
    """Past its bound the write-ahead log is brought back into the database, and written over from its start."""
    async with house(tmp_path, wal_limit=20_000) as it:
        wal = it.path.with_name("d-wal")
        sizes = []
        for number in range(20):
            await it.put(number)
            sizes.append(wal.stat().st_size)
        assert sizes == sorted(sizes)
        assert 20_000 < sizes[-1] == sizes[9] < 30_000


async def test_a_log_that_became_long_is_cut(tmp_path: Path) -> None:
    """What a large transaction has made of the log is given back to the disk, behind the first commit of a new log."""
    async with house(tmp_path, wal_limit=20_000) as it:
        wal = it.path.with_name("d-wal")
        await it.put("x" * 200_000)
        assert wal.stat().st_size > 200_000
        await it.put(1)
        assert wal.stat().st_size == 40_000


async def test_a_checkpoint_that_fails_fails_nobody(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whether the log can be brought back or not, the members of a failed group are tried: it is logged only."""
    async with house(tmp_path) as it:
        it.disk.failing |= {"COMMIT": sqlite3.SQLITE_FULL, "PRAGMA wal_checkpoint": sqlite3.SQLITE_IOERR}
        outcomes: list[str] = []
        await failure_of(partial(it.put, 1), outcomes)
        it.disk.failing.clear()
        await it.put(1)
        assert outcomes == ["SpoolFull"]
        assert await it.numbers() == [1]
        assert "could not be brought back" in caplog.text


async def test_steps_behind_a_commit(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A step behind the COMMIT runs only if its job succeeded; its own failure is logged only."""
    async with house(tmp_path) as it:
        steps: list[str] = []

        def work(name: str, number: int, transaction: Transaction) -> None:
            transaction.after_commit(lambda _: steps.append(name))
            transaction.connection.execute("INSERT INTO t VALUES (?)", (number,))

        def broken(transaction: Transaction) -> None:
            def fail(_: sqlite3.Connection) -> None:
                raise OSError(5, "broken step")

            transaction.after_commit(fail)

        await it.writer.run(Rank.RECORD, partial(work, "good", 1))
        with pytest.raises(SpoolError):
            await it.writer.run(Rank.RECORD, partial(work, "bad", 1))
        await it.writer.run(Rank.RECORD, broken)
        assert steps == ["good"]
        assert "broken step" in caplog.text


async def test_steps_that_wait_for_a_commit_that_succeeds(tmp_path: Path) -> None:
    """What waits for the next COMMIT runs behind one that wrote something, and not behind a read or a failure."""
    async with house(tmp_path) as it:
        steps: list[int] = []
        it.writer.after_next_commit(lambda _: steps.append(1))
        await it.numbers()
        await it.put(0)
        it.writer.after_next_commit(lambda _: steps.append(2))
        with pytest.raises(SpoolError):
            await it.put(0)  # writes, and is undone
        it.disk.failing["COMMIT"] = sqlite3.SQLITE_IOERR
        with pytest.raises(SpoolError):
            await it.put(1)
        assert (steps, it.writer.has_leftovers) == ([1], True)
        it.disk.failing.clear()
        await it.put(2)
        assert (steps, it.writer.has_leftovers) == ([1, 2], False)


async def test_a_step_that_fails_is_taken_again(tmp_path: Path) -> None:
    """What waits for a COMMIT and fails behind it waits for the next one."""
    async with house(tmp_path) as it:
        steps: list[int] = []

        def step(_: sqlite3.Connection) -> None:
            steps.append(len(steps))
            if len(steps) < 3:
                raise OSError(5, "broken step")

        it.writer.after_next_commit(step)
        for number in range(4):
            await it.put(number)
        assert (steps, it.writer.has_leftovers) == ([0, 1, 2], False)


async def test_a_defect_in_a_job_fails_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """An exception that no job should raise is a SpoolError for its caller, and logged; the others are committed."""
    async with house(tmp_path) as it:

        def defect(transaction: Transaction) -> None:
            transaction.connection.execute("INSERT INTO t VALUES (9)")
            raise KeyError(0)

        outcomes: list[str] = []

        async def lead() -> None:
            with pytest.raises(SpoolError, match=r"a defect \(KeyError\)"):
                await it.writer.run(Rank.RECORD, defect)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(failure_of, partial(it.put, 1), outcomes)
            nursery.start_soon(lead)
            nursery.start_soon(failure_of, partial(it.put, 2), outcomes)
        assert outcomes == ["done", "done"]
        assert sorted(map(str, await it.numbers())) == ["1", "2"]
        assert "KeyError: 0" in caplog.text


async def test_an_exit_in_a_job_strands_nobody(tmp_path: Path) -> None:
    """What is to end the program reaches the leader; the rest of the group fails and is not stranded."""
    async with house(tmp_path) as it:

        def leave(_: Transaction) -> None:
            raise SystemExit

        outcomes: list[str] = []

        async def lead() -> None:
            with pytest.raises(SystemExit):
                await it.writer.run(Rank.RECORD, leave)

        async with trio.open_nursery() as nursery:
            it.gate.shut()
            nursery.start_soon(it.numbers)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(lead)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(failure_of, partial(it.put, 1), outcomes)
            await trio.testing.wait_all_tasks_blocked()
            it.gate.opened.set()
        assert outcomes == ["SpoolError"]
        assert await it.numbers() == []


async def test_a_job_that_ends_the_transaction(tmp_path: Path) -> None:
    """When a job has left no transaction to go back in, the others are tried alone."""
    async with house(tmp_path) as it:

        def end(transaction: Transaction) -> None:
            transaction.connection.execute("ROLLBACK")
            raise KeyError(0)

        outcomes: list[str] = []
        async with trio.open_nursery() as nursery:
            nursery.start_soon(failure_of, partial(it.put, 1), outcomes)
            nursery.start_soon(failure_of, partial(it.writer.run, Rank.RECORD, end), outcomes)
        assert sorted(outcomes) == ["SpoolError", "done"]
        assert await it.numbers() == [1]


@pytest.mark.parametrize("error", [OSError(5, "broken step"), "\ud800", KeyError(0)])
async def test_no_step_fails_what_is_committed(tmp_path: Path, error: object, caplog: pytest.LogCaptureFixture) -> None:
    """Whatever a step behind the COMMIT raises is logged: the leader and its group have succeeded."""
    async with house(tmp_path) as it:
        outcomes: list[str] = []

        def work(transaction: Transaction) -> None:
            def step(_: sqlite3.Connection) -> None:
                if isinstance(error, Exception):
                    raise error
                str(error).encode()

            transaction.connection.execute("INSERT INTO t VALUES (1)")
            transaction.after_commit(step)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(failure_of, partial(it.writer.run, Rank.RECORD, work), outcomes)
            nursery.start_soon(failure_of, partial(it.put, 2), outcomes)
        assert outcomes == ["done", "done"]
        assert len(await it.numbers()) == 2
        assert "after a commit" in caplog.text


async def test_there_is_one_leader(tmp_path: Path) -> None:
    """Between the end of a group and the waking of its successor nobody else begins to lead."""
    async with house(tmp_path) as it:
        leading: list[int] = [0]
        most: list[int] = []
        lead = it.writer._lead

        async def counted(own: object) -> None:
            leading[0] += 1
            most.append(leading[0])
            await lead(own)  # type: ignore[arg-type]
            leading[0] -= 1

        it.writer._lead = counted  # type: ignore[method-assign]

        async def put_many(first: int) -> None:
            for number in range(first, first + 5):
                await it.put(number)

        it.gate.shut()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(put_many, 0)
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(put_many, 10)
            await trio.testing.wait_all_tasks_blocked()
            it.gate.opened.set()
        assert (max(most), len(await it.numbers())) == (1, 10)


async def test_a_failed_group_makes_room_first(tmp_path: Path) -> None:
    """Before the members of a failed group are tried alone the log is brought back: that may be what they lacked."""
    async with house(tmp_path) as it:
        await it.put(0)
        it.disk.statements.clear()
        it.disk.failing["COMMIT"] = sqlite3.SQLITE_FULL
        outcomes: list[str] = []
        async with trio.open_nursery() as nursery:
            for number in (1, 2):
                nursery.start_soon(failure_of, partial(it.put, number), outcomes)
        it.disk.failing.clear()
        steps = [s for s in it.disk.statements if s.startswith(("COMMIT", "PRAGMA wal_checkpoint"))]
        assert steps == ["COMMIT", "PRAGMA wal_checkpoint(RESTART)", "COMMIT", "COMMIT"]
        assert outcomes == ["SpoolFull", "SpoolFull"]


async def test_what_is_insisted_on(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """A job that nobody waits for joins every group, a reading one too, until it has succeeded once."""
    async with house(tmp_path) as it:
        it.writer.insist(Rank.RECORD, lambda work: work.connection.execute("INSERT INTO t VALUES (1)"))
        other = WriteLock(tmp_path / "lock", 10)
        async with other.held():
            with pytest.raises(SpoolError):
                await it.put(2)
        other.close()
        it.disk.failing["COMMIT"] = sqlite3.SQLITE_IOERR
        with pytest.raises(SpoolError):
            await it.put(2)
        it.disk.failing.clear()
        await it.numbers()
        await it.put(3)
        assert await it.numbers() == [1, 3]
    assert autojump_clock.autojump_threshold == 0


async def test_a_thread_that_cannot_be_started(tmp_path: Path) -> None:
    """Where no thread is to be had, the group was not done: SpoolError for each. What work raises is told as is."""
    async with house(tmp_path) as it:
        it.gate.has_threads = False
        outcomes: list[str] = []
        async with trio.open_nursery() as nursery:
            for number in (1, 2):
                nursery.start_soon(failure_of, partial(it.put, number), outcomes)
        assert outcomes == ["SpoolError", "SpoolError"]
        it.gate.has_threads = True
        await it.put(3)
        assert await it.numbers() == [3]

        def fail() -> None:
            raise RuntimeError

        with pytest.raises(RuntimeError):
            await Begun(it.gate)(fail)


async def test_nothing_runs_when_it_is_closed(tmp_path: Path) -> None:
    """A job behind the close is refused and opens no connection."""
    async with house(tmp_path) as it:
        pass
    with pytest.raises(SpoolError):
        await it.put(1)
    assert it.disk.connections == 1


async def test_the_close_waits_for_the_group_under_way(tmp_path: Path) -> None:
    """A close beside a group that is at work waits until that is committed: nobody uses a connection that is gone."""
    it = House(tmp_path)
    await it.numbers()
    it.gate.shut()
    outcomes: list[str] = []
    async with trio.open_nursery() as nursery:
        nursery.start_soon(failure_of, partial(it.put, 1), outcomes)
        await trio.testing.wait_all_tasks_blocked()
        hops = it.gate.hops
        nursery.start_soon(it.writer.close, lambda: None)
        await trio.testing.wait_all_tasks_blocked()
        assert it.gate.hops == hops
        nursery.start_soon(failure_of, partial(it.put, 2), outcomes)
        await trio.testing.wait_all_tasks_blocked()
        it.gate.opened.set()
    it.lock.close()
    assert outcomes == ["done", "SpoolError"]


async def test_control_c_waits(tmp_path: Path) -> None:
    """It does not take a task away whose group will wake it."""
    is_protected: list[bool] = []
    async with house(tmp_path) as it:
        await it.writer.run(Rank.READ, lambda _: is_protected.append(trio.lowlevel.currently_ki_protected()))
    assert is_protected == [True]
