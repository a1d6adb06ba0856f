"""The spool on SQLite: opening, full and failing disks, rows that cannot be read, the hand-over of fresh mail."""

from __future__ import annotations

import datetime as dt
import errno
import os
import shutil
import sqlite3
import subprocess
import sys
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
    names,
    on_the_spot,
    opened,
)

from smtprecv.errors import SpoolError, SpoolFull, SpoolUnusable
from smtprecv.spool import Entry, Spool, SpoolOptions, _claims, open_spool
from smtprecv.spool._folder import free_files, free_size
from smtprecv.spool._options import connect

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
    with pytest.raises(SpoolUnusable, match="cannot be opened: there is none"):
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
    assert await unusable(file) == f"the queue {file} cannot be opened: {file}: Not a directory"
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
    assert await unusable(tmp_path, disk.options()) == f"the queue {tmp_path} cannot be opened: COMMIT failed"
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


async def report(spool: Spool, outcome: Entry, octets: bytes) -> Entry | None:
    """Record an outcome with a report of it."""
    draft = await spool.begin(NOON)
    await draft.write(octets)
    return await draft.commit_report(outcome, CLIENT, ENVELOPE, NOON)


@pytest.mark.parametrize("failing", ["COMMIT", "INSERT INTO smtprecv_message", "UPDATE smtprecv_message SET owner"])
@pytest.mark.parametrize("octets", [SMALL, LARGE])
async def test_a_report_and_its_outcome_are_one_transaction(tmp_path: Path, octets: bytes, failing: str) -> None:
    """Where either fails there is neither, the claim stands, and doing it again makes both, once."""
    disk = Disk()
    async with opened(tmp_path, disk.options()) as spool:
        entry = await accept(spool)
        (claim,) = await spool.claim(LATE, 1)
        disk.failing[failing] = sqlite3.SQLITE_IOERR
        with pytest.raises(SpoolError):
            await report(spool, claim.entry.given_up(), octets)
        disk.failing.clear()
        assert list(await spool.entries()) == [entry]
        assert list(await spool.claim(LATE, 1)) == []
        told = await report(spool, claim.entry.given_up(), octets)
        assert list(await spool.entries()) == [claim.entry.given_up(), told]
        assert await report(spool, claim.entry.given_up(), octets) is None
        assert len(await spool.entries()) == 2
        assert len(bodies(tmp_path)) == (octets is LARGE)


async def test_a_report_has_room_in_the_reserve(tmp_path: Path) -> None:
    """Where no message is taken any more a small report is, as an outcome is; what needs a file is not."""
    disk = Disk()
    async with opened(tmp_path, disk.options()) as spool:
        await accept(spool)
        (claim,) = await spool.claim(LATE, 1)
        disk.room = 0
        with pytest.raises(SpoolFull):
            await accept(spool)
        with pytest.raises(SpoolFull):
            await report(spool, claim.entry.given_up(), LARGE)
        draft = await spool.begin(NOON, is_reserved=True)
        await draft.write(LARGE)
        assert await draft.commit_report(claim.entry.given_up(), CLIENT, ENVELOPE, NOON) is not None
    assert bodies(tmp_path) == []


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
        "UPDATE smtprecv_message SET client = 'junk'",
        "UPDATE smtprecv_message SET reverse_path = CAST(x'ff40ff' AS TEXT)",
        "UPDATE smtprecv_message SET size = size + 1",
        "UPDATE smtprecv_message SET body_file = '../lock'",
        "UPDATE smtprecv_message SET body_file = 'missing'",
        "UPDATE smtprecv_message SET body_file = '0000000000000000.00000000000000000000'",
        "UPDATE smtprecv_message SET body_file = hex(zeroblob(150))",
        "UPDATE smtprecv_message SET body_file = '0000000000000000.00000000000000000000.' || hex(zeroblob(150))",
        "UPDATE smtprecv_message SET due = -(1 << 62)",
        "UPDATE smtprecv_recipient SET status = 'failed'",
        "DELETE FROM smtprecv_body",
        "DELETE FROM smtprecv_recipient",
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
    ((number, reason),) = ask(tmp_path, "SELECT number, reason FROM smtprecv_corrupt WHERE id = ?", lost.queue_id)
    assert reason
    queries = ("SELECT 1 FROM smtprecv_recipient WHERE message = ?", "SELECT 1 FROM smtprecv_body WHERE message = ?")
    kept = [ask(tmp_path, query, number) for query in queries]
    assert [bool(rows) for rows in kept] == ["FROM smtprecv_recipient" not in ruin, "FROM smtprecv_body" not in ruin]


@pytest.mark.parametrize("due", [None, 1 << 62])
async def test_what_no_claim_would_meet_is_set_aside(
    tmp_path: Path, due: object, caplog: pytest.LogCaptureFixture
) -> None:
    """A message that waits for a time that never comes is found at the recovery, set aside, and logged; others stay."""
    async with opened(tmp_path) as spool:
        lost = await accept(spool)
        failed = await accept(spool)
        await accept(spool, received=LATE)
        (claim,) = await spool.claim_ids([failed.queue_id])
        await spool.record(failed.given_up())
        ask(tmp_path, "UPDATE smtprecv_message SET due = ? WHERE number = 1", due)
        assert await spool.next_due() == LATE
        assert await spool.recover() == 0
        assert f"{lost.queue_id} cannot be read and is set aside" in caplog.text
        assert await spool.find([claim.entry.queue_id])
        assert ask(tmp_path, "SELECT id FROM smtprecv_corrupt") == [(lost.queue_id,)]


