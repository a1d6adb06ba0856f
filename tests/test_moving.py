"""Messages that leave a queue as pairs of files, and come into one: what is whole, what is left, what is refused."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import pytest
import trio
from tests.spool.spoolhouse import CLIENT, LATE, NOON, Disk, bodies, names, opened

from smtprecv.errors import SpoolError
from smtprecv.message import Message, QueueId
from smtprecv.moving import Arrival, Departure, Exported, Imported, export_message, import_message, pairs_in
from smtprecv.protocol import Envelope, Recipient, Reply, ReversePath, parse_forward_path
from smtprecv.spool import Change, Entry, Note, Spool
from smtprecv.spool._sqlite import SqliteSpool

SMALL = b"Received: from here\r\n\r\nlines\r\nand \xff\0 a \n bare one\r\n"
LARGE = bytes(range(256)) * 4096
RECIPIENTS = tuple(Recipient(parse_forward_path(f"{name}@example.com")) for name in ("ada", "ben", "eve"))
ENVELOPE = Envelope(ReversePath(None), recipients=RECIPIENTS)


async def accept(spool: Spool, octets: bytes) -> Entry:
    """Accept a message that has been tried, and waits to be tried again."""
    draft = await spool.begin(NOON)
    await draft.write(octets)
    entry = await draft.commit(CLIENT, ENVELOPE, NOON)
    replies = [Reply(250, "taken"), Reply(451, "later"), Reply(550, "never")]
    tried = replace(entry.after(replies, NOON, "OSError: x"), due=LATE, note=Note(2, "n"), warned=NOON)
    ((_, after),) = await spool.change([entry.queue_id], lambda _: tried)
    assert after == tried
    return tried


async def exported(folder: Path, octets: bytes = SMALL) -> tuple[Entry, Path]:
    """Give the entry of a message that was exported and removed, and its document."""
    async with opened(folder / "old") as spool:
        entry = await accept(spool, octets)
        result = await export_message(spool, entry.queue_id, folder / "out", remove=True)
    assert result.outcome is Departure.EXPORTED
    return entry, folder / "out" / f"{entry.queue_id}.json"


@pytest.mark.parametrize("octets", [SMALL, LARGE, b""])
async def test_round_trip(tmp_path: Path, octets: bytes) -> None:
    """What leaves one queue comes into another with the same octets, the same id and the same standings."""
    entry, path = await exported(tmp_path, octets)
    assert names(tmp_path / "out") == [f"{entry.queue_id}.eml", f"{entry.queue_id}.json"]
    assert path.with_suffix(".eml").read_bytes() == octets
    async with opened(tmp_path / "old") as spool:
        assert (list(await spool.entries()), bodies(tmp_path / "old")) == ([], [])
    async with opened(tmp_path / "new") as spool:
        assert await import_message(spool, path) == Imported(path, Arrival.IMPORTED, entry.queue_id)
        assert await import_message(spool, str(path)) == Imported(path, Arrival.PRESENT, entry.queue_id)
    async with opened(tmp_path / "new") as spool:
        (claim,) = await spool.claim(LATE, 9)
        assert (claim.entry, await claim.message.bytes()) == (entry, octets)
    assert len(names(tmp_path / "out")) == 2


async def test_an_export_is_private_and_always_the_same(tmp_path: Path) -> None:
    """Nobody else may read what was mail; two exports of a message are the same octets; a copy leaves all alone."""
    async with opened(tmp_path / "queue") as spool:
        entry = await accept(spool, SMALL)
        for folder in ("one", "two", "two"):
            result = await export_message(spool, entry.queue_id, str(tmp_path / folder))
            assert result == Exported(entry.queue_id, Departure.EXPORTED)
        assert list(await spool.entries()) == [entry]
    assert (tmp_path / "one").stat().st_mode & 0o777 == 0o700
    for name in names(tmp_path / "one"):
        assert (tmp_path / "one" / name).stat().st_mode & 0o777 == 0o600
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()
    assert names(tmp_path / "one") == names(tmp_path / "two")


async def test_a_pair_that_is_there(tmp_path: Path) -> None:
    """An export that was killed before the removal is done again; one whose message has changed is not written over."""
    async with opened(tmp_path / "queue") as spool:
        one, two = await accept(spool, SMALL), await accept(spool, LARGE)
        for entry in (one, two):
            await export_message(spool, entry.queue_id, tmp_path / "out")
        await spool.change([two.queue_id], lambda entry: replace(entry, is_held=True))
        before = {name: (tmp_path / "out" / name).read_bytes() for name in names(tmp_path / "out")}
        again = await export_message(spool, one.queue_id, tmp_path / "out", remove=True)
        assert again.outcome is Departure.EXPORTED
        changed = await export_message(spool, two.queue_id, tmp_path / "out", remove=True)
        path = tmp_path / "out" / f"{two.queue_id}.json"
        assert changed == Exported(two.queue_id, Departure.OCCUPIED, f"{path} is there, and is not the same")
        assert [entry.queue_id for entry in await spool.entries()] == [two.queue_id]
    assert {name: (tmp_path / "out" / name).read_bytes() for name in names(tmp_path / "out")} == before


@pytest.mark.parametrize("suffix", ["eml", "json"])
@pytest.mark.parametrize("kind", ["file", "link", "folder"])
async def test_what_is_in_the_way(tmp_path: Path, suffix: str, kind: str) -> None:
    """Whatever else has one of the names stays as it is, and so does the message; no other part of a pair is left."""
    async with opened(tmp_path / "queue") as spool:
        entry = await accept(spool, SMALL)
        (tmp_path / "out").mkdir()
        path = tmp_path / "out" / f"{entry.queue_id}.{suffix}"
        if kind == "file":
            path.write_bytes(SMALL[:-1])
        elif kind == "link":
            (tmp_path / "same").write_bytes(SMALL)
            path.symlink_to(tmp_path / "same")
        else:
            path.mkdir()
        result = await export_message(spool, entry.queue_id, tmp_path / "out", remove=True)
        assert result.outcome is Departure.OCCUPIED
        assert list(await spool.entries()) == [entry]
    assert names(tmp_path / "out") == [path.name]


async def test_busy(tmp_path: Path) -> None:
    """What somebody delivers is not taken from him, and no pair is left of it; a copy of it may be made."""
    async with opened(tmp_path / "queue") as spool:
        entry = await accept(spool, LARGE)
        (claim,) = await spool.claim(LATE, 1)
        result = await export_message(spool, entry.queue_id, tmp_path / "out", remove=True)
        assert (result, names(tmp_path / "out")) == (Exported(entry.queue_id, Departure.BUSY), [])
        await export_message(spool, entry.queue_id, tmp_path / "out")
        assert len(names(tmp_path / "out")) == 2
        await export_message(spool, entry.queue_id, tmp_path / "out", remove=True)
        assert len(names(tmp_path / "out")) == 2, "what was there before is not taken away"
        await spool.record(claim.entry)


def meddle(monkeypatch: pytest.MonkeyPatch, name: str, meddler: Callable[[Spool], Awaitable[object]]) -> None:
    """Let something happen just before a method of the spool is called for the first time."""
    method = getattr(SqliteSpool, name)

    async def meddled(spool: SqliteSpool, *arguments: object) -> object:
        monkeypatch.setattr(SqliteSpool, name, method)
        await meddler(spool)
        return await method(spool, *arguments)

    monkeypatch.setattr(SqliteSpool, name, meddled)


async def try_again(spool: Spool) -> None:
    """Try everything, in vain."""
    for claim in await spool.claim(LATE, 9):
        await spool.record(claim.entry.after([Reply(451, "later")], NOON))


async def remove(spool: Spool) -> None:
    """Remove everything."""
    await spool.change([entry.queue_id for entry in await spool.entries()], lambda _: None)


@pytest.mark.parametrize(
    ("method", "meddler", "outcome"),
    [
        ("change", try_again, Departure.BUSY),
        ("change", remove, Departure.MISSING),
        ("message_of", remove, Departure.MISSING),
    ],
)
async def test_what_happens_meanwhile(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    method: str,
    meddler: Callable[[Spool], Awaitable[object]],
    outcome: Departure,
) -> None:
    """What was tried since it was written is not removed, and what has gone is not left as a pair."""
    async with opened(tmp_path / "queue") as spool, opened(tmp_path / "queue") as other:
        entry = await accept(spool, LARGE)
        meddle(monkeypatch, method, lambda _: meddler(other))
        result = await export_message(spool, entry.queue_id, tmp_path / "out", remove=True)
        assert (result, names(tmp_path / "out")) == (Exported(entry.queue_id, outcome), [])
        assert len(await spool.entries()) == (outcome is Departure.BUSY)


async def test_missing(tmp_path: Path) -> None:
    """What is not in the queue is told, and no folder is made for it."""
    async with opened(tmp_path / "queue") as spool:
        result = await export_message(spool, QueueId("0" * 20), tmp_path / "out")
    assert (result.outcome, (tmp_path / "out").exists()) == (Departure.MISSING, False)


async def test_octets_that_cannot_be_read(tmp_path: Path) -> None:
    """A message without its body keeps nobody else from being exported."""
    async with opened(tmp_path / "queue") as spool:
        entry = await accept(spool, LARGE)
        (tmp_path / "queue" / "bodies" / bodies(tmp_path / "queue")[0]).unlink()
        result = await export_message(spool, entry.queue_id, tmp_path / "out", remove=True)
        reason = "its body is missing or not whole"
        assert result == Exported(entry.queue_id, Departure.UNREADABLE, reason)
        assert (names(tmp_path / "out"), await spool.count()) == ([], 1)


async def test_a_removal_that_fails(tmp_path: Path) -> None:
    """A removal that failed may yet become durable: the pair stays, for it may be all that is left."""
    disk = Disk()
    async with opened(tmp_path / "queue", disk.options()) as spool:
        entry = await accept(spool, SMALL)
        disk.failing["BEGIN IMMEDIATE"] = sqlite3.SQLITE_IOERR
        with pytest.raises(SpoolError):
            await export_message(spool, entry.queue_id, tmp_path / "out", remove=True)
        disk.failing.clear()
        assert len(names(tmp_path / "out")) == 2
        again = await export_message(spool, entry.queue_id, tmp_path / "out", remove=True)
        assert (again.outcome, await spool.count()) == (Departure.EXPORTED, 0)


@pytest.mark.parametrize("call", ["link", "fsync"])
async def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str) -> None:
    """Where files cannot be made or synced that is an OSError, the message stays, and no part of a pair is left."""

    def fail(*_: object) -> NoReturn:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    async with opened(tmp_path / "queue") as spool:
        entry = await accept(spool, SMALL)
        (tmp_path / "out").mkdir()
        with monkeypatch.context() as patch, pytest.raises(OSError, match="No space left"):
            patch.setattr(os, call, fail)
            await export_message(spool, entry.queue_id, tmp_path / "out", remove=True)
        assert (names(tmp_path / "out"), await spool.count()) == ([], 1)
        (tmp_path / "file").touch()
        with pytest.raises(NotADirectoryError):
            await export_message(spool, entry.queue_id, tmp_path / "file", remove=True)


async def test_a_cancelled_export(tmp_path: Path) -> None:
    """Cancellation leaves no part of a pair, and the message."""
    async with opened(tmp_path / "queue") as spool:
        entry = await accept(spool, LARGE)
        (tmp_path / "out").mkdir()
        seen: list[list[str]] = []

        async def stop_in_time() -> None:
            while not names(tmp_path / "out"):
                await trio.lowlevel.checkpoint()
            seen.append(names(tmp_path / "out"))
            scope.cancel()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(stop_in_time)
            with trio.CancelScope() as scope:
                await export_message(spool, entry.queue_id, tmp_path / "out", remove=True)
        assert scope.cancelled_caught
        assert [name.startswith(f".{entry.queue_id}.eml.") for name in seen[0]] == [True]
        assert (names(tmp_path / "out"), await spool.count()) == ([], 1)


async def test_durable_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """First the octets are on disk with their name, then the document with its own, then the message is removed."""
    steps: list[str] = []
    queue_id = "?"

    def named(path: object) -> str:
        return Path(str(path)).name.replace(queue_id, "ID").lstrip(".")[:7]

    fsync, link, change = os.fsync, os.link, SqliteSpool.change

    def fsync_(descriptor: int) -> None:
        steps.append(f"sync {named(Path(f'/proc/self/fd/{descriptor}').readlink())}")
        fsync(descriptor)

    def link_(source: Path, path: Path) -> None:
        steps.append(f"link {named(path)}")
        link(source, path)

    async def change_(spool: SqliteSpool, queue_ids: Sequence[QueueId], change_entry: Change) -> object:
        steps.append("remove")
        return await change(spool, queue_ids, change_entry)

    async with opened(tmp_path / "queue") as spool:
        entry = await accept(spool, SMALL)
        queue_id = entry.queue_id
        monkeypatch.setattr(os, "fsync", fsync_)
        monkeypatch.setattr(os, "link", link_)
        monkeypatch.setattr(SqliteSpool, "change", change_)
        (tmp_path / "to").mkdir()
        await export_message(spool, entry.queue_id, tmp_path / "to" / "out", remove=True)
        monkeypatch.undo()
    assert steps == [
        "sync to", "sync ID.eml.", "link ID.eml", "sync out", "sync ID.json", "link ID.json", "sync out", "remove",
    ]  # fmt: skip


async def test_hold(tmp_path: Path) -> None:
    """What comes in to be looked at waits for its release."""
    entry, path = await exported(tmp_path)
    async with opened(tmp_path / "new") as spool:
        await import_message(spool, path, hold=True)
        assert list(await spool.entries()) == [replace(entry, is_held=True)]
        assert list(await spool.claim(LATE, 9)) == []


async def test_import_and_remove(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The files go when the message is in the queue, and not if it was there before; that they cannot go is told."""
    entry, path = await exported(tmp_path)
    async with opened(tmp_path / "new") as spool:

        def fail(*paths: Path) -> NoReturn:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), str(paths[0]))

        with monkeypatch.context() as patch:
            patch.setattr("smtprecv.moving._import.remove", fail)
            result = await import_message(spool, path, remove=True)
        reason = f"its files were not removed: {path}: Permission denied"
        assert result == Imported(path, Arrival.IMPORTED, entry.queue_id, reason)
        there = await import_message(spool, path, remove=True)
        assert (there.outcome, len(names(path.parent))) == (Arrival.PRESENT, 2)
        await remove(spool)
        result = await import_message(spool, path, remove=True)
        assert result == Imported(path, Arrival.IMPORTED, entry.queue_id)
        assert (names(path.parent), list(await spool.entries())) == ([], [entry])


