"""Grouped placing: what waits is placed together, and each file has its own outcome."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import pytest
import trio
import trio.testing

from smtprecv.deliveries import _placing
from smtprecv.deliveries._mailfile import MailFile, place_together, prepare
from smtprecv.deliveries._placing import Placing

T = TypeVar("T")


class Gate:
    """Runs work inline, each piece when it is let through; a thread that cannot be had raises."""

    def __init__(self) -> None:
        """Begin closed."""
        self.capacity = trio.Semaphore(0)
        self.begun = 0
        self.has_threads = True

    async def __call__(self, work: Callable[[], T], /) -> T:
        """Run it."""
        self.begun += 1
        await self.capacity.acquire()
        if not self.has_threads:
            msg = "can't start new thread"
            raise RuntimeError(msg)
        return work()

    def open(self, count: int = 100) -> None:
        """Let so many through."""
        for _ in range(count):
            self.capacity.release()


class Jobs:
    """Starts jobs of one file each, and knows their outcomes."""

    def __init__(self, folder: Path, nursery: trio.Nursery, monkeypatch: pytest.MonkeyPatch) -> None:
        """Let there be one group at a time."""
        monkeypatch.setattr(_placing, "GROUPS", 1)
        for part in ("tmp", "new"):
            (folder / part).mkdir()
        self.gate = Gate()
        self.placing = Placing(self.gate)
        self.outcomes: dict[str, Sequence[OSError | None]] = {}
        self.scopes: dict[str, trio.CancelScope] = {}
        self._folder = folder
        self._nursery = nursery

    async def start(self, *names: str) -> None:
        """Start a job for each name, and return when nothing moves any more."""
        for name in names:
            self._nursery.start_soon(self._place, name)
        await trio.testing.wait_all_tasks_blocked()

    async def _place(self, name: str) -> None:
        file = MailFile(str(self._folder / name.partition("@")[2]), name)
        file.hold(name.encode())
        with trio.CancelScope() as self.scopes[name]:
            self.outcomes[name] = await self.placing.place([file])

    def there(self, part: str = "new") -> list[str]:
        """Give the names of the files that are in a part of the Maildir."""
        return sorted(path.name for path in (self._folder / part).iterdir())


@pytest.fixture
def syncs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Note the names of what is synced."""
    real, names = os.fsync, list[str]()

    def fsync(descriptor: int) -> None:
        names.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    return names


async def test_what_waits_is_one_group(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syncs: list[str]) -> None:
    """Jobs that begin together, or while a group is at work, share a hop, and the one fsync of their folder."""
    async with trio.open_nursery() as nursery:
        jobs = Jobs(tmp_path, nursery, monkeypatch)
        await jobs.start("a", "b")
        await jobs.start("c")
        await jobs.start("d")
        jobs.gate.open()
    assert jobs.gate.begun == 2
    assert (sorted(syncs[:2]), syncs[2:]) == (["a", "b"], ["new", "c", "d", "new"])
    assert jobs.outcomes == {name: [None] for name in "abcd"}
    assert jobs.there() == ["a", "b", "c", "d"]


async def test_several_groups_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A job waits for a group under way only where as many are at work as may be."""
    async with trio.open_nursery() as nursery:
        jobs = Jobs(tmp_path, nursery, monkeypatch)
        monkeypatch.setattr(_placing, "GROUPS", 2)
        for name in "abcd":
            await jobs.start(name)
        assert jobs.gate.begun == 2
        jobs.gate.open()
    assert jobs.gate.begun == 3
    assert jobs.there() == ["a", "b", "c", "d"]


async def test_a_group_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What does not fit into a group is the next one's, so that only so many files are open."""
    monkeypatch.setattr(_placing, "GROUP_SIZE", 2)
    async with trio.open_nursery() as nursery:
        jobs = Jobs(tmp_path, nursery, monkeypatch)
        await jobs.start(*"abcde")
        jobs.gate.open()
    assert jobs.gate.begun == 3
    assert jobs.there() == ["a", "b", "c", "d", "e"]


async def test_one_fails_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that cannot be written or synced is discarded, and the others of its group are placed."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink().name == "b":
            raise OSError(errno.EIO, "broken")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    async with trio.open_nursery() as nursery:
        jobs = Jobs(tmp_path, nursery, monkeypatch)
        await jobs.start("a", "b", "c@missing", "d")
        jobs.gate.open()
    assert {name: str(outcome) for name, [outcome] in jobs.outcomes.items() if outcome} == {
        "b": "[Errno 5] broken",
        "c@missing": f"[Errno 2] No such file or directory: '{tmp_path}/missing/tmp/c@missing'",
    }
    assert (jobs.there(), jobs.there("tmp")) == (["a", "d"], [])


