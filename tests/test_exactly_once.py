"""Outcomes with a Commit: what a delivery writes to the spool's database is there once for each recipient."""

from __future__ import annotations

import datetime as dt
import sqlite3
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import pytest
import trio
import trio.testing
from tests.spool.spoolhouse import Disk, opened
from tests.statusreport import told
from tests.test_queue import CLIENT, LATER, NEVER, OK, Scripted, accept, envelope, now, one

from smtprecv.deliveries import Route, Router
from smtprecv.delivery import Attempt, Delivery
from smtprecv.errors import CommitFailed, SpoolError
from smtprecv.message import Commit, DeliveryAnswer
from smtprecv.protocol import Notify, RcptParameters, Reply
from smtprecv.queue import Bounces, run_once
from smtprecv.server import DirectIntake
from smtprecv.spool import Entry, Spool, TransactionalSpool

HOUR = dt.timedelta(hours=1)
Write = Callable[[sqlite3.Connection, str], None]


def put(connection: sqlite3.Connection, name: str) -> None:
    """Write a row for a recipient."""
    connection.execute("INSERT INTO box VALUES (?)", (name,))


def refuse(connection: sqlite3.Connection, name: str) -> None:
    """Write a row, and raise."""
    put(connection, name)
    msg = f"not for {name}"
    raise ValueError(msg)


@dataclass
class Storing:
    """A delivery into the spool's database; by the local part it may write otherwise, or answer something else."""

    writes: dict[str, Write] = field(default_factory=dict)
    answers: dict[str, Reply] = field(default_factory=dict)
    calls: Counter[str] = field(default_factory=Counter)

    async def deliver(self, attempt: Attempt) -> Sequence[DeliveryAnswer]:
        await trio.lowlevel.checkpoint()
        names = [recipient.forward_path.mailbox.local_part for recipient in attempt.recipients]
        return [self.answers.get(name) or Commit(partial(self.write, name)) for name in names]

    def write(self, name: str, connection: sqlite3.Connection) -> None:
        """Write for one recipient."""
        self.calls[name] += 1
        self.writes.get(name, put)(connection, name)


async def make_box(spool: TransactionalSpool) -> None:
    """Make the table of the program."""
    await spool.transact(lambda connection: connection.execute("CREATE TABLE IF NOT EXISTS box (name TEXT)"))


async def rows(spool: TransactionalSpool) -> list[str]:
    """Give what was written, in order."""
    query = "SELECT name FROM box ORDER BY name"
    return await spool.transact(lambda connection: [name for (name,) in connection.execute(query)])


async def one_pass(spool: Spool, delivery: Delivery, reports: Delivery | None = None) -> None:
    """Try everything, due or not."""
    bounces = None if reports is None else Bounces(reports, "mx.example.com")
    ids = [entry.queue_id for entry in await spool.entries()]
    await run_once(spool, delivery, ids=ids, now=now, bounces=bounces)


def standings(entry: Entry) -> list[tuple[str, str, int]]:
    """Give each recipient's name and status, and the code of its last reply."""
    return [
        (each.recipient.forward_path.mailbox.local_part, each.status.value, each.last.code if each.last else 0)
        for each in entry.standings
    ]


async def test_what_is_written_is_there_when_the_message_is_gone(tmp_path: Path) -> None:
    """A Commit is done for each recipient, in the one transaction that removes the message."""
    disk = Disk()
    async with opened(tmp_path, disk.options()) as spool:
        await make_box(spool)
        await accept(spool, "b@example.com", "c@example.com")
        disk.statements.clear()
        await one_pass(spool, Storing())
        begun = [at for at, statement in enumerate(disk.statements) if statement.startswith("BEGIN IMMEDIATE")]
        last = disk.statements[begun[-1] :]
        written = [statement.split()[0] for statement in last if "box" in statement or "DELETE" in statement]
        assert written == ["INSERT", "INSERT", "DELETE", "DELETE", "DELETE"]
        assert last.count("COMMIT") == 1
        assert (await rows(spool), await spool.entries()) == (["b", "c"], [])


