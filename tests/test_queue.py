"""The runner: what is delivered when, what is recorded, and what is never done twice."""

from __future__ import annotations

import datetime as dt
import logging
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TypeVar

import pytest
import trio
import trio.testing

from smtprecv.delivery import Attempt, Delivery
from smtprecv.errors import ConfigError, SpoolError
from smtprecv.message import Client, QueueId, Redirect, SessionId
from smtprecv.protocol import EnhancedStatus, Envelope, Recipient, Reply, parse_forward_path, parse_reverse_path
from smtprecv.queue import Report, run_once, run_queue
from smtprecv.retry import Backoff
from smtprecv.spool import Entry, Spool, Status, open_spool

T = TypeVar("T")
EPOCH = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
MINUTE = dt.timedelta(minutes=1)
CLIENT = Client(SessionId("s1"), None, None)
OK, LATER, NEVER = Reply(250, "ok"), Reply(451, "later"), Reply(550, "never")
PLAIN = Backoff(first=5 * MINUTE, longest=60 * MINUTE, give_up_after=dt.timedelta(hours=2), jitter=0)


def now() -> dt.datetime:
    """Give the wall time of the tests: it runs with Trio's clock."""
    return EPOCH + dt.timedelta(seconds=trio.current_time())


async def on_the_spot(work: Callable[[], T], /) -> T:
    """Run what blocks in the loop, because a MockClock takes a task that waits for a thread as idle."""
    await trio.lowlevel.checkpoint()
    return work()


@asynccontextmanager
async def spooling(path: Path) -> AsyncIterator[Spool]:
    """Open a spool that works under a MockClock."""
    async with open_spool(path / "queue", run_in_thread=on_the_spot) as spool:
        yield spool


def envelope(*addresses: str) -> Envelope:
    """Give an envelope from <a@example.com> to these."""
    recipients = tuple(Recipient(parse_forward_path(address)) for address in addresses)
    return Envelope(parse_reverse_path("a@example.com"), recipients=recipients)


async def accept(spool: Spool, *addresses: str) -> QueueId:
    """Accept a message for these, received now."""
    draft = await spool.begin(now())
    await draft.write(b"Subject: x\r\n\r\nbody\r\n")
    entry = await draft.commit(CLIENT, envelope(*(addresses or ("b@example.com",))), now())
    return entry.queue_id


@dataclass
class Scripted:
    """A delivery that answers for each recipient by a script, and notes what it was asked."""

    script: Callable[[str, int], Reply] = lambda _address, _attempt: OK
    offered: list[tuple[float, tuple[str, ...]]] = field(default_factory=list)

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        await trio.lowlevel.checkpoint()
        addresses = tuple(str(recipient) for recipient in attempt.recipients)
        self.offered.append((trio.current_time(), addresses))
        return [self.script(address, len(self.offered)) for address in addresses]


async def die_with_a_claim(path: Path) -> None:
    """Claim everything as another process would, and end without an outcome."""
    async with spooling(path) as other:
        assert await other.claim(now(), 100)


async def one(spool: Spool) -> Entry:
    """Give the one entry of a spool."""
    [entry] = await spool.entries()
    return entry


async def start(nursery: trio.Nursery, spool: Spool, delivery: Delivery) -> None:
    """Run the queue beside the test."""
    await nursery.start(partial(run_queue, spool, delivery, PLAIN, now=now))


# What becomes of a message.