@pytest.mark.parametrize("name", ["b", "c"])
async def test_cancelled_while_it_waits(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Cancellation withdraws a job whose group has not begun, its leader or not, and no other."""
    async with trio.open_nursery() as nursery:
        jobs = Jobs(tmp_path, nursery, monkeypatch)
        await jobs.start("a")
        await jobs.start("b")
        await jobs.start("c")
        jobs.scopes[name].cancel()
        await trio.testing.wait_all_tasks_blocked()
        jobs.gate.open()
    assert jobs.scopes[name].cancelled_caught
    assert jobs.there() == sorted({"a", "b", "c"} - {name})


async def test_cancelled_while_it_gathers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A leader that is cancelled before its group begins calls another."""
    async with trio.open_nursery() as nursery:
        jobs = Jobs(tmp_path, nursery, monkeypatch)
        jobs.gate.open()
        await jobs.start("a")
        for name in "bc":
            nursery.start_soon(jobs._place, name)
        while not jobs.placing._waiting:
            await trio.lowlevel.checkpoint()
        leader = jobs.placing._waiting[0]
        name = leader.files[0]._name
        jobs.scopes[name].cancel()
    assert jobs.scopes[name].cancelled_caught
    assert jobs.there() == sorted({"a", "b", "c"} - {name})


def test_control_c_while_a_group_gathers(tmp_path: Path) -> None:
    """The job of the main task, to which Control-C comes, is withdrawn, and the next one is done."""
    prepare(tmp_path, tmp_path)
    gate = Gate()
    gate.open()
    placing = Placing(gate)

    @trio.lowlevel.enable_ki_protection
    async def interrupt() -> None:
        signal.raise_signal(signal.SIGINT)

    async def main() -> None:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(interrupt)
            await placing.place([MailFile(str(tmp_path), "first")])

    with pytest.raises(BaseExceptionGroup) as raised:
        trio.run(main)
    assert raised.group_contains(KeyboardInterrupt)
    assert trio.run(placing.place, [MailFile(str(tmp_path), "second")]) == [None]
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["second"]


async def test_cancelled_at_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cancelled job whose group has begun is waited for: it knows that its file is there."""
    async with trio.open_nursery() as nursery:
        jobs = Jobs(tmp_path, nursery, monkeypatch)
        await jobs.start("a", "b")
        for name in "ab":
            jobs.scopes[name].cancel()
        await trio.testing.wait_all_tasks_blocked()
        assert jobs.outcomes == {}
        jobs.gate.open()
    assert jobs.outcomes == {"a": [None], "b": [None]}
    assert jobs.there() == ["a", "b"]


async def test_no_thread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where a group could not be run at all, its leader is told why, the others that they failed, and others go on."""
    outcomes: dict[str, Sequence[OSError | None]] = {}
    with pytest.raises(ExceptionGroup) as caught:
        async with trio.open_nursery() as nursery:
            jobs = Jobs(tmp_path, nursery, monkeypatch)
            jobs.gate.has_threads, jobs.outcomes = False, outcomes
            await jobs.start("a", "b")
            jobs.gate.open()
    assert "can't start new thread" in str(caught.value.exceptions[0])
    assert [str(outcome) for [outcome] in outcomes.values()] == ["it was not placed"]


def test_each_folder_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that cannot be synced, or has no ``new``, fails its own files, and nothing is left under ``tmp``."""
    real = os.fsync

    def fsync(descriptor: int) -> None:
        if Path(f"/proc/self/fd/{descriptor}").readlink() == tmp_path / "b/new":
            raise OSError(errno.EIO, "broken")
        real(descriptor)

    monkeypatch.setattr(os, "fsync", fsync)
    for part in ("a/tmp", "a/new", "b/tmp", "b/new", "c/tmp"):
        (tmp_path / part).mkdir(parents=True)
    outcomes = place_together([MailFile(str(tmp_path / folder), name) for folder in "abc" for name in "xy"])
    assert [outcome and outcome.errno for outcome in outcomes] == [None, None, *[errno.EIO] * 2, *[errno.ENOENT] * 2]
    assert [*tmp_path.glob("*/tmp/*")] == []


def test_a_hint_is_no_more(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A hint that the system refuses is no failure."""

    def refuse(*_arguments: int) -> None:
        raise OSError(errno.EINVAL, "refused")

    monkeypatch.setattr(os, "posix_fadvise", refuse, raising=False)
    for part in ("tmp", "new"):
        (tmp_path / part).mkdir()
    assert place_together([MailFile(str(tmp_path), name) for name in "ab"]) == [None, None]