async def test_dry_run(tmp_path: Path) -> None:
    """A dry run tells what would be, and changes nothing; what would be refused is found out too."""
    entry, path = await exported(tmp_path, LARGE)
    async with opened(tmp_path / "new") as spool:
        result = await import_message(spool, path, dry_run=True, remove=True)
        assert result == Imported(path, Arrival.IMPORTED, entry.queue_id)
        path.with_suffix(".eml").write_bytes(LARGE[::-1])
        result = await import_message(spool, path, dry_run=True, remove=True)
        assert result.outcome is Arrival.REFUSED
        assert (len(names(path.parent)), await spool.count()) == (2, 0)


async def test_two_at_once(tmp_path: Path) -> None:
    """However many take the same pair in, in one process or several, it is in the queue once."""
    entry, path = await exported(tmp_path, LARGE)
    outcomes: list[str] = []

    async def take(spool: Spool) -> None:
        outcomes.append((await import_message(spool, path)).outcome.value)

    async with opened(tmp_path / "new") as spool, opened(tmp_path / "new") as other:
        async with trio.open_nursery() as nursery:
            for each in (spool, other) * 3:
                nursery.start_soon(take, each)
        assert sorted(outcomes) == ["imported", *["present"] * 5]
        message = await spool.message_of(entry.queue_id)
        assert message is not None
        assert (await message.bytes(), await spool.verify()) == (LARGE, [])
        assert len(bodies(tmp_path / "new")) == 1


