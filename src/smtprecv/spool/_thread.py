"""Where work that blocks is run: a parameter of the spool, because under a test clock it runs on the spot.

(Trio's MockClock, told to jump when all tasks wait, takes a task that waits for a thread for one of them.)
"""

from __future__ import annotations

from collections.abc import Callable
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
