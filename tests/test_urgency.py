"""What a sender says of a message's urgency: the time to deliver it by, and its priority."""

from __future__ import annotations

import datetime as dt
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st
from tests.test_queue import (
    CLIENT,
    EPOCH,
    LATER,
    OK,
    PLAIN,
    Redirecting,
    Scripted,
    die_with_a_claim,
    envelope,
    now,
    one,
    spooling,
    start,
)

from smtprecv.delivery import Attempt
from smtprecv.message import QueueId
from smtprecv.protocol import ByMode, DeliverBy, EnhancedStatus, MailParameters, Recipient, Reply
from smtprecv.queue import Report, run_once, run_queue
from smtprecv.retry import Backoff
from smtprecv.spool import Entry, Spool, Status

EXPIRED = Reply(554, "delivery time expired", EnhancedStatus(5, 4, 7))
RETURN = MailParameters(deliver_by=DeliverBy(600, ByMode.RETURN))


async def accept(spool: Spool, parameters: MailParameters, *addresses: str) -> QueueId:
    """Accept a message with these parameters, received now."""
    draft = await spool.begin(now())
    await draft.write(b"Subject: x\r\n\r\n")
    wanted = replace(envelope(*(addresses or ("b@example.com",))), parameters=parameters)
    return (await draft.commit(CLIENT, wanted, now())).queue_id


def outcomes(entry: Entry) -> list[tuple[Status, Reply | None]]:
    """Give how each recipient stands, and its last reply."""
    return [(standing.status, standing.last) for standing in entry.standings]


# The time to deliver by.


