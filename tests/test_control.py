"""What an operator's orders do to messages, and which messages a selection chooses."""

from __future__ import annotations

import datetime as dt
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import trio
import trio.testing
from tests.spool.spoolhouse import CLIENT, NOON, OK, opened

from smtprecv.control import (
    Order,
    Result,
    Selection,
    Verdict,
    flush,
    hold,
    redirect,
    release,
    remove,
    retry,
    select,
    steer,
)
from smtprecv.delivery import Attempt
from smtprecv.message import QueueId, Redirect
from smtprecv.protocol import (
    Envelope,
    Recipient,
    Reply,
    ReversePath,
    parse_forward_path,
)
from smtprecv.queue import run_queue
from smtprecv.spool import Entry, Spool, Standing, Status

LATER = NOON + dt.timedelta(hours=4)
NOW = NOON + dt.timedelta(hours=1)
REFUSED = Reply(550, "nobody of that name")


def standing(address: str, status: Status = Status.PENDING, attempts: int = 0) -> Standing:
    """Give a recipient's standing."""
    return Standing(Recipient(parse_forward_path(address)), status, attempts)


def entry_of(*standings: Standing, sender: str | None = None, due: dt.datetime | None = LATER) -> Entry:
    """Give a message that is due in four hours."""
    reverse_path = ReversePath(None if sender is None else parse_forward_path(sender).mailbox)
    envelope = Envelope(reverse_path, recipients=tuple(each.recipient for each in standings))
    return Entry(QueueId("0" * 20), NOON, CLIENT, envelope, 10, standings, due)


SERVED = standing("ada@example.com", Status.DELIVERED, 1)
PENDING = standing("ben@example.com", attempts=1)
FAILED = standing("eve@example.net", Status.FAILED, 2)
MIXED = entry_of(SERVED, PENDING, FAILED, sender="anna@example.org")


def everyone(_: Standing) -> bool:
    """Choose every recipient."""
    return True


def of_domain(domain: str) -> Callable[[Standing], bool]:
    """Choose the recipients of a domain."""
    return Selection(domains=frozenset({domain})).has_recipient


def states(entry: Entry | None) -> list[tuple[str, str]]:
    """Give who stands how."""
    assert entry is not None
    assert [each.recipient for each in entry.standings] == list(entry.envelope.recipients)
    return [(str(each.recipient), each.status.value) for each in entry.standings]


def test_hold_and_release() -> None:
    """A hold changes nothing else, and its end gives back what was."""
    held = hold(MIXED, everyone)
    assert held == replace(MIXED, is_held=True)
    assert hold(held, everyone) is held
    assert release(held, everyone) == MIXED
    assert release(MIXED, everyone) is MIXED


def test_retry() -> None:
    """Retrying makes what failed pending, with its attempts, and the message due now; only of the chosen recipients."""
    after = retry(NOW)(MIXED, everyone)
    assert after == replace(MIXED, standings=(SERVED, PENDING, replace(FAILED, status=Status.PENDING)), due=NOW)
    assert retry(NOW)(MIXED, of_domain("example.com")) == replace(MIXED, due=NOW)
    assert retry(NOW)(MIXED, of_domain("example.org")) is MIXED


def test_flush() -> None:
    """Flushing makes what is pending due now, and leaves what has failed."""
    assert flush(NOW)(MIXED, everyone) == replace(MIXED, due=NOW)
    failed = entry_of(FAILED, due=None)
    assert flush(NOW)(failed, everyone) is failed


@pytest.mark.parametrize("order", [retry(NOW), flush(NOW)])
def test_what_is_held_is_not_hastened(order: Order) -> None:
    """A hold is ended by a release alone."""
    held = replace(MIXED, is_held=True)
    assert order(held, everyone) is held


def test_redirect() -> None:
    """Others stand in the place of those chosen that were not served, due now; the sender's names stay."""
    to = Redirect.to("new@example.org", "ada@example.com")
    after = redirect(to, NOW)(MIXED, everyone)
    assert states(after) == [
        ("ada@example.com", "delivered"),
        ("new@example.org", "pending"),
        ("new@example.org", "pending"),
    ]
    assert after is not None
    assert [str(each.recipient.original) for each in after.standings[1:]] == ["ben@example.com", "eve@example.net"]
    assert after.due == NOW
    assert states(redirect(to, NOW)(MIXED, of_domain("example.net")))[:2] == states(MIXED)[:2]
    served = entry_of(SERVED, due=None)
    assert redirect(to, NOW)(served, everyone) is served


def test_remove() -> None:
    """Removing drops the chosen that were not served; the message goes with the last that is to be served."""
    assert remove(MIXED, everyone) is None
    rest = remove(MIXED, of_domain("example.com"))
    assert states(rest) == [("ada@example.com", "delivered"), ("eve@example.net", "failed")]
    assert rest is not None
    assert rest.due is None
    assert states(remove(MIXED, of_domain("example.net"))) == states(MIXED)[:2]
    assert remove(entry_of(PENDING), of_domain("example.com")) is None


@pytest.mark.parametrize(
    ("selection", "is_chosen"),
    [
        (Selection(), True),
        (Selection(ids=frozenset({MIXED.queue_id})), True),
        (Selection(ids=frozenset({QueueId("1" * 20)})), False),
        (Selection(senders=frozenset({"ANNA@example.org"})), True),
        (Selection(senders=frozenset({""})), False),
        (Selection(received_before=NOON), True),
        (Selection(received_before=NOON - dt.timedelta(seconds=1)), False),
        (Selection(is_held=True), False),
        (Selection(is_held=False), True),
        (Selection(recipients=frozenset({"Ben@EXAMPLE.com", "x@example.com"})), True),
        (Selection(recipients=frozenset({"x@example.com"})), False),
        (Selection(domains=frozenset({"example.net"}), statuses=frozenset({Status.FAILED})), True),
        (Selection(domains=frozenset({"example.net"}), statuses=frozenset({Status.PENDING})), False),
    ],
)
def test_selection(selection: Selection, is_chosen: bool) -> None:  # noqa: FBT001  # it is what is expected
    """A message is chosen that passes every filter, those of recipients with one and the same recipient."""
    assert selection.has(MIXED) is is_chosen


