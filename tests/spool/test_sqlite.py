"""The spool on SQLite: opening, full and failing disks, rows that cannot be read, the hand-over of fresh mail."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

import pytest
import trio
import trio.testing
from tests.spool.spoolhouse import (
    CLIENT,
    ENVELOPE,
    LARGE,
    LATE,
    NOON,
    SMALL,
    Disk,
    accept,
    ask,
    bodies,
    finish,
    on_the_spot,
    opened,
)

from smtprecv.errors import SpoolError, SpoolFull, SpoolUnusable
from smtprecv.spool import Entry, Spool, SpoolOptions, open_spool
from smtprecv.spool._folder import free_size

T = TypeVar("T")
MIB = 1024 * 1024


async def unusable(path: Path, options: SpoolOptions | None = None) -> str:
    """Give the line with which a spool cannot be opened."""
    with pytest.raises(SpoolUnusable) as caught:
        async with opened(path, options):
            pass
    text = str(caught.value)
    assert "\n" not in text
    return text


async def test_the_folder_is_made_private(tmp_path: Path) -> None:
    """A new queue is a folder that only its user can enter, with files that only its user can read."""
    async with opened(tmp_path / "new" / "queue") as spool:
        await accept(spool, LARGE)
        await accept(spool)
        queue = tmp_path / "new" / "queue"
        modes = {path.name: path.stat().st_mode & 0o777 for path in (queue, *queue.iterdir())}
    files = dict.fromkeys(("queue.sqlite", "queue.sqlite-wal", "queue.sqlite-shm", "lock"), 0o600)
    assert modes == {**dict.fromkeys(("queue", "owners", "bodies"), 0o700), **files}


async def test_a_queue_that_must_be_there(tmp_path: Path) -> None:
    """Without `create` a folder without a queue is refused, and nothing is made; one with a queue is opened."""
    missing = tmp_path / "missing"
    with pytest.raises(SpoolUnusable, match="there is no queue in"):
        async with open_spool(missing, create=False):
            pass
    assert not missing.exists()
    async with opened(missing):
        pass
    async with open_spool(missing, create=False, run_in_thread=on_the_spot) as spool:
        assert list(await spool.entries()) == []


async def test_what_cannot_be_opened(tmp_path: Path) -> None:
    """A file, and a database that is none, are refused with one line that names them."""
    file = tmp_path / "file"
    file.touch()
    assert str(file) in await unusable(file)
    junk = tmp_path / "junk"
    junk.mkdir()
    (junk / "queue.sqlite").write_bytes(b"this is no database at all" * 100)
    assert "file is not a database" in await unusable(junk)
    assert list((junk / "owners").iterdir()) == []


def _device(path: Path) -> str:
    device = path.stat().st_dev
    return f"{os.major(device)}:{os.minor(device)}"


async def test_a_network_file_system_is_refused(tmp_path: Path) -> None:
    """A queue on NFS is refused before anything is locked; a table that tells nothing refuses nothing."""
    line = f"36 35 {_device(tmp_path)} / /mnt rw,noatime shared:1 - {{}} server:/export rw\n"
    mounts = tmp_path / "mounts"
    mounts.write_text("1 1 0:0 / /proc rw - proc proc rw\n" + line.format("nfs4"))
    queue = tmp_path / "queue"
    assert "on a network file system (nfs4)" in await unusable(queue, SpoolOptions(mounts=mounts))
    assert list(queue.iterdir()) == []
    mounts.write_text(line.format("ext4"))
    async with opened(queue, SpoolOptions(mounts=mounts)):
        pass
    mounts.write_text("")
    async with opened(queue, SpoolOptions(mounts=mounts)):
        pass
    async with opened(queue, SpoolOptions(mounts=tmp_path / "none")):
        pass


async def test_a_disk_that_fails_at_the_opening(tmp_path: Path) -> None:
    """A disk error while the queue is opened is told in the same way, and the owner is gone again."""
    disk = Disk()
    disk.failing["COMMIT"] = sqlite3.SQLITE_IOERR
    assert "COMMIT failed" in await unusable(tmp_path, disk.options())
    assert list((tmp_path / "owners").iterdir()) == []
    disk.failing.clear()
    async with opened(tmp_path, disk.options()) as spool:
        await accept(spool)


async def test_the_wall_of_the_reserve(tmp_path: Path) -> None:
    """Below the reserve new messages are SpoolFull, at the commit and then at their beginning; outcomes go on."""
    disk = Disk()
    async with opened(tmp_path, disk.options(reserve_size=MIB)) as spool:
        await accept(spool)
        (claim,) = await spool.claim(LATE, 1)
        draft = await spool.begin(NOON)
        disk.room = MIB - 1
        with pytest.raises(SpoolFull):
            await draft.commit(CLIENT, ENVELOPE, NOON)
        with pytest.raises(SpoolFull):
            await spool.begin(NOON)
        await finish(spool, claim)
        disk.room = MIB
        entry = await accept(spool)
        assert list(await spool.entries()) == [entry]


async def test_free_pages_are_room(tmp_path: Path) -> None:
    """A database never shrinks: what was freed inside it counts as room, or a queue once full would stay full."""
    disk = Disk()
    async with opened(tmp_path, disk.options(reserve_size=20_000)) as spool:
        await accept(spool, SMALL * 1000)
        disk.room = 10_000
        with pytest.raises(SpoolFull):
            await accept(spool)
        for claim in await spool.claim(LATE, 1):
            await finish(spool, claim)
        assert (await accept(spool)).size == len(SMALL)


async def test_an_outcome_that_was_not_recorded(tmp_path: Path) -> None:
    """When `record` fails nothing has changed and the claim stands; recording again is enough."""
    disk = Disk()
    async with opened(tmp_path, disk.options()) as spool:
        entry = await accept(spool, LARGE)
        (claim,) = await spool.claim(LATE, 1)
        disk.failing["COMMIT"] = sqlite3.SQLITE_IOERR
        with pytest.raises(SpoolError):
            await finish(spool, claim)
        disk.failing.clear()
        assert (list(await spool.entries()), len(bodies(tmp_path))) == ([entry], 1)
        assert list(await spool.claim(LATE, 1)) == []
        await finish(spool, claim)
        assert (list(await spool.entries()), bodies(tmp_path)) == ([], [])


async def test_an_outcome_that_nobody_waits_for(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Recording what is not claimed here changes nothing, and is logged."""
    async with opened(tmp_path) as spool:
        entry = await accept(spool)
        await spool.record(entry.given_up())
        assert list(await spool.entries()) == [entry]
    assert f"{entry.queue_id} is not claimed here" in caplog.text


