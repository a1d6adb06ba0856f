"""The contract of a delivery, as one suite: every ``Delivery`` must pass ``check_delivery``.

Its one rule: it knows the Protocols and nothing of any delivery. What arrived is seen only through ``copies``, which
whoever tests a delivery gives; each message has a queue id, a text and recipients of its own.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Final, TypeAlias, final

import trio

from smtprecv.delivery import Delivery, DeliveryCheck, DeliveryDestination
from smtprecv.message import Commit, DeliveryAnswer, Later
from smtprecv.protocol import Body, Reply, Severity
from smtprecv.testing._cancelling import cancelled_at
from smtprecv.testing._parcel import Parcel
from smtprecv.testing._sample import LATER, fail, same

OpenDelivery: TypeAlias = Callable[[], AbstractAsyncContextManager[Delivery]]
"""Makes a delivery that delivers to a place of the test's own, for as long as the block lasts."""

Copies: TypeAlias = Callable[[], Awaitable[Sequence[bytes]]]
"""Gives all copies that have arrived, whole or not, in any order: their octets, perhaps below other fields."""

_PATIENCE: Final = 30
_LARGE: Final = b"0123456789abcdefghijklmnopqrstuvwxyz\r\n" * 100_000
_BINARY: Final = b"\0\r\n.\r\n\rFrom me\n\nFrom you\r\n\x80\xff" + bytes(range(256))
_MOST_AWAITS: Final = 200


async def check_delivery(
    open_delivery: OpenDelivery, copies: Copies | None = None, *, connection: sqlite3.Connection | None = None
) -> None:
    """Hold a delivery to its contract; AssertionError with a sentence that says which promise it broke.

    The delivery serves every recipient at example.com and example.org at once, or answers 5yz to all of them.
    Without ``copies`` it is not seen whether what arrived is what was sent. On ``connection`` is done what comes
    as a Commit, each of them twice, the first time rolled back; its ``isolation_level`` is None. Each check that waits
    does so for at most thirty seconds. Run it without a test clock if the delivery waits for threads, processes or
    sockets.
    """
    for check in CHECKS:
        async with open_delivery() as delivery:
            with trio.fail_after(_PATIENCE):
                await check(Place(delivery, copies, connection))


@final
@dataclass(frozen=True, slots=True)
class Place:
    """A delivery, and how to see what has arrived."""

    delivery: Delivery
    copies: Copies | None
    connection: sqlite3.Connection | None = None

    async def deliver(self, promise: str, parcel: Parcel) -> bool:
        """Deliver, require that replies and copies go together, and say whether all recipients were served."""
        attempt = parcel.attempt()
        outcomes = await self.delivery.deliver(attempt)
        same(f"{promise}: one reply for each pending recipient", len(outcomes), len(attempt.recipients))
        replies = self.replies(outcomes)
        if any(reply.severity is Severity.INTERMEDIATE for reply in replies):
            fail(f"{promise}: a 3yz reply says nothing about a delivery")
        if any(reply.severity is Severity.TRANSIENT for reply in replies):
            fail(f"{promise}: nothing stands in the way, and the replies are {', '.join(map(str, replies))}")
        is_served = any(reply.is_ok for reply in replies)
        await self.see(promise, parcel, is_served=is_served)
        return is_served

    def replies(self, outcomes: Sequence[DeliveryAnswer]) -> Sequence[Reply]:
        """Give the replies among the outcomes, when what comes with them is done."""
        for commit in dict.fromkeys(outcome for outcome in outcomes if isinstance(outcome, Commit)):
            if self.connection is None:
                fail("a Commit needs a connection to the database that it writes to: check_delivery(…, connection=…)")
            for ending in ("ROLLBACK", "COMMIT"):
                self.connection.execute("BEGIN")
                commit.work(self.connection)
                self.connection.execute(ending)
        found = [outcome.reply if isinstance(outcome, Commit | Later) else outcome for outcome in outcomes]
        return [reply for reply in found if isinstance(reply, Reply)]

    async def see(self, promise: str, parcel: Parcel, *, is_served: bool) -> None:
        """Require that a copy has arrived, or none."""
        count = await self.count(promise, parcel)
        if count is not None and (count > 0) is not is_served:
            fail(f"{promise}: {count} copies have arrived, and the replies say {'yes' if is_served else 'no'}")

    async def repeat(self, promise: str, parcel: Parcel) -> None:
        """Require that an attempt which was cut short can be repeated, and that all copies are whole."""
        await self.count(promise, parcel)
        await self.deliver(f"repeated after it was {promise}", parcel)

    async def count(self, promise: str, parcel: Parcel) -> int | None:
        """Give how many copies of a message have arrived, each of them whole; None if that can't be seen."""
        if self.copies is None:
            return None
        copies = [copy for copy in await self.copies() if parcel.token in copy]
        for copy in copies:
            if not parcel.is_in(copy):
                fail(f"{promise}: a copy is not whole, or not what was sent: {copy[:200]!r}")
        return len(copies)


