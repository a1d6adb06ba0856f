"""Cancellation at a chosen await, from within.

Its one rule: it knows no more of Trio than that a coroutine yields wherever it waits.
"""

from __future__ import annotations

from collections.abc import Awaitable, Coroutine, Generator
from typing import Final, Generic, TypeVar, final

import trio

_T = TypeVar("_T")


def cancelled_at(number: int, scope: trio.CancelScope, work: Coroutine[object, object, _T]) -> Awaitable[_T]:
    """Give what does the work, and cancels the scope as it begins to wait for the ``number``-th time."""
    return _CancelledAt(number, scope, work)


@final
class _CancelledAt(Generic[_T]):
    def __init__(self, number: int, scope: trio.CancelScope, work: Coroutine[object, object, _T]) -> None:
        self._left = number
        self._scope: Final = scope
        self._work: Final = work

    def __await__(self) -> Generator[object, object, _T]:
        steps: Generator[object, object, _T] = self._work.__await__()
        try:
            wait = next(steps)
            while True:
                self._left -= 1
                if not self._left:
                    self._scope.cancel()
                try:
                    result = yield wait
                except BaseException as error:  # what happened while waiting is for the work to see
                    wait = steps.throw(error)
                else:
                    wait = steps.send(result)
        except StopIteration as end:
            value: _T = end.value
            return value
