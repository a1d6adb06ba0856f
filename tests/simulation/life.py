"""One life of the process: the real server, spool and queue, under a clock of its own, on the files of a folder."""

from __future__ import annotations

import datetime as dt
import logging
import secrets
import sqlite3
from collections.abc import AsyncGenerator, Callable, Generator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from random import Random
from typing import Final, TypeVar, final
from unittest.mock import patch

import trio
import trio._core._run as trio_run
import trio.testing
from tests.simulation.plan import Life, Mail
from tests.simulation.recorder import Recorder
from tests.simulation.sights import Odd, Recorded
from tests.simulation.vfs import VFS
from tests.simulation.world import Destination, SimulatedClient

from smtprecv.message import QueueId
from smtprecv.protocol import Config
from smtprecv.queue import Bounces, run_once, run_queue
from smtprecv.queue._bounces import Reporter, Result
from smtprecv.retry import Backoff
from smtprecv.server import Server, SpoolIntake
from smtprecv.spool import Claim, Entry, Spool, SpoolOptions, open_spool

T = TypeVar("T")

RETRY: Final = Backoff(first=dt.timedelta(seconds=20), longest=dt.timedelta(seconds=60))
EPOCH: Final = dt.datetime(2026, 1, 1, tzinfo=dt.UTC)
LIFETIME: Final = dt.timedelta(hours=1)
"""From the beginning of one life to that of the next."""

_ROUNDS: Final = 60
"""Looks at the queue, until which a healthy delivery has emptied it."""


async def on_the_spot(work: Callable[[], T], /) -> T:
    """Run what blocks without a thread: MockClock takes a task that waits for one as idle."""
    await trio.lowlevel.checkpoint()
    return work()


@final
@dataclass(frozen=True, slots=True)
class Process:
    """What a process runs on: a folder that begins as a disk, and a seed for all its chance."""

    place: Path
    recorder: Recorder
    seed: str
    mails: Mapping[str, Mail]
    wal_limit: int
    number: int

    def live(self, life: Life) -> None:
        """Live: receive and deliver until the time is over, and close."""
        with self._running():
            trio.run(self._live, life, clock=trio.testing.MockClock(autojump_threshold=0))
        self._look_at_claims()

    def recover(self) -> list[Entry]:
        """Come back with a delivery that is well, and empty the queue; give what is left, which is all failed."""
        with self._running():
            left = trio.run(self._recover, clock=trio.testing.MockClock(autojump_threshold=0))
        self._look_at_claims()
        return left

    async def _live(self, life: Life) -> None:
        async with self._opened() as spool, trio.open_nursery() as nursery:
            destination = Destination(self.recorder.saw, self.mails, self.seed)
            bounces = Bounces(destination, hostname="mx.example.net")
            server = Server(SpoolIntake(spool, self.now), config=Config("mx.example.net"))
            if life.is_lean:
                nursery.start_soon(self._pass_by, spool, destination, bounces, life.seconds / 2)
            else:
                await nursery.start(
                    partial(run_queue, spool, destination, RETRY, now=self.now, bounces=bounces, concurrency=3)
                )
            for sending in life.sendings:
                nursery.start_soon(SimulatedClient(server, self.recorder.saw).send, sending)
            await trio.sleep(life.seconds)
            nursery.cancel_scope.cancel()

    async def _pass_by(self, spool: Spool, destination: Destination, bounces: Bounces, wait: float) -> None:
        await trio.sleep(wait)
        await run_once(spool, destination, RETRY, now=self.now, bounces=bounces)

    async def _recover(self) -> list[Entry]:
        async with self._opened() as spool, trio.open_nursery() as nursery:
            destination = Destination(self.recorder.saw, self.mails)
            bounces = Bounces(destination, hostname="mx.example.net")
            await nursery.start(partial(run_queue, spool, destination, RETRY, now=self.now, bounces=bounces))
            left = list(await spool.entries())
            for _ in range(_ROUNDS):
                if not any(entry.pending for entry in left):
                    break
                await trio.sleep(10)
                left = list(await spool.entries())
            await self._verify(spool)
            nursery.cancel_scope.cancel()
        return left

    def now(self) -> dt.datetime:
        """Give the wall time, which runs on with Trio's clock and from life to life."""
        return EPOCH + self.number * LIFETIME + dt.timedelta(seconds=trio.current_time())

    @asynccontextmanager
    async def _opened(self) -> AsyncGenerator[Spool, None]:
        options = SpoolOptions(memory_size=4000, reserve_size=0, wal_limit=self.wal_limit)
        async with open_spool(self.place / "queue", run_in_thread=on_the_spot, options=options) as spool:
            await self._verify(spool)
            yield spool

    async def _verify(self, spool: Spool) -> None:
        for fault in await spool.verify():
            self.recorder.saw(Odd(fault))

    def _look_at_claims(self) -> None:
        """See whether a claim has outlived its owner: nobody has the queue open now."""
        connection = sqlite3.connect(self.place / "queue" / "queue.sqlite")
        claimed = connection.execute("SELECT id FROM smtprecv_message WHERE owner IS NOT NULL").fetchall()
        connection.close()
        for (queue_id,) in claimed:
            self.recorder.saw(Odd(f"{queue_id} is claimed by the dead"))

    @contextmanager
    def _running(self) -> Generator[None, None, None]:
        """Let everything be recorded, and nothing be left to other chance than that of the seed."""
        chance = Random(self.seed)
        store = Reporter.store

        async def noted_store(
            reporter: Reporter, spool: Spool, claim: Claim, result: Result, now: dt.datetime, *, is_whole: bool
        ) -> QueueId | None:
            report = await store(reporter, spool, claim, result, now, is_whole=is_whole)
            self.recorder.saw(Recorded(claim.entry.queue_id))
            return report

        trio_run._r.seed(self.seed)
        with (
            self.recorder.recording_os(),
            VFS.recording(self.recorder, chance),
            patch.object(trio_run, "_ALLOW_DETERMINISTIC_SCHEDULING", new=True),
            patch.object(secrets, "randbits", chance.getrandbits),
            patch.object(secrets, "token_hex", lambda size: chance.randbytes(size).hex()),
            patch.object(Reporter, "store", noted_store),
            _listening(self.recorder),
        ):
            yield


@contextmanager
def _listening(recorder: Recorder) -> Generator[None, None, None]:
    """Take a logged error for a sight, but for that of a delivery which is meant to raise."""

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            text = record.getMessage()
            if not text.endswith("the delivery raised"):
                recorder.saw(Odd(f"log: {text}"))

    log, ear = logging.getLogger("smtprecv"), Ear(logging.ERROR)
    log.addHandler(ear)
    try:
        with patch.object(log, "propagate", new=False):
            yield
    finally:
        log.removeHandler(ear)
