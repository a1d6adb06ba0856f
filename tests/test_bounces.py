"""Reports made by the runner: who is told, when, once, and what happens where the report cannot be stored."""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from tests.spool.spoolhouse import Disk, opened
from tests.statusreport import parsed, told
from tests.test_queue import CLIENT, LATER, NEVER, OK, PLAIN, Scripted, envelope, now

from smtprecv.deliveries import Relay, Route, Router
from smtprecv.delivery import Attempt, Delivery
from smtprecv.message import QueueId, Redirect
from smtprecv.protocol import (
    ByMode,
    DeliverBy,
    Dialect,
    EnhancedStatus,
    Envelope,
    MailParameters,
    Notify,
    RcptParameters,
    Reply,
    ReversePath,
    parse_forward_path,
)
from smtprecv.queue import Bounces, run_once, run_queue
from smtprecv.retry import Backoff
from smtprecv.spool import Entry, Spool, Status

HOUR = 60 * 60
BODY = b"Subject: x\r\n\r\nbody\r\n"


@dataclass
class Postbox:
    """Takes reports as a delivery, or answers them as told."""

    answer: Reply = OK
    reports: list[bytes] = field(default_factory=list[bytes])
    times: list[float] = field(default_factory=list[float])
    envelopes: list[Envelope] = field(default_factory=list[Envelope])

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        self.reports.append(await attempt.message.bytes())
        self.times.append(trio.current_time())
        self.envelopes.append(attempt.envelope)
        return [self.answer]

    @property
    def told(self) -> list[list[tuple[str, str, str]]]:
        """The recipient, the action and the status of each group of each report."""
        return [told(report) for report in self.reports]


def answering(**replies: Reply) -> Scripted:
    """Give a delivery that answers by the local part; OK for others."""
    return Scripted(lambda address, _: replies.get(address.partition("@")[0], OK))


async def accept(
    spool: Spool,
    *addresses: str,
    notify: frozenset[Notify] | None = None,
    octets: bytes = BODY,
    is_null: bool = False,
    deliver_by: DeliverBy | None = None,
) -> QueueId:
    """Accept a message from <a@example.com> to these."""
    made = envelope(*addresses)
    recipients = tuple(replace(each, parameters=RcptParameters(notify)) for each in made.recipients)
    path = ReversePath(None) if is_null else made.reverse_path
    draft = await spool.begin(now())
    await draft.write(octets)
    made = Envelope(path, MailParameters(deliver_by=deliver_by), recipients)
    return (await draft.commit(CLIENT, made, now())).queue_id


async def one_pass(spool: Spool, delivery: Delivery, postbox: Postbox) -> Sequence[Entry]:
    """Make one pass with reports, and give what is left."""
    bounces = Bounces(postbox, "mx.example.com")
    await run_once(spool, delivery, PLAIN, now=now, bounces=bounces)
    return await spool.entries()


@asynccontextmanager
async def running(
    spool: Spool, delivery: Delivery, postbox: Postbox, retry: Backoff = PLAIN, warn_after: int = 4
) -> AsyncIterator[None]:
    """Run the queue with reports for the block."""
    bounces = Bounces(postbox, "mx.example.com", dt.timedelta(hours=warn_after))
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(run_queue, spool, delivery, retry, now=now, bounces=bounces))
        yield
        nursery.cancel_scope.cancel()


