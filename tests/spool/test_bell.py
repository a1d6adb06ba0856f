"""The bells: whoever waits hears of a change, and none that is missing or full is anybody's trouble."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import trio
import trio.testing
from tests.spool.spoolhouse import accept, names, opened

from smtprecv.spool._bell import Bell, bell_path, ring_all

OWNER = "0" * 16


async def rings(bell: Bell, folder: Path) -> bool:
    """Say whether the bell is heard when all are rung."""
    heard = trio.Event()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(bell.listen, heard.set)
        await trio.testing.wait_all_tasks_blocked()
        ring_all(folder)
        with trio.move_on_after(1):
            await heard.wait()
        nursery.cancel_scope.cancel()
    return heard.is_set()


async def test_a_bell_is_heard(tmp_path: Path) -> None:
    """A bell is heard each time, is nobody else's to read, and is gone when it is closed."""
    bell = Bell(bell_path(tmp_path, OWNER))
    assert names(tmp_path) == []
    assert await rings(bell, tmp_path)
    assert await rings(bell, tmp_path)
    assert bell_path(tmp_path, OWNER).stat().st_mode & 0o777 == 0o600
    bell.close()
    bell.close()
    assert names(tmp_path) == []


async def test_no_bell_is_trouble(tmp_path: Path, caplog: pytest.LogCaptureFixture, autojump_clock: object) -> None:
    """Dead bells, and what is none, keep nobody from the others; a bell that cannot be made is one line."""
    del autojump_clock
    os.mkfifo(bell_path(tmp_path, "1" * 16))
    (tmp_path / "notes.bell").write_text("mine")
    bell = Bell(bell_path(tmp_path, OWNER))
    assert await rings(bell, tmp_path)
    assert (tmp_path / "notes.bell").read_text() == "mine"
    bell.close()
    lost = Bell(tmp_path / "none" / "bell")
    assert not await rings(lost, tmp_path)
    assert not await rings(lost, tmp_path)
    assert [record.getMessage() for record in caplog.records] == [
        f"changes by other processes are noticed late: no bell in {tmp_path}/none: No such file or directory"
    ]


async def test_a_full_bell(tmp_path: Path) -> None:
    """A bell that nobody has listened to for long keeps no ringer waiting, and is heard all the same."""
    bell = Bell(bell_path(tmp_path, OWNER))
    assert await rings(bell, tmp_path)
    fd = os.open(bell_path(tmp_path, OWNER), os.O_WRONLY | os.O_NONBLOCK)
    with pytest.raises(BlockingIOError):
        while True:
            os.write(fd, b"x" * 65536)
    os.close(fd)
    assert await rings(bell, tmp_path)
    bell.close()


async def test_bells_go_with_their_owners(tmp_path: Path) -> None:
    """A spool that is closed takes its bell away; one that died has it taken away by the next."""
    async with opened(tmp_path) as spool:
        await accept(spool)
        await spool.wait_for_mail()
        assert len(names(tmp_path / "owners")) == 2
    assert names(tmp_path / "owners") == []
    (tmp_path / "owners" / OWNER).touch()
    os.mkfifo(bell_path(tmp_path / "owners", OWNER))
    async with opened(tmp_path):
        pass
    assert names(tmp_path / "owners") == []