async def test_what_is_to_be_returned_fails_at_its_time(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """RFC 2852: with mode R nothing is tried past the time, and who still waits then has failed with 5.4.7."""
    delivery = Scripted(lambda address, _attempt: OK if address[0] == "c" else LATER)
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        await start(nursery, spool, delivery)
        await accept(spool, RETURN, "b@example.com", "c@example.com")
        await trio.sleep(599)
        assert outcomes(await one(spool)) == [(Status.PENDING, LATER), (Status.DELIVERED, OK)]
        assert (await one(spool)).due == EPOCH + dt.timedelta(seconds=600)
        await trio.sleep(2)
        entry = await one(spool)
        assert outcomes(entry) == [(Status.FAILED, EXPIRED), (Status.DELIVERED, OK)]
        assert (entry.due, entry.attempts) == (None, 2)
        await trio.sleep(5_000)
        assert [time for time, _ in delivery.offered] == [0, 300]
        nursery.cancel_scope.cancel()


async def test_what_is_to_be_told_of_goes_on(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """With mode N the time ends nothing: attempts follow the schedule, before it and past it."""
    delivery = Scripted(lambda _address, attempt: LATER if attempt < 4 else OK)
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        await start(nursery, spool, delivery)
        await accept(spool, MailParameters(deliver_by=DeliverBy(600, ByMode.NOTIFY)))
        await trio.sleep(3000)
        assert [time for time, _ in delivery.offered] == [0, 300, 900, 2100]
        assert await spool.entries() == []
        nursery.cancel_scope.cancel()


async def test_an_earlier_end_by_the_retry_policy_stays(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """What the retry policy gives up before the time fails with the last reply, as ever."""
    delivery = Scripted(lambda _address, _attempt: LATER)
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        await start(nursery, spool, delivery)
        await accept(spool, MailParameters(deliver_by=DeliverBy(100_000, ByMode.RETURN)))
        await trio.sleep(3 * 60 * 60)
        assert outcomes(await one(spool)) == [(Status.FAILED, LATER)]
        nursery.cancel_scope.cancel()


async def test_what_is_late_is_not_tried(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """What nobody could try in time is returned and not delivered late, whoever asks for it; the log says so."""
    caplog.set_level("INFO")
    delivery = Scripted()
    async with spooling(tmp_path) as spool:
        queue_id = await accept(spool, RETURN)
        await trio.sleep(600)
        assert await run_once(spool, delivery, PLAIN, now=now) == Report(failed=1)
        assert outcomes(await one(spool)) == [(Status.FAILED, EXPIRED)]
        assert caplog.messages == [f"{queue_id}: to=<b@example.com> failed: 554 5.4.7 delivery time expired"]
        assert await run_once(spool, delivery, PLAIN, ids=[queue_id], now=now) == Report(failed=1)
        assert outcomes(await one(spool)) == [(Status.FAILED, EXPIRED)]
    assert delivery.offered == []


async def test_the_last_moment_is_in_time(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """Until its time a message is tried, and what begins in time may end later."""

    class Slow(Scripted):
        async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
            replies = await super().deliver(attempt)
            await trio.sleep(60)
            return replies

    delivery = Slow()
    async with spooling(tmp_path) as spool:
        await accept(spool, RETURN)
        await trio.sleep(599)
        assert await run_once(spool, delivery, PLAIN, now=now) == Report(delivered=1)
        assert await spool.entries() == []


async def test_what_was_delivered_in_time_did_not_fail(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """A delivery that a crash kept from being recorded is found before its message is returned."""

    class Found(Scripted):
        async def is_delivered(self, entry: Entry, recipient: Recipient) -> bool:
            await trio.lowlevel.checkpoint()
            return True

    async with spooling(tmp_path) as spool:
        await accept(spool, RETURN)
    await die_with_a_claim(tmp_path)
    await trio.sleep(700)
    async with spooling(tmp_path) as spool:
        assert await run_once(spool, Found(), PLAIN, now=now) == Report(delivered=1)
        assert await spool.entries() == []


async def test_redirection_does_not_extend_the_time(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """Whoever stands in the place of a recipient has no more time than it had."""
    delivery = Redirecting({"b@example.com": ("x@example.com",)}, Scripted(lambda _address, _attempt: LATER))
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        await start(nursery, spool, delivery)
        await accept(spool, RETURN)
        await trio.sleep(601)
        entry = await one(spool)
        assert [str(standing.recipient) for standing in entry.standings] == ["x@example.com"]
        assert outcomes(entry) == [(Status.FAILED, EXPIRED)]
        nursery.cancel_scope.cancel()


@pytest.mark.slow
@given(
    seconds=st.integers(1, 3_000),
    first=st.integers(1, 2_000),
    give_up_after=st.integers(0, 3_000),
    jitter=st.floats(0, 0.99),
    redirects=st.booleans(),
)
def test_no_attempt_past_the_time(
    *, seconds: int, first: int, give_up_after: int, jitter: float, redirects: bool
) -> None:
    """Whatever the retry policy says, no attempt begins at the time or later, and by then nobody is pending."""
    policy = Backoff(dt.timedelta(seconds=first), 2, dt.timedelta(days=1), dt.timedelta(seconds=give_up_after), jitter)
    table: dict[str, tuple[str, ...]] = {}
    if redirects:
        table = {"b@example.com": ("x@example.com",), "x@example.com": ("b@example.com",)}
    answers = Scripted(lambda _address, _attempt: LATER)

    async def run(path: Path) -> None:
        async with spooling(path) as spool, trio.open_nursery() as nursery:
            await nursery.start(partial(run_queue, spool, Redirecting(table, answers), policy, now=now))
            await accept(spool, MailParameters(deliver_by=DeliverBy(seconds, ByMode.RETURN)))
            await trio.sleep(seconds + 1)
            [(status, reply)] = outcomes(await one(spool))
            assert status is Status.FAILED
            assert reply == EXPIRED or give_up_after < seconds
            nursery.cancel_scope.cancel()

    with tempfile.TemporaryDirectory() as path:
        trio.run(run, Path(path), clock=trio.testing.MockClock(autojump_threshold=0))
    assert all(time < seconds for time, _ in answers.offered)


# The priority.


@dataclass
class OneByOne:
    """A delivery that takes a second for each message, and notes the priorities; the first takes a slot for ever."""

    priorities: list[int] = field(default_factory=list)
    is_blocked: bool = False

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        if not self.is_blocked:
            self.is_blocked = True
            await trio.sleep_forever()
        self.priorities.append(attempt.envelope.parameters.priority)
        await trio.sleep(1)
        return [OK] * len(attempt.recipients)


@pytest.mark.parametrize("is_fresh", [False, True])
async def test_the_highest_priority_is_tried_first(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, *, is_fresh: bool
) -> None:
    """RFC 6710: where slots are scarce, what is due and what is fresh is tried by priority, then by time."""
    delivery = OneByOne(is_blocked=not is_fresh)
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        run = partial(run_queue, spool, delivery, PLAIN, now=now, concurrency=2)
        if is_fresh:
            await nursery.start(run)
        for priority in (9, 9, -9, 0, 1, 0, 9):
            await accept(spool, MailParameters(priority=priority))
            await trio.sleep(0.01)
        if not is_fresh:
            await nursery.start(run)
        await trio.sleep(60)
        assert delivery.priorities == [9, 9, 9, 1, 0, 0, -9][is_fresh:]
        nursery.cancel_scope.cancel()
