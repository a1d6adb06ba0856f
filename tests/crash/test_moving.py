"""Messages on their way between queues: wherever a kill strikes, none is lost, and doing it again ends it."""

from __future__ import annotations

import subprocess
from collections.abc import Mapping
from pathlib import Path

import pytest
import trio
from tests.crash.load import strace
from tests.e2e.served import COMMAND, smtprecv

from smtprecv.message import Client, QueueId, SessionId, utc_now
from smtprecv.moving import Arrival, import_message, pairs_in
from smtprecv.protocol import Envelope, Recipient, ReversePath, parse_forward_path
from smtprecv.spool import all_entries, open_spool

pytestmark = [pytest.mark.crash, pytest.mark.slow]

OCTETS = (b"small\r\n", b"large\r\n" * 15_000, b"other\r\n")
POINTS = [
    *(("fsync", number) for number in (1, 3, 4, 9)),
    *(("fdatasync", number) for number in (1, 3)),
    *(("link,linkat", number) for number in (1, 2)),
    *(("unlink,unlinkat", number) for number in (1, 2, 4)),
    ("pwrite64", 9),
]


async def fill(queue: Path) -> None:
    """Accept the messages."""
    envelope = Envelope(ReversePath(None), recipients=(Recipient(parse_forward_path("ben@example.org")),))
    async with open_spool(queue) as spool:
        for octets in OCTETS:
            draft = await spool.begin(utc_now())
            await draft.write(octets)
            await draft.commit(Client(SessionId("s"), None, None), envelope, utc_now())


async def messages(queue: Path) -> Mapping[QueueId, bytes]:
    """Give the messages in a queue, which has no fault."""
    found: dict[QueueId, bytes] = {}
    async with open_spool(queue) as spool:
        async for entry in all_entries(spool):
            message = await spool.message_of(entry.queue_id)
            assert message is not None
            found[entry.queue_id] = await message.bytes()
        assert list(await spool.verify()) == []
    return found


async def pairs(folder: Path, scratch: Path) -> Mapping[QueueId, bytes]:
    """Give the messages of the pairs in a folder: each that has a document is whole."""
    if folder.exists():
        async with open_spool(scratch) as spool:
            for path in await pairs_in(folder):
                assert (await import_message(spool, path)).outcome is Arrival.IMPORTED
        return await messages(scratch)
    return {}


def killed(calls: str, when: int, *arguments: str | Path) -> None:
    """Run a verb that is killed at a system call."""
    inject = f"inject={calls}:signal=KILL:when={when}"
    subprocess.run(
        [strace(), "-f", "-qq", "-o", "/dev/null", "-e", inject, *COMMAND, "queue", *map(str, arguments)],
        check=False,
        capture_output=True,
    )


@pytest.mark.parametrize(("calls", "when"), POINTS)
def test_a_killed_export(tmp_path: Path, calls: str, when: int) -> None:
    """Every message is in the queue or in a whole pair, and when it is done again all are in pairs alone."""
    queue, out = tmp_path / "queue", tmp_path / "out"
    trio.run(fill, queue)
    before = trio.run(messages, queue)
    export = ("export", "--queue", queue, "--to", out, "--remove", "ALL")
    killed(calls, when, *export)
    left = trio.run(messages, queue)
    assert {**left, **trio.run(pairs, out, tmp_path / "scratch")} == before
    assert smtprecv("queue", *export).returncode == 0
    assert (trio.run(messages, queue), trio.run(pairs, out, tmp_path / "other")) == ({}, before)


@pytest.mark.parametrize(("calls", "when"), POINTS)
def test_a_killed_import(tmp_path: Path, calls: str, when: int) -> None:
    """Every message is in a whole pair or in the queue, and when it is done again all are in the queue, once."""
    queue, out = tmp_path / "queue", tmp_path / "out"
    trio.run(fill, tmp_path / "old")
    before = trio.run(messages, tmp_path / "old")
    assert smtprecv("queue", "export", "--queue", tmp_path / "old", "--to", out, "--remove", "ALL").returncode == 0
    import_ = ("import", "--queue", queue, "--remove", out)
    killed(calls, when, *import_)
    there = trio.run(messages, queue)
    assert {**there, **trio.run(pairs, out, tmp_path / "scratch")} == before
    assert smtprecv("queue", *import_).returncode == 0
    assert trio.run(messages, queue) == before