@pytest.mark.parametrize(
    "ruin",
    [
        "UPDATE message SET client = 'junk'",
        "UPDATE message SET reverse_path = CAST(x'ff40ff' AS TEXT)",
        "UPDATE message SET size = size + 1",
        "UPDATE message SET body_file = '../lock'",
        "UPDATE message SET body_file = 'missing'",
        "DELETE FROM body",
        "DELETE FROM recipient",
    ],
)
async def test_what_cannot_be_read_is_set_aside(tmp_path: Path, ruin: str, caplog: pytest.LogCaptureFixture) -> None:
    """A message that cannot be read stops nothing: it is set aside with its reason and all its rows, and logged."""
    async with opened(tmp_path) as spool:
        lost = await accept(spool)
    ask(tmp_path, ruin)
    async with opened(tmp_path) as spool:
        entry = await accept(spool, received=LATE)
        assert [claim.entry for claim in await spool.claim(LATE, 1)] == [entry]
        assert [e.queue_id for e in await spool.entries()] == [entry.queue_id]
    assert f"{lost.queue_id} cannot be read and is set aside" in caplog.text
    ((number, reason),) = ask(tmp_path, "SELECT number, reason FROM corrupt WHERE id = ?", lost.queue_id)
    assert reason
    queries = ("SELECT 1 FROM recipient WHERE message = ?", "SELECT 1 FROM body WHERE message = ?")
    kept = [ask(tmp_path, query, number) for query in queries]
    assert [bool(rows) for rows in kept] == ["recipient" not in ruin, "FROM body" not in ruin]