async def test_fresh_mail_is_delivered_at_once_and_gone(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """The usual message: accepted, delivered, removed, without a wait."""
    delivery = Scripted()
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        await start(nursery, spool, delivery)
        began = trio.current_time()
        await accept(spool)
        await trio.testing.wait_all_tasks_blocked()

        assert [addresses for _, addresses in delivery.offered] == [("b@example.com",)]
        assert trio.current_time() - began < 1
        assert await spool.entries() == []
        nursery.cancel_scope.cancel()


async def test_mail_from_before_the_start_is_delivered(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """What an earlier process accepted is due when the queue starts."""
    delivery = Scripted()
    async with spooling(tmp_path) as spool:
        await accept(spool)
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        await start(nursery, spool, delivery)
        await trio.sleep(1)

        assert len(delivery.offered) == 1
        assert await spool.entries() == []
        nursery.cancel_scope.cancel()


async def test_who_was_served_is_not_offered_again(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """Design, promise 2: one recipient's failure does not repeat another's delivery."""
    delivery = Scripted(lambda address, attempt: LATER if address[0] == "b" and attempt < 3 else OK)
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        await start(nursery, spool, delivery)
        await accept(spool, "b@example.com", "c@example.com")
        await trio.sleep(60 * 60)

        assert [addresses for _, addresses in delivery.offered] == [
            ("b@example.com", "c@example.com"),
            ("b@example.com",),
            ("b@example.com",),
        ]
        assert await spool.entries() == []
        nursery.cancel_scope.cancel()


async def test_attempts_follow_the_schedule_to_the_end(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """Waits double from 5 minutes; the last attempt falls on the give-up time, and then it is failed and visible."""
    delivery = Scripted(lambda _address, _attempt: LATER)
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        await start(nursery, spool, delivery)
        began = trio.current_time()
        await accept(spool)
        await trio.sleep(24 * 60 * 60)
        entry = await one(spool)
        nursery.cancel_scope.cancel()

    minutes = [(time - began) / 60 for time, _ in delivery.offered]
    assert minutes == pytest.approx([0, 5, 15, 35, 75, 120], abs=0.1)
    assert [standing.status for standing in entry.standings] == [Status.FAILED]
    assert entry.standings[0].last == LATER
    assert entry.standings[0].attempts == 6
    assert entry.due is None


async def test_a_short_wait_is_kept_to(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """A fresh message that is deferred wakes the queue at its time, however long it meant to sleep."""
    delivery = Scripted(lambda _address, attempt: LATER if attempt < 3 else OK)
    quick = Backoff(first=dt.timedelta(seconds=1), longest=MINUTE, jitter=0)
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        await nursery.start(partial(run_queue, spool, delivery, quick, now=now))
        await trio.sleep(5)
        await accept(spool)
        await trio.sleep(60)
        nursery.cancel_scope.cancel()

    assert [time for time, _ in delivery.offered] == pytest.approx([5, 6, 8], abs=0.1)


async def test_a_5yz_is_final_and_kept(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """A refused recipient is not tried again by itself, stays visible, and the reply is remembered."""
    delivery = Scripted(lambda address, _attempt: NEVER if address[0] == "b" else OK)
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        await start(nursery, spool, delivery)
        await accept(spool, "b@example.com", "c@example.com")
        await trio.sleep(24 * 60 * 60)
        entry = await one(spool)
        nursery.cancel_scope.cancel()

    assert len(delivery.offered) == 1
    assert [(standing.status, standing.last) for standing in entry.standings] == [
        (Status.FAILED, NEVER),
        (Status.DELIVERED, OK),
    ]


class Raising:
    """A delivery that raises, or answers amiss."""

    def __init__(self, outcome: object) -> None:
        self.outcome = outcome

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        await trio.lowlevel.checkpoint()
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome  # type: ignore[return-value]  # the point is to return what is wrong


class Untold(Exception):
    """An exception that cannot even be told."""

    def __str__(self) -> str:
        """Fail."""
        raise ZeroDivisionError


@pytest.mark.parametrize(
    ("outcome", "error"),
    [
        (ValueError("secret"), "ValueError: secret"),
        ([], "ValueError: 0 replies for 1 pending recipients"),
        ([OK, OK], "ValueError: 2 replies for 1 pending recipients"),
        ([None], "ValueError: None is no answer for a recipient"),
        ([Reply(354, "go")], "ValueError: a 3yz reply says nothing about a delivery"),
        (None, "TypeError"),
        (Untold(), "tests.test_queue.Untold: <exception str() failed>"),
    ],
)
async def test_a_delivery_that_fails_is_tried_again(
    outcome: object,
    error: str,
    tmp_path: Path,
    autojump_clock: trio.testing.MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """An exception, or an answer that is none, is 451 for each, and its text stays inside."""
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        await start(nursery, spool, Raising(outcome))
        queue_id = await accept(spool)
        await trio.sleep(60)
        entry = await one(spool)
        nursery.cancel_scope.cancel()

    [standing] = entry.standings
    assert standing.status is Status.PENDING
    assert standing.last is not None
    assert str(standing.last) == "451 4.3.0 local error in delivery"
    assert entry.error is not None
    assert entry.error.startswith(error)
    assert f"{queue_id}: the delivery raised" in [record.getMessage() for record in caplog.records]


async def test_the_reply_for_a_fault_of_ours_can_be_chosen(tmp_path: Path) -> None:
    """`local_error` stands for an exception of the delivery; a permanent one would be against the promises."""
    busy = Reply(450, "the list server is busy", EnhancedStatus(4, 2, 4))
    async with spooling(tmp_path) as spool:
        await accept(spool)
        await run_once(spool, Raising(ValueError("secret")), PLAIN, now=now, local_error=busy)

        assert (await one(spool)).standings[0].last == busy
        with pytest.raises(ConfigError, match="4yz"):
            await run_once(spool, Scripted(), local_error=NEVER)


async def test_so_it_can_for_a_running_queue(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """`run_queue` takes the same `local_error`, on the same terms."""
    busy = Reply(450, "the list server is busy", EnhancedStatus(4, 2, 4))
    raising = Raising(ValueError("secret"))
    async with spooling(tmp_path) as spool:
        with trio.fail_after(1), pytest.raises(ConfigError, match="4yz"):
            await run_queue(spool, raising, local_error=NEVER)
        async with trio.open_nursery() as nursery:
            await nursery.start(partial(run_queue, spool, raising, PLAIN, now=now, local_error=busy))
            await accept(spool)
            await trio.sleep(1)
            nursery.cancel_scope.cancel()
        assert (await one(spool)).standings[0].last == busy


async def test_the_log_tells_what_became_of_each_recipient(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """One line for each begins with the queue id; a failure is a WARNING, and a replacement names its original."""
    answers = {"b": OK, "c": LATER, "d": NEVER}
    redirect = Redirect.to("c@example.com")

    class Answering:
        async def deliver(self, attempt: Attempt) -> Sequence[Reply | Redirect]:
            return [answers.get(str(recipient)[0], redirect) for recipient in attempt.recipients]

    with caplog.at_level(logging.INFO, "smtprecv.queue"):
        async with spooling(tmp_path) as spool:
            queue_id = await accept(spool, "b@example.com", "d@example.com", "e@example.com")
            await run_once(spool, Answering(), PLAIN, now=now)
    replaced = f"{queue_id}: to=<c@example.com> (for <e@example.com>) deferred:"
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        ("INFO", f"{queue_id}: to=<b@example.com> delivered: 250 ok"),
        ("WARNING", f"{queue_id}: to=<d@example.com> failed: 550 never"),
        ("INFO", f"{replaced} redirected, next attempt 2026-01-01T00:00:00+00:00"),
        ("INFO", f"{replaced} 451 later, next attempt 2026-01-01T00:10:00+00:00"),
    ]


def raising() -> dt.datetime:
    """Fail as a bug does."""
    raise ZeroDivisionError


@pytest.mark.parametrize(
    "answer",
    [
        raising,
        lambda: dt.datetime(2026, 1, 1),  # noqa: DTZ001  # that there is no zone is the point
        lambda: dt.datetime.max.replace(tzinfo=dt.timezone(-dt.timedelta(hours=1))),
    ],
)
async def test_a_retry_policy_that_fails_ends_no_run(
    answer: Callable[[], dt.datetime],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """A bug in a retry policy gives up no message and stops no other: it waits as by default, and the log says why."""

    class Broken:
        def next_attempt(
            self, queue_id: QueueId, attempts: int, received: dt.datetime, now: dt.datetime
        ) -> dt.datetime | None:
            return answer()

    delivery = Scripted(lambda address, attempt: OK if address[0] == "b" or attempt == 2 else LATER)
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        await nursery.start(partial(run_queue, spool, delivery, Broken(), now=now))
        queue_id = await accept(spool, "b@example.com", "c@example.com")
        await trio.sleep(1)
        entry = await one(spool)
        assert [standing.status for standing in entry.standings] == [Status.DELIVERED, Status.PENDING]
        assert entry.due == entry.received + Backoff().wait(queue_id, 1)
        assert f"{queue_id}: the retry policy raised" in caplog.text

        await trio.sleep(400)
        assert [addresses for _, addresses in delivery.offered] == [
            ("b@example.com", "c@example.com"),
            ("c@example.com",),
        ]
        assert await spool.entries() == []
        nursery.cancel_scope.cancel()


@dataclass
class Redirecting:
    """A delivery that redirects by a table, and answers for the rest as another one does."""

    table: dict[str, tuple[str, ...]]
    rest: Scripted = field(default_factory=Scripted)

    @property
    def offered(self) -> list[tuple[str, ...]]:
        """What was offered, in order."""
        return [addresses for _, addresses in self.rest.offered]

    async def deliver(self, attempt: Attempt) -> Sequence[Reply | Redirect]:
        replies = await self.rest.deliver(attempt)
        return [
            Redirect.to(*self.table[str(recipient)]) if str(recipient) in self.table else reply
            for recipient, reply in zip(attempt.recipients, replies, strict=True)
        ]


async def test_a_delivery_may_redirect(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """Others stand in the place of a redirected recipient, are tried at once, and those served before stay served."""
    table = {"list@example.com": ("b@example.com", "c@example.com"), "c@example.com": ("d@example.com",)}
    delivery = Redirecting(table)
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        await start(nursery, spool, delivery)
        await accept(spool, "a@example.com", "list@example.com")
        await trio.sleep(1)

        assert delivery.offered == [
            ("a@example.com", "list@example.com"),
            ("b@example.com", "c@example.com"),
            ("d@example.com",),
        ]
        assert await spool.entries() == []
        nursery.cancel_scope.cancel()


async def test_a_redirected_recipient_knows_its_original(tmp_path: Path) -> None:
    """However often it is redirected, and in a new process too, the first recipient is the one the sender knows."""
    delivery = Redirecting(
        {"a@example.com": ("b@example.com", "c@example.com")}, Scripted(lambda _address, _attempt: LATER)
    )
    async with spooling(tmp_path) as spool:
        await accept(spool, "a@example.com", "x@example.com")
        await run_once(spool, delivery, PLAIN, now=now)
    delivery.table["b@example.com"] = ("d@example.com", "e@example.com")
    async with spooling(tmp_path) as spool:
        await run_once(spool, delivery, PLAIN, ids=[(await one(spool)).queue_id], now=now)
        entry = await one(spool)

    stands = [(str(each.recipient), str(each.recipient.original), each.status) for each in entry.standings]
    assert stands == [
        ("d@example.com", "a@example.com", Status.PENDING),
        ("e@example.com", "a@example.com", Status.PENDING),
        ("c@example.com", "a@example.com", Status.PENDING),
        ("x@example.com", "None", Status.PENDING),
    ]
    assert entry.envelope.recipients == tuple(each.recipient for each in entry.standings)


async def test_nobody_gets_a_second_copy_by_a_redirect(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """A redirect to a recipient that was served before adds none."""
    delivery = Redirecting({}, Scripted(lambda address, attempt: OK if address[0] == "a" or attempt > 1 else LATER))
    async with spooling(tmp_path) as spool:
        await accept(spool, "a@example.com", "b@example.com", "c@example.com")
        assert await run_once(spool, delivery, PLAIN, now=now) == Report(delivered=1, deferred=2)
        delivery.table["b@example.com"] = ("a@example.com",)
        delivery.table["c@example.com"] = ("a@example.com", "d@example.com")
        await trio.sleep(301)
        assert await run_once(spool, delivery, PLAIN, now=now) == Report(delivered=2)

        assert await spool.entries() == []
    assert delivery.offered == [
        ("a@example.com", "b@example.com", "c@example.com"),
        ("b@example.com", "c@example.com"),
        ("d@example.com",),
    ]


@pytest.mark.parametrize(
    ("table", "answers"),
    [
        ({"a": ("b",), "b": ("a",)}, {}),
        ({"a": ("b",), "b": ("c",), "c": ("a",)}, {}),
        ({"a": ("b",)}, {"b": NEVER}),
        ({"a": ("b",), "b": ("b",)}, {}),
    ],
)
async def test_no_redirect_loses_a_message(
    table: dict[str, tuple[str, ...]],
    answers: dict[str, Reply],
    tmp_path: Path,
    autojump_clock: trio.testing.MockClock,
) -> None:
    """Redirects that cross, turn in a circle, or lead to who is refused: nobody counts as served who was not."""
    names = sorted({name for names in ((each, *to) for each, to in table.items()) for name in names})
    delivery = Redirecting(
        {f"{name}@example.com": tuple(f"{each}@example.com" for each in to) for name, to in table.items()},
        Scripted(lambda address, _attempt: answers.get(address[0], LATER)),
    )
    async with spooling(tmp_path) as spool:
        await accept(spool, *(f"{name}@example.com" for name in names))
        for _ in range(3):
            await run_once(spool, delivery, PLAIN, now=now)
        entry = await one(spool)

    assert Status.DELIVERED not in {standing.status for standing in entry.standings}
    known = {str(each.recipient.original or each.recipient) for each in entry.standings}
    assert known == {f"{name}@example.com" for name in names}


async def test_redirects_in_a_circle_are_given_up(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """A circle turns a few times at once, then by the retry schedule, and ends with the give-up time."""
    delivery = Redirecting({"a@example.com": ("b@example.com",), "b@example.com": ("a@example.com",)})
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        await start(nursery, spool, delivery)
        await accept(spool, "a@example.com")
        await trio.sleep(24 * 60 * 60)
        entry = await one(spool)
        nursery.cancel_scope.cancel()

    assert len(delivery.offered) < 20
    # A bounce can say why.
    assert [(each.status, str(each.last)) for each in entry.standings] == [
        (Status.FAILED, "451 4.4.7 redirected until it was given up")
    ]


async def test_a_redirect_by_hand_is_due_at_once(tmp_path: Path) -> None:
    """A message that is tried before its time, and redirected, does not wait for that time."""
    delivery = Redirecting({}, Scripted(lambda address, _attempt: LATER if address[0] == "a" else OK))
    async with spooling(tmp_path) as spool:
        queue_id = await accept(spool, "a@example.com")
        assert await run_once(spool, delivery, PLAIN, now=now) == Report(deferred=1)
        delivery.table["a@example.com"] = ("b@example.com",)
        assert await run_once(spool, delivery, PLAIN, ids=[queue_id], now=now) == Report()
        assert await run_once(spool, delivery, PLAIN, now=now) == Report(delivered=1)


async def test_a_redirected_recipient_is_tried_before_it_is_given_up(tmp_path: Path) -> None:
    """Who stands in the place of another is tried once, even where nothing is tried again."""
    delivery = Redirecting({"a@example.com": ("b@example.com",)})
    async with spooling(tmp_path) as spool:
        await accept(spool, "a@example.com")
        once = Backoff(give_up_after=dt.timedelta())
        assert await run_once(spool, delivery, once, now=now) == Report(delivered=1)
    assert delivery.offered == [("a@example.com",), ("b@example.com",)]


# What a crash or a cancellation leaves.


@dataclass
class Checked(Scripted):
    """A delivery that can tell what it has done."""

    done: set[str] = field(default_factory=set)
    asked: int = 0

    async def is_delivered(self, entry: Entry, recipient: Recipient) -> bool:
        await trio.lowlevel.checkpoint()
        self.asked += 1
        return str(recipient) in self.done


async def test_is_delivered_spares_a_second_copy(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """A crash between a delivery and its record causes no second delivery where the delivery can tell."""
    delivery = Checked(done={"b@example.com"})
    async with spooling(tmp_path) as spool:
        await accept(spool, "b@example.com", "c@example.com")
        await die_with_a_claim(tmp_path)
        report = await run_once(spool, delivery, PLAIN, now=now)

        assert [addresses for _, addresses in delivery.offered] == [("c@example.com",)]
        assert report == Report(delivered=2)
        assert await spool.entries() == []


async def test_a_message_that_was_delivered_whole_is_not_offered(tmp_path: Path) -> None:
    """If every recipient has it already, `deliver` is not called at all."""
    delivery = Checked(done={"b@example.com"})
    async with spooling(tmp_path) as spool:
        await accept(spool)
        await die_with_a_claim(tmp_path)
        await run_once(spool, delivery, PLAIN, now=now)

        assert delivery.offered == []
        assert await spool.entries() == []


async def test_a_first_attempt_asks_nothing(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """Nobody can have delivered what nobody has claimed: only the attempts after the first one ask."""
    delivery = Checked(lambda _address, attempt: LATER if attempt == 1 else OK)
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        await start(nursery, spool, delivery)
        await accept(spool)
        await trio.sleep(60)
        assert (len(delivery.offered), delivery.asked) == (1, 0)

        await trio.sleep(600)
        assert (len(delivery.offered), delivery.asked) == (2, 1)
        nursery.cancel_scope.cancel()
    async with spooling(tmp_path) as spool:
        await accept(spool)
        await run_once(spool, delivery, PLAIN, now=now)

    assert (len(delivery.offered), delivery.asked) == (3, 1)


async def test_cancellation_repeats_the_attempt_and_ends_the_claim(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """A delivery that was cancelled is due again at once, for whoever runs the queue next."""

    class Hanging:
        async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
            await trio.sleep_forever()
            raise AssertionError

    delivery = Scripted()
    async with spooling(tmp_path) as spool:
        with trio.move_on_after(10):
            async with trio.open_nursery() as nursery:
                await start(nursery, spool, Hanging())
                await accept(spool)
        assert (await one(spool)).attempts == 0

        assert await run_once(spool, delivery, PLAIN, now=now) == Report(delivered=1)


class Flaky:
    """A spool whose `record`, `claim` or `recover` fails for a while."""

    def __init__(self, spool: Spool, **failures: int) -> None:
        self._spool = spool
        self.failures = failures

    def __getattr__(self, name: str) -> object:
        """Give the spool's own method, or one that fails, as often as it was told to."""
        method = getattr(self._spool, name)
        if not self.failures.get(name):
            return method

        async def fail(*args: object) -> None:
            await trio.lowlevel.checkpoint()
            self.failures[name] -= 1
            msg = "the disk is on fire"
            raise SpoolError(msg)

        return fail


async def test_an_outcome_is_recorded_until_it_is_and_never_delivered_twice(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The recording is repeated, never the delivery."""
    delivery = Scripted()
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        flaky = Flaky(spool, record=7)
        await start(nursery, flaky, delivery)  # type: ignore[arg-type]  # a Spool but for its type
        await accept(spool)
        await trio.sleep(3600)

        assert flaky.failures["record"] == 0
        assert len(delivery.offered) == 1
        assert await spool.entries() == []
        nursery.cancel_scope.cancel()


class Fickle(list[Reply]):
    """A sequence that is longer when it is gone through than it says."""

    def __len__(self) -> int:
        """Say less."""
        return 1


async def test_answers_that_cannot_be_counted(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """A sequence of another length than it says is no answer: it counts as if the delivery had raised."""

    class Odd:
        async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
            await trio.lowlevel.checkpoint()
            return Fickle([OK, OK])

    async with spooling(tmp_path) as spool:
        await accept(spool)
        assert await run_once(spool, Odd(), PLAIN, now=now) == Report(deferred=1)
        assert (await one(spool)).error == "ValueError: 2 replies for 1 pending recipients"


async def test_a_policy_that_gives_the_past(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """A retry policy that is always late has nothing tried more often than once in a second."""

    class Late:
        def next_attempt(
            self, queue_id: QueueId, attempts: int, received: dt.datetime, now: dt.datetime
        ) -> dt.datetime | None:
            """Give the time at which the message came."""
            return received if attempts < 5 else None

    delivery = Scripted(lambda *_: LATER)
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        nursery.start_soon(partial(run_queue, spool, delivery, Late(), now=now))
        await accept(spool)
        await trio.sleep(60)
        assert [time for time, _ in delivery.offered] == pytest.approx([0, 1, 2, 3, 4], abs=0.1)
        nursery.cancel_scope.cancel()


async def test_a_clock_that_was_set_back(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """What was accepted later than now is tried as all else, also by a policy that never gives up."""

    async def named() -> Report:
        ids = [entry.queue_id for entry in await spool.entries()]
        forever = Backoff(give_up_after=dt.timedelta.max)
        return await run_once(spool, Scripted(lambda *_: LATER), forever, ids=ids, now=lambda: now() - MINUTE)

    async with spooling(tmp_path) as spool:
        await accept(spool)
        assert await named() == Report(deferred=1)


async def test_a_cancelled_run_still_records_what_was_delivered(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """A cancellation while the spool is in trouble drops no outcome: nothing is delivered a second time."""
    delivery = Scripted()
    async with spooling(tmp_path) as spool:
        flaky = Flaky(spool, record=3)
        async with trio.open_nursery() as nursery:
            await start(nursery, flaky, delivery)  # type: ignore[arg-type]  # a Spool but for its type
            await accept(spool)
            while not delivery.offered:
                await trio.testing.wait_all_tasks_blocked()
            nursery.cancel_scope.cancel()

        assert await spool.entries() == []


async def test_a_cancelled_run_ends_though_nothing_can_be_recorded(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """A spool that never recovers holds up a cancellation for seconds, not for ever."""
    async with spooling(tmp_path) as spool:
        flaky = Flaky(spool, record=10**9)
        async with trio.open_nursery() as nursery:
            await start(nursery, flaky, Scripted())  # type: ignore[arg-type]  # a Spool but for its type
            await accept(spool)
            await trio.sleep(60)
            began = trio.current_time()
            nursery.cancel_scope.cancel()

        assert trio.current_time() - began < 15


async def test_a_delivery_that_fails_while_it_is_cancelled_harms_nobody(
    tmp_path: Path, autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A delivery's own nursery may raise a group at a cancellation: the error is logged, the attempt repeated."""

    class Grouping:
        async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.fail_at_the_end)
                await trio.sleep_forever()
            raise AssertionError

        async def fail_at_the_end(self) -> None:
            try:
                await trio.sleep_forever()
            finally:
                msg = "in the cleanup"
                raise ValueError(msg)

    async with spooling(tmp_path) as spool:
        with trio.move_on_after(10):
            async with trio.open_nursery() as nursery:
                await start(nursery, spool, Grouping())
                await accept(spool)

        assert (await one(spool)).attempts == 0
    assert any("while it was cancelled" in record.message for record in caplog.records)


async def test_a_spool_in_trouble_does_not_end_the_queue(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """When the queue cannot be read it is read again later; so are the owners."""
    delivery = Scripted()
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        await accept(spool)
        flaky = Flaky(spool, claim=3, recover=2)
        await start(nursery, flaky, delivery)  # type: ignore[arg-type]  # a Spool but for its type
        await trio.sleep(300)

        assert flaky.failures == {"claim": 0, "recover": 0}
        assert len(delivery.offered) == 1
        nursery.cancel_scope.cancel()


# Order and limits.


@dataclass
class Gated:
    """A delivery that holds every attempt until it is let go, and counts those under way."""

    gate: trio.Event = field(default_factory=trio.Event)
    under_way: int = 0
    most: int = 0
    served: int = 0

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        self.under_way += 1
        self.most = max(self.most, self.under_way)
        await self.gate.wait()
        self.under_way -= 1
        self.served += 1
        return [OK]


async def test_no_more_attempts_than_slots(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """`concurrency` bounds fresh mail and retries together, and all are served in the end."""
    delivery = Gated()
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        for _ in range(10):
            await accept(spool)
        await nursery.start(partial(run_queue, spool, delivery, PLAIN, now=now, concurrency=4))
        for _ in range(150):
            await accept(spool)
        await trio.testing.wait_all_tasks_blocked()
        assert delivery.most <= 4
        delivery.gate.set()
        await trio.sleep(60)

        assert delivery.served == 160
        assert delivery.most <= 4
        nursery.cancel_scope.cancel()


async def test_a_slot_is_kept_for_fresh_mail(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """Fresh mail never waits behind retries alone, however many are due."""
    delivery = Gated()
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        for _ in range(10):
            await accept(spool)
        await nursery.start(partial(run_queue, spool, delivery, PLAIN, now=now, concurrency=4))
        await trio.testing.wait_all_tasks_blocked()
        assert delivery.under_way == 3

        await accept(spool)
        await trio.testing.wait_all_tasks_blocked()

        assert delivery.under_way == 4
        nursery.cancel_scope.cancel()


async def test_one_place_is_too_few(tmp_path: Path) -> None:
    """With a single slot either fresh mail or retries would wait for ever."""
    async with spooling(tmp_path) as spool:
        with pytest.raises(ConfigError):
            await run_once(spool, Scripted(), concurrency=1)


async def test_a_step_of_the_clock_does_no_harm(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """Sleeps are capped and computed anew: when the wall clock leaps forward, what is due then is tried soon."""
    offset = dt.timedelta()
    delivery = Scripted(lambda _address, attempt: LATER if attempt == 1 else OK)
    async with spooling(tmp_path) as spool, trio.open_nursery() as nursery:
        await nursery.start(partial(run_queue, spool, delivery, PLAIN, now=lambda: now() + offset))
        await accept(spool)
        await trio.sleep(1)
        offset = dt.timedelta(hours=1)

        await trio.sleep(60)

        assert len(delivery.offered) == 2
        nursery.cancel_scope.cancel()


# One pass.


async def test_a_pass_tries_what_is_due_and_reports(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """`run_once` tries each due message once, and leaves what is not due alone."""
    answers = {"ok": OK, "later": LATER, "never": NEVER}
    delivery = Scripted(lambda address, _attempt: answers[address.partition("@")[0]])
    async with spooling(tmp_path) as spool:
        await accept(spool, "ok@example.com", "later@example.com", "never@example.com")
        await accept(spool, "ok@example.com")

        assert await run_once(spool, delivery, PLAIN, now=now) == Report(delivered=2, deferred=1, failed=1)
        assert await run_once(spool, delivery, PLAIN, now=now) == Report()
        await trio.sleep(301)
        assert await run_once(spool, delivery, PLAIN, now=now) == Report(deferred=1)


async def test_a_pass_over_named_messages(tmp_path: Path) -> None:
    """Named messages are tried due or not, failed recipients included; busy and missing ones are told."""
    outcome = NEVER
    delivery = Scripted(lambda _address, _attempt: outcome)
    nobody = QueueId("0" * 20)
    async with spooling(tmp_path) as spool, spooling(tmp_path) as other:
        failed, untouched, busy = [await accept(spool) for _ in range(3)]
        assert await run_once(spool, delivery, PLAIN, ids=[failed], now=now) == Report(failed=1)
        await other.claim_ids([busy])
        outcome = OK

        report = await run_once(spool, delivery, PLAIN, ids=[failed, nobody, failed, busy], now=now)

        assert report == Report(delivered=1, busy=(busy,), missing=(nobody,))
        assert [entry.queue_id for entry in await spool.entries()] == [untouched, busy]
        assert await run_once(spool, delivery, PLAIN, ids=[], now=now) == Report()


async def test_two_runners_never_try_one_message_together(tmp_path: Path) -> None:
    """Two processes may run one queue: each message is claimed by one of them."""
    first, second = Scripted(), Scripted()
    async with spooling(tmp_path) as spool, spooling(tmp_path) as other:
        for _ in range(50):
            await accept(spool)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(partial(run_once, spool, first, PLAIN, now=now))
            nursery.start_soon(partial(run_once, other, second, PLAIN, now=now))

        assert len(first.offered) + len(second.offered) == 50
        assert await spool.entries() == []