async def _check_replies(place: Place) -> None:
    for names in (("ada",), ("ada", "Bob", "c"), ("ada", "ada")):
        await place.deliver("a message is delivered", Parcel(names=names))
    await place.deliver("only those are replied for that are pending", Parcel(names=("ada", "Bob", "c"), served=1))


async def _check_octets(place: Place) -> None:
    for start, rest in (
        (b"", b""),
        (b" white space\r\n", b"last\r\n"),
        (b"From me\r\n>From you\r\n\r\n", b"From \r\n>>From \r\nFrom\r\n"),
        (b"\r\n", b"no line end"),
    ):
        await place.deliver("a message is what it is", Parcel(start, rest))
    await place.deliver("binary octets are not changed", Parcel(rest=_BINARY, body=Body.BINARY_MIME))


async def _check_large(place: Place) -> None:
    await place.deliver("a large message arrives", Parcel(rest=_LARGE, is_large=True))


async def _check_cancellation(place: Place) -> None:
    """Cancel at the first await, at the second, and so on; then the attempt is repeated."""
    for number in range(1, _MOST_AWAITS):
        parcel = Parcel(names=("ada", "Bob"))
        with trio.CancelScope() as scope:
            await cancelled_at(number, scope, _deliver(place.delivery, parcel))
        await place.repeat(f"cancelled at await {number}", parcel)
        if not scope.cancelled_caught:
            return
    fail(f"a small message is delivered in fewer than {_MOST_AWAITS} awaits")


async def _check_cancellation_while_reading(place: Place) -> None:
    for pieces in range(3):
        parcel = Parcel(pieces=pieces, scope=trio.CancelScope())
        with parcel.scope or trio.CancelScope():
            await _deliver(place.delivery, parcel)
        await place.repeat(f"cancelled after {pieces} pieces", replace(parcel, pieces=None))


async def _check_unreadable(place: Place) -> None:
    """The queue cannot be read in the middle of a message: nobody is served, and nobody is refused."""
    promise = "a message that cannot be read is tried again"
    for pieces in (0, 1, 5):
        parcel = Parcel(rest=_LARGE, is_large=True, pieces=pieces)
        try:
            outcomes = await place.delivery.deliver(parcel.attempt())
        # The delivery is the user's code, and whatever it raises counts as 451.
        except Exception:
            outcomes = [LATER]
        severities = {reply.severity for reply in place.replies(outcomes)}
        same(promise, severities, {Severity.TRANSIENT})
        same(f"{promise}: no copy of it has arrived", await place.count(promise, parcel) or 0, 0)
        await place.repeat(promise, replace(parcel, pieces=None))


async def _check_is_delivered(place: Place) -> None:
    delivery = place.delivery
    if not isinstance(delivery, DeliveryCheck):
        return
    served, other = Parcel(names=("ada", "Bob")), Parcel(names=("ada", "Bob"))
    for promise, expected in (("is_delivered() before the delivery", False), ("is_delivered() after it", True)):
        for recipient in served.attempt().recipients:
            same(promise, await delivery.is_delivered(served.entry, recipient), expected)
        await place.deliver("a message is delivered", served)
    for recipient in other.attempt().recipients:
        same("is_delivered() of another message", await delivery.is_delivered(other.entry, recipient), expected=False)


async def _check_destination(place: Place) -> None:
    """A destination has a name, or none, and the same whenever it is asked for: so its limits hold for all attempts."""
    delivery = place.delivery
    if not isinstance(delivery, DeliveryDestination):
        return
    parcel = Parcel(names=("ada", "Bob"))
    for recipient in parcel.attempt().recipients:
        name = delivery.destination(parcel.entry, recipient)
        same("destination() of one recipient, asked twice", delivery.destination(parcel.entry, recipient), name)
        if name is not None and not name:
            fail("destination() gives a name, or None")


async def _check_crowd(place: Place) -> None:
    promise = "several messages at once"
    served: list[Parcel] = []
    broken: list[AssertionError] = []

    async def deliver(parcel: Parcel) -> None:
        try:
            # What arrives is looked at when all is done: a copy on its way need not be whole.
            if await replace(place, copies=None).deliver(promise, parcel):
                served.append(parcel)
        except AssertionError as error:
            broken.append(error)

    parcels = [Parcel(names=("ada", name)) for name in "abcdefgh"]
    async with trio.open_nursery() as nursery:
        for parcel in parcels:
            nursery.start_soon(deliver, parcel)
    for error in broken:
        raise error
    for parcel in parcels:
        await place.see(promise, parcel, is_served=parcel in served)


async def _deliver(delivery: Delivery, parcel: Parcel) -> None:
    await delivery.deliver(parcel.attempt())


CHECKS: Final[Sequence[Callable[[Place], Awaitable[None]]]] = (
    _check_replies,
    _check_octets,
    _check_large,
    _check_cancellation,
    _check_cancellation_while_reading,
    _check_unreadable,
    _check_is_delivered,
    _check_destination,
    _check_crowd,
)
"""The suite: each check is given a delivery of its own."""
