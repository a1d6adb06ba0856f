"""Write docs/retries.svg: a year of mail for a destination that is often away, in simulated time.

`python tools/draw_year.py` rewrites the file; a test fails when it is stale, and holds the year to the schedule.
"""

from __future__ import annotations

import datetime as dt
import random
from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, cast
from unittest.mock import patch

import trio
import trio.testing

from smtprecv.delivery import Attempt
from smtprecv.message import Client, Message, QueueId, SessionId
from smtprecv.protocol import EnhancedStatus, Envelope, Recipient, Reply, parse_forward_path, parse_reverse_path
from smtprecv.queue import _runner, run_queue
from smtprecv.spool import Claim, Entry, Spool, Standing, Tried

if TYPE_CHECKING:
    from smtprecv.spool import FreshMail

PLOT = Path(__file__).parent.parent / "docs" / "retries.svg"

SEED = 5321
DAY = 86_400.0
YEAR = 365 * DAY
EPOCH = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
DESTINATION = "mx.example.com:25"
OK = Reply(250, "ok")
AWAY = Reply(451, "mx.example.com:25: Connection refused", EnhancedStatus(4, 4, 1))
WIDTH, HEIGHT, LEFT, TOP, BAND = 1000, 300, 45, 30, 12


@dataclass(frozen=True)
class Try:
    """One attempt: its message and number, when it began and ended, and whether the message was delivered."""

    queue_id: QueueId
    number: int
    began: float
    ended: float
    is_delivered: bool


@dataclass
class Year:
    """What came of a year: when the destination changed (down, up, …), all attempts, each message with its end."""

    changes: list[float]
    tries: list[Try] = field(default_factory=list)
    ended: dict[QueueId, tuple[float, Entry]] = field(default_factory=dict)

    def is_up(self, time: float) -> bool:
        """Say whether the destination answers."""
        return bisect_right(self.changes, time) % 2 == 0

    def destination(self, entry: Entry, recipient: Recipient) -> str:
        """Name the one destination."""
        return DESTINATION

    async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
        """Answer after a second, if the destination is there."""
        began = trio.current_time()
        await trio.sleep(1)
        is_up = self.is_up(began)
        number = attempt.entry.attempts + 1
        self.tries.append(Try(attempt.queue_id, number, began, trio.current_time(), is_up))
        return [OK if is_up else AWAY]


@dataclass
class Memory:
    """As much of a Spool as a run needs, in memory."""

    year: Year
    waiting: dict[QueueId, Entry] = field(default_factory=dict)
    news: trio.Event = field(default_factory=trio.Event)

    def accept(self, entry: Entry) -> None:
        """Take a message."""
        self.waiting[entry.queue_id] = entry
        self.news.set()

    @asynccontextmanager
    async def fresh(self, _: int) -> AsyncIterator[FreshMail]:
        """Let all mail come as what is due."""
        yield cast("FreshMail", self)

    async def receive(self) -> Claim:
        """Give nothing."""
        await trio.sleep_forever()
        raise AssertionError

    async def claim(self, now: dt.datetime, limit: int) -> Sequence[Claim]:
        """Give what is due, the longest due first."""
        await trio.lowlevel.checkpoint()
        due = sorted(
            (entry.due, queue_id) for queue_id, entry in self.waiting.items() if entry.due and entry.due <= now
        )
        return [Claim(self.waiting.pop(queue_id), cast("Message", None)) for _, queue_id in due[:limit]]

    async def record(self, entry: Entry, _: Tried | None = None) -> None:
        """Keep what is pending."""
        await trio.lowlevel.checkpoint()
        if entry.pending:
            self.waiting[entry.queue_id] = entry
        else:
            self.year.ended[entry.queue_id] = (trio.current_time(), entry)

    async def next_due(self) -> dt.datetime | None:
        """Give the earliest time."""
        await trio.lowlevel.checkpoint()
        return min((entry.due for entry in self.waiting.values() if entry.due), default=None)

    async def wait_for_mail(self) -> None:
        """Wait for a message."""
        await self.news.wait()
        self.news = trio.Event()


def now() -> dt.datetime:
    """Give the wall time of the year."""
    return EPOCH + dt.timedelta(seconds=trio.current_time())