async def test_what_has_failed_is_looked_at_in_turns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """However many have failed, a recovery looks at so many of each priority; the next ones go on, and begin again."""
    monkeypatch.setattr(_claims, "_LOOK_SIZE", 2)
    async with opened(tmp_path) as spool:
        entries = [await accept(spool) for _ in range(7)]
        for claim in await spool.claim(LATE, 7):
            await spool.record(claim.entry.given_up())
        ask(tmp_path, "UPDATE smtprecv_recipient SET status = 'pending' WHERE message IN (1, 4)")
        ask(tmp_path, "UPDATE smtprecv_message SET priority = 1 WHERE number > 4")
        gone: list[int] = []
        for _ in range(4):
            await spool.recover()
            gone.append(len(ask(tmp_path, "SELECT id FROM smtprecv_corrupt")))
        assert gone == [1, 2, 2, 2]
        ask(tmp_path, "UPDATE smtprecv_recipient SET status = 'pending' WHERE message = 2")
        for _ in range(3):
            await spool.recover()
        aside = {entries[0].queue_id, entries[1].queue_id, entries[3].queue_id}
        assert set(ask(tmp_path, "SELECT id FROM smtprecv_corrupt")) == {(queue_id,) for queue_id in aside}


async def test_a_time_before_all_times(tmp_path: Path) -> None:
    """A due time that no datetime can tell is due now."""
    async with opened(tmp_path) as spool:
        await accept(spool)
        ask(tmp_path, "UPDATE smtprecv_message SET due = -(1 << 62)")
        assert await spool.next_due() == dt.datetime.min.replace(tzinfo=dt.UTC)


async def test_a_folder_of_bodies_that_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that may not be entered is not a body that is missing: nothing is set aside."""
    stat = Path.stat

    def closed(path: Path) -> os.stat_result:
        if path.parent.name == "bodies":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return stat(path)

    async with opened(tmp_path) as spool:
        await accept(spool, LARGE)
        monkeypatch.setattr(Path, "stat", closed)
        with pytest.raises(SpoolError, match="Permission denied"):
            await spool.claim(LATE, 1)
        monkeypatch.undo()
        assert len(await spool.claim(LATE, 1)) == 1


async def test_a_listing_passes_over_what_cannot_be_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Listing changes nothing: what cannot be read is passed over and logged, and a page is still full."""
    async with opened(tmp_path) as spool:
        entries = [await accept(spool) for _ in range(4)]
    ask(tmp_path, "UPDATE smtprecv_message SET client = 'junk' WHERE number <= 2")
    async with opened(tmp_path) as spool:
        assert list(await spool.entries(limit=2)) == entries[2:]
        assert list(await spool.find([entries[0].queue_id])) == []
    assert f"{entries[0].queue_id} cannot be read" in caplog.text
    assert ask(tmp_path, "SELECT count(*) FROM smtprecv_message") == [(4,)]


