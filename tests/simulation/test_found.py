"""What the simulation has found, each in the few steps that it takes."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from random import Random

import pytest
from tests.simulation.disk import ROOT, Disk, Loss, Operation, Sync
from tests.simulation.plan import drawn
from tests.simulation.recorder import Recorder
from tests.simulation.simulation import simulate
from tests.simulation.vfs import VFS
from tests.spool.spoolhouse import LARGE, NOON, accept, bodies, finish, names, opened

from smtprecv.spool import Spool


class Machine:
    """A machine whose power is cut."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._disk = Disk()
        self._cuts = 0
        self._place = path

    @property
    def queue(self) -> Path:
        """The folder of the queue, as it was found last."""
        return self._place / "queue"

    @asynccontextmanager
    async def spool(self) -> AsyncGenerator[Spool, None]:
        """Open the spool on what the last power cut has left; none of it is closed when the power is cut within."""
        self._place = self._path / str(self._cuts)
        self._place.mkdir()
        self._disk.make(self._place)
        self._recorder = Recorder(self._place, self._disk)
        with self._recorder.recording_os(), VFS.recording(self._recorder, Random(0)):
            async with opened(self.queue) as spool:
                yield spool

    def kill_before_last_sync(self) -> None:
        """Kill the process before its last sync of the database's log: what it had written is seen by the next one."""
        log = self._recorder.paths["queue/queue.sqlite-wal"]
        trace = self._recorder.trace
        del trace[max(index for index, event in enumerate(trace) if event == Sync(log)) :]
        self._end()

    def _end(self) -> None:
        self._cuts += 1
        for event in self._recorder.trace:
            assert isinstance(event, Operation)
            self._disk.apply(event)
        self._recorder.trace.clear()

    def cut(self, *durable: str) -> None:
        """Cut the power: of what is pending, only the names in the folders ``durable`` were written."""
        self._end()
        inodes = {"": ROOT, **dict(self._disk.paths())}
        left = self._disk.after(Loss.KILL, Random(0))
        for path in durable:
            left.nodes[inodes[path]].settle()
        self._disk = left.after(Loss.NOTHING, Random(0))


async def test_litter_is_swept_after_a_power_cut(tmp_path: Path) -> None:
    """Where a body is left, its owner's file is as well: without that nobody would look for the body."""
    machine = Machine(tmp_path)
    async with machine.spool() as spool:
        draft = await spool.begin(NOON)
        await draft.write(LARGE)
        await draft.message()  # sealed, so durable, and named by no row
        machine.cut()
        await draft.abort()
    async with machine.spool() as spool:
        assert bodies(machine.queue) == []
        assert await spool.verify() == []


async def test_a_removal_that_came_undone_is_swept(tmp_path: Path) -> None:
    """An owner is gone for sure only when what it removed is: its last removal is durable before its own."""
    machine = Machine(tmp_path)
    async with machine.spool() as spool:
        await accept(spool, LARGE)
        [claim] = await spool.claim(NOON, 1)
        await finish(spool, claim)
    assert names(machine.queue / "owners") == []
    machine.cut("queue", "queue/owners")
    async with machine.spool() as spool:
        assert bodies(machine.queue) == []
        assert await spool.verify() == []


async def test_a_body_is_swept_only_when_its_row_is_gone_for_sure(tmp_path: Path) -> None:
    """A removal that a killed process has written, and not synced, may come undone when the power is cut later."""
    machine = Machine(tmp_path)
    async with machine.spool() as spool:
        await accept(spool, LARGE)
        [claim] = await spool.claim(NOON, 1)
        await finish(spool, claim)
        machine.kill_before_last_sync()
    async with machine.spool() as spool:
        assert bodies(machine.queue) == []
        machine.cut("queue/bodies")
    async with machine.spool() as spool:
        assert await spool.verify() == []
        assert await spool.count() == 0


@pytest.mark.parametrize("seed", [11203, 14265])
def test_a_log_begun_anew_is_the_old_one_or_the_new_one(seed: int) -> None:
    """What a power cut leaves of a write-ahead log that begins anew is never the first part of what it held before.

    These seeds found a log that was cut before its new header was durable: its first transactions counted once
    more, over a database that had all of them, and the database was malformed.
    """
    assert not simulate(drawn(seed)).violations
