"""The journal of a message on SQLite: what it costs, what it holds at most, and what becomes of it."""

from __future__ import annotations

import datetime as dt
from dataclasses import replace
from pathlib import Path

import pytest
from tests.spool.spoolhouse import LATE, NOON, OK, Disk, accept, ask, finish, opened

from smtprecv.protocol import Reply
from smtprecv.spool import Answered, Entry, Spool, Tried
from smtprecv.spool._tried import JOURNAL_LENGTH

SECOND = dt.timedelta(seconds=1)
LATER = Reply(451, "later")
TRIED = Tried.of(NOON, SECOND, [("b@example.net", "451 later"), ("c@example.net", "250 ok")])


async def defer(spool: Spool, tried: Tried | None) -> Entry:
    """Try what is due, in vain."""
    (claim,) = await spool.claim(LATE, 1)
    await spool.record(replace(claim.entry.after([LATER] * 2, NOON), due=NOON), tried)
    return claim.entry


def test_an_attempt_is_bounded() -> None:
    """Recipients are grouped by reply: ten names of each, ten replies, texts of 500 characters; the counts are true."""
    few = [(f"{n}@example.com", "451 later") for n in range(11)]
    tried = Tried.of(NOON, SECOND, [*few, ("x@example.com", "250 ok"), ("y@example.com", "451 later")])
    first, second = tried.answers
    assert first == Answered("451 later", tuple(name for name, _ in few[:10]), 12)
    assert second == Answered("250 ok", ("x@example.com",), 1)
    many = [(f"{n}@example.com", f"550 {n:04} {'x' * 999}") for n in range(1000)]
    tried = Tried.of(NOON, SECOND, many, "y" * 999)
    assert (tried.recipients, len(tried.answers), tried.error) == (1000, 10, "y" * 500)
    assert {len(each.reply) for each in tried.answers} == {500}


def test_an_attempt_is_in_utc() -> None:
    """Whatever the zone of the clock, the time of an attempt is in UTC."""
    zone = dt.timezone(dt.timedelta(hours=5))
    started = Tried.of(NOON.astimezone(zone), SECOND, []).started
    assert (started, started.tzinfo) == (NOON, dt.UTC)


async def test_a_journal_is_bounded(tmp_path: Path) -> None:
    """The latest hundred attempts of a message are kept, and older ones go."""
    async with opened(tmp_path) as spool:
        entry = await accept(spool)
        await defer(spool, TRIED)
    ask(
        tmp_path,
        "WITH RECURSIVE n (i) AS (SELECT 2 UNION ALL SELECT i + 1 FROM n WHERE i < 150)"
        " INSERT INTO smtprecv_attempt SELECT message, i, started + i, took, recipients, answers, error"
        " FROM smtprecv_attempt, n",
    )
    latest = replace(TRIED, started=LATE)
    async with opened(tmp_path) as spool:
        await defer(spool, latest)
        journal = await spool.journal(entry.queue_id)
    assert (len(journal), journal[-1]) == (JOURNAL_LENGTH, latest)
    assert journal[0].started == NOON + 52 * dt.timedelta(microseconds=1)


async def test_a_journal_costs_who_has_one(tmp_path: Path) -> None:
    """What was never tried before goes without a look at the journal's rows; what was takes its journal with it."""
    disk = Disk()
    async with opened(tmp_path, disk.options()) as spool:
        for count, tried in ((0, None), (1, TRIED)):
            await accept(spool)
            await defer(spool, tried)
            disk.statements.clear()
            (claim,) = await spool.claim(LATE, 1)
            await spool.record(claim.entry.after([OK, OK], NOON), TRIED)
            touching = [each for each in disk.statements if each.startswith(("INSERT", "DELETE")) and "attempt" in each]
            assert len(touching) == count
    assert ask(tmp_path, "SELECT count(*) FROM smtprecv_attempt") == [(0,)]


async def test_an_attempt_that_cannot_be_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A damaged attempt is told by the log and by verify, and hides no other; the message is delivered as ever."""
    async with opened(tmp_path) as spool:
        entry = await accept(spool)
        for _ in range(3):
            await defer(spool, TRIED)
    ask(tmp_path, "UPDATE smtprecv_attempt SET answers = '{}' WHERE position = 1")
    ask(tmp_path, "UPDATE smtprecv_attempt SET started = 1 << 62 WHERE position = 3")
    async with opened(tmp_path) as spool:
        assert await spool.journal(entry.queue_id) == [TRIED]
        assert caplog.text.count(f"{entry.queue_id}: an attempt cannot be read") == 2
        assert await spool.verify() == [
            f"{entry.queue_id}: an attempt cannot be read: KeyError: 'v'",
            f"{entry.queue_id}: an attempt cannot be read: OverflowError: date value out of range",
        ]
        (claim,) = await spool.claim(LATE, 1)
        await finish(spool, claim)
        assert await spool.verify() == []


async def test_attempts_of_nobody(tmp_path: Path) -> None:
    """A journal without a message is a fault; that of a message which was set aside is none."""
    async with opened(tmp_path) as spool:
        await accept(spool)
        await defer(spool, TRIED)
    ask(tmp_path, "UPDATE smtprecv_message SET client = 'x'")
    ask(tmp_path, "INSERT INTO smtprecv_attempt VALUES (99, 1, 0, 0, 0, '{}', NULL)")
    async with opened(tmp_path) as spool:
        assert await spool.claim(LATE, 1) == []
        aside, stray = sorted(await spool.verify())
    assert "set aside" in aside
    assert stray == "the database: 1 rows of attempt belong to no message"
