"""Taking messages in: those of one moment with one statement, and each just as it would be taken in alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Final

import pytest
import trio
from tests.spool.spoolhouse import CLIENT, ENVELOPE, LARGE, LATE, NOON, SMALL, Disk, ask, opened

from smtprecv.errors import SpoolError
from smtprecv.protocol import Domain, Envelope, ForwardPath, Mailbox, Recipient, ReversePath
from smtprecv.spool import Entry, Spool
from smtprecv.spool._arrivals import _AT_ONCE

ONE: Final = replace(ENVELOPE, recipients=ENVELOPE.recipients[:1])
BAD: Final = replace(ONE, reverse_path=ReversePath(Mailbox("\ud800", Domain("example.com"))))


async def accept_together(spool: Spool, *messages: tuple[Envelope, bytes]) -> Sequence[Entry | SpoolError]:
    """Accept messages at the same moment; give the entry of each, or why there is none."""
    outcomes: dict[int, Entry | SpoolError] = {}

    async def accept(number: int, envelope: Envelope, octets: bytes) -> None:
        draft = await spool.begin(NOON)
        try:
            await draft.write(octets)
            outcomes[number] = await draft.commit(CLIENT, envelope, NOON)
        except SpoolError as error:
            outcomes[number] = error
        finally:
            await draft.abort()

    async with trio.open_nursery() as nursery:
        for number, message in enumerate(messages):
            nursery.start_soon(accept, number, *message)
    return [outcomes[number] for number in range(len(messages))]


async def test_messages_of_one_moment_are_one_statement(tmp_path: Path) -> None:
    """Messages with one recipient each are taken in with one statement, which is their transaction."""
    disk = Disk()
    async with opened(tmp_path, disk.options()) as spool:
        disk.statements.clear()
        entries = await accept_together(spool, *[(ONE, SMALL)] * 5)
        assert [statement.split(" VALUES")[0] for statement in disk.statements] == ["INSERT INTO smtprecv_arrival"]
        assert sorted(map(str, entries)) == sorted(map(str, await spool.entries()))


@pytest.mark.parametrize("count", [1, 2, _AT_ONCE, _AT_ONCE + 1, 2 * _AT_ONCE + 5])
async def test_any_number(tmp_path: Path, count: int) -> None:
    """However many come at one moment, each is there, with its recipient and its octets."""
    messages = [
        (replace(ONE, recipients=(Recipient(ForwardPath(Mailbox(f"r{n}", Domain("example.net")))),)), b"%d\r\n" % n)
        for n in range(count)
    ]
    async with opened(tmp_path) as spool:
        await accept_together(spool, *messages)
        claims = await spool.claim(LATE, count + 1)
        found = {(claim.entry.envelope, await claim.message.bytes()) for claim in claims}
    assert found == set(messages)
    assert len(claims) == count


async def test_all_kinds_at_one_moment(tmp_path: Path) -> None:
    """One recipient or several, in a row or in a file: what is read is what was accepted."""
    messages = [(ONE, SMALL), (ENVELOPE, SMALL), (ONE, LARGE), (ENVELOPE, LARGE), (ONE, b"")]
    async with opened(tmp_path) as spool:
        entries = await accept_together(spool, *messages)
        claims = {claim.entry.queue_id: claim for claim in await spool.claim(LATE, 9)}
        for entry, (_, octets) in zip(entries, messages, strict=True):
            assert isinstance(entry, Entry)
            claim = claims[entry.queue_id]
            assert (claim.entry, await claim.message.bytes()) == (entry, octets)
    assert ask(tmp_path, "SELECT count(*) FROM smtprecv_body") == [(3,)]


async def test_a_bad_message_fails_alone(tmp_path: Path) -> None:
    """A message that cannot be stored is refused; those of the same moment are accepted."""
    async with opened(tmp_path) as spool:
        outcomes = await accept_together(spool, (ONE, b"1"), (BAD, b"2"), (ONE, b"3"))
        assert [isinstance(outcome, Entry) for outcome in outcomes] == [True, False, True]
        assert {await claim.message.bytes() for claim in await spool.claim(LATE, 9)} == {b"1", b"3"}


async def test_a_defect_fails_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What is no number where a number belongs is somebody's defect, and fails his message alone."""
    odd = replace(ONE, parameters=replace(ONE.parameters, priority=2**64))
    async with opened(tmp_path) as spool:
        outcomes = await accept_together(spool, (ONE, b"1"), (odd, b"2"), (ONE, b"3"))
        assert [isinstance(outcome, Entry) for outcome in outcomes] == [True, False, True]
    assert "a defect in a job of the spool" in caplog.text


async def test_beside_other_work(tmp_path: Path) -> None:
    """Messages that share their transaction with other work are one statement of it; a bad one fails alone."""
    disk = Disk()
    async with opened(tmp_path, disk.options()) as spool:
        disk.statements.clear()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(spool.count)
            outcomes = await accept_together(spool, (ONE, b"1"), (ONE, b"2"))
        assert all(isinstance(outcome, Entry) for outcome in outcomes)
        assert sum(statement.startswith("INSERT") for statement in disk.statements) == 1
        async with trio.open_nursery() as nursery:
            nursery.start_soon(spool.count)
            outcomes = await accept_together(spool, (ONE, b"3"), (BAD, b"4"))
        assert [isinstance(outcome, Entry) for outcome in outcomes] == [True, False]
        assert await spool.count() == 3
