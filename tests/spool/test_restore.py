"""A message that comes back into the spool on SQLite: its body file, and disks that fail at it."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
import trio
from tests.spool.spoolhouse import LARGE, LATE, NOON, SMALL, Disk, accept, ask, bodies, finish, opened

from smtprecv.errors import SpoolError, SpoolFull
from smtprecv.message import QueueId
from smtprecv.spool import Entry, Spool, SpoolOptions

ELSEWHERE = QueueId("0" * 20)


async def restore(spool: Spool, entry: Entry, octets: bytes) -> bool:
    """Put a message into a spool."""
    draft = await spool.begin(NOON)
    await draft.write(octets)
    return await draft.restore(entry)


async def sample(path: Path, octets: bytes) -> Entry:
    """Give the entry of a message that is in another spool."""
    async with opened(path) as spool:
        return replace(await accept(spool, octets), queue_id=ELSEWHERE)


async def test_a_body_file_is_found_by_its_message(tmp_path: Path) -> None:
    """The file has the name of the message that it belongs to, so that nobody sweeps it with the litter of the dead."""
    entry = await sample(tmp_path / "other", LARGE)
    async with opened(tmp_path) as spool:
        assert await restore(spool, entry, LARGE)
        (name,) = bodies(tmp_path)
        assert name.endswith(f".{ELSEWHERE}")
    async with opened(tmp_path) as spool:
        assert (bodies(tmp_path), await spool.verify()) == ([name], [])
        (claim,) = await spool.claim(LATE, 9)
        assert await claim.message.bytes() == LARGE
        await finish(spool, claim)
        assert bodies(tmp_path) == []


@pytest.mark.parametrize("octets", [SMALL, LARGE])
@pytest.mark.parametrize("failing", ["COMMIT", "INSERT INTO smtprecv_message"])
async def test_a_disk_that_fails(tmp_path: Path, octets: bytes, failing: str) -> None:
    """Where it fails there is nothing, and the same again succeeds; a file is kept as long as a row may name it."""
    entry = await sample(tmp_path / "other", octets)
    disk = Disk()
    async with opened(tmp_path, disk.options()) as spool:
        disk.failing[failing] = sqlite3.SQLITE_IOERR
        with pytest.raises(SpoolError):
            await restore(spool, entry, octets)
        disk.failing.clear()
        assert list(await spool.entries()) == []
        await accept(spool, SMALL, LATE)
        assert bodies(tmp_path) == []
        assert await restore(spool, entry, octets)
        assert len(bodies(tmp_path)) == (octets is LARGE)
        assert len(await spool.entries()) == 2
    assert ask(tmp_path, "SELECT count(*) FROM smtprecv_recipient") == [(4,)]


async def test_a_full_disk(tmp_path: Path) -> None:
    """What comes back needs the room of a new message."""
    entry = await sample(tmp_path / "other", SMALL)
    disk = Disk()
    async with opened(tmp_path, disk.options()) as spool:
        draft = await spool.begin(NOON)
        await draft.write(SMALL)
        disk.room = 0
        with pytest.raises(SpoolFull):
            await draft.restore(entry)
        assert list(await spool.entries()) == []


async def test_a_file_of_that_name(tmp_path: Path) -> None:
    """A file that has the name already is somebody's, perhaps of a message that is arriving: it stays as it is."""
    entry = await sample(tmp_path / "other", LARGE)
    async with opened(tmp_path) as spool:
        arriving = await spool.begin(NOON)
        await arriving.write(LARGE[::-1])
        with pytest.raises(SpoolError, match="File exists"):
            await restore(spool, replace(entry, queue_id=arriving.queue_id), LARGE)
        accepted = await arriving.commit(entry.client, entry.envelope, NOON)
        message = await spool.message_of(accepted.queue_id)
        assert message is not None
        assert await message.bytes() == LARGE[::-1]


async def test_what_was_set_aside_is_there(tmp_path: Path) -> None:
    """The id of a message that cannot be read is taken: it may be mended."""
    async with opened(tmp_path) as spool:
        entry = await accept(spool)
    ask(tmp_path, "UPDATE smtprecv_message SET client = 'x'")
    async with opened(tmp_path) as spool:
        assert list(await spool.claim(LATE, 1)) == []
        assert not await restore(spool, entry, SMALL)


async def test_cancelled(tmp_path: Path) -> None:
    """Cancellation before the transaction leaves nothing."""
    entry = await sample(tmp_path / "other", LARGE)
    async with opened(tmp_path, SpoolOptions(memory_size=10)) as spool:
        draft = await spool.begin(NOON)
        await draft.write(LARGE)
        with trio.CancelScope() as scope:
            scope.cancel()
            await draft.restore(entry)
        assert scope.cancelled_caught
        assert (list(await spool.entries()), bodies(tmp_path)) == ([], [])
