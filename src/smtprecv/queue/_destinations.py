"""Whose turn it is: how many attempts there may be at each destination, and when the others come back.

An attempt that has no slot waits in memory, without a slot of the run, if only few do so; all others go back into the
spool, due when their turn would plausibly come. Its one rule: whatever one destination does, it costs no other one more
than the slots that it may have.
"""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Final, final

import trio

from smtprecv.queue._circuit import Circuit, DestinationLimits
from smtprecv.retry import fraction

_MOST_KNOWN: Final = 1000
"""Destinations that are remembered beside those in use."""
_WAITING_PER_SLOT: Final = 4
"""Messages that wait in memory, for each slot of their destination."""
_LONGEST_WAIT: Final = 300.0
"""Seconds for which a message waits in memory, and by which it is put off beyond the end of a pause while it is new."""
_LONGEST_TURN: Final = 3600.0
"""The same for what is old: it is put off by a quarter of its age, so that what waits long is written seldom."""
_LEAST_WAIT: Final = 1.0
"""Seconds by which a message is put off at least: it costs two transactions."""
_FIRST_PACE: Final = 1.0
"""Seconds that an attempt is taken to last where none was measured."""
_NEWEST_SHARE: Final = 0.2
"""How much the last attempt counts for the pace."""


@final
class RunSlot:
    """A slot of the run, which whoever has it may give up for a while."""

    def __init__(self, slots: trio.Semaphore) -> None:
        """Hold a slot that was acquired."""
        self._slots: Final = slots
        self._is_held = True

    def release(self) -> None:
        """Let others have it; nothing if they do already."""
        if self._is_held:
            self._is_held = False
            self._slots.release()

    async def acquire(self) -> None:
        """Have one again. Cancellation: it is not held."""
        await self._slots.acquire()
        self._is_held = True


@final
class Destination:
    """One destination, as far as it is known."""

    def __init__(self, name: str, limits: DestinationLimits, size: int) -> None:
        """Suppose that it is well; ``size``: slots."""
        self.name: Final = name
        self.slots: Final = trio.Semaphore(size)
        self.circuit: Final = Circuit(name, limits)
        self._size: Final = size
        self._visits: Final[set[Visit]] = set()
        self._pace = _FIRST_PACE
        self._last_turn = -math.inf

    @property
    def is_in_use(self) -> bool:
        """True while an attempt is under way or waits."""
        return self.slots.value < self._size

    @property
    def has_room(self) -> bool:
        """Say whether one more message may wait in memory."""
        waiting = self.slots.statistics().tasks_waiting
        return self.circuit.is_closed and waiting < self._size * _WAITING_PER_SLOT

    def try_begin(self, now: float) -> Visit | None:
        """Begin a visit if that may be at once."""
        if not self.circuit.lets_pass(now) or not self.slots.value:
            return None
        self.slots.acquire_nowait()
        return self.begin(now)

    def begin(self, now: float) -> Visit | None:
        """Begin a visit in a slot that was acquired; if the circuit has opened meanwhile, give the slot back."""
        if not self.circuit.lets_pass(now):
            self.slots.release()
            return None
        visit = Visit(self, now, is_probe=self.circuit.begin())
        self._visits.add(visit)
        return visit

    def end(self, visit: Visit, now: float) -> None:
        """Free the slot, and learn from the visit."""
        self._visits.remove(visit)
        self.circuit.end(now, is_probe=visit.is_probe, is_well=visit.is_well)
        self._pace += _NEWEST_SHARE * (now - visit.began - self._pace)
        self.slots.release()

    def next_turn(self, name: str, age: float, now: float) -> float:
        """Give the seconds after which the message of this name has its turn, behind all that were put off before.

        ``age``: for how many seconds it has waited already.
        """
        # An attempt that hangs tells how long attempts last before it has ended.
        pace = min(max([self._pace, *(now - visit.began for visit in self._visits)]), _LONGEST_WAIT)
        step = pace / self._size
        start = self.circuit.resumes(now, pace)
        turn = max(self._last_turn, start + step * self.slots.statistics().tasks_waiting) + step
        longest = min(max(_LONGEST_WAIT, age / 4), _LONGEST_TURN)
        if turn > start + longest:
            # Nobody knows what is then: they come back spread over the second half of the time.
            turn = start + longest * (1 - fraction(name, 0) / 2)
        else:
            self._last_turn = turn
        return max(turn - now, _LEAST_WAIT)