async def test_fresh_mail_costs_no_read(tmp_path: Path) -> None:
    """A message that is delivered fresh is inserted and deleted, and never read."""
    disk = Disk()
    async with opened(tmp_path, disk.options()) as spool, spool.fresh(1) as fresh:
        disk.statements.clear()
        await accept(spool)
        await finish(spool, await fresh.receive())
        touching = [s.split(" (")[0] for s in disk.statements if "message" in s or "body" in s or "recipient" in s]
        assert touching == [
            "INSERT INTO smtprecv_message",
            "INSERT INTO smtprecv_body",
            "SELECT id, number, body_file, EXISTS",
            "DELETE FROM smtprecv_body WHERE message IN",
            "DELETE FROM smtprecv_recipient WHERE message IN",
            "DELETE FROM smtprecv_message WHERE number IN",
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
    """When the giving back fails, that is logged, and made up for with the first group that succeeds."""
    disk = Disk()
    async with opened(tmp_path, disk.options()) as spool:
        async with spool.fresh(1):
            entry = await accept(spool)
            disk.failing["COMMIT"] = sqlite3.SQLITE_IOERR
        disk.failing.clear()
        assert f"{entry.queue_id} stay claimed" in caplog.text
        assert await spool.next_due() is None
        (claim,) = await spool.claim(LATE, 1)
        assert claim.entry == entry
        assert list(await spool.claim(LATE, 1)) == []


async def test_only_own_claims_are_given_back(tmp_path: Path) -> None:
    """A claim that is another's is not ended by giving it back."""
    async with opened(tmp_path) as spool:
        entry = await accept(spool)
        ask(tmp_path, "UPDATE smtprecv_message SET owner = 'other'")
        connection = connect(tmp_path / "queue.sqlite")
        _claims.give_back(connection, "me", [entry.queue_id])
        assert connection.execute("SELECT owner FROM smtprecv_message").fetchall() == [("other",)]
        _claims.give_back(connection, "other", [entry.queue_id])
        assert connection.execute("SELECT owner FROM smtprecv_message").fetchall() == [(None,)]
        connection.close()


async def test_an_end_that_cannot_give_back(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """When claims cannot be given back at the end, the connection is closed; the owner's file tells of its death."""
    disk, connections = Disk(), list[sqlite3.Connection]()

    def keep(database: Path) -> sqlite3.Connection:
        connections.append(disk.connect(database))
        return connections[-1]

    async with opened(tmp_path, SpoolOptions(connect=keep)) as spool:
        await accept(spool)
        await spool.claim(LATE, 1)
        disk.failing["COMMIT"] = sqlite3.SQLITE_IOERR
    assert "claims were not given back" in caplog.text
    for connection in connections:
        with pytest.raises(sqlite3.ProgrammingError, match="closed"):
            connection.execute("SELECT 1")
    assert len(names(tmp_path / "owners")) == 1
    async with opened(tmp_path) as spool:
        assert len(await spool.claim(LATE, 1)) == 1


async def test_an_owner_that_cannot_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """An owner's file that cannot be removed at the end fails nothing."""
    async with opened(tmp_path):
        (owner,) = names(tmp_path / "owners")
        (tmp_path / "owners" / owner).unlink()
        (tmp_path / "owners" / owner).mkdir()
    assert f"left behind: {tmp_path}/owners/{owner}: " in caplog.text


async def test_the_folder_is_where_it_was_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relative path is that of the opening, wherever the process goes later."""
    monkeypatch.chdir(tmp_path)
    async with opened(Path("queue")) as spool:
        monkeypatch.chdir("/")
        await accept(spool, LARGE)
        await accept(spool)
        assert len(await spool.claim(LATE, 9)) == 2


async def test_no_thread_at_the_opening(tmp_path: Path) -> None:
    """A thread that cannot be started is one more reason why a queue cannot be opened."""

    async def without_threads(_: Callable[[], T], /) -> T:
        msg = "can't start new thread"
        raise RuntimeError(msg)

    with pytest.raises(SpoolUnusable, match="cannot be opened: can't start new thread"):
        async with open_spool(tmp_path, run_in_thread=without_threads):
            pass


async def test_no_more_files(tmp_path: Path) -> None:
    """Below the reserve of files a large message is SpoolFull; small ones, which need none, are taken."""
    options = SpoolOptions(free_files=lambda _: 63)
    async with opened(tmp_path, options) as spool:
        await accept(spool)
        with pytest.raises(SpoolFull):
            await accept(spool, LARGE)
        assert bodies(tmp_path) == []
    async with opened(tmp_path, SpoolOptions(free_files=lambda _: 64)) as spool:
        await accept(spool, LARGE)


def test_free_files(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """How many files may be made is asked of the system; a file system without a bound has no end of them."""
    statvfs = os.statvfs(tmp_path)
    values = list(statvfs)
    for total, free, expected in ((100, 7, 7), (0, 0, sys.maxsize)):
        values[5], values[7] = total, free
        monkeypatch.setattr(os, "statvfs", lambda _, values=tuple(values): os.statvfs_result(values))
        assert free_files(tmp_path) == expected


async def test_what_is_durable_before_an_acceptance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The owner's name and every one above is durable when a queue opens; a body, and its name, before its COMMIT."""
    disk = Disk()
    fsync = os.fsync

    def sync(fd: int) -> None:
        disk.statements.append(f"sync {Path(f'/proc/self/fd/{fd}').readlink()}")
        fsync(fd)

    monkeypatch.setattr(os, "fsync", sync)
    queue = tmp_path / "a" / "b" / "queue"
    async with opened(queue, disk.options()) as spool:
        above = [f"sync {path}" for path in (tmp_path, tmp_path / "a", tmp_path / "a" / "b")]
        syncs = [s for s in disk.statements if s.startswith("sync")]
        assert syncs == [*above, f"sync {queue}/owners", f"sync {queue}", f"sync {queue.parent}"]
        disk.statements.clear()
        await accept(spool, LARGE)
        (name,) = bodies(queue)
        steps = [s for s in disk.statements if s.startswith(("sync", "INSERT INTO smtprecv_message", "COMMIT"))]
        assert [step.split(" (")[0] for step in steps] == [
            f"sync {queue}/bodies/{name}",
            f"sync {queue}/bodies",
            "INSERT INTO smtprecv_message",
            "COMMIT",
        ]


async def test_a_folder_above_that_is_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A queue in a folder that may be passed but not read can be opened."""
    queue = tmp_path / "queue"
    queue.mkdir()
    do_open = os.open

    def closed(path: Path, flags: int, mode: int = 0o777) -> int:
        if Path(path) == tmp_path:
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return do_open(path, flags, mode)

    monkeypatch.setattr(os, "open", closed)
    async with opened(queue) as spool:
        await accept(spool)


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