async def test_failure(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """Those that fail in one attempt are in one report, from the null reverse-path to the sender, and all is gone.

    RFC 5321 section 6.1.
    """
    postbox = Postbox()
    never = Reply(550, "nobody", EnhancedStatus(5, 1, 1))
    async with opened(tmp_path) as spool, running(spool, answering(b=never, c=NEVER), postbox):
        await accept(spool, "b@example.com", "c@example.com", "d@example.com")
        await trio.sleep(1)
        assert await spool.entries() == []
    assert postbox.told == [
        [("rfc822; b@example.com", "failed", "5.1.1"), ("rfc822; c@example.com", "failed", "5.0.0")],
    ]
    [sent] = postbox.envelopes
    assert (str(sent.reverse_path), [str(to) for to in sent.recipients]) == ("", ["a@example.com"])
    assert parsed(postbox.reports[0])["To"] == "a@example.com"


async def test_giving_up(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """Who is given up is reported with the reply that he had last."""
    postbox = Postbox()
    async with opened(tmp_path) as spool, running(spool, answering(b=LATER), postbox):
        await accept(spool, "b@example.com")
        await trio.sleep(3 * HOUR)
        assert await spool.entries() == []
    assert postbox.told == [[("rfc822; b@example.com", "failed", "4.0.0")]]


async def test_delay_is_told_once(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """RFC 3461 section 5.2.5: what is late is told after the first attempt past four hours, across a restart too."""
    postbox = Postbox()
    async with opened(tmp_path) as spool:
        queue_id = await accept(spool, "b@example.com")
        async with running(spool, answering(b=LATER), postbox, Backoff()):
            await trio.sleep(6 * HOUR)
        [entry] = await spool.find([queue_id])
        assert entry.warned is not None
        async with running(spool, answering(b=LATER), postbox, Backoff()):
            await trio.sleep(24 * HOUR)
        assert postbox.told == [[("rfc822; b@example.com", "delayed", "4.0.0")]]
        assert 4 * HOUR <= postbox.times[0] <= 6 * HOUR
        until = entry.received + Backoff().give_up_after
        assert f"{until:%d %b %Y %H:%M:%S}" in postbox.reports[0].decode()


async def test_a_time_to_be_told(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """RFC 2852 section 4: with mode N the sender is told behind the time that he set; the message is still tried."""
    postbox = Postbox()
    async with opened(tmp_path) as spool, running(spool, answering(b=LATER), postbox):
        for mode in ByMode:
            await accept(spool, "b@example.com", deliver_by=DeliverBy(600, mode))
        await trio.sleep(HOUR)
        [entry] = await spool.entries()
    assert sorted(action for report in postbox.told for _, action, _ in report) == ["delayed", "failed"]
    assert len(entry.pending) == 1


@pytest.mark.parametrize(
    ("notify", "reply", "expected"),
    [
        (frozenset(), NEVER, []),
        (frozenset({Notify.SUCCESS, Notify.DELAY}), NEVER, []),
        (frozenset({Notify.FAILURE}), NEVER, ["failed"]),
        (frozenset({Notify.SUCCESS}), OK, ["delivered"]),
        (frozenset({Notify.SUCCESS}), Reply(250, "ok", EnhancedStatus(2, 1, 9)), ["relayed"]),
        (None, OK, []),
    ],
)
async def test_what_was_asked_for(
    notify: frozenset[Notify] | None, reply: Reply, expected: list[str], tmp_path: Path
) -> None:
    """RFC 3461 section 5.2: NOTIFY says who is told; a recipient that nobody wants to hear of ends without a word."""
    postbox = Postbox()
    async with opened(tmp_path) as spool:
        await accept(spool, "b@example.com", notify=notify)
        assert await one_pass(spool, answering(b=reply), postbox) == []
    assert [action for report in postbox.told for _, action, _ in report] == expected


async def test_a_next_hop_that_reports(tmp_path: Path) -> None:
    """RFC 3461 section 5.2.1: who has handed DSN on does not report the success as well, through a router either."""
    relay, store = Relay("192.0.2.1"), Relay("192.0.2.1", dialect=Dialect.LMTP)
    router = Router(Route(relay, "example.com"), Route(store, "example.org"), Route(answering(), "example.net"))
    entries = [envelope(f"b@{host}") for host in ("example.com", "example.org", "example.net", "nowhere.example")]
    async with opened(tmp_path) as spool:
        await accept(spool, "b@example.com")
        [entry] = await spool.entries()
    assert [router.reports_success(entry, each.recipients[0]) for each in entries] == [True, False, False, False]

    @dataclass
    class Reporting(Scripted):
        """A delivery to who reports himself."""

        def reports_success(self, entry: Entry, recipient: object) -> bool:
            return True

    postbox = Postbox()
    async with opened(tmp_path) as spool:
        await accept(spool, "b@example.com", notify=frozenset({Notify.SUCCESS}))
        assert await one_pass(spool, Reporting(), postbox) == []
    assert postbox.told == []


async def test_who_cannot_say_who_reports(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A delivery that raises when it is asked who reports ends nothing: its success counts, and is told by us."""

    @dataclass
    class Unsure(Scripted):
        """A delivery that does not know who reports."""

        def reports_success(self, entry: Entry, recipient: object) -> bool:
            raise KeyError(recipient)

    postbox = Postbox()
    async with opened(tmp_path) as spool:
        await accept(spool, "b@example.com", "c@example.com", notify=frozenset({Notify.SUCCESS}))
        assert await one_pass(spool, Unsure(), postbox) == []
    assert [action for report in postbox.told for _, action, _ in report] == ["delivered", "delivered"]
    assert caplog.text.count("asked who reports") == 2


async def test_told_at_the_very_time(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """RFC 2852 section 4: with mode N a message is tried again at the time set, and reported then, once."""
    postbox, delivery, slow = Postbox(), answering(b=LATER), Backoff(first=dt.timedelta(hours=3), jitter=0)
    async with opened(tmp_path) as spool, running(spool, delivery, postbox, slow):
        await accept(spool, "b@example.com", deliver_by=DeliverBy(600, ByMode.NOTIFY))
        await trio.sleep(2 * HOUR)
    assert postbox.told == [[("rfc822; b@example.com", "delayed", "4.0.0")]]
    assert [round(time) for time in postbox.times] == [600]
    assert [round(time) for time, _ in delivery.offered] == [0, 600]


async def test_nobody_to_be_told(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """Where there are no reports, the time of mode N changes nothing."""
    delivery, slow = answering(b=LATER), Backoff(first=dt.timedelta(hours=3), jitter=0)
    async with opened(tmp_path) as spool, trio.open_nursery() as nursery:
        await accept(spool, "b@example.com", deliver_by=DeliverBy(600, ByMode.NOTIFY))
        await nursery.start(partial(run_queue, spool, delivery, slow, now=now))
        await trio.sleep(2 * HOUR)
        nursery.cancel_scope.cancel()
    assert len(delivery.offered) == 1


@pytest.mark.parametrize(
    ("notify", "is_relayed", "expected"),
    [
        (None, True, ["relayed"]),
        (frozenset({Notify.SUCCESS}), True, ["relayed"]),
        (frozenset({Notify.FAILURE}), True, []),
        (frozenset(), True, []),
        (None, False, []),
        (frozenset({Notify.SUCCESS}), False, ["delivered"]),
    ],
)
async def test_traced(
    notify: frozenset[Notify] | None, expected: list[str], tmp_path: Path, *, is_relayed: bool
) -> None:
    """RFC 2852 section 4: with T each step of the way is told, to whoever did not ask for something else."""

    @dataclass
    class Passing(Scripted):
        """A delivery to who reports himself, or to the end."""

        def reports_success(self, entry: Entry, recipient: object) -> bool:
            return is_relayed

    postbox = Postbox()
    async with opened(tmp_path) as spool:
        await accept(spool, "b@example.com", notify=notify, deliver_by=DeliverBy(60, ByMode.RETURN, is_traced=True))
        assert await one_pass(spool, Passing(), postbox) == []
    assert [action for report in postbox.told for _, action, _ in report] == expected


@dataclass
class Naming(Scripted):
    """A delivery that says who answered, answers late, and may raise."""

    is_raising: bool = False

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        await trio.sleep(60)
        for recipient in attempt.recipients:
            attempt.answered_by(recipient, "mx.example.org")
        if self.is_raising:
            raise OSError
        return await Scripted.deliver(self, attempt)


async def test_what_is_no_name_of_another_system(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """A name that is no text is the delivery's fault, and none that a report fails of, with the outcome lost."""

    class Peer(Scripted):
        async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
            attempt.answered_by(attempt.recipients[0], ("192.0.2.1", 25))  # type: ignore[arg-type]  # no text
            return await Scripted.deliver(self, attempt)

    postbox = Postbox()
    async with opened(tmp_path) as spool:
        await accept(spool, "b@example.com")
        await one_pass(spool, Peer(answering(b=NEVER).script), postbox)
        [entry] = await spool.entries()
        assert [each.status for each in entry.standings] == [Status.PENDING]
        assert entry.error is not None
        assert entry.error.startswith("TypeError: ")
    assert postbox.reports == []


async def test_who_answered(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """RFC 3464 section 2.3.5: the mail system that gave the last reply is named, of a failure and of a delay."""
    postbox = Postbox()
    delivery = Naming(answering(b=NEVER, c=LATER).script)
    async with opened(tmp_path) as spool:
        await accept(spool, "b@example.com", "c@example.com", deliver_by=DeliverBy(30, ByMode.NOTIFY))
        await one_pass(spool, delivery, postbox)
    [report] = postbox.reports
    assert report.count(b"\r\nRemote-MTA: dns; mx.example.org\r\nDiagnostic-Code: smtp; ") == 2
    assert report.count(b"mx.example.org answered: ") == 2


@pytest.mark.parametrize(("mode", "is_raising"), [(ByMode.RETURN, False), (ByMode.NOTIFY, True)])
async def test_nobody_else_answered(
    mode: ByMode, tmp_path: Path, autojump_clock: trio.testing.MockClock, *, is_raising: bool
) -> None:
    """That time is over, or that the delivery raised, is our word: nobody else is named for it."""
    postbox = Postbox()
    async with opened(tmp_path) as spool:
        await accept(spool, "b@example.com", deliver_by=DeliverBy(30, mode))
        await one_pass(spool, Naming(answering(b=LATER).script, is_raising=is_raising), postbox)
    [report] = postbox.reports
    assert b"mx.example.org" not in report


async def test_null_reverse_path(tmp_path: Path) -> None:
    """RFC 5321 section 4.5.5: what comes from the null reverse-path is not reported, and its failure stays visible."""
    postbox = Postbox()
    async with opened(tmp_path) as spool:
        await accept(spool, "b@example.com", is_null=True)
        [left] = await one_pass(spool, answering(b=NEVER), postbox)
    assert (postbox.told, left.standings[0].status) == ([], Status.FAILED)


async def test_no_report_of_a_report(tmp_path: Path) -> None:
    """A report that fails is not reported: it stays, with the message that it tells of."""
    postbox = Postbox(answer=NEVER)
    async with opened(tmp_path) as spool:
        queue_id = await accept(spool, "b@example.com")
        [left] = await one_pass(spool, answering(b=NEVER), postbox)
    assert (left.report_of, left.standings[0].status, len(postbox.told)) == (queue_id, Status.FAILED, 1)


async def test_without_bounces_all_is_as_it_was(tmp_path: Path) -> None:
    """Who has failed stays; a report that another run has made waits, and no delivery for mail gets it."""
    delivery = answering(b=NEVER)
    async with opened(tmp_path) as spool:
        await accept(spool, "b@example.com")
        await run_once(spool, delivery, PLAIN, now=now)
        [left] = await spool.entries()
        assert left.standings[0].status is Status.FAILED
        await run_once(spool, delivery, PLAIN, ids=[left.queue_id], now=now, bounces=Bounces(Postbox(LATER), "mx"))
        [waiting] = await spool.entries()
        offered = len(delivery.offered)
        await run_once(spool, delivery, PLAIN, ids=[waiting.queue_id], now=now)
        [waiting] = await spool.entries()
    assert waiting.report_of == left.queue_id
    assert (str(waiting.standings[0].last), len(delivery.offered)) == (
        "451 4.4.4 reports go nowhere in this run",
        offered,
    )


async def test_who_had_failed_before_stays(tmp_path: Path) -> None:
    """A recipient that failed where nobody was told is not ended, or told of, by another recipient's attempt."""
    postbox = Postbox()
    async with opened(tmp_path) as spool:
        await accept(spool, "b@example.com", "c@example.com")
        await run_once(spool, answering(b=NEVER, c=LATER), PLAIN, now=now)
        [entry] = await spool.entries()
        due = entry.due
        assert due is not None
        await run_once(spool, answering(c=NEVER), PLAIN, now=lambda: due, bounces=Bounces(postbox, "mx.example.com"))
        [left] = await spool.entries()
    assert [standing.status for standing in left.standings] == [Status.FAILED, Status.RETURNED]
    assert postbox.told == [[("rfc822; c@example.com", "failed", "5.0.0")]]


async def test_a_redirected_recipient(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """It is reported by the name that the sender gave it, once, whichever of its mailboxes fail and when."""
    mailboxes = tuple(map(parse_forward_path, ("c@example.net", "d@example.net")))

    class Redirecting:
        """Sends b on to c, who fails at once, and to d, who fails later."""

        tries = 0

        async def deliver(self, attempt: Attempt) -> Sequence[Reply | Redirect]:
            await trio.lowlevel.checkpoint()
            self.tries += 1
            late = LATER if self.tries < 3 else NEVER
            replies: dict[str, Reply | Redirect] = {"b": Redirect(mailboxes), "c": NEVER, "d": late}
            return [replies[str(to)[0]] for to in attempt.recipients]

    postbox = Postbox()
    async with opened(tmp_path) as spool, running(spool, Redirecting(), postbox):
        await accept(spool, "b@example.com")
        await trio.sleep(HOUR)
        assert await spool.entries() == []
    assert postbox.told == [[("rfc822; b@example.com", "failed", "5.0.0")]]


# A spool that fails.


@pytest.mark.parametrize("statement", ["COMMIT", "INSERT INTO smtprecv_message"])
async def test_a_report_that_cannot_be_stored(
    statement: str, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """The record is repeated with its report until it is done; the delivery is not, and there is one report."""
    disk, postbox = Disk(), Postbox()
    delivery = answering(b=NEVER)

    @dataclass
    class Breaking:
        """Breaks the disk before it answers."""

        async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
            disk.failing[statement] = sqlite3.SQLITE_IOERR
            return await delivery.deliver(attempt)

    async with opened(tmp_path, disk.options()) as spool, running(spool, Breaking(), postbox):
        await accept(spool, "b@example.com")
        await trio.sleep(5)
        assert postbox.told == []
        disk.failing.clear()
        await trio.sleep(60)
        assert await spool.entries() == []
    assert (len(delivery.offered), len(postbox.told)) == (1, 1)


async def test_no_room_for_the_whole_message(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """Where nothing is accepted any more a report is, with the header alone."""
    disk, postbox = Disk(), Postbox()

    @dataclass
    class Filling:
        """Fills the disk before it answers."""

        async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
            await trio.lowlevel.checkpoint()
            disk.room = 0
            return [NEVER]

    octets = b"Subject: large\r\n\r\n" + b"0123456789\r\n" * 5450
    async with opened(tmp_path, disk.options()) as spool, running(spool, Filling(), postbox):
        await accept(spool, "b@example.com", octets=octets)
        await trio.sleep(60)
        assert await spool.entries() == []
    [report] = postbox.reports
    assert [part.get_content_type() for part in parsed(report).iter_parts()][-1] == "text/rfc822-headers"


async def test_a_message_that_cannot_be_read(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """A report is made without the message, rather than never."""
    postbox = Postbox()

    @dataclass
    class Losing:
        """Loses the message's file before it answers."""

        async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
            await trio.lowlevel.checkpoint()
            for path in (tmp_path / "bodies").iterdir():
                path.chmod(0o600)
                path.write_bytes(b"")
            return [NEVER]

    async with opened(tmp_path) as spool, running(spool, Losing(), postbox):
        await accept(spool, "b@example.com", octets=b"Subject: large\r\n\r\n" + b"0123456789\r\n" * 9000)
        await trio.sleep(60)
        assert await spool.entries() == []
    assert postbox.told == [[("rfc822; b@example.com", "failed", "5.0.0")]]
