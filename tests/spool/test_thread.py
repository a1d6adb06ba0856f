"""The threads of a spool: how many there are, what comes of work, and their end."""

from __future__ import annotations

import gc
import threading
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing

from smtprecv.errors import SpoolError
from smtprecv.spool import open_spool
from smtprecv.spool._thread import Threads


@asynccontextmanager
async def all_ended() -> AsyncGenerator[Callable[[], int], None]:
    """Give how many threads of this kind have begun in the block; when nobody refers to them any more they must end."""
    before = {*threading.enumerate()}

    def mine() -> list[threading.Thread]:
        return [each for each in threading.enumerate() if each.name == "smtprecv spool" and each not in before]

    yield lambda: len(mine())
    with trio.fail_after(10):
        while left := mine():
            gc.collect()  # more than once: a thread may be letting go of what it has done
            await trio.to_thread.run_sync(left[0].join, 0.1)


async def test_work_is_done_in_turn_in_one_thread() -> None:
    """What is asked for at the same time is done one after the other, and each is given its own result."""
    idents: set[int] = set()
    results: dict[int, int] = {}

    def work(number: int) -> int:
        idents.add(threading.get_ident())
        return number * number

    async def ask(number: int) -> None:
        results[number] = await thread(lambda: work(number))

    thread = Threads(1)
    async with trio.open_nursery() as nursery:
        for number in range(10):
            nursery.start_soon(ask, number)
    assert results == {number: number * number for number in range(10)}
    assert len(idents) == 1
    assert threading.get_ident() not in idents


async def test_what_work_raises_is_raised_and_the_thread_goes_on() -> None:
    """Even what is no Exception ends only the work."""

    def work() -> None:
        raise SystemExit(7)

    thread = Threads(1)
    with pytest.raises(SystemExit, match="7"):
        await thread(work)
    assert await thread(lambda: "next") == "next"


async def test_cancellation_waits_for_what_has_begun_and_prevents_what_has_not() -> None:
    """Work that was handed over is waited for; where there was a cancellation before, nothing is."""
    done: list[str] = []
    may_end = threading.Event()

    def work() -> None:
        may_end.wait(10)
        done.append("begun before")

    async def ask() -> None:
        await thread(work)

    thread = Threads(1)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(ask)
        await trio.testing.wait_all_tasks_blocked()
        nursery.cancel_scope.cancel()
        trio.lowlevel.current_trio_token().run_sync_soon(may_end.set)
    assert done == ["begun before"]
    with trio.CancelScope() as scope:
        scope.cancel()
        await thread(lambda: done.append("not begun"))
    assert scope.cancelled_caught
    assert await thread(lambda: done) == ["begun before"]


async def test_as_many_at_a_time_as_are_allowed() -> None:
    """Work is done side by side up to the limit; what waits for a free thread can be cancelled."""
    side_by_side = threading.Barrier(2, timeout=10)
    may_end = threading.Event()
    done: list[str] = []

    def long() -> None:
        side_by_side.wait()
        may_end.wait(10)
        done.append("long")

    async with all_ended() as begun:
        both = Threads(2)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(both, long)
            nursery.start_soon(both, long)
            await trio.testing.wait_all_tasks_blocked()
            async with trio.open_nursery() as impatient:
                impatient.start_soon(both, lambda: done.append("never"))
                await trio.testing.wait_all_tasks_blocked()
                impatient.cancel_scope.cancel()
            nursery.start_soon(both, lambda: done.append("last"))
            await trio.testing.wait_all_tasks_blocked()
            assert (done, begun()) == ([], 2)
            may_end.set()
        assert (sorted(done), done[0]) == (["last", "long", "long"], "long")
        assert begun() == 2
        del both


async def test_no_more_threads_than_are_needed() -> None:
    """Work that comes behind other work is done by the same thread."""
    async with all_ended() as begun:
        four = Threads(4)
        for _ in range(20):
            await four(lambda: None)
        assert begun() == 1
        del four


async def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is a SpoolError, and the next work tries again; where there are some, they do the work in turn."""

    def refuse(_: threading.Thread) -> None:
        msg = "can't start new thread"
        raise RuntimeError(msg)

    done: list[int] = []
    async with all_ended() as begun:
        both = Threads(2)
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(SpoolError, match="can't start new thread"):
                await both(lambda: None)
        assert await both(lambda: 1) == 1
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            async with trio.open_nursery() as nursery:
                for number in range(5):
                    nursery.start_soon(both, partial(done.append, number))
        assert (sorted(done), begun()) == ([*range(5)], 1)
        del both


async def test_control_c_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """It does not take a task away between work that is handed over and what comes of it."""
    is_protected: list[bool] = []

    def wait(abort: Callable[[trio.lowlevel.RaiseCancelT], trio.lowlevel.Abort]) -> Awaitable[object]:
        is_protected.append(trio.lowlevel.currently_ki_protected())
        return wait_task_rescheduled(abort)

    wait_task_rescheduled = trio.lowlevel.wait_task_rescheduled
    thread = Threads(1)
    monkeypatch.setattr(trio.lowlevel, "wait_task_rescheduled", wait)
    await thread(lambda: None)
    assert is_protected == [True]


async def test_threads_end_when_nobody_has_them() -> None:
    """What has no block of its own need not be closed."""
    async with all_ended() as begun:
        both = Threads(2)
        assert await both(lambda: 2) == 2
        assert begun() == 1
        del both


async def test_a_spool_has_one_for_its_writer_and_as_many_as_it_needs_for_files(tmp_path: Path) -> None:
    """They end when nobody has the spool any more, nor a message of it."""
    async with all_ended() as begun, open_spool(tmp_path) as spool:
        assert await spool.count() == 0
        assert begun() == 2
        del spool
