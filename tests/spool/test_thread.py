"""The one thread of the writer: work in turn, what comes of it, and its end."""

from __future__ import annotations

import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import trio
import trio.testing

from smtprecv.errors import SpoolError
from smtprecv.spool import open_spool
from smtprecv.spool._thread import OneThread


@asynccontextmanager
async def one_thread() -> AsyncGenerator[OneThread, None]:
    """Have a thread, and have it ended."""
    thread = OneThread()
    try:
        yield thread
    finally:
        thread.close()


def threads() -> list[threading.Thread]:
    """Give the threads of this kind that there are."""
    return [thread for thread in threading.enumerate() if thread.name == "smtprecv spool"]


async def test_work_is_done_in_turn_in_one_thread() -> None:
    """What is asked for at the same time is done one after the other, and each is given its own result."""
    idents: set[int] = set()
    results: dict[int, int] = {}

    def work(number: int) -> int:
        idents.add(threading.get_ident())
        return number * number

    async def ask(number: int) -> None:
        results[number] = await thread(lambda: work(number))

    async with one_thread() as thread:
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

    async with one_thread() as thread:
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

    async with one_thread() as thread:
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


async def test_no_thread_to_be_had(monkeypatch: pytest.MonkeyPatch) -> None:
    """That is a SpoolError, and the next work tries again."""

    def refuse(_: threading.Thread) -> None:
        msg = "can't start new thread"
        raise RuntimeError(msg)

    async with one_thread() as thread:
        with monkeypatch.context() as patch:
            patch.setattr(threading.Thread, "start", refuse)
            with pytest.raises(SpoolError, match="can't start new thread"):
                await thread(lambda: None)
        assert await thread(lambda: 1) == 1


async def test_a_spool_has_its_thread_while_it_is_open(tmp_path: Path) -> None:
    """Closing it ends the thread."""
    before = threads()
    async with open_spool(tmp_path):
        [mine] = [thread for thread in threads() if thread not in before]
    await trio.to_thread.run_sync(mine.join, 10)
    assert not mine.is_alive()