async def test_one_that_raises_counts_for_itself_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Whose Commit raises is 451 with the text kept, and nothing of it stays; the others are served, and not again."""
    delivery = Storing({"c": refuse, "d": refuse})
    async with opened(tmp_path) as spool:
        await make_box(spool)
        await accept(spool, "b@example.com", "c@example.com", "d@example.com")
        await one_pass(spool, delivery)
        entry = await one(spool)
        assert standings(entry) == [("b", "delivered", 250), ("c", "pending", 451), ("d", "pending", 451)]
        assert (entry.error, entry.due is not None and entry.due > now()) == ("ValueError: not for c", True)
        assert await rows(spool) == ["b"]
        assert caplog.text.count("what was to be done with the outcome raised") == 2
        assert "ValueError: not for d" in caplog.text
        (tried,) = await spool.journal(entry.queue_id)
        assert [(each.reply[:3], each.count) for each in tried.answers] == [("250", 1), ("451", 2)]
        delivery.writes.clear()
        await one_pass(spool, delivery)
        assert (await rows(spool), await spool.entries()) == (["b", "c", "d"], [])
        # What was rolled back with those that raised was called once more.
        assert delivery.calls == {"b": 2, "c": 2, "d": 2}


async def test_with_a_report_in_the_same_transaction(tmp_path: Path) -> None:
    """Commit, outcome and report are durable together; where a Commit raises, the report tells of the others alone."""
    delivery, postbox = Storing({"c": refuse}, {"d": NEVER}), Scripted()
    asked = frozenset({Notify.SUCCESS, Notify.FAILURE})
    async with opened(tmp_path) as spool:
        await make_box(spool)
        made = envelope("b@example.com", "c@example.com", "d@example.com")
        recipients = tuple(replace(each, parameters=RcptParameters(asked)) for each in made.recipients)
        draft = await spool.begin(now())
        await draft.write(b"Subject: x\r\n\r\nbody\r\n")
        await draft.commit(CLIENT, replace(made, recipients=recipients), now())
        reports: list[bytes] = []

        class Postbox:
            async def deliver(self, attempt: Attempt) -> Sequence[Reply]:
                reports.append(await attempt.message.bytes())
                return await postbox.deliver(attempt)

        await one_pass(spool, delivery, Postbox())
        assert [sorted(told(report)) for report in reports] == [
            [("rfc822; b@example.com", "delivered", "2.0.0"), ("rfc822; d@example.com", "failed", "5.0.0")]
        ]
        assert (await rows(spool), standings(await one(spool))[1]) == (["b"], ("c", "pending", 451))
        delivery.writes.clear()
        await one_pass(spool, delivery, Postbox())
        assert [told(report) for report in reports[1:]] == [[("rfc822; c@example.com", "delivered", "2.0.0")]]
        assert (await rows(spool), await spool.entries()) == (["b", "c"], [])


async def test_one_for_several(tmp_path: Path) -> None:
    """The very same Commit for several recipients is called once, and when it raises that counts for them all."""
    calls: list[bool] = []

    def write(connection: sqlite3.Connection) -> None:
        put(connection, "all")
        calls.append(len(calls) > 0)
        if not calls[-1]:
            raise ValueError

    class ForAll:
        async def deliver(self, attempt: Attempt) -> Sequence[DeliveryAnswer]:
            return [Commit(write)] * len(attempt.recipients)

    async with opened(tmp_path) as spool:
        await make_box(spool)
        await accept(spool, "b@example.com", "c@example.com")
        await one_pass(spool, ForAll())
        assert standings(await one(spool)) == [("b", "pending", 451), ("c", "pending", 451)]
        await one_pass(spool, ForAll())
        assert (await rows(spool), calls) == (["all"], [False, True])


async def test_another_reply(tmp_path: Path) -> None:
    """A Commit goes with any outcome: what is written with a 4yz is written once for each attempt."""

    class Counting:
        async def deliver(self, attempt: Attempt) -> Sequence[DeliveryAnswer]:
            return [Commit(lambda connection: put(connection, "try"), LATER)]

    async with opened(tmp_path) as spool:
        await make_box(spool)
        await accept(spool)
        await one_pass(spool, Counting())
        await one_pass(spool, Counting())
        assert (standings(await one(spool)), await rows(spool)) == ([("b", "pending", 451)], ["try", "try"])


async def test_through_a_router(tmp_path: Path) -> None:
    """What several routes give is done in one transaction, and what one of them breaks is its own."""
    storing = Storing()
    router = Router(Route(Storing({"b": refuse}), "example.com"), Route(storing, "example.org"), Route(Scripted()))
    async with opened(tmp_path) as spool:
        await make_box(spool)
        await accept(spool, "b@example.com", "c@example.org", "d@example.net")
        await one_pass(spool, router)
        assert standings(await one(spool)) == [("b", "pending", 451), ("c", "delivered", 250), ("d", "delivered", 250)]
        assert await rows(spool) == ["c"]


class Foreign:
    """A spool of another kind: it has what ``Spool`` promises, and nothing beside."""

    def __init__(self, spool: TransactionalSpool) -> None:
        """Pass everything on to a spool on SQLite."""
        names = [name for name in dir(Spool) if not name.startswith("_")]
        vars(self).update({name: getattr(spool, name) for name in names})


async def test_a_spool_that_has_no_such_transactions(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """In another spool a Commit is 451 for its recipient, the log says why, and nothing is lost."""
    delivery = Storing(answers={"c": OK})
    async with opened(tmp_path) as spool:
        foreign: Spool = Foreign(spool)  # type: ignore[assignment]
        assert not isinstance(foreign, TransactionalSpool)
        await accept(foreign, "b@example.com", "c@example.com")
        await one_pass(foreign, delivery)
        entry = await one(spool)
        assert standings(entry) == [("b", "pending", 451), ("c", "delivered", 250)]
        assert entry.error == "RuntimeError: a Commit needs a spool on SQLite"
        assert "a Commit needs a spool on SQLite" in caplog.text
        assert delivery.calls == Counter()


async def test_without_a_queue(caplog: pytest.LogCaptureFixture) -> None:
    """Where there is no queue at all (DirectIntake), a Commit is 451, and the log says why."""
    incoming = await DirectIntake(Storing(answers={"c": OK}), now=now).begin(CLIENT)
    await incoming.write(b"Subject: x\r\n\r\n")
    replies = await incoming.commit(CLIENT, envelope("b@example.com", "c@example.com"))
    assert [reply.code for reply in replies] == [451, 250]
    assert "a Commit needs a queue" in caplog.text


@pytest.mark.parametrize("beginning", ["INSERT INTO box", "DELETE FROM smtprecv_recipient", "COMMIT", "RELEASE job"])
async def test_a_record_that_fails_is_repeated(
    beginning: str, tmp_path: Path, autojump_clock: trio.testing.MockClock
) -> None:
    """While the disk fails nothing is recorded and nothing written; then both, and the delivery is asked once."""
    disk, delivery = Disk(), Storing()
    async with opened(tmp_path, disk.options()) as spool:
        await make_box(spool)
        await accept(spool)
        asked: list[Attempt] = []

        class Watched:
            async def deliver(self, attempt: Attempt) -> Sequence[DeliveryAnswer]:
                asked.append(attempt)
                disk.failing[beginning] = sqlite3.SQLITE_CORRUPT
                return await delivery.deliver(attempt)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(one_pass, spool, Watched())
            await trio.sleep(5)
            disk.failing.clear()
        if beginning != "INSERT INTO box":
            assert (await rows(spool), await spool.entries(), len(asked)) == (["b"], [], 1)
            return
        # To the queue this is no other than what a function raises by itself.
        assert (await rows(spool), standings(await one(spool))) == ([], [("b", "pending", 451)])


async def test_only_who_has_the_claim(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is recorded of a message that is not claimed here is not done: another will deliver it, or has."""
    async with opened(tmp_path) as spool, opened(tmp_path) as other:
        await make_box(spool)
        await accept(spool)
        (claim,) = await other.claim(now(), 1)
        commit = Commit(lambda connection: put(connection, "b"))
        outcome = claim.entry.after([commit], now())
        await spool.committing([commit]).record(outcome)
        assert "not claimed here" in caplog.text
        await other.committing([commit]).record(outcome)
        await other.committing([commit]).record(outcome)
        assert (await rows(spool), await spool.entries()) == (["b"], [])


