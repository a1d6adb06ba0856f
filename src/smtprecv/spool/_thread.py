"""Where work that blocks is run: a parameter of the spool, because under a test clock it runs on the spot.

(Trio's MockClock, told to jump when all tasks wait, takes a task that waits for a thread for one of them.)
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Protocol, TypeVar, final

import trio

from smtprecv.errors import SpoolError

T = TypeVar("T")


class RunInThread(Protocol):
    """Runs work that blocks: in a thread, or in tests on the spot."""

    async def __call__(self, work: Callable[[], T], /) -> T:
        """Run ``work`` and give what it returns or raises. Once begun it is not abandoned.

        May be called under Trio's protection from Control-C.
        """
        ...


@final
class Threads:
    """Runs work in at most ``limit`` threads of its own, which it keeps: a hop to one of Trio's takes more time.

    A thread begins where there is work that no other is free for. All end when nobody refers to this any more.
    """

    def __init__(self, limit: int) -> None:
        """Start no thread yet."""
        self._limit = limit
        self._free = trio.Semaphore(limit)
        self._begun = 0
        self._errands: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        weakref.finalize(self, self._errands.put, None)

    # Control-C in the middle would leave a thread that wakes a task which has gone on.
    @trio.lowlevel.enable_ki_protection
    async def __call__(self, work: Callable[[], T], /) -> T:
        """Run ``work``; cancellation is heeded only before it begins. SpoolError: not one thread is to be had."""
        await trio.lowlevel.checkpoint_if_cancelled()
        try:
            self._free.acquire_nowait()  # where one is free, waiting would take a turn of the event loop
        except trio.WouldBlock:
            await self._free.acquire()
        try:
            self._begin()
            return await self._run(work)
        finally:
            self._free.release()

    async def _run(self, work: Callable[[], T]) -> T:
        task, token = trio.lowlevel.current_task(), trio.lowlevel.current_trio_token()
        results: list[T] = []
        errors: list[BaseException] = []

        def errand() -> None:
            try:
                results.append(work())
            # Whatever it is, it is the task's, and the thread goes on.
            except BaseException as error:
                errors.append(error)
            token.run_sync_soon(trio.lowlevel.reschedule, task)

        self._errands.put(errand)
        await trio.lowlevel.wait_task_rescheduled(lambda _: trio.lowlevel.Abort.FAILED)
        if errors:
            raise errors.pop()
        return results[0]

    def _begin(self) -> None:
        """See to it that there is a thread for each work that is under way."""
        if self._begun < self._limit - self._free.value:
            try:
                Thread(target=_run_all, args=(self._errands,), name="smtprecv spool", daemon=True).start()
                self._begun += 1
            except RuntimeError as error:
                if not self._begun:  # those that there are do it in turn
                    raise SpoolError(str(error)) from error


def _run_all(errands: SimpleQueue[Callable[[], None] | None]) -> None:
    while (errand := errands.get()) is not None:
        errand()
        del errand  # and what it holds, before waiting for the next
    errands.put(None)  # for the next thread


@final
class Begun:
    """Runs work as ``run_in_thread`` does, and tells where it was not even begun, for want of a thread: SpoolError."""

    def __init__(self, run_in_thread: RunInThread) -> None:
        """Run nothing yet."""
        self._run_in_thread = run_in_thread

    async def __call__(self, work: Callable[[], T], /) -> T:
        """Run ``work``; SpoolError if it was not begun."""
        has_begun = False

        def begin() -> T:
            nonlocal has_begun
            has_begun = True
            return work()

        try:
            return await self._run_in_thread(begin)
        except RuntimeError as error:
            if has_begun:
                raise
            raise SpoolError(str(error)) from error