def cut(path: Path) -> None:
    """Take an octet from a file."""
    os.truncate(path, path.stat().st_size - 1)


def turn(path: Path) -> None:
    """Put other octets into a file, as many."""
    path.write_bytes(path.read_bytes()[::-1])


def link(path: Path) -> None:
    """Let a name be a symbolic link to its file."""
    path.symlink_to(path.rename(path.with_name("elsewhere")))


def fifo(path: Path) -> None:
    """Let a name be a pipe, at which a reader would wait for ever."""
    path.unlink()
    os.mkfifo(path)


def folder(path: Path) -> None:
    """Let a name be a folder."""
    path.unlink()
    path.mkdir()


def escape(path: Path) -> None:
    """Name another file in the document."""
    fields: dict[str, object] = json.loads(path.read_text())
    path.write_text(json.dumps({**fields, "id": "../../etc/passwd"}))


@pytest.mark.parametrize("octets", [SMALL, LARGE])
@pytest.mark.parametrize(
    ("suffix", "spoil", "reason"),
    [
        (".eml", Path.unlink, "{path}: No such file or directory"),
        (".eml", cut, "{name} has not {size} octets"),
        (".eml", turn, "the .eml has other octets than were exported: its SHA-256 is another"),
        (".eml", link, "{path}: it is a symbolic link"),
        (".eml", fifo, "{path}: it is not a file"),
        (".eml", folder, "{path}: it is not a file"),
        (".json", Path.unlink, "{path}: No such file or directory"),
        (".json", turn, "Expecting value: line 2 column 1 (char 1)"),
        (".json", link, "{path}: it is a symbolic link"),
        (".json", fifo, "{path}: it is not a file"),
        (".json", escape, "id: '../../etc/passwd' is not the id of a message"),
    ],
)
async def test_refused(tmp_path: Path, octets: bytes, suffix: str, spoil: Callable[[Path], None], reason: str) -> None:
    """A pair that is not whole is refused with the reason, its files stay, and nothing of it is in the queue."""
    entry, path = await exported(tmp_path, octets)
    spoilt = path.with_suffix(suffix)
    spoil(spoilt)
    before = names(path.parent)
    async with opened(tmp_path / "new") as spool:
        result = await import_message(spool, path, remove=True)
        assert (list(await spool.entries()), bodies(tmp_path / "new")) == ([], [])
    told = reason.format(path=spoilt, name=spoilt.name, size=entry.size)
    queue_id = entry.queue_id if suffix == ".eml" else None
    assert result == Imported(path, Arrival.REFUSED, queue_id, told)
    assert names(path.parent) == before


