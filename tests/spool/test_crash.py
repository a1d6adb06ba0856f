"""Real processes on one spool: side by side, killed at every kind of system call, and with disks that fail."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

import pytest
from tests.spool.child import NOON, OCTETS
from tests.spool.spoolhouse import accept, ask, bodies, opened

from smtprecv.spool import Spool, open_spool

CHILD = Path(__file__).with_name("child.py")
ROUNDS = 6

pytestmark = [pytest.mark.slow, pytest.mark.crash]


class Child:
    """A child that has a spool open."""

    def __init__(self, queue: Path, rounds: int = ROUNDS, before: Sequence[str] = ()) -> None:
        """Start it."""
        self.said: list[list[str]] = []
        self.process = subprocess.Popen(
            [*before, sys.executable, str(CHILD), str(queue), str(rounds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def listen(self) -> None:
        """Hear it until it has done all its rounds, or is dead."""
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.said.append(line.split())
            if line == "end\n":
                return

    def finish(self, *, kill: bool = False) -> int:
        """Let it end, or kill it; give how it ended."""
        if self.process.returncode is None:
            if kill:
                self.process.kill()
            self.process.communicate("die\n")
        return self.process.wait()

    def ids(self, word: str) -> set[str]:
        """Give the ids of which it said this."""
        return {line[1] for line in self.said if line[0] == word}


class Start(Protocol):
    """Starts a child, which is dead behind the test."""

    def __call__(self, queue: Path, rounds: int = ROUNDS, before: Sequence[str] = ()) -> Child:
        """Start it."""
        ...


@pytest.fixture
def start() -> Iterator[Start]:
    """Give what starts a child."""
    children: list[Child] = []

    def start_child(queue: Path, rounds: int = ROUNDS, before: Sequence[str] = ()) -> Child:
        children.append(Child(queue, rounds, before))
        return children[-1]

    yield start_child
    for child in children:
        child.finish(kill=True)


async def check_what_is_left(queue: Path, child: Child) -> None:
    """After a restart everything acknowledged is there and whole, and nothing half."""
    async with open_spool(queue) as spool:
        claims = await spool.claim(NOON, 1000)
        left = {str(claim.entry.queue_id) for claim in claims}
        sizes = {line[1]: int(line[2]) for line in child.said if line[0] == "accepted"}
        assert child.ids("accepted") - child.ids("removing") <= left
        assert left & child.ids("removed") == set()
        assert len(left - child.ids("accepted") - child.ids("removing")) <= len(OCTETS)
        for claim in claims:
            octets = await claim.message.bytes()
            assert octets in OCTETS
            assert sizes.get(str(claim.entry.queue_id), len(octets)) == len(octets)
        large = [claim for claim in claims if claim.entry.size == len(OCTETS[-1])]
        assert len(bodies(queue)) == len(large)
    assert ask(queue, "SELECT count(*) FROM smtprecv_corrupt") == [(0,)]
    assert ask(queue, "PRAGMA integrity_check") == [("ok",)]
    assert list((queue / "owners").iterdir()) == []


async def _count(spool: Spool) -> int:
    return len(await spool.entries(limit=10_000))


async def test_two_processes_share_a_spool(tmp_path: Path, start: Start) -> None:
    """Processes on one folder see each other's messages, never each other's claims; a killed one's are void at once."""
    async with open_spool(tmp_path) as spool:
        children = [start(tmp_path), start(tmp_path)]
        mine = [await accept(spool, received=NOON) for _ in range(30)]
        for child in children:
            child.listen()
        one, two = children
        held = [child.ids("claimed") - child.ids("removed") for child in children]
        assert one.ids("claimed") & two.ids("claimed") == set()
        assert await _count(spool) == 30 + 2 * ROUNDS * (len(OCTETS) - 1)
        assert (len(held[0]), await spool.recover()) == (ROUNDS, 0)
        one.finish(kill=True)
        assert await spool.recover() == ROUNDS
        assert two.finish() == 0
        claims = await spool.claim(NOON, 1000)
        assert len(claims) == await _count(spool)
        everything = one.ids("accepted") | two.ids("accepted") | {str(entry.queue_id) for entry in mine}
        gone = one.ids("removed") | two.ids("removed")
        assert {str(claim.entry.queue_id) for claim in claims} == everything - gone
    assert ask(tmp_path, "PRAGMA integrity_check") == [("ok",)]


async def test_kill_and_reopen(tmp_path: Path, start: Start) -> None:
    """A process killed with its claims held is followed by the next at once, with no lock left over."""
    child = start(tmp_path)
    child.listen()
    assert child.finish(kill=True) == -9
    await check_what_is_left(tmp_path, child)


@pytest.fixture(scope="module")
def strace() -> str:
    """Give the path of an strace that may attach here."""
    path = shutil.which("strace")
    if path is None:
        pytest.skip("strace is not installed")
    if subprocess.run([path, "-o", "/dev/null", "true"], check=False, capture_output=True).returncode:
        pytest.skip("strace cannot attach here")
    return path


POINTS = [
    *(("fdatasync,fsync", number) for number in (1, 2, 4, 7, 11, 16)),
    *(("pwrite64", number) for number in (1, 3, 9, 27, 50, 81, 120)),
    *(("unlink,unlinkat", number) for number in (1, 2)),
    *(("ftruncate", number) for number in (1, 2)),
    ("openat", 150),
    ("write", 5),
    *(("writev", number) for number in (1, 2)),
]


@pytest.mark.parametrize(("calls", "when"), POINTS)
async def test_killed_at_a_system_call(tmp_path: Path, strace: str, start: Start, calls: str, when: int) -> None:
    """Wherever a kill strikes, the next process finds everything acknowledged, whole, and works at once."""
    inject = f"inject={calls}:signal=KILL:when={when}"
    child = start(tmp_path, before=[strace, "-f", "-qq", "-o", "/dev/null", "-e", inject])
    child.listen()
    child.finish()
    if not (tmp_path / "queue.sqlite").exists():
        assert child.said == []
    await check_what_is_left(tmp_path, child)


async def test_syncs_that_fail(tmp_path: Path, strace: str, start: Start) -> None:
    """While fsync fails, messages are refused and nothing refused is kept; afterwards the same process goes on."""
    async with opened(tmp_path):
        pass
    inject = "inject=fdatasync,fsync:error=EIO:when=5..9"
    child = start(tmp_path, rounds=10, before=[strace, "-f", "-qq", "-o", "/dev/null", "-e", inject])
    child.listen()
    assert child.finish() == 0
    words = [line[0] for line in child.said]
    assert "refused" in words
    assert "accepted" in words[words.index("refused") :]
    async with opened(tmp_path) as spool:
        left = {str(entry.queue_id) for entry in await spool.entries(limit=1000)}
    assert left == child.ids("accepted") - child.ids("removed")
    await check_what_is_left(tmp_path, child)
