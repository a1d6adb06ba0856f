"""Bodies: small ones in memory and in their row, large ones in files, and nothing left of those that fail."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
import trio
from tests.spool.spoolhouse import (
    CLIENT,
    ENVELOPE,
    LARGE,
    LATE,
    NOON,
    SMALL,
    Disk,
    accept,
    bodies,
    finish,
    names,
    on_the_spot,
    opened,
)

from smtprecv.errors import CorruptEntry, SpoolError, SpoolFull
from smtprecv.message import QueueId
from smtprecv.spool import Entry, Spool, SpoolOptions, open_spool
from smtprecv.spool._body import PIECE_SIZE, ArrivingBody, BodyFile, BodyFolder, StoredBody, StoredMessage
from smtprecv.spool._draft import Outcome
from smtprecv.spool._sqlite import SqliteSpool

T = TypeVar("T")
ID = QueueId("q" * 20)


class Hops:
    """A thread that counts, and can fail."""

    def __init__(self) -> None:
        """Begin at zero."""
        self.count = 0
        self.error: OSError | None = None

    async def __call__(self, work: Callable[[], T], /) -> T:
        """Run the work on the spot, or fail."""
        self.count += 1
        if self.error is not None:
            raise self.error
        return await on_the_spot(work)


def folder(path: Path, hops: Hops, *, has_room: bool = True) -> BodyFolder:
    """Give a folder of bodies."""
    return BodyFolder(path, "owner", hops, lambda: has_room)


async def test_small_bodies_never_touch_the_disk(tmp_path: Path) -> None:
    """Up to the threshold the octets are in memory, and come out as they went in, with no hop to a thread."""
    hops = Hops()
    body = ArrivingBody(folder(tmp_path, hops), ID, 10)
    await body.write(b"12345")
    await body.write(b"67890")
    assert (await body.finish(), body.size, hops.count) == (b"1234567890", 10, 0)
    await body.discard()
    assert (hops.count, names(tmp_path)) == (0, [])


async def test_large_bodies_stream_to_a_file(tmp_path: Path) -> None:
    """Past the threshold the octets go to a file in batches of 256 KiB, and memory is bounded by one."""
    hops = Hops()
    body = ArrivingBody(folder(tmp_path, hops), ID, 10)
    await body.write(b"x" * 11)
    held = []
    for _ in range(100):
        await body.write(b"y" * 10_000)
        held.append(body._pieces_size)
    assert (hops.count, max(held) < PIECE_SIZE) == (1 + 1_000_000 // (-(-PIECE_SIZE // 10_000) * 10_000), True)
    assert await body.finish() == BodyFile(f"owner.{ID}")
    (name,) = names(tmp_path)
    file = tmp_path / name
    assert (name, file.read_bytes()) == (f"owner.{ID}", b"x" * 11 + b"y" * 1_000_000)
    assert file.stat().st_mode & 0o777 == 0o400
    await body.discard()
    assert names(tmp_path) == []


async def test_many_pieces_and_writes_that_fall_short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However a client cuts its octets, and however few of them the disk takes at once, none is lost."""
    octets = bytes(number % 251 for number in range(600_000))
    write, writev = os.write, os.writev
    taken: list[int] = []

    def fall_short(fd: int, pieces: Sequence[bytes]) -> int:
        taken.append(len(pieces))
        return write(fd, pieces[0][: len(pieces[0]) // 2 + 1])

    for size, most in ((100, 1), (1000, 263), (300_000, 1)):
        for short in (writev, fall_short):
            monkeypatch.setattr("os.writev", short)
            monkeypatch.setattr("os.write", lambda fd, rest: write(fd, rest[:50_000]))
            body = ArrivingBody(folder(tmp_path, Hops()), ID, 200_000)
            for start in range(0, len(octets), size):
                await body.write(octets[start : start + size])
            await body.finish()
            assert (tmp_path / f"owner.{ID}").read_bytes() == octets
            await body.discard()
        assert (min(taken) > 0, max(taken)) == (True, most)  # no system call without a piece, nor with too many
        taken.clear()


async def test_a_body_is_finished_once(tmp_path: Path) -> None:
    """Who looks at a body before it is accepted pays for the sync that it needs anyway, and nobody pays twice."""
    hops = Hops()
    for size in (10, 11):
        body = ArrivingBody(folder(tmp_path, hops), ID, 10)
        await body.write(b"x" * size)
        finished = await body.finish()
        before = hops.count
        assert (await body.finish(), hops.count) == (finished, before)


async def test_a_draft_that_was_read_is_accepted_whole(tmp_path: Path) -> None:
    """The message is the same before and after its acceptance, in a row and in a file."""
    async with opened(tmp_path) as spool:
        for octets in (SMALL, LARGE):
            draft = await spool.begin(NOON)
            await draft.write(octets)
            message = await draft.message()
            assert await message.bytes() == octets
            await draft.commit(CLIENT, ENVELOPE, NOON)
            (claim,) = await spool.claim(LATE, 1)
            assert await claim.message.bytes() == octets
            await finish(spool, claim)


async def test_a_body_that_failed_can_only_be_discarded(tmp_path: Path) -> None:
    """After a write that failed every write fails, and finish too: no message loses octets from its middle."""
    hops = Hops()
    body = ArrivingBody(folder(tmp_path, hops), ID, 10)
    await body.write(b"x" * 11)
    hops.error = OSError(errno.ENOSPC, "full")
    with pytest.raises(SpoolFull):
        await body.write(b"y" * PIECE_SIZE)
    hops.error = None
    with pytest.raises(SpoolFull):
        await body.write(b"z")
    with pytest.raises(SpoolFull):
        await body.finish()
    await body.discard()
    assert names(tmp_path) == []


async def test_a_body_that_was_cancelled_can_only_be_discarded(tmp_path: Path) -> None:
    """A write that was cancelled on its way is a body that is not whole."""
    body = ArrivingBody(folder(tmp_path, Hops()), ID, 10)
    with trio.move_on_after(0) as scope:
        await body.write(b"x" * 11)
    assert scope.cancelled_caught
    with pytest.raises(SpoolError, match="not written to its end"):
        await body.finish()


async def test_a_sync_that_fails(tmp_path: Path) -> None:
    """A body whose file cannot be synced is refused, and not with SpoolFull."""
    hops = Hops()
    body = ArrivingBody(folder(tmp_path, hops), ID, 10)
    await body.write(b"x" * 11)
    hops.error = OSError(errno.EIO, "broken")
    with pytest.raises(SpoolError, match="broken") as caught:
        await body.finish()
    assert not isinstance(caught.value, SpoolFull)


async def test_no_room_beside_the_reserve(tmp_path: Path) -> None:
    """A piece that would eat into the reserve is refused before it is written."""
    body = ArrivingBody(folder(tmp_path, Hops(), has_room=False), ID, 10)
    with pytest.raises(SpoolFull, match="no room"):
        await body.write(b"x" * 11)
    assert names(tmp_path) == []


async def test_a_file_that_lost_octets(tmp_path: Path) -> None:
    """A body file that is gone is a SpoolError, one that is too short a CorruptEntry: never a short message."""
    message = StoredMessage(folder(tmp_path, Hops()), ID, BodyFile("b"), 10)
    with pytest.raises(SpoolError, match="No such file"):
        await message.bytes()
    with pytest.raises(SpoolError, match="No such file"):
        async with message.as_file():
            pass
    (tmp_path / "b").write_bytes(b"123456789")
    with pytest.raises(CorruptEntry, match="lost octets"):
        await message.bytes()


async def test_as_file_of_a_row(tmp_path: Path) -> None:
    """A message in a row is given as a file that is read-only, and gone behind the block, also a cancelled one."""
    message = StoredMessage(folder(tmp_path, Hops()), ID, SMALL, len(SMALL))
    seen = []
    with trio.CancelScope() as scope:
        async with message.as_file() as path:
            seen += [path.read_bytes(), path.stat().st_mode & 0o777]
            scope.cancel()
            await trio.sleep_forever()
    assert seen == [SMALL, 0o400]
    assert names(tmp_path) == []


async def test_a_file_of_as_file_that_cannot_be_removed(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """What a delivery left in the place of its file is logged, and does not undo what the delivery did."""
    async with opened(tmp_path) as spool:
        await accept(spool)
        (claim,) = await spool.claim(LATE, 1)
        async with claim.message.as_file() as path:
            path.unlink()
            path.mkdir()
        await finish(spool, claim)
    assert f"{path.name} is left behind" in caplog.text
    assert len(names(tmp_path / "owners")) == 1


async def test_files_can_be_used_behind_the_end_of_the_spool(tmp_path: Path) -> None:
    """A message can be read, and a draft forgotten, when the block is over: nobody waits for what never comes."""
    async with open_spool(tmp_path) as spool:
        await accept(spool, LARGE)
        (claim,) = await spool.claim(LATE, 1)
        draft = await spool.begin(NOON)
        await draft.write(LARGE)
    assert len(bodies(tmp_path)) == 2
    assert await claim.message.bytes() == LARGE
    await draft.abort()
    assert len(bodies(tmp_path)) == 1


async def test_deleting_the_file_of_as_file_harms_nothing(tmp_path: Path) -> None:
    """A program that removes or moves the file it was given removes a link, not the message."""
    async with opened(tmp_path) as spool:
        await accept(spool, LARGE)
        (claim,) = await spool.claim(LATE, 1)
        async with claim.message.as_file() as path:
            path.unlink()
        assert await claim.message.bytes() == LARGE


async def test_a_large_message_from_end_to_end(tmp_path: Path) -> None:
    """A large message has one file, named by owner and queue id, which goes with the row."""
    async with opened(tmp_path) as spool:
        entry = await accept(spool, LARGE)
        (name,) = bodies(tmp_path)
        assert name.endswith(f".{entry.queue_id}")
        (claim,) = await spool.claim(LATE, 1)
        assert await claim.message.bytes() == LARGE
        await finish(spool, claim)
        assert bodies(tmp_path) == []


async def test_abort_removes_the_file(tmp_path: Path) -> None:
    """An aborted draft leaves no file, also when the abort itself is cancelled."""
    async with opened(tmp_path) as spool:
        draft = await spool.begin(NOON)
        await draft.write(LARGE)
        assert len(bodies(tmp_path)) == 1
        with trio.CancelScope() as scope:
            scope.cancel()
            await draft.abort()
        assert bodies(tmp_path) == []


async def test_abort_never_raises(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A file that cannot be removed is logged, and left to the sweep."""
    hops = Hops()
    async with open_spool(tmp_path, run_in_thread=hops) as spool:
        draft = await spool.begin(NOON)
        await draft.write(LARGE)
        hops.error = OSError(errno.EIO, "broken")
        await draft.abort()
        hops.error = None
    assert "is left behind" in caplog.text
    assert len(names(tmp_path / "owners")) == 1
    async with opened(tmp_path):
        assert bodies(tmp_path) == []


async def test_a_body_stays_while_its_row_may_yet_appear(tmp_path: Path) -> None:
    """After a COMMIT that failed at the disk the file stays until a later COMMIT: a crash could bring its row."""
    disk = Disk()
    async with opened(tmp_path, disk.options()) as spool:
        disk.failing["COMMIT"] = sqlite3.SQLITE_IOERR
        with pytest.raises(SpoolError):
            await accept(spool, LARGE)
        with pytest.raises(SpoolError):
            await accept(spool, SMALL)
        assert len(bodies(tmp_path)) == 1
        disk.failing.clear()
        await accept(spool, SMALL)
        assert bodies(tmp_path) == []


async def test_litter_of_a_failed_commit_outlives_a_clean_end(tmp_path: Path) -> None:
    """An owner that ends with such a file leaves its own file too, so that the next one sweeps."""
    disk = Disk()
    async with opened(tmp_path, disk.options()) as spool:
        disk.failing["COMMIT"] = sqlite3.SQLITE_IOERR
        with pytest.raises(SpoolError):
            await accept(spool, LARGE)
        disk.failing.clear()
    assert (len(bodies(tmp_path)), len(list((tmp_path / "owners").iterdir()))) == (1, 1)
    async with opened(tmp_path):
        assert (bodies(tmp_path), len(list((tmp_path / "owners").iterdir()))) == ([], 1)


async def test_an_accepted_body_is_never_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever goes wrong behind the COMMIT, the body of a message whose row is there stays; another's does not."""
    async with opened(tmp_path) as spool:
        do_accept = SqliteSpool.accept

        async def fail_behind(self: SqliteSpool, entry: Entry, body: StoredBody, outcome: Outcome | None) -> bool:
            await do_accept(self, entry, body, outcome)
            raise KeyError(0)

        async def fail_before(self: SqliteSpool, entry: Entry, body: StoredBody, outcome: Outcome | None) -> bool:
            raise KeyError(0)

        for defect in (fail_behind, fail_before):
            monkeypatch.setattr(SqliteSpool, "accept", defect)
            with pytest.raises(KeyError):
                await accept(spool, LARGE)
        monkeypatch.undo()
        assert len(bodies(tmp_path)) == 2
        await accept(spool)
        (entry, _) = await spool.entries()
        (claim,) = await spool.claim_ids([entry.queue_id])
        assert await claim.message.bytes() == LARGE
        assert len(bodies(tmp_path)) == 1


async def test_a_refused_large_message_frees_its_room_at_once(tmp_path: Path) -> None:
    """A large message for which there was no room leaves no file to fill the disk further."""
    disk = Disk()
    async with opened(tmp_path, disk.options()) as spool:
        draft = await spool.begin(NOON)
        await draft.write(LARGE)
        disk.failing["INSERT INTO smtprecv_message"] = sqlite3.SQLITE_FULL
        with pytest.raises(SpoolFull):
            await draft.commit(CLIENT, ENVELOPE, NOON)
        await draft.abort()
        assert (bodies(tmp_path), list(await spool.entries())) == ([], [])


@pytest.mark.parametrize("ruin", ["remove", "truncate"])
async def test_a_row_without_its_whole_file(tmp_path: Path, ruin: str) -> None:
    """A row whose file is missing or short is set aside at the claim; the queue goes on."""

    def spoil(spool_path: Path) -> None:
        (name,) = bodies(spool_path)
        path = spool_path / "bodies" / name
        path.unlink()
        if ruin == "truncate":
            path.write_bytes(LARGE[:-1])

    async with opened(tmp_path) as spool:
        lost = await accept(spool, LARGE)
        spoil(tmp_path)
        entry = await accept(spool)
        assert [claim.entry for claim in await spool.claim(LATE, 1)] == [entry]
        assert await _names(spool) == [entry.queue_id]
        assert lost.queue_id != entry.queue_id


async def _names(spool: Spool) -> list[QueueId]:
    return [entry.queue_id for entry in await spool.entries()]


async def test_the_threshold_is_a_parameter(tmp_path: Path) -> None:
    """`memory_size` says from which size on a body is a file."""
    async with opened(tmp_path, SpoolOptions(memory_size=5)) as spool:
        await accept(spool, b"12345")
        assert bodies(tmp_path) == []
        await accept(spool, b"123456")
        assert len(bodies(tmp_path)) == 1


def test_a_second_name(tmp_path: Path) -> None:
    """A file may be given its second name again, by a job that is run twice; that of another file is not taken."""
    here = folder(tmp_path, Hops())
    (tmp_path / "one").touch()
    (tmp_path / "two").touch()
    assert [here.link("one", ID), here.link("one", ID)] == [f"owner.{ID}"] * 2
    with pytest.raises(FileExistsError):
        here.link("two", ID)
