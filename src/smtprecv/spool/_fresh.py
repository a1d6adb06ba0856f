"""Fresh mail: what this process has just accepted and has claimed at birth, handed over without a read.

Its one rule: room is taken before the transaction begins, so that never more is claimed than was asked for.
"""

from __future__ import annotations

import math
from heapq import heappop, heappush
from itertools import count
from typing import final

import trio

from smtprecv.spool._spool import Claim


@final
class Fresh:
    """The claims at birth of one ``Spool.fresh`` block; a ``FreshMail``."""

    def __init__(self, room: int) -> None:
        """Claim up to ``room`` messages that are not yet received."""
        self.is_over = False
        self._room = room
        self._waiting: list[tuple[int, int, Claim]] = []
        self._numbers = count()
        # One None for each that waits: the channel does the waiting, the heap knows the order.
        self._into, self._out = trio.open_memory_channel[None](math.inf)

    async def receive(self) -> Claim:
        """Wait for the next fresh message, the first of the highest priority. Cancellation loses none."""
        await self._out.receive()
        self._room += 1
        return heappop(self._waiting)[-1]

    def has_reserved(self) -> bool:
        """Take room for one message that is about to be accepted, if there is any."""
        if self._room <= 0:
            return False
        self._room -= 1
        return True

    def put_back_room(self) -> None:
        """Give back the room of a message that was not accepted."""
        self._room += 1

    def put(self, claim: Claim) -> None:
        """Offer a message that was accepted."""
        priority = claim.entry.envelope.parameters.priority
        heappush(self._waiting, (-priority, next(self._numbers), claim))
        self._into.send_nowait(None)

    def rest(self) -> list[Claim]:
        """End the block: give what was not received."""
        self.is_over = True
        self._into.close()
        rest: list[Claim] = []
        while True:
            try:
                # A receiver that has its None already will take one, too.
                self._out.receive_nowait()
            except trio.EndOfChannel:
                return rest
            rest.append(heappop(self._waiting)[-1])
