"""Destinations in a run of the queue: who has his turn, who waits, and that nobody waits for another one's."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from tests.test_queue import (
    CLIENT,
    LATER,
    OK,
    PLAIN,
    Flaky,
    Scripted,
    accept,
    die_with_a_claim,
    envelope,
    now,
    one,
    spooling,
)

from smtprecv.deliveries import Route, Router
from smtprecv.delivery import Attempt
from smtprecv.message import DeliveryAnswer, Later, QueueId, Redirect
from smtprecv.note import JsonNote
from smtprecv.protocol import ByMode, DeliverBy, EnhancedStatus, MailParameters, Recipient, Reply
from smtprecv.queue import DestinationLimits, Report, run_once, run_queue
from smtprecv.retry import Backoff
from smtprecv.spool import Entry, Spool, Standing, Status

SECOND, MINUTE, HOUR, DAY = (dt.timedelta(seconds=n) for n in (1, 60, 3600, 86_400))
DEAD = Reply(451, "no connection in time", EnhancedStatus(4, 4, 1))
BUSY = Reply(451, "busy", EnhancedStatus(4, 3, 2))
LIMITS = DestinationLimits(concurrency=2)
FOREVER = Backoff(give_up_after=dt.timedelta.max)


def domain_of(recipient: Recipient) -> str:
    """Give the domain of a recipient."""
    return str(recipient.forward_path.mailbox.domain)


@dataclass
class Placed:
    """A delivery whose destinations are the domains; each takes as long as ``seconds`` says, and answers alike."""

    seconds: dict[str, float] = field(default_factory=dict[str, float])
    answers: dict[str, DeliveryAnswer] = field(default_factory=dict[str, DeliveryAnswer])
    tried: list[tuple[float, QueueId, tuple[str, ...]]] = field(default_factory=list)
    under_way: list[str] = field(default_factory=list)
    most: int = 0

    def destination(self, entry: Entry, recipient: Recipient) -> str | None:
        """Give the domain; there is no limit for one of them."""
        domain = domain_of(recipient)
        if domain == "raising.example":
            raise ZeroDivisionError
        return None if domain == "free.example" else domain

    async def deliver(self, attempt: Attempt) -> Sequence[DeliveryAnswer]:
        """Take time, and answer."""
        domains = [domain_of(recipient) for recipient in attempt.recipients]
        self.tried.append((trio.current_time(), attempt.queue_id, tuple(map(str, attempt.recipients))))
        self.under_way += domains
        self.most = max([self.most, *(self.under_way.count(domain) for domain in domains)])
        try:
            await trio.sleep(max(self.seconds.get(domain, 0) for domain in domains))
        finally:
            for domain in domains:
                self.under_way.remove(domain)
        return [self.answers.get(domain, OK) for domain in domains]

    def times(self, domain: str) -> list[float]:
        """Give when somebody at a domain was tried."""
        return [time for time, _, addresses in self.tried if any(each.endswith(domain) for each in addresses)]


async def start(
    nursery: trio.Nursery, spool: Spool, delivery: Placed | Router, retry: Backoff = PLAIN, concurrency: int = 20
) -> None:
    """Run the queue beside the test."""
    run = partial(run_queue, spool, delivery, retry, now=now, concurrency=concurrency, destinations=LIMITS)
    await nursery.start(run)


class Counted(Flaky):
    """A spool that counts outcomes."""

    records = 0

    def __getattr__(self, name: str) -> object:
        """Count what is recorded."""
        self.records += name == "record"
        return super().__getattr__(name)


async def accept_by(spool: Spool, address: str, seconds: int) -> None:
    """Accept a message that is to be delivered in so many seconds, or returned."""
    draft = await spool.begin(now())
    await draft.write(b"x\r\n")
    by = MailParameters(deliver_by=DeliverBy(seconds, ByMode.RETURN))
    await draft.commit(CLIENT, replace(envelope(address), parameters=by), now())


# Later.


@pytest.mark.parametrize(("asked", "waited"), [(0, 300), (200, 300), (1800, 1800), (10 * 3600, 7200)])
async def test_later(asked: float, waited: float, tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """Who is told when to come again comes no earlier, and no earlier than he would, but before he is given up."""
    delivery = Placed(answers={"b.example": Later(BUSY, dt.timedelta(seconds=asked))})
    async with spooling(tmp_path) as spool:
        await accept(spool, "a@b.example", "a@c.example")
        await run_once(spool, delivery, PLAIN, now=now)
        entry = await one(spool)
    assert entry.due == entry.received + dt.timedelta(seconds=waited)
    assert [(each.status, each.last) for each in entry.standings] == [(Status.PENDING, BUSY), (Status.DELIVERED, OK)]


async def test_later_than_a_day(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """More than a day counts as a day."""
    delivery = Placed(answers={"b.example": Later(BUSY, 9 * DAY)})
    async with spooling(tmp_path) as spool:
        await accept(spool, "a@b.example")
        await run_once(spool, delivery, now=now)
        assert (await one(spool)).due == now() + DAY


async def test_later_than_the_sender_has_time(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """RFC 2852 section 4: what is to be returned by a time is, whatever the delivery asks for."""
    delivery = Placed(answers={"b.example": Later(BUSY, HOUR)})
    async with spooling(tmp_path) as spool:
        await accept_by(spool, "a@b.example", 60)
        await run_once(spool, delivery, now=now)
        assert (await one(spool)).due == now() + MINUTE


def test_what_is_not_later() -> None:
    """Later is a 4yz, and not before now."""
    for reply, after in ((OK, HOUR), (Reply(550, "never"), HOUR), (BUSY, -SECOND)):
        with pytest.raises(ValueError, match="later"):
            Later(reply, after)


# Slots.


async def test_no_more_than_slots(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """One destination has so many attempts at a time, however many messages there are; all are served in the end."""
    delivery = Placed({"b.example": 5, "c.example": 5})
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        for _ in range(20):
            await accept(spool, "a@b.example")
            await accept(spool, "a@c.example")
        await start(nursery, spool, delivery)
        await trio.sleep(300)
        assert (delivery.most, len(delivery.tried), await spool.entries()) == (2, 40, [])
        # Nearly as fast as can be: a slot is not left free while messages wait for it.
        assert delivery.tried[-1][0] < 100
        nursery.cancel_scope.cancel()


async def test_no_limit_without_a_name(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """A destination that has no name, or cannot be told, has no limit but that of the run, and the log says why."""
    delivery = Placed({"free.example": 5, "raising.example": 5})
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        for _ in range(6):
            await accept(spool, "a@free.example", "a@raising.example")
        await start(nursery, spool, delivery)
        await trio.sleep(1)
        assert delivery.most == 6
        nursery.cancel_scope.cancel()


async def test_the_log_says_that_a_destination_cannot_be_told(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A fault of the user's `destination` costs nobody his mail."""
    async with spooling(tmp_path) as spool:
        queue_id = await accept(spool, "a@raising.example")
        assert await run_once(spool, Placed(), now=now) == Report(delivered=1)
    assert f"{queue_id}: the delivery raised when it was asked for a destination" in caplog.messages


