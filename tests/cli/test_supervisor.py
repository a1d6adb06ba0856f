"""How a supervisor and its workers agree: when a worker starts again, what it is told, who asks it to end."""

from __future__ import annotations

import errno
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from itertools import accumulate
from pathlib import Path
from typing import Never

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from smtprecv.cli import main
from smtprecv.cli._ends import SIGNALS, ends_for
from smtprecv.cli._supervisor import _program, restart
from smtprecv.cli._worker import Worker, hear, read_worker


@pytest.fixture(autouse=True)
def handlers() -> Iterator[None]:
    """Leave the signals to pytest again."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def channel() -> Iterator[tuple[socket.socket, Worker]]:
    """Give the supervisor's end of a channel, and the worker at the other end."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield ours, Worker(1, theirs.fileno(), [[0]])


def test_restart() -> None:
    """A worker starts again at once after the first death, then after 1, 2, 4 … seconds, at most 30."""
    in_a_row = list(accumulate(range(8), lambda state, _: restart(state[0], 0.5), initial=(0, 0.0)))[1:]
    assert in_a_row == [(1, 0.0), (2, 1.0), (3, 2.0), (4, 4.0), (5, 8.0), (6, 16.0), (7, 30.0), (8, 30.0)]


def test_restart_after_a_long_life() -> None:
    """Who has lived for a minute begins anew; a second less does not count."""
    assert restart(7, 60.0) == (1, 0.0)
    assert restart(7, 59.0) == (8, 30.0)


@pytest.mark.parametrize(
    ("worker", "text"),
    [
        (Worker(1, 3, [[4]]), "1:3:4"),
        (Worker(12, 5, [[6, 7], [8]]), "12:5:6,7:8"),
    ],
)
def test_worker(worker: Worker, text: str) -> None:
    """What a worker is told is one word, which it reads as it was meant."""
    assert str(worker) == text
    assert read_worker(text) == worker


@pytest.mark.parametrize("text", ["", "1", "1:2", "1:2:", "1:2:3,", "1:2:3:", "1:2:-3", "a:2:3", "1:2:3 "])
def test_no_worker(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing else is taken for such a word."""
    with pytest.raises(SystemExit) as ended:
        main(["serve", "--worker", text, "--listen", "127.0.0.1:0", "--queue", "q"])
    assert ended.value.code == 2
    assert "is not written by a supervisor" in capsys.readouterr().err


def test_the_word_is_hidden(capsys: pytest.CaptureFixture[str]) -> None:
    """The help names --workers, and not what the supervisor alone may say."""
    with pytest.raises(SystemExit):
        main(["serve", "--help"])
    out = capsys.readouterr().out
    assert "--workers N" in out
    assert "--worker " not in out


def test_ready(channel: tuple[socket.socket, Worker]) -> None:
    """A worker that takes mail says so by an octet; to a supervisor that has died it says nothing."""
    supervisor, worker = channel
    worker.tell_ready()
    assert len(hear(supervisor.fileno())) == 1
    supervisor.close()
    worker.tell_ready()


async def test_orders(channel: tuple[socket.socket, Worker]) -> None:
    """Each octet from the supervisor asks for the end, and is the number of the signal that it got."""
    supervisor, worker = channel
    with ends_for(worker) as ends:
        supervisor.sendall(bytes([signal.SIGTERM, signal.SIGINT]))
        assert [await ends.next(), await ends.next()] == ["SIGTERM", "SIGINT"]
    assert not os.get_inheritable(worker.channel)


async def test_a_death_asks_once(channel: tuple[socket.socket, Worker], autojump_clock: trio.testing.MockClock) -> None:
    """The supervisor's death asks for the end as a signal does, and does not cut it short."""
    supervisor, worker = channel
    worker.tell_ready()  # not read: the worker's end of the channel is reset
    with ends_for(worker) as ends:
        supervisor.close()
        assert await ends.next() == "the supervisor has died"
        with trio.move_on_after(3600) as waiting:
            await ends.next()
    assert waiting.cancelled_caught


async def test_a_death_behind_an_order(
    channel: tuple[socket.socket, Worker], autojump_clock: trio.testing.MockClock
) -> None:
    """A supervisor that dies after its order has said all: the drain goes on."""
    supervisor, worker = channel
    with ends_for(worker) as ends:
        supervisor.sendall(bytes([signal.SIGTERM]))
        supervisor.close()
        assert await ends.next() == "SIGTERM"
        with trio.move_on_after(3600) as waiting:
            await ends.next()
    assert waiting.cancelled_caught


async def test_signals_are_not_for_workers(channel: tuple[socket.socket, Worker]) -> None:
    """A worker heeds no signal, for systemd sends it to every process of a service, and the supervisor asks as well."""
    supervisor, worker = channel
    heard: list[str] = []

    async def listen() -> None:
        heard.append(await ends.next())

    with ends_for(worker) as ends:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            for number in SIGNALS:
                signal.raise_signal(number)
            await wait_all_tasks_blocked()
            assert heard == []
            supervisor.sendall(bytes([signal.SIGTERM]))
    assert heard == ["SIGTERM"]


@pytest.mark.parametrize(("is_module", "flags"), [(True, []), (False, ["-P"])])
def test_program(monkeypatch: pytest.MonkeyPatch, *, is_module: bool, flags: list[str]) -> None:
    """A worker imports from the working folder only if this process does: `python -m` does, a script does not."""
    spec = ModuleSpec("smtprecv.__main__", None) if is_module else None
    monkeypatch.setattr(sys.modules["__main__"], "__spec__", spec)
    assert _program() == [sys.executable, *flags, "-m", "smtprecv"]


def test_no_process(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Where the first worker cannot even be started, the status is 1, and no socket is left."""

    def refuse(*_: object, **__: object) -> Never:
        raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    monkeypatch.setattr(subprocess, "Popen", refuse)
    where = ["--listen", f"unix:{tmp_path}/s", "--queue", str(tmp_path / "q"), "--deliver", f"maildir:{tmp_path}/m"]
    assert main(["serve", "--workers", "2", *where]) == 1
    assert caplog.messages == ["worker 1 could not be started (Resource temporarily unavailable) before it took mail"]
    assert list(tmp_path.iterdir()) == []
