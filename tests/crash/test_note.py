"""What a delivery remembers outlives the process that remembered it, and the version of the program that did."""

from __future__ import annotations

import datetime as dt
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

from smtprecv import Client, Entry, Envelope, Recipient, ReversePath, SessionId, all_entries, open_spool
from smtprecv.protocol import parse_forward_path

pytestmark = [pytest.mark.crash, pytest.mark.slow]

PROGRAM = Path(__file__).with_name("counting.py")


def killed_after(line: str, queue: Path, *arguments: str) -> Sequence[str]:
    """Run the program until it says this line, kill it, and give what it said before."""
    said: list[str] = []
    with subprocess.Popen(
        [sys.executable, PROGRAM, queue, *arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    ) as process:
        try:
            assert process.stdout is not None
            while (heard := process.stdout.readline().rstrip("\n")) != line:
                assert heard, f"ended, having said {said}"
                said.append(heard)
        finally:
            process.kill()
    return said


async def put(queue: Path) -> None:
    """Put a message into the queue."""
    recipient = Recipient(parse_forward_path("ben@example.org"))
    client = Client(SessionId("s"), None, None)
    async with open_spool(queue) as spool:
        draft = await spool.begin(dt.datetime.now(dt.UTC))
        await draft.write(b"Subject: hello\r\n\r\n")
        await draft.commit(client, Envelope(ReversePath(None), recipients=(recipient,)), dt.datetime.now(dt.UTC))


async def entries(queue: Path) -> list[Entry]:
    """Give what is in the queue."""
    async with open_spool(queue) as spool:
        return [entry async for entry in all_entries(spool)]


async def test_a_counter_outlives_kills_and_an_upgrade(tmp_path: Path) -> None:
    """The note of each try that had an outcome is there for the next; that of a try cut short is not.

    Four processes, all killed: one fails, one dies within a try, one is the program upgraded and fails
    once more, one delivers.
    """
    queue = tmp_path / "queue"
    await put(queue)

    assert killed_after("tried", queue, "--version", "1") == ["First(tries=1)"]
    [entry] = await entries(queue)
    assert (entry.attempts, entry.error) == (1, "ConnectionError: failed, First(tries=1)")

    assert killed_after("First(tries=2)", queue, "--version", "1", "--hang") == []
    assert killed_after("tried", queue, "--version", "2") == ["Second(attempts=2, was_upgraded=True)"]
    [entry] = await entries(queue)
    assert (entry.attempts, entry.error) == (2, "ConnectionError: failed, Second(attempts=2, was_upgraded=True)")

    assert killed_after("tried", queue, "--version", "2") == ["Second(attempts=3, was_upgraded=True)"]
    assert await entries(queue) == []
