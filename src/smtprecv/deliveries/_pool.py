"""Connections that wait for the next message.

Its one rule: whatever comes on a connection that waits, an octet or its end, makes it useless. So each is watched by
a task of its own, in the nursery of ``running``; without that block nothing is kept.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Final, final

import trio

from smtprecv.deliveries._wire import Wire


@final
@dataclass(eq=False, slots=True)
class _Parked:
    wire: Wire
    watch: trio.CancelScope = field(default_factory=trio.CancelScope)
    is_over: trio.Event = field(default_factory=trio.Event)
    is_taken: bool = False
    is_useless: bool = False


@final
class Pool:
    """Keeps at most ``size`` connections, each for at most ``seconds``."""

    def __init__(self, size: int, seconds: float) -> None:
        """Keep none yet."""
        self._size: Final = size
        self._seconds: Final = seconds
        self._parked: Final[list[_Parked]] = []
        self._nursery: trio.Nursery | None = None

    @asynccontextmanager
    async def running(self) -> AsyncGenerator[None, None]:
        """Keep connections during the block; inside another such block it changes nothing."""
        if self._nursery is not None:
            yield
            return
        failure: BaseException | None = None
        async with trio.open_nursery() as nursery:
            self._nursery = nursery
            try:
                yield
            except BaseException as error:  # it goes on as it is, in no group of this nursery's
                failure = error
            self._nursery = None
            nursery.cancel_scope.cancel()
        if failure is not None:
            raise failure

    async def take(self, *, is_verified: bool) -> Wire | None:
        """Give the connection that waits for the shortest time, verified if it must be; None if there is none."""
        while (parked := self._newest(is_verified=is_verified)) is not None:
            parked.is_taken = True
            self._parked.remove(parked)
            parked.watch.cancel()
            with trio.CancelScope(shield=True):  # a watch that is cancelled is over at once
                await parked.is_over.wait()
            if not parked.is_useless:
                return parked.wire
            await parked.wire.abort()
        return None

    def _newest(self, *, is_verified: bool) -> _Parked | None:
        return next(
            (each for each in reversed(self._parked) if each.wire.next_hop.is_verified or not is_verified), None
        )

    async def give(self, wire: Wire) -> None:
        """Keep a connection, or close it where there is no room for it, or nobody to watch it."""
        if self._nursery is None or len(self._parked) >= self._size or not wire.is_usable:
            await wire.quit()
            return
        parked = _Parked(wire)
        self._parked.append(parked)
        self._nursery.start_soon(self._watch, parked)

    async def _watch(self, parked: _Parked) -> None:
        """Wait until the connection is taken, useless, or has waited for too long; in the last two cases close it."""
        parked.watch.deadline = trio.current_time() + self._seconds
        try:
            with parked.watch:
                with suppress(trio.BrokenResourceError):
                    await parked.wire.stream.receive_some(1)
                parked.is_useless = True
        finally:
            parked.is_over.set()
            if not parked.is_taken:
                self._parked.remove(parked)
                await (parked.wire.abort() if parked.is_useless else parked.wire.quit())