async def test_a_document_that_is_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A document is read into memory, and so there is a bound to it."""
    monkeypatch.setattr("smtprecv.moving._import._MAX_DOCUMENT_SIZE", 100)
    _, path = await exported(tmp_path)
    async with opened(tmp_path / "new") as spool:
        result = await import_message(spool, path)
    assert result == Imported(path, Arrival.REFUSED, None, "it has more than 100 octets")


async def test_an_octet_file_that_shrinks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that changes while it is read is refused."""
    _, path = await exported(tmp_path, LARGE)

    async def shrink(_: Spool) -> None:
        os.truncate(path.with_suffix(".eml"), 300_000)

    async with opened(tmp_path / "new") as spool:
        meddle(monkeypatch, "begin", shrink)
        result = await import_message(spool, path)
        assert (result.outcome, await spool.count()) == (Arrival.REFUSED, 0)


async def test_a_queue_that_fails(tmp_path: Path) -> None:
    """What the queue cannot take is a SpoolError, and nothing of it is there; its files stay."""
    _, path = await exported(tmp_path, LARGE)
    disk = Disk()
    async with opened(tmp_path / "new", disk.options()) as spool:
        disk.room = 0
        with pytest.raises(SpoolError):
            await import_message(spool, path, remove=True)
        assert (await spool.count(), bodies(tmp_path / "new"), len(names(path.parent))) == (0, [], 2)


async def test_pairs_in(tmp_path: Path) -> None:
    """A folder stands for the documents in it, hidden ones left out; anything else for itself, there or not."""
    for name in ("b.json", "a.json", "a.eml", ".c.json", "d.json.bak"):
        (tmp_path / name).touch()
    assert await pairs_in(tmp_path) == [tmp_path / "a.json", tmp_path / "b.json"]
    assert await pairs_in(str(tmp_path / "b.json")) == [tmp_path / "b.json"]
    assert await pairs_in(tmp_path / "none.json") == [tmp_path / "none.json"]


async def test_a_message_that_has_gone_while_it_was_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was delivered while it was copied is missing, and no fault."""
    message_of = SqliteSpool.message_of

    async def gone(spool: SqliteSpool, queue_id: QueueId) -> Message | None:
        message = await message_of(spool, queue_id)
        await remove(spool)
        return message

    async with opened(tmp_path / "queue") as spool:
        entry = await accept(spool, LARGE)
        monkeypatch.setattr(SqliteSpool, "message_of", gone)
        result = await export_message(spool, entry.queue_id, tmp_path / "out")
        assert (result, names(tmp_path / "out")) == (Exported(entry.queue_id, Departure.MISSING), [])