def test_null_sender() -> None:
    """The null reverse-path is chosen by an empty text."""
    assert Selection(senders=frozenset({""})).has(entry_of(PENDING))


async def accept(spool: Spool, address: str = "ben@example.com") -> QueueId:
    """Accept a message for one recipient."""
    draft = await spool.begin(NOON)
    envelope = Envelope(ReversePath(None), recipients=(Recipient(parse_forward_path(address)),))
    return (await draft.commit(CLIENT, envelope, NOON)).queue_id


async def results(
    spool: Spool, selection: Selection, order: Order, *, limit: int | None = None, dry_run: bool = False
) -> list[tuple[QueueId, str]]:
    """Give what came of an order."""
    found: list[Result] = [each async for each in steer(spool, selection, order, limit=limit, dry_run=dry_run)]
    return [(each.queue_id, each.verdict.value) for each in found]


async def test_steer_tells_of_each(tmp_path: Path) -> None:
    """What is changed, was so already, is being delivered, or is not there, is told apart."""
    async with opened(tmp_path) as spool, opened(tmp_path) as other:
        free, held, busy = [await accept(spool) for _ in range(3)]
        await spool.change([held], lambda each: replace(each, is_held=True))
        (claim,) = await other.claim_ids([busy])
        gone = QueueId("0" * 20)
        selection = Selection(ids=frozenset({free, held, busy, gone}))

        assert await results(spool, selection, hold, dry_run=True) == [
            (free, "changed"),
            (held, "unchanged"),
            (busy, "changed"),
            (gone, "missing"),
        ]
        assert await results(spool, selection, hold) == [
            (free, "changed"),
            (held, "unchanged"),
            (busy, "busy"),
            (gone, "missing"),
        ]
        assert [each.is_held for each in await spool.entries()] == [True, True, False]
        await other.record(claim.entry.after([OK], NOON))


async def test_steer_works_in_pages(tmp_path: Path) -> None:
    """More messages than a page holds are all changed, or as many as the limit says; who asked sees how far it is."""
    async with opened(tmp_path) as spool:
        queue_ids = [await accept(spool, f"u{n}@example.com") for n in range(450)]
        assert len(await results(spool, Selection(), hold, limit=250)) == 250
        assert [each.queue_id async for each in select(spool, Selection(is_held=True))] == queue_ids[:250]
        assert [each.queue_id async for each in select(spool, Selection(), limit=3)] == queue_ids[:3]
        assert [each.queue_id async for each in select(spool, Selection(is_held=True), limit=249)] == queue_ids[:249]
        pages: list[int] = []
        one = Selection(recipients=frozenset({"u449@example.com"}))
        found = [each async for each in steer(spool, one, remove, looked_at=pages.append)]
        assert found == [Result(queue_ids[449], Verdict.CHANGED)]
        assert pages == [200, 200, 50]
        assert len(await results(spool, Selection(ids=frozenset(queue_ids)), remove)) == 450
        assert await spool.count() == 0


async def test_what_changes_meanwhile_is_looked_at_again(tmp_path: Path) -> None:
    """What was chosen is changed only if it is still so when it is changed; what has gone is missing."""
    async with opened(tmp_path) as spool:
        first, second = [await accept(spool) for _ in range(2)]
        (gone, kept) = await spool.entries()

        class Slow:
            """A spool whose pages are old when they are acted on."""

            def __getattr__(self, name: str) -> object:
                return getattr(spool, name)

            async def entries(self, after: QueueId | None = None, limit: int = 100) -> list[Entry]:
                del limit
                if after is not None:
                    return []
                await spool.change([first], lambda _: None)
                await spool.change([second], lambda each: replace(each, is_held=True))
                return [gone, kept]

        slow: Spool = Slow()  # type: ignore[assignment]  # all of it, by __getattr__
        assert await results(slow, Selection(is_held=False), flush(NOW)) == [(first, "missing"), (second, "unchanged")]


async def test_a_change_wakes_the_run_of_another_process(
    tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """What is retried from elsewhere is delivered within a second, though nothing was due for hours."""
    del autojump_clock
    tried = trio.Event()

    class Deliver:
        """Notes that it was asked."""

        async def deliver(self, attempt: Attempt) -> list[Reply]:
            tried.set()
            return [OK] * len(attempt.recipients)

    async with opened(tmp_path) as spool, opened(tmp_path) as other, trio.open_nursery() as nursery:
        queue_id = await accept(other)
        await other.change([queue_id], lambda each: replace(each, due=LATER))
        await nursery.start(lambda task_status: run_queue(spool, Deliver(), now=lambda: NOW, task_status=task_status))
        await trio.testing.wait_all_tasks_blocked()
        with trio.fail_after(1):
            assert await results(other, Selection(), retry(NOW)) == [(queue_id, "changed")]
            await tried.wait()
        nursery.cancel_scope.cancel()


def test_refused() -> None:
    """The reply of a recipient that is tried again stays to be seen."""
    refused = replace(FAILED, last=REFUSED)
    after = retry(NOW)(entry_of(refused, due=None), everyone)
    assert after is not None
    assert after.pending[0].last == REFUSED