async def test_commit_failed(tmp_path: Path) -> None:
    """CommitFailed names each Commit that raised, with what it raised; nothing was recorded and the claim stands."""
    error = KeyError("k")

    def fail(connection: sqlite3.Connection) -> None:
        put(connection, "never")
        raise error

    good, bad = Commit(lambda connection: put(connection, "b")), Commit(fail)
    async with opened(tmp_path) as spool:
        await make_box(spool)
        await accept(spool, "b@example.com", "c@example.com")
        (claim,) = await spool.claim(now(), 1)
        with pytest.raises(CommitFailed, match="KeyError: 'k'") as raised:
            await spool.committing([good, bad]).record(claim.entry.after([good, bad], now()))
        assert raised.value.failures == {bad: error}
        assert (await rows(spool), await spool.claim(now(), 1)) == ([], [])
        await spool.committing([good]).record(claim.entry.after([good, LATER], now()))
        assert await rows(spool) == ["b"]


async def test_one_that_ends_the_transaction(tmp_path: Path) -> None:
    """A function that rolls back the whole transaction is found out, and those behind it are done the next time."""

    def lose(connection: sqlite3.Connection, _: str) -> None:
        connection.execute("CREATE TABLE IF NOT EXISTS u (n UNIQUE)")
        connection.execute("INSERT INTO u VALUES (1)")
        connection.execute("INSERT OR ROLLBACK INTO u VALUES (1)")

    async with opened(tmp_path) as spool:
        await make_box(spool)
        await accept(spool, "b@example.com", "c@example.com", "d@example.com")
        await one_pass(spool, Storing({"c": lose}))
        assert (await rows(spool), standings(await one(spool))[1]) == (["b", "d"], ("c", "pending", 451))


async def test_a_spool_that_keeps_failing(tmp_path: Path, autojump_clock: trio.testing.MockClock) -> None:
    """A cancelled run still tries to record what was done, for so long; then the message is another's to deliver."""
    disk = Disk()
    async with opened(tmp_path, disk.options()) as spool:
        await make_box(spool)
        await accept(spool)
        disk.failing["DELETE"] = sqlite3.SQLITE_IOERR
        with trio.move_on_after(30), pytest.raises(SpoolError):
            await one_pass(spool, Storing())
        disk.failing.clear()
        assert await rows(spool) == []
    async with opened(tmp_path) as spool:
        await one_pass(spool, Storing())
        assert (await rows(spool), await spool.entries()) == (["b"], [])