@final
@dataclass(eq=False, slots=True)
class Visit:
    """A slot of a destination during one attempt; ``is_well``: what it told of the destination, None for nothing."""

    destination: Destination
    began: float
    is_probe: bool
    is_well: bool | None = None


@final
class Destinations:
    """The destinations of one run.

    ``is_pass``: the run is a single pass over what is due, in which everything has its turn: who waits keeps the slot
    of the run, and only a pause puts messages off.
    """

    def __init__(
        self,
        limits: DestinationLimits,
        concurrency: int,
        *,
        is_pass: bool = False,
        clock: Callable[[], float] = trio.current_time,
    ) -> None:
        """Know none yet; ``concurrency`` is that of the run."""
        self._limits: Final = limits
        self._size: Final = min(limits.concurrency, max(1, concurrency // 2))
        self._is_pass: Final = is_pass
        self._clock: Final = clock
        self._known: Final[dict[str, Destination]] = {}

    @asynccontextmanager
    async def visits(
        self, names: Collection[str], slot: RunSlot, *, patience: float, is_busy: bool
    ) -> AsyncGenerator[Mapping[str, Visit], None]:
        """Hold a slot of each of these destinations where that may be; wait for one if nothing else can be done.

        It waits for ``patience`` seconds at most, and not if it ``is_busy`` elsewhere. ``slot`` is held again when
        something is to be done. Cancellation ends the wait.
        """
        visits: dict[str, Visit] = {}
        try:
            if self._is_pass:
                await self._queue_up(names, visits, patience)
            elif (waited := self._enter(names, visits)) is not None and not visits and not is_busy:
                await self._wait(waited, visits, slot, min(patience, _LONGEST_WAIT))
            for visit in visits.values():
                visit.began = self._clock()
            yield visits
        finally:
            for visit in visits.values():
                visit.destination.end(visit, self._clock())

    def next_turn(self, destinations: Collection[str], name: str, age: float) -> float:
        """Give the seconds after which the message of this name and age has its turn at the first of these."""
        now = self._clock()
        return min(self._destination(each).next_turn(name, age, now) for each in destinations)

    def _enter(self, names: Collection[str], visits: dict[str, Visit]) -> Destination | None:
        """Begin what may begin at once, and give a destination at which to wait for the rest; None without room."""
        destinations = [self._destination(name) for name in names]
        for each in destinations:
            _note(visits, each.try_begin(self._clock()))
        return next((each for each in destinations if each.has_room), None)

    async def _wait(self, waited: Destination, visits: dict[str, Visit], slot: RunSlot, patience: float) -> None:
        """Wait for one destination, and let others have the slot of the run meanwhile."""
        slot.release()
        with trio.move_on_after(patience):
            await waited.slots.acquire()
            _note(visits, waited.begin(self._clock()))
        if visits:
            await slot.acquire()

    async def _queue_up(self, names: Collection[str], visits: dict[str, Visit], patience: float) -> None:
        """Wait at one destination after the other; all do so in one order, and so they all come to the end."""
        with trio.move_on_after(patience):
            for name in sorted(names):
                destination = self._destination(name)
                if destination.circuit.lets_pass(self._clock()):
                    await destination.slots.acquire()
                    _note(visits, destination.begin(self._clock()))

    def _destination(self, name: str) -> Destination:
        """Give what is known of a destination, the longest unused of which are forgotten."""
        found = self._known.pop(name, None) or Destination(name, self._limits, self._size)
        self._known[name] = found
        if len(self._known) > _MOST_KNOWN:
            unused = (each for each, destination in self._known.items() if not destination.is_in_use)
            oldest = next(unused, name)
            if oldest != name:
                del self._known[oldest]
        return found


def _note(visits: dict[str, Visit], visit: Visit | None) -> None:
    if visit is not None:
        visits[visit.destination.name] = visit
