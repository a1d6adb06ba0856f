"""Where work that blocks is run: a parameter of the spool, because under a test clock it runs on the spot.

(Trio's MockClock, told to jump when all tasks wait, takes a task that waits for a thread for one of them.)
"""

from __future__ import annotations

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
        """Run ``work`` and give what it returns or raises. Once begun it is not abandoned."""
        ...


@final
class Threads:
    """Runs work in at most ``limit`` threads, which nobody else uses up."""

    def __init__(self, limit: int) -> None:
        """Start no thread yet."""
        self._limiter = trio.CapacityLimiter(limit)

    async def __call__(self, work: Callable[[], T], /) -> T:
        """Run ``work`` in a thread; cancellation is heeded only before it begins."""
        return await trio.to_thread.run_sync(work, limiter=self._limiter)


@final
class OneThread:
    """Runs work in one thread of its own, which it keeps. A hop to one of Trio's, which serve anybody, takes more time.

    The thread begins with the first work, and ends with ``close`` or with the program.
    """

    def __init__(self) -> None:
        """Start no thread yet."""
        self._errands: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._has_begun = False

    async def __call__(self, work: Callable[[], T], /) -> T:
        """Run ``work`` behind what came before; cancellation is heeded only now. SpoolError: no thread is to be had."""
        await trio.lowlevel.checkpoint_if_cancelled()
        self._begin()
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

    def close(self) -> None:
        """Let the thread end behind what it was given; nothing more may come."""
        if self._has_begun:
            self._errands.put(None)

    def _begin(self) -> None:
        if not self._has_begun:
            try:
                Thread(target=self._run, name="smtprecv spool", daemon=True).start()
            except RuntimeError as error:
                raise SpoolError(str(error)) from error
            self._has_begun = True

    def _run(self) -> None:
        while (errand := self._errands.get()) is not None:
            errand()
            del errand  # and what it holds, before waiting for the next


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