async def test_a_listing_passes_over_what_cannot_be_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Listing changes nothing: what cannot be read is passed over and logged, and a page is still full."""
    async with opened(tmp_path) as spool:
        entries = [await accept(spool) for _ in range(4)]
    ask(tmp_path, "UPDATE message SET client = 'junk' WHERE number <= 2")
    async with opened(tmp_path) as spool:
        assert list(await spool.entries(limit=2)) == entries[2:]
        assert list(await spool.find([entries[0].queue_id])) == []
    assert f"{entries[0].queue_id} cannot be read" in caplog.text
    assert ask(tmp_path, "SELECT count(*) FROM message") == [(4,)]


async def test_fresh_mail_costs_no_read(tmp_path: Path) -> None:
    """A message that is delivered fresh is inserted and deleted, and never read."""
    disk = Disk()
    async with opened(tmp_path, disk.options()) as spool, spool.fresh(1) as fresh:
        disk.statements.clear()
        await accept(spool)
        await finish(spool, await fresh.receive())
        touching = [s.split(" (")[0] for s in disk.statements if "message" in s or "body" in s or "recipient" in s]
        assert touching == [
            "INSERT INTO message",
            "INSERT INTO body",
            "SELECT number, body_file FROM message WHERE id = ? AND owner = ?",
            "DELETE FROM body WHERE message = ?",
            "DELETE FROM recipient WHERE message = ?",
            "DELETE FROM message WHERE number = ?",
        ]


async def test_a_fresh_message_that_was_not_accepted(tmp_path: Path) -> None:
    """A COMMIT that failed takes no room from the fresh mail."""
    disk = Disk()
    async with opened(tmp_path, disk.options()) as spool, spool.fresh(1) as fresh:
        disk.failing["COMMIT"] = sqlite3.SQLITE_IOERR
        with pytest.raises(SpoolError):
            await accept(spool)
        disk.failing.clear()
        entry = await accept(spool)
        assert (await fresh.receive()).entry == entry


class Pause:
    """A thread that can be stopped for a while."""

    def __init__(self) -> None:
        """Begin running."""
        self.may_run = trio.Event()
        self.may_run.set()

    async def __call__(self, work: Callable[[], T], /) -> T:
        """Run the work when it may be."""
        await self.may_run.wait()
        return await on_the_spot(work)


async def test_fresh_mail_that_comes_too_late(tmp_path: Path) -> None:
    """A message whose COMMIT returns behind the end of the block is given back: no claim without a holder."""
    pause = Pause()
    async with open_spool(tmp_path, run_in_thread=pause) as spool:
        async with trio.open_nursery() as nursery:
            async with spool.fresh(1):
                pause.may_run = trio.Event()
                nursery.start_soon(accept, spool)
                await trio.testing.wait_all_tasks_blocked()
            pause.may_run.set()
        assert len(await spool.claim(LATE, 1)) == 1


async def test_fresh_mail_that_cannot_be_given_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """When the giving back fails, that is logged; the claims end with the process."""
    disk = Disk()
    async with opened(tmp_path, disk.options()) as spool:
        async with spool.fresh(1):
            entry = await accept(spool)
            disk.failing["COMMIT"] = sqlite3.SQLITE_IOERR
        disk.failing.clear()
        assert list(await spool.claim(LATE, 1)) == []
    assert f"{entry.queue_id} stay claimed" in caplog.text
    async with opened(tmp_path) as spool:
        assert len(await spool.claim(LATE, 1)) == 1


async def test_a_cancelled_end_of_fresh_mail_gives_back(tmp_path: Path) -> None:
    """The giving back is shielded: cancellation of the block does not strand what it held."""
    async with opened(tmp_path) as spool:
        with trio.CancelScope() as scope:
            async with spool.fresh(1):
                await accept(spool)
                scope.cancel()
        assert len(await spool.claim(LATE, 1)) == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of 4 MiB of its own."""
    path = tmp_path / "disk"
    path.mkdir()
    mount = shutil.which("mount")
    if mount is None or os.geteuid() != 0:
        pytest.skip("only root may mount a small disk")
    if subprocess.run([mount, "-t", "tmpfs", "-o", "size=4m", "tmpfs", path], check=False).returncode:
        pytest.skip("mounting is not allowed here")
    yield path
    subprocess.run(["umount", "-l", path], check=True)


async def _fill(spool: Spool, octets: bytes, accepted: list[Entry]) -> None:
    while True:
        accepted.append(await accept(spool, octets))


def _fill_up(path: Path) -> None:
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while True:
            file.write(b"x" * 4096)


@pytest.mark.slow
@pytest.mark.parametrize("octets", [SMALL * 400, LARGE], ids=["rows", "files"])
async def test_a_disk_that_fills_up(small_disk: Path, octets: bytes) -> None:
    """On a full disk acceptance stops with SpoolFull, everything accepted is there, outcomes go on, and it recovers."""
    options = SpoolOptions(reserve_size=MIB, wal_limit=MIB // 4)
    async with opened(small_disk / "queue", options) as spool:
        for _ in range(2):
            accepted: list[Entry] = []
            with pytest.raises(SpoolFull):
                await _fill(spool, octets, accepted)
            assert 10 < len(accepted) < 1000
            claims = await spool.claim(LATE, 2000)
            assert [claim.entry.queue_id for claim in claims] == [entry.queue_id for entry in accepted]
            for claim in claims:
                assert await claim.message.bytes() == octets
                await finish(spool, claim)
            assert (list(await spool.entries()), bodies(small_disk / "queue")) == ([], [])


@pytest.mark.slow
async def test_a_disk_that_somebody_else_fills(small_disk: Path) -> None:
    """Without a reserve left, SQLite's own failures are SpoolFull or SpoolError; nothing is half done; it recovers."""
    queue, stranger = small_disk / "queue", small_disk / "stranger"
    async with opened(queue, SpoolOptions(reserve_size=0, wal_limit=MIB // 4)) as spool:
        accepted = [await accept(spool)]
        _fill_up(stranger)
        with pytest.raises(SpoolError):
            await _fill(spool, SMALL * 100, accepted)
        with pytest.raises(SpoolFull):
            await accept(spool, LARGE)
        assert list(await spool.entries(limit=1000)) == accepted
        stranger.unlink()
        accepted.append(await accept(spool, LARGE))
        assert list(await spool.entries(limit=1000)) == accepted
        assert len(bodies(queue)) == 1


@pytest.mark.slow
async def test_a_disk_that_cannot_be_written(small_disk: Path) -> None:
    """A queue on a read-only disk is refused with one line."""
    async with opened(small_disk / "queue"):
        pass
    await trio.run_process(["mount", "-o", "remount,ro", str(small_disk)])
    assert "Read-only file system" in await unusable(small_disk / "queue")


def test_free_size(tmp_path: Path) -> None:
    """What is left on a file system is asked of the system."""
    assert 0 < free_size(tmp_path) <= shutil.disk_usage(tmp_path).total