async def test_what_is_no_name_of_a_destination(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A number in the place of a name, beside one that is a name, ends no run: it counts as none."""

    class Numbered(Placed):
        def destination(self, entry: Entry, recipient: Recipient) -> str | None:
            return 25 if domain_of(recipient) == "b.example" else "c.example"  # type: ignore[return-value]  # no str

    async with spooling(tmp_path) as spool:
        await accept(spool, "a@b.example", "a@c.example")
        assert await run_once(spool, Numbered(), now=now) == Report(delivered=2)
    assert "a destination is a str or None, not a int" in caplog.text


async def test_who_has_no_turn_has_nobody_tried_before_his_time(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Whom a redirect has put where there is no room waits; those who were deferred are not tried again meanwhile."""
    elsewhere = Redirect.to("z@dead.example")
    delivery = Placed({"dead.example": 10**6}, {"b.example": elsewhere, "c.example": LATER})
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        await start(nursery, spool, delivery)
        for _ in range(2):
            await accept(spool, "x@dead.example")
        await trio.sleep(1)
        await accept(spool, "a@b.example", "a@c.example")
        await trio.sleep(900)
        # Once for the attempt that the redirect brings at once, and then as the retry policy says: from there on.
        assert delivery.times("c.example") == pytest.approx([1, 1, 1 + 600], abs=1)
        nursery.cancel_scope.cancel()


async def test_what_is_only_put_off_is_seldom_written(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """A message that waits for long behind one that hangs is written less than twice in an hour."""
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        counting = Counted(spool)
        for _ in range(60):
            await accept(spool, "x@dead.example")
        await trio.sleep(4 * 3600)
        hanging = Placed({"dead.example": 10**6})
        await start(nursery, counting, hanging, FOREVER)  # type: ignore[arg-type]  # a Spool but for its type
        await trio.sleep(1)
        counting.records = 0
        await trio.sleep(2 * 3600)
        assert 60 < counting.records < 2 * 2 * 60
        nursery.cancel_scope.cancel()


async def test_a_dead_destination_delays_nobody_of_the_same_message(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Who has no turn is not among the recipients, and no attempt is counted; he comes when it is his turn."""
    delivery = Placed({"dead.example": 60})
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        await start(nursery, spool, delivery)
        for _ in range(2):
            await accept(spool, "x@dead.example")
        await trio.sleep(1)
        await accept(spool, "a@dead.example", "b@c.example")
        await trio.sleep(1)
        entry = (await spool.entries())[-1]
        assert [(each.status, each.attempts) for each in entry.standings] == [
            (Status.PENDING, 0),
            (Status.DELIVERED, 1),
        ]
        time, queue_id, addresses = delivery.tried[-1]
        assert (queue_id, addresses) == (entry.queue_id, ("b@c.example",))
        assert time == pytest.approx(1, abs=0.1)
        await trio.sleep(600)
        assert (delivery.tried[-1][2], await spool.entries()) == (("a@dead.example",), [])
        nursery.cancel_scope.cancel()


async def test_who_was_tried_sets_the_pace(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """A recipient that was deferred is not tried before its time because another one of the message has its turn."""
    delivery = Placed({"dead.example": 60}, {"c.example": LATER})
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        await start(nursery, spool, delivery)
        for _ in range(2):
            await accept(spool, "x@dead.example")
        await trio.sleep(1)
        await accept(spool, "a@dead.example", "b@c.example")
        await trio.sleep(1000)
        # The second time with the other one, who takes a minute.
        assert delivery.times("c.example") == pytest.approx([1, 301, 361 + 600], abs=1)
        nursery.cancel_scope.cancel()


@pytest.mark.slow
async def test_fair(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """Hundreds of due messages for a destination that hangs delay no fresh mail, and nothing that is due elsewhere."""
    delivery = Placed({"dead.example": 3600})
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        # Its slots, those that wait in memory, and three times as many beside them.
        for _ in range(200):
            await accept(spool, "x@dead.example")
        for _ in range(20):
            await accept(spool, "x@due.example")
        run = partial(run_queue, spool, delivery, PLAIN, now=now, destinations=DestinationLimits())
        await nursery.start(run)
        await trio.sleep(1)
        assert len(delivery.times("due.example")) == 20
        for _ in range(10):
            await accept(spool, "x@fresh.example")
            await trio.sleep(10)
        assert delivery.times("fresh.example") == pytest.approx([1 + 10 * n for n in range(10)], abs=1)
        assert len(delivery.times("dead.example")) == 10
        nursery.cancel_scope.cancel()


async def test_cancelled_in_the_line(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """A message that waits in memory when the run ends is given back as it was; so is what was being tried."""
    async with spooling(tmp_path) as spool:
        async with trio.open_nursery() as nursery:
            await start(nursery, spool, Placed({"dead.example": 3600}))
            for _ in range(8):
                await accept(spool, "x@dead.example")
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        entries = await spool.entries()
        assert [(entry.attempts, entry.due) for entry in entries] == [(0, entry.received) for entry in entries]
        assert await run_once(spool, Placed(), PLAIN, now=now) == Report(delivered=8)


async def test_put_off_until_it_is_recorded(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """What is put off is recorded as an outcome is: as often as it takes."""
    delivery = Placed({"dead.example": 20})
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        flaky = Flaky(spool, record=5)
        await start(nursery, flaky, delivery)  # type: ignore[arg-type]  # a Spool but for its type
        for _ in range(30):
            await accept(spool, "x@dead.example")
        await trio.sleep(3000)
        assert (flaky.failures["record"], len(delivery.tried), await spool.entries()) == (0, 30, [])
        nursery.cancel_scope.cancel()


async def test_is_delivered_is_asked_of_those_who_have_a_turn(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """To be put off asks nothing of the delivery; who has the message already takes no slot for long."""
    asked: list[str] = []

    class Checked(Placed):
        async def is_delivered(self, entry: Entry, recipient: Recipient) -> bool:
            asked.append(str(recipient))
            return domain_of(recipient) == "c.example"

    delivery = Checked({"dead.example": 60})
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        await start(nursery, spool, delivery)
        for _ in range(2):
            await accept(spool, "x@dead.example")
        await trio.sleep(1)
        await accept(spool, "a@dead.example", "b@c.example")
        await trio.sleep(1)
        assert asked == []
        await trio.sleep(200)
        assert asked == ["a@dead.example"]
        nursery.cancel_scope.cancel()
    async with spooling(tmp_path) as spool:
        await accept(spool, "a@c.example")
        await die_with_a_claim(tmp_path)
        assert await run_once(spool, delivery, PLAIN, now=now) == Report(delivered=1)
    assert asked == ["a@dead.example", "a@c.example"]


# The circuit.


async def test_a_destination_that_is_not_well_is_left_alone(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """After five failures nothing is sent for a pause, then one message; no attempt is counted for those put off."""
    delivery = Placed(answers={"dead.example": DEAD})
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        await start(nursery, spool, delivery)
        for _ in range(30):
            await accept(spool, "x@dead.example")
        await trio.sleep(25)
        # One more may have begun beside the fifth.
        assert len(delivery.tried) in (5, 6)
        entries = await spool.entries()
        assert sorted(entry.attempts for entry in entries)[:24] == [0] * 24
        assert all(entry.due is not None and entry.due > now() for entry in entries)
        await trio.sleep(30)
        assert len(delivery.tried) in (6, 7)

        delivery.answers.clear()
        await trio.sleep(3600)
        assert await spool.entries() == []
        assert (delivery.most, len(delivery.tried)) == (2, len(delivery.tried))
        nursery.cancel_scope.cancel()


async def test_who_refuses_one_message_is_well(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """A 4yz about a message, and an exception, say nothing of the destination: all are tried."""

    class Raising(Placed):
        async def deliver(self, attempt: Attempt) -> Sequence[DeliveryAnswer]:
            await super().deliver(attempt)
            raise ZeroDivisionError

    for delivery in (Placed(answers={"b.example": LATER}), Raising()):
        async with spooling(tmp_path / type(delivery).__name__) as spool:
            for _ in range(10):
                await accept(spool, "x@b.example")
            await run_once(spool, delivery, PLAIN, now=now, destinations=LIMITS)
        assert len(delivery.tried) == 10


async def test_a_pass_gives_everything_its_turn(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """`run_once` tries all that is due, by the slots of each destination, and puts off only what is in a pause."""
    delivery = Placed({"b.example": 5, "c.example": 7}, {"dead.example": DEAD})
    async with spooling(tmp_path) as spool:
        for _ in range(20):
            await accept(spool, "x@b.example", "x@c.example", "x@dead.example")
        report = await run_once(spool, delivery, PLAIN, now=now, destinations=LIMITS)
        assert report == Report(delivered=40, deferred=20)
        assert delivery.most <= 2
        assert len(delivery.times("dead.example")) < 10
        untried = [entry for entry in await spool.entries() if not entry.standings[2].attempts]
        assert len(untried) > 10
        assert {each.last for entry in untried for each in entry.pending} == {None}


async def standing_of(spool: Spool, name: str) -> Standing:
    """Give the one standing of a recipient of this local part."""
    standings = [each for entry in await spool.entries() for each in entry.standings]
    [found] = [each for each in standings if str(each.recipient).startswith(f"{name}@")]
    return found


async def test_time_runs_out_in_the_line(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """RFC 2852 section 4: what is to be returned by a time is, though it waits for a destination."""
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        await start(nursery, spool, Placed({"dead.example": 1000}))
        for _ in range(2):
            await accept(spool, "x@dead.example")
        await trio.sleep(1)
        await accept_by(spool, "a@dead.example", 60)
        await trio.sleep(62)
        standing = await standing_of(spool, "a")
        assert (standing.status, str(standing.last)) == (Status.FAILED, "554 5.4.7 delivery time expired")
        nursery.cancel_scope.cancel()


async def test_time_runs_out_in_a_pass(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """So it is where the pass lets everything wait for its turn."""
    async with spooling(tmp_path) as spool:
        for _ in range(2):
            await accept(spool, "x@dead.example")
            await trio.sleep(1)
        await accept_by(spool, "a@dead.example", 60)
        # Two are claimed first; the last one waits from the fiftieth second on, for fifty more.
        report = await run_once(spool, Placed({"dead.example": 50}), PLAIN, now=now, concurrency=2)
        standing = await standing_of(spool, "a")
    assert report == Report(delivered=2, failed=1)
    assert (standing.status, standing.attempts) == (Status.FAILED, 0)


class Policy:
    """A retry policy of the user's own, that gives up after an hour."""

    def next_attempt(
        self, queue_id: QueueId, attempts: int, received: dt.datetime, now: dt.datetime
    ) -> dt.datetime | None:
        """Try every five minutes."""
        assert attempts >= 1
        return None if now - received > HOUR else now + 5 * MINUTE


@pytest.mark.parametrize(("retry", "longest"), [(PLAIN, 7205), (Policy(), 3600 + 1200)])
async def test_given_up_without_a_turn(
    retry: Backoff | Policy, longest: float, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """What is only ever put off is given up at its time all the same, with a reply that says so."""
    delivery = Placed({"dead.example": 10**6})
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        for _ in range(2):
            await accept(spool, "x@dead.example")
        nursery.start_soon(partial(run_queue, spool, delivery, retry, now=now, destinations=LIMITS))
        await trio.sleep(1)
        await accept(spool, "a@dead.example")
        for _ in range(11):
            await accept(spool, "a@dead.example")
        await trio.sleep(longest)
        entries = await spool.entries()
        standings = [each for entry in entries for each in entry.standings if "a@" in str(each.recipient)]
        assert {(each.status, str(each.last), each.attempts) for each in standings} == {
            (Status.FAILED, "451 4.4.7 its turn did not come until it was given up", 0)
        }
        assert len(delivery.tried) == 2
        nursery.cancel_scope.cancel()


# Routers and notes.


@dataclass(frozen=True)
class Count:
    """A note."""

    number: int


@dataclass
class Counting:
    """A delivery that counts its attempts in a note."""

    inner: Placed
    counts: list[int] = field(default_factory=list)

    def destination(self, entry: Entry, recipient: Recipient) -> str | None:
        """Ask the inner one."""
        return self.inner.destination(entry, recipient)

    async def deliver(self, attempt: Attempt) -> Sequence[DeliveryAnswer]:
        """Count."""
        known = attempt.load(_CODEC) or Count(0)
        attempt.save(_CODEC, Count(known.number + 1))
        self.counts.append(known.number + 1)
        return await self.inner.deliver(attempt)


_CODEC = JsonNote(Count)


async def test_a_router_has_the_destinations_of_its_routes(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """Each route is asked, and each keeps its note, whichever of them have their turn."""
    slow, quick = Placed({"dead.example": 60}), Counting(Placed(answers={"c.example": LATER}))
    router = Router(Route(Counting(slow), "dead.example"), Route(quick, "c.example"), Route(Scripted(), "d.example"))
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        await start(nursery, spool, router)
        for _ in range(2):
            await accept(spool, "x@dead.example")
        await trio.sleep(1)
        await accept(spool, "a@dead.example", "b@c.example", "b@d.example", "b@none.example")
        await trio.sleep(400)
        assert quick.counts == [1, 2]
        assert slow.tried[-1][2] == ("a@dead.example",)
        [entry] = await spool.entries()
        assert [each.attempts for each in entry.standings] == [1, 2, 1, 2]
        nursery.cancel_scope.cancel()
    destinations = [router.destination(entry, each.recipient) for each in entry.standings]
    assert destinations == ["dead.example", "c.example", None, None]