def simulate(days: float = 365) -> Year:
    """Live through the year."""
    chance = random.Random(SEED)  # always the same
    year = Year(_changes(chance))
    # Looks for what other processes do are left out: there are none.
    with patch.object(_runner, "_LONGEST_SLEEP", YEAR), patch.object(_runner, "_RECOVERY_INTERVAL", 2 * YEAR):
        trio.run(_live, year, chance, days * DAY, clock=trio.testing.MockClock(autojump_threshold=0))
    return year


def _changes(chance: random.Random) -> list[float]:
    """Say when the destination goes and comes back: for minutes, hours or days, and then up to a fortnight of rest."""
    changes: list[float] = []
    time = 0.0
    while time < YEAR:
        time += chance.uniform(0.2, 14) * DAY
        changes.append(time)
        time += DAY * 10 ** chance.uniform(-2.5, 0.9)
        changes.append(time)
    return changes


async def _live(year: Year, chance: random.Random, until: float) -> None:
    spool = Memory(year)
    async with trio.open_nursery() as nursery:
        await nursery.start(partial(run_queue, cast("Spool", spool), year, now=now))
        number = 0
        while (pause := chance.expovariate(1 / (0.4 * DAY))) + trio.current_time() < until:
            await trio.sleep(pause)
            for _ in range(chance.choice((1, 1, 1, 4))):
                number += 1
                spool.accept(_message(QueueId(f"{number:020d}")))
                # Never two at one moment: whose turn is first would be chance.
                await trio.sleep(10)
        await trio.sleep(6 * DAY)
        nursery.cancel_scope.cancel()


def _message(queue_id: QueueId) -> Entry:
    recipient = Recipient(parse_forward_path("b@example.com"))
    envelope = Envelope(parse_reverse_path("a@example.org"), recipients=(recipient,))
    client = Client(SessionId("s1"), None, None)
    return Entry(queue_id, now(), client, envelope, 1000, (Standing(recipient),), due=now())


def plot(year: Year) -> str:
    """Draw the attempts of a year by time and by the age of their messages."""
    arrived = {queue_id: (entry.received - EPOCH).total_seconds() for queue_id, (_, entry) in year.ended.items()}

    def dots(wanted: Callable[[Try], bool]) -> str:
        """Give the places of attempts as one path."""
        places = {(_x(each.began), _y(each.began - arrived[each.queue_id])) for each in year.tries if wanted(each)}
        return "".join(f"M{x} {y}h0" for x, y in sorted(places))

    lost = {(_x(arrived[queue_id] + 5 * DAY), _y(5 * DAY)) for queue_id, (_, e) in year.ended.items() if not e.is_done}
    downs = zip(year.changes[::2], year.changes[1::2], strict=True)
    outages = "".join(f"M{_x(down)} {TOP}H{max(_x(up), _x(down) + 1)}v{HEIGHT}H{_x(down)}z" for down, up in downs)
    return "\n".join(
        [
            (
                f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH + LEFT + 10} {HEIGHT + TOP + 40}" '
                'font-family="sans-serif" font-size="11">'
            ),
            '<rect width="100%" height="100%" fill="#fff"/>',
            f'<path fill="#f3d9d6" d="{outages}"/>',
            *_axes(),
            f'<path {_DOT} stroke="#777" d="{dots(lambda each: not each.is_delivered)}"/>',
            f'<path {_DOT} stroke="#0a7d33" d="{dots(lambda each: each.is_delivered)}"/>',
            f'<path {_DOT} stroke="#c0281a" d="{"".join(f"M{x} {y}h0" for x, y in sorted(lost))}"/>',
            (
                f'<text x="{LEFT}" y="18">By age of the message: grey deferred, green delivered, red given up; '
                "red ground: the destination is away</text>"
            ),
            "</svg>",
            "",
        ]
    )


_DOT = 'fill="none" stroke-width="3" stroke-linecap="round"'


def _axes() -> Iterable[str]:
    for day in range(6):
        y = _y(day * DAY)
        yield f'<path stroke="#ccc" d="M{LEFT} {y}h{WIDTH}"/><text x="5" y="{y + 4}">{day} d</text>'
    for day in range(0, 366, 73):
        yield f'<text x="{_x(day * DAY) - 12}" y="{TOP + HEIGHT + 20}">day {day}</text>'


def _x(time: float) -> int:
    return LEFT + round(min(time / YEAR, 1) * WIDTH)


def _y(age: float) -> int:
    return TOP + HEIGHT - round(age / (5 * DAY) * HEIGHT)


if __name__ == "__main__":
    PLOT.write_text(plot(simulate()))
