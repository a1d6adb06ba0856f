"""The disk of the simulation: what a sync promises, and what a power cut may leave of the rest."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from pathlib import Path
from random import Random

import pytest
from tests.simulation.disk import (
    ROOT,
    SECTOR_SIZE,
    Disk,
    Folder,
    Link,
    Loss,
    Operation,
    Sync,
    Truncate,
    Unlink,
    Write,
)
from tests.simulation.recorder import Recorder
from tests.simulation.vfs import VFS

FILE = 1
GONE = b"gone"
OLD, NEW = b"o" * 3 * SECTOR_SIZE, b"n" * 3 * SECTOR_SIZE
SYNCED: Sequence[Operation] = (Link(ROOT, "file", FILE), Write(FILE, 0, OLD), Sync(FILE), Sync(ROOT))


def disk_after(*operations: Operation) -> Disk:
    """Give a disk on which this was done."""
    disk = Disk()
    for operation in operations:
        disk.apply(operation)
    return disk


def left(disk: Disk, loss: Loss, tries: int = 200) -> set[bytes]:
    """Give the contents that the file may have after a crash, ``GONE`` if it is not there."""
    crashed = [disk.after(loss, Random(seed)) for seed in range(tries)]
    return {each.file(FILE).content() if dict(each.paths()) else GONE for each in crashed}


@pytest.mark.parametrize("loss", Loss)
def test_what_was_synced_is_there(loss: Loss) -> None:
    """A file whose octets and whose name were synced is there, whole, whatever happened."""
    assert left(disk_after(*SYNCED), loss) == {OLD}


def test_a_sync_is_of_the_octets_or_of_the_name() -> None:
    """Neither promises the other."""
    octets_only = disk_after(Link(ROOT, "file", FILE), Write(FILE, 0, OLD), Sync(FILE))
    name_only = disk_after(Link(ROOT, "file", FILE), Write(FILE, 0, OLD), Sync(ROOT))
    assert left(octets_only, Loss.NOTHING) == {GONE}
    assert left(name_only, Loss.NOTHING) == {b""}
    assert left(octets_only, Loss.SCATTERED) == {GONE, OLD}


def test_what_is_pending_arrives_in_its_order_or_not() -> None:
    """In order, each write is there only with those before it; scattered, each sector is what it was at some time."""
    first, second = Write(FILE, 0, NEW[:SECTOR_SIZE]), Write(FILE, 2 * SECTOR_SIZE, NEW[:SECTOR_SIZE])
    disk = disk_after(*SYNCED, first, second)
    both, one = NEW[:512] + OLD[:512] + NEW[:512], NEW[:512] + OLD[:1024]
    assert left(disk, Loss.ORDERED) == {OLD, one, both}
    assert left(disk, Loss.SCATTERED) == {OLD, one, OLD[:1024] + NEW[:512], both}
    assert left(disk, Loss.KILL) == {both}


def test_a_write_may_be_torn_between_sectors_only() -> None:
    """Of one write each sector may arrive or not, but no part of a sector."""
    disk = disk_after(*SYNCED, Write(FILE, 0, NEW))
    kinds = {bytes(content[start : start + 1]) for content in left(disk, Loss.SCATTERED) for start in (0, 512, 1024)}
    assert kinds == {b"o", b"n"}
    assert len(left(disk, Loss.SCATTERED)) == 8


def test_a_size_and_the_octets_arrive_apart() -> None:
    """A file may have grown without its octets: there are zeros; a truncation may be lost, or half done."""
    grown = disk_after(*SYNCED, Write(FILE, len(OLD), b"new"))
    assert left(grown, Loss.SCATTERED) == {OLD, OLD + bytes(3), OLD + b"new"}
    cut = disk_after(*SYNCED, Truncate(FILE, 0))
    assert {OLD, b""} < left(cut, Loss.SCATTERED)
    assert left(cut, Loss.NOTHING) == {OLD}
    assert left(cut, Loss.KILL) == {b""}


def test_a_removal_may_come_undone() -> None:
    """A name that was taken away is back, until its folder is synced."""
    disk = disk_after(*SYNCED, Unlink(ROOT, "file"))
    assert left(disk, Loss.NOTHING) == {OLD}
    assert left(disk, Loss.SCATTERED) == {OLD, GONE}
    disk.apply(Sync(ROOT))
    assert left(disk, Loss.NOTHING) == {GONE}


def test_what_survived_a_kill_may_still_be_lost() -> None:
    """The writes of a process that was killed are seen by the next one, and are not durable for that."""
    killed = disk_after(*SYNCED, Write(FILE, 0, NEW)).after(Loss.KILL, Random(0))
    assert killed.file(FILE).content() == NEW
    assert left(killed, Loss.NOTHING) == {OLD}


def test_all_that_is_done_is_recorded(tmp_path: Path) -> None:
    """Python's calls and SQLite's writes, played back on the disk of before, give the files that are really there."""
    before, place = disk_after(*SYNCED), tmp_path / "disk"
    place.mkdir()
    before.make(place)
    recorder = Recorder(place, before)
    with recorder.recording_os(), VFS.recording(recorder, Random(0)):
        (place / "folder").mkdir()
        fd = os.open(place / "folder" / "a", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.write(fd, b"some")
        os.writev(fd, [b"thi", b"ng"])
        os.close(fd)
        os.link(place / "folder" / "a", place / "folder" / "b")
        (place / "folder" / "a").unlink()
        (place / "file").unlink()
        os.mkfifo(place / "pipe")
        os.close(os.open(place / "pipe", os.O_RDWR))
        for mode in ("DELETE", "WAL"):
            connection = sqlite3.connect(place / "database", isolation_level=None)
            connection.execute(f"PRAGMA journal_mode = {mode}").fetchall()
            connection.execute(f"CREATE TABLE {mode.lower()}_made AS SELECT zeroblob(20000)")
            connection.close()
    for operation in recorder.trace:
        assert isinstance(operation, Operation)
        before.apply(operation)

    assert before.differences(place) == []
    assert sorted(path for path, _ in before.paths()) == ["database", "folder", "folder/b"]
    assert not isinstance(before.nodes[dict(before.paths())["folder/b"]], Folder)
    (place / "folder" / "b").write_bytes(b"something else")
    (place / "folder" / "c").touch()
    assert before.differences(place) == ["folder/b", "folder/c"]


def test_sqlite_syncs_the_name_of_its_log(tmp_path: Path) -> None:
    """The first commit makes the log durable with its name, a later one the log; where it is told not to, neither."""
    place = tmp_path / "disk"
    place.mkdir()
    recorder = Recorder(place, Disk())
    with recorder.recording_os(), VFS.recording(recorder, Random(0)):
        connection = sqlite3.connect(place / "database", isolation_level=None)
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
        connection.execute("PRAGMA synchronous = FULL")
        syncs: list[set[int]] = []
        for name in ("a", "b"):
            recorder.trace.clear()
            connection.execute(f"CREATE TABLE {name} (number INTEGER)")
            written = {event.inode for event in recorder.trace if isinstance(event, Write)}
            syncs.append({event.inode for event in recorder.trace if isinstance(event, Sync)} - written)
        assert syncs == [{ROOT}, set()]
        connection.execute("PRAGMA synchronous = NORMAL")
        recorder.trace.clear()
        connection.execute("DROP TABLE a")
        assert {type(event) for event in recorder.trace} == {Write}
        connection.close()
