"""The journal of a message as the runner writes it: one entry for each attempt that had an outcome, and no other."""

from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import trio
import trio.testing
from tests.test_queue import EPOCH, LATER, MINUTE, PLAIN, accept, now, one, spooling

from smtprecv.delivery import Attempt
from smtprecv.message import Redirect
from smtprecv.protocol import Recipient, Reply
from smtprecv.queue import Bounces, run_once
from smtprecv.spool import Answered, Entry, Tried


@dataclass
class Slow:
    """A delivery that takes its time, and then answers or raises."""

    answers: Sequence[Reply | Redirect] = ()
    seconds: float = 2.5

    async def deliver(self, attempt: Attempt) -> Sequence[Reply | Redirect]:
        await trio.sleep(self.seconds)
        if not self.answers:
            raise OSError(5, "why not")
        return self.answers


class Knowing:
    """A delivery that knows who has the message: `b`, or it cannot tell."""

    def __init__(self, error: Exception | None = None) -> None:
        self.error = error

    async def is_delivered(self, entry: Entry, recipient: Recipient) -> bool:
        await trio.sleep(1)
        if self.error is not None:
            raise self.error
        return True

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        return [LATER] * len(attempt.recipients)


async def test_an_attempt_is_in_the_journal(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """When, how long, and what each recipient was answered, who was served included."""
    answers = (Reply(250, "ok"), LATER, Redirect.to("x@example.org", "y@example.org"), LATER)
    async with spooling(tmp_path) as spool:
        queue_id = await accept(spool, *(f"{name}@example.com" for name in "bcde"))
        await trio.sleep(60)
        began = now()
        await run_once(spool, Slow(answers), PLAIN, now=now)
        assert (await spool.journal(queue_id))[0] == Tried(
            began,
            dt.timedelta(seconds=2.5),
            4,
            (
                Answered("250 ok", ("b@example.com",), 1),
                Answered("451 later", ("c@example.com", "e@example.com"), 2),
                Answered("redirected to x@example.org, y@example.org", ("d@example.com",), 1),
            ),
        )


async def test_a_delivery_that_raised(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """An exception is an outcome: the journal has its text, and what it counted as."""
    async with spooling(tmp_path) as spool:
        queue_id = await accept(spool)
        await run_once(spool, Slow(), PLAIN, now=now)
        (tried,) = await spool.journal(queue_id)
        assert tried.answers == (Answered("451 4.3.0 local error in delivery", ("b@example.com",), 1),)
        assert (tried.took, tried.error) == (dt.timedelta(seconds=2.5), "OSError: [Errno 5] why not")


async def test_what_is_cancelled_is_no_attempt(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """An attempt that was broken off has no outcome, and no entry in the journal."""
    async with spooling(tmp_path) as spool:
        queue_id = await accept(spool)
        with trio.move_on_after(1):
            await run_once(spool, Slow(), PLAIN, now=now)
        assert (await one(spool)).attempts == 0
        assert await spool.journal(queue_id) == []


async def test_who_was_asked_is_not_tried(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """To ask a delivery what it has done is no attempt; where it cannot tell, that is the outcome of one."""
    async with spooling(tmp_path) as spool:
        queue_id = await accept(spool, "b@example.com")
        for delivery, entries in ((Slow((LATER,)), 1), (Knowing(ValueError("lost")), 2)):
            await run_once(spool, delivery, PLAIN, ids=[queue_id], now=now)
            assert len(await spool.journal(queue_id)) == entries
        assert (await spool.journal(queue_id))[-1].error == "ValueError: lost"
        await run_once(spool, Knowing(), PLAIN, ids=[queue_id], now=now)
        assert await spool.entries() == []


async def test_a_report_brings_the_attempt(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """The attempt whose outcome is reported is recorded with its report."""
    async with spooling(tmp_path) as spool:
        queue_id = await accept(spool, "b@example.com", "c@example.com")
        never = Reply(550, "never")
        await run_once(spool, Slow((never, LATER)), PLAIN, now=now, bounces=Bounces(Slow((LATER,)), "mx.example"))
        (tried,) = await spool.journal(queue_id)
        assert [each.reply for each in tried.answers] == ["550 never", "451 later"]
        assert len(await spool.entries()) == 2


async def test_the_journal_of_a_flaky_destination(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """The journal tells the schedule: every attempt is there, in order, with its time."""
    async with spooling(tmp_path) as spool:
        queue_id = await accept(spool)
        for _ in range(3):
            await run_once(spool, Slow((LATER,)), PLAIN, now=now)
            await trio.sleep(20 * 60)
        started = [tried.started - EPOCH for tried in await spool.journal(queue_id)]
        assert started == sorted(started)
        assert [round(time / MINUTE) for time in started] == [0, 20, 40]
